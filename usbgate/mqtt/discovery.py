"""
Home Assistant's discovery messages (docs/mqtt.md, "Home Assistant"): one for each sensor, and one for the gateway.

Home Assistant refuses the whole message for an unknown key at its top level, in `device` or in `origin`; in components,
it ignores unknown keys. So what is newer than 2025.4 is in components only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from unicodedata import normalize

from usbgate import __version__
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.mqtt.controls import Commands, button_component, control_component
from usbgate.mqtt.entities import Component, Field, field_component
from usbgate.mqtt.messages import EVENT_TYPES
from usbgate.mqtt.topics import PREFIX, Topics, escape, unescape

_EVENTS = {"en": "Events", "fr": "Événements"}
_BETWEEN = "__"  # never in an escaped name

Payload = dict[str, Any]


class Discovery:
    """
    Makes the discovery messages of one gateway.

    Attributes:
        gateway: The id of the gateway, as a device of Home Assistant.
    """

    def __init__(
        self, gateway: str, *, prefix: str = "homeassistant", language: str = "en", commands: bool = True
    ) -> None:
        """
        Args:
            gateway: The name of the gateway.
            prefix: What the topics begin with.
            language: Of the names.
            commands: Whether there are buttons and controls: without the role `command`, they could do nothing.
        """
        self.gateway = f"{PREFIX}{_BETWEEN}{escape(gateway)}"
        self._name = gateway
        self._prefix = prefix
        self._language = language
        self._commands = commands
        self._topics = Topics(gateway)

    @property
    def filter(self) -> str:
        """
        The filter for the topics of all devices, those of others included.
        """
        return self.topic("+")

    def topic(self, device: str) -> str:
        """
        Return the topic of the discovery message of a device of Home Assistant.
        """
        return f"{self._prefix}/device/{device}/config"

    @property
    def birth(self) -> str:
        """
        The topic on which Home Assistant publishes `online` when it has started.
        """
        return f"{self._prefix}/status"

    @staticmethod
    def number_key(field: str) -> str:
        """
        Return the key of the component that shows a field as a number, or as a text.
        """
        return _key("sensor", field)

    @staticmethod
    def field(device: str, key: str, platform: str, unique_id: str) -> str | None:
        """
        Return the field that a component shows; None if it shows none, or is not ours.

        Args:
            device: The device of Home Assistant that it belongs to.
            key: Its key.
            platform: Its platform.
            unique_id: Its id.
        """
        with suppress(ValueError):
            field = unescape(unique_id.removeprefix(device + _BETWEEN))
            if platform in ("sensor", "binary_sensor") and key == _key(platform, field):
                return field
        return None

    def device_of(self, topic: str) -> str | None:
        """
        Return the device that a topic belongs to: the gateway or one of its sensors; None for any other topic.
        """
        device = topic.removeprefix(f"{self._prefix}/device/").removesuffix("/config")
        ours = device == self.gateway or device.startswith(self.gateway + _BETWEEN)
        return device if ours and topic == self.topic(device) else None

    def device(self, sensor: str) -> str:
        """
        Return the id of a sensor, as a device of Home Assistant.
        """
        return f"{self.gateway}{_BETWEEN}{escape(sensor)}"

    def sensor(self, device: str) -> str | None:
        """
        Return the sensor that has an id; None for any other id, such as that of the gateway.
        """
        try:
            sensor = unescape(device.removeprefix(self.gateway + _BETWEEN))
        except ValueError:
            return None
        return sensor if device == self.device(sensor) else None

    def gateway_message(self, devices: Sequence[str]) -> Payload:
        """
        Return the message of the gateway, whose entities show its devices and the events of all sensors.

        Args:
            devices: The names of the devices.
        """
        components = [
            self._component(
                self.gateway,
                self._name,
                "binary_sensor",
                device,
                {
                    "name": device,
                    "device_class": "connectivity",
                    "entity_category": "diagnostic",
                    "state_topic": self._topics.device_availability(device),
                    "payload_on": "online",
                    "payload_off": "offline",
                },
            )
            for device in devices
        ]
        components.append(self._events(self.gateway, self._name, self._topics.events))
        return {
            "device": {
                "identifiers": [self.gateway],
                "name": f"{PREFIX} {self._name}",
                "manufacturer": PREFIX,
                "sw_version": __version__,
            },
            **self._common([self._topics.availability]),
            "components": dict(components),
        }

    def sensor_message(
        self,
        sensor: str,
        device: str,
        settings: SensorSettings,
        fields: Iterable[Field],
        known: Mapping[str, FieldSettings],
    ) -> Payload:
        """
        Return the message of a sensor; it has no components if there is nothing to show or to control.

        Args:
            sensor: The sensor.
            device: The device that is asked for it.
            settings: Its settings.
            fields: Its fields that have a reading.
            known: What is known of fields, by name; others included, of which a control may tell the state.
        """
        topics = self._topics
        own = self.device(sensor)
        name = settings.name or f"{PREFIX} {sensor}"
        fields = list(fields)
        kinds = Counter(field.settings.kind for field in fields)
        components: list[tuple[str, Component]] = []
        for field in fields:
            alone = kinds[field.settings.kind] == 1
            topic = topics.value(device, sensor, field.reading.field)
            platform, component = field_component(field, topic, settings, alone, self._language)
            components.append(self._component(own, name, platform, field.reading.field, component))
        if self._commands:
            components += self._command_components(own, name, sensor, device, settings, known)
        if any(each.alarm is not None for each in settings.fields.values()) or (
            self._commands and (settings.commands or settings.controls)
        ):
            components.append(self._events(own, name, topics.sensor_events(device, sensor)))
        about = {"identifiers": [own], "name": name, "manufacturer": PREFIX, "via_device": self.gateway}
        if settings.place is not None:
            about["suggested_area"] = settings.place
        return {
            "device": about,
            **self._common([topics.availability, topics.device_availability(device)]),
            "components": dict(components),
        }

    def _command_components(
        self,
        own: str,
        name: str,
        sensor: str,
        device: str,
        settings: SensorSettings,
        known: Mapping[str, FieldSettings],
    ) -> Iterator[tuple[str, Component]]:
        commands = Commands(self._topics.ask, sensor)
        for button in settings.commands:
            yield self._component(own, name, "button", button.label, button_component(button, commands))
        for label, control in settings.controls.items():
            component = control_component(label, control, commands, partial(self._topics.value, device, sensor), known)
            yield self._component(own, name, control.type, label, component)

    def _common(self, availability: Sequence[str]) -> Payload:
        return {
            "origin": {"name": PREFIX, "sw_version": __version__},
            "availability": [{"topic": topic} for topic in availability],
            "availability_mode": "all",
        }

    def _events(self, device: str, device_name: str, topic: str) -> tuple[str, Component]:
        component = {"name": _EVENTS[self._language], "state_topic": topic, "event_types": list(EVENT_TYPES)}
        return self._component(device, device_name, "event", "_events", component)

    def _component(
        self, device: str, device_name: str, platform: str, name: str, component: Component
    ) -> tuple[str, Component]:
        # The name under which Home Assistant knows it must be another for each platform: a component that changes its
        # platform is removed, and another one is added.
        spelled = escape(name)
        return _key(platform, name), {
            "platform": platform,
            "unique_id": f"{device}{_BETWEEN}{spelled}",
            "default_entity_id": f"{platform}.{_slug(device_name)}_{_slug(name)}",
            **component,
        }


def removed(platform: str) -> Component:
    """
    Return the component that removes one of a platform.
    """
    return {"platform": platform}


def _key(platform: str, name: str) -> str:
    return f"{platform}_{escape(name)}"


def _slug(name: str) -> str:
    # What Home Assistant would make of it, but for scripts other than Latin.
    plain = normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "_", plain).strip("_") or re.sub("[^a-z0-9]+", "_", escape(name).lower()).strip("_")
