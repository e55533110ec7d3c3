"""
A link: the connection to one device, opened again whenever it is lost (protocol §2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import ClassVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConsumer, IReactorTime, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.core.counts import LinkCounts
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.linebuffer import DeviceLineBuffer
from usbgate.core.model import UNKNOWN_BOARD, BoardKind, DeviceWarning, Report, Request, Send
from usbgate.device.diagnostics import GARBLED_BYTES, Diagnostics
from usbgate.device.filters import EchoFilter, RepeatFilter
from usbgate.device.interfaces import IDeviceLink, IDialect, ILinkListener, IResettable, ISharedPort
from usbgate.device.portwatch import FindUsers, PortWatch
from usbgate.device.reconnect import Reconnector, reopen_policy
from usbgate.device.unended import UnendedLine
from usbgate.device.watchdog import Watchdog
from usbgate.net.keepalive import keep_alive
from usbgate.net.linereceiver import BoundedLineReceiver
from usbgate.net.sendqueue import SendQueue

# Seconds that a serial server on the network has to receive the remaining data when the link stops.
STOP_LIMIT = 1.0


class DeviceProtocol(BoundedLineReceiver):
    """
    One opening of a device: cuts its data into lines, and writes to it at once.
    """

    buffer: DeviceLineBuffer

    def __init__(self, link: Link, line_starts: Sequence[bytes], path: str | None, gap: float | None) -> None:
        """
        Args:
            link: Receives the lines.
            line_starts: See `IDialect.line_starts`.
            path: The path of the tty; None if there is none.
            gap: Seconds of quiet that end a line; None if only a line end does.
        """
        super().__init__()
        self.buffer = DeviceLineBuffer(self.MAX_LENGTH)
        self.path = path
        self._link = link
        self._line_starts = tuple(line_starts)
        self._opening = True  # until the first line is complete
        self._unended = UnendedLine(
            link.reactor,
            self,
            gap,
            size=lambda: len(self.buffer.rest),
            end=lambda: self.dataReceived(b"\n"),
            warn=lambda: link.diagnostics.recommend_gap(self.buffer.rest),
        )

    def connectionMade(self) -> None:
        """
        Report that the device is open, after setting the options of a network connection.
        """
        assert self.transport is not None
        # A device that has stopped reading is noticed by the first byte that waits; there is no time limit.
        self._queue = SendQueue(self._link.reactor, IConsumer(self.transport), self._sent, lambda: None)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            keep_alive(self.transport)
        self._link.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Report that the device is closed.
        """
        self._unended.stop()
        self._queue.close()
        self._link.closed()

    def linesReceived(self, lines: Sequence[bytes]) -> None:
        """
        Deliver all lines of a chunk; the very first may be the tail of a line sent before the opening.
        """
        buffer, ended = self.buffer, bool(lines)
        if buffer.noise:
            self._link.noise_dropped(*buffer.take_noise())
        if self._opening and lines:
            self._opening = False
            first = lines[0]
            if first and not first.startswith(self._line_starts):
                self._link.partial_received(first)
                lines = lines[1:]
        if lines:
            self._link.lines_received(lines)
        unended = self._unended
        if buffer.rest or buffer.discarding:
            unended.line_unended(ended)
        elif unended.waiting:
            unended.waiting = False
        if len(buffer.rest) + self._link.diagnostics.garbage >= GARBLED_BYTES:
            self._link.check_garbage(buffer.rest)

    def write_lines(self, lines: Sequence[bytes]) -> bool:
        """
        Write lines in one piece, at once if no earlier data waits.

        Returns:
            Whether the device took all of it; if not, `Link.drained` is called when it has.
        """
        if lines:
            self._queue.write(self.delimiter.join([*lines, b""]))
        return not self._queue.unsent

    def _sent(self) -> None:
        if not self._queue.unsent:
            self._link.drained()

    def reset(self) -> bool:
        """
        Reset the board, and return whether that is possible.
        """
        return IResettable.providedBy(self.transport) and self.transport.reset()

    def abort(self) -> None:
        """
        Close a network connection at once; unsent data is lost.
        """
        if ITCPTransport.providedBy(self.transport):
            self.transport.abortConnection()


class _DeviceFactory(Factory):
    noisy = False  # do not log "Starting factory" at every attempt

    def __init__(self, build: Callable[[str | None], DeviceProtocol]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> DeviceProtocol:
        return self._build(getattr(addr, "path", None))


@implementer(IDeviceLink)
class Link(Service):
    """
    Keeps a device open from `startService` to `stopService`, reads it, and writes to it.

    The listener's `link_up` and `link_down` alternate; `link_down` is the first call if the first attempt to open the
    device fails, and is not called when the link itself closes the device. While paused, the link does not notice that
    the device is disconnected.
    """

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        name: str,
        path: str,
        dialect: IDialect,
        retry: Callable[[int], float] = reopen_policy,
        silence: float | None = None,
        reset_silent: bool = False,
        repeats: float | None = None,
        gap: float | None = None,
        describe: Callable[[str | None], BoardKind] = lambda path: UNKNOWN_BOARD,
        find_users: FindUsers | None = None,
    ) -> None:
        """
        Args:
            reactor: For timers and as the monotonic clock.
            endpoint: Opens the device.
            name: The name by which clients and the database know the device.
            path: Its path as the configuration spells it.
            dialect: Parses its lines; not shared with other links.
            retry: Returns the seconds before the nth attempt in a row.
            silence: Seconds without a line after which the device is silent; None for never.
            reset_silent: Whether to reset the board when it is silent.
            repeats: Seconds within which an identical line is only counted; None to deliver every line.
            gap: Seconds of quiet that end a line; None if only a line end does.
            describe: Returns what is known of the board at the path of a tty; None is an endpoint without a tty.
            find_users: Finds the other programs that have the device's tty open; None to look for none.
        """
        self.name: str = name
        self.path = path
        self.counts = LinkCounts()
        self.listener: ILinkListener
        self.reactor = reactor
        self.diagnostics = Diagnostics(name, reactor.seconds, gap)
        self._dialect = dialect
        self._describe = describe
        self._board_starts = False  # opening the port has reset the board, and it has sent no line since
        self._protocol: DeviceProtocol | None = None
        self._paused = False
        self._noise_lines = 0
        self._echoes = EchoFilter()
        self._repeats = None if repeats is None else RepeatFilter(repeats)
        self.port_watch = PortWatch(reactor, name, path, find_users)
        self._watchdog: Watchdog | None = None
        if silence is not None:
            self._watchdog = Watchdog(
                reactor,
                name,
                silence,
                silent=self._silent,
                active=lambda: self.listener.link_active(),
                reset=self._reset if reset_silent else None,
            )
        factory = _DeviceFactory(lambda tty: DeviceProtocol(self, dialect.line_starts, tty, gap))
        self._reconnector = Reconnector(
            reactor, endpoint, factory, name, path, lambda reason: self.listener.link_down(reason), retry
        )

    @property
    def warning(self) -> DeviceWarning | None:
        """
        What a person should know of the port: who else has it open.
        """
        return self.port_watch.warning or self._reconnector.warning

    def startService(self) -> None:
        """
        Begin to open the device.
        """
        super().startService()
        self._reconnector.start()

    def stopService(self) -> Deferred[None]:
        """
        Close the device.

        Returns:
            Fires when it is closed and its lock is released.
        """
        super().stopService()
        return self._close()

    def release(self) -> Deferred[str]:
        tty = self.path if self._protocol is None else self._protocol.path or self.path
        tty = os.path.realpath(tty) if tty.startswith("/") else tty
        return self._close().addCallback(lambda _: tty)

    def take_back(self) -> None:
        if self.running:
            self._reconnector.start()

    def _close(self) -> Deferred[None]:
        stopped = self._reconnector.stop()
        if self._protocol is not None:
            limit = self.reactor.callLater(STOP_LIMIT, self._protocol.abort)

            def in_time(result: None) -> None:
                if limit.active():
                    limit.cancel()

            stopped.addCallback(in_time)
        return stopped

    def send(self, messages: Sequence[Send]) -> bool:
        if self._protocol is None or not self._reconnector.running:
            return True
        now = self.reactor.seconds()
        lines = []
        for request, tag, patience in messages:
            try:
                line = self._dialect.encode(request, tag)
            except Exception:  # a dialect can be anybody's; its asker gets no answer
                self.log.failure("{device}: the dialect cannot encode a request", device=self.name)
                continue
            # Before it is written: a pty can echo it at once.
            self._echoes.line_written(line, now + patience)
            if self._repeats is not None:
                self._repeats.sensor_asked(request.question.sensor)
            lines.append(line)
        self.counts.lines_out += len(lines)
        return self._protocol.write_lines(lines)

    def size(self, request: Request, tag: str | None) -> int:
        try:
            return len(self._dialect.encode(request, tag)) + len(DeviceProtocol.delimiter)
        except Exception:  # `send` logs it, and writes nothing
            return 0

    def drained(self) -> None:
        """
        Report that the device took all that was written.
        """
        self.listener.link_drained()

    def pause(self) -> None:
        if not self._paused:
            self._paused = True
            if self._watchdog is not None:
                self._watchdog.pause()
            if self._protocol is not None:
                self._protocol.pauseProducing()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            if self._watchdog is not None:
                self._watchdog.resume()
            if self._protocol is not None:
                self._protocol.resumeProducing()

    def opened(self, protocol: DeviceProtocol) -> None:
        """
        Report that the device is open.

        Args:
            protocol: The protocol of this opening.
        """
        self._protocol = protocol
        if self._paused:
            protocol.pauseProducing()
        if self._reconnector.opened(network=ITCPTransport.providedBy(protocol.transport)):
            self.counts.reconnects += 1
        if self._watchdog is not None:
            self._watchdog.start()
        if ISharedPort.providedBy(protocol.transport):
            protocol.transport.disturbed = self.port_watch.suspect
            self.port_watch.start(protocol.transport)
        board = self._describe(protocol.path)
        self._board_starts = board.resets
        self.listener.link_up(board)

    def closed(self) -> None:
        """
        Report that the device is closed, unless the link closed it.
        """
        self._protocol = None
        self.port_watch.stop()
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._reconnector.running:
            self._reconnector.lost()
            self.listener.link_down(f"{self.path} was disconnected")

    def _silent(self) -> None:
        self.port_watch.suspect()
        self.listener.link_silent()

    def _reset(self) -> bool:
        return self._protocol is not None and self._protocol.reset()

    def noise_dropped(self, count: int, lines: int) -> None:
        """
        Count dropped bytes, and lines that were nothing else.
        """
        self.counts.noise_bytes += count
        self.diagnostics.garbage_received(b"", count)
        self.port_watch.suspect()
        self._noise_lines += lines

    def check_garbage(self, rest: bytes) -> None:
        """
        Warn if much of what was received is no text.

        Args:
            rest: The beginning of a line that has not ended.
        """
        self.port_watch.suspect()
        lines = self.counts.lines_in + self._noise_lines
        self.diagnostics.check_garbage(rest, lines, self.counts.malformed + self._noise_lines)

    def partial_received(self, line: bytes) -> None:
        """
        Count the tail of a line that began before the opening.
        """
        self.counts.lines_in += 1
        self.counts.partial += 1
        self.diagnostics.garbage_received(line)
        if len(line) > LINE_LIMIT:
            self.diagnostics.recommend_gap(line)
        if self._watchdog is not None:
            self._watchdog.line_received(self.reactor.seconds())
        self.listener.line_malformed(line[:LINE_LIMIT], "partial")

    def lines_received(self, lines: Sequence[bytes]) -> None:
        """
        Parse the lines of one chunk, and deliver its reports together.

        Args:
            lines: At least one line; an empty line is ignored, an over-long one is longer than `LINE_LIMIT`.
        """
        reports: list[Report] = []
        texts = False
        counts = self.counts
        decode = self._dialect.decode
        written = self._echoes.written
        mark = self._dialect.echo_mark
        if mark is not None and mark not in b"".join(lines):  # a seventh of the cost of looking into each line
            mark = None
        repeats = self._repeats
        now = self.reactor.seconds()
        received, echoes = len(lines) - lines.count(b""), 0
        counts.lines_in += received
        for line in lines:
            if not line:
                continue
            if (line in written and self._echoes.is_echo(line, now)) or (
                mark is not None and mark in line and self._echoes.holds_echo(line, now)
            ):
                echoes += 1
            elif repeats is not None and repeats.is_repeat(line, now):
                counts.repeats += 1
            elif len(line) > LINE_LIMIT:
                self.diagnostics.recommend_gap(line)
                self._malformed(line, "line too long")
            else:
                try:
                    parsed = decode(line)
                except Malformed as error:
                    self._malformed(line, error.reason)
                else:
                    if isinstance(parsed, str):
                        self.diagnostics.log_text(parsed)
                        texts = True
                    else:
                        reports.append(parsed)
                        if parsed.left_out:
                            self._fields_left_out(line, parsed.left_out)
                        if repeats is not None:
                            repeats.line_delivered(line, parsed.sensor, now)
        counts.echoes += echoes
        counts.fields_left_out = self._dialect.left_out
        if self._dialect.notices:
            self.diagnostics.log_notices(self._dialect.notices)
        if self._watchdog is not None and received > echoes:  # a board can echo while its firmware hangs
            self._watchdog.line_received(now)
        noise_lines = self._noise_lines
        self.diagnostics.check_lines(counts.lines_in + noise_lines, counts.malformed + noise_lines)
        if reports:
            if self.diagnostics.garbage:
                self.diagnostics.report_received()
            self.listener.reports_received(reports)
        if self._board_starts and (reports or texts):
            self._board_starts = False
            self.listener.board_started()

    def _fields_left_out(self, line: bytes, reasons: Sequence[str]) -> None:
        for reason in reasons:
            self.counts.field_left_out(reason)
        for reason in dict.fromkeys(reasons):
            self.listener.line_malformed(line, f"field left out, {reason}")

    def _malformed(self, line: bytes, reason: str) -> None:
        self.counts.malformed += 1
        self.diagnostics.garbage_received(line)
        self.port_watch.suspect()
        self.listener.line_malformed(line[:LINE_LIMIT], reason)
