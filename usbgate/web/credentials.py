"""
Who a client of the HTTP API is: by a token in the header `Authorization`, or in the cookie of a browser that has logged
in.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from usbgate.access.authority import Authority
from usbgate.access.doors import Door
from usbgate.access.roles import Access, Role
from usbgate.core.errors import Unauthenticated
from usbgate.net.peeruser import peer_user
from usbgate.web.channel import host_of

COOKIE = "usbgate"
COOKIE_AGE = 400 * 86_400  # seconds: browsers keep none longer

# No `Path`: browsers then take the folder of the call, as they see it behind a proxy, and send it to no other program
# there. `SameSite=Strict`: no other site can make a browser send it.
_ATTRIBUTES = "HttpOnly; SameSite=Strict"

_BEARER = re.compile(r"bearer +([!-~]+)", re.IGNORECASE)


class Credentials:
    """
    Finds out who clients are.
    """

    def __init__(self, reactor: IReactorTime, authority: Authority, door: Door) -> None:
        """
        Args:
            reactor: For delays after a wrong token.
            authority: Knows the tokens.
            door: What clients may do without a token.
        """
        self._reactor = reactor
        self._authority = authority
        self._door = door

    async def admit(self, request: Any, role: Role) -> Access:
        """
        Return what the client of a request may do.

        Args:
            request: The request.
            role: The role that it requires.

        Raises:
            Unauthenticated: It has sent no token and its role is too low, or its token is wrong.
            Denied: Its role is too low.
        """
        # Another scheme is a proxy's own password.
        bearer = _BEARER.fullmatch((request.getHeader("Authorization") or "").strip())
        cookie = request.getCookie(COOKIE.encode())
        access = None
        if bearer is not None:
            access = await self.authenticate(request, bearer[1])
        elif cookie:
            access = self._authority.authenticate(cookie.decode("ascii", "replace"), host_of(request))
            if access.refusal is not None:
                # Its token was removed. Without it, the client may still do what anybody may.
                self.forget(request)
                access = None
        if access is None:
            access = self.without_token(request)
        self._authority.check(access, role)
        return access

    async def authenticate(self, request: Any, secret: str) -> Access:
        """
        Return what a token permits.

        Raises:
            Unauthenticated: It is wrong; raised only after a while.
        """
        host = host_of(request)
        access = self._authority.authenticate(secret, host)
        if access.refusal is not None:
            await deferLater(self._reactor, self._authority.delay(host))
            raise Unauthenticated(access.refusal)
        return access

    def without_token(self, request: Any) -> Access:
        """
        Return what the client of a request may do without its token.
        """
        return self._door.admit(peer_user(request.channel.transport))

    def remember(self, request: Any, secret: str) -> None:
        """
        Let a browser send this token from now on. No script can read it.
        """
        secure = "; Secure" if request.isSecure() else ""
        _set_cookie(request, f"{COOKIE}={secret}; Max-Age={COOKIE_AGE}; {_ATTRIBUTES}{secure}")

    def forget(self, request: Any) -> None:
        """
        Let a browser send no token from now on.
        """
        _set_cookie(request, f"{COOKIE}=; Max-Age=0; {_ATTRIBUTES}")


def _set_cookie(request: Any, text: str) -> None:
    request.responseHeaders.addRawHeader("Set-Cookie", text)
