"""
The clock that every part is given.
"""

from __future__ import annotations

from zope.interface import Interface


class IClock(Interface):
    """
    The one source of time: wall time for stamping, monotonic time for everything else.
    """

    def wall() -> int:
        """
        Return the wall clock: whole milliseconds since 1970, UTC.
        """

    def monotonic() -> float:
        """
        Tell seconds since some moment; never steps.
        """

    def uptime() -> float:
        """
        Tell seconds since the machine started, also those in which it slept; never steps.
        """

    def boot() -> str:
        """
        Return which start of the machine that was; no two have the same.
        """

    def trusted() -> bool:
        """
        Return whether the wall clock can be right: synchronised, and not before this release was made.
        """
