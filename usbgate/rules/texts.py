"""
Texts with placeholders, and tables of them that become JSON (docs/rules.md, "Texts").
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from usbgate.core.fieldline import is_sensor_id, parse_value
from usbgate.core.fieldnames import read_name
from usbgate.rules.conditions import SensorField
from usbgate.rules.language import LanguageError

LENGTH_LIMIT = 4_000  # characters of a text, or of a table as JSON
VALUE_LIMIT = 200  # characters of a value that are put in
PLACEHOLDERS_LIMIT = 50  # in a text or a table: with values, it has less than 16 kB

NAMES = ("rule", "when", "time", "gateway", "sensor", "field", "value", "name", "place")

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")

# What stands for a placeholder: one of `NAMES`, or a field.
Placeholder = str | SensorField
Values = Callable[[Placeholder], str]


@dataclass(frozen=True, slots=True)
class Template:
    """
    A text with placeholders.

    Attributes:
        pieces: Texts, and between them the placeholders; the first and the last one are texts, perhaps empty.
    """

    pieces: Sequence[Placeholder]

    @classmethod
    def parse(cls, text: str) -> Template:
        """
        Read a text.

        Raises:
            LanguageError: A brace stands alone, or a placeholder is not known.
        """
        if len(text) > LENGTH_LIMIT:
            raise LanguageError(LENGTH_LIMIT + 1, f"expected at most {LENGTH_LIMIT:,} characters, got {len(text):,}")
        pieces: list[Placeholder] = []
        before, end = "", 0
        for found in _PIECE.finditer(text):
            before += text[end : found.start()]
            end = found.end()
            if found[1] is not None:
                pieces += (before, _placeholder(found[1], found.start() + 1))
                before = ""
                if len(pieces) > 2 * PLACEHOLDERS_LIMIT:
                    raise LanguageError(found.start() + 1, f"expected at most {PLACEHOLDERS_LIMIT} placeholders")
            elif len(found[0]) == 2:
                before += found[0][0]
            else:
                raise LanguageError(found.start() + 1, f"a single {found[0]}; write {found[0] * 2} for one in the text")
        return cls((*pieces, before + text[end:]))

    def fields(self) -> Iterator[SensorField]:
        """
        Yield the fields whose readings it names.
        """
        return (piece for piece in self.pieces if isinstance(piece, SensorField))

    def fill(self, values: Values) -> str:
        """
        Return the text with the values.
        """
        return "".join(
            piece if not number % 2 and isinstance(piece, str) else _plain(values(piece))
            for number, piece in enumerate(self.pieces)
        )

    def fill_json(self, values: Values) -> str | float:
        """
        Return the same for JSON: a number if the text is only a placeholder and the value is a plain decimal.
        """
        text = self.fill(values)
        if len(self.pieces) == 3 and not self.pieces[0] and not self.pieces[2]:
            number, spelled = parse_value(text)
            if number is not None and spelled is None:
                return int(number) if number.is_integer() else number
        return text


@dataclass(frozen=True, slots=True)
class JsonTemplate:
    """
    A table whose texts have placeholders.

    Attributes:
        table: As in the file, with templates in place of its texts.
    """

    table: Any

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> JsonTemplate:
        """
        Read a table.

        Raises:
            LanguageError: A text in it is wrong.
            ValueError: It has something that JSON does not.
        """
        try:
            size = len(json.dumps(table, allow_nan=False))
        except TypeError:
            raise ValueError("not JSON") from None
        if size > LENGTH_LIMIT:
            raise LanguageError(LENGTH_LIMIT + 1, f"expected at most {LENGTH_LIMIT:,} characters as JSON, got {size:,}")
        made = cls(_each_text(table, Template.parse))
        if sum(len(each.pieces) // 2 for each in _templates(made.table)) > PLACEHOLDERS_LIMIT:
            raise LanguageError(1, f"expected at most {PLACEHOLDERS_LIMIT} placeholders in all its texts")
        return made

    def fields(self) -> Iterator[SensorField]:
        """
        Yield the fields whose readings it names.
        """
        return (field for template in _templates(self.table) for field in template.fields())

    def fill(self, values: Values) -> str:
        """
        Return the JSON with the values.
        """
        return json.dumps(_each_template(self.table, lambda template: template.fill_json(values)), ensure_ascii=False)


def _placeholder(text: str, column: int) -> Placeholder:
    if text in NAMES:
        return text
    words = text.split()
    if len(words) == 3 and words[0] == "sensor" and is_sensor_id(words[1]) and (field := read_name(words[2])):
        return SensorField(words[1], field)
    near = get_close_matches(text, NAMES, 1) if len(words) == 1 else []
    remedy = f"did you mean {{{near[0]}}}?" if near else f"expected one of {', '.join(NAMES)} or sensor ID FIELD"
    raise LanguageError(column, f"{{{text}}}: unknown placeholder, {remedy}")


def _plain(value: str) -> str:
    # What a device sends, in one line.
    return _UNSEEN.sub(" ", value)[:VALUE_LIMIT]


def _each_text(table: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(table, str):
        return change(table)
    if isinstance(table, dict):
        return {key: _each_text(value, change) for key, value in table.items()}
    return [_each_text(value, change) for value in table] if isinstance(table, list) else table


def _each_template(table: Any, change: Callable[[Template], Any]) -> Any:
    if isinstance(table, Template):
        return change(table)
    if isinstance(table, dict):
        return {key: _each_template(value, change) for key, value in table.items()}
    return [_each_template(value, change) for value in table] if isinstance(table, list) else table


def _templates(table: Any) -> Iterator[Template]:
    if isinstance(table, Template):
        yield table
    elif isinstance(table, dict | list):
        for value in table.values() if isinstance(table, dict) else table:
            yield from _templates(value)
