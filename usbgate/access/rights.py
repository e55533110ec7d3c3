"""
The role that each word of the line protocol requires: the one table for all front ends, which docs/security.md prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from usbgate.access.roles import Role


class Right(NamedTuple):
    """
    What belongs together.

    Attributes:
        does: What it does, for people.
        role: The role that is required.
        words: Words of the line protocol.
    """

    does: str
    role: Role
    words: Sequence[str] = ()


RIGHTS: Sequence[Right] = (
    Right("See that usbgate is there, and authenticate", Role.NONE, ("ping", "help", "auth", "quit")),
    Right("See the sensors and their newest readings", Role.READ, ("sensors", "last")),
    Right("See stored readings", Role.READ, ("history",)),
    Right("Subscribe to events", Role.READ, ("watch", "unwatch")),
    Right("See alarms", Role.READ, ("alarms",)),
    Right("See who asked what", Role.READ, ("requests",)),
    Right("See the state of usbgate and of its devices", Role.READ, ("status", "devices")),
    Right("Ask a question that only reads", Role.ASK, ("ask",)),
    Right("Ask any other question, and acknowledge an alarm", Role.COMMAND, ("acknowledge",)),
    Right("Lend a device, see malformed lines and the paths of devices", Role.ADMIN, ("lend", "malformed")),
)

# Who sees the path of a device, in what shows the devices.
DEVICE_PATHS = Role.ADMIN

WORD_ROLES: Mapping[str, Role] = {word: right.role for right in RIGHTS for word in right.words}
