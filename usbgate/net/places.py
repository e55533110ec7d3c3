"""
Who may connect: places for connections, in all and for each address, and some that only this machine gets.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable, Iterator
from enum import Enum
from ipaddress import ip_address
from typing import Generic, TypeVar

from usbgate.core.holders import network_of

# A tenth of all places, but no more than a person and the programs of this machine need, is for connections from it: a
# network that fills all others must not lock out the owner.
RESERVED_MOST = 100

_Member = TypeVar("_Member", bound=Hashable)


class NoPlace(Enum):
    """
    Why there is no place: too many connections of this address, or in all.
    """

    OF_ADDRESS = "of this address"
    IN_ALL = "in all"


def is_local(host: str) -> bool:
    """
    Return whether a peer is on this machine: a loopback address, or no address, as that of a Unix socket.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return True
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


class Places(Generic[_Member]):
    """
    The places of some connections.
    """

    def __init__(self, most: int, most_of_address: int | None = None) -> None:
        """
        Args:
            most: The most members.
            most_of_address: The most members of one address; of an IPv6 address, of its /64 network. It does not hold
                for this machine, whose addresses all users share. None for no limit.
        """
        self.most = most
        self.most_of_address = sys.maxsize if most_of_address is None else most_of_address
        self._most_of_others = most - min(most // 10, RESERVED_MOST)
        self._members: dict[_Member, str] = {}  # by member, its network; empty for this machine
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[_Member]:
        return iter(self._members)

    def __contains__(self, member: _Member) -> bool:
        return member in self._members

    def take(self, member: _Member, host: str) -> NoPlace | None:
        """
        Give a member a place.

        Args:
            member: Who needs it.
            host: Its peer's address.

        Returns:
            None, or why there is none.
        """
        refusal = self.refusal(host)
        if refusal is None:
            network = _network(host)
            self._members[member] = network
            self._counts[network] += 1
        return refusal

    def refusal(self, host: str) -> NoPlace | None:
        """
        Return why there is no place for a peer at an address; None if there is one.
        """
        network = _network(host)
        if network and self._counts[network] >= self.most_of_address:
            return NoPlace.OF_ADDRESS
        others = len(self._members) - self._counts[""]
        if len(self._members) >= self.most or (network and others >= self._most_of_others):
            return NoPlace.IN_ALL
        return None

    def leave(self, member: _Member) -> None:
        """
        Take a member's place back; do nothing if it has none.
        """
        network = self._members.pop(member, None)
        if network is not None:
            self._counts[network] -= 1
            if not self._counts[network]:
                del self._counts[network]


def _network(host: str) -> str:
    # Empty for this machine.
    return "" if is_local(host) else network_of(host)
