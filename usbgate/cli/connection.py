"""
A blocking client of the line protocol (protocol §3), for `usbgate ask`, `usbgate devices` and so on.

It does not import Twisted, so that a request from a shell takes hardly longer than the start of Python.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT, format_line, parse
from usbgate.core.linebuffer import LineBuffer

if TYPE_CHECKING:
    from ssl import SSLContext

# A TCP host and port, or the path of a Unix socket.
Address = tuple[str, int] | str

# Bytes of a line. An answer has at most `LINE_LIMIT` and what usbgate adds, but a line of `sensors` names all fields of
# a sensor.
ANSWER_LIMIT = 256 * LINE_LIMIT

TIMEOUT = 10.0  # seconds for an answer, the daemon's own default
CONNECT_LIMIT = 5.0  # seconds; a host that drops our packets never refuses

# Seconds without traffic, seconds between probes, probes without an answer: `usbgate watch`, which sends nothing,
# notices after half a minute that the daemon's machine has lost its power or its network.
_PROBES = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 2))

# The remedy where the role of this user is too low (docs/security.md).
GET_RIGHTS = "run this as root or as the daemon's user, or send a token: --token-file, or USBGATE_TOKEN"

# Errors that mean that no daemon listens, not that the address can't be reached.
_NOT_LISTENING = frozenset([errno.ECONNREFUSED, errno.ENOENT])


class AskError(Exception):
    """
    The request failed; the text says why.

    Attributes:
        status: The exit status of the command.
        remedy: What to do about it, if there is something to say for all commands.
    """

    status = 1
    remedy = ""


class NoDaemon(AskError):
    """
    No daemon runs there.
    """

    status = 5


class ConnectionLost(AskError):
    """
    usbgate closed the connection before it answered.
    """


class RequestRefused(AskError):
    """
    usbgate replied with an error (protocol §3).
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.status = {"timeout": 3, "offline": 4}.get(code, 1)
        if code == "denied":
            self.remedy = GET_RIGHTS


def spell(address: Address) -> str:
    """
    Return an address as text.
    """
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Connection:
    """
    A connection to usbgate that sends and receives lines.
    """

    def __init__(self, channel: socket.socket, address: Address) -> None:
        self._channel = channel
        self._address = address
        self._buffer = LineBuffer(ANSWER_LIMIT)
        self._lines: list[bytes] = []
        self._is_bare = True  # neither TLS nor any answer so far

    @property
    def peer(self) -> tuple[str, int] | None:
        """
        The IP address and the port of the daemon; None on a Unix socket, or if the connection is lost.
        """
        try:
            peer = self._channel.getpeername()
        except OSError:
            return None
        return peer[:2] if isinstance(peer, tuple) else None

    def encrypt(self, context: SSLContext, host: str) -> None:
        """
        Speak TLS from now on.

        Args:
            context: How.
            host: The name or address that the certificate must have.

        Raises:
            AskError: usbgate does not speak TLS, or its certificate can't be verified.
        """
        from ssl import SSLCertVerificationError, SSLError

        try:
            self._channel.settimeout(CONNECT_LIMIT)
            self._channel = context.wrap_socket(self._channel, server_hostname=host)
            self._is_bare = False
        except SSLCertVerificationError as error:
            raise AskError(
                f"the certificate of {spell(self._address)} cannot be verified: {error.verify_message}; --ca names the"
                " CA to trust, usbgate's own is ca.crt of `usbgate tls init`"
            ) from None
        except SSLError as error:
            raise AskError(f"{spell(self._address)} does not speak TLS: {error.reason or error}") from None
        except OSError as error:
            raise AskError(f"{spell(self._address)} does not speak TLS: {error.strerror or error}") from None

    def send(self, line: str) -> None:
        """
        Send one line.
        """
        # If the daemon has closed the connection, the next `receive` fails.
        with suppress(ConnectionError):
            self._channel.sendall(line.encode() + b"\n")

    def receive(self, deadline: float) -> str:
        """
        Wait for one line.

        Args:
            deadline: Until when, on the monotonic clock; infinity to wait for ever.

        Raises:
            ConnectionLost: The connection ended.
            RequestRefused: No line arrived in time.
        """
        while not self._lines:
            left = deadline - time.monotonic()
            if left <= 0:
                raise RequestRefused("timeout", f"usbgate at {spell(self._address)} did not reply in time")
            self._channel.settimeout(None if left == float("inf") else left)
            try:
                data = self._channel.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                data = b""
            except OSError as error:  # of TLS: it also reports here that a certificate of ours is wanted
                raise ConnectionLost(f"usbgate at {spell(self._address)} refused: {_explain(error)}") from None
            if not data:
                hint = "; if it expects TLS, use --tls" if self._is_bare and isinstance(self._address, tuple) else ""
                raise ConnectionLost(
                    f"usbgate at {spell(self._address)} closed the connection before it answered{hint}"
                )
            self._is_bare = False
            self._lines = self._buffer.feed(data)[::-1]
        return self._lines.pop().decode("utf-8", "replace")

    def close(self) -> None:
        """
        Close the connection.
        """
        self._channel.close()


def _explain(error: OSError) -> str:
    reason = str(getattr(error, "reason", None) or error.strerror or error)
    if reason.endswith("CERTIFICATE_REQUIRED"):
        return "it demands a certificate: use --cert, and `usbgate tls client` on its machine to make one"
    return reason


def connect(address: Address, within: float = CONNECT_LIMIT) -> Connection | None:
    """
    Connect to usbgate.

    Args:
        address: Where it listens.
        within: Seconds to wait for the connection.

    Returns:
        None if no daemon listens there.

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
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _PROBES:
                if hasattr(socket, name):
                    channel.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError as error:
        if error.errno in _NOT_LISTENING:
            return None
        raise NoDaemon(f"cannot reach usbgate at {spell(address)}: {error.strerror or error}") from None
    except ValueError:  # a name with a character that no name has, or a part that is too long or empty
        raise NoDaemon(f"cannot reach usbgate at {spell(address)}: not the name of a host") from None
    return Connection(channel, address)


def is_self_connected(channel: socket.socket) -> bool:
    """
    Return whether a socket is connected to itself, and if so, close it.

    50007 is in the range from which Linux takes the source ports of outgoing connections. If one is tried often enough
    while no daemon listens, its source port is 50007 at last, and it is connected to itself. While it is open, no
    daemon can listen.
    """
    if channel.getsockname() != channel.getpeername():
        return False
    # Reset the connection: otherwise the port stays in use for a minute.
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    channel.close()
    return True


def ask(connection: Connection, fields: Mapping[str, str], within: float) -> Iterator[str]:
    """
    Send a request line, and wait for its answer.

    Args:
        connection: A connection without other requests.
        fields: `MSG`, `ID` and the other fields of the request.
        within: Seconds to wait for echo and answer.

    Yields:
        The echo, then the answer, each as received.

    Raises:
        AskError: The request failed.
    """
    deadline = time.monotonic() + within
    connection.send(format_line(fields))
    echo = connection.receive(deadline)
    if _parse(echo) != fields:
        raise AskError(f"the server is not usbgate: it echoed {echo!r}")
    yield echo
    answer = connection.receive(deadline)
    _parse(answer)
    yield answer


def ask_word(connection: Connection, words: str, within: float) -> str:
    """
    Send the word `ask`, with which the daemon chooses the command, and wait for the answer.

    Args:
        connection: A connection without other requests.
        words: The arguments of `ask`.
        within: Seconds to wait.

    Returns:
        The answer as received.

    Raises:
        AskError: The request failed.
    """
    deadline = time.monotonic() + within
    connection.send("ask " + words)
    answer = connection.receive(deadline)
    _parse(answer)
    return answer


def send_word(connection: Connection, words: str, within: float) -> Iterator[str]:
    """
    Send a word other than `ask` and `watch`, and wait for its lines.

    Args:
        connection: A connection without other requests.
        words: The word and its arguments.
        within: Seconds to wait for each line.

    Yields:
        The data lines as received, without the last line, `OK`.

    Raises:
        AskError: The word failed, or not all lines arrived.
    """
    connection.send(words)
    while True:
        line = connection.receive(time.monotonic() + within)
        if next(iter(_parse(line))) == "OK":
            return
        yield line


class Fields(dict[str, str]):
    """
    The fields of a data line.
    """

    def __missing__(self, key: str) -> str:
        raise AskError(f"the server is another version of usbgate, or none: its reply has no {key}")


def parse_data(line: str) -> Fields:
    """
    Return the fields of a data line that `send_word` has yielded. To look for one that is missing raises an `AskError`.
    """
    return Fields(parse(line.encode(), ANSWER_LIMIT))


def _parse(line: str) -> dict[str, str]:
    try:
        fields = parse(line.encode(), ANSWER_LIMIT)
    except Malformed:
        raise AskError(f"the server is not usbgate: it sent {line[:80]!r}") from None
    if next(iter(fields)) == "ERROR":
        raise RequestRefused(fields["ERROR"], fields.get("TEXT", "no reason was given"))
    return fields
