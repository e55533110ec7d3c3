"""
Reading the options of a dialect, with errors that name the option and what it may be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from usbgate.core.fieldline import is_sensor_id


class DialectOptions:
    """
    The options of a dialect, which takes those that it knows; `end` refuses the others.

    Every method but `end` returns the value of one option. An option of `--device` is a text, and so may be a number
    and a list. Errors are `ValueError` and begin with the option.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        """
        Args:
            options: What the constructor of a dialect receives.
        """
        self._options = options
        self._known: list[str] = []

    def _take(self, key: str, usual: object) -> object:
        self._known.append(key)
        return self._options.get(key, usual)

    def flag(self, key: str, usual: bool) -> bool:
        """
        Take true or false.
        """
        value = self._take(key, usual)
        return value if isinstance(value, bool) else _refuse(key, "true or false", value)

    def text(self, key: str, usual: str) -> str:
        """
        Take a text that is not empty, unless that is usual.
        """
        value = self._take(key, usual)
        return value if isinstance(value, str) and (value or not usual) else _refuse(key, "a text", value)

    def choice(self, key: str, usual: str, choices: Collection[str]) -> str:
        """
        Take one of some texts.
        """
        value = self._take(key, usual)
        if isinstance(value, str) and value in choices:
            return value
        _refuse(key, " or ".join(f'"{choice}"' for choice in choices), value)

    def number(self, key: str, usual: int, least: int, most: int) -> int:
        """
        Take a whole number.
        """
        value = self._take(key, usual)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        _refuse(key, f"an integer from {least} to {most}", value)

    def texts(self, key: str, usual: Sequence[str] = ()) -> list[str]:
        """
        Take a list of texts, or one text of words.
        """
        value = self._take(key, usual)
        texts = value.split() if isinstance(value, str) else value
        if isinstance(texts, list | tuple) and all(isinstance(text, str) and text for text in texts):
            return list(texts)
        _refuse(key, 'texts such as ["A", "B"]', value)

    def phrases(self, key: str, usual: Sequence[str] = ()) -> list[str]:
        """
        Take a list of texts that may have blanks, or one of these.
        """
        value = self._take(key, usual)
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list | tuple) and texts and all(isinstance(text, str) and text for text in texts):
            return list(texts)
        _refuse(key, "a text, or a list of texts", value)

    def table(self, key: str) -> Mapping[str, list[str]]:
        """
        Take a table of texts, or of lists of texts; usually there is none.
        """
        value = self._take(key, {})
        if isinstance(value, Mapping):
            lists = {name: [each] if isinstance(each, str) else each for name, each in value.items()}
            if all(isinstance(each, list) and all(isinstance(text, str) for text in each) for each in lists.values()):
                return lists
        _refuse(key, 'a table such as { A = ["x", "y"] }, in the configuration file', value)

    def tables(self, key: str) -> Mapping[str, Mapping[str, object]]:
        """
        Take a table of tables, which `--device` cannot have.
        """
        value = self._take(key, {})
        if isinstance(value, Mapping) and all(isinstance(table, Mapping) for table in value.values()):
            return value
        _refuse(key, f"tables such as [device.NAME.{key}.1]", value)

    def sensor(self, key: str, usual: str) -> str:
        """
        Take the id of a sensor; the usual one may be empty.
        """
        value = self._take(key, usual)
        if isinstance(value, str) and (value == usual or is_sensor_id(value)):
            return value
        _refuse(key, "a sensor id, 1 to 64 characters without whitespace or _", value)

    def end(self) -> None:
        """
        Refuse what was not taken.
        """
        for key in self._options:
            if key not in self._known:
                raise ValueError(f"{key}: unknown key, expected {' or '.join(self._known) or 'none'}")


def _refuse(key: str, expected: str, value: object) -> NoReturn:
    raise ValueError(f"{key}: expected {expected}, got {value!r}")
