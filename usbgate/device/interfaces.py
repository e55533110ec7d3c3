"""
The interfaces of dialects, links and their listeners.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from usbgate.core.counts import LinkCounts
from usbgate.core.model import UNKNOWN_BOARD, BoardKind, Report, Request, Send


class IDialect(Interface):
    """
    Parses the lines of one kind of device and writes requests to it (protocol §2, last point). One instance per link.

    The class is named `Dialect`. Its constructor has one argument, `options: Mapping[str, object] = {}`: the keys of
    `[device.NAME]` that usbgate itself does not know, with the values of the file. It raises `ValueError` for an option
    that it does not know, or a value that it can't use; the message begins with the key and names the possible values.
    If the module lists the names of its options as `OPTIONS`, `--device` accepts them, as `true`, `false` or a text.
    """

    line_starts: Sequence[bytes] = Attribute(
        "The possible beginnings of a line. The first line after opening may be the tail of a line that was sent before"
        " we listened: it is dropped, and counted as partial, unless it has one of these beginnings. If no"
        ' beginning is certain, choose between `(b"",)` (the first line always counts) and `()` (it never counts).'
    )
    echo_mark: bytes | None = Attribute(
        "What every line that `encode` writes holds, for a dialect of field lines: a received line that holds this and"
        " a whole written line is an echo, unless a further `_KEY:` follows. If None, only an equal line is an echo."
    )
    tags: bool = Attribute(
        "Whether the device returns usbgate's tags, as configured; usbgate sets it. If not, no report has a `tag`."
    )
    left_out: int = Attribute("How many fields were left out because usbgate gives their keys another meaning.")
    notices: list[str] = Attribute(
        "What a person should know about the lines received so far, each once. The link logs them and clears the list."
    )

    def decode(line: bytes) -> Report | str:
        """
        Parse one line of the device.

        Args:
            line: The line without its end; it begins with a printable ASCII character and has at most 1,024 bytes.

        Returns:
            A report, without those fields that are damaged, or a `str` if the line is the firmware's own text for the
            log.

        Raises:
            Malformed: It is neither.
        """

    def encode(request: Request, tag: str | None) -> bytes:
        """
        Write one request. May be called again for the same request, for the length of its line.

        Args:
            request: The request. `fields` has all that the device may be sent, in the client's order: `MSG`, `ID`,
                `ORIGIN` and the arguments; `line` is the same as a field line.
            tag: usbgate's own tag, if the device is configured to return one; it comes back as `Report.tag`.

        Returns:
            The line without its end. A request that cannot be written is best refused with an exception: it is logged,
            and the request times out.
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
        Return the bytes of a message as `send` writes it, with its line end.
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
            line: Its first 1,024 bytes.
            reason: Why, such as "no key: 'x'"; "partial" for a first line that began before the opening; such as
                "field left out, empty value" for a line of which the rest is reported.
        """
