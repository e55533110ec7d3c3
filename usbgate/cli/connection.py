"""
A small client that blocks: what the commands `usbgate ask`, `usbgate devices` … speak (protocol §3).

Nothing here imports Twisted, so that a request from a shell costs no more than Python's own start.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT, format_line, parse
from usbgate.core.linebuffer import LineBuffer

# A TCP host and port, or the path of a Unix socket.
Address = tuple[str, int] | str

# Bytes: an answer is a device's line, `LINE_LIMIT` long at most, and what usbgate adds to it; but a line of `sensors`
# names all fields of one.
ANSWER_LIMIT = 256 * LINE_LIMIT

CONNECT_LIMIT = 5.0  # seconds; a host that takes none of our packets says nothing at all

# Nobody listens there: refused, or no such Unix socket. Other errors mean that the way there is not in order.
_NOBODY = frozenset([errno.ECONNREFUSED, errno.ENOENT])


class AskError(Exception):
    """
    There is no answer; the text says why.

    Attributes:
        status: The exit status of the command.
    """

    status = 1


class NoDaemon(AskError):
    """
    There is no usbgate to ask.
    """

    status = 5


class ConnectionLost(AskError):
    """
    usbgate hung up before it answered.
    """


class RequestRefused(AskError):
    """
    usbgate told of an error (protocol §3).
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.status = {"timeout": 3, "offline": 4}.get(code, 1)


def spell(address: Address) -> str:
    """
    Write an address for a person.
    """
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Connection:
    """
    A connection to usbgate, a line at a time.
    """

    def __init__(self, channel: socket.socket, address: Address) -> None:
        self._channel = channel
        self._address = address
        self._buffer = LineBuffer(ANSWER_LIMIT)
        self._lines: list[bytes] = []

    def send(self, line: str) -> None:
        """
        Write one line.
        """
        # A daemon that hangs up now is found out by the next `receive`.
        with suppress(ConnectionError):
            self._channel.sendall(line.encode() + b"\n")

    def receive(self, deadline: float) -> str:
        """
        Wait for one line.

        Args:
            deadline: Until when, on the monotonic clock; infinite to wait for ever.

        Raises:
            ConnectionLost: The connection ended.
            RequestRefused: Nothing came in time.
        """
        while not self._lines:
            left = deadline - time.monotonic()
            if left <= 0:
                raise RequestRefused("timeout", f"usbgate at {spell(self._address)} said nothing more in time")
            self._channel.settimeout(None if left == float("inf") else left)
            try:
                data = self._channel.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                data = b""
            if not data:
                raise ConnectionLost(f"usbgate at {spell(self._address)} closed the connection before it answered")
            self._lines = self._buffer.feed(data)[::-1]
        return self._lines.pop().decode("utf-8", "replace")

    def close(self) -> None:
        """
        Hang up.
        """
        self._channel.close()


def connect(address: Address, within: float = CONNECT_LIMIT) -> Connection | None:
    """
    Reach usbgate.

    Args:
        address: Where it listens.
        within: Seconds to wait for the connection.

    Returns:
        None where nobody listens.

    Raises:
        NoDaemon: The address can't be reached for another reason.
    """
    try:
        if isinstance(address, str):
            channel = socket.socket(socket.AF_UNIX)
            channel.settimeout(within)
            try:
                channel.connect(address)
            except OSError:
                channel.close()
                raise
        else:
            channel = socket.create_connection(address, within)
            if is_self_connected(channel):
                return None
            # Echo and answer are two writes: without this the second waits 40 ms for an acknowledgement.
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise NoDaemon(f"cannot reach usbgate at {spell(address)}: {error.strerror or error}") from None
    return Connection(channel, address)


def is_self_connected(channel: socket.socket) -> bool:
    """
    Find out whether a connection ends where it began, and if so, end it.

    50007 lies in the range from which Linux takes the ports of outgoing connections. One that is tried often
    enough while nobody listens gets its own goal for a source at last, succeeds, and hears itself; and while it
    is open the daemon can't listen.
    """
    if channel.getsockname() != channel.getpeername():
        return False
    # Reset it: else the port stays taken for a minute.
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    channel.close()
    return True


def ask(connection: Connection, fields: Mapping[str, str], within: float) -> Iterator[str]:
    """
    Send a request line, and wait for its answer.

    Args:
        connection: To usbgate; nothing else is asked on it.
        fields: `MSG`, `ID` and what else a request may have.
        within: Seconds to wait for everything.

    Yields:
        The echo, then the answer, each as it came.

    Raises:
        AskError: There is no answer.
    """
    deadline = time.monotonic() + within
    connection.send(format_line(fields))
    echo = connection.receive(deadline)
    told = _parse(echo)
    if told != fields:
        raise AskError(f"what answers there is not usbgate: it echoed {echo!r}")
    yield echo
    answer = connection.receive(deadline)
    _parse(answer)
    yield answer


def ask_word(connection: Connection, words: str, within: float) -> str:
    """
    Send the word `ask`, which leaves the command to the daemon's settings, and wait for its answer.

    Args:
        connection: To usbgate; nothing else is asked on it.
        words: The arguments of `ask`.
        within: Seconds to wait.

    Returns:
        The answer as it came.

    Raises:
        AskError: There is no answer.
    """
    deadline = time.monotonic() + within
    connection.send("ask " + words)
    answer = connection.receive(deadline)
    _parse(answer)
    return answer


def say_word(connection: Connection, words: str, within: float) -> Iterator[str]:
    """
    Say a word other than `ask` and `watch`, and wait for what it tells.

    Args:
        connection: To usbgate; nothing else is asked on it.
        words: The word and its arguments.
        within: Seconds to wait for each line.

    Yields:
        The data lines, as they came; the last line, the one with `OK`, is not among them.

    Raises:
        AskError: There is no answer, or not all of it.
    """
    connection.send(words)
    while True:
        line = connection.receive(time.monotonic() + within)
        if next(iter(_parse(line))) == "OK":
            return
        yield line


def _parse(line: str) -> dict[str, str]:
    try:
        fields = parse(line.encode(), ANSWER_LIMIT)
    except Malformed:
        raise AskError(f"what answers there is not usbgate: it said {line[:80]!r}") from None
    if next(iter(fields)) == "ERROR":
        raise RequestRefused(fields["ERROR"], fields.get("TEXT", "no reason was given"))
    return fields
