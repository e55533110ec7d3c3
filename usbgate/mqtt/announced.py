"""
Discovery messages as a broker has them: those of an earlier run, or whatever others have put in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec


class AnnouncedComponent(msgspec.Struct):
    """
    What is to be known of a component.

    Attributes:
        platform: Its platform.
        unique_id: Its id; a component without one removes another.
        state_class: As in the message.
        unit_of_measurement: As in the message.
    """

    platform: str
    unique_id: str = ""
    state_class: str | None = None
    unit_of_measurement: str | None = None

    @property
    def is_number(self) -> bool:
        """
        Whether it shows a number.
        """
        return self.state_class is not None or self.unit_of_measurement is not None


class Announced(NamedTuple):
    """
    What the broker has of a device of Home Assistant.

    Attributes:
        hash: The hash of the message.
        components: The components that it has, without those that are only removed.
        raw: The components as they stand there.
        round: In which round of the announcer it was published; 0 by an earlier run.
    """

    hash: int
    components: Mapping[str, AnnouncedComponent]
    raw: Mapping[str, msgspec.Raw]
    round: int = 0


NOTHING = Announced(hash(b""), {}, {})


class _Message(msgspec.Struct):
    components: dict[str, msgspec.Raw] = {}


def read_message(message: bytes) -> Announced:
    """
    Read a message; one that is no discovery message has no components.
    """
    try:
        raw = msgspec.json.decode(message.decode(), type=_Message).components
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raw = {}
    components = {}
    for key, each in raw.items():
        with suppress(msgspec.DecodeError, RecursionError):
            component = msgspec.json.decode(each, type=AnnouncedComponent)
            if component.unique_id:
                components[key] = component
    return Announced(hash(message), components, {key: raw[key] for key in components})
