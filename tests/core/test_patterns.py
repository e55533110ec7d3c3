"""
Which regular expressions can run away.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.patterns import can_run_away

SAFE = r"""
T=(?P<t>[-0-9.]+) C, H=(?P<h>[0-9.]+) %
T:\s*(?P<t>-?\d+(\.\d+)?)\s*C
(temp|time)=(\d+)
(\d+,){3}\d+
(ab*)*$
^(?P<a>[^,]*),(?P<b>[^,]*),(?P<c>.*)
(\w+)=(\d+)\b
((a|b)c)+d
[^\d]*1
[0-9]+℃
é+ê
[^x]*?x
"""

# The last ones name characters beyond Latin-1, change what a character matches, or are more than a regular expression.
SUSPECT = r"""
(x+x+)+y
(x*)*
(a+)+$
(x?)+y
.*T=
T=(.*?),
\d+\d
x{0,9}x
(a|a)(a|a)
(a|ab)+b
(|a)+
a*(b|a)
[^b]*a
\W+!
\D*[a-z]
(\b)*
[^℃]*℃
\w+ā
[ā-ē]+ā
[^\d]*١
\s+\u3000
(?i)a*A
(?a)\W*é
(?i:a*)A
(a)\1
(?=a)a
(?>a+)b
(a)?(?(1)b|c)
"""


class PatternTests(SynchronousTestCase):
    """
    A pattern.
    """

    def test_safe(self) -> None:
        """
        A pattern that always knows how to go on can't run away.
        """
        self.assertEqual([pattern for pattern in SAFE.split("\n") if can_run_away(pattern)], [])

    def test_suspect(self) -> None:
        """
        One that must try is suspected, and so is one that is not understood.
        """
        self.assertEqual([pattern for pattern in SUSPECT.split("\n") if pattern and not can_run_away(pattern)], [])

    def test_wrong(self) -> None:
        """
        What is no pattern is refused.
        """
        self.assertRaises(re.error, can_run_away, "(")
