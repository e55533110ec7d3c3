"""
Telnet commands are removed, wherever the chunks are cut (protocol §3).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.server.telnet import TelnetFilter

IAC = b"\xff"
CASES = [
    (b"ping\r\n", b"ping\r\n"),
    (b"\xff\xfb\x01\xff\xfd\x03ping\n", b"ping\n"),
    (b"pi\xff\xf4\xff\xfd\x06ng\n", b"ping\n"),  # what telnet sends for Ctrl-C
    (b"a\xff\xf0\xff\xf9b\n", b"ab\n"),
    (b"a\xff\xfe\nb\n", b"ab\n"),  # the option's number is a line feed
    (b"a\xff\xfc\xffb\n", b"ab\n"),  # and here another IAC
    (b"a\xff\xffb\n", b"a\xff\xffb\n"),
    (b"a\xff\xff\xf1b\n", b"a\xffb\n"),
    (b"a\xff\xfa\x18\xff\xf0b\n", b"a\xff\xfa\x18b\n"),
    (b"a\xff\nb\n", b"a\xff\nb\n"),
    (b"a\xff\xefb\n", b"a\xff\xefb\n"),
]


class TelnetTests(SynchronousTestCase):
    """
    One table of streams.
    """

    def test_whole(self) -> None:
        """
        Commands are removed; any other IAC stays, so that its line is malformed.
        """
        for sent, kept in CASES:
            self.assertEqual(TelnetFilter().feed(sent), kept, sent)

    def test_cut_at_every_byte(self) -> None:
        """
        The result does not depend on where the stream is cut: at any one place, or everywhere.
        """
        for sent, kept in CASES:
            for cut in range(len(sent) + 1):
                filtered = TelnetFilter()
                self.assertEqual(filtered.feed(sent[:cut]) + filtered.feed(sent[cut:]), kept, (sent, cut))
            filtered = TelnetFilter()
            self.assertEqual(b"".join(filtered.feed(bytes([byte])) for byte in sent), kept, sent)
