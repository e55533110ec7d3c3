"""
Who a client is: its address, its user or its token, and what that permits (protocol §3, roles).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from usbgate.access.authority import Authority
from usbgate.access.doors import Door
from usbgate.access.roles import Access, Role
from usbgate.net.places import is_local
from usbgate.net.rates import payers


class Peer:
    """
    The other end of one connection.

    Attributes:
        origin: Its host, or `local` on a Unix socket: `ORIGIN` of requests that have none.
        is_local: Whether it is on this machine.
        name: Its host and port, behind the name of its token or user, for the log and for the record of requests.
        user: The number of its user, on a Unix socket, once that is known.
        access: What it may do; at first, nothing.
        payers: For whom what it does counts (see `Rates`).
    """

    def __init__(
        self,
        reactor: IReactorTime,
        authority: Authority,
        address: IAddress | None,
        door: Door,
        delayed: Callable[[], None],
        ended: Callable[[str], None],
    ) -> None:
        """
        Args:
            reactor: For the delay.
            authority: Knows the tokens.
            address: The peer's address.
            door: Where it connects.
            delayed: Called whenever `is_delayed` changes.
            ended: Called with the reason when its access ends: see `Authority.follow`.
        """
        self.origin = str(getattr(address, "host", "local"))
        self.is_local = is_local(self.origin)
        port = getattr(address, "port", None)
        self.name = self._address = self.origin if port is None else f"{self.origin}:{port}"
        self.user: int | None = None
        self.access = Access(Role.NONE)
        self.payers: Sequence[str] = ()
        self._reactor = reactor
        self._authority = authority
        self._door = door
        self._delayed = delayed
        self._ended = ended
        self._unfollow: Callable[[], None] = lambda: None
        self._delay: IDelayedCall | None = None

    @property
    def is_delayed(self) -> bool:
        """
        Whether it has sent a wrong token a short while ago, so that nothing more is read from it.
        """
        return self._delay is not None

    def without_token(self) -> Access:
        """
        Return what it may do without a token.
        """
        return self._authority.admit(self._door, self.is_local, self.user, self.origin)

    def admit(self, access: Access) -> None:
        """
        Let it do something else from now on.

        Raises:
            LimitExceeded: There are too many connections with this token; nothing has changed.
        """
        unfollow = self._authority.follow(access, self.without_token, self._ended)
        self._unfollow()
        self._unfollow = unfollow
        self.access = access
        self.name = self.sign(access)
        self.payers = self.payers_of(access)

    def sign(self, access: Access) -> str:
        """
        Return its name, if it did something with other rights than its own.
        """
        return access.sign(self._address)

    def payers_of(self, access: Access) -> Sequence[str]:
        """
        Return for whom something counts that it does with these rights.
        """
        return payers(self.origin, None if access.token is None else access.token.name)

    def authenticate(self, secret: str) -> Access:
        """
        Return what a token permits. A wrong one makes it `is_delayed`.
        """
        access = self._authority.authenticate(secret, self.origin, self.name)
        if access.refusal is not None and self._delay is None:
            self._delay = self._reactor.callLater(self._authority.failures.delay(self.origin), self._delay_over)
            self._delayed()
        return access

    def _delay_over(self) -> None:
        self._delay = None
        self._delayed()

    def connection_lost(self) -> None:
        """
        It is gone.
        """
        self._unfollow()
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
