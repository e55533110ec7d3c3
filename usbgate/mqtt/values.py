"""
The newest values of the sensors, each on a topic of its own (docs/mqtt.md, "Topics").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from math import ceil

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.core.containers import BoundedDict
from usbgate.core.fieldline import format_number, format_time
from usbgate.core.model import DeviceEvent, Event, Reading, ReportEvent
from usbgate.core.reporters import FIELDS_OF_SENSOR
from usbgate.core.sensors import SENSORS_REMEMBERED
from usbgate.core.settings import UNCONFIGURED, SensorSettings
from usbgate.gateway.interfaces import IGateway, SensorSummary
from usbgate.mqtt.interfaces import IMqttPart, IPublisher, Message
from usbgate.mqtt.lonezeros import LoneZeros
from usbgate.mqtt.spelling import lifetime, plain_value
from usbgate.mqtt.topics import Topics
from usbgate.net.rates import Rates

# Seconds between two values on one topic. The first one goes out at once.
INTERVAL = 0.1

# Of a sensor that goes on reporting, the newest values in a second, on average; five times as many may come at once, as
# of a button. Nobody looks at more, and a message costs ten times what a reading does.
PER_SECOND = 2.0
BURST = 5.0

# Of the sensors with new values, so many are looked at between two pauses: it takes a millisecond or two.
LOOKED_AT = 1000

# Seconds that a turn publishes; then all others have so many times longer. So values take a quarter of the processor's
# time at most, however many sensors report.
TURN = 0.002
PAUSE = 3.0

# If more sensors have new values, all sensors are published instead: a device that makes up ids fills no memory.
NEW_SENSORS = 2 * SENSORS_REMEMBERED

# Of all sensors, so many are published between two looks at what is new.
SWEPT = 100

_Place = tuple[str, str | None]  # a device, and the successor of a sensor that was replaced


@implementer(IMqttPart)
class Values:
    """
    Publishes values that are new, and all of them when the broker is back. Between two turns, only which ones are new
    is kept: the newest value wins, and a slow broker costs no memory.
    """

    log = Logger()
    filters: Sequence[str] = ()

    def __init__(self, reactor: IReactorTime, wall: Callable[[], int], gateway: IGateway, topics: Topics) -> None:
        """
        Args:
            reactor: For later turns.
            wall: The wall clock (`IClock.wall`).
            gateway: Has the values, and publishes events.
            topics: The topics of its name.
        """
        self._reactor = reactor
        self._wall = wall
        self._gateway = gateway
        self._topics = topics
        self.retained: Sequence[str] = (topics.device_availabilities,)
        self._lone_zeros = LoneZeros()
        self._states: dict[str, str] = {}  # states of devices that are still to be published
        self._new: dict[tuple[str, str], set[str]] = {}  # fields with a new value, by sensor and device
        self._successors: dict[str, str] = {}  # the ids that report now for sensors that were replaced
        self._places: BoundedDict[str, _Place] = BoundedDict(NEW_SENSORS)  # where sensors were published last
        self._rates = Rates(reactor, PER_SECOND, BURST)  # by sensor and device
        self._all: Iterator[SensorSummary] = iter(())  # those of all sensors that are still to be published
        self._unsubscribe: Callable[[], None] | None = None
        self._task: Deferred[None] | None = None  # publishes, while there is something to publish

    def connected(self, publisher: IPublisher) -> None:
        """
        Publish the states of the devices, then all values.
        """
        self._publisher = publisher
        self._unsubscribe = self._gateway.subscribe(self._event)
        self._states = {device.name: device.state for device in self._gateway.queries.devices()}
        self._publish_states()
        self.refresh()

    def received(self, message: Message) -> None:
        """
        Remove the state of a device that is no longer configured.
        """
        devices = (self._topics.device_availability(device.name) for device in self._gateway.queries.devices())
        if message.retained and message.payload and message.topic not in devices:
            self._publisher.publish(message.topic, b"", retain=True)

    def disconnected(self) -> None:
        """
        Publish no more.
        """
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._new.clear()
        self._states.clear()
        self._all = iter(())

    def _event(self, event: Event) -> None:
        if isinstance(event, ReportEvent):
            reporter = event.sensor, event.device
            fields = self._new.get(reporter)
            if fields is None:
                if len(self._new) >= NEW_SENSORS:
                    self._new.clear()
                    self.refresh()
                    return
                fields = self._new[reporter] = set()
            if len(fields) < FIELDS_OF_SENSOR:
                for field, _ in event.values:
                    fields.add(field)
            self._start()
        elif isinstance(event, DeviceEvent):
            self._states[event.device] = event.state
            self._publish_states()

    def _publish_states(self) -> None:
        for device, state in list(self._states.items()):
            usable = b"online" if state == "online" else b"offline"
            if self._publisher.publish(self._topics.device_availability(device), usable, retain=True):
                del self._states[device]
            else:  # too much waits; later
                self._start()

    def again(self, sensor: str) -> None:
        """
        Publish the values of a sensor again, soon.
        """
        known = self._gateway.queries.sensor(sensor)
        if known is not None and self._unsubscribe is not None:
            self._new.setdefault((sensor, known.device), set()).update(known.fields)
            self._start()

    def refresh(self) -> None:
        """
        Publish all values again, as after a change of the settings.
        """
        if self._unsubscribe is not None:
            queries = self._gateway.queries
            self._successors = {each.sensor: each.successor for each in queries.replacements()}
            self._all = queries.sensors()
            self._start()

    def _start(self) -> None:
        if self._task is None:
            self._task = Deferred.fromCoroutine(self._publish_marked())
            self._task.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._task = None
            self.log.failure("unexpected error while values are published", failure)

    def _take(self) -> Iterator[tuple[tuple[str, str], Iterable[str]]]:
        # What is new comes first, and some of all.
        for reporter in list(islice(self._new, LOOKED_AT)):
            fields = self._new.pop(reporter, None)
            if fields is None:  # there are too many, so that all are published
                break
            if self._rates.take([" ".join(reporter)]) > 0:
                self._new[reporter] = fields  # later, behind others
            else:
                yield reporter, fields
        for known in islice(self._all, SWEPT):
            yield (known.sensor, known.device), known.fields

    async def _publish_marked(self) -> None:
        await deferLater(self._reactor, 0)  # all reports of one chunk
        while True:
            began = self._reactor.seconds()
            spent = 0.0
            reporter = None
            self._publish_states()
            for reporter, fields in self._take():
                await self._publisher.room()
                started = self._reactor.seconds()
                self._publish(*reporter, fields)
                spent += self._reactor.seconds() - started
                if spent >= TURN:
                    await deferLater(self._reactor, PAUSE * spent)
                    spent = 0.0
            if reporter is None and not self._new and not self._states:
                break
            await deferLater(self._reactor, max(0.0, began + INTERVAL - self._reactor.seconds()))
        self._task = None

    def _publish(self, sensor: str, device: str, fields: Iterable[str]) -> None:
        queries = self._gateway.queries
        known = queries.sensor(sensor)
        if known is None:
            return
        place = known.device, self._successors.get(sensor)
        if self._places.get(sensor) != place:
            self._places.remember(sensor, place)
            self._remove_others(known)
            fields = known.fields
        elif device != known.device:
            return  # any message would be a sign of life of what the device that is asked has reported
        settings = queries.sensor_settings().get(sensor, UNCONFIGURED)
        now = self._wall()
        alive: list[Reading] = []
        for reading in queries.last(sensor, None):
            left = self._left(reading, settings, now)
            if reading.device != known.device or left < 1 or self._is_held(reading):
                continue
            alive.append(reading)
            if reading.field in fields:
                topic = self._topics.value(known.device, sensor, reading.field)
                value = plain_value(reading)
                spelled = value if isinstance(value, str) else format_number(value)
                self._publisher.publish(topic, spelled.encode(), retain=True, expiry=left)
        if alive:
            newest = max(alive, key=lambda reading: reading.at)
            self._publisher.publish(
                self._topics.sensor(known.device, sensor),
                sensor_json(sensor, settings, newest, alive),
                retain=True,
                expiry=self._left(newest, settings, now),
            )

    def _remove_others(self, known: SensorSummary) -> None:
        # Of a sensor that is new here, has moved or was replaced: what the broker may have under other devices, and
        # under the id of its successor, unless that is a sensor again.
        queries = self._gateway.queries
        others = {
            (each.device, known.sensor, each.field)
            for each in queries.last(known.sensor, None)
            if each.device != known.device
        }
        successor = self._successors.get(known.sensor)
        if successor is not None and queries.sensor(successor) is None:
            others |= {(known.device, successor, field) for field in known.fields}
        for device, sensor, field in sorted(others):
            self._publisher.publish(self._topics.value(device, sensor, field), b"", retain=True)
        for device, sensor in sorted({(device, sensor) for device, sensor, _ in others}):
            self._publisher.publish(self._topics.sensor(device, sensor), b"", retain=True)

    def _is_held(self, reading: Reading) -> bool:
        if reading.value == 0.0 and not self._gateway.queries.field_settings(reading).never_falls:
            return False
        return self._lone_zeros.holds(reading)

    def _left(self, reading: Reading, settings: SensorSettings, now: int) -> int:
        # Seconds until the reading is out of date, rounded up: an expiry of 0 would be none, or at once. The wall clock
        # may have been set back since.
        return ceil(lifetime(settings) - max(0, now - reading.at) / 1000)


def sensor_json(sensor: str, settings: SensorSettings, newest: Reading, readings: Iterable[Reading]) -> bytes:
    """
    Return the newest readings of a sensor as JSON.
    """
    return msgspec.json.encode(
        {
            "sensor": sensor,
            "name": settings.name,
            "place": settings.place,
            "device": newest.device,
            "at": format_time(newest.at),
            "values": {each.field: plain_value(each) for each in readings},
        }
    )
