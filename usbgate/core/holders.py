"""
Who holds places in the queues, and how many askers there may be (protocol §4.10).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from usbgate.core.displacement import newest_of_most

if TYPE_CHECKING:
    from usbgate.core.exchanges import Asker
    from usbgate.core.queues import Queues

GONE_PER_ADDRESS = 1024  # askers, protocol §3: four connections that asked all they may
ASKERS_IN_ALL = 20_000  # protocol §3: each takes 5 kB if its line is as long as it can be


@dataclass(eq=False, slots=True, weakref_slot=True)
class Holder:
    """
    Those whose askers count together: a connection, or the connections of one address that are gone.

    Attributes:
        host: The peer's address.
        gone: Whether it stands for connections that are gone.
        askers: Those that have not ended, in the order in which they asked or went.
    """

    host: str
    gone: bool = False
    askers: dict[Asker[Any], None] = field(default_factory=dict, repr=False)


class Holders:
    """
    The bounds on askers, over all links.

    Attributes:
        links: What waits on each link.
    """

    def __init__(self, limit: int = ASKERS_IN_ALL, gone_limit: int = GONE_PER_ADDRESS) -> None:
        """
        Args:
            limit: The most askers in all.
            gone_limit: The most askers of one address whose connections are gone.
        """
        self.links: list[Queues[Any]] = []
        self._limit = limit
        self._gone_limit = gone_limit
        # By address, those of gone connections; their askers keep them.
        self._gone: WeakValueDictionary[str, Holder] = WeakValueDictionary()

    @property
    def in_flight(self) -> int:
        """
        How many askers wait.
        """
        in_flight = 0
        for link in self.links:
            in_flight += link.in_flight
        return in_flight

    @property
    def full(self) -> bool:
        """
        Whether there is room for no asker but the first of a connection.
        """
        return self.in_flight >= self._limit

    def surplus(self) -> list[Asker[Any]]:
        """
        Return the asker that has to be withdrawn because there is one too many.
        """
        if self.in_flight <= self._limit:
            return []
        return [newest_of_most((asker.holder, (asker.started,), asker) for link in self.links for asker in link.askers)]

    def disconnected(self, holder: Holder) -> list[Asker[Any]]:
        """
        Count the askers of a connection that is gone for its address.

        Returns:
            The newest of them, as far as they are too many: they have to be withdrawn.
        """
        if not holder.askers:
            return []
        network = network_of(holder.host)
        gone = self._gone.get(network)
        if gone is None:
            gone = self._gone[network] = Holder(network, gone=True)
        askers = list(holder.askers)
        room = max(0, self._gone_limit - len(gone.askers))
        for asker in askers[:room]:
            del holder.askers[asker]
            gone.askers[asker] = None
            asker.holder = gone
        return askers[room:]


def network_of(host: str) -> str:
    """
    Return the address for which a peer counts: of an IPv6 address its /64 network, in which a host has any number of
    addresses.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{address.packed[:8].hex()}/64"
