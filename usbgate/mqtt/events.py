"""
Events as MQTT messages: alarms, and commands that failed (docs/mqtt.md, "Events").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import asdict
from zope.interface import implementer

from usbgate.core.fieldline import format_time
from usbgate.core.jsonmessages import alarm_json
from usbgate.core.model import AlarmEvent, Event
from usbgate.core.settings import UNCONFIGURED
from usbgate.gateway.interfaces import IGateway
from usbgate.mqtt.interfaces import IMqttPart, IPublisher
from usbgate.mqtt.messages import COMMAND_FAILED, EVENT_TYPES, MqttAlarmEvent, MqttFailure, MqttFailureEvent
from usbgate.mqtt.topics import Topics


@implementer(IMqttPart)
class EventTopics:
    """
    Publishes each event twice: to the topic of its sensor, and to that of all events.
    """

    filters: Sequence[str] = ()
    retained: Sequence[str] = ()

    def __init__(self, gateway: IGateway, topics: Topics, wall: Callable[[], int]) -> None:
        """
        Args:
            gateway: Publishes the events.
            topics: The names of the topics.
            wall: The wall clock (`IClock.wall`).
        """
        self._gateway = gateway
        self._topics = topics
        self._wall = wall
        self._publisher: IPublisher | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    def connected(self, publisher: IPublisher) -> None:
        self._publisher = publisher
        self._unsubscribe = self._gateway.subscribe(self._receive)

    def received(self, message: object) -> None:
        """
        Not called: there are no filters.
        """

    def disconnected(self) -> None:
        self._unsubscribe()
        self._publisher = None

    def failed(self, failure: MqttFailure) -> None:
        """
        Publish that a command failed.
        """
        event = MqttFailureEvent(event_type=COMMAND_FAILED, at=format_time(self._wall()), **asdict(failure))
        sensor = failure.sensor
        self._publish(event, sensor, None if sensor is None else self._device_of(sensor))

    def _device_of(self, sensor: str) -> str | None:
        settings = self._gateway.queries.sensor_settings().get(sensor, UNCONFIGURED)
        if settings.device is not None:
            return settings.device
        known = self._gateway.queries.sensor(sensor)
        return None if known is None else known.device

    def _receive(self, event: Event) -> None:
        if not isinstance(event, AlarmEvent):
            return
        event_type = f"alarm_{event.change}"
        if event_type not in EVENT_TYPES:
            return  # joined to an older one, which is the same to others
        alarm = event.alarm
        shown = asdict(alarm_json(alarm, self._gateway.queries.sensor_settings()))
        message = MqttAlarmEvent(event_type=event_type, at=format_time(event.at), **shown)
        self._publish(message, alarm.sensor, self._device_of(alarm.sensor) or alarm.device)

    def _publish(self, event: MqttAlarmEvent | MqttFailureEvent, sensor: str | None, device: str | None) -> None:
        if self._publisher is None:
            return
        payload = msgspec.json.encode(event)
        self._publisher.publish(self._topics.events, payload)
        if sensor is not None and device is not None:
            self._publisher.publish(self._topics.sensor_events(device, sensor), payload)
