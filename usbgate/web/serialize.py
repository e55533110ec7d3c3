"""
What the gateway returns, as the types of `schema`. Sensors are in `sensors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from msgspec import Struct
from msgspec.structs import asdict

from usbgate.access.roles import Access
from usbgate.core.fieldline import format_time, plain_text
from usbgate.core.jsonmessages import ApiValue, alarm_json, values_json
from usbgate.core.messages import spell_arguments
from usbgate.core.model import (
    AlarmEvent,
    Bucket,
    DeviceEvent,
    Event,
    ReportEvent,
    StoredAlarm,
    StoredReading,
    StoredRequest,
    StoredState,
    StoreEvent,
)
from usbgate.core.replacements import Offer, Replacement
from usbgate.core.settings import SensorSettings
from usbgate.core.status import BrokerStatus, JournalStatus, StoreStatus
from usbgate.gateway.interfaces import DeviceSummary, HeldRequest, IQueries, RuleSummary
from usbgate.web.schema import (
    ApiBroker,
    ApiBucket,
    ApiDevice,
    ApiDeviceEvent,
    ApiHealth,
    ApiHeldRequest,
    ApiImplausible,
    ApiOffer,
    ApiPastAlarm,
    ApiReading,
    ApiReplacement,
    ApiReportEvent,
    ApiRequest,
    ApiRule,
    ApiSession,
    ApiSpan,
    ApiState,
    ApiStatus,
    ApiStore,
    ApiStoreEvent,
    ApiUncompared,
    ApiWarning,
)


def reading_json(stored: StoredReading) -> ApiReading:
    """
    Return a stored reading.
    """
    reading = stored.reading
    return ApiReading(
        seq=stored.seq,
        at=format_time(reading.at),
        sensor=reading.sensor,
        field=reading.field,
        device=reading.device,
        value=reading.value,
        text=reading.text,
        command=reading.command,
        clock=reading.clock,
    )


def bucket_json(sensor: str, bucket: Bucket) -> ApiBucket:
    """
    Return the aggregate of one interval.
    """
    return ApiBucket(
        at=format_time(bucket.at),
        sensor=sensor,
        device=bucket.device,
        field=bucket.field,
        min=bucket.min,
        avg=bucket.avg,
        max=bucket.max,
        count=bucket.readings,
    )


def state_json(state: StoredState) -> ApiState:
    """
    Return a state.
    """
    return ApiState(
        since=format_time(state.since),
        until=format_time(state.until),
        device=state.device,
        field=state.field,
        value=state.value,
        text=state.text,
    )


def past_alarm_json(stored: StoredAlarm, configured: Mapping[str, SensorSettings]) -> ApiPastAlarm:
    """
    Return a stored alarm, with its sensor's name and place.
    """
    return ApiPastAlarm(
        **asdict(alarm_json(stored.alarm, configured)),
        peak=stored.peak,
        spans=[
            ApiSpan(since=format_time(since), until=None if until is None else format_time(until))
            for since, until in stored.spans
        ],
    )


def replacement_json(replacement: Replacement) -> ApiReplacement:
    """
    Return a replacement.
    """
    return ApiReplacement(
        sensor=replacement.sensor,
        successor=replacement.successor,
        device=replacement.device,
        since=format_time(replacement.since),
        at=format_time(replacement.at),
        by=replacement.who,
    )


def offer_json(offer: Offer) -> ApiOffer:
    """
    Return what may be a replacement.
    """
    return ApiOffer(
        sensor=offer.sensor,
        successor=offer.successor,
        device=offer.device,
        since=format_time(offer.since),
        first=None if offer.first is None else format_time(offer.first),
    )


def request_json(stored: StoredRequest) -> ApiRequest:
    """
    Return a completed request.
    """
    record = stored.record
    return ApiRequest(
        seq=stored.seq,
        at=format_time(record.at),
        origin=record.origin,
        client=record.client,
        device=record.device,
        sensor=record.sensor,
        command=record.command,
        arguments=record.arguments,
        outcome=record.outcome,
        latency_ms=record.latency_ms,
    )


def device_json(device: DeviceSummary, with_path: bool = True) -> ApiDevice:
    """
    Return a device.
    """
    return ApiDevice(
        name=device.name,
        path=device.path if with_path else None,
        state=device.state,
        since=format_time(device.since),
        counts={count.key.lower(): count.value for count in device.counts},
        warnings=[ApiWarning(reason=each.reason, about=each.about, text=each.text) for each in device.warnings],
        lent_to=device.lent_to,
    )


def rule_json(rule: RuleSummary) -> ApiRule:
    """
    Return a rule.
    """
    return ApiRule(
        name=rule.name,
        when=rule.when,
        holds=rule.truth,
        last=None if rule.last is None else format_time(rule.last),
        fired=rule.firings,
        waiting=rule.waiting,
        dropped=rule.dropped,
        trouble=rule.trouble,
    )


def held_json(held: HeldRequest) -> ApiHeldRequest:
    """
    Return a question that is held.
    """
    request = held.request
    return ApiHeldRequest(
        number=held.number,
        at=format_time(held.at),
        until=format_time(held.until),
        origin=request.origin,
        client=request.client,
        device=held.device,
        sensor=request.question.sensor,
        command=request.question.command,
        arguments=spell_arguments(request),
    )


def event_json(event: Event, configured: Mapping[str, SensorSettings]) -> tuple[str, Struct]:
    """
    Return the name and the data of an event.
    """
    match event:
        case ReportEvent(sensor, device, command, at, values, raw):
            return "reading", ApiReportEvent(
                sensor=sensor,
                device=device,
                command=command,
                at=format_time(at),
                values=values_json(values),
                raw=None if raw is None else values_json(raw),
            )
        case DeviceEvent(device, state, since):
            return "device", ApiDeviceEvent(device=device, state=state, since=format_time(since))
        case AlarmEvent(alarm, _, _):
            return "alarm", alarm_json(alarm, configured)
        case StoreEvent(state, backlog):
            return "store", ApiStoreEvent(state=state, backlog=backlog)
        case _:
            assert_never(event)


def status_json(queries: IQueries, clients: Mapping[str, int]) -> ApiStatus:
    """
    Return the state of usbgate, its counts, and the numbers of clients by kind.
    """
    status = queries.status()
    totals = queries.totals()
    return ApiStatus(
        version=status.version,
        uptime=round(status.uptime),
        clock="trusted" if status.clock_trusted else "untrusted",
        gateway=status.store.gateway,
        store=_store_json(status.store),
        journal={} if status.journal is None else _journal_json(status.journal),
        mqtt=None if status.broker is None else _broker_json(status.broker),
        requests=dict(totals.outcomes),
        malformed=dict(totals.malformed),
        uncompared=[ApiUncompared(**each._asdict()) for each in status.uncompared],
        implausible=[ApiImplausible(**each._asdict()) for each in status.implausible],
        sensors=status.sensors,
        inflight=status.in_flight,
        held=status.held,
        clients={name.lower(): count for name, count in clients.items()},
    )


def _store_json(store: StoreStatus) -> ApiStore:
    return ApiStore(
        state=store.state,
        backlog=store.backlog,
        oldest=None if store.oldest is None else format_time(store.oldest),
        rejected=store.rejected,
        text=None if store.trouble is None else plain_text(store.trouble),
    )


def _journal_json(journal: JournalStatus) -> dict[str, ApiValue]:
    values: dict[str, ApiValue] = {
        "commits": journal.commits,
        "slowest": round(journal.slowest_commit, 4),
        "state": "ok" if journal.trouble is None else "trouble",
    }
    if journal.written is not None and journal.daily is not None:
        values |= {"written": journal.written, "daily": journal.daily}
    if journal.lost:
        values["lost"] = journal.lost
    if journal.trouble is not None:
        values["text"] = plain_text(journal.trouble)
    return values


def _broker_json(broker: BrokerStatus) -> ApiBroker:
    return ApiBroker(
        state=broker.state,
        published=broker.published,
        dropped=broker.dropped,
        refused=broker.refused,
        unasked=broker.unasked,
        text=None if broker.trouble is None else plain_text(broker.trouble),
    )


def session_json(access: Access, is_open: bool) -> ApiSession:
    """
    Return who a client is, and whether everybody on the network may command.
    """
    return ApiSession(
        role=access.role.spelled,  # type: ignore[arg-type]  # those are the roles
        name=access.who,
        sensors=None if access.sensors is None else sorted(access.sensors),
        open=is_open,
    )


def health_json(queries: IQueries) -> ApiHealth:
    """
    Return the states of the store and of the devices, and whether all of them are well.
    """
    store = queries.status().store.state
    devices = {device.name: device.state for device in queries.devices()}
    well = store in ("connected", "none") and all(state in ("online", "lent") for state in devices.values())
    return ApiHealth(status="ok" if well else "degraded", store=store, devices=devices)
