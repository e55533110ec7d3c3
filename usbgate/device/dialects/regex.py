"""
The dialect of boards that no other dialect reads: regular expressions with named groups, of google-re2 where that is
installed (https://github.com/google/re2/wiki/Syntax), else of Python's `re`.

    Temperature is 21.5 deg      with the pattern 'Temperature is (?P<temp>[0-9.]+)'
    #7> humid 48%                with the pattern '#(?P<id>[0-9]+)> humid (?P<hum>[0-9]+)%'
"""

from __future__ import annotations

import re
from typing import Any

from usbgate.core.errors import Malformed
from usbgate.core.extras import REGEX, install_command
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.model import Report
from usbgate.core.patterns import can_run_away
from usbgate.core.spelling import field_name
from usbgate.device.dialect import DialectBase
from usbgate.device.framing import LineFraming
from usbgate.device.options import DialectOptions

try:
    import re2
except ImportError:
    re2 = None

_ERRORS: tuple[type[Exception], ...] = (re.error,) if re2 is None else (re.error, re2.error)

NUMBER = "(?P<value>[+-]?[0-9]+([.][0-9]+)?)"

# Bytes of a line where Python searches: it begins at each character, so the time is quadratic, 1 ms at worst.
SEARCHED = 256

_OPTION = "pattern"


class Dialect(DialectBase):
    """
    Each line in which a pattern is found is a report; its fields are the named groups. Other lines are text.

    The options are `pattern`, one or a list, of which the first that is found counts (by default the first number is
    `VALUE`); `id`, the group with the sensor's id; and `sensor`, the sensor of lines without it (by default the
    device's name).
    """

    def configure(self, options: DialectOptions) -> None:
        self._patterns = [_compile(pattern) for pattern in options.phrases(_OPTION, [NUMBER])]
        self._id = field_name(options.text("id", "id"))
        self._sensor = options.sensor("sensor", "")

    def framing(self) -> LineFraming:
        return LineFraming(limit=LINE_LIMIT if re2 is not None else SEARCHED)

    def decode(self, frame: bytes) -> Report | str:
        try:
            text = frame.decode()
        except UnicodeDecodeError:
            raise Malformed("not UTF-8") from None
        for pattern in self._patterns:
            if found := pattern.search(text):
                sensor = self._sensor or self.device
                values: list[tuple[str, str]] = []
                for name in sorted(pattern.groupindex, key=pattern.groupindex.__getitem__):
                    value = found[name]
                    if value is not None and field_name(name) == self._id:
                        sensor = value.strip()
                    elif value is not None:
                        values.append((name, value))
                return self.report(sensor, values)
        return text.strip()


def _compile(pattern: str) -> Any:
    try:
        if re2 is not None:
            options = re2.Options()
            options.log_errors = False  # it would write to standard error
            compiled = re2.compile(pattern, options=options)
        else:
            if can_run_away(pattern):
                raise ValueError(
                    f"{_OPTION}: {pattern!r} could take long for some lines: where something is repeated or optional,"
                    " what follows may begin alike. Leave out a leading .*, write [^,]*, instead of .*, or install"
                    f" google-re2: {install_command(REGEX)}"
                )
            compiled = re.compile(pattern)
    except _ERRORS as error:
        reason = error.args[0]
        if isinstance(reason, bytes):
            reason = reason.decode(errors="replace")
        raise ValueError(f"{_OPTION}: {pattern!r} is no regular expression: {reason}") from None
    names = [field_name(name) for name in compiled.groupindex]
    if not all(names) or len(names) != len({*names}) or not names:
        raise ValueError(f"{_OPTION}: expected groups with different names, such as (?P<temp>[0-9.]+), got {pattern!r}")
    return compiled
