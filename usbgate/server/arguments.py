"""
The arguments of words (protocol §3). All of these raise the usage error of the word, which says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from usbgate.core.fieldline import is_key, is_sensor_id
from usbgate.core.units import parse_moment
from usbgate.server.words import Word

LIMIT_DEFAULT = 100  # protocol §3


def parse_options(used: Word, options: Sequence[str]) -> list[tuple[str, str]]:
    """
    Split options, each a name and a value.
    """
    parsed = []
    for option in options:
        name, _, value = option.partition("=")
        if not (name and value):
            raise used.usage_error(f"expected KEY=VALUE, got {option!r}")
        parsed.append((name, value))
    return parsed


def take_flag(used: Word, arguments: Sequence[str], name: str) -> tuple[bool, Sequence[str]]:
    """
    Return whether `name=yes` is among the arguments, and the others.
    """
    given = [each for each in arguments if each.lower().startswith(f"{name}=")]
    if not given:
        return False, arguments
    values = [each.partition("=")[2].lower() for each in given]
    if values not in (["yes"], ["no"]):
        raise used.usage_error(f"{name}: expected yes or no")
    return values == ["yes"], [each for each in arguments if each not in given]


def parse_field(used: Word, text: str) -> str:
    """
    Return the name of a field.
    """
    if not is_key(text):
        raise used.usage_error(f"not a field: {text!r}")
    return text.upper()


def check_sensor(used: Word, text: str) -> None:
    """
    Refuse what is no id of a sensor.
    """
    if not is_sensor_id(text):
        raise used.usage_error(f"not a sensor id: {text!r}")


def split_sensor(used: Word, arguments: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """
    Return the sensor, if the first argument names one, and the options behind it.
    """
    if not arguments or "=" in arguments[0]:
        return None, arguments
    check_sensor(used, arguments[0])
    return arguments[0], arguments[1:]


def parse_window(used: Word, options: Sequence[str], now: int, most: int) -> tuple[int | None, int]:
    """
    Read `since` and `limit`.

    Args:
        used: The word.
        options: Its options.
        now: Whole milliseconds since 1970, UTC.
        most: The largest limit.

    Returns:
        The time since when, as `now` is, None if there is none; and the limit.
    """
    since: int | None = None
    limit = LIMIT_DEFAULT
    for name, value in parse_options(used, options):
        match name.lower():
            case "since":
                try:
                    since = parse_moment(value, now)
                except ValueError:
                    raise used.usage_error(f'since: not a time: "{value}"') from None
            case "limit":
                limit = int(value) if re.fullmatch("[0-9]{1,5}", value) else 0
                if not 0 < limit <= most:
                    raise used.usage_error(f'limit: expected 1 to {most}, got "{value}"')
            case _:
                raise used.usage_error(f"unknown option: {name!r}")
    return since, limit
