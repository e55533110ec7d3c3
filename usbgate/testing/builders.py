"""
Builders of what travels through usbgate, for tests.
"""

from __future__ import annotations

from usbgate.core.fieldline import join_fields
from usbgate.core.model import Priority, Question, Reading, Report, Request, RequestRecord

AT = 1363035730123  # 2013-03-11T21:02:10.123Z in milliseconds, the time of what the builders make


def report(sensor: str = "20", command: str | None = None, tag: str | None = None, **values: str) -> Report:
    """
    Make a report; its values are `VALUE:456` if none are given.
    """
    return Report(sensor, command, tag, tuple((values or {"VALUE": "456"}).items()))


def acknowledgement(sensor: str = "20", command: str = "J", tag: str | None = None) -> Report:
    """
    Make a report without values.
    """
    return Report(sensor, command, tag, ())


def request(
    sensor: str = "20",
    command: str = "J",
    *,
    origin: str = "TOTO",
    client: str = "test",
    timeout: float | None = None,
    max_age: float | None = None,
    device: str | None = None,
    priority: Priority = Priority.PERSON,
    when_heard: bool = False,
    **arguments: str,
) -> Request:
    """
    Make a request, as `MSG:J_ID:20_ORIGIN:TOTO` and its arguments make one.
    """
    fields = {"MSG": command, "ID": sensor, "ORIGIN": origin, **arguments}
    question = Question(sensor, command, frozenset(arguments.items()))
    line = join_fields(fields).encode()
    return Request(question, fields, line, origin, client, timeout, max_age, device, priority, when_heard)


def reading(
    value: float | str | None = 456.0,
    *,
    at: int = AT,
    device: str = "leonardo",
    sensor: str = "20",
    field: str = "VALUE",
    text: str | None = None,
    command: str | None = None,
    clock: bool = True,
) -> Reading:
    """
    Make a reading of a number, or of a text.
    """
    if isinstance(value, str):
        value, text = None, value
    return Reading(at, device, sensor, field, value, text, command, clock)


def readings(first: int, count: int) -> list[Reading]:
    """
    Make readings whose values are the numbers from `first`, one millisecond apart.
    """
    return [reading(float(n), at=AT + n) for n in range(first, first + count)]


def request_record(
    outcome: str = "answered",
    *,
    at: int = AT,
    origin: str = "TOTO",
    client: str = "127.0.0.1",
    device: str | None = "leonardo",
    sensor: str = "20",
    command: str = "J",
    arguments: str | None = None,
    latency_ms: float = 12.5,
    clock: bool = True,
) -> RequestRecord:
    """
    Make the record of a request.
    """
    return RequestRecord(at, origin, client, device, sensor, command, arguments, outcome, latency_ms, clock)
