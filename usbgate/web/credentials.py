"""
Who a client of the HTTP API is: by a token in the header `Authorization`, or in the cookie of a browser that has logged
in.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from usbgate.access.authority import Authority
from usbgate.access.doors import Door
from usbgate.access.roles import Access, Role
from usbgate.access.sessions import SESSION_LIFE
from usbgate.core.errors import Unauthenticated
from usbgate.net.peeruser import peer_user
from usbgate.net.rates import Rates, payers
from usbgate.web.channel import LOCAL_HOST, client_of, host_of

COOKIE = "usbgate"

# No `Path`: browsers then take the folder of the call, as they see it behind a proxy, and send it to no other program
# there. `SameSite=Strict`: no other site can make a browser send it.
_ATTRIBUTES = "HttpOnly; SameSite=Strict"

# RFC 7239: elements between commas, which are pairs between semicolons. A proxy appends its own, which is well-formed,
# to whatever the client has sent.
_LAST_ELEMENT = re.compile(r'(?:^|,)((?:"[^"]*"|[^",])*)$')
_PAIR = re.compile(r'\s*([^=;"]+)=(?:"([^"]*)"|([^;"]*))(?:;|$)')

# `192.0.2.60`, `192.0.2.60:4711`, `[2001:db8::1]`, `[2001:db8::1]:4711`, `2001:db8::1`.
_NODE = re.compile(r"([0-9.]+)(?::[0-9]+)?|\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9A-Fa-f:.]+)")

_BEARER = re.compile(r"bearer +([!-~]+)", re.IGNORECASE)


class Credentials:
    """
    Finds out who clients are.

    Attributes:
        door: What clients may do without a token.
    """

    def __init__(self, reactor: IReactorTime, authority: Authority, door: Door, rates: Rates) -> None:
        """
        Args:
            reactor: For delays after a wrong token.
            authority: Knows the tokens.
            door: See the attribute.
            rates: How many requests each address and each token may make.
        """
        self._rates = rates
        self._reactor = reactor
        self._authority = authority
        self.door = door

    async def admit(self, request: Any, role: Role) -> None:
        """
        Find out what the client of a request may do.

        Args:
            request: The request; its `access` is set.
            role: The role that it requires.

        Raises:
            LimitExceeded: It makes too many requests.
            Unauthenticated: It has sent no token and its role is too low, or its token is wrong.
            Denied: Its role is too low.
        """
        self.count(request)
        # Another scheme is a proxy's own password.
        bearer = _BEARER.fullmatch((request.getHeader("Authorization") or "").strip())
        cookie = request.getCookie(COOKIE.encode())
        access = None
        if bearer is not None:
            access = await self.authenticate(request, bearer[1])
        elif cookie:
            access = self._authority.resume(cookie.decode("ascii", "replace"))
            if access is None:  # its session has ended; without it, the client may still do what anybody may
                self._set_cookie(request, "", 0)
        if access is None:
            access = self.without_token(request)
        elif access.token is not None:
            self._rates.check(payers(LOCAL_HOST, access.token.name))  # its address has been counted
        request.access = access
        self._authority.check(access, role)

    def count(self, request: Any) -> None:
        """
        Count a request for the address of its client, which is known from now on (`host_of`).

        Raises:
            LimitExceeded: There were too many.
        """
        if self.door.proxied:
            request.forwarded_for = _forwarded_for(request)
        self._rates.check(payers(host_of(request), None))

    async def authenticate(self, request: Any, secret: str) -> Access:
        """
        Return what a token permits.

        Raises:
            Unauthenticated: It is wrong; raised only after a while.
        """
        host = host_of(request)
        access = self._authority.authenticate(secret, host, client_of(request))
        await self._check(access, host)
        return access

    async def log_in(self, request: Any, secret: str) -> Access:
        """
        Begin a session: the browser sends its secret from now on. No script can read it.

        Args:
            request: The request of the browser; a session that it has already ends.
            secret: A token.

        Raises:
            Unauthenticated: The token is wrong; raised only after a while.
        """
        host = host_of(request)
        access, session = self._authority.log_in(secret, host, client_of(request))
        await self._check(access, host)
        self._end_session(request)
        self._set_cookie(request, session, SESSION_LIFE)
        return access

    def log_out(self, request: Any) -> Access | None:
        """
        End the session of a browser; return what it could do by that, or None if there was none.
        """
        ended = self._end_session(request)
        self._set_cookie(request, "", 0)
        return ended

    async def _check(self, access: Access, host: str) -> None:
        if access.refusal is not None:
            await deferLater(self._reactor, self._authority.failures.delay(host))
            raise Unauthenticated(access.refusal, "no such token", is_recorded=True)  # by `Failures`

    def without_token(self, request: Any) -> Access:
        """
        Return what the client of a request may do without its token.
        """
        channel = request.channel
        return self._authority.admit(self.door, channel.is_local, peer_user(channel.transport), channel.host)

    def _end_session(self, request: Any) -> Access | None:
        secret = (request.getCookie(COOKIE.encode()) or b"").decode("ascii", "replace")
        ended = self._authority.resume(secret)
        if ended is not None:
            self._authority.log_out(secret)
        return ended

    def _set_cookie(self, request: Any, value: str, age: int) -> None:
        encrypted = request.isSecure() or (self.door.proxied and request.getHeader("X-Forwarded-Proto") == "https")
        secure = "; Secure" if encrypted else ""
        text = f"{COOKIE}={value}; Max-Age={age}; {_ATTRIBUTES}{secure}"
        request.responseHeaders.addRawHeader("Set-Cookie", text)


def _forwarded_for(request: Any) -> str | None:
    # The last address: it is from the proxy before us, and those before it may be the client's invention.
    header = (request.requestHeaders.getRawHeaders("X-Forwarded-For") or [""])[-1]
    found = header.rpartition(",")[2].strip()
    if not found:
        element = _LAST_ELEMENT.search((request.requestHeaders.getRawHeaders("Forwarded") or [""])[-1])
        pairs = _PAIR.findall(element[1]) if element is not None else ()
        found = next((quoted or plain for name, quoted, plain in pairs if name.lower() == "for"), "")
    node = _NODE.fullmatch(found)
    try:
        return None if node is None else str(ip_address(node[1] or node[2] or node[3]))
    except ValueError:
        return None
