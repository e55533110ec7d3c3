"""
The local token: with it, a program that can read the state folder may do everything, over TCP, too. The commands of
`usbgate` find it by themselves.

It is new at each start of the daemon. Its file also has the addresses on which this daemon listens, so that nobody
sends the token to another program: the first line is the token, the others are `HOST PORT`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime
from twisted.logger import Logger

from usbgate.access.authority import Authority
from usbgate.access.tokens import digest, new_secret
from usbgate.daemon.files import replace_file

LOCAL_FILE = "local-token"
RETRY_INTERVAL = 10.0  # seconds between two attempts to write it, while the disk is full
_ANY = {"0.0.0.0", "::"}


class LocalToken(Service):
    """
    Makes the local token while the daemon runs.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        folder: Path,
        authority: Authority,
        ports: Callable[[], Iterable[IListeningPort]],
    ) -> None:
        """
        Args:
            reactor: For the interval.
            folder: The state folder.
            authority: Accepts the token.
            ports: Returns the ports of line clients, once they are open.
        """
        self._reactor = reactor
        self._file = folder / LOCAL_FILE
        self._authority = authority
        self._ports = ports
        self._next: IDelayedCall | None = None  # attempt to write the file

    def startService(self) -> None:
        """
        Make the token; while its file can't be written, try again.
        """
        super().startService()
        self._make(is_first=True)

    def _make(self, is_first: bool = False) -> None:
        self._next = None
        secret = new_secret()
        addresses = [port.getHost() for port in self._ports()]
        known = [each for each in addresses if isinstance(each, IPv4Address | IPv6Address)]
        text = "\n".join([secret, *(f"{each.host} {each.port}" for each in known), ""])
        try:
            replace_file(self._file, text.encode(), durable=False)  # after a power cut there is another one
        except OSError as error:  # a full disk is no reason not to start
            if is_first:
                self.log.warn("{file} cannot be written: {reason}", file=self._file, reason=error.strerror)
            self._next = self._reactor.callLater(RETRY_INTERVAL, self._make)
        else:
            self._authority.local = digest(secret)

    def stopService(self) -> None:
        """
        Remove the token.
        """
        super().stopService()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._authority.local = None
        with suppress(OSError):
            self._file.unlink()


def find_local_token(folder: Path, host: str, port: int) -> str | None:
    """
    Return the local token of the daemon that listens on an address of this machine; None if it can't be read, or if
    that daemon does not listen there.

    Args:
        folder: Its state folder.
        host: The IP address.
        port: The port.
    """
    try:
        secret, *addresses = (folder / LOCAL_FILE).read_text("ascii").split("\n")
    except (OSError, UnicodeDecodeError):
        return None
    for address in addresses:
        own, _, number = address.partition(" ")
        if number == str(port) and (own == host or own in _ANY):
            return secret
    return None
