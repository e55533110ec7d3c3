"""
The wall clock that every part is given.
"""

from __future__ import annotations

from zope.interface import Interface


class IClock(Interface):
    """
    The wall clock and what is known of it. For everything but time stamps, use the reactor's monotonic `seconds`.
    """

    def wall() -> int:
        """
        Return the wall clock: whole milliseconds since 1970, UTC.
        """

    def uptime() -> float:
        """
        Return seconds since the machine started, including those in which it slept; never steps.
        """

    def boot() -> str:
        """
        Return which start of the machine that was; no two have the same.
        """

    def trusted() -> bool:
        """
        Return whether the wall clock can be right: synchronised, and not before this release was made.
        """
