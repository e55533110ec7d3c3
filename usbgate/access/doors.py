"""
What clients may do without a token: that depends on where usbgate listens, and on who connects there.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from operator import itemgetter
from typing import NamedTuple

from usbgate.access.roles import Access, Role


class Rule(NamedTuple):
    """
    What some clients may do without a token: `[[client]]`.

    Attributes:
        role: Their role.
        addresses: The networks from which they connect.
        users: The numbers of their users, on a Unix socket.
        sensors: The sensors that they may use; None for all.
    """

    role: Role
    addresses: Sequence[IPv4Network | IPv6Network] = ()
    users: frozenset[int] = frozenset()
    sensors: frozenset[str] | None = None


class ClientRules:
    """
    The rules, of which the first counts that is for a client. It is found without looking at each: many can be
    configured, and a reload looks for that of every client.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        """
        Args:
            rules: In their order.
        """
        self._of_users: dict[int, Rule] = {}
        # By IP version and length of the prefix, the place and the rule of each prefix.
        self._of_networks: defaultdict[tuple[int, int], dict[int, tuple[int, Rule]]] = defaultdict(dict)
        for place, rule in enumerate(rules):
            for user in rule.users:
                self._of_users.setdefault(user, rule)
            for network in rule.addresses:
                prefix = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
                self._of_networks[network.version, network.prefixlen].setdefault(prefix, (place, rule))

    def find(self, host: str, user: int | None) -> Rule | None:
        """
        Return the rule for a client; None if there is none.

        Args:
            host: The address of its peer; anything else on a Unix socket.
            user: The number of its user; None elsewhere.
        """
        if user is not None:
            return self._of_users.get(user)
        if not self._of_networks:
            return None
        try:
            address = ip_address(host)
        except ValueError:
            return None
        address = getattr(address, "ipv4_mapped", None) or address
        number, bits = int(address), address.max_prefixlen
        found = [
            of_length[prefix]
            for (version, length), of_length in self._of_networks.items()
            if version == address.version and (prefix := number >> (bits - length)) in of_length
        ]
        return min(found, key=itemgetter(0))[1] if found else None


NO_RULES = ClientRules()


class Door(NamedTuple):
    """
    The terms on which clients may connect to one address.

    Attributes:
        role: The role of everybody without a token; None for the default, see `admit`.
        proxied: Whether those who connect are a reverse proxy, and its word says who they are.
        insecure: Whether the user accepts that everybody on the network has that role, and can read tokens.
    """

    role: Role | None = None
    proxied: bool = False
    insecure: bool = False

    def admit(self, is_local: bool, user: int | None, host: str = "", rules: ClientRules = NO_RULES) -> Access:
        """
        Return what a client may do that has sent no token: behind a proxy, nothing. Elsewhere, the daemon's own user
        and root may do everything. For others, the first rule counts that is for them; then the role of the door; and
        by default, this machine may command, and so may everybody at an insecure door.

        Args:
            is_local: Whether it is on this machine.
            user: The number of its user, which the kernel knows on a Unix socket; None elsewhere.
            host: The address of its peer.
            rules: The rules.
        """
        if self.proxied:
            return Access(Role.NONE)
        who = None if user is None else f"uid{user}"
        if user is not None and user in (0, os.geteuid()):
            return Access(Role.ADMIN, who)
        rule = rules.find(host, user)
        if rule is not None:
            return Access(rule.role, who, sensors=rule.sensors)
        if self.role is not None:
            return Access(self.role, who)
        return Access(Role.COMMAND if is_local or self.insecure else Role.NONE, who)

    @property
    def is_open(self) -> bool:
        """
        Whether everybody on the network may command.
        """
        return self.insecure and self.admit(False, None).role >= Role.COMMAND


# The default.
LOCAL = Door()
