"""
What Home Assistant controls a sensor by, as components of a discovery message: buttons, switches and others.

A command goes to the topic `ask`, as JSON; the argument that is a value is filled in by a template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from usbgate.core.kinds import VALUE
from usbgate.core.model import Button
from usbgate.core.settings import ControlSettings, FieldSettings
from usbgate.mqtt.entities import NUMBER, Component, on_off, quote

_POSITION = "{{ value | float | round | int if is_number(value) else '' }}"
_LEVEL = "{{ value if is_number(value) else '' }}"
_JSON_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_UNKNOWN = FieldSettings()


class Commands:
    """
    Spells the commands of one sensor as messages.
    """

    def __init__(self, topic: str, sensor: str) -> None:
        """
        Args:
            topic: Where they go.
            sensor: The sensor.
        """
        self.topic = topic
        self._sensor = sensor

    def message(self, command: Button) -> str:
        """
        Return the message of a command.
        """
        return quote({"sensor": self._sensor, "command": command.command, "arguments": dict(command.arguments)})

    def template(self, command: Button) -> str:
        """
        Return a template for the message of a command, with the value in the place of `VALUE`.
        """
        before, _, behind = self.message(command).rpartition(quote(VALUE))  # the sensor's id may be the same
        return f"{_plain(before)}{{{{ value | tojson }}}}{_plain(behind)}"


def button_component(button: Button, commands: Commands) -> Component:
    """
    Return the component of a button.
    """
    return {"name": button.label, "command_topic": commands.topic, "payload_press": commands.message(button)}


def control_component(
    name: str,
    control: ControlSettings,
    commands: Commands,
    topics: Callable[[str], str],
    fields: Mapping[str, FieldSettings],
) -> Component:
    """
    Return the component of a control; its platform is the control's type.

    Args:
        name: Its name.
        control: Its settings.
        commands: Spells its commands.
        topics: Returns where the values of a field are published.
        fields: What is known of fields, by name.
    """
    component: Component = {"name": name, "command_topic": commands.topic}
    for key in ("on", "off", "open", "close", "stop"):
        if (command := getattr(control, key)) is not None:
            component[f"payload_{key}"] = commands.message(command)
    about = fields.get(control.state or "", _UNKNOWN)
    state = None if control.state is None else topics(control.state)
    setter = None if control.set is None else commands.template(control.set)
    template = ""
    match control.type:
        case "switch":
            template = on_off(about, "ON", "OFF")
            component |= {"state_on": "ON", "state_off": "OFF"}
        case "light":
            if state is not None:
                component["state_topic"] = state
                component["state_value_template"] = on_off(about, component["payload_on"], component["payload_off"])
            if setter is not None:
                component |= {
                    "brightness_command_topic": commands.topic,
                    "brightness_command_template": setter,
                    "brightness_scale": int(control.max),
                    "on_command_type": "brightness",  # or else `on` follows each brightness
                }
            if control.level is not None:
                component |= {"brightness_state_topic": topics(control.level), "brightness_value_template": _LEVEL}
        case "cover":
            component.setdefault("payload_stop", None)
            if setter is None:
                template = on_off(about, "open", "closed")
            else:
                component |= {
                    "position_topic": state,
                    "position_template": _POSITION,
                    "position_closed": int(control.min),
                    "position_open": int(control.max),
                    "set_position_topic": commands.topic,
                    "set_position_template": setter,
                }
        case "number":
            template = NUMBER
            component |= {"command_template": setter, "min": control.min, "max": control.max, "step": control.step}
        case "select":
            template = f"{{{{ value if value in {quote(control.options)} else None }}}}"
            component |= {"command_template": setter, "options": list(control.options)}
    if state is not None and template:
        component |= {"state_topic": state, "value_template": template}
    return component


def _plain(text: str) -> str:
    # In JSON with only one brace at a time outside its texts, no part of a template begins but within a text.
    return _JSON_TEXT.sub(lambda found: found[0].replace("{", "\\u007b"), text)
