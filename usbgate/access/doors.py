"""
What clients may do without a token: that depends on where usbgate listens, and on who connects there.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from usbgate.access.roles import Access, Role


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

    def admit(self, is_local: bool, user: int | None) -> Access:
        """
        Return what a client may do that has sent no token.

        By default, this machine may command, and so may everybody at an insecure door. The daemon's own user and root
        may do everything.

        Args:
            is_local: Whether it is on this machine.
            user: The number of its user, which the kernel knows on a Unix socket; None elsewhere.
        """
        if self.role is not None:
            role = self.role
        elif self.proxied or not (is_local or self.insecure):
            role = Role.NONE
        else:
            role = Role.COMMAND
        if user is None or self.proxied:
            return Access(role)
        return Access(Role.ADMIN if user in (0, os.geteuid()) else role, f"uid{user}")

    @property
    def is_open(self) -> bool:
        """
        Whether everybody on the network may command.
        """
        return self.insecure and self.admit(False, None).role >= Role.COMMAND


# The default.
LOCAL = Door()
