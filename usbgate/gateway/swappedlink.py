"""
A device's link with the ids that are on its wire: those of replaced sensors and of their successors are exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from usbgate.core.model import Report, Request, Send
from usbgate.core.replacements import swap_report, swap_request
from usbgate.device.interfaces import IDeviceLink


class SwappedLink:
    """
    Translates between sensors and the ids that a device knows.

    Attributes:
        swaps: The ids that take each other's places (see `Replacements.swaps`); usually none, and nothing needs to be
            translated.
    """

    def __init__(self, link: IDeviceLink) -> None:
        """
        Args:
            link: The device's link.
        """
        self.swaps: Mapping[str, str] = {}
        self._link = link

    def size(self, request: Request, tag: str | None) -> int:
        """
        Return the bytes of a message (see `IDeviceLink.size`).
        """
        return self._link.size(self.request(request), tag)

    def send(self, messages: Sequence[Send]) -> bool:
        """
        Write messages (see `IDeviceLink.send`).
        """
        return self._link.send([each._replace(request=self.request(each.request)) for each in messages])

    def request(self, request: Request) -> Request:
        """
        Return a request as the device gets it, or the other way round.
        """
        return swap_request(request, self.swaps)

    def reports(self, reports: Sequence[Report]) -> Sequence[Report]:
        """
        Return the reports of a device as those of sensors.
        """
        return [swap_report(report, self.swaps) for report in reports]
