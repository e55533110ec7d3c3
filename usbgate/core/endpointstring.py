"""
The grammar of Twisted's endpoint strings, such as `tcp:50007:interface=127.0.0.1`: Twisted has no public function for
it.
"""

from __future__ import annotations

import re

# An argument and the colon behind it; within, a backslash quotes the next character. Only the first `=` ends a name.
_ARGUMENT = re.compile(r"(?:((?:[^:=\\]|\\.)*)=)?((?:[^:\\]|\\.)*):", re.DOTALL)
_QUOTED = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL = re.compile(r"[:=\\]")


def split_endpoint(text: str) -> tuple[list[str], dict[str, str]]:
    """
    Split an endpoint string.

    Returns:
        The arguments without a name, of which the first is the kind of endpoint; and the others by their names.

    Raises:
        ValueError: A backslash at the end quotes nothing.
    """
    unnamed: list[str] = []
    named: dict[str, str] = {}
    rest = text + ":"
    while rest:
        found = _ARGUMENT.match(rest)
        if found is None:
            raise ValueError(f"nothing follows the backslash: {text!r}")
        value = _QUOTED.sub(r"\1", found[2])
        if found[1] is None:
            unnamed.append(value)
        else:
            named[_QUOTED.sub(r"\1", found[1])] = value
        rest = rest[found.end() :]
    return unnamed, named


def quote(value: str) -> str:
    """
    Quote an argument for an endpoint string.
    """
    return _SPECIAL.sub(r"\\\g<0>", value)
