"""
The line server for programs and people (protocol §3): one `ClientProtocol` per connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.access.doors import Door
from usbgate.access.roles import Access
from usbgate.access.tokens import redact
from usbgate.core.errors import LimitExceeded, Malformed, RequestError, Stopped, Unauthenticated
from usbgate.core.messages import error_line, salvage
from usbgate.net.keepalive import bare, is_over, keep_alive
from usbgate.net.linereceiver import BoundedLineReceiver
from usbgate.net.peeruser import peer_user
from usbgate.net.sendqueue import STUCK_AFTER, SendQueue
from usbgate.server.console import Console
from usbgate.server.intake import ByteBudget
from usbgate.server.opening import Opening
from usbgate.server.peer import Peer
from usbgate.server.requests import REQUEST_LINE, Requests
from usbgate.server.telnet import TelnetFilter

if TYPE_CHECKING:
    from usbgate.server.factory import ClientFactory

WORDS_LIMIT = 64  # words waiting per connection, protocol §3: a screenful pasted at once
UNSENT_LIMIT = 64 * 1024  # bytes; a client that does not read is not read from, protocol §3
HALF_CLOSED_CHECK = 10.0  # seconds between two checks of a half-closed connection: as long as a keep-alive
LINES_PER_SLICE = 4  # of a connection whose lines wait; then it is another's turn
OVER_LONG_LIMIT = 64 * 1024  # bytes of one line; who sends that much without a line end is no line client, protocol §3


@implementer(IHalfCloseableProtocol)
class ClientProtocol(BoundedLineReceiver):
    """
    One client: its lines and flow control. Its `Requests` and its `Console` answer the lines.

    Attributes:
        factory: All connections, of which this is one.
        peer: Who the client is, and what it may do.
        requests: Answers its request lines.
        console: Answers its words.
        half_closed: Whether the client sends no more; it still reads.
        closing: Whether nothing more is read and written.
        sent_data: Whether the client has sent something since the factory last looked.
    """

    log = Logger()
    transport: ITCPTransport

    def __init__(self, factory: ClientFactory, address: IAddress | None, door: Door) -> None:
        """
        Args:
            factory: All connections.
            address: The peer's address.
            door: What it may do without a token.
        """
        super().__init__()
        self.factory = factory
        self._intake = factory.intake
        self.peer = Peer(factory.reactor, factory.authority, address, door, self.regulate, self._access_ended)
        self.requests = Requests(self)
        self.console = Console(self)
        self.half_closed = False
        self.closing = False
        self.sent_data = True
        self._telnet = TelnetFilter()
        self._opening: Opening | None = Opening(factory.reactor, self._original_received)  # until its line has ended
        self._owed = b""  # the line end that the last echo did not have
        self._budget = ByteBudget(factory.reactor, factory.intake, self.regulate)
        self._over_long = 0  # bytes of the over-long line that is being discarded
        self._check: LoopingCall | None = None  # of a half-closed connection

    # The connection.

    def connectionMade(self) -> None:
        """
        Join the factory's connections; close if there are too many of them.
        """
        self._queue = SendQueue(self.factory.reactor, self.transport, self._drained, self._stuck)  # type: ignore[arg-type]  # every stream transport is a consumer
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)  # echo and answer are two writes: 44 ms a round trip without
            keep_alive(self.transport)
        self.peer.user = peer_user(self.transport)
        self.admit(self.peer.without_token())
        if isinstance(socket := bare(self.transport), FileDescriptor):
            socket.bufferSize = self._intake.bytes_per_turn
        refusal = self.factory.add(self)
        if refusal is not None:
            self.send_lines(error_line(refusal, {}))
            self.close()

    def admit(self, access: Access) -> None:
        """
        Let the client do something else from now on. What it had begun by its rights before ends.

        Raises:
            LimitExceeded: See `Peer.admit`; nothing has changed.
        """
        self.peer.admit(access)
        self.console.end()
        self._budget.share(self.peer.payers)

    def _access_ended(self, reason: str) -> None:
        self.send_lines(error_line(Unauthenticated(reason), {}))
        self.close()

    def readConnectionLost(self) -> None:
        """
        The client has half-closed: it sends no more, and still reads.
        """
        self.half_closed = True
        self.console.end_leases()  # a client that was killed looks half-closed, too
        if self._opening is not None:
            self._opening.end()
        self.close_if_done()
        if not self.closing:
            self._check = LoopingCall(self._abort_if_over)
            self._check.clock = self.factory.reactor
            self._check.start(HALF_CLOSED_CHECK, now=False).addErrback(
                lambda failure: self.log.failure("unexpected error while checking a connection", failure=failure)
            )

    def _abort_if_over(self) -> None:
        # A client that closed looks half-closed, and while there is nothing to send to it no write fails.
        if is_over(self.transport):
            self.abort()

    def writeConnectionLost(self) -> None:
        """
        Never happens: usbgate does not half-close.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The client is gone. Its requests go on, those included that were read and wait for their turn; their answers
        are discarded.
        """
        self._queue.close()
        waited = self._intake.forget(self._resume)
        if self._budget.close() or waited:
            for line in list(self.waiting):
                # Nobody hangs up to try more tokens.
                if not self.peer.is_delayed and REQUEST_LINE.match(line) and len(line) <= self.MAX_LENGTH:
                    self.requests.receive(line, b"")
        self.peer.connection_lost()
        if self._check is not None and self._check.running:
            self._check.stop()
        if self._opening is not None:
            self._opening.close()
        self.closing = True
        self.waiting.clear()
        self.requests.connection_lost()
        self.console.connection_lost()
        self.factory.remove(self)
        # They refer to this: all would stay in memory until the garbage collector comes, and holds the reactor.
        del self.peer, self.requests, self.console, self._queue, self._budget, self._check, self._opening

    def close(self) -> None:
        """
        Close the connection once the client has read all that was written.
        """
        self.console.unwatch()
        self.closing = True
        self.waiting.clear()
        self._queue.flush()
        self.transport.loseConnection()

    def close_if_done(self) -> None:
        """
        Close a half-closed connection once everything is answered, unless it has a subscription.
        """
        if self.half_closed and not (self.closing or self.requests.in_flight or self.waiting or self.console.is_active):
            self.close()

    def stop(self) -> None:
        """
        Fail all words that are not answered with `Stopped`, and close.
        """
        self.send_lines(*[error_line(Stopped(), {})] * len(self.console.words))
        self.close()

    def abort(self) -> None:
        """
        Drop the connection and all unsent data.
        """
        self.closing = True
        self._queue.close()
        self.transport.abortConnection()

    # Lines.

    def dataReceived(self, data: bytes) -> None:
        """
        Cut a chunk into lines.
        """
        if self.closing:
            return
        self.sent_data = True
        text = self._telnet.feed(data)
        if self._opening is not None:
            try:
                text = self._opening.feed(data, text)
            except Malformed as error:
                self._refuse(text, error)
                return
            if self._opening.is_over:
                self._end_opening()
        lines = self.buffer.feed(text)
        self.delimiter = b"\r\n" if self.buffer.crlf else b"\n"
        self.linesReceived(lines)
        if self.buffer.discarding:
            self._discarded(text)
        elif self._over_long:
            self._over_long = 0
        if not self.closing:
            self._budget.left -= len(data)
            if self._budget.left <= 0:
                self._budget.check()

    def _discarded(self, text: bytes) -> None:
        begin = text.rfind(b"\n") + 1
        self._over_long = len(text) - begin + (0 if begin else self._over_long)
        if self._over_long > OVER_LONG_LIMIT:
            self.close()

    def _end_opening(self) -> None:
        self._opening = None
        self.factory.first_line_received(self)

    def _refuse(self, data: bytes, error: Malformed) -> None:
        # A browser that talks HTTP to this port must not command a sensor, whatever the page has it send.
        line = (self.buffer.take_rest() + data).lstrip(b"\r\n").partition(b"\n")[0]
        self.record_malformed(line[: self.MAX_LENGTH], error)
        self.factory.log_refused(self.peer.name, error.reason)
        self.close()

    def _original_received(self) -> None:
        self._end_opening()
        self.requests.receive(self.buffer.take_rest(), b"")

    def linesReceived(self, lines: Sequence[bytes]) -> None:
        """
        Serve lines: at once, or in later reactor turns, so that other clients are served in between.
        """
        self.lines_at_once = 1 if len(lines) <= 1 else self._intake.lines_at_once(len(lines))
        self._serve(lines)

    def _serve(self, lines: Sequence[bytes]) -> None:
        super().linesReceived(lines)
        if self.waiting and not (self.paused or self.closing):
            self.pauseProducing()
            self.regulate()
        if self.half_closed:
            self.close_if_done()

    def lineReceived(self, line: bytes) -> None:
        """
        Serve one line, a request or a word.
        """
        if REQUEST_LINE.match(line):
            self.requests.receive(line, self.delimiter)
        elif not self.closing:
            try:
                word = line.decode()
            except UnicodeDecodeError:
                error = Malformed("not UTF-8")
                self.record_malformed(line, error)
                self._word_received(error)
            else:
                if word.strip():  # as text: Unicode has more blanks than ASCII
                    self._word_received(word)

    def _word_received(self, word: str | RequestError) -> None:
        self.console.receive(word)
        self.regulate()

    def lineLengthExceeded(self, line: bytes) -> None:
        """
        Reply with an error, once for each line that is too long.
        """
        error = LimitExceeded("the line is too long")
        self.record_malformed(line, error)
        if REQUEST_LINE.match(line):
            self.send_lines(error_line(error, salvage(line)))
        else:
            self._word_received(error)

    def record_malformed(self, line: bytes, error: RequestError) -> None:
        """
        Record a malformed line.
        """
        reason = error.reason if isinstance(error, Malformed) else "line too long"
        if isinstance(error, LimitExceeded):
            self.factory.limited += 1
        self.factory.gateway.add_malformed(f"client {self.peer.origin}", redact(line), reason)

    # Sending, and how much is read.

    @property
    def is_idle(self) -> bool:
        """
        Whether nothing is being done for the client: it has no request, word, subscription or lease, and has read all.
        """
        console = self.console
        return not (self.requests.in_flight or self.waiting or console.is_active or console.has_lease or self.unsent)

    @property
    def unsent(self) -> int:
        """
        Bytes that the client has not read yet.
        """
        return self._queue.unsent

    @property
    def has_room(self) -> bool:
        """
        Whether the client has read most of what was sent to it.
        """
        return self._queue.unsent <= UNSENT_LIMIT

    def send_lines(self, *lines: str) -> None:
        """
        Send lines at the end of the reactor turn, each with a line end; do nothing once the connection is closing.
        """
        if lines and not self.closing:
            end = self.delimiter.decode()
            self._add((end.join(lines) + end).encode())
            self.factory.flush_later(self)

    def send_now(self, data: bytes) -> None:
        """
        Send whole lines within this call; do nothing once the connection is closing.
        """
        if not self.closing:
            owed, self._owed = self._owed, b""
            self._queue.write(owed + data)
            self.regulate()

    def echo(self, line: bytes, line_end: bytes) -> None:
        """
        Send a request line back.

        Args:
            line: The line without its end.
            line_end: How the client ended it.
        """
        self._add(line + line_end)
        self.factory.flush_later(self)
        if not line_end:  # the original client prints all that it reads: the line end comes before the next data
            self._owed = b"\n"

    def reply(self, line: bytes) -> None:
        """
        Answer a request; do nothing once the connection is closing.

        Args:
            line: The line without its end.
        """
        if not self.closing:
            self._add(line + self.delimiter)
            # At once only if no other answer can join it, and one of a chunk: many would hold the reactor for long.
            if self.requests.in_flight or self.factory.sent_one:
                self.factory.flush_later(self)
            else:
                self.factory.sent_one = True
                self.flush()
            if self.half_closed:
                self.close_if_done()

    def _add(self, data: bytes) -> None:
        owed, self._owed = self._owed, b""
        self._queue.add(owed + data)

    def flush(self) -> None:
        """
        Send what was written in this reactor turn.
        """
        self._queue.flush()
        if self.paused or self._queue.unsent > UNSENT_LIMIT:
            self.regulate()

    def regulate(self) -> None:
        """
        Stop or resume reading from the client, protocol §3.
        """
        if self.closing or self._is_full() == self.paused:
            return
        if not self.paused:
            self.pauseProducing()
        else:
            # In a later reactor turn: the lines that wait may fill the queue again, and others are served in between.
            self._intake.later(self._resume)

    def _is_full(self) -> bool:
        # The first word is being answered; the others wait.
        return (
            self._queue.unsent > UNSENT_LIMIT
            or len(self.console.words) > WORDS_LIMIT
            or self._budget.is_spent
            or self.peer.is_delayed
        )

    def _resume(self) -> None:
        if self.paused and not self.closing and not self._is_full():
            self.resumeProducing()

    def resumeProducing(self) -> None:
        """
        Serve the lines that wait, and then, unless that fills the queue again, read from the transport.
        """
        self.paused = False
        self.lines_at_once = LINES_PER_SLICE
        self._serve([])
        if not (self.paused or self.half_closed or self.closing):  # half-closed, it would only read its end again
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # every stream transport is a producer

    def _drained(self) -> None:
        if self.has_room:
            self.console.drained()
        self.regulate()

    def _stuck(self) -> None:
        self.log.info(
            "disconnected {client}, which accepted nothing for {seconds:.0f} s; {unsent} bytes were unsent",
            client=self.peer.name,
            unsent=self._queue.unsent,
            seconds=STUCK_AFTER,
        )
        self.abort()
