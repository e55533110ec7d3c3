"""
Sensors with their newest readings, as the types of `schema`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set

import msgspec

from usbgate.core.fieldline import format_time
from usbgate.core.model import Button, Reading
from usbgate.core.settings import UNCONFIGURED, FieldSettings, SensorSettings
from usbgate.gateway.interfaces import IQueries, SensorSummary
from usbgate.web.schema import ApiCommand, ApiField, ApiSensor, ApiTexts


def sensors_pieces(queries: IQueries, now: int, raw: bool) -> Iterator[bytes]:
    """
    Yield an `ApiSensors` as JSON, sensor by sensor (arguments as for `sensors_json`).
    """
    yield b'{"now":' + msgspec.json.encode(format_time(now)) + b',"sensors":['
    separator = b""
    for sensor in sensors_json(queries, now, raw=raw):
        yield separator + msgspec.json.encode(sensor)
        separator = b","
    yield b"]}"


def sensors_json(queries: IQueries, now: int, only: str | None = None, raw: bool = False) -> Iterator[ApiSensor]:
    """
    Yield sensors: the configured ones in the order of the configuration, then the others in the order of their first
    reports.

    Args:
        queries: The gateway's queries.
        now: Whole milliseconds since 1970, UTC.
        only: Only this sensor, if it is known; None for all.
        raw: Whether readings are to be as the devices sent them.

    Of a sensor that several devices report, the readings are those of the device that is asked.
    """
    configured = queries.sensor_settings()
    states = {device.name: device.state for device in queries.devices()}
    alarming: dict[str, set[str]] = {}
    for alarm in queries.alarms():
        if alarm.ended is None:
            alarming.setdefault(alarm.sensor, set()).add(alarm.field)
    for sensor, known in _all_sensors(queries, configured) if only is None else ((only, queries.sensor(only)),):
        if known is None and sensor not in configured:
            return
        yield _sensor_json(
            sensor,
            known,
            configured.get(sensor, UNCONFIGURED),
            () if known is None else [each for each in queries.last(sensor, None, raw) if each.device == known.device],
            queries.field_settings,
            states,
            alarming.get(sensor, frozenset()),
            queries.default_command(sensor),
            now,
        )


def _all_sensors(
    queries: IQueries, configured: Mapping[str, SensorSettings]
) -> Iterator[tuple[str, SensorSummary | None]]:
    for sensor in list(configured):
        yield sensor, queries.sensor(sensor)
    for known in queries.sensors():
        if known.sensor not in configured:
            yield known.sensor, known


def _sensor_json(
    sensor: str,
    known: SensorSummary | None,
    settings: SensorSettings,
    newest: Sequence[Reading],
    field_settings: Callable[[Reading], FieldSettings],
    states: Mapping[str, str],
    alarming: Set[str],
    default_command: str,
    now: int,
) -> ApiSensor:
    fields = sorted(((reading, field_settings(reading)) for reading in newest), key=lambda each: each[1].rank)
    device = settings.device or (known.device if known is not None else None)
    return ApiSensor(
        id=sensor,
        name=settings.name,
        place=settings.place,
        device=device,
        device_state=states.get(device) if device is not None else None,
        seen=None if known is None else format_time(known.seen),
        stale=not newest or now - max(reading.at for reading in newest) > settings.stale * 1000,
        reports=0 if known is None else known.reports,
        poll=settings.poll,
        default_command=default_command,
        commands=[_command_json(button) for button in settings.commands],
        fields=[_field_json(reading, about, reading.field in alarming, now) for reading, about in fields],
    )


def _texts_json(texts: str | Mapping[str, str]) -> ApiTexts:
    return texts if isinstance(texts, str) else dict(texts)


def _field_json(reading: Reading, settings: FieldSettings, alarming: bool, now: int) -> ApiField:
    return ApiField(
        field=reading.field,
        value=reading.value,
        text=reading.text,
        kind=settings.kind,
        label=settings.label if settings.label is None else _texts_json(settings.label),
        values={value: _texts_json(texts) for value, texts in settings.values.items()},
        states=settings.states,
        unit=settings.unit,
        decimals=settings.decimals,
        at=format_time(reading.at),
        age=max(0, now - reading.at) / 1000,
        alarm=None if settings.alarm is None else str(settings.alarm),
        alarming=alarming,
    )


def _command_json(button: Button) -> ApiCommand:
    return ApiCommand(label=button.label, command=button.command, arguments=dict(button.arguments))
