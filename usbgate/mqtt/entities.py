"""
What Home Assistant shows of a sensor's fields, as components of a discovery message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from typing import Any, NamedTuple

from usbgate.core.fieldkinds import FIELD_KINDS
from usbgate.core.fieldline import unit_of
from usbgate.core.model import Reading
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.mqtt.deviceclasses import device_class, spell_unit, state_class
from usbgate.mqtt.spelling import is_number, lifetime

Component = dict[str, Any]

# Home Assistant's device classes of states: some kinds of measurements are states as well, and not all kinds of states
# are a device class.
_MEASURED_OR_STATES = frozenset(["battery", "carbon_monoxide", "gas", "moisture", "power"])
_NO_CLASSES = frozenset(["outlet", "switch"])

# What devices send for on and off, in Home Assistant's sense: open, detected, unlocked, low (of a battery).
_ON = "on true yes open opened detected active alarm tripped unlocked low"
_OFF = "off false no closed clear none inactive ok normal locked"

# What people call it in `values`.
_CALLED_ON = """
occupied home wet running moving charging connected unsafe ouvert ouverte allumé allumée actif active détecté détectée
déverrouillé déverrouillée faible occupé oui
"""
_CALLED_OFF = """
close good free away dry stopped still idle disconnected safe fermé fermée éteint éteinte inactif inactive aucun aucune
libre verrouillé verrouillée bonne non normale
"""
_SENT = {**dict.fromkeys(_ON.split(), True), **dict.fromkeys(_OFF.split(), False)}
_CALLED = {**dict.fromkeys(_CALLED_ON.split(), True), **dict.fromkeys(_CALLED_OFF.split(), False), **_SENT}

NUMBER = "{{ value if is_number(value) else None }}"  # a template
_STATE_LIMIT = 255  # characters of a state that Home Assistant accepts


class Field(NamedTuple):
    """
    A field to show.

    Attributes:
        reading: Its newest reading.
        settings: What is known of it.
        was_number: Whether it was shown as a number before: it stays one when a value is none.
    """

    reading: Reading
    settings: FieldSettings
    was_number: bool = False

    @property
    def is_number(self) -> bool:
        """
        Whether it is shown as a number.
        """
        settings = self.settings
        if settings.states:
            return False
        if self.was_number or settings.kind is not None or settings.unit is not None or settings.never_falls:
            return True
        return is_number(self.reading)


def label(texts: str | Mapping[str, str] | None, language: str) -> str | None:
    """
    Return a text in a language, or else in any other; None if there is none.
    """
    if texts is None or isinstance(texts, str):
        return texts
    return texts.get(language) or next(iter(texts.values()))


def field_component(
    field: Field, topic: str, sensor: SensorSettings, alone: bool, language: str
) -> tuple[str, Component]:
    """
    Return what shows a field: Home Assistant's platform, and the rest.

    Args:
        field: The field.
        topic: Where its values are published.
        sensor: The settings of its sensor.
        alone: Whether no other field of the sensor has its kind: Home Assistant names it by its device class then.
        language: Of the names.
    """
    reading, settings = field.reading, field.settings
    component: Component = {"state_topic": topic, "expire_after": ceil(lifetime(sensor))}
    name = label(settings.label, language)
    if _is_binary(field):
        platform = "binary_sensor"
        shown_as = settings.kind if settings.kind not in _NO_CLASSES else None
        component |= {
            "value_template": on_off(settings, "ON", "OFF"),
            "payload_on": "ON",
            "payload_off": "OFF",
        }
    elif field.is_number:
        platform = "sensor"
        unit = unit_of(reading.text or "") or settings.unit
        if unit is not None:
            component["unit_of_measurement"] = unit = spell_unit(unit, settings.kind)
        shown_as = device_class(settings.kind, unit)
        if (statistics := state_class(shown_as, unit, settings.never_falls)) is not None:
            component["state_class"] = statistics
        component["value_template"] = NUMBER
        if settings.decimals is not None:
            component["suggested_display_precision"] = settings.decimals
    else:
        platform = "sensor"
        shown_as = None
        component["value_template"] = _text_template(settings, language)
    if shown_as is not None:
        component["device_class"] = shown_as
    if name is not None or shown_as is None or not alone:
        component["name"] = name or reading.field
    return platform, component


def on_off(settings: FieldSettings, on: str, off: str) -> str:
    """
    Return a template that turns the values of a field into two others, and into None what means neither on nor off.

    Numbers but 0 are on, and so are texts such as `open`. What the field's own `values` call so goes before: with
    `{ "0" = "open", "1" = "closed" }`, 0 is on.

    Args:
        settings: What is known of the field.
        on: The text for on.
        off: The text for off.
    """
    known = _SENT | _called(settings)
    is_on, is_off = ([value for value, state in known.items() if state is each] for each in (True, False))
    return (
        "{% set v = value | lower %}"
        f"{{% set on = true if v in {quote(is_on)} else false if v in {quote(is_off)}"
        " else v | float != 0 if is_number(v) else None %}"
        f"{{{{ {quote(on)} if on else {quote(off)} if on is false else None }}}}"
    )


def _is_binary(field: Field) -> bool:
    kind = field.settings.kind
    if kind in _MEASURED_OR_STATES:
        text = field.reading.text if field.reading.value is None and not field.was_number else None
        return set(_called(field.settings).values()) == {True, False} or (text or "").lower() in _SENT
    return kind is not None and FIELD_KINDS[kind].states


def _called(settings: FieldSettings) -> dict[str, bool]:
    # The values that are called on or off, in lower case.
    return {
        value.lower(): _CALLED[text.casefold()]
        for value, texts in settings.values.items()
        for text in ([texts] if isinstance(texts, str) else texts.values())
        if text.casefold() in _CALLED
    }


def quote(value: object) -> str:
    """
    Spell texts, and what consists of texts, as JSON and as a template does.
    """
    return json.dumps(value, ensure_ascii=False)


def _text_template(settings: FieldSettings, language: str) -> str:
    if not settings.values:
        return f"{{{{ value[:{_STATE_LIMIT}] }}}}"
    texts = {value: label(texts, language) for value, texts in settings.values.items()}
    return f"{{{{ {quote(texts)}.get(value, value)[:{_STATE_LIMIT}] }}}}"
