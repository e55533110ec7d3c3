"""
What endpoint strings of Unix sockets may say of who can connect: Twisted's `mode`, and our `group`.
"""

from __future__ import annotations

import re

DEFAULT_MODE = "660"  # Twisted's own is 666: every user of the machine could command

_GROUP = re.compile(r":group=((?:[^:\\]|\\.)*)")


def split_group(endpoint: str) -> tuple[str, str | None]:
    """
    Return a server endpoint string as Twisted understands it, with `DEFAULT_MODE` unless it names another, and the
    group to which the socket is given; None for the daemon's own, or if the endpoint is no Unix socket.
    """
    if not endpoint.startswith("unix:"):
        return endpoint, None
    found = _GROUP.search(endpoint)
    group = None if found is None else re.sub(r"\\(.)", r"\1", found[1])
    endpoint = _GROUP.sub("", endpoint)
    _, *arguments = re.split(r"(?<!\\):", endpoint)
    by_place = [argument for argument in arguments if not re.match("[a-z]+=", argument)]
    if ":mode=" not in endpoint and len(by_place) < 2:
        endpoint += f":mode={DEFAULT_MODE}"
    return endpoint, group or None
