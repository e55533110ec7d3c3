"""
What the actions of a rule send: texts with the readings put in (docs/rules.md, "Texts").
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from usbgate.core.fieldline import format_number, format_time
from usbgate.core.model import Reading
from usbgate.core.settings import UNCONFIGURED, SensorSettings
from usbgate.rules.conditions import Comparison, DeviceState, KnownReading, SensorField, Staleness, leaves
from usbgate.rules.outbox import WaitingAction
from usbgate.rules.ruleset import Firing
from usbgate.rules.settings import MailTarget, PublishTarget, RuleSettings, WebhookTarget
from usbgate.rules.texts import JsonTemplate, Placeholder, Template, Values


def spell(reading: KnownReading | None) -> str:
    """
    Return the value of a reading as `last` shows it; `?` if there is none.
    """
    if reading is None:
        return "?"
    return reading.text or ("" if reading.value is None else format_number(reading.value))


def subject_of(rule: RuleSettings) -> SensorField:
    """
    Return what a rule is about: the first field in its condition. A sensor that is out of date has the field `STALE`,
    and a device has one that is named as its state, as if the device were a sensor.
    """
    for term in leaves(rule.when.term):
        match term:
            case Comparison():
                return term.left
            case Staleness():
                return SensorField(term.sensor, term.field or "STALE")
            case DeviceState():
                return SensorField(term.device, term.state.upper())
    return SensorField(rule.name, "TIME")


def alarm_reading(rule: RuleSettings, reading: KnownReading | None, device: str, at: int, clock: bool) -> Reading:
    """
    Return the reading that an alarm of a rule is about.

    Args:
        rule: The rule.
        reading: The newest reading of `subject_of`; None if there is none.
        device: The device, if there is no reading.
        at: Now: whole milliseconds since 1970, UTC.
        clock: Whether the clock is known to be right.
    """
    sensor, field = about = subject_of(rule)
    if reading is None:
        text = spell(None) if about in rule.fields() else field.lower()
        return Reading(at, device, sensor, field, None, text, None, clock)
    return Reading(at, reading.device, sensor, field, reading.value, reading.text, None, clock)


def actions_of(
    firing: Firing, gateway: str, sensors: Mapping[str, SensorSettings], new_id: Callable[[], str]
) -> Iterator[WaitingAction]:
    """
    Yield what a rule that fires has to do, but for its alarm.

    Args:
        firing: The rule, and the readings.
        gateway: The name of this usbgate.
        sensors: The configured sensors.
        new_id: Makes ids of actions.
    """
    rule, moment, readings = firing
    values = _values(firing, gateway, sensors)

    def action(kind: str, **payload: Any) -> WaitingAction:
        return WaitingAction(new_id(), rule.name, kind, moment.wall, payload)

    for each in rule.command:
        yield action("command", sensor=each.sensor, command=each.command, arguments=each.arguments)
    if rule.mail is not None:
        yield action("mail", **_mail(rule.mail, values, readings, sensors))
    if rule.webhook is not None:
        yield action("webhook", **_webhook(rule.webhook, firing, values, gateway))
    if rule.publish is not None:
        yield action("publish", **_message(rule.publish, values))


def _values(firing: Firing, gateway: str, sensors: Mapping[str, SensorSettings]) -> Values:
    rule, moment, readings = firing
    subject = subject_of(rule)
    about = sensors.get(subject.sensor, UNCONFIGURED)
    local = moment.local or datetime.fromtimestamp(moment.wall / 1000)
    named = {
        "rule": rule.name,
        "when": rule.when.text,
        "time": f"{local:%Y-%m-%d %H:%M:%S}",
        "gateway": gateway,
        "sensor": subject.sensor,
        "field": subject.field,
        "value": spell(readings.get(subject)),
        "name": about.name or subject.sensor,
        "place": about.place or "",
    }

    def value(placeholder: Placeholder) -> str:
        return spell(readings.get(placeholder)) if isinstance(placeholder, SensorField) else named[placeholder]

    return value


_SUBJECT = Template(("", "rule", ": ", "when", ""))
_TEXT = Template(("At ", "time", ": ", "when", "\n"))


def _mail(
    mail: MailTarget,
    values: Values,
    readings: Mapping[SensorField, KnownReading],
    sensors: Mapping[str, SensorSettings],
) -> dict[str, Any]:
    text = (mail.text or _TEXT).fill(values)
    if mail.text is None:
        for name, reading in readings.items():
            shown = sensors.get(name.sensor, UNCONFIGURED).name
            text += f"\nsensor {name.sensor}{f' ({shown})' if shown else ''} {name.field}: {spell(reading)}"
    return {"to": mail.to, "subject": (mail.subject or _SUBJECT).fill(values), "text": text}


def _webhook(webhook: WebhookTarget, firing: Firing, values: Values, gateway: str) -> dict[str, Any]:
    if isinstance(webhook.body, Template):
        return {"type": "text/plain; charset=utf-8", "body": webhook.body.fill(values)}
    if isinstance(webhook.body, JsonTemplate):
        body = webhook.body.fill(values)
    else:
        fields = {
            "rule": firing.rule.name,
            "when": firing.rule.when.text,
            "at": format_time(firing.moment.wall),
            "gateway": gateway,
            "readings": [
                {"sensor": sensor, "field": field, "value": each.value, "text": each.text, "device": each.device}
                for (sensor, field), each in firing.readings.items()
            ],
        }
        body = json.dumps(fields, ensure_ascii=False)
    return {"type": "application/json", "body": body}


def _message(publish: PublishTarget, values: Values) -> dict[str, Any]:
    return {"topic": publish.topic, "payload": publish.payload.fill(values), "retain": publish.retain}
