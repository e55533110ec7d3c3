"""
What a dialect and a link provide, and what a link expects of its listener.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from usbgate.core.counts import LinkCounts
from usbgate.core.model import Report, Request, Send


class IDialect(Interface):
    """
    Parses the lines of one kind of device and writes requests to it (protocol §2, last point). One instance a link.

    The class is named `Dialect`. Its constructor has one argument, `options: Mapping[str, object] = {}`: the keys of
    `[device.NAME]` that usbgate itself does not know, with the values of the file. It raises `ValueError` for an option
    that it does not know, or a value that it can't use; the message begins with the key and says what is possible.
    """

    line_starts: Sequence[bytes] = Attribute(
        "The possible beginnings of a line. The first line after opening may be the tail of a line that was sent before"
        " we listened: it is dropped, and counted as partial, unless it has one of these beginnings. Where no"
        ' beginning is certain, choose between `(b"",)`, the first line always counts, and `()`, it never does.'
    )
    left_out: int = Attribute("How many fields were left out because usbgate gives their keys another meaning.")

    def decode(line: bytes) -> Report | str:
        """
        Parse one line of the device.

        Args:
            line: The line without its end; not empty, at most 1,024 bytes.

        Returns:
            A report, or a `str` where the line is the firmware's own text for the log.

        Raises:
            Malformed: It is neither.
        """

    def encode(request: Request, tag: str | None) -> bytes:
        """
        Write one request.

        Args:
            request: The request.
            tag: usbgate's own tag, where the device is configured to return one.

        Returns:
            The line without its end.
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


class IDeviceLink(Interface):
    """
    One device, connected or not. A service: `startService` begins to look for it.
    """

    name: str = Attribute("The name by which clients and the database know it.")
    path: str = Attribute("Where it is, in the words of the configuration.")
    counts: LinkCounts = Attribute("What is counted of it.")
    listener: ILinkListener = Attribute("To be set before `startService`: what it calls when something happens.")

    def send(messages: Sequence[Send]) -> bool:
        """
        Write messages to the device, in one piece; does nothing while it is not connected.

        Returns:
            Whether the device took all of it. If not, send nothing more until the listener's `link_drained`,
            `link_up` or `link_down` is called.
        """

    def pause() -> None:
        """
        Read nothing from the device until `resume`; holds over a reconnection. Repeating it is harmless.
        """

    def resume() -> None:
        """
        Read again.
        """

    def release() -> Deferred[str]:
        """
        Close the device and look for it no more, until `take_back`; its listener is not called.

        Returns:
            Fires with the path of its tty (`path`, if it was not open) when it is closed and its lock is free.
        """

    def take_back() -> None:
        """
        Look for the device again; to be called when `release` has fired.
        """


class ILinkListener(Interface):
    """
    What a link calls; one listener for each link.
    """

    def link_up() -> None:
        """
        The device was opened.
        """

    def link_down(reason: str) -> None:
        """
        The device went away, or the first attempt to open it failed; later failures are not reported.
        """

    def link_drained() -> None:
        """
        The device took all that was written, after a `send` that returned False.
        """

    def link_silent() -> None:
        """
        The device is open, but has sent no line for as long as the configuration allows.
        """

    def link_active() -> None:
        """
        The silent device sent a line.
        """

    def reports_received(reports: Sequence[Report]) -> None:
        """
        One chunk was read and held these reports, in order; called at once, with at least one report.
        """

    def line_malformed(line: bytes, reason: str) -> None:
        """
        A line was malformed, or partial.
        """
