"""
The names of topics (docs/mqtt.md, "Topics").

Names of gateways, devices, sensors and fields stand in topics escaped: a level that holds one contains an underscore
only before two hexadecimal digits in upper case. So the levels of usbgate's own that stand beside them begin with an
underscore and a letter in lower case.
"""

from __future__ import annotations

import re

PREFIX = "usbgate"

_ESCAPED = re.compile(rb"[^a-zA-Z0-9-]")
_ESCAPE = re.compile(rb"_([0-9A-F]{2})")


def escape(name: str) -> str:
    """
    Spell a name as a level of a topic: each byte of its UTF-8 but letters, digits and hyphens as `_XX`.
    """
    return _ESCAPED.sub(lambda found: b"_%02X" % found[0][0], name.encode()).decode()


def unescape(level: str) -> str:
    """
    Return the name that `escape` has spelled so.

    Raises:
        ValueError: It spells no name so.
    """
    name = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), level.encode()).decode()
    if escape(name) != level:
        raise ValueError(f"not a level of a topic that stands for a name: {level!r}")
    return name


class Topics:
    """
    The topics of one gateway.
    """

    def __init__(self, gateway: str) -> None:
        """
        Args:
            gateway: Its name.
        """
        self.base = f"{PREFIX}/{escape(gateway)}"
        self.availability = f"{self.base}/availability"
        self.ask = f"{self.base}/ask"
        self.events = f"{self.base}/events"
        self.device_availabilities = f"{self.base}/+/_availability"  # a filter

    def device_availability(self, device: str) -> str:
        """
        Return the topic that tells whether a device can be used.
        """
        return f"{self.base}/{escape(device)}/_availability"

    def sensor(self, device: str, sensor: str) -> str:
        """
        Return the topic of all newest values of a sensor together, as JSON.
        """
        return f"{self.base}/{escape(device)}/{escape(sensor)}"

    def sensor_events(self, device: str, sensor: str) -> str:
        """
        Return the topic of the events of a sensor: alarms and failed commands.
        """
        return f"{self.sensor(device, sensor)}/_events"

    def value(self, device: str, sensor: str, field: str) -> str:
        """
        Return the topic of one value.
        """
        return f"{self.sensor(device, sensor)}/{escape(field)}"
