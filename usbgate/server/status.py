"""
The lines of `status` (protocol §3) as fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from usbgate.core.fieldline import format_time, plain_text
from usbgate.core.status import BrokerStatus, JournalStatus, Status, StoreStatus, Totals

UNSURE_PER_LINE = 50  # sensors named in one line


def status_fields(status: Status, totals: Totals, connections: Mapping[str, int]) -> Iterator[Mapping[str, str]]:
    """
    Spell the status of usbgate.

    Args:
        status: The status of the gateway.
        totals: The counts of the gateway.
        connections: The counts of line clients.

    Yields:
        The fields of one line.
    """
    yield {
        "VERSION": status.version,
        "UPTIME": f"{status.uptime:.0f}",
        "CLOCK": "trusted" if status.clock_trusted else "untrusted",
        "SENSORS": str(status.sensors),
        "INFLIGHT": str(status.in_flight),
        "HELD": str(status.held),
    }
    yield _store_fields(status.store)
    if status.journal is not None:
        yield _journal_fields(status.journal)
    if status.broker is not None:
        yield _broker_fields(status.broker)
    for outcome, count in totals.outcomes.items():
        yield {"REQUESTS": str(count), "OUTCOME": outcome}
    for reason, count in totals.malformed.items():
        yield {"MALFORMED": str(count), "REASON": reason}
    for device, unsure in status.unsure.items():
        for start in range(0, len(unsure), UNSURE_PER_LINE):
            named = unsure[start : start + UNSURE_PER_LINE]
            yield {
                "DEV": device,
                "UNSURE": str(len(named)),
                "SENSORS": ",".join(named),
                "TEXT": "they answer with neither MSG nor TAG: an unsolicited reading can pass for an answer",
            }
    for each in status.uncompared:
        yield {
            "DEV": each.device,
            "ID": each.sensor,
            "FIELD": each.field,
            "UNCOMPARED": str(each.readings),
            "TEXT": plain_text(f"the last one is {each.text}, and the alarm condition {each.condition}"),
        }
    for field in status.implausible:
        yield {
            "DEV": field.device,
            "ID": field.sensor,
            "FIELD": field.field,
            "IMPLAUSIBLE": str(field.readings),
            "TEXT": plain_text(f"not within min and max of the field; the last one was sent as {field.text}"),
        }
    yield {key: str(count) for key, count in connections.items()}


def _store_fields(store: StoreStatus) -> Mapping[str, str]:
    fields = {"STORE": store.state}
    if store.gateway is not None:
        fields |= {"GW": store.gateway, "BACKLOG": str(store.backlog), "REJECTED": str(store.rejected)}
    if store.oldest is not None:
        fields["OLDEST"] = format_time(store.oldest)
    if store.trouble is not None:
        fields["TEXT"] = plain_text(store.trouble)
    return fields


def _journal_fields(journal: JournalStatus) -> Mapping[str, str]:
    fields = {
        "JOURNAL": "ok" if journal.trouble is None else "trouble",
        "COMMITS": str(journal.commits),
        "SLOWEST": f"{journal.slowest_commit:.4f}",
    }
    if journal.written is not None and journal.daily is not None:
        fields |= {"WRITTEN": str(journal.written), "DAILY": str(journal.daily)}
    if journal.lost:
        fields["LOST"] = str(journal.lost)
    if journal.trouble is not None:
        fields["TEXT"] = plain_text(journal.trouble)
    return fields


def _broker_fields(broker: BrokerStatus) -> Mapping[str, str]:
    fields = {
        "MQTT": broker.state,
        "PUBLISHED": str(broker.published),
        "DROPPED": str(broker.dropped),
        "REFUSED": str(broker.refused),
        "UNASKED": str(broker.unasked),
    }
    if broker.trouble is not None:
        fields["TEXT"] = plain_text(broker.trouble)
    return fields
