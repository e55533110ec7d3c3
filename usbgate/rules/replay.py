"""
What rules would have done in the past: the same rules, fed with stored readings (docs/rules.md, "Testing").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from usbgate.core.fieldline import format_number
from usbgate.core.model import Reading
from usbgate.rules.conditions import Moment
from usbgate.rules.ruleset import Firing, RuleSet
from usbgate.rules.settings import RuleSettings


def replay(
    rules: Iterable[RuleSettings],
    readings: Iterable[Reading],
    start: int,
    end: int,
    stale: Callable[[str], float],
    local: Callable[[float], datetime] = datetime.fromtimestamp,
) -> Iterator[Firing]:
    """
    Yield what would have fired, in order. States of devices are not known.

    Args:
        rules: The rules; they start as new ones.
        readings: The readings from the start on, in the order in which they were received.
        start: Since when: whole milliseconds since 1970, UTC.
        end: Until when.
        stale: See `Facts`.
        local: Returns the local time of seconds since 1970, UTC.
    """

    def moment(seconds: float) -> Moment:
        return Moment(seconds, round(seconds * 1000), local(seconds))

    now = start / 1000
    known = RuleSet(rules, {}, stale, moment(now))
    for at, device, sensor, values in _reports(readings):
        while known.due < at / 1000:
            now = max(now, known.due)
            yield from known.advance(moment(now))
        now = max(now, at / 1000)  # the clock may have been set back
        yield from known.advance(moment(now))
        yield from known.report(device, sensor, values.items(), moment(now))
    while known.due <= end / 1000:
        now = max(now, known.due)
        yield from known.advance(moment(now))


def _reports(readings: Iterable[Reading]) -> Iterator[tuple[int, str, str, Mapping[str, str]]]:
    # Reports that came in one chunk have one time: a field that comes again begins another one.
    values: dict[str, str] = {}
    before: tuple[int, str, str] | None = None
    for each in readings:
        which = each.at, each.device, each.sensor
        if before is not None and (which != before or each.field in values):
            yield *before, values
            values = {}
        before = which
        values[each.field] = each.text or format_number(each.value or 0.0)
    if before is not None:
        yield *before, values
