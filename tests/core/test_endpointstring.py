"""
The grammar of endpoint strings.
"""

from __future__ import annotations

from twisted.internet.endpoints import quoteStringArgument
from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.endpointstring import split_endpoint

SPLIT = [
    ("tcp:50007", ["tcp", "50007"], {}),
    ("tcp:50007:interface=127.0.0.1:backlog=9", ["tcp", "50007"], {"interface": "127.0.0.1", "backlog": "9"}),
    (r"tcp:port=1:interface=\:\:1", ["tcp"], {"port": "1", "interface": "::1"}),
    ("ssl:1:privateKey=/a=b.pem", ["ssl", "1"], {"privateKey": "/a=b.pem"}),  # only the first ends a name
    (r"unix:/a\=b\\c:mode=600", ["unix", r"/a=b\c"], {"mode": "600"}),
    (r"x:a\=b=c", ["x"], {"a=b": "c"}),
    ("systemd:::=", ["systemd", "", ""], {"": ""}),
    ("", [""], {}),
]


class SplitTests(SynchronousTestCase):
    """
    Endpoint strings and their arguments.
    """

    def test_split(self) -> None:
        """
        Arguments end with a colon that is not quoted.
        """
        for text, unnamed, named in SPLIT:
            self.assertEqual(split_endpoint(text), (unnamed, named), text)

    def test_quoted(self) -> None:
        """
        What Twisted quotes is read back.
        """
        for value in (r"a:b\c", "::1", "\\", ":", "a\n:"):
            self.assertEqual(split_endpoint(f"unix:address={quoteStringArgument(value)}")[1], {"address": value})

    def test_nothing_quoted(self) -> None:
        """
        A backslash at the end is an error.
        """
        for text in ("\\", "tcp:1\\", "tcp:1:interface=\\", "a=b\\\\\\"):
            self.assertRaises(ValueError, split_endpoint, text)
