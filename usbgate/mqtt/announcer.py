"""
When Home Assistant's discovery messages are published, and removed (docs/mqtt.md, "Home Assistant").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.core.fieldline import parse_value
from usbgate.core.model import Event, ReportEvent
from usbgate.core.settings import UNCONFIGURED, SensorSettings
from usbgate.gateway.interfaces import IGateway
from usbgate.mqtt.announced import NOTHING, Announced, AnnouncedComponent, read_message
from usbgate.mqtt.discovery import Discovery, Payload, removed
from usbgate.mqtt.entities import Field
from usbgate.mqtt.interfaces import IMqttPart, IPublisher, Message

# While Home Assistant sets up what a message announced, another one for the same device makes it lose components.
GATHER = 2.0  # seconds

# 50 messages a second leave Home Assistant and the reactor time for others. Home Assistant subscribes to the values of
# new entities when none has come for 0.1 s, or for 0.5 s after its start: hence the pauses.
TURN = 0.6  # seconds
MESSAGES_A_TURN = 30
DEVICES_A_TURN = 500  # that are queued

# The messages of earlier runs, which any client of the broker can make up.
DEVICES_LIMIT = 20_000
BYTES_LIMIT = 64 << 20  # of all together, since connected


class _Shown(NamedTuple):
    # What the last message of a sensor shows.
    device: str
    fields: frozenset[str]
    texts: frozenset[str]  # those that may turn out to be numbers


@implementer(IMqttPart)
class Announcer:
    """
    Publishes the discovery messages of the gateway and its sensors: those of all at each connection and when Home
    Assistant starts, and that of a sensor when something of it changed. Removes those of what is no more.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        gateway: IGateway,
        discovery: Discovery,
        *,
        extent: str = "all",
        changed: Callable[[str], None] = lambda sensor: None,
    ) -> None:
        """
        Args:
            reactor: For later turns.
            gateway: What is announced.
            discovery: Makes the messages.
            extent: Whether `all` sensors are announced, only those `configured`, or `none`.
            changed: Called with a sensor whose message is another one than before: until its values are published
                again, Home Assistant shows them as unavailable.
        """
        self.filters: Sequence[str] = (discovery.birth,)
        self.retained: Sequence[str] = (discovery.filter,)
        self._reactor = reactor
        self._queries = gateway.queries
        self._subscribe = gateway.subscribe
        self._unsubscribe: Callable[[], None] = lambda: None
        self._discovery = discovery
        self._extent = extent
        self._changed = changed
        self._publisher: IPublisher | None = None
        self._task: Deferred[None] | None = None  # announces, while something is due
        # Devices of Home Assistant: the gateway, and the sensors.
        self._announced: dict[str, Announced] = {}
        self._due: dict[str, float] = {}  # when, the earliest first
        self._others: Iterator[str] | None = None  # that will be due as well
        self._learned = 0  # bytes
        self._is_full = False  # and that was logged
        self._shown: dict[str, _Shown] = {}  # by sensor
        self._round = 0  # in each, everything is published once, even if the broker has it already

    def connected(self, publisher: IPublisher) -> None:
        self._publisher = publisher
        self._announced.clear()  # the broker sends what it has
        self._learned = 0
        self._unsubscribe = self._subscribe(self._receive)
        self._round += 1
        self.refresh()

    def received(self, message: Message) -> None:
        if message.topic == self._discovery.birth:
            if message.payload == b"online" and not message.retained:
                self._round += 1
                self.refresh()
        elif (device := self._discovery.device_of(message.topic)) is not None:
            self._learn(device, message.payload)

    def disconnected(self) -> None:
        self._publisher = None
        self._unsubscribe()
        self._due.clear()
        self._others = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def refresh(self) -> None:
        """
        Announce what has changed, as after a change of the settings, and remove what is no more.
        """
        sensors = chain(list(self._queries.sensor_settings()), (known.sensor for known in self._queries.sensors()))
        self._others = chain(map(self._discovery.device, sensors), list(self._announced))
        self._mark(self._discovery.gateway)

    # What changes.

    def _receive(self, event: Event) -> None:
        # Called with every report.
        if not isinstance(event, ReportEvent):
            return
        shown = self._shown.get(event.sensor)
        if shown is None:
            if self._is_wanted(event.sensor):
                self._mark(self._discovery.device(event.sensor))
            return
        device, fields, texts = shown
        if event.device != device:
            known = self._queries.sensor(event.sensor)
            if known is not None and known.device == event.device:
                self._mark(self._discovery.device(event.sensor))
            return
        for field, text in event.values:
            if field not in fields or (field in texts and parse_value(text)[1] is None):
                self._mark(self._discovery.device(event.sensor))
                return

    def _is_wanted(self, sensor: str) -> bool:
        return self._extent == "all" or (self._extent == "configured" and sensor in self._queries.sensor_settings())

    def _learn(self, device: str, message: bytes) -> None:
        # The broker has a message: one of an earlier run, or our own; or an empty one of Home Assistant, where somebody
        # removed the device.
        known = self._announced.get(device)
        if not message:
            self._announced.pop(device, None)
        elif len(self._announced) < DEVICES_LIMIT if known is None else known.hash != hash(message):
            self._learned += len(message)
            found = read_message(message) if self._learned <= BYTES_LIMIT else NOTHING
            self._announced[device] = found._replace(hash=hash(message))
            self._mark(device)

    # Turns.

    def _mark(self, device: str) -> None:
        if self._publisher is not None:
            self._due.setdefault(device, self._reactor.seconds() + GATHER)
            if self._task is None:
                self._task = Deferred.fromCoroutine(self._announce_all(self._publisher))
                self._task.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("sensors are no longer announced to Home Assistant", failure)

    async def _announce_all(self, publisher: IPublisher) -> None:
        while self._due or self._others is not None:
            first = next(iter(self._due.values())) - self._reactor.seconds() if self._others is None else 0.0
            await deferLater(self._reactor, max(TURN, first))
            if self._others is not None:
                self._queue(self._others)
            now = self._reactor.seconds()
            for device, at in list(islice(self._due.items(), MESSAGES_A_TURN)):
                if at <= now:
                    await publisher.room()
                    self._announce(device, publisher)
        self._task = None

    def _queue(self, others: Iterator[str]) -> None:
        at = self._reactor.seconds() + GATHER
        some = list(islice(others, DEVICES_A_TURN))
        for device in some:
            self._due.setdefault(device, at)
        if not some:
            self._others = None

    def _announce(self, device: str, publisher: IPublisher) -> None:
        self._due.pop(device)
        sensor = self._discovery.sensor(device)
        known = self._announced.get(device, NOTHING)
        payload = self._gateway_payload(device) if sensor is None else self._sensor_payload(sensor, known.components)
        if payload is None:
            return
        own, before = payload.get("components", {}), known.components
        # Of an earlier run, what shows a field that has not been reported yet.
        kept = {
            key: known.raw[key]
            for key in known.raw
            if key not in own and self._may_come(device, sensor, key, before[key])
        }
        shown = {**own, **kept} if payload else {}
        gone = {key: removed(each.platform) for key, each in before.items() if key not in shown}
        message = b""
        if shown:
            components = {key: shown[key] for key in (*before, *own) if key in shown}  # in the same order as before
            message = msgspec.json.encode({**payload, "components": {**components, **gone}})
        if self._is_there(known, message):
            return
        if not publisher.publish(self._discovery.topic(device), message, retain=True):
            self._mark(device)
        elif not message:
            del self._announced[device]
            self._shown.pop(sensor or "", None)
        else:
            self._announced[device] = read_message(message)._replace(raw=kept, round=self._round)
            if gone:
                self._mark(device)  # without them
            if sensor is not None and known.hash != hash(message):
                self._changed(sensor)

    def _may_come(self, device: str, sensor: str | None, key: str, component: AnnouncedComponent) -> bool:
        field = self._discovery.field(device, key, component.platform, component.unique_id)
        if sensor is None or field is None:
            return False
        shown = self._shown.get(sensor)
        return shown is None or field not in shown.fields

    def _is_there(self, known: Announced, message: bytes) -> bool:
        # Whether the broker has a message already, or may not have it.
        if known is not NOTHING:
            return known.hash == hash(message) and known.round == self._round
        is_full = len(self._announced) >= DEVICES_LIMIT
        if message and is_full and not self._is_full:
            self.log.warn(
                'Home Assistant learns of {limit} sensors only: set discovery = "configured"', limit=DEVICES_LIMIT
            )
            self._is_full = True
        return is_full or not message

    # Messages: None leaves the one that the broker has, an empty one removes the device.

    def _gateway_payload(self, device: str) -> Payload | None:
        if device != self._discovery.gateway:
            return None
        if self._extent == "none":
            return {}
        return self._discovery.gateway_message([each.name for each in self._queries.devices()])

    def _sensor_payload(self, sensor: str, before: Mapping[str, AnnouncedComponent]) -> Payload | None:
        is_another = any(each.successor == sensor for each in self._queries.replacements())
        if is_another or not self._is_wanted(sensor):
            return {}
        settings = self._queries.sensor_settings().get(sensor)
        known = self._queries.sensor(sensor)
        if known is None and settings is None:
            # One of an earlier run, which may report again; or one of this run, which was forgotten.
            return {} if sensor in self._shown else None
        settings = settings or UNCONFIGURED
        device = known.device if known is not None else self._only_device(settings)
        if device is None:
            return None
        fields = []
        about = dict(settings.fields)
        for reading in self._queries.last(sensor, None):
            if reading.device == device:
                about[reading.field] = self._queries.field_settings(reading)
                shown = before.get(self._discovery.number_key(reading.field))
                was_number = shown is not None and shown.is_number
                fields.append(Field(reading, about[reading.field], was_number))
        fields.sort(key=lambda field: (field.settings.rank, field.reading.field))
        self._shown[sensor] = _Shown(
            device,
            frozenset(field.reading.field for field in fields),
            frozenset(field.reading.field for field in fields if not (field.is_number or field.settings.states)),
        )
        return self._discovery.sensor_message(sensor, device, settings, fields, about)

    def _only_device(self, settings: SensorSettings) -> str | None:
        devices = [each.name for each in self._queries.devices()]
        return settings.device or (devices[0] if len(devices) == 1 else None)
