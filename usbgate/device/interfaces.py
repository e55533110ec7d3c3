"""
The interfaces of dialects and their framing, of links and their listeners.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TypeAlias

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from usbgate.core.counts import LinkCounts
from usbgate.core.errors import RequestError
from usbgate.core.model import UNKNOWN_BOARD, BoardKind, Reply, Report, Request, Send

# What a frame becomes: one of these, or several.
Part: TypeAlias = Report | str | Reply
Decoded: TypeAlias = Part | Sequence[Part]


class IFraming(Interface):
    """
    Cuts what one opening of a device sends into frames: bytes in, whole frames out. Its memory is bounded, whatever is
    sent. `usbgate.device.framing` has those of lines and of silence.
    """

    limit: int = Attribute(
        "The most bytes of a frame, 4,096 at most. An over-long one is returned once, cut to one byte more."
    )
    gap: float | None = Attribute(
        "Seconds of silence that end a frame; None if silence ends none. The setting `gap` goes before it."
    )
    ends: bytes = Attribute(
        "The bytes that end lines, such as CR and LF, which are no part of a frame; empty for frames that are no lines."
    )
    rest: bytes = Attribute("What has come of a frame that has not ended.")
    discarding: bool = Attribute("Whether the rest of an over-long frame is being dropped.")
    noise: int = Attribute("Bytes dropped since the last `take_noise` that belong to no frame, and not between frames.")

    def feed(data: bytes) -> Sequence[bytes]:
        """
        Take a chunk, cut anywhere, and return the frames that it completes, in order. Empty ones are ignored.
        """

    def end() -> Sequence[bytes]:
        """
        Return the frames that silence ends: nothing has come for `gap` seconds.
        """

    def is_partial(frame: bytes) -> bool:
        """
        Return whether the first frame after the opening may be the tail of one that was sent before we listened. It is
        then dropped, and counted as partial.
        """

    def take_noise() -> tuple[int, int]:
        """
        Return `noise`, and how many frames were nothing else, and begin to count again.
        """


class IDialect(Interface):
    """
    Knows how one kind of device spells what it sends and receives (protocol §2, last point). One instance per link.

    The class is named `Dialect`, and is best derived from `usbgate.device.dialect.DialectBase`, which has all but
    `decode`. Its constructor has one argument, `options: Mapping[str, object] = {}`: the keys of `[device.NAME]` that
    usbgate itself does not know, with the values of the file, or as text from `--device`. It raises `ValueError` for an
    option that it does not know, or a value that it can't use; the message begins with the option and names the
    possible values (`usbgate.device.options` does that).

    It does no I/O. usbgate sets `device`, `tags`, `now` and `kept` before it calls anything. Where a method raises
    anything but what it declares, the first exception is logged: a frame is malformed then, a request fails, and
    nothing is written at an opening.
    """

    defaults: Mapping[str, object] = Attribute(
        "Keys of `[device.NAME]` with values as in the file, such as `baud`, `line`, `window` and `store`: what holds"
        " for these devices where the configuration says nothing else."
    )
    fields: Mapping[str, Mapping[str, object]] = Attribute(
        "What the page should know of fields, by name, in the order in which it shows them: keys of"
        " `[sensor.ID.field.NAME]` but `alarm`, with values as in the file. What the configuration of a sensor says"
        " goes before it."
    )
    echo_mark: bytes | None = Attribute(
        "What every message that `encode` returns holds, for a dialect of field lines: a frame that holds this and a"
        " whole message is an echo, unless a further `_KEY:` follows. If None, only an equal frame is an echo."
    )
    echoes: bool = Attribute(
        "Whether a frame that equals a written message is an echo, which the link drops. False where an answer may be"
        " equal to the message; then the dialect gets both."
    )
    named: bool = Attribute(
        "Whether each report that answers has the command of its request. Then a report without one answers nothing."
    )
    alone: bool = Attribute(
        "Whether answers name no sensor, or not what was asked. Then only one message may be in flight, the one of the"
        " last `sent`: `window` has to be 1, and a configuration with more is refused."
    )
    device: str = Attribute("The device's name, which is the sensor of a device that has only one and names none.")
    tags: bool = Attribute("Whether the device returns usbgate's tags, as configured. If not, no report has a `tag`.")
    now: Callable[[], float] = Attribute(
        "The wall clock, for devices that ask for the time: returns seconds since 1970. It may be wrong, and may step."
    )
    kept: MutableMapping[str, str] = Attribute(
        "A small table of the dialect's own that outlives restarts. To set an item writes a file: do it rarely."
    )
    left_out: int = Attribute("How many fields were left out because usbgate gives their keys another meaning.")
    notices: list[str] = Attribute(
        "What a person should know about the frames received so far, each once. The link logs them and clears the list."
    )

    def framing() -> IFraming:
        """
        Return the framing of an opening that begins now.
        """

    def opened() -> bytes:
        """
        Return what to write to a device that was opened; if opening it resets the board, it is written when the board
        has started. Forget what came before: the device may be another one.
        """

    def decode(frame: bytes) -> Decoded:
        """
        Decode a frame.

        Args:
            frame: A frame of `framing`, not empty, and no longer than its limit.

        Returns:
            A report, without those fields that are damaged; a `str` for the log: the firmware's own text; a `Reply` to
            a question of the device; or several of these in order, perhaps none.

        Raises:
            Malformed: It is none of them.
        """

    def encode(request: Request, tag: str | None) -> bytes:
        """
        Encode a request. May be called again for the same request, for the length of the message.

        Args:
            request: The request. `fields` has all that the device may be sent, in the client's order: `MSG`, `ID`,
                `ORIGIN` and the arguments; `line` is the same as a field line.
            tag: usbgate's own tag, if the device is configured to return one; it comes back as `Report.tag`.

        Returns:
            The message with its end. If it is empty, nothing is written, and the sensor's next report answers: for
            devices that only send. A request that the device can't be sent is refused with `Malformed`, with which its
            askers fail.
        """

    def sent(request: Request) -> None:
        """
        Record that a request is about to be written, as `encode` has just returned it, even if that is empty. Called
        once for each message, unlike `encode`. The answer may come before the next call of any method.
        """


class IResettable(Interface):
    """
    A transport that can reset the board.
    """

    def reset() -> bool:
        """
        Begin to reset the board.

        Returns:
            False if it can't: there is no such line, or the port is closed.
        """


class ISharedPort(Interface):
    """
    A transport on a tty, which other programs can open and set as well.
    """

    disturbed: Callable[[], None] = Attribute(
        "To be set: called when another program opened or closed the tty, or read what had arrived."
    )

    def tty() -> os.stat_result | None:
        """
        Return the status of the tty; None if it is closed.
        """

    def restore_settings() -> str | None:
        """
        Set speed and mode again if they were changed.

        Returns:
            To what they had been changed, such as "115200 baud"; None if they were not.
        """


class IDeviceLink(Interface):
    """
    The connection to one device, open or not. A service: `startService` begins to open it.
    """

    name: str = Attribute("The name by which clients and the database know the device.")
    path: str = Attribute("The device's path as the configuration spells it.")
    counts: LinkCounts = Attribute("Its counts since usbgate started.")
    listener: ILinkListener = Attribute("The listener that it calls; must be set before `startService`.")

    def send(messages: Sequence[Send]) -> bool:
        """
        Write messages to the device, in one piece. Does nothing while the device is not open.

        Returns:
            Whether the device took all of them. If not, send nothing more until the listener's `link_drained`,
            `link_up` or `link_down` is called.
        """

    def size(request: Request, tag: str | None) -> int:
        """
        Return the bytes of a message as `send` writes it.
        """

    def pause() -> None:
        """
        Stop reading the device until `resume`, also after a reconnection. Repeated calls do nothing.
        """

    def resume() -> None:
        """
        Read the device again.
        """

    def release() -> Deferred[str]:
        """
        Close the device, and do not open it again until `take_back`. The listener is not called.

        Returns:
            Fires with the path of its tty (`path` if it was not open) when it is closed and its lock is released.
        """

    def take_back() -> None:
        """
        Open the device again. Call it only after the Deferred of `release` has fired.
        """


class ILinkListener(Interface):
    """
    Receives the calls of one link.
    """

    def link_up(board: BoardKind = UNKNOWN_BOARD) -> None:
        """
        The device was opened.

        Args:
            board: What is known of the board.
        """

    def board_started() -> None:
        """
        A board that opening the port has reset sent its first line, which the dialect accepted. Called after
        `reports_received`, for what was received before cannot answer what is written now.
        """

    def link_down(reason: str) -> None:
        """
        The device was disconnected, or the first attempt to open it failed; later failures are not reported.
        """

    def link_drained() -> None:
        """
        The device took all that was written; called once after `send` returned False.
        """

    def request_refused(request: Request, error: RequestError) -> None:
        """
        A request of the `send` that is running can't be written, and will not be answered.

        Args:
            request: The request.
            error: Why.
        """

    def request_unwritten(request: Request) -> None:
        """
        Nothing is written for a request of the `send` that is running: the sensor's next report answers it.
        """

    def link_silent() -> None:
        """
        The device is open, but has sent no line for as long as the configuration allows.
        """

    def link_active() -> None:
        """
        The silent device sent a line again.
        """

    def reports_received(reports: Sequence[Report]) -> None:
        """
        One chunk was read; `reports` are all its reports in order, at least one.
        """

    def line_malformed(line: bytes, reason: str) -> None:
        """
        A line was malformed, or partial, or fields of it were left out.

        Args:
            line: The first bytes of it, or of another frame; at most 1,024.
            reason: Why, such as "no key: 'x'"; "partial" for a first line that began before the opening; such as
                "field left out, empty value" for a line of which the rest is reported.
        """
