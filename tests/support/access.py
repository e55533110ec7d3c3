"""
An authority for tests: with a door that lets everybody do everything, and with the tokens of a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.memory_gateway import MemoryGateway, report_event
from usbgate.access.authority import Authority
from usbgate.access.doors import Door, Rule
from usbgate.access.failures import Failures
from usbgate.access.roles import Role
from usbgate.access.sessions import Sessions
from usbgate.access.tokens import Token, TokenFile, digest
from usbgate.core.calibration import Implausible
from usbgate.core.model import Alarm, AlarmEvent, DeviceEvent, Event, Question, Reading, StoreEvent
from usbgate.core.settings import SensorSettings
from usbgate.core.uncompared import Uncompared
from usbgate.gateway.interfaces import HeldRequest, SensorSummary
from usbgate.testing import AT, request

OPEN = Door(Role.ADMIN)

# An event of each kind.
EVENTS: Sequence[Event] = (
    report_event("20"),
    AlarmEvent(Alarm("a1", "leonardo", "20", "T", "> 1", 2.0, None, AT), "raised", AT),
    DeviceEvent("leonardo", "offline", AT),
    StoreEvent("away", 7),
)

# The alarms of `limit_to_20`.
ALARMS = [Alarm(f"a{sensor}", "leonardo", sensor, "T", "> 1", 2.0, None, AT) for sensor in ("20", "99")]


def limit_to_20(gateway: MemoryGateway, tokens: TokenFile) -> None:
    """
    Make the sensors 20 and 99 known, and add the token `secret-kids`, which may command the first one only.
    """
    both = ("20", "99")
    gateway.known_sensors = [SensorSummary(each, "leonardo", ["T"], AT, 1) for each in both]
    gateway.readings = [Reading(AT, "leonardo", each, "T", 1.0, None, None, True) for each in both]
    gateway.presented = {each: SensorSettings(name=f"n{each}") for each in both}
    gateway.raised = ALARMS
    gateway.held_requests = [HeldRequest(n, request(each), "leonardo", AT, AT) for n, each in enumerate(both)]
    gateway.current_status = replace(
        gateway.current_status,
        unsure={"leonardo": ["99"], "uno": ["20", "99"]},
        uncompared=[Uncompared("leonardo", each, "T", "> 1", 20, "x") for each in both],
        implausible=[Implausible("leonardo", each, "T", 3, "85") for each in both],
    )
    tokens.add(Token(name="kids", role="command", sha256=digest("secret-kids"), created=AT, sensors=("20",)))


def authority(
    clock: Any,
    folder: Path = Path("/nonexistent"),
    gateway: MemoryGateway | None = None,
    rules: Sequence[Rule] = (),
    most_of_token: int | None = None,
) -> Authority:
    """
    Return an authority for which the command `J` only reads.

    Args:
        clock: For time.
        folder: The state folder; by default there are no tokens.
        gateway: Records what is refused; None for nobody.
        rules: What some clients may do without a token.
        most_of_token: See `Authority`.
    """

    def reads(question: Question) -> bool:
        return question.command == "J"

    gateway = gateway or MemoryGateway()
    failures = Failures(clock, gateway.record)
    failures.startService()
    sessions = Sessions(folder, lambda: AT)
    return Authority(
        clock, lambda: AT, TokenFile(folder), sessions, failures, reads, gateway.refuse, rules, most_of_token
    )
