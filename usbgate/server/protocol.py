"""
The line server for programs and people (protocol §3): one `ClientProtocol` a connection.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from usbgate.core.errors import Failed, LimitExceeded, Malformed, RequestError, Stopped
from usbgate.core.fieldline import format_line, join_fields, parse
from usbgate.core.messages import error_line, parse_request, salvage, with_tag
from usbgate.core.model import Answer, Request
from usbgate.gateway.interfaces import IGateway, Lease
from usbgate.net.broadcast import Broadcast, EventBatch, ISubscriber
from usbgate.net.keepalive import is_over, keep_alive
from usbgate.net.linereceiver import BoundedLineReceiver
from usbgate.net.sendqueue import STUCK_AFTER, SendQueue
from usbgate.server import commands
from usbgate.server.telnet import TelnetFilter

IN_FLIGHT_LIMIT = 256  # requests a connection, protocol §3: more than any window, so that no device waits for them
WORDS_LIMIT = 64  # words waiting a connection, protocol §3: a screenful pasted at once
UNSENT_LIMIT = 64 * 1024  # bytes; a client that does not read is not read from, protocol §3
WATCHER_LIMIT = 1024 * 1024  # bytes; beyond, a watcher loses events, protocol §3
HALF_CLOSED_LOOK = 10.0  # seconds between two looks whether a half-closed watcher is there: as long as a keep-alive
# What programs ask again and again is read once: so many lines, up to so many bytes each, are 10 MB at most.
LINES_REMEMBERED = 2048
REMEMBERED_SIZE = 128
LINES_A_TURN = 32  # of a connection, 2 ms: 50 that send 200 each at once held up everybody else for a second
FIRST_DATA_PATIENCE = 0.25  # seconds in which nothing may follow the original client's line, protocol §3

# Protocol §3: a line that begins so is a request line, every other a word line.
_REQUEST_LINE = re.compile(rb"[A-Za-z][A-Za-z0-9]*:")


class IConnections(Interface):
    """
    What a connection shares with all others.
    """

    reactor: IReactorTime = Attribute("For time limits.")
    gateway: IGateway = Attribute("Whom to ask.")
    watchers: Broadcast = Attribute("Who gets which events.")
    limited: int = Attribute("How much was refused by a limit since the start.")

    def wall() -> int:
        """
        Return the wall clock: whole milliseconds since 1970, UTC.
        """

    def spell(answer: Answer) -> bytes:
        """
        Spell an answer, once for all who get it (see `answer_line`).
        """

    def admit(client: ClientProtocol) -> RequestError | None:
        """
        Count a new connection.

        Returns:
            Why it must be closed again, if it must.
        """

    def flush_later(client: ClientProtocol) -> None:
        """
        Flush a connection at the end of this reactor turn, so that replies of one turn leave in one packet.
        """

    def gone(client: ClientProtocol) -> None:
        """
        Forget a connection.
        """

    def counts() -> Mapping[str, int]:
        """
        Return the numbers for `status`: those of now, then those since the start.
        """


@implementer(IHalfCloseableProtocol, commands.ICaller, ISubscriber)
class ClientProtocol(BoundedLineReceiver):
    """
    One client: request lines are answered when their answers come, words one after the other.
    """

    log = Logger()
    transport: ITCPTransport
    lines_at_once = LINES_A_TURN

    def __init__(self, connections: IConnections, address: IAddress | None) -> None:
        """
        Serve one client.

        Args:
            connections: All connections, of which this will be one.
            address: Where the client is.
        """
        super().__init__()
        self.gateway = connections.gateway
        self.origin = str(getattr(address, "host", "local"))  # a unix socket's peer has no address
        port = getattr(address, "port", None)
        self.client = self.origin if port is None else f"{self.origin}:{port}"
        self.in_flight = 0
        self._connections = connections
        self._reactor = connections.reactor
        self._telnet = TelnetFilter()
        self._untouched = True  # nothing was received yet
        self._first_data: IDelayedCall | None = None  # ends the wait for more than an unended first line
        self._half_closed = False
        self._leaving = False  # nothing more is read or said
        self._words: deque[str | RequestError] = deque()
        self._speaking = False  # a word is being answered
        self._quit = False  # close when it is
        self._leases: list[Lease] = []
        self._unended = False  # an echo went out without a line end, and nothing since
        self._dropped = 0  # events lost since the client stopped reading
        self._room: Deferred[bool] | None = None
        self._turn: IDelayedCall | None = None
        self._resume: IDelayedCall | None = None
        self._look: IDelayedCall | None = None

    # What Twisted tells.

    def connectionMade(self) -> None:
        """
        Be admitted, or told why not.
        """
        self._queue = SendQueue(self._reactor, self.transport, self._taken, self._stuck)  # type: ignore[arg-type]  # every stream transport is a consumer
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)  # echo and answer are two writes: 44 ms a round trip without
            keep_alive(self.transport)
        refusal = self._connections.admit(self)
        if refusal is not None:
            self.tell(error_line(refusal, {}))
            self._leave()

    def dataReceived(self, data: bytes) -> None:
        """
        Take in a chunk; look whether it is the original client's whole line.
        """
        if self._leaving:
            return
        first, self._untouched = self._untouched, False
        if self._first_data is not None:
            self._first_data.cancel()
            self._first_data = None
        lines = self.buffer.feed(self._telnet.feed(data))
        self.delimiter = b"\r\n" if self.buffer.crlf else b"\n"
        if first and not lines and _is_originals(data):
            self._first_data = self._reactor.callLater(FIRST_DATA_PATIENCE, self._take_first_data)
        self.linesReceived(lines)

    def linesReceived(self, lines: Sequence[bytes]) -> None:
        """
        Take lines; what is said about them goes out together.
        """
        self._queue.hold()
        try:
            super().linesReceived(lines)
        finally:
            self._queue.release()
        if self._waiting and not (self.paused or self._leaving):
            self.pauseProducing()  # until the next turn, so that whoever else has said something is served between
        self._regulate()
        self._close_if_done()

    def lineReceived(self, line: bytes) -> None:
        """
        Take one line, a request or a word.
        """
        if _REQUEST_LINE.match(line):
            self._request_received(line, self.delimiter)
        elif not self._leaving:
            try:
                word = line.decode()
            except UnicodeDecodeError:
                error = Malformed("not UTF-8")
                self._refuse(line, error)
                self._word_received(error)
            else:
                if word.strip():  # as text: not every blank is one of ASCII's
                    self._word_received(word)

    def lineLengthExceeded(self, line: bytes) -> None:
        """
        Say so, once for each over-long line.
        """
        error = LimitExceeded("the line is too long")
        self._refuse(line, error)
        if _REQUEST_LINE.match(line):
            self.tell(error_line(error, salvage(line)))
        else:
            self._word_received(error)

    def resumeProducing(self) -> None:
        """
        Read again: first what waits, then, unless that is too much once more, from the transport.
        """
        self.paused = False
        self.linesReceived([])
        if not (self.paused or self._half_closed or self._leaving):  # half-closed, it would only read its end again
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # every stream transport is a producer

    def readConnectionLost(self) -> None:
        """
        The client says no more, and still listens.
        """
        self._half_closed = True
        self._end_leases()  # who was killed half-closes, too
        if self._first_data is not None:
            self._first_data.cancel()
            self._take_first_data()
        self._close_if_done()
        if not self._leaving:
            self._look = self._reactor.callLater(HALF_CLOSED_LOOK, self._look_after)

    def _look_after(self) -> None:
        # A watcher that closed looks like one that half-closed, and where nothing happens no write fails.
        self._look = self._reactor.callLater(HALF_CLOSED_LOOK, self._look_after)
        if is_over(self.transport):
            self.abort()

    def writeConnectionLost(self) -> None:
        """
        We said no more; never happens, but belongs to the interface.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The client is gone; its requests run on, and nobody is told.
        """
        self._queue.close()
        if self._resume is not None:  # what was read and only waits for its turn is asked, too
            for line in list(self._waiting):
                if _REQUEST_LINE.match(line) and len(line) <= self.MAX_LENGTH:
                    self._request_received(line, b"")
        self._leaving = True
        self._words.clear()
        self._waiting.clear()
        for call in (self._first_data, self._turn, self._resume, self._look):
            if call is not None:
                call.cancel()
        self._first_data = self._turn = self._resume = self._look = None
        self._end_leases()
        self._connections.gone(self)
        self._give_room()

    # Requests.

    def _take_first_data(self) -> None:
        self._first_data = None
        self._request_received(self.buffer.take_rest(), b"")

    def _request_received(self, line: bytes, line_end: bytes) -> None:
        """
        Echo a request and ask it.

        Args:
            line: The line.
            line_end: How the client ended it, and how its echo ends.
        """
        if self._leaving:
            return
        try:
            read = _read if len(line) <= REMEMBERED_SIZE else _read.__wrapped__
            fields, request, echo = read(line, self.origin, self.client)
        except Malformed as error:
            self._refuse(line, error)
            self.tell(error_line(error, salvage(line)))
            return
        self._write(echo + line_end)
        self._unended = not line_end
        if self.in_flight >= IN_FLIGHT_LIMIT:
            self._connections.limited += 1
            limit = LimitExceeded(f"more than {IN_FLIGHT_LIMIT} requests in flight on this connection")
            self.tell(error_line(limit, fields))
            return
        self.in_flight += 1
        try:
            asked = self.gateway.ask(request)
        except Exception:
            asked = fail()
        asked.addCallbacks(self._answered, self._failed, (fields,), errbackArgs=(fields,))

    def _answered(self, answer: Answer, fields: Mapping[str, str]) -> None:
        try:
            line = self._connections.spell(answer)
        except Exception:  # a dialect can be anybody's
            self._failed(Failure(), fields)
        else:
            self._request_ended(with_tag(line, fields["TAG"]) if "TAG" in fields else line)

    def _failed(self, failure: Failure, fields: Mapping[str, str]) -> None:
        error = failure.value
        if not isinstance(error, RequestError):
            self.log.failure("a request of {client} failed", failure=failure, client=self.client)
            error = Failed()
        self._request_ended(error_line(error, fields).encode())

    def _request_ended(self, line: bytes) -> None:
        self.in_flight -= 1
        if not self._leaving:
            self._write(line + self.delimiter, at_once=False)
            self._connections.flush_later(self)
            self._close_if_done()

    def _refuse(self, line: bytes, error: RequestError) -> None:
        reason = error.reason if isinstance(error, Malformed) else "line too long"
        if isinstance(error, LimitExceeded):
            self._connections.limited += 1
        self.gateway.add_malformed(f"client {self.origin}", line, reason)

    # Words.

    def _word_received(self, word: str | RequestError) -> None:
        self._words.append(word)
        if not self._speaking:
            self._speaking = True
            Deferred.fromCoroutine(self._speak()).addErrback(
                lambda failure: self.log.failure("words of {client} failed", failure=failure, client=self.client)
            )
        self._regulate()

    async def _speak(self) -> None:
        try:
            while self._words:
                word = self._words.popleft()
                try:
                    if isinstance(word, RequestError):
                        self.tell(error_line(word, {}))
                    else:
                        await commands.answer(self, word)
                except Exception:
                    self.log.failure("a word of {client} failed: {word!r}", client=self.client, word=word)
                    self.tell(error_line(Failed(), {}))
                if self._quit:
                    self._leave()
                self._regulate()
        finally:
            self._speaking = False
        self._close_if_done()

    def wall(self) -> int:
        """
        Return the wall clock (see `ICaller.wall`).
        """
        return self._connections.wall()

    def tell(self, *lines: str) -> None:
        """
        Send lines (see `ICaller.tell`).
        """
        if not self._leaving and lines:
            end = self.delimiter.decode()
            self._write((end.join(lines) + end).encode())
            self._regulate()

    def _write(self, data: bytes, at_once: bool = True) -> None:
        # The original client prints what it gets, so its echo has no line end: that comes with whatever is said next.
        head, self._unended = b"\n" if self._unended else b"", False
        self._queue.write(head + data, at_once)

    def room(self) -> Deferred[bool]:
        """
        Wait until there is room to say more (see `ICaller.room`).
        """
        if self._leaving:
            return succeed(False)
        self._room = Deferred()
        self._turn = self._reactor.callLater(0, self._turn_came)
        return self._room

    def _turn_came(self) -> None:
        self._turn = None
        self._give_room()

    def _give_room(self) -> None:
        if self._turn is None and (self._leaving or self._queue.unsent <= UNSENT_LIMIT):
            room, self._room = self._room, None
            if room is not None:
                room.callback(not self._leaving)

    def watch(self, sensors: Collection[str]) -> None:
        """
        Send events from now on (see `ICaller.watch`).
        """
        if not self._leaving:
            self._connections.watchers.add(self, sensors)

    def unwatch(self) -> None:
        """
        Send no more events (see `ICaller.unwatch`).
        """
        self._connections.watchers.remove(self)

    def counts(self) -> Mapping[str, str]:
        """
        Return what is counted of all connections (see `ICaller.counts`).
        """
        return {key: str(count) for key, count in self._connections.counts().items()}

    def borrow(self, lease: Lease) -> None:
        """
        Keep a lease until the client hangs up (see `ICaller.borrow`).
        """
        self._leases.append(lease)
        if self._half_closed or self._leaving:
            self._end_leases()

    def _end_leases(self) -> None:
        leases, self._leases = self._leases, []
        for lease in leases:
            lease.end()

    def leave(self) -> None:
        """
        Close when the word is answered (see `ICaller.leave`).
        """
        self._quit = True

    # What flows.

    def deliver(self, batch: EventBatch) -> None:
        """
        Take events; lose them, and count that, where too much waits already (see `ISubscriber.deliver`).
        """
        if self._leaving:
            return
        if self._dropped or self._queue.unsent > WATCHER_LIMIT:
            self._dropped += len(batch)
            return
        self._write(batch.encode(self.delimiter))
        self._regulate()

    def flush(self) -> None:
        """
        Send the replies that wait for the end of the reactor turn.
        """
        self._queue.flush()
        self._regulate()

    def stop(self) -> None:
        """
        Say to all who wait for a word that usbgate ends, and close.
        """
        for _ in range(len(self._words) + self._speaking):
            self.tell(error_line(Stopped(), {}))
        self._leave()

    def _leave(self) -> None:
        """
        Close the connection once all that was said is taken.
        """
        self._connections.watchers.remove(self)
        self._leaving = True
        self._words.clear()
        self._waiting.clear()
        self._queue.flush()
        self.transport.loseConnection()

    def _close_if_done(self) -> None:
        if not self._half_closed or self._leaving:
            return
        if not (self.in_flight or self._speaking or self._words or self._waiting or self in self._connections.watchers):
            self._leave()

    def _regulate(self) -> None:
        """
        Read from the client or not, as protocol §3 says.
        """
        if self._leaving or self._is_full() == self.paused:
            return
        if not self.paused:
            self.pauseProducing()
        elif self._resume is None:
            # In a turn of its own: what waits may fill us up again, and others want to be served between.
            self._resume = self._reactor.callLater(0, self._read_on)

    def _is_full(self) -> bool:
        return self._queue.unsent > UNSENT_LIMIT or len(self._words) >= WORDS_LIMIT

    def _read_on(self) -> None:
        self._resume = None
        if not self._is_full():
            self.resumeProducing()

    def _taken(self) -> None:
        if self._dropped and self._queue.unsent <= UNSENT_LIMIT:
            dropped, self._dropped = self._dropped, 0
            self.tell(format_line({"EVENT": "dropped", "COUNT": str(dropped)}))
        self._regulate()
        self._give_room()

    def _stuck(self) -> None:
        self.log.info(
            "{client} took nothing of {unsent} bytes for {seconds:.0f} s and was dropped",
            client=self.client,
            unsent=self._queue.unsent,
            seconds=STUCK_AFTER,
        )
        self.abort()

    def abort(self) -> None:
        """
        Drop the connection with all that waits.
        """
        self._leaving = True
        self._queue.close()
        self.transport.abortConnection()


@lru_cache(LINES_REMEMBERED)
def _read(line: bytes, origin: str, client: str) -> tuple[Mapping[str, str], Request, bytes]:
    """
    Read a request line: its fields, what is asked, and the echo.
    """
    fields = parse(line)
    return fields, parse_request(fields, origin, client, parsed=True), join_fields(fields).encode()


def _is_originals(data: bytes) -> bool:
    """
    Whether data without a line end can be what the original client sends.
    """
    try:
        return {"MSG", "ID", "ORIGIN"} <= parse(data).keys()
    except Malformed:
        return False
