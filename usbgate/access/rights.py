"""
The role that each word of the line protocol, each call over HTTP and each topic of MQTT requires: the one table for all
front ends, which docs/security.md prints.
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
        calls: Calls over HTTP: method and path.
        topics: Kinds of events to which a client is subscribed by them.
        mqtt: Topics below `usbgate/GATEWAY`, on which usbgate publishes that, or is asked.
    """

    does: str
    role: Role
    words: Sequence[str] = ()
    calls: Sequence[str] = ()
    topics: Sequence[str] = ()
    mqtt: Sequence[str] = ()


RIGHTS: Sequence[Right] = (
    Right(
        "See that usbgate is there, and authenticate",
        Role.NONE,
        ("ping", "help", "auth", "quit"),
        (
            *("GET /healthz", "GET /api/v1/openapi.json"),
            *("GET /api/v1/session", "POST /api/v1/login", "POST /api/v1/logout"),
        ),
    ),
    Right(
        "See the sensors and their newest readings",
        Role.READ,
        ("sensors", "last", "replacements"),
        ("GET /api/v1/sensors", "GET /api/v1/sensors/{sensor}", "GET /api/v1/replacements"),
        mqtt=("DEVICE/SENSOR", "DEVICE/SENSOR/FIELD"),
    ),
    Right(
        "See stored readings",
        Role.READ,
        ("history",),
        ("GET /api/v1/readings", "GET /api/v1/readings.csv", "GET /api/v1/states"),
    ),
    Right(
        "Subscribe to events",
        Role.READ,
        ("watch", "unwatch"),
        ("GET /api/v1/events",),
        ("reading", "alarm", "device", "store"),
        ("events", "DEVICE/SENSOR/_events"),
    ),
    Right("See alarms", Role.READ, ("alarms",), ("GET /api/v1/alarms", "GET /api/v1/alarms/history")),
    Right("See rules", Role.READ, ("rules",), ("GET /api/v1/rules",)),
    Right("See who asked what", Role.READ, ("requests", "held"), ("GET /api/v1/requests", "GET /api/v1/held")),
    Right(
        "See the state of usbgate and of its devices",
        Role.READ,
        ("status", "devices"),
        ("GET /api/v1/status", "GET /api/v1/devices", "GET /metrics"),
        mqtt=("availability", "DEVICE/_availability"),
    ),
    Right(
        "Ask a question that only reads, and cancel one that is held",
        Role.ASK,
        ("ask", "cancel"),
        ("POST /api/v1/sensors/{sensor}/ask", "POST /api/v1/held/{number}/cancel"),
        mqtt=("ask",),
    ),
    Right(
        "Ask any other question, and cancel it, and acknowledge an alarm",
        Role.COMMAND,
        ("acknowledge",),
        ("POST /api/v1/alarms/{alarm}/acknowledge",),
    ),
    Right(
        "Say that a sensor has a new id",
        Role.ADMIN,
        ("replace",),
        ("POST /api/v1/sensors/{sensor}/replace", "POST /api/v1/sensors/{sensor}/undo-replacement"),
    ),
    Right("Lend a device, see malformed lines and the paths of devices", Role.ADMIN, ("lend", "malformed")),
)

# Who sees the path of a device, in what shows the devices.
DEVICE_PATHS = Role.ADMIN

WORD_ROLES: Mapping[str, Role] = {word: right.role for right in RIGHTS for word in right.words}
CALL_ROLES: Mapping[str, Role] = {call: right.role for right in RIGHTS for call in right.calls}
