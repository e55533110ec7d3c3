"""
Kinds of settings: how each is parsed, and what an error says was expected. The others are in `usbgate.config.types`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from usbgate.core.condition import Condition
from usbgate.core.fieldkinds import FIELD_KINDS
from usbgate.core.fieldline import RESERVED, check_value, format_number, parse_value
from usbgate.core.fieldnames import read_name
from usbgate.core.messages import TIMEOUT_RANGE
from usbgate.core.model import Button
from usbgate.core.units import parse_duration

LANGUAGES = frozenset({"en", "fr"})  # of the page
VALUE = "{}"  # in the command of a control, the argument that is the value
PATH = Annotated[str, Meta(pattern=r"^[^\x00]+\Z")]  # what the system takes for a path, as msgspec describes it


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Kind:
    """
    How a value of the file, or the text of an option, becomes the value of a setting.

    Attributes:
        expected: What an error says was expected.
        holds: What the file has, as msgspec describes it.
        parse: Makes the setting's value of that; raises ValueError or `Malformed` for anything wrong.
        items: The kind of each item, if the setting is a list whose items are named in errors.
        secret: Whether an error must not show the value.
        names: All values, if there are so many that an error had better suggest the nearest one.
    """

    expected: str
    holds: Any = str
    parse: Callable[[Any], Any] = _as_it_is
    items: Kind | None = None
    secret: bool = False
    names: Sequence[str] = ()


def kind_of(hint: Any) -> Kind:
    """
    Return the kind with which one of the types below is annotated.
    """
    kind: Kind = hint.__metadata__[0]
    return kind


def matching(expected: str, pattern: str) -> Kind:
    """
    Return the kind of a text that matches a regular expression as a whole.
    """
    return Kind(expected, Annotated[str, Meta(pattern=f"^(?:{pattern})\\Z")])


def duration(least: str, most: str, example: str) -> Kind:
    """
    Return the kind of a duration between two others, a text or a number of seconds. Its value is in seconds.
    """
    ends = parse_duration(least), parse_duration(most)
    return Kind(
        f'a duration from {least} to {most} such as "{example}"',
        float | str,
        lambda held: _within(parse_duration(held) if isinstance(held, str) else held, *ends),
    )


def _within(value: float, least: float, most: float) -> float:
    if not least <= value <= most:
        raise ValueError(f"out of range: {value}")
    return value


def _finite(number: float) -> float:
    if not isfinite(number):
        raise ValueError(f"not finite: {number}")
    return number


def _not_zero(number: float) -> float:
    if not number:
        raise ValueError("0")
    return _finite(number)


def _parse_store(text: str) -> float:
    if text == "all":
        return 0.0
    match = re.fullmatch(r"on change(?:, *at least every (.+))?", text)
    if match is None:
        raise ValueError(f"neither on change nor with a duration: {text!r}")
    return inf if match[1] is None else _within(parse_duration(match[1]), 1, parse_duration("366d"))


def _parse_text(text: str) -> str:
    check_value("", text)
    return text


def _parse_command(text: str) -> str:
    if any(map(str.isspace, text)):
        raise ValueError(f"not one word: {text!r}")
    return _parse_text(text)


def _parse_buttons(buttons: Mapping[str, str]) -> tuple[Button, ...]:
    return tuple(_parse_button(label, text) for label, text in buttons.items())


def _parse_button(label: str, text: str) -> Button:
    if not label.strip():
        raise ValueError("no label")
    return Button(label, *_parse_sent(text))


def _parse_sent(text: str) -> tuple[str, dict[str, str]]:
    command, *words = text.split() or [""]
    arguments = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = read_name(key)
        if not equals or not key or key in RESERVED or key in arguments:
            raise ValueError(f"not an argument: {word!r}")
        arguments[key] = _parse_text(value)
    return _parse_text(command), arguments


def _parse_control_command(text: str) -> Button:
    return Button("", *_parse_sent(text))


def _parse_setter(text: str) -> Button:
    command, arguments = _parse_sent(text)
    if [*arguments.values()].count(VALUE) != 1:
        raise ValueError(f"no argument that is {VALUE}: {text!r}")
    return Button("", command, arguments)


def _parse_options(options: Sequence[str]) -> tuple[str, ...]:
    if len(set(options)) < len(options):
        raise ValueError("given twice")
    return tuple(map(_parse_text, options))


def _parse_field_name(text: str) -> str:
    name = read_name(text)
    if not name:
        raise ValueError(f"not the name of a field: {text!r}")
    return name


def _parse_texts(held: str | Mapping[str, str]) -> str | Mapping[str, str]:
    if isinstance(held, str):
        return _parse_text(held)
    if not held or not held.keys() <= LANGUAGES:
        raise ValueError(f"not texts by language: {held!r}")
    return {language: _parse_text(text) for language, text in held.items()}


def _parse_values(held: Mapping[str, str | Mapping[str, str]]) -> Mapping[str, str | Mapping[str, str]]:
    found: dict[str, str | Mapping[str, str]] = {}
    for spelled, texts in held.items():
        number, text = parse_value(_parse_text(spelled))
        key = format_number(number) if number is not None and text is None else spelled
        if key in found:
            raise ValueError(f"given twice: {key}")
        found[key] = _parse_texts(texts)
    return found


def _parse_field_kind(name: str) -> str:
    if name not in FIELD_KINDS:
        raise ValueError(f"not a kind of field: {name}")
    return name


# The types of settings, each with its kind.
Text = Annotated[str, Kind("a non-empty text without `_KEY:`", parse=_parse_text)]
CommandName = Annotated[str, Kind("a command, without whitespace", parse=_parse_command)]
DeviceName = Annotated[str, matching("letters, digits, dot, colon and hyphen", "[A-Za-z0-9.:-]+")]
FieldName = Annotated[str, Kind("the name of a field such as TEMP", parse=_parse_field_name)]
YesNo = Annotated[bool, Kind("true or false", bool)]
File = Annotated[Path, Kind("a file", PATH, Path)]
Decimals = Annotated[int, Kind("an integer from 0 to 9", Annotated[int, Meta(ge=0, le=9)])]
Number = Annotated[float, Kind("a number such as -0.4", float, _finite)]
Scale = Annotated[float, Kind("a number other than 0 such as 0.1", float, _not_zero)]

# Durations, in seconds.
Wait = Annotated[float, duration(*(f"{end:g}s" for end in TIMEOUT_RANGE), "10s")]
Stale = Annotated[float, duration("1s", "366d", "1h")]
PollEvery = Annotated[float, duration("1s", "7d", "5m")]
StoreEvery = Annotated[
    float,
    Kind(
        '"all", "on change", or "on change, at least every 5m" with a duration from 1s to 366d',
        parse=_parse_store,
    ),
]

Buttons = Annotated[
    tuple[Button, ...],
    Kind('commands by label such as { "Lamp on" = "ON", "Half" = "L LEVEL=50" }', dict[str, str], _parse_buttons),
]
FieldKindName = Annotated[
    str,
    Kind(
        "one of Home Assistant's device classes " + ", ".join(sorted(FIELD_KINDS)),
        parse=_parse_field_kind,
        names=tuple(FIELD_KINDS),
    ),
]
Texts = Annotated[
    str | Mapping[str, str],  # for all languages, or by language
    Kind('a text, or texts by language such as { en = "Door", fr = "Porte" }', str | dict[str, str], _parse_texts),
]
ValueTexts = Annotated[
    Mapping[str, str | Mapping[str, str]],  # by number, or by the spelling of what is none
    Kind(
        'texts by value such as { "0" = "closed", "1" = { en = "open", fr = "ouverte" } }',
        dict[str, str | dict[str, str]],
        _parse_values,
    ),
]
AlarmCondition = Annotated[Condition, Kind('a condition such as "> 60", "== 1" or "!= OK"', parse=Condition.parse)]

# Controls.
ControlType = Annotated[
    str, matching('"switch", "light", "cover", "number" or "select"', "switch|light|cover|number|select")
]
ControlCommand = Annotated[Button, Kind('a command such as "ON" or "L LEVEL=50"', parse=_parse_control_command)]
Setter = Annotated[
    Button, Kind(f'a command with one argument that is {VALUE}, such as "L LEVEL={VALUE}"', parse=_parse_setter)
]
Step = Annotated[float, Kind("a number from 0.001", Annotated[float, Meta(ge=0.001)])]
Options = Annotated[
    tuple[str, ...],
    Kind(
        'different texts such as ["AUTO", "OFF"]', Annotated[tuple[str, ...], Meta(min_length=1)], parse=_parse_options
    ),
]
