"""
Sensors whose devices have new ids, as after a new battery: which id takes whose place (protocol §4, A new id).

Pure rules. While a sensor is replaced, it and its successor exchange their ids on the wire of their device: what the
successor reports is the sensor's, and questions for the sensor go to the successor. Should the old id report again, it
is the successor's: so no two ids are ever one sensor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from heapq import nlargest
from typing import NamedTuple

from msgspec import Struct

from usbgate.core.errors import Malformed, Unknown
from usbgate.core.fieldline import join_fields
from usbgate.core.model import Report, Request
from usbgate.core.reporters import KnownSensor

OFFERS_LIMIT = 20  # a person reads no more of them

REPLACEMENTS_LIMIT = 10_000  # as many as sensors are remembered

_Kind = tuple[str, frozenset[str]]  # a device, and fields


class Replacement(Struct, frozen=True, kw_only=True):
    """
    A sensor that a successor replaced.

    Attributes:
        sensor: The sensor, which keeps its id.
        successor: The id with which it reports since.
        device: The device that reports both.
        since: When the sensor reported last under its own id: whole milliseconds since 1970, UTC. What is stored of the
            successor from then until the replacement is the sensor's.
        at: When it was replaced.
        who: Who did it.
    """

    sensor: str
    successor: str
    device: str
    since: int
    at: int
    who: str


class Replacements:
    """
    The replacements that hold, the oldest first; of several of one sensor, the last one counts.
    """

    def __init__(self, found: Iterable[Replacement] = ()) -> None:
        self._all: list[Replacement] = list(found)

    def __iter__(self) -> Iterator[Replacement]:
        return iter(self._all)

    def has(self, sensor: str) -> bool:
        """
        Return whether a sensor is replaced.
        """
        return any(each.sensor == sensor for each in self._all)

    def current(self) -> dict[str, Replacement]:
        """
        Return the replacement of each sensor that counts.
        """
        return {each.sensor: each for each in self._all}

    def swaps(self, device: str) -> Mapping[str, str]:
        """
        Return, for each id that another one takes the place of on the wire of a device, that other one.
        """
        swapped = {}
        for each in self.current().values():
            if each.device == device:
                swapped[each.sensor], swapped[each.successor] = each.successor, each.sensor
        return swapped

    def name_of(self, sensor: str) -> str:
        """
        Return the sensor that somebody means who names it or its successor.
        """
        return next((each.sensor for each in self.current().values() if each.successor == sensor), sensor)

    def check(self, sensor: str, successor: str) -> None:
        """
        Refuse a replacement that contradicts another one.

        Args:
            sensor: A sensor, see `name_of`.
            successor: The id that is to take its place.

        Raises:
            Malformed: It does; the text has the remedy.
        """
        for each in self.current().values():
            if each.successor == successor:
                raise Malformed(
                    "replaced already", f"{each.successor} replaces {each.sensor}: usbgate replace --undo {each.sensor}"
                )
            if each.sensor == successor:
                raise Malformed(
                    "replaced already",
                    f"{successor} is replaced by {each.successor}: usbgate replace --undo {successor}",
                )
        if sensor == successor:
            raise Malformed("replaced by itself", sensor)
        if len(self._all) >= REPLACEMENTS_LIMIT:
            raise Malformed("too many replacements", f"{REPLACEMENTS_LIMIT}")

    def with_(self, replacement: Replacement) -> Replacements:
        """
        Return these and another one.
        """
        return Replacements([*self._all, replacement])

    def without_last(self, sensor: str) -> tuple[Replacements, Replacement]:
        """
        Take back the last replacement of a sensor; the one before it counts again.

        Returns:
            The others, and what was taken back.

        Raises:
            Unknown: The sensor is not replaced.
            Malformed: The one before it contradicts a later one.
        """
        last = self.current().get(sensor)
        if last is None:
            raise Unknown(f"sensor {sensor} is not replaced", "not replaced")
        others = [each for each in self._all if each is not last]
        rest = Replacements([each for each in others if each.sensor != sensor])
        if (before := Replacements(others).current().get(sensor)) is not None:
            rest.check(sensor, before.successor)
        return Replacements(others), last


def swap_report(report: Report, swaps: Mapping[str, str]) -> Report:
    """
    Return a report as one of the sensor whose place its id takes.
    """
    sensor = swaps.get(report.sensor)
    return report if sensor is None else report._replace(sensor=sensor)


def swap_request(request: Request, swaps: Mapping[str, str]) -> Request:
    """
    Return a request as the device gets it; applied twice, it is the same again.
    """
    sensor = swaps.get(request.question.sensor)
    if sensor is None:
        return request
    fields = {**request.fields, "ID": sensor}
    question = request.question._replace(sensor=sensor)
    return request._replace(question=question, fields=fields, line=join_fields(fields).encode())


class Offer(NamedTuple):
    """
    A sensor that fell silent, and an id that appeared since then and is like it.

    Attributes:
        sensor: The sensor.
        successor: The id.
        device: The device that reports both.
        since: When the sensor reported last: whole milliseconds since 1970, UTC.
        first: When the successor reported first; None if that is only known to the database.
    """

    sensor: str
    successor: str
    device: str
    since: int
    first: int | None


def offers(
    known: Iterable[tuple[str, KnownSensor]],
    stale_after: Callable[[str], float],
    configured: Collection[str],
    replaced: Collection[str],
    now: int,
) -> Sequence[Offer]:
    """
    Find what may be a sensor and its successor: both are reported by one device with the same fields; the sensor is
    silent for longer than its `stale`; the successor is not configured, and appeared later.

    Args:
        known: The sensors, by id.
        stale_after: Returns the seconds after which a sensor is out of date.
        configured: The configured sensors, which come first.
        replaced: Sensors and successors of replacements.
        now: Whole milliseconds since 1970, UTC.

    Returns:
        At most `OFFERS_LIMIT`.
    """
    silent: dict[_Kind, list[tuple[str, KnownSensor]]] = {}
    appeared: list[tuple[str, KnownSensor]] = []
    for sensor, each in known:
        if now - each.seen > stale_after(sensor) * 1000:
            silent.setdefault(_kind(each), []).append((sensor, each))
        elif sensor not in configured and sensor not in replaced:
            appeared.append((sensor, each))
    if not silent:
        return ()
    alike: dict[_Kind, list[tuple[str, KnownSensor]]] = {}
    for sensor, each in appeared:
        if (kind := _kind(each)) in silent:
            alike.setdefault(kind, []).append((sensor, each))
    found = []
    for kind, successors in alike.items():
        # The latest of either, so that thousands of each, as of all radios around, are no millions of pairs.
        newest = nlargest(OFFERS_LIMIT, successors, key=lambda each: now if each[1].first is None else each[1].first)
        for sensor, old in nlargest(OFFERS_LIMIT, silent[kind], key=lambda each: (each[0] in configured, each[1].seen)):
            found += [
                Offer(sensor, successor, old.device, old.seen, new.first)
                for successor, new in newest
                if new.first is None or new.first > old.seen
            ]
    found.sort(key=lambda each: (each.sensor not in configured, -each.since))
    return found[:OFFERS_LIMIT]


def _kind(sensor: KnownSensor) -> _Kind:
    return sensor.device, frozenset(sensor.asked.newest)
