"""
What the gateway knows, in the shape in which it goes out over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from usbgate.core import model
from usbgate.core.fieldline import format_time, parse_value, plain_text
from usbgate.core.status import JournalStatus
from usbgate.gateway.interfaces import (
    DeviceSummary,
    FieldPresentation,
    IGateway,
    Presentation,
    SensorSummary,
)
from usbgate.web import schema

_NOTHING_SAID = Presentation()
_NO_FIELD = FieldPresentation()

moment = format_time


def values_shape(values: Iterable[tuple[str, str]]) -> dict[str, schema.Value]:
    """
    Give measurements, as numbers where they are some; one with more digits than a double holds stays as it was spelled.
    """
    return {field: _value(text) for field, text in values}


def _value(text: str) -> schema.Value:
    number, kept = parse_value(text)
    return number if number is not None and kept is None else text


def sensor_shapes(gateway: IGateway, now: int, only: str | None = None) -> Iterator[schema.Sensor]:
    """
    Give all sensors: those of the configuration first, in its order, then the others, as they were heard first.

    Args:
        gateway: Who knows them.
        now: Whole milliseconds since 1970, UTC.
        only: Just this one, if it is known; None for all.
    """
    known = {each.sensor: each for each in gateway.queries.sensors()}
    presentations = gateway.queries.presentations()
    newest = _by_sensor(gateway.queries.last(only, None))
    states = {device.name: device.state for device in gateway.queries.devices()}
    alarming = {(alarm.sensor, alarm.field) for alarm in gateway.queries.alarms() if alarm.ended is None}
    for sensor in dict.fromkeys([*presentations, *known]):
        if only in (None, sensor):
            yield _sensor_shape(
                sensor,
                known.get(sensor),
                presentations.get(sensor, _NOTHING_SAID),
                newest.get(sensor, ()),
                states,
                {field for of, field in alarming if of == sensor} if alarming else set(),
                gateway.queries.default_command(sensor),
                now,
            )


def _by_sensor(readings: Iterable[model.Reading]) -> dict[str, list[model.Reading]]:
    """
    Sort readings by their sensors.
    """
    found: dict[str, list[model.Reading]] = {}
    for reading in readings:
        found.setdefault(reading.sensor, []).append(reading)
    return found


def _sensor_shape(
    sensor: str,
    known: SensorSummary | None,
    presentation: Presentation,
    newest: Sequence[model.Reading],
    states: Mapping[str, str],
    alarming: set[str],
    default_command: str,
    now: int,
) -> schema.Sensor:
    device = presentation.device or (known.device if known is not None else None)
    return schema.Sensor(
        id=sensor,
        name=presentation.name,
        place=presentation.place,
        device=device,
        device_state=states.get(device) if device is not None else None,
        seen=None if known is None else moment(known.seen),
        stale=not newest or now - max(reading.at for reading in newest) > presentation.stale * 1000,
        reports=0 if known is None else known.reports,
        default_command=default_command,
        commands=[command_shape(button) for button in presentation.buttons],
        fields=[
            _field_shape(reading, presentation.fields.get(reading.field, _NO_FIELD), reading.field in alarming, now)
            for reading in newest
        ],
    )


def _field_shape(reading: model.Reading, shown: FieldPresentation, alarming: bool, now: int) -> schema.Field:
    return schema.Field(
        field=reading.field,
        value=reading.value,
        text=reading.text,
        unit=shown.unit,
        decimals=shown.decimals,
        at=moment(reading.at),
        age=max(0, now - reading.at) / 1000,
        alarm=None if shown.alarm is None else str(shown.alarm),
        alarming=alarming,
    )


def command_shape(button: model.Button) -> schema.Command:
    """
    Return a button of the configuration.
    """
    return schema.Command(label=button.label, command=button.command, arguments=dict(button.arguments))


def answer_shape(answer: model.Answer) -> schema.Answer:
    """
    Give an answer.
    """
    return schema.Answer(
        sensor=answer.report.sensor,
        command=answer.command,
        device=answer.device,
        at=moment(answer.at),
        recent=answer.recent,
        values=values_shape(answer.report.values),
    )


def reading_shape(stored: model.StoredReading) -> schema.Reading:
    """
    Give a stored reading.
    """
    reading = stored.reading
    return schema.Reading(
        seq=stored.seq,
        at=moment(reading.at),
        sensor=reading.sensor,
        field=reading.field,
        device=reading.device,
        value=reading.value,
        text=reading.text,
        command=reading.command,
        clock=reading.clock,
    )


def bucket_shape(sensor: str, bucket: model.Bucket) -> schema.Bucket:
    """
    Give a sum.
    """
    return schema.Bucket(
        at=moment(bucket.at),
        sensor=sensor,
        field=bucket.field,
        min=bucket.min,
        avg=bucket.avg,
        max=bucket.max,
        count=bucket.readings,
    )


def request_shape(stored: model.StoredRequest) -> schema.Request:
    """
    Give a request that ended.
    """
    record = stored.record
    return schema.Request(
        seq=stored.seq,
        at=moment(record.at),
        origin=record.origin,
        client=record.client,
        device=record.device,
        sensor=record.sensor,
        command=record.command,
        arguments=record.arguments,
        outcome=record.outcome,
        latency_ms=record.latency_ms,
    )


def alarm_shape(alarm: model.Alarm, presentations: Mapping[str, Presentation]) -> schema.Alarm:
    """
    Give an alarm.
    """
    presentation = presentations.get(alarm.sensor, _NOTHING_SAID)
    acknowledged = None
    if alarm.acknowledged is not None:
        acknowledged = schema.Acknowledgement(by=alarm.by or "", at=moment(alarm.acknowledged))
    return schema.Alarm(
        id=alarm.alarm,
        sensor=alarm.sensor,
        field=alarm.field,
        name=presentation.name,
        place=presentation.place,
        condition=alarm.condition,
        value=alarm.value,
        text=alarm.text,
        since=moment(alarm.since),
        ended=None if alarm.ended is None else moment(alarm.ended),
        acknowledged=acknowledged,
    )


def device_shape(device: DeviceSummary) -> schema.Device:
    """
    Give a device.
    """
    return schema.Device(
        name=device.name,
        path=device.path,
        state=device.state,
        since=moment(device.since),
        counts={count.key.lower(): count.value for count in device.counts},
        warning=device.warning,
    )


def status_shape(gateway: IGateway, clients: Mapping[str, int]) -> schema.Status:
    """
    Give how usbgate is.
    """
    status = gateway.queries.status()
    totals = gateway.queries.totals()
    store = status.store
    return schema.Status(
        version=status.version,
        uptime=round(status.uptime),
        clock="trusted" if status.clock_trusted else "untrusted",
        gateway=store.gateway,
        store=schema.Store(
            state=store.state,
            backlog=store.backlog,
            oldest=None if store.oldest is None else moment(store.oldest),
            rejected=store.rejected,
            text=None if store.trouble is None else plain_text(store.trouble),
        ),
        journal={} if status.journal is None else _journal(status.journal),
        requests=dict(totals.outcomes),
        malformed=dict(totals.malformed),
        sensors=status.sensors,
        inflight=status.in_flight,
        clients={name.lower(): count for name, count in clients.items()},
    )


def _journal(journal: JournalStatus) -> dict[str, schema.Value]:
    shape: dict[str, schema.Value] = {
        "commits": journal.commits,
        "slowest": round(journal.slowest_commit, 4),
        "state": "ok" if journal.trouble is None else "trouble",
    }
    if journal.written is not None and journal.daily is not None:
        shape |= {"written": journal.written, "daily": journal.daily}
    if journal.lost:
        shape["lost"] = journal.lost
    if journal.trouble is not None:
        shape["text"] = plain_text(journal.trouble)
    return shape


def health_shape(gateway: IGateway, store: str) -> schema.Health:
    """
    Give whether all is well.
    """
    devices = {device.name: device.state for device in gateway.queries.devices()}
    well = store in ("connected", "none") and all(state in ("online", "lent") for state in devices.values())
    return schema.Health(status="ok" if well else "degraded", store=store, devices=devices)
