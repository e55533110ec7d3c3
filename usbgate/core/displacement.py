"""
Who loses a place where there is none left (protocol §4.10).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from usbgate.core.exchanges import Exchange, Lane
    from usbgate.core.holders import Holder

V = TypeVar("V")
W = TypeVar("W")


def newest_of_most(held: Iterable[tuple[Holder, tuple[float, ...], V]]) -> V:
    """
    Return the newest thing of whoever holds most; all gone connections count as one holder.

    Args:
        held: Each thing with its holder and its age: the greatest is the newest.
    """
    newest: dict[Holder | None, tuple[int, tuple[float, ...], V]] = {}  # how many, and the newest of them
    for holder, age, thing in held:
        who = None if holder.gone else holder
        before = newest.get(who)
        if before is None:
            newest[who] = 1, age, thing
        elif before[1] < age:
            newest[who] = before[0] + 1, age, thing
        else:
            newest[who] = before[0] + 1, before[1], before[2]
    return max(newest.values(), key=lambda most: most[:2])[2]


def waiting_in(lanes: Iterable[Lane[W]]) -> Iterator[Exchange[W]]:
    """
    Return the questions in these lanes that are not on the wire.
    """
    return (exchange for lane in lanes for exchange in lane.queue if not exchange.on_wire)


def displaced(lanes: Iterable[Lane[W]]) -> Exchange[W]:
    """
    Return which of the questions that wait in these lanes makes room for that of a newcomer.
    """
    return newest_of_most((*_holding(exchange), exchange) for exchange in waiting_in(lanes))


def is_newcomer(holder: Holder, device: str, lane: Lane[Any] | None) -> bool:
    """
    Return whether a holder has no question that waits for a device or, if a lane is given, in that lane.
    """
    for asker in holder.askers:
        exchange = asker.exchange
        if exchange is None or exchange.on_wire or asker.device != device:
            continue
        if lane is None or exchange.lane is lane:
            return False
    return True


def _holding(exchange: Exchange[W]) -> tuple[Holder, tuple[float, ...]]:
    # For whom a waiting question counts, and its age for `newest_of_most`: one that others have joined seems older.
    if len(exchange.askers) == 1:
        [asker] = exchange.askers
        return asker.holder, (True, exchange.asked)
    holders = [asker.holder for asker in exchange.askers]
    first = next((holder for holder in holders if not holder.gone), holders[0])
    return first, (all(holder is first or holder.gone for holder in holders), exchange.asked)
