"""
How durations, sizes and moments are spelled.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.units import parse_duration, parse_moment, parse_size

NOW = 1363035730123  # 2013-03-11T21:02:10.123Z

# A parser, what it reads, and the result; None where it refuses it.
TABLE: list[tuple[Callable[[str], float], str, float | None]] = [
    (parse_duration, "200ms", 0.2),
    (parse_duration, "200 ms", 0.2),
    (parse_duration, "90s", 90.0),
    (parse_duration, "1.5s", 1.5),
    (parse_duration, "30m", 1800.0),
    (parse_duration, "1h", 3600.0),
    (parse_duration, "1.5 h", 5400.0),
    (parse_duration, "2d", 172_800.0),
    (parse_duration, "1w", 604_800.0),
    (parse_duration, "90", 90.0),
    (parse_duration, "0.5", 0.5),
    (parse_duration, "0", 0.0),
    (parse_duration, "9" * 400 + "w", inf),
    *[
        (parse_duration, text, None)
        for text in ("", "h", "1H", "1M", "1 fortnight", "1KiB", "-1s", "+1s", "1,5s", "1.s", ".5s", "1e3s")
    ],
    *[(parse_duration, text, None) for text in (" 1s", "1s ", "1 ", "1  s", "1\ts", "1s\n", "1h30m", "٣s", "nan")],
    (parse_size, "64KiB", 65_536),
    (parse_size, "16 MiB", 16 << 20),
    (parse_size, "1.5GiB", 3 << 29),
    (parse_size, "1TiB", 1 << 40),
    *[(parse_size, text, None) for text in ("", "1", "1 ", "1GB", "1gib", "1s", "-1MiB", "9" * 400 + "KiB")],
    (lambda text: parse_moment(text, NOW), "1h", NOW - 3_600_000),
    (lambda text: parse_moment(text, NOW), "1 h", NOW - 3_600_000),
    (lambda text: parse_moment(text, NOW), "250ms", NOW - 250),
    (lambda text: parse_moment(text, NOW), "90", NOW - 90_000),
    (lambda text: parse_moment(text, NOW), "9999w", 0),
    (lambda text: parse_moment(text, NOW), "9" * 400 + "s", 0),
    (lambda text: parse_moment(text, 0), str(NOW), NOW),
    (lambda text: parse_moment(text, NOW), "99999999999", 0),
    (lambda text: parse_moment(text, 0), "2013-03-11T21:02:10.123Z", NOW),
    (lambda text: parse_moment(text, 0), "2013-03-11 22:02:10.123+01:00", NOW),
    (lambda text: parse_moment(text, 0), "2013-03-11T21:02:10.123", NOW),
    (lambda text: parse_moment(text, 0), "2013-03-11", 1_362_960_000_000),
    (lambda text: parse_moment(text, 0), "1969-12-31T00:00:00Z", 0),
    (lambda text: parse_moment(text, 0), "0001-01-01T00:00:00+23:59", 0),
    *[(lambda text: parse_moment(text, NOW), text, None) for text in ("", "soon", "1 fortnight", "2013-02-30", "-1h")],
]


class UnitsTests(SynchronousTestCase):
    """
    Texts to seconds, bytes and times.
    """

    def test_table(self) -> None:
        """
        One number, at most one blank, one unit; a bare number is seconds; anything else is refused.
        """
        for parse, text, result in TABLE:
            with self.subTest(text=text):
                if result is None:
                    self.assertRaises(ValueError, parse, text)
                else:
                    self.assertEqual(parse(text), result)
