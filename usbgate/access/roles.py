"""
Roles, and what one client may do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from usbgate.core.errors import Denied, Unauthenticated

if TYPE_CHECKING:
    from usbgate.access.sessions import Session
    from usbgate.access.tokens import Token


class Role(IntEnum):
    """
    What a client may do; each role includes those before it.
    """

    NONE = 0
    READ = 1
    ASK = 2
    COMMAND = 3
    ADMIN = 4

    @property
    def spelled(self) -> str:
        """
        The role as users write and read it.
        """
        return self.name.lower()


# The roles that can be given, by the spelling of each.
ROLES = {role.spelled: role for role in Role if role is not Role.NONE}


OTHER_SENSOR = "sensor not permitted"  # the reason of an error


@dataclass(frozen=True, slots=True)
class Access:
    """
    What one client may do, and as whom.

    Attributes:
        role: Its role.
        who: The name of its token, or its user on a Unix socket; None if only its address is known.
        token: Its token; None if its role is that of its address. The local token is None, too: it never ends.
        refusal: Why the token that it has sent permits nothing; None if it has sent none, or a valid one.
        sensors: The only sensors that it may use; None for all.
        session: The session of the browser that it is; None for none.
        is_restricted: Whether there are questions that it may not ask.
    """

    role: Role
    who: str | None = None
    token: Token | None = None
    refusal: str | None = None
    sensors: frozenset[str] | None = None
    session: Session | None = None
    is_restricted: bool = field(init=False)  # computed once, since each request looks at it

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_restricted", self.role < Role.COMMAND or self.sensors is not None)

    def check(self, role: Role) -> None:
        """
        Check that the client has a role.

        Raises:
            Unauthenticated: It does not, and has sent no token, or a wrong one.
            Denied: It does not.
        """
        if self.refusal is not None:
            raise Unauthenticated(self.refusal, "no such token", role.spelled, is_recorded=True)  # by `Failures`
        if self.role < role:
            text = f"this requires the role {role.spelled}"
            if self.token is None:
                raise Unauthenticated(f"{text}: authenticate with a token", "token required", role.spelled)
            raise Denied(f"{text}; the role of {self.who} is {self.role.spelled}", "role too low", role.spelled)

    def check_sensor(self, sensor: str) -> None:
        """
        Check that the client may use a sensor.

        Raises:
            Unauthenticated: It may not, and has sent no token.
            Denied: It may not.
        """
        if self.sensors is None or sensor in self.sensors:
            return
        if self.token is None:
            raise Unauthenticated("this client may not use that sensor without a token", OTHER_SENSOR, sensor=sensor)
        raise Denied(f"the token {self.who} does not permit that sensor", OTHER_SENSOR, sensor=sensor)

    def sign(self, client: str) -> str:
        """
        Return how this client is recorded.

        Args:
            client: Its address.
        """
        return client if self.who is None else f"{self.who}@{client}"

    def acknowledge_as(self, by: str) -> str:
        """
        Return who has acknowledged an alarm: who has a token can't do it in the name of others, except `admin`.

        Args:
            by: Who it was, as the client says.
        """
        return by if self.token is None or self.role >= Role.ADMIN else f"{by} ({self.token.name})"
