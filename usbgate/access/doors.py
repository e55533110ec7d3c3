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
        role: The role of everybody who connects there.
    """

    role: Role = Role.COMMAND

    def admit(self, user: int | None) -> Access:
        """
        Return what a client may do that has sent no token. The daemon's own user and root may do everything.

        Args:
            user: The number of its user, which the kernel knows on a Unix socket; None elsewhere.
        """
        if user is None:
            return Access(self.role)
        return Access(Role.ADMIN if user in (0, os.geteuid()) else self.role, f"uid{user}")


# By default, whoever can connect may command.
LOCAL = Door()
