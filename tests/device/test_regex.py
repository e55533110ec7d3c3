"""
The dialect of regular expressions; what a whole recording becomes is in `dialects/regex.*`.
"""

from __future__ import annotations

from importlib.util import find_spec

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from usbgate.core.fieldline import LINE_LIMIT
from usbgate.device.dialects import regex
from usbgate.device.dialects.regex import SEARCHED, Dialect
from usbgate.testing import check_dialect, check_recording, report

RUNS_AWAY = r"(?P<a>(x+x+)+y)"


class DialectTests(SynchronousTestCase):
    """
    Lines in; google-re2 is used.
    """

    def setUp(self) -> None:
        """
        Skip without google-re2.
        """
        if find_spec("re2") is None:
            raise SkipTest("google-re2 is not installed")

    def test_lines(self) -> None:
        """
        The first pattern that is found counts; a group that is not found is left out; other lines are text.
        """
        check_dialect(
            Dialect({"pattern": ["t=(?P<temp>[0-9]+)( (?P<unit>C))?", "(?P<id>[a-z]+):(?P<x_1>.*)"], "sensor": "20"}),
            [
                (b"t=5", report("20", TEMP="5")),
                (b"a:t=5 C", report("20", TEMP="5", UNIT="C")),
                (b"abc:5", report("abc", **{"X-1": "5"})),
                (b" hello ", "hello"),
            ],
            [b"a:\xff", b"a: "],
        )

    def test_number(self) -> None:
        """
        Without a pattern, the first number is the value.
        """
        check_dialect(Dialect(), [(b"ST,+00123.45  g 7", report("device", VALUE="+00123.45")), (b"GS", "GS")])

    def test_linear(self) -> None:
        """
        A pattern that would run away does not, on the longest line.
        """
        self.assertEqual(Dialect({"pattern": RUNS_AWAY}).decode(b"x" * LINE_LIMIT), "x" * LINE_LIMIT)

    def test_options(self) -> None:
        """
        A wrong option is refused, by its name.
        """
        for options, error in [
            ({"pattern": 5}, "^pattern: expected a text"),
            ({"pattern": []}, "^pattern: expected a text"),
            ({"pattern": "(?P<a>x"}, "^pattern: .* is no regular expression: missing \\)"),
            ({"pattern": "([0-9]+)"}, "^pattern: expected groups"),
            ({"pattern": "(?P<a>x)(?P<A>y)"}, "^pattern: expected groups"),
            ({"pattern": "(?P<_>x)"}, "^pattern: expected groups"),
            ({"id": ""}, "^id: "),
            ({"sensor": "a b"}, "^sensor: "),
        ]:
            self.assertRaisesRegex(ValueError, error, Dialect, options)


class WithoutTests(SynchronousTestCase):
    """
    Lines in; google-re2 is not installed.
    """

    def setUp(self) -> None:
        """
        Hide it.
        """
        self.patch(regex, "re2", None)

    def test_refused(self) -> None:
        """
        A pattern that can run away is refused, with what to do.
        """
        self.assertRaisesRegex(
            ValueError, "^pattern: .* could take long .*-m pip install 'google-re2", Dialect, {"pattern": RUNS_AWAY}
        )
        self.assertRaisesRegex(ValueError, "no regular expression: missing \\)", Dialect, {"pattern": "(?P<a>x"})

    def test_same(self) -> None:
        """
        Lines become the same, and shorter ones are too long.
        """
        self.assertEqual(Dialect().framing().limit, SEARCHED)
        check_dialect(Dialect(), [(b"ST,+00123.45  g 7", report("device", VALUE="+00123.45"))])
        pattern = "(?P<zero>[0-9]) (?P<id>[0-9]+) (?P<a>[0-9])"
        check_recording(lambda: Dialect({"pattern": pattern}), b"0 7 1\n0 7 1\n", ["partial", "ID:7_ZERO:0_A:1"])
