"""
The links, what is asked over each of them, and which one serves a sensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from usbgate.core.errors import Unknown
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.model import Request
from usbgate.core.pending import PendingRequests, Rules
from usbgate.core.sensors import KnownSensors
from usbgate.device.interfaces import IDeviceLink
from usbgate.gateway.interfaces import DeviceSummary
from usbgate.gateway.replies import Waiter

# Bytes that the longest tag of usbgate's own adds to a request: `_TAG:` and 8 characters (protocol §2).
TAG_ROOM = 13


@dataclass(frozen=True, slots=True)
class SensorRules:
    """
    What the configuration says about asking one sensor; None where it says nothing.
    """

    name: str | None = None
    device: str | None = None
    default_command: str | None = None
    timeout: float | None = None
    store_every: float | None = None  # see `Thinning`; None stores every reading


@dataclass(eq=False, slots=True)
class Route:
    """
    One link with what is asked over it.

    Attributes:
        link: The link.
        pending: What is asked.
        room: Bytes that a request may have.
        state: See `DeviceSummary`, as are `since` and what `warn` tells.
        silent: Whether the device says nothing.
        lent: What tells one lease from the next; None while it is not lent.
    """

    link: IDeviceLink
    pending: PendingRequests[Waiter]
    room: int
    state: str
    since: int
    warn: Callable[[], str | None]
    silent: bool = False
    lent: object | None = None

    def look(self, wall: Callable[[], int]) -> bool:
        """
        Find out in which state it is.

        Returns:
            Whether that is another one than before.
        """
        state = self.pending.state
        if self.lent is not None:
            state = "lent"
        elif self.silent and state == "online":
            state = "silent"
        if state == self.state:
            return False
        self.state = state
        self.since = wall()
        return True

    def summary(self) -> DeviceSummary:
        """
        Return what is known of it.
        """
        link = self.link
        return DeviceSummary(
            name=link.name,
            path=link.path,
            state=self.state,
            since=self.since,
            counts={
                "IN": link.lines_in,
                "OUT": link.lines_out,
                "MALFORMED": link.malformed,
                "PARTIAL": link.partial,
                "ECHOES": link.echoes,
                "REPEATS": link.repeats,
                "LEFTOUT": link.left_out,
            },
            warning=self.warn(),
        )


class Routing:
    """
    All links, with one timer for what is due next on any of them.

    Attributes:
        lines: The links, by their names.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        sensor_rules: Mapping[str, SensorRules],
        sensors: KnownSensors,
        expire: Callable[[], None],
        first_tag: int,
    ) -> None:
        """
        Begin with no links.

        Args:
            reactor: For the timer.
            sensor_rules: The configured sensors, by id.
            sensors: Who speaks for which sensor.
            expire: Called when something is due.
            first_tag: See `PendingRequests`.
        """
        self.lines: dict[str, Route] = {}
        self._reactor = reactor
        self._sensor_rules = sensor_rules
        self._sensors = sensors
        self._expire = expire
        self._first_tag = first_tag
        self._timer: IDelayedCall | None = None
        self._armed_for = inf
        self._stopped = False

    def add(self, link: IDeviceLink, rules: Rules, warn: Callable[[], str | None], since: int) -> None:
        """
        Take on a link (see `Gateway.add_link`).

        Args:
            link: The link.
            rules: How it is asked.
            warn: Tells what a person should know of its device.
            since: The wall clock.
        """
        pending: PendingRequests[Waiter] = PendingRequests(link.name, rules, self._first_tag)
        room = LINE_LIMIT - TAG_ROOM if rules.tags else LINE_LIMIT
        self.lines[link.name] = Route(link, pending, room, pending.state, since, warn)

    def route(self, request: Request) -> Route:
        """
        Return which link serves a request (protocol §4.1).

        Raises:
            Unknown: None can be told.
        """
        sensor = request.question.sensor
        name = request.device
        if name is not None:
            if name not in self.lines:
                raise Unknown(f"no such device: {name}")
            return self.lines[name]
        rules = self._sensor_rules.get(sensor)
        if rules is not None and rules.device in self.lines:
            return self.lines[rules.device]
        known = self._sensors.get(sensor)
        if known is not None and known.device in self.lines:
            return self.lines[known.device]
        if len(self.lines) == 1:
            return next(iter(self.lines.values()))
        raise Unknown(f"no device can be told for sensor {sensor}: name one with DEV")

    def arm(self, now: float) -> None:
        """
        Set the timer for what is due next. One that would fire too early is left alone: it arms the next.
        """
        lines = self.lines.values()
        if self._timer is not None and all(line.pending.bound >= self._armed_for for line in lines):
            return
        deadline = min(line.pending.deadline for line in lines)
        if self._timer is not None:
            if deadline >= self._armed_for:
                return
            self._disarm()
        if deadline < inf and not self._stopped:
            self._armed_for = deadline
            self._timer = self._reactor.callLater(max(0.0, deadline - now), self._due)

    def stop(self) -> None:
        """
        Stop the timer for good.
        """
        self._stopped = True
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        self._expire()
