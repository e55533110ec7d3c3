"""
The data lines of words (protocol §3), as fields; those of `status` are in `usbgate.server.status`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from usbgate.core.fieldline import format_number, format_time, plain_text
from usbgate.core.messages import alarm_fields, spell_arguments
from usbgate.core.model import Reading, StoredAlarm, StoredRequest
from usbgate.core.replacements import Offer, Replacement
from usbgate.core.settings import UNCONFIGURED, SensorSettings
from usbgate.gateway.interfaces import (
    DeviceSummary,
    HeldRequest,
    IQueries,
    MalformedLine,
    RuleSummary,
    SensorSummary,
)


def reading_fields(reading: Reading) -> Mapping[str, str]:
    """
    Return the fields of a reading.
    """
    number = "" if reading.value is None else format_number(reading.value)
    return {
        "ID": reading.sensor,
        reading.field: reading.text or number,  # a number that is not a plain decimal has its text, too
        **({"MSG": reading.command} if reading.command is not None else {}),
        "AT": format_time(reading.at),
        "DEV": reading.device,
    }


def sensor_fields(queries: IQueries) -> Iterator[Mapping[str, str]]:
    """
    Yield the fields of each sensor: the configured ones in the order of the configuration, then the others in the order
    of their first reports.
    """
    configured = queries.sensor_settings()
    for sensor, settings in list(configured.items()):
        yield _sensor_fields(queries, sensor, queries.sensor(sensor), settings)
    for known in queries.sensors():
        if known.sensor not in configured:
            yield _sensor_fields(queries, known.sensor, known, UNCONFIGURED)


def _sensor_fields(
    queries: IQueries, sensor: str, known: SensorSummary | None, settings: SensorSettings
) -> Mapping[str, str]:
    device = known.device if known is not None else settings.device
    units = {field: about.unit for field, about in settings.fields.items() if about.unit}
    if known is not None:
        for reading in queries.last(sensor, None):
            if reading.device == device and (unit := queries.field_settings(reading).unit):
                units[reading.field] = unit
    return {
        "ID": sensor,
        **({"DEV": device} if device else {}),
        **({"FIELDS": ",".join(known.fields)} if known is not None and known.fields else {}),
        **({"SEEN": format_time(known.seen)} if known is not None else {}),
        "REPORTS": str(known.reports if known is not None else 0),
        **({"NAME": settings.name} if settings.name else {}),
        **({"PLACE": settings.place} if settings.place else {}),
        **({"POLL": format_number(settings.poll)} if settings.poll else {}),
        **({"UNITS": ",".join(f"{field}={unit}" for field, unit in units.items())} if units else {}),
    }


def device_fields(device: DeviceSummary, with_path: bool) -> Mapping[str, str]:
    """
    Return the fields of a device.
    """
    return {
        "DEV": device.name,
        **({"PATH": device.path} if with_path else {}),
        "STATE": device.state,
        "SINCE": format_time(device.since),
        **{count.key: str(count.value) for count in device.counts},
        **({"TEXT": "; ".join(each.text for each in device.warnings)} if device.warnings else {}),
    }


def past_alarm_fields(stored: StoredAlarm) -> Mapping[str, str]:
    """
    Return the fields of a stored alarm.
    """
    peak = {} if stored.peak is None else {"PEAK": format_number(stored.peak)}
    return {**alarm_fields(stored.alarm), **peak}


def replacement_fields(replacement: Replacement, state: str = "replaced") -> Mapping[str, str]:
    """
    Return the fields of a replacement.
    """
    return {
        "ID": replacement.sensor,
        "SUCCESSOR": replacement.successor,
        "STATE": state,
        "SINCE": format_time(replacement.since),
        "AT": format_time(replacement.at),
        "BY": replacement.who,
        "DEV": replacement.device,
    }


def offer_fields(offer: Offer) -> Mapping[str, str]:
    """
    Return the fields of what may be a replacement.
    """
    return {
        "ID": offer.sensor,
        "SUCCESSOR": offer.successor,
        "STATE": "offered",
        "SINCE": format_time(offer.since),
        "AT": format_time(offer.since if offer.first is None else offer.first),
        "DEV": offer.device,
    }


def request_fields(stored: StoredRequest) -> Mapping[str, str]:
    """
    Return the fields of a completed request.
    """
    record = stored.record
    return {
        "AT": format_time(record.at),
        "MSG": record.command,
        **({"ID": record.sensor} if record.sensor is not None else {}),
        **({"ARGUMENTS": plain_text(record.arguments)} if record.arguments else {}),
        "ORIGIN": record.origin,
        "CLIENT": record.client,
        **({"DEV": record.device} if record.device else {}),
        "OUTCOME": record.outcome,
        "TOOK": f"{record.latency_ms / 1000:.4f}",
    }


def rule_fields(rule: RuleSummary) -> Mapping[str, str]:
    """
    Return the fields of a rule.
    """
    return {
        "RULE": rule.name,
        "STATE": "unknown" if rule.truth is None else "true" if rule.truth else "false",
        **({"LAST": format_time(rule.last)} if rule.last is not None else {}),
        "FIRED": str(rule.firings),
        "WAITING": str(rule.waiting),
        **({"DROPPED": str(rule.dropped)} if rule.dropped else {}),
        **({"TROUBLE": plain_text(rule.trouble)} if rule.trouble is not None else {}),
        "TEXT": plain_text(rule.when),
    }


def held_fields(held: HeldRequest) -> Mapping[str, str]:
    """
    Return the fields of a request that is held.
    """
    request = held.request
    return {
        "HELD": str(held.number),
        "AT": format_time(held.at),
        "UNTIL": format_time(held.until),
        "MSG": request.question.command,
        "ID": request.question.sensor,
        **({"ARGUMENTS": plain_text(arguments)} if (arguments := spell_arguments(request)) else {}),
        "ORIGIN": request.origin,
        "CLIENT": request.client,
        "DEV": held.device,
    }


def malformed_fields(line: MalformedLine) -> Mapping[str, str]:
    """
    Return the fields of a malformed line.
    """
    return {
        "AT": format_time(line.at),
        "FROM": line.source,
        "REASON": line.reason,
        "TEXT": plain_text(line.line.decode("utf-8", "backslashreplace")),
    }
