"""
Conditions on readings (protocol §5): what a field's `alarm` says, and what rules compare.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from usbgate.core.fieldline import check_value, parse_number, parse_value
from usbgate.core.model import Reading

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

_CONDITION = re.compile(r"(<=|>=|==|!=|<|>)\s*(\S.*)")


class Condition(NamedTuple):
    """
    A condition on a reading (protocol §5).

    Attributes:
        compare: One of `<`, `<=`, `>`, `>=`, `==` and `!=`.
        operand: A number; or, with `==` and `!=`, the spelling of anything that is no plain decimal.
    """

    compare: str
    operand: float | str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """
        Read a condition such as `> 60`, `== 1` or `!= OK`.

        Raises:
            ValueError: Not a condition; only `==` and `!=` compare with a text.
            Malformed: No reading can have this text.
        """
        spelled = _CONDITION.fullmatch(text.strip())
        if spelled is None:
            raise ValueError(text)
        compare, operand = spelled.groups()
        if compare in ("==", "!="):
            number, spelling = parse_value(operand)
            if spelling is not None:
                check_value("alarm", spelling)
                return cls(compare, spelling)
        else:
            number = parse_number(operand)
        if number is None:
            raise ValueError(text)
        return cls(compare, number)

    def __str__(self) -> str:
        operand = self.operand if isinstance(self.operand, str) else repr(self.operand).removesuffix(".0")
        return f"{self.compare} {operand}"

    def holds(self, reading: Reading) -> bool | None:
        """
        Return whether a reading meets it; None if the reading is no number and the operand is one.
        """
        return self.meets(reading.value, reading.text)

    def meets(self, value: float | None, text: str | None) -> bool | None:
        """
        Do the same for the value and the text of a reading.
        """
        compare, operand = self
        if isinstance(operand, str):
            return (text == operand) == (compare == "==")
        if value is None:
            return None
        if text is not None and compare in ("==", "!="):
            return compare == "!="  # it is no plain decimal: `00E1` is not the number 0
        return _COMPARE[compare](value, operand)
