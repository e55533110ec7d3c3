"""
Names of hosts.
"""

from __future__ import annotations


def is_host_name(text: str) -> bool:
    """
    Return whether a text can be the name or the address of a host.

    For what cannot, such as `a..b`, Python's resolver raises a UnicodeError. Twisted asks it in a thread, where nobody
    learns of that before a timeout.
    """
    try:
        return bool(text) and bool(text.encode("idna"))
    except UnicodeError:
        return False
