"""
Replaces sensors by successors (protocol §4, A new id): keeps the list on disk, and has it carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger

from usbgate.core.clockmarks import Stamp
from usbgate.core.errors import Failed, Malformed, Unknown
from usbgate.core.model import ReplacementRecord, Row
from usbgate.core.recorder import Recorder
from usbgate.core.replacements import Replacement, Replacements
from usbgate.core.settings import SensorSettings
from usbgate.gateway.routing import Routing

# Keeps the replacements where a restart finds them without the database; fails with an OSError.
Keep = Callable[[Sequence[Replacement]], Deferred[None]]


class Replacing:
    """
    The replacements of a gateway.

    Attributes:
        in_force: Those that hold.
    """

    log = Logger()

    def __init__(
        self,
        recorder: Recorder,
        routing: Routing,
        sensor_settings: Mapping[str, SensorSettings],
        stamp: Callable[[], Stamp],
        append: Callable[[Sequence[Sequence[Row]]], None],
    ) -> None:
        """
        Args:
            recorder: Makes the rows, and knows the sensors.
            routing: The devices.
            sensor_settings: The configured sensors, by id.
            stamp: Reads the clocks.
            append: Appends rows to the journal.
        """
        self.in_force = Replacements()
        self._recorder = recorder
        self._routing = routing
        self._sensor_settings = sensor_settings
        self._stamp = stamp
        self._append = append
        self._keep: Keep = lambda replacements: succeed(None)
        self._changed: Callable[[], None] = lambda: None
        self._is_lost = False
        self._lock = DeferredLock()  # one change at a time, since each is kept before it counts

    def begin(self, found: Sequence[Replacement] | None, keep: Keep, changed: Callable[[], None]) -> None:
        """
        Take over what was kept.

        Args:
            found: The replacements; None if nothing was ever kept: then those of the database count.
            keep: Keeps others.
            changed: Called after a change.
        """
        self._keep = keep
        self._changed = changed
        self._is_lost = found is None
        self._take_over(Replacements(found or ()))

    async def restore(self, stored: Callable[[], Deferred[list[Replacement]]]) -> None:
        """
        Take over the replacements of the database, unless there are kept ones.

        Raises:
            SinkUnavailable: The database cannot be queried.
        """
        if not self._is_lost:
            return
        found = await stored()
        async with self._lock:
            if not self._is_lost or not found:
                return
            try:
                await self._change(Replacements(found))
            except Failed as error:
                self.log.warn("{count} replacement(s) of sensors: {reason}", count=len(found), reason=error.text)
                self._take_over(Replacements(found))
            self._changed()
            self.log.info("took over {count} replacement(s) of sensors from the database", count=len(found))

    async def replace(self, sensor: str, successor: str, who: str) -> Replacement:
        """
        Let a successor take the place of a sensor (see `IGateway.replace`).
        """
        async with self._lock:
            sensor = self.in_force.name_of(sensor)
            self.in_force.check(sensor, successor)
            device, since = self._find(sensor, successor)
            stamp = self._stamp()
            made = Replacement(sensor=sensor, successor=successor, device=device, since=since, at=stamp.at, who=who)
            await self._change(self.in_force.with_(made))
            self._record(made, "replaced")
            self._recorder.sensors.join(sensor, successor, device)
            self._changed()
            self.log.info(
                "{successor} on {device} is sensor {sensor} from now on, by {who}",
                successor=successor,
                device=device,
                sensor=sensor,
                who=who,
            )
            return made

    async def undo(self, sensor: str, who: str) -> Replacement:
        """
        Take back the last replacement of a sensor (see `IGateway.undo_replacement`).
        """
        async with self._lock:
            others, last = self.in_force.without_last(self.in_force.name_of(sensor))
            await self._change(others)
            self._record(last, "undone", who)
            self._recorder.sensors.part(last.sensor, last.successor, last.device, last.since, last.at)
            self._changed()
            self.log.info(
                "{successor} on {device} is no longer sensor {sensor}, by {who}",
                successor=last.successor,
                device=last.device,
                sensor=last.sensor,
                who=who,
            )
            return last

    def _find(self, sensor: str, successor: str) -> tuple[str, int]:
        # The device that reports both, and when the sensor reported last.
        known, settings = self._recorder.sensors.get(sensor), self._sensor_settings.get(sensor)
        new = self._recorder.sensors.get(successor)
        if known is None and settings is None:
            raise Unknown(f"no such sensor: {sensor[:80]}", "no such sensor")
        if new is None:
            raise Unknown(f"no such sensor: {successor[:80]}, it has not reported yet", "no such sensor")
        if successor in self._sensor_settings:
            raise Malformed("configured", f"remove [sensor.{successor}] from the configuration first")
        device = known.device if known is not None else (settings and settings.device) or new.device
        if new.device != device:
            raise Malformed("other device", f"{sensor} is on {device}, and {successor} on {new.device}")
        if new.device not in self._routing.routes:
            raise Unknown(f"no such device: {new.device}", "no such device")
        return new.device, 0 if known is None else known.seen

    async def _change(self, changed: Replacements) -> None:
        try:
            await self._keep(list(changed))
        except OSError as error:
            raise Failed(f"this cannot be kept in the state folder: {error.strerror or error}") from None
        self._is_lost = False
        self._take_over(changed)

    def _take_over(self, changed: Replacements) -> None:
        self.in_force = changed
        for name, route in self._routing.routes.items():
            route.swapped.swaps = changed.swaps(name)

    def _record(self, changed: Replacement, event: str, who: str | None = None) -> None:
        stamp = self._stamp()
        self._append(
            self._recorder.record_replacement(
                ReplacementRecord(
                    stamp.at,
                    changed.sensor,
                    changed.successor,
                    changed.device,
                    event,
                    changed.since,
                    who or changed.who,
                    stamp.trusted,
                ),
                stamp,
            )
        )
