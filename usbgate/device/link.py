"""
A link: one device, wherever its endpoint finds it, opened again whenever it went away (protocol §2).
"""

from __future__ import annotations

import os
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import ClassVar

from twisted.application.internet import ClientService, backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import FilteringLogObserver, Logger, LogLevel, LogLevelFilterPredicate, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.core.counts import LinkCounts
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.model import Report, Send
from usbgate.core.onchange import RepeatFilter
from usbgate.device.diagnostics import GARBLED_BYTES, Diagnostics
from usbgate.device.interfaces import IDeviceLink, IDialect, ILinkListener, IResettable
from usbgate.net.keepalive import keep_alive
from usbgate.net.linereceiver import BoundedLineReceiver
from usbgate.net.sendqueue import SendQueue

# Lines written that may come back as an echo. An echo is back before so many others are written, whatever patience
# allows; this bounds the memory at 1 MiB.
ECHO_MEMORY = 1024

# Seconds that a serial server on the network has to take what is still to be sent when we stop.
STOP_LIMIT = 1.0

# Seconds beyond which a device that stays silent is not reset more rarely.
RESET_RARELY = 3600.0

# A replugged device is back under 0.8 s. Twisted's own policy waits up to 60 s, and its jitter alone up to 1 s.
reopen_policy = backoffPolicy(0.2, 0.6, jitter=lambda: 0.2 * random.random())


class DeviceProtocol(BoundedLineReceiver):
    """
    One opening of a device: cuts what it says into lines, and writes to it at once.
    """

    def __init__(self, link: Link, line_starts: Sequence[bytes], path: str | None) -> None:
        """
        Belong to a link.

        Args:
            link: Who gets the lines.
            line_starts: What the first line must start with to count (see `IDialect.line_starts`).
            path: The path of the tty; None where there is none.
        """
        super().__init__()
        self.path = path
        self._link = link
        self._line_starts = tuple(line_starts)
        self._opening = True  # until the first line is over

    def connectionMade(self) -> None:
        """
        Say that the device is open; a serial server on the network gets its options first.
        """
        assert self.transport is not None
        # A device that takes nothing is noticed by the first byte that waits, and nothing is done about it here.
        self._queue = SendQueue(self._link.reactor, IConsumer(self.transport), self._taken, lambda: None)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            keep_alive(self.transport)
        self._link.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Say that the device is gone.
        """
        self._queue.close()
        self._link.closed(reason)

    def dataReceived(self, data: bytes) -> None:
        """
        Cut a chunk into lines; look at what has no end.
        """
        super().dataReceived(data)
        if len(self.buffer.rest) >= GARBLED_BYTES:
            self._link.device_log.unended(self.buffer.rest)

    def linesReceived(self, lines: Sequence[bytes]) -> None:
        """
        Pass on all lines of a chunk; the very first may be the tail of a broken one.
        """
        if self._opening and lines:
            self._opening = False
            first = lines[0]
            if first and not first.startswith(self._line_starts):
                self._link.partial_received(first)
                lines = lines[1:]
        if lines:
            self._link.lines_received(lines)

    @property
    def full(self) -> bool:
        """
        Whether something that was written still waits for the device to take it.
        """
        return self._queue.unsent > 0

    def write_lines(self, lines: Sequence[bytes]) -> None:
        """
        Write lines in one piece, at once if nothing waits to be written.
        """
        self._queue.write(self.delimiter.join([*lines, b""]))

    def _taken(self) -> None:
        if not self.full:
            self._link.drained()

    def reset(self) -> bool:
        """
        Reset the board (see `IResettable.reset`).
        """
        return IResettable.providedBy(self.transport) and self.transport.reset()

    def close(self) -> None:
        """
        Hang up at once; what was not taken by now is lost.
        """
        if ITCPTransport.providedBy(self.transport):
            self.transport.abortConnection()


class _DeviceFactory(Factory):
    noisy = False  # or it says "Starting factory" at every attempt

    def __init__(self, build: Callable[[str | None], DeviceProtocol]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> DeviceProtocol:
        return self._build(getattr(addr, "path", None))


@implementer(IStreamClientEndpoint)
class _ToldEndpoint:
    """
    An endpoint that tells of each attempt that failed; ClientService keeps that to itself.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, failed: Callable[[Failure], None]) -> None:
        self._endpoint = endpoint
        self._failed = failed

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        def tell(failure: Failure) -> Failure:
            self._failed(failure)
            return failure

        return self._endpoint.connect(protocolFactory).addErrback(tell)


class _QuietClientService(ClientService):
    # It tells of every attempt at info, for ever; the link tells of the first. A logger of its own is the only way
    # that leaves the rest of the log alone.
    _log = Logger(
        namespace="twisted.application.internet.ClientService",
        observer=FilteringLogObserver(globalLogPublisher, [LogLevelFilterPredicate(LogLevel.warn)]),
    )


@implementer(IDeviceLink)
class Link(Service):
    """
    One device: looks for it from `startService` to `stopService`, reads it, writes to it.

    It tells its listener `link_up` and `link_down` in turn, `link_down` first where the first attempt fails; a stop
    of its own is no `link_down`. While paused it does not notice that the device goes away.
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
    ) -> None:
        """
        Look for nothing yet.

        Args:
            reactor: For timers and as the monotonic clock.
            endpoint: Where the device is.
            name: The name by which clients and the database know it.
            path: Where it is, in the words of the configuration.
            dialect: How it spells things; this link's own.
            retry: Tells the seconds before the nth attempt in a row.
            silence: Seconds without a line after which it is silent; None for never.
            reset_silent: Whether it is reset then.
            repeats: Seconds in which an identical line again is only counted; None to take each as it comes.
        """
        self.name: str = name
        self.path = path
        self.counts = LinkCounts()
        self.listener: ILinkListener
        self.reactor = reactor
        self._dialect = dialect
        self._protocol: DeviceProtocol | None = None
        self._paused = False
        self._full = False
        self._away_since: float | None = None
        self._failures_told: set[type[BaseException] | None] = set()
        self._written: OrderedDict[bytes, float] = OrderedDict()  # until when it is an echo
        self._repeats = None if repeats is None else RepeatFilter(repeats)
        self.device_log = Diagnostics(name, reactor.seconds)
        self._lent = False
        self._silence = silence
        self._reset_silent = reset_silent
        self._silent = False
        self._resets = 0  # in this silence
        self._heard_at = 0.0
        self._watch: IDelayedCall | None = None  # looks whether it is silent
        factory = _DeviceFactory(lambda path: DeviceProtocol(self, dialect.line_starts, path))
        self._client = _QuietClientService(
            _ToldEndpoint(endpoint, self._attempt_failed), factory, retryPolicy=retry, clock=reactor
        )

    def startService(self) -> None:
        """
        Begin to look for the device.
        """
        super().startService()
        self._look_for()

    def _look_for(self) -> None:
        self._away_since = None
        self._failures_told.clear()
        self._client.startService()

    def stopService(self) -> Deferred[None]:
        """
        Close the device.

        Returns:
            Fires when it is closed, and the lock on it is gone.
        """
        super().stopService()
        return self._close()

    def release(self) -> Deferred[str]:
        """
        Let go of the device (see `IDeviceLink.release`).
        """
        self._lent = True
        port = self.path if self._protocol is None else self._protocol.path or self.path
        port = os.path.realpath(port) if port.startswith("/") else port
        return self._close().addCallback(lambda _: port)

    def take_back(self) -> None:
        """
        Have the device again (see `IDeviceLink.take_back`).
        """
        self._lent = False
        if self.running:
            self._look_for()

    def _close(self) -> Deferred[None]:
        stopped: Deferred[None] = self._client.stopService()
        if self._protocol is not None:
            limit = self.reactor.callLater(STOP_LIMIT, self._protocol.close)

            def in_time(result: None) -> None:
                if limit.active():
                    limit.cancel()

            stopped.addCallback(in_time)
        return stopped

    def send(self, messages: Sequence[Send]) -> bool:
        """
        Write messages to the device (see `IDeviceLink.send`).
        """
        if self._protocol is None or not self._wanted:
            return True
        now = self.reactor.seconds()
        lines = []
        for request, tag, patience in messages:
            try:
                line = self._dialect.encode(request, tag)
            except Exception:  # a dialect can be anybody's; whoever asked hears that no answer came
                self.log.failure("{device}: the dialect can't write a request", device=self.name)
                continue
            # Before it is written: a pty can echo it in no time.
            self._remember(line, now + patience)
            if self._repeats is not None:
                self._repeats.asked(request.question.sensor)
            lines.append(line)
        if not lines:
            return not self._full
        self._protocol.write_lines(lines)
        self.counts.lines_out += len(lines)
        self._full = self._protocol.full
        return not self._full

    def drained(self) -> None:
        """
        Record that the device took all that was written (its protocol calls this).
        """
        if self._full:
            self._full = False
            self.listener.link_drained()

    def pause(self) -> None:
        """
        Read nothing until `resume` (see `IDeviceLink.pause`).
        """
        if not self._paused:
            self._paused = True
            if self._protocol is not None:
                self._protocol.pauseProducing()

    def resume(self) -> None:
        """
        Read again.
        """
        if self._paused:
            self._paused = False
            self._heard_at = self.reactor.seconds()
            if self._protocol is not None:
                self._protocol.resumeProducing()

    def opened(self, protocol: DeviceProtocol) -> None:
        """
        Record that the device is open (its protocol calls this).
        """
        self._protocol = protocol
        self._full = False
        self._failures_told.clear()
        if self._paused:
            protocol.pauseProducing()
        if self._away_since is None:
            self.log.info("{device} is open: {path}", device=self.name, path=self.path)
        else:
            away = self.reactor.seconds() - self._away_since
            self.log.info("{device} is back after {away:.1f} s", device=self.name, away=away)
        self._away_since = None
        if self._silence is not None:
            self._silent = False
            self._heard_at = self.reactor.seconds()
            self._look_after(self._silence)
        self.listener.link_up()

    def closed(self, reason: Failure) -> None:
        """
        Record that the device is gone (its protocol calls this).
        """
        self._protocol = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._wanted:
            self._away_since = self.reactor.seconds()
            self.log.warn("{device} went away: {path}", device=self.name, path=self.path)
            self.listener.link_down(f"{self.path} went away")

    @property
    def _wanted(self) -> bool:
        return bool(self.running) and not self._lent

    def _attempt_failed(self, failure: Failure) -> None:
        if not self._wanted:  # the attempt was given up
            return
        reason = failure.getErrorMessage()
        if failure.type not in self._failures_told:
            # One line for each kind of failure, until it is back: a program that grabs a replugged device is news.
            self._failures_told.add(failure.type)
            self.log.warn("{device} can't be opened: {reason}", device=self.name, reason=reason)
        if self._away_since is None:
            self._away_since = self.reactor.seconds()
            self.listener.link_down(reason)

    def partial_received(self, line: bytes) -> None:
        """
        Count the tail of a line whose beginning was sent before we listened.
        """
        self.counts.lines_in += 1
        self.counts.partial += 1
        if len(line) > LINE_LIMIT:
            self.device_log.unended(line)
        self._heard()
        self.listener.line_malformed(line[:LINE_LIMIT], "partial")

    def lines_received(self, lines: Sequence[bytes]) -> None:
        """
        Read the lines of one chunk, and hand on its reports together.
        """
        reports: list[Report] = []
        decode = self._dialect.decode
        written = self._written
        repeats = self._repeats
        now = self.reactor.seconds() if repeats is not None else 0.0
        said, echoes = len(lines) - lines.count(b""), self.counts.echoes
        self.counts.lines_in += said
        for line in lines:
            if not line:
                continue
            if line in written and self._is_echo(line):
                self.counts.echoes += 1
            elif repeats is not None and repeats.is_repeat(line, now):
                self.counts.repeats += 1
            elif len(line) > LINE_LIMIT:
                self.device_log.unended(line)
                self._refuse(line[:LINE_LIMIT], "line too long")
            else:
                try:
                    heard = decode(line)
                except Malformed as error:
                    self._refuse(line, error.reason)
                else:
                    if isinstance(heard, str):
                        self.device_log.text(heard)
                    else:
                        reports.append(heard)
                        if repeats is not None:
                            repeats.heard(line, heard.sensor, now)
        if said > self.counts.echoes - echoes:  # an echo may come from a board whose firmware hangs
            self._heard()
        self.counts.left_out = self._dialect.left_out
        self.device_log.look(self.counts.lines_in, self.counts.malformed)
        if reports:
            self.listener.reports_received(reports)

    # Silence. The timer is not moved by every line: when it is over it looks when the last one came.

    def _heard(self) -> None:
        if self._silence is None:
            return
        now = self.reactor.seconds()
        if self._silent:
            self._silent = False
            self.log.info("{device} speaks again after {quiet:.1f} s", device=self.name, quiet=now - self._heard_at)
            if self._watch is not None:
                self._watch.cancel()
            self._look_after(self._silence)
            self.listener.link_active()
        self._heard_at = now

    def _look_after(self, seconds: float) -> None:
        self._watch = self.reactor.callLater(seconds, self._look_at_silence)

    def _look_at_silence(self) -> None:
        self._watch = None
        assert self._silence is not None
        left = self._heard_at + self._silence - self.reactor.seconds()
        if self._paused or (left > 0 and not self._silent):
            self._look_after(left if left > 0 else self._silence)
            return
        if not self._silent:
            self._silent = True
            self._resets = 0
            self.log.warn("{device} has said nothing for {silence:g} s", device=self.name, silence=self._silence)
            self.listener.link_silent()
        if self._reset_silent and self._protocol is not None and self._protocol.reset():
            self._resets += 1
            wait = min(self._silence * 2 ** min(self._resets, 12), max(self._silence, RESET_RARELY))
            self.log.info(
                "{device} is reset by DTR; if it stays silent, again in {wait:g} s", device=self.name, wait=wait
            )
            self._look_after(wait)

    def _refuse(self, line: bytes, reason: str) -> None:
        self.counts.malformed += 1
        self.listener.line_malformed(line, reason)

    def _remember(self, line: bytes, until: float) -> None:
        self._written[line] = max(until, self._written.pop(line, until))
        if len(self._written) > ECHO_MEMORY:
            self._written.popitem(last=False)

    def _is_echo(self, line: bytes) -> bool:
        if self.reactor.seconds() <= self._written[line]:
            return True
        del self._written[line]
        return False
