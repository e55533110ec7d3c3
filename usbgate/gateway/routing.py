"""
The devices, the requests over each of them, and which one serves a sensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from usbgate.core.errors import Unknown
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.model import Answer, DeviceWarning, Request
from usbgate.core.pending import PendingRequests
from usbgate.core.rules import Rules
from usbgate.core.sensors import KnownSensors
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.device.interfaces import IDeviceLink
from usbgate.gateway.interfaces import DeviceSummary
from usbgate.gateway.swappedlink import SwappedLink

ABSENT_AFTER = 3600.0  # seconds offline after which other devices may own its sensors: longer than most repairs

# Bytes that the longest tag of usbgate's own adds to a request: `_TAG:` and 8 characters (protocol §2).
TAG_ROOM = 13


@dataclass(eq=False, slots=True)
class Route:
    """
    One device: its link, the requests over it, and its state.

    Attributes:
        link: The link.
        swapped: The link, with the ids that the device knows.
        pending: The requests over it.
        room: Bytes that a request may have.
        state: See `DeviceSummary`, as is `since`.
        warnings: Returns `DeviceSummary.warnings`.
        fields: What the dialect knows of fields, by name in upper case.
        offline_since: When the link was lost, in monotonic seconds; None while there is one.
        link_state: `pending.state` when `state` was derived from it.
        silent: Whether the device is silent.
        lease: Identifies the current lease; None while the device is not lent.
        lent_to: See `DeviceSummary`.
    """

    link: IDeviceLink
    swapped: SwappedLink
    pending: PendingRequests[Deferred[Answer]]
    room: int
    state: str
    since: int
    warnings: Callable[[], Sequence[DeviceWarning]]
    fields: Mapping[str, FieldSettings]
    offline_since: float | None
    link_state: str = ""
    silent: bool = False
    lease: object | None = None
    lent_to: str | None = None

    def update_state(self, at: int, now: float) -> bool:
        """
        Derive the state again.

        Args:
            at: Now: whole milliseconds since 1970, UTC.
            now: Now, in monotonic seconds.

        Returns:
            Whether it changed.
        """
        state = self.link_state = self.pending.state
        if state in ("settling", "online"):
            self.offline_since = None
        elif self.offline_since is None:
            self.offline_since = now
        if self.lease is not None:
            state = "lent"
        elif self.silent and state == "online":
            state = "silent"
        if state == self.state:
            return False
        self.state = state
        self.since = at
        return True

    def summary(self) -> DeviceSummary:
        """
        Return a summary of the device.
        """
        link = self.link
        return DeviceSummary(
            link.name, link.path, self.state, self.since, replace(link.counts), self.warnings(), self.lent_to
        )


class Routing:
    """
    The routes to all devices, and one timer for whatever is due next on any of them.

    Attributes:
        routes: By the devices' names.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        sensor_settings: Mapping[str, SensorSettings],
        sensors: KnownSensors,
        expire: Callable[[], None],
        first_tag: int,
    ) -> None:
        """
        Args:
            reactor: For the timer.
            sensor_settings: The configured sensors, by id.
            sensors: Which device reported which sensor.
            expire: Called when something is due.
            first_tag: See `PendingRequests`.
        """
        self.routes: dict[str, Route] = {}
        self._reactor = reactor
        self._sensor_settings = sensor_settings
        self._sensors = sensors
        self._expire = expire
        self._first_tag = first_tag
        self._timer: IDelayedCall | None = None
        self._timer_at = inf
        self._stopped = False
        sensors.is_absent = self._is_absent

    def add(
        self,
        link: IDeviceLink,
        rules: Rules,
        warnings: Callable[[], Sequence[DeviceWarning]],
        since: int,
        fields: Mapping[str, FieldSettings],
    ) -> Route:
        """
        Add a device (see `Gateway.add_link`).

        Args:
            link: Its link.
            rules: The configuration of asking over it.
            warnings: Returns `DeviceSummary.warnings`.
            since: The wall clock: whole milliseconds since 1970, UTC.
            fields: What the dialect knows of fields.
        """
        swapped = SwappedLink(link)
        pending: PendingRequests[Deferred[Answer]] = PendingRequests(link.name, rules, swapped.size, self._first_tag)
        room = LINE_LIMIT - TAG_ROOM if rules.tags else LINE_LIMIT
        route = self.routes[link.name] = Route(
            link, swapped, pending, room, pending.state, since, warnings, fields, self._reactor.seconds(), pending.state
        )
        return route

    def find(self, request: Request) -> tuple[Route, bool]:
        """
        Return the route by which a request goes (protocol §4.1), and whether its sensor is known.

        Raises:
            Unknown: There is none, or more than one is possible.
        """
        sensor = request.question.sensor
        name = request.device
        settings = self._sensor_settings.get(sensor)
        if name is not None:
            if name not in self.routes:
                raise Unknown(f"no such device: {name}", "no such device")
            return self.routes[name], settings is not None or self._sensors.knows(sensor)
        if settings is not None and settings.device in self.routes:
            return self.routes[settings.device], True
        owner = self._sensors.asked(sensor)
        if owner in self.routes:
            return self.routes[owner], True
        if len(self.routes) == 1:
            return next(iter(self.routes.values())), settings is not None or owner is not None
        raise Unknown(f"the device of sensor {sensor} is not known: name one with DEV", "device not known")

    def may_ask(self, request: Request) -> bool:
        """
        Return whether the device of a request is online, or not known.
        """
        try:
            route, _ = self.find(request)
        except Unknown:
            return True
        return route.pending.state == "online"

    def _is_absent(self, device: str) -> bool:
        route = self.routes[device]
        return route.offline_since is not None and self._reactor.seconds() - route.offline_since >= ABSENT_AFTER

    def set_timer(self, now: float) -> None:
        """
        Set the timer for what is due next. A timer that would fire too early is left alone: it sets the next.
        """
        due = inf
        for route in self.routes.values():
            if route.pending.bound < due:
                due = route.pending.bound
        if self._timer is not None:
            if due >= self._timer_at:
                return
            self._cancel_timer()
        if due < inf and not self._stopped:
            self._timer_at = due
            self._timer = self._reactor.callLater(max(0.0, due - now), self._timer_fired)

    def stop(self) -> None:
        """
        Stop the timer for good.
        """
        self._stopped = True
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timer_fired(self) -> None:
        self._timer = None
        self._expire()
