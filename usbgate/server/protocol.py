"""
The line server for programs and people (protocol §3): one `ClientProtocol` per connection.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import fail
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.access.authority import Authority
from usbgate.access.doors import Door
from usbgate.access.roles import Access, Role
from usbgate.access.tokens import redact
from usbgate.core.errors import Failed, LimitExceeded, Malformed, RequestError, Stopped, Unauthenticated
from usbgate.core.holders import Holder
from usbgate.core.messages import error_line, salvage, with_tag
from usbgate.core.model import Answer
from usbgate.net.keepalive import bare, is_over, keep_alive
from usbgate.net.linereceiver import BoundedLineReceiver
from usbgate.net.peeruser import peer_user
from usbgate.net.places import is_local
from usbgate.net.sendqueue import STUCK_AFTER, SendQueue
from usbgate.server.console import Console
from usbgate.server.opening import Opening
from usbgate.server.requests import REQUEST_LINE, ReadRequest, is_original_request, read_request, take_token
from usbgate.server.telnet import TelnetFilter

if TYPE_CHECKING:
    from usbgate.server.factory import ClientFactory

IN_FLIGHT_LIMIT = 256  # requests per connection, protocol §3: more than any window, so that no device waits for them
WORDS_LIMIT = 64  # words waiting per connection, protocol §3: a screenful pasted at once
UNSENT_LIMIT = 64 * 1024  # bytes; a client that does not read is not read from, protocol §3
HALF_CLOSED_CHECK = 10.0  # seconds between two checks of a half-closed connection: as long as a keep-alive
LINES_PER_SLICE = 4  # of a connection whose lines wait; then it is another's turn
OVER_LONG_LIMIT = 64 * 1024  # bytes of one line; who sends that much without a line end is no line client, protocol §3
_COMMAND = Role.COMMAND
FIRST_DATA_PATIENCE = 0.25  # seconds in which nothing may follow the original client's line, protocol §3


@implementer(IHalfCloseableProtocol)
class ClientProtocol(BoundedLineReceiver, TimeoutMixin):
    """
    One client: its lines, its requests, and flow control. Its `Console` answers its words.

    Attributes:
        factory: All connections, of which this is one.
        origin: The peer's host, or `local` on a Unix socket: `ORIGIN` of requests that have none.
        is_local: Whether the peer is on this machine.
        client: The peer's host and port, behind the name of its token or user, for the log and for the record of
            requests.
        access: What the client may do.
        holder: This connection, as one that holds places in the queues.
        console: Answers its words.
        in_flight: Requests that are not answered yet.
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
        self.origin = str(getattr(address, "host", "local"))
        self.is_local = is_local(self.origin)
        port = getattr(address, "port", None)
        self.client = self._peer = self.origin if port is None else f"{self.origin}:{port}"
        self._door = door
        self.access = Access(Role.NONE)
        self._unfollow: Callable[[], None] = lambda: None
        self.holder = Holder(self.origin)
        self.console = Console(self)
        self.in_flight = 0
        self.half_closed = False
        self.closing = False
        self.sent_data = True
        self._telnet = TelnetFilter()
        self._nothing_received = True
        self._opening: Opening | None = Opening()  # until the first line has ended
        self._owed = b""  # the line end that the last echo did not have
        self._received = 0  # bytes, since `_second`
        self._second = int(factory.reactor.seconds())  # of the reactor's clock
        self._over_budget = False  # whether nothing is read until the second is over
        self._delay: IDelayedCall | None = None  # after a wrong token; nothing is read until its end
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
        self.admit(self._door.admit(self.is_local, peer_user(self.transport)))
        if isinstance(socket := bare(self.transport), FileDescriptor):
            socket.bufferSize = self._intake.bytes_per_turn
        refusal = self.factory.add(self)
        if refusal is not None:
            self.send_lines(error_line(refusal, {}))
            self.close()

    def admit(self, access: Access) -> None:
        """
        Let the client do something else from now on. If its token ends, close the connection.
        """
        self._unfollow()
        self._unfollow = self.factory.authority.follow(access, self._token_ended)
        self.access = access
        self.client = access.sign(self._peer)

    def authenticate(self, secret: str) -> Access:
        """
        Return what a token permits. After a wrong one, nothing more is read for a while.
        """
        authority: Authority = self.factory.authority
        access = authority.authenticate(secret, self.origin)
        if access.refusal is not None and self._delay is None and not self.closing:
            self._delay = self.factory.reactor.callLater(authority.delay(self.origin), self._delay_over)
            self.regulate()
        return access

    def _delay_over(self) -> None:
        self._delay = None
        self.regulate()

    def _token_ended(self) -> None:
        self.send_lines(error_line(Unauthenticated("the token was removed, or has expired"), {}))
        self.close()

    def readConnectionLost(self) -> None:
        """
        The client has half-closed: it sends no more, and still reads.
        """
        self.half_closed = True
        self.console.end_leases()  # a client that was killed looks half-closed, too
        if self.setTimeout(None) is not None:
            self.timeoutConnection()
        self.close_if_done()
        if not self.closing:
            self._check = LoopingCall(self._abort_if_over)
            self._check.clock = self.factory.reactor
            self._check.start(HALF_CLOSED_CHECK, now=False)

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
        self._unfollow()
        waited = self._intake.forget(self._resume)
        if self._intake.forget(self._second_over) or waited:
            for line in list(self.waiting):
                # Nobody hangs up to try more tokens.
                if self._delay is None and REQUEST_LINE.match(line) and len(line) <= self.MAX_LENGTH:
                    self._request_received(line, b"")
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
        if self._check is not None:
            self._check.stop()
        self.setTimeout(None)
        self.closing = True
        self.waiting.clear()
        self.factory.gateway.disconnected(self.holder)
        self.console.connection_lost()
        self.factory.remove(self)

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
        if self.half_closed and not (self.closing or self.in_flight or self.waiting or self.console.is_active):
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
        Cut a chunk into lines. First data without a line end may be the original client's request: see what follows.
        """
        if self.closing:
            return
        if self.timeOut is not None:
            self.setTimeout(None)
        self.sent_data = True
        first = False
        text = self._telnet.feed(data)
        if self._opening is not None:
            first, self._nothing_received = self._nothing_received, False
            try:
                text = self._opening.feed(text)
            except Malformed as error:
                self._refuse(text, error)
                return
            if self._opening.is_over:
                self._end_opening()
        lines = self.buffer.feed(text)
        self.delimiter = b"\r\n" if self.buffer.crlf else b"\n"
        if first and not lines and is_original_request(data.removeprefix(BOM_UTF8)):
            self.setTimeout(FIRST_DATA_PATIENCE)
        self.linesReceived(lines)
        if self.buffer.discarding:
            self._discarded(text)
        elif self._over_long:
            self._over_long = 0
        self._received += len(data)
        if self._received >= self._intake.bytes_per_second:
            self._budget_used()

    def _budget_used(self) -> None:
        # Bytes are counted since they were last enough for a second, so that nothing is done for each second.
        second = int(self.factory.reactor.seconds())
        if second == self._second and not self.closing:
            self._over_budget = True
            self._intake.next_second(self._second_over)
            self.regulate()
        self._received, self._second = 0, second

    def _second_over(self) -> None:
        self._over_budget = False
        self._second = int(self.factory.reactor.seconds())
        self.regulate()

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
        self._record_malformed(line[: self.MAX_LENGTH], error)
        self.factory.log_refused(self.client, error.reason)
        self.close()

    def callLater(self, period: float, call: Callable[..., Any]) -> IDelayedCall:
        """
        Schedule a timeout (see `TimeoutMixin`).
        """
        scheduled: IDelayedCall = self.factory.reactor.callLater(period, call)
        return scheduled

    def timeoutConnection(self) -> None:
        """
        Nothing followed the first data: it is the original client's request.
        """
        self.setTimeout(None)
        self._end_opening()
        self._request_received(self.buffer.take_rest(), b"")

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
            self._request_received(line, self.delimiter)
        elif not self.closing:
            try:
                word = line.decode()
            except UnicodeDecodeError:
                error = Malformed("not UTF-8")
                self._record_malformed(line, error)
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
        self._record_malformed(line, error)
        if REQUEST_LINE.match(line):
            self.send_lines(error_line(error, salvage(line)))
        else:
            self._word_received(error)

    def _record_malformed(self, line: bytes, error: RequestError) -> None:
        reason = error.reason if isinstance(error, Malformed) else "line too long"
        if isinstance(error, LimitExceeded):
            self.factory.limited += 1
        self.factory.gateway.add_malformed(f"client {self.origin}", redact(line), reason)

    # Requests.

    def _request_received(self, line: bytes, line_end: bytes) -> None:
        """
        Echo a request and ask the gateway.

        Args:
            line: The line.
            line_end: How the client ended it, and how its echo ends.
        """
        if self.closing:
            return
        access = self.access
        try:
            fields, request, echo = read_request(line, self.origin, self.client)
        except Malformed as error:
            found = self._read_with_token(line)
            if found is None:
                self._record_malformed(line, error)
                self.send_lines(error_line(error, salvage(line)))
                return
            (fields, request, echo), access = found
        self._write(echo + line_end)
        # The original client prints all that it reads, so its echo has no line end: that comes before the next data.
        self._owed = b"" if line_end else b"\n"
        if self.in_flight >= IN_FLIGHT_LIMIT:
            self.factory.limited += 1
            limit = LimitExceeded(f"more than {IN_FLIGHT_LIMIT} requests in flight on this connection")
            self.send_lines(error_line(limit, fields))
            return
        self.in_flight += 1
        try:
            if access.role < _COMMAND:
                self.factory.authority.check_request(access, request)
            answer = self.factory.gateway.ask(request, self.holder)
        except Exception:
            answer = fail()
        answer.addCallbacks(self._answered, self._failed, (fields,), errbackArgs=(fields,))

    def _read_with_token(self, line: bytes) -> tuple[ReadRequest, Access] | None:
        # A request line with a token, and what that permits; None if the line has none or is no request besides.
        found = take_token(line)
        if found is None:
            return None
        secret, rest = found
        access = self.authenticate(secret)
        with suppress(Malformed):
            return read_request(rest, self.origin, access.sign(self._peer)), access
        return None

    def _answered(self, answer: Answer, fields: Mapping[str, str]) -> None:
        try:
            line = self.factory.encode(answer)
        except Exception:  # a dialect of another package may give anything
            self._failed(Failure(), fields)
        else:
            self._reply(with_tag(line, fields["TAG"]) if "TAG" in fields else line)

    def _failed(self, failure: Failure, fields: Mapping[str, str]) -> None:
        error = failure.value
        if not isinstance(error, RequestError):
            self.log.failure("unexpected error in a request of {client}", failure=failure, client=self.client)
            error = Failed()
        self._reply(error_line(error, fields).encode())

    def _reply(self, line: bytes) -> None:
        self.in_flight -= 1
        if self.closing:
            return
        self._write(line + self.delimiter)
        if self.half_closed:
            self.close_if_done()

    # Sending, and how much is read.

    @property
    def is_idle(self) -> bool:
        """
        Whether nothing is being done for the client: it has no request, word, subscription or lease, and has read all.
        """
        return not (self.in_flight or self.waiting or self.console.is_active or self.console.has_lease or self.unsent)

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
            self._write((end.join(lines) + end).encode())

    def send_now(self, data: bytes) -> None:
        """
        Send whole lines within this call; do nothing once the connection is closing.
        """
        if not self.closing:
            owed, self._owed = self._owed, b""
            self._queue.write(owed + data)
            self.regulate()

    def _write(self, data: bytes) -> None:
        owed, self._owed = self._owed, b""
        self._queue.add(owed + data)
        self.factory.flush_later(self)

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
            or self._over_budget
            or self._delay is not None
        )

    def _resume(self) -> None:
        if self.paused and not self._is_full():
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
            client=self.client,
            unsent=self._queue.unsent,
            seconds=STUCK_AFTER,
        )
        self.abort()
