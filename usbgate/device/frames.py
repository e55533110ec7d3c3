"""
From frames to reports: what one opening of a device sends, and what its frames are (protocol §2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime

from usbgate.core.counts import LinkCounts
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.model import Reply, Report
from usbgate.device.diagnostics import GARBLED_BYTES, Diagnostics
from usbgate.device.filters import EchoFilter, RepeatFilter
from usbgate.device.interfaces import Decoded, IDialect, IFraming, ILinkListener
from usbgate.device.portwatch import PortWatch
from usbgate.device.unended import Input, UnendedLine
from usbgate.device.watchdog import Watchdog

# Seconds within which a reply to the device is an echo if it comes back.
REPLY_ECHO = 5.0


class FrameDecoder:
    """
    Decodes the frames of one device, counts them, and delivers the reports.

    Attributes:
        listener: Receives them.
        diagnostics: Logs what is wrong with what is received.
        board_starts: Whether opening the port has reset the board, and no frame was accepted since.
        started: Called when a board that was reset has started.
        reply: Writes what the device is answered.
    """

    listener: ILinkListener

    def __init__(
        self,
        reactor: IReactorTime,
        dialect: IDialect,
        counts: LinkCounts,
        diagnostics: Diagnostics,
        port_watch: PortWatch,
        echoes: EchoFilter,
        repeats: RepeatFilter | None,
        watchdog: Watchdog | None,
        reply: Callable[[bytes], None],
        started: Callable[[], None],
    ) -> None:
        """
        Args:
            reactor: For the time.
            dialect: Decodes the frames.
            counts: Counts them.
            diagnostics: See the class, as for `reply` and `started`.
            port_watch: Looks at the port when something is suspicious.
            echoes: Recognizes echoes.
            repeats: Recognizes repeats; None to deliver every frame.
            watchdog: Notices silence; None if silence is no trouble.
            reply: See the class.
            started: See the class.
        """
        self.diagnostics = diagnostics
        self.board_starts = False
        self.reply = reply
        self.started = started
        self._seconds = reactor.seconds
        self._dialect = dialect
        self._counts = counts
        self._port_watch = port_watch
        self._echoes = echoes
        self._repeats = repeats
        self._watchdog = watchdog
        self._noise_frames = 0

    def noise_dropped(self, count: int, frames: int) -> None:
        """
        Count dropped bytes, and frames that were nothing else.
        """
        self._counts.noise_bytes += count
        self.diagnostics.garbage_received(b"", count)
        self._port_watch.suspect()
        self._noise_frames += frames

    def check_garbage(self, rest: bytes) -> None:
        """
        Warn if much of what was received is no text.

        Args:
            rest: The beginning of a line that has not ended.
        """
        self._port_watch.suspect()
        counts, noise = self._counts, self._noise_frames
        self.diagnostics.check_garbage(rest, counts.lines_in + noise, counts.malformed + noise)

    def partial_received(self, frame: bytes, framing: IFraming) -> None:
        """
        Count the tail of a frame that began before the opening.
        """
        self._counts.lines_in += 1
        self._counts.partial += 1
        self.diagnostics.garbage_received(frame)
        if len(frame) > framing.limit and framing.ends:
            self.diagnostics.recommend_gap(frame)
        if self._watchdog is not None:
            self._watchdog.line_received(self._seconds())
        self.listener.line_malformed(frame[:LINE_LIMIT], "partial")

    def frames_received(self, frames: Sequence[bytes], framing: IFraming) -> None:
        """
        Decode the frames of one chunk, and deliver its reports together.

        Args:
            frames: At least one; an empty one is ignored, an over-long one is longer than the limit of the framing.
            framing: What has cut them.
        """
        reports: list[Report] = []
        others = False
        limit = framing.limit
        counts = self._counts
        dialect = self._dialect
        decode = dialect.decode
        written = self._echoes.written
        mark = dialect.echo_mark
        if mark is not None and mark not in b"".join(frames):  # a seventh of the cost of looking into each line
            mark = None
        repeats = self._repeats
        now = self._seconds()
        received, echoes = len(frames) - frames.count(b""), 0
        counts.lines_in += received
        for frame in frames:
            if not frame:
                continue
            if (frame in written and self._echoes.is_echo(frame, now)) or (
                mark is not None and mark in frame and self._echoes.holds_echo(frame, now)
            ):
                echoes += 1
            elif repeats is not None and repeats.is_repeat(frame, now):
                counts.repeats += 1
            elif len(frame) > limit:
                if framing.ends:
                    self.diagnostics.recommend_gap(frame)
                self._malformed(frame, "line too long" if framing.ends else "frame too long")
            else:
                try:
                    decoded = decode(frame)
                except Malformed as error:
                    self._malformed(frame, error.reason)
                except Exception:  # a dialect can be anybody's
                    self.diagnostics.dialect_failed("decode", frame)
                    self._malformed(frame, "the dialect failed")
                else:
                    if isinstance(decoded, Report):
                        reports.append(decoded)
                        if decoded.left_out:
                            self._fields_left_out(frame, decoded.left_out)
                        if repeats is not None:
                            repeats.line_delivered(frame, decoded.sensor, now)
                    else:
                        others = True
                        reports += self._take(frame, decoded, now)
        counts.echoes += echoes
        counts.fields_left_out = dialect.left_out
        if dialect.notices:
            self.diagnostics.log_notices(dialect.notices)
        if self._watchdog is not None and received > echoes:  # a board can echo while its firmware hangs
            self._watchdog.line_received(now)
        noise = self._noise_frames
        self.diagnostics.check_lines(counts.lines_in + noise, counts.malformed + noise)
        if reports:
            if self.diagnostics.garbage:
                self.diagnostics.report_received()
            self.listener.reports_received(reports)
        if self.board_starts and (reports or others):
            self.board_starts = False
            self.started()

    def _take(self, frame: bytes, decoded: Decoded, now: float) -> Sequence[Report]:
        # What is not just one report: log texts and write replies; return the reports.
        reports: list[Report] = []
        for each in (decoded,) if isinstance(decoded, str | Reply) else decoded:
            if isinstance(each, str):
                self.diagnostics.log_text(each)
            elif isinstance(each, Reply):
                self.reply(each.data)
            elif isinstance(each, Report):
                reports.append(each)
                if each.left_out:
                    self._fields_left_out(frame, each.left_out)
                if self._repeats is not None:
                    self._repeats.line_delivered(frame, each.sensor, now)
        return reports

    def _fields_left_out(self, frame: bytes, reasons: Sequence[str]) -> None:
        for reason in reasons:
            self._counts.field_left_out(reason)
        for reason in dict.fromkeys(reasons):
            self.listener.line_malformed(frame[:LINE_LIMIT], f"field left out, {reason}")

    def _malformed(self, frame: bytes, reason: str) -> None:
        self._counts.malformed += 1
        self.diagnostics.garbage_received(frame)
        self._port_watch.suspect()
        self.listener.line_malformed(frame[:LINE_LIMIT], reason)


class FrameReceiver:
    """
    Receives the frames of one opening: the first may be the tail of one, and the last may not have ended.
    """

    def __init__(
        self, reactor: IReactorTime, decoder: FrameDecoder, framing: IFraming, input: Input, gap: float | None
    ) -> None:
        """
        Args:
            reactor: For timers.
            decoder: Receives the frames.
            framing: Cuts them.
            input: Where the data comes from.
            gap: Seconds of silence that end a frame; None to go by the framing.
        """
        self._decoder = decoder
        self._diagnostics = decoder.diagnostics
        self._framing = framing
        self._of_lines = bool(framing.ends)  # others are longer, and may be no text
        self._is_first = True  # until the first frame is complete
        self._unended = UnendedLine(
            reactor,
            input,
            framing.gap if gap is None else gap,
            size=lambda: len(framing.rest),
            end=lambda: self.receive(framing.end()),
            warn=self._warn,
        )

    def receive(self, frames: Sequence[bytes]) -> None:
        """
        Receive the frames of a chunk that was fed to the framing, perhaps none.
        """
        framing, ended = self._framing, bool(frames)
        if framing.noise:
            self._decoder.noise_dropped(*framing.take_noise())
        if self._is_first and frames:
            self._is_first = False
            first = frames[0]
            if first and framing.is_partial(first):
                self._decoder.partial_received(first, framing)
                frames = frames[1:]
        if frames:
            self._decoder.frames_received(frames, framing)
        unended = self._unended
        if framing.rest or framing.discarding:
            unended.line_unended(ended)
        elif unended.waiting:
            unended.waiting = False
        rest = framing.rest if self._of_lines else b""
        if len(rest) + self._diagnostics.garbage >= GARBLED_BYTES:
            self._decoder.check_garbage(rest)

    def stop(self) -> None:
        """
        Stop watching the last frame; the device is closed.
        """
        self._unended.stop()

    def _warn(self) -> None:
        if self._of_lines:
            self._diagnostics.recommend_gap(self._framing.rest)
