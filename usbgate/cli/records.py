"""
Data lines (protocol §3) as JSON objects, with the names that the HTTP API has for the same things (docs/http.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from usbgate.cli.connection import ANSWER_LIMIT
from usbgate.core.counts import LinkCounts
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import parse, parse_value

# One JSON object; what is not known is None.
Record = dict[str, Any]


def sensor_record(fields: Mapping[str, str]) -> Record:
    """
    Return a sensor from a line of `sensors`.
    """
    units = (each.partition("=") for each in fields.get("UNITS", "").split(","))
    return {
        "id": fields["ID"],
        "name": fields.get("NAME"),
        "place": fields.get("PLACE"),
        "device": fields.get("DEV"),
        "seen": fields.get("SEEN"),
        "reports": int(fields["REPORTS"]),
        "poll": float(fields["POLL"]) if "POLL" in fields else None,
        "fields": fields["FIELDS"].split(",") if "FIELDS" in fields else [],
        "units": {field: unit for field, _, unit in units if unit},
    }


def device_record(fields: Mapping[str, str]) -> Record:
    """
    Return a device from a line of `devices`.
    """
    return {
        "name": fields["DEV"],
        "path": fields.get("PATH"),
        "state": fields["STATE"],
        "since": fields["SINCE"],
        "counts": {count.key.lower(): int(fields.get(count.key, 0)) for count in LinkCounts()},
        "warning": fields.get("TEXT"),
    }


def reading_record(fields: Mapping[str, str]) -> Record:
    """
    Return a reading from a line of `last` or `history`.
    """
    _, field, *_ = fields
    value, text = parse_value(fields[field])
    return {
        "at": fields["AT"],
        "sensor": fields["ID"],
        "field": field,
        "value": value,
        "text": text,
        "command": fields.get("MSG"),
        "device": fields["DEV"],
    }


def replacement_record(fields: Mapping[str, str]) -> Record:
    """
    Return a replacement, or the offer of one, from a line of `replacements` or `replace`.
    """
    return {
        "sensor": fields["ID"],
        "successor": fields["SUCCESSOR"],
        "device": fields["DEV"],
        "state": fields["STATE"],
        "since": fields["SINCE"],
        "at": fields["AT"],
        "by": fields.get("BY"),
    }


def alarm_record(fields: Mapping[str, str]) -> Record:
    """
    Return an alarm from a line of `alarms`, or from an event.
    """
    value, text = parse_value(fields["VALUE"])
    acknowledged = None
    if "ACKNOWLEDGED" in fields:
        acknowledged = {"by": fields.get("BY"), "at": fields["ACKNOWLEDGED"]}
    return {
        "id": fields["ALARM"],
        "device": fields["DEV"],
        "sensor": fields["ID"],
        "field": fields["FIELD"],
        "condition": fields["CONDITION"],
        "value": value,
        "text": text,
        "since": fields["SINCE"],
        "ended": fields.get("ENDED"),
        "acknowledged": acknowledged,
        "peak": float(fields["PEAK"]) if "PEAK" in fields else None,
    }


def request_record(fields: Mapping[str, str]) -> Record:
    """
    Return a request from a line of `requests`.
    """
    return {
        "at": fields["AT"],
        "origin": fields["ORIGIN"],
        "client": fields["CLIENT"],
        "device": fields.get("DEV"),
        "sensor": fields.get("ID"),
        "command": fields["MSG"],
        "arguments": fields.get("ARGUMENTS"),
        "outcome": fields["OUTCOME"],
        "latency_ms": round(float(fields["TOOK"]) * 1000, 1),
    }


def rule_record(fields: Mapping[str, str]) -> Record:
    """
    Return a rule from a line of `rules`.
    """
    state = fields["STATE"]
    return {
        "name": fields["RULE"],
        "when": fields["TEXT"],
        "holds": None if state == "unknown" else state == "true",
        "last": fields.get("LAST"),
        "fired": int(fields["FIRED"]),
        "waiting": int(fields["WAITING"]),
        "dropped": int(fields.get("DROPPED", 0)),
        "trouble": fields.get("TROUBLE"),
    }


def held_record(fields: Mapping[str, str]) -> Record:
    """
    Return a question from a line of `held`.
    """
    return {
        "number": int(fields["HELD"]),
        "at": fields["AT"],
        "until": fields["UNTIL"],
        "origin": fields["ORIGIN"],
        "client": fields["CLIENT"],
        "device": fields["DEV"],
        "sensor": fields["ID"],
        "command": fields["MSG"],
        "arguments": fields.get("ARGUMENTS"),
    }


def malformed_record(fields: Mapping[str, str]) -> Record:
    """
    Return a malformed line from a line of `malformed`.
    """
    return {"at": fields["AT"], "source": fields["FROM"], "reason": fields["REASON"], "text": fields["TEXT"]}


def status_record(lines: Iterable[Mapping[str, str]]) -> Record:
    """
    Return the state of usbgate from the lines of `status`.
    """
    status: Record = {"requests": {}, "malformed": {}, "unsure": {}, "uncompared": [], "implausible": []}
    for line in lines:
        match next(iter(line)):
            case "VERSION":
                status |= _numbers(line)
            case "STORE":
                status["store"] = _numbers({"STATE": line["STORE"], **line}, "STORE", "GW")
                status["gateway"] = line.get("GW")
            case "JOURNAL":
                status["journal"] = _numbers({"STATE": line["JOURNAL"], **line}, "JOURNAL")
            case "MQTT":
                status["mqtt"] = _numbers({"STATE": line["MQTT"], **line}, "MQTT")
            case "REQUESTS":
                status["requests"][line["OUTCOME"]] = int(line["REQUESTS"])
            case "MALFORMED":
                status["malformed"][line["REASON"]] = int(line["MALFORMED"])
            case "CLIENTS":
                status["clients"] = _numbers(line)
            case "DEV" if "UNSURE" in line:
                status["unsure"].setdefault(line["DEV"], []).extend(line["SENSORS"].split(","))
            case "DEV" if "UNCOMPARED" in line:
                status["uncompared"].append(_field_record(line, "UNCOMPARED"))
            case "DEV" if "IMPLAUSIBLE" in line:
                status["implausible"].append(_field_record(line, "IMPLAUSIBLE"))
    return status


def _field_record(line: Mapping[str, str], count: str) -> Record:
    device, sensor, field, readings, text = (line[key] for key in ("DEV", "ID", "FIELD", count, "TEXT"))
    return {"device": device, "sensor": sensor, "field": field, "readings": int(readings), "text": text}


_TEXTS = frozenset(["VERSION", "CLOCK", "STATE", "OLDEST", "TEXT"])


def _numbers(line: Mapping[str, str], *left_out: str) -> Record:
    # The fields by their names in lower case, all numbers but the texts.
    return {
        key.lower(): value if key in _TEXTS else float(value) if "." in value else int(value)
        for key, value in line.items()
        if key not in left_out
    }


def answer_record(line: str) -> Record:
    """
    Return the answer to a request from its line.
    """
    fields = parse(line.encode(), ANSWER_LIMIT)
    sensor, at, command = fields.pop("ID"), fields.pop("AT", None), fields.pop("MSG", None)
    return {"sensor": sensor, "command": command, "at": at, "values": _values(fields)}


def event_record(line: str) -> Record | None:
    """
    Return an event from a line of `watch`, with its kind as `event`; None for any other line.

    A kind that is not known here has its fields as texts, by their names in lower case.
    """
    try:
        fields = parse(line.encode(), ANSWER_LIMIT)
    except Malformed:
        return None
    event = fields.pop("EVENT", None)
    if event is None:
        return None
    match event:
        case "reading":
            sensor, at, command = fields.pop("ID"), fields.pop("AT"), fields.pop("MSG", None)
            return {"event": event, "sensor": sensor, "command": command, "at": at, "values": _values(fields)}
        case "alarm":
            return {"event": event, "change": fields["CHANGE"], "at": fields["AT"], **alarm_record(fields)}
        case "device":
            return {"event": event, "device": fields["DEV"], "state": fields["STATE"]}
        case "dropped":
            return {"event": event, "count": int(fields["COUNT"])}
        case _:
            return {"event": event, **{key.lower(): value for key, value in fields.items()}}


def _values(fields: Mapping[str, str]) -> dict[str, float | str]:
    # Numbers as such; what is no number, or is spelled in a way that would be lost, as text.
    values: dict[str, float | str] = {}
    for field, spelled in fields.items():
        number, text = parse_value(spelled)
        values[field] = number if number is not None and text is None else spelled
    return values
