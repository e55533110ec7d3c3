"""
A link: the connection to one device, opened again whenever it is lost (protocol §2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint, ITCPTransport
from zope.interface import implementer

from usbgate.core.counts import LinkCounts
from usbgate.core.errors import Failed, Malformed
from usbgate.core.model import UNKNOWN_BOARD, BoardKind, DeviceWarning, Request, Send
from usbgate.core.pending import SETTLE
from usbgate.device.diagnostics import Diagnostics
from usbgate.device.filters import EchoFilter, RepeatFilter
from usbgate.device.frames import REPLY_ECHO, FrameDecoder
from usbgate.device.interfaces import IDeviceLink, IDialect, ILinkListener, ISharedPort
from usbgate.device.portwatch import FindUsers, PortWatch
from usbgate.device.protocol import DeviceFactory, DeviceProtocol
from usbgate.device.reconnect import Reconnector, reopen_policy
from usbgate.device.tapport import TapPort
from usbgate.device.watchdog import Watchdog

# Seconds that a serial server on the network has to receive the remaining data when the link stops.
STOP_LIMIT = 1.0

# Bytes that may wait for the device when it is replied to; a device that only asks, and does not read, gets no reply.
REPLY_LIMIT = 4096


@implementer(IDeviceLink)
class Link(Service):
    """
    Keeps a device open from `startService` to `stopService`, reads it, and writes to it.

    The listener's `link_up` and `link_down` alternate; `link_down` is the first call if the first attempt to open the
    device fails, and is not called when the link itself closes the device. While paused, the link does not notice that
    the device is disconnected.
    """

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
        tap: TapPort | None = None,
    ) -> None:
        """
        Args:
            reactor: For timers and as the monotonic clock.
            endpoint: Opens the device.
            name: The name by which clients and the database know the device.
            path: Its path as the configuration spells it.
            dialect: Decodes its frames; not shared with other links.
            retry: Returns the seconds before the nth attempt in a row.
            silence: Seconds without a line after which the device is silent; None for never.
            reset_silent: Whether to reset the board when it is silent.
            repeats: Seconds within which an identical line is only counted; None to deliver every line.
            gap: Seconds of silence that end a frame; None to go by the dialect's framing.
            describe: Returns what is known of the board at the path of a tty; None is an endpoint without a tty.
            find_users: Finds the other programs that have the device's tty open; None to look for none.
            tap: Receives a copy of what the device sends; None for none.
        """
        self.name: str = name
        self.path = path
        self.counts = LinkCounts()
        self.reactor = reactor
        self.port_watch = PortWatch(reactor, name, path, find_users)
        self._dialect = dialect
        self._describe = describe
        self._protocol: DeviceProtocol | None = None
        self._paused = False
        self._greeting: IDelayedCall | None = None
        self._echoes = EchoFilter()
        self._repeats = None if repeats is None else RepeatFilter(repeats)
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
        self.decoder = FrameDecoder(
            reactor,
            dialect,
            self.counts,
            Diagnostics(name, reactor.seconds, gap),
            self.port_watch,
            self._echoes,
            self._repeats,
            self._watchdog,
            reply=self._reply,
            started=self._board_started,
        )
        self._tap = tap
        copy = None if tap is None else tap.write
        factory = DeviceFactory(lambda tty: DeviceProtocol(self, dialect.framing(), tty, gap, copy))
        self._reconnector = Reconnector(
            reactor, endpoint, factory, name, path, lambda reason: self.listener.link_down(reason), retry
        )

    @property
    def listener(self) -> ILinkListener:
        return self.decoder.listener

    @listener.setter
    def listener(self, listener: ILinkListener) -> None:
        self.decoder.listener = listener

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
        if self._tap is not None:
            self._tap.start()
        self._reconnector.start()

    def stopService(self) -> Deferred[None]:
        """
        Close the device.

        Returns:
            Fires when it is closed and its lock is released.
        """
        super().stopService()
        if self._tap is not None:
            self._tap.stop()
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
        ends = self._protocol.framing.ends
        written = []
        for request, tag, patience in messages:
            if self._repeats is not None:
                self._repeats.sensor_asked(request.question.sensor)
            try:
                message = self._dialect.encode(request, tag)
                self._dialect.sent(request)  # before it is written: a pty can echo it at once
            except Malformed as error:
                self.listener.request_refused(request, error)
                continue
            except Exception:  # a dialect can be anybody's
                self.decoder.diagnostics.dialect_failed("encode", request.line)
                self.listener.request_refused(request, Failed())
                continue
            if message:
                if self._dialect.echoes:
                    self._echoes.line_written(message.rstrip(ends), now + patience)
                written.append(message)
            else:
                self.listener.request_unwritten(request)
        self.counts.lines_out += len(written)
        return self._protocol.write(written)

    def size(self, request: Request, tag: str | None) -> int:
        try:
            return len(self._dialect.encode(request, tag))
        except Exception:  # `send` refuses it
            return 0

    def _reply(self, data: bytes) -> None:
        # The device has asked, or waits for this.
        protocol = self._protocol
        if protocol is not None and data and self._reconnector.running and protocol.unsent < REPLY_LIMIT:
            if self._dialect.echoes:
                self._echoes.line_written(data.rstrip(protocol.framing.ends), self.reactor.seconds() + REPLY_ECHO)
            self.counts.lines_out += 1
            protocol.write([data])

    def drained(self) -> None:
        """
        Report that the device took all that was written.
        """
        self.decoder.listener.link_drained()

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
        self.decoder.board_starts = board.resets
        try:
            greeting = self._dialect.opened()
        except Exception:  # a dialect can be anybody's
            self.decoder.diagnostics.dialect_failed("greet", self.path)
            greeting = b""
        if greeting and board.resets:
            self._greeting = self.reactor.callLater(SETTLE, self._greet, greeting)
        else:
            self._reply(greeting)
        self.listener.link_up(board)

    def _greet(self, greeting: bytes) -> None:
        self._greeting = None
        self._reply(greeting)

    def _board_started(self) -> None:
        if self._greeting is not None:
            self._greeting.reset(0)
        self.listener.board_started()

    def closed(self) -> None:
        """
        Report that the device is closed, unless the link closed it.
        """
        self._protocol = None
        if self._greeting is not None:
            self._greeting.cancel()
            self._greeting = None
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
