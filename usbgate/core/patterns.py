"""
Whether a regular expression of `re` can run away.

`re` tries one way after the other: it took 0.8 s for 24 bytes and `(x+x+)+y`. It can't run away if, at each character,
there is only one way to go on: what may be repeated or left out never begins with a character with which the pattern
may go on behind it, and no two alternatives begin alike. Then the time from one beginning is linear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

# `re` has no public parser, and another one could read a pattern in another way. An item is an operator and its
# argument; an operator that is not known here counts as one that runs away.
_parse: Callable[[str], Any] = import_module("re._parser").parse

_Item: TypeAlias = tuple[Any, Any]
_Characters: TypeAlias = frozenset[int]

# The characters of Latin-1, and four that stand for all others: digits, spaces, further letters, and the rest. Nothing
# but the categories tells the characters of these apart.
_DIGIT, _SPACE, _LETTER, _REST = _OTHERS = range(256, 260)
_ALL: _Characters = frozenset(range(260))

# With these, a character matches others than itself, or a category has others. The parser sets UNICODE itself.
_FLAGS = re.IGNORECASE | re.ASCII | re.LOCALE

_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_CATEGORIES = {
    "CATEGORY_DIGIT": (r"\d", [_DIGIT]),
    "CATEGORY_SPACE": (r"\s", [_SPACE]),
    "CATEGORY_WORD": (r"\w", [_DIGIT, _LETTER]),
}


class _RunsAway(Exception):
    pass


def can_run_away(pattern: str) -> bool:
    """
    Return whether a pattern might take more than linear time from one beginning. Some are suspected wrongly.

    Raises:
        re.error: It is no pattern.
    """
    re.compile(pattern)
    try:
        items = _parse(pattern)
        if items.state.flags & _FLAGS:
            return True
        _check(items, frozenset())
    except (_RunsAway, RecursionError):
        return True
    return False


def _check(items: Sequence[_Item], follow: _Characters) -> None:
    # `follow` has the characters with which the pattern may go on behind the items.
    for operator, argument in reversed(items):
        name = str(operator)
        bodies = list(_bodies(name, argument))
        if name == "BRANCH":
            begins = [_begins(body) | (follow if _is_empty(body) else frozenset()) for body in bodies]
            _disjoint(*begins)
            for body in bodies:
                _check(body, follow)
        elif name in _REPEATS:
            low, high, body = argument
            if _is_empty(body):
                raise _RunsAway
            if low != high:
                _disjoint(_begins(body), follow)
            _check(body, follow | _begins(body) if high != 1 else follow)
        elif bodies:
            if argument[1] & _FLAGS:
                raise _RunsAway
            _check(bodies[0], follow)
        follow = _begins([(operator, argument)]) | (follow if _may_be_empty(name, argument) else frozenset())


def _disjoint(*sets: _Characters) -> None:
    if sum(map(len, sets)) != len(frozenset().union(*sets)):
        raise _RunsAway


def _bodies(name: str, argument: Any) -> Iterator[Sequence[_Item]]:
    if name == "BRANCH":
        yield from argument[1]
    elif name in _REPEATS or name == "SUBPATTERN":
        yield argument[-1]


def _begins(items: Sequence[_Item]) -> _Characters:
    # The characters with which the items may begin, unless they match nothing.
    found: _Characters = frozenset()
    for operator, argument in items:
        name = str(operator)
        if bodies := list(_bodies(name, argument)):
            found = found.union(*map(_begins, bodies))
        elif name != "AT":
            found |= _characters(name, argument)
        if not _may_be_empty(name, argument):
            break
    return found


def _is_empty(items: Sequence[_Item]) -> bool:
    return all(_may_be_empty(str(operator), argument) for operator, argument in items)


def _may_be_empty(name: str, argument: Any) -> bool:
    if name in _REPEATS and argument[0] == 0:
        return True
    bodies = list(_bodies(name, argument))
    return any(map(_is_empty, bodies)) if bodies else name == "AT"


def _characters(name: str, argument: Any) -> _Characters:
    if name == "ANY":
        return _ALL
    if name == "NOT_LITERAL":
        return _ALL - _certain("LITERAL", argument)
    if name == "LITERAL":
        return frozenset([argument] if argument < _DIGIT else _OTHERS)
    if name == "RANGE":
        return _certain(name, argument) | frozenset(_OTHERS if argument[1] >= _DIGIT else ())
    if name == "CATEGORY":
        return _certain(name, argument)
    if name == "IN":
        parts = [(str(part), value) for part, value in argument]
        if parts[0][0] == "NEGATE":
            return _ALL.difference(*(_certain(*part) for part in parts[1:]))
        return frozenset().union(*(_characters(*part) for part in parts))
    raise _RunsAway


def _certain(name: str, argument: Any) -> _Characters:
    # Without those of which a part only is meant.
    if name == "LITERAL":
        return frozenset([argument]) if argument < _DIGIT else frozenset()
    if name == "RANGE":
        return frozenset(range(argument[0], min(argument[1] + 1, _DIGIT)))
    return _category(str(argument))


@cache
def _category(name: str) -> _Characters:
    if name not in _CATEGORIES:
        return _ALL - _category(name.replace("_NOT", ""))
    pattern, others = _CATEGORIES[name]
    return frozenset(code for code in range(_DIGIT) if re.match(pattern, chr(code))) | frozenset(others)
