"""
What clients may do without a token: that depends on where usbgate listens, and on who connects there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
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

    def matches(self, host: str, user: int | None) -> bool:
        """
        Return whether it is for a client.

        Args:
            host: The address of its peer; anything else on a Unix socket.
            user: The number of its user; None elsewhere.
        """
        if user is not None:
            return user in self.users
        if not self.addresses:
            return False
        try:
            address = ip_address(host)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.addresses)


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

    def admit(self, is_local: bool, user: int | None, host: str = "", rules: Sequence[Rule] = ()) -> Access:
        """
        Return what a client may do that has sent no token: behind a proxy, nothing. Elsewhere, the daemon's own user
        and root may do everything. For others, the first rule counts that is for them; then the role of the door; and
        by default, this machine may command, and so may everybody at an insecure door.

        Args:
            is_local: Whether it is on this machine.
            user: The number of its user, which the kernel knows on a Unix socket; None elsewhere.
            host: The address of its peer.
            rules: The rules, in their order.
        """
        if self.proxied:
            return Access(Role.NONE)
        who = None if user is None else f"uid{user}"
        if user is not None and user in (0, os.geteuid()):
            return Access(Role.ADMIN, who)
        for rule in rules:
            if rule.matches(host, user):
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
