"""
The language of conditions (docs/rules.md, "Conditions"): a text becomes a tree of terms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import NamedTuple, NoReturn

from usbgate.core.fieldline import is_sensor_id, parse_number, parse_value, reads_back
from usbgate.core.fieldnames import read_name
from usbgate.core.units import parse_duration
from usbgate.rules.conditions import (
    DAYS,
    MINUTES_A_DAY,
    Comparison,
    DayOfWeek,
    DeviceState,
    Joined,
    Not,
    SensorField,
    Staleness,
    Term,
    TimeOfDay,
)

LENGTH_LIMIT = 1_000  # characters of a condition
DEPTH_LIMIT = 32  # `not` and parentheses within each other: they are Python's calls, too
STALE_RANGE = (1.0, 366 * 86_400.0)  # seconds, as in [sensor.ID]

COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
STATES = ("online", "silent", "offline", "lent")
_RESERVED = frozenset(["sensor", "device", "time", "day", "and", "or", "not", "stale", "hysteresis"])

# What people write who know another language.
_MEANT = {
    **{"=": "==", "<>": "!=", "&&": "and", "&": "and", "||": "or", "|": "or", "!": "not", "is": "=="},
    **{key: f'{key} = "5m", a key of the rule' for key in ("for", "quiet")},
}

_TOKEN = re.compile(
    r"""(?P<quoted>"[^"]*"|'[^']*')|(?P<symbol><=|>=|==|!=|<>|[<>=!(),])|(?P<word>[^\s()<>=!,"']+)|(?P<other>\S)"""
)
_TIMES = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")


class LanguageError(ValueError):
    """
    A condition, or a text with placeholders, is wrong; the error says where and what was expected there.
    """

    def __init__(self, column: int, text: str) -> None:
        super().__init__(f"column {column}: {text}")


class RuleToken(NamedTuple):
    """
    A piece of a condition.

    Attributes:
        kind: `quoted`, `symbol`, `word` or `end`.
        text: The text; what is quoted is without its quotes.
        column: Where it begins, from 1.
    """

    kind: str
    text: str
    column: int

    def is_bare(self, *texts: str) -> bool:
        """
        Return whether it is one of these, not quoted.
        """
        return self.kind != "quoted" and self.text in texts

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else self.text if self.kind != "quoted" else repr(self.text)


def tokens(text: str) -> Iterator[RuleToken]:
    """
    Cut a condition into pieces; the last one is the end.

    Raises:
        LanguageError: A quote has no end.
    """
    for found in _TOKEN.finditer(text):
        kind, piece, column = found.lastgroup or "", found[0], found.start() + 1
        if kind == "other":
            raise LanguageError(column, f"this {piece} has no other one that ends the text")
        yield RuleToken(kind, piece[1:-1] if kind == "quoted" else piece, column)
    yield RuleToken("end", "", len(text) + 1)


def parse_condition(text: str) -> Term:
    """
    Read a condition.

    Raises:
        LanguageError: It is not one.
    """
    if len(text) > LENGTH_LIMIT:
        raise LanguageError(LENGTH_LIMIT + 1, f"expected at most {LENGTH_LIMIT:,} characters, got {len(text):,}")
    return _Parser(list(tokens(text))).whole()


class _Parser:
    # One method for each rule of the grammar; each takes the tokens that belong to it.

    def __init__(self, found: Sequence[RuleToken]) -> None:
        self._tokens = found
        self._next = 0
        self._depth = 0
        self._comparisons = 0

    def whole(self) -> Term:
        term = self._either()
        if self._peek().kind != "end":
            self._refuse_rest("and, or, or the end")
        return term

    def _either(self) -> Term:
        return self._joined("or", self._both, True)

    def _both(self) -> Term:
        return self._joined("and", self._negation, False)

    def _joined(self, word: str, part: Callable[[], Term], decisive: bool) -> Term:
        parts = [part()]
        while self._takes(word):
            parts.append(part())
        return Joined(tuple(parts), decisive) if len(parts) > 1 else parts[0]

    def _negation(self) -> Term:
        token = self._peek()
        if not token.is_bare("not", "("):
            return self._term()
        self._take()
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise LanguageError(token.column, f"more than {DEPTH_LIMIT} levels of parentheses and not")
        if token.text == "not":
            term: Term = Not(self._negation())
        else:
            term = self._either()
            if not self._takes(")"):
                self._refuse_rest(f"and, or, or the ) of the ( in column {token.column}")
        self._depth -= 1
        return term

    def _term(self) -> Term:
        if self._takes("sensor"):
            return self._of_sensor()
        if self._takes("device"):
            return self._of_device()
        if self._takes("time"):
            return self._time()
        if self._takes("day"):
            return self._days()
        terms = ("sensor", "device", "time", "day", "not")
        self._refuse("sensor, device, time, day, not or (", terms)

    def _of_sensor(self) -> Term:
        sensor = self._sensor()
        if self._takes("stale"):
            return Staleness(sensor, None, self._limit())
        field = self._field(f"a field of sensor {sensor}, or stale")
        if self._takes("stale"):
            return Staleness(sensor, field, self._limit())
        compare = self._peek()
        if not compare.is_bare(*COMPARISONS):
            self._refuse("a comparison such as == 1, or stale", ("stale",))
        self._take()
        self._comparisons += 1
        number = self._comparisons
        right = self._operand(compare.text)
        return Comparison(SensorField(sensor, field), compare.text, right, self._hysteresis(compare.text), number)

    def _hysteresis(self, compare: str) -> float:
        column = self._peek().column
        if not self._takes("hysteresis"):
            return 0.0
        if compare in ("==", "!="):
            raise LanguageError(column, f"{compare} has no hysteresis, only <, <=, > and >= have one")
        margin = parse_number(self._peek().text)
        if margin is None or margin <= 0:
            self._refuse("a number above 0")
        self._take()
        return margin

    def _operand(self, compare: str) -> float | str | SensorField:
        if self._takes("sensor"):
            sensor = self._sensor()
            return SensorField(sensor, self._field(f"a field of sensor {sensor}"))
        token = self._peek()
        only_number = compare not in ("==", "!=")
        if not self._is_name(token):
            self._refuse("a number or sensor" if only_number else "a number, a text or sensor")
        number, text = parse_value(token.text)
        if only_number:
            number, text = parse_number(token.text), None
            if number is None:
                self._refuse("a number or sensor, since only == and != compare with a text", ("sensor",))
        self._take()
        if text is None and number is not None:
            return number
        if not reads_back(token.text):
            raise LanguageError(token.column, f"no reading can have the text {token.text!r}")
        return token.text

    def _of_device(self) -> Term:
        device = self._peek()
        if not self._is_name(device) or not device.text:
            self._refuse("the name of a device")
        self._take()
        state = self._peek()
        if not state.is_bare(*STATES):
            expected = f"the state {', '.join(STATES[:-1])} or {STATES[-1]}"
            if state.is_bare("is", "=", "=="):  # which compare fields
                self._refuse_text(state.column, expected, f"{state}: leave it out, as in device {device.text} offline")
            self._refuse(expected, STATES)
        self._take()
        return DeviceState(device.text, state.text)

    def _time(self) -> Term:
        column, text = self._peek().column, ""
        while self._peek().kind == "word" and re.fullmatch("[0-9:-]+", self._peek().text):
            text += self._take().text
        found = _TIMES.fullmatch(text)
        if found is None:
            self._refuse_text(column, "times such as 22:00-06:00", text or str(self._peek()))
        hour, minute, end_hour, end_minute = map(int, found.groups())
        start, end = hour * 60 + minute, end_hour * 60 + end_minute
        if minute > 59 or end_minute > 59 or start >= MINUTES_A_DAY or end > MINUTES_A_DAY:
            self._refuse_text(column, "times of a day, 0:00 to 24:00", text)
        if start == end % MINUTES_A_DAY:
            self._refuse_text(column, "two times, or no term with time for the whole day", text)
        return TimeOfDay(start, end)

    def _days(self) -> Term:
        days = self._day_range()
        while self._takes(","):
            days |= self._day_range()
        return DayOfWeek(days)

    def _day_range(self) -> frozenset[int]:
        token = self._peek()
        first, dash, last = token.text.partition("-")
        if token.kind != "word" or first not in DAYS or (dash and last not in DAYS):
            wrong = last if first in DAYS else first
            self._refuse(f"days such as mon-fri or sat, of {' '.join(DAYS)}", DAYS, wrong[:3])
        self._take()
        start = DAYS.index(first)
        days = (DAYS.index(last) - start) % 7 + 1 if dash else 1
        return frozenset((start + day) % 7 for day in range(days))

    # Words.

    def _sensor(self) -> str:
        token = self._peek()
        if not self._is_name(token) or not is_sensor_id(token.text):
            self._refuse("the id of a sensor")
        return self._take().text

    def _field(self, expected: str) -> str:
        token = self._peek()
        field = read_name(token.text) if self._is_name(token) else ""
        if not field:
            self._refuse(expected, ("stale",))
        self._take()
        return field

    def _limit(self) -> float | None:
        token = self._peek()
        if token.kind != "word" or not token.text[0].isdigit():
            return None
        try:
            limit = parse_duration(token.text)
        except ValueError:
            self._refuse("a duration such as 10m")
        if not STALE_RANGE[0] <= limit <= STALE_RANGE[1]:
            self._refuse("a duration from 1s to 366d")
        self._take()
        return limit

    def _is_name(self, token: RuleToken) -> bool:
        return token.kind == "quoted" or (token.kind == "word" and token.text not in _RESERVED)

    # Tokens.

    def _peek(self) -> RuleToken:
        return self._tokens[self._next]

    def _take(self) -> RuleToken:
        self._next += 1
        return self._tokens[self._next - 1]

    def _takes(self, text: str) -> bool:
        found = self._peek().is_bare(text)
        self._next += found
        return found

    def _refuse_rest(self, expected: str) -> NoReturn:
        # What follows a whole term: perhaps more of a text, or of a number with a decimal comma.
        compare, before, token = self._tokens[self._next - 2 : self._next + 1]
        remedy = None
        if compare.is_bare(*COMPARISONS) and before.kind == "word":
            is_number = parse_number(before.text) is not None
            if token.is_bare(",") and is_number:
                remedy = f"{before.text}.{self._tokens[self._next + 1].text}"
            elif token.kind == "word" and not is_number:
                remedy = f'"{before.text} {token.text}", in quotes'
        self._refuse(expected, ("and", "or"), remedy=remedy)

    def _refuse(
        self, expected: str, near: Sequence[str] = (), wrong: str | None = None, remedy: str | None = None
    ) -> NoReturn:
        token = self._peek()
        wrong = token.text if wrong is None else wrong
        remedy = _MEANT.get(wrong) or next(iter(get_close_matches(wrong.lower(), near, 1, 0.7)), remedy)
        if remedy is None and not near and token.kind == "word" and wrong in _RESERVED:
            remedy = f'"{wrong}", in quotes'
        hint = "" if remedy is None else f": did you mean {remedy}?"
        raise LanguageError(token.column, f"expected {expected}, got {token}{hint}")

    def _refuse_text(self, column: int, expected: str, got: str) -> NoReturn:
        raise LanguageError(column, f"expected {expected}, got {got}")
