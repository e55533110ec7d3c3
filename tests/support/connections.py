"""
Connections of a simulated world, and a model of who holds most (protocol §4.10).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from usbgate.core.holders import Holder

# Peers, and the address for which each counts.
NETWORKS = {
    "local": "local",
    "10.0.0.1": "10.0.0.1",
    "10.0.0.2": "10.0.0.2",
    "::ffff:10.0.0.1": "10.0.0.1",
    "2001:db8::1": "2001:db8::/64",
    "2001:db8::ffff:0:0:1": "2001:db8::/64",
    "2001:db8:0:1::1": "2001:db8:0:1::/64",
}


@dataclass(eq=False, slots=True)
class Connection:
    """
    A client's connection.

    Attributes:
        holder: What the core knows of it.
        gone: Whether it is gone.
    """

    holder: Holder
    gone: bool = False

    @property
    def network(self) -> str:
        """
        The address for which it counts.
        """
        return NETWORKS[self.holder.host]


T = TypeVar("T")


def of_most(things: Iterable[T], holder: Callable[[T], Connection | None]) -> list[T]:
    """
    Return the things of whoever holds most; of several that hold as many, of all of them.

    Args:
        things: What is held.
        holder: Returns who holds it; None for the gone connections.
    """
    held = [(holder(thing), thing) for thing in things]
    count = Counter(who for who, _ in held)
    return [thing for who, thing in held if count[who] == max(count.values())]
