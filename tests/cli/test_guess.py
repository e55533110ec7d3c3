"""
`usbgate dialect guess`: the command in this process, a device on a pty.
"""

from __future__ import annotations

import os
import re
import termios
import tomllib
from importlib import import_module
from pathlib import Path

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from tests.support.running import free_port
from tests.support.talking import talking
from usbgate.cli import guess
from usbgate.cli.main import main
from usbgate.device import portusers

FIELDS = b"ID:20_T:1\r\n"

# One frame of an old French meter: 1200 baud, 7E1.
FRAME = b"\x02\nADCO 270622224349 B\r\nPAPP 00520 (\r\x03"


class GuessTests(SynchronousTestCase):
    """
    What is proposed.
    """

    def setUp(self) -> None:
        """
        Look often, so that it is over soon.
        """
        self.folder = Path(os.path.abspath(self.mktemp()))
        self.folder.mkdir(parents=True)
        self.path = self.folder / "board"
        self.patch(guess, "LOOK", 0.1)

    def guess(self, *arguments: str) -> Result:
        """
        Run the command.
        """
        return CliRunner(env={"USBGATE_STATE": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}).invoke(
            main, ["dialect", "guess", str(self.path), "-p", str(free_port()), *arguments]
        )

    def pretend_speeds(self) -> None:
        """
        Let the pty be a port that has a speed.
        """
        import_module("usbgate.device.serialport")  # which takes this function over when it is loaded
        self.patch(portusers, "is_pty", lambda status: False)

    def test_dialect(self) -> None:
        """
        A device of a dialect that is read without malformed frames: its table for the configuration is all that
        goes to standard output. A pty has no speed.
        """
        with talking(self.path, b'{"id":20,"temp":21.5}\n'):
            found = self.guess()
        self.assertEqual(found.exit_code, 0, found.output)
        self.assertEqual(
            tomllib.loads(found.stdout), {"device": {"board": {"path": str(self.path), "dialect": "json"}}}
        )
        self.assertIn("such as ID:20_TEMP:21.5\n", found.stderr)
        self.assertNotIn("not certain", found.stderr)

    def test_speed(self) -> None:
        """
        Speeds at which no text comes are left at once; the parity is found without trying it. What the dialect's
        defaults say is not repeated.
        """
        self.pretend_speeds()
        speeds = set()

        def sent() -> bytes:
            tty = os.open(self.path, os.O_RDWR | os.O_NOCTTY)
            try:
                speed = termios.tcgetattr(tty)[5]
            finally:
                os.close(tty)
            speeds.add(speed)
            if speed != termios.B1200:
                return b"\xf8\x00\xfe\x80" * 8
            return bytes(byte | 0x80 if byte.bit_count() % 2 else byte for byte in FRAME)

        with talking(self.path, sent):
            found = self.guess("--each", "20s")
            self.assertEqual(found.exit_code, 0, found.output)
            self.assertTrue({termios.B9600, termios.B115200, termios.B1200} <= speeds)
            garbled = re.search(r"^9600 baud: ([0-9,]+) bytes, no text$", found.stderr, re.MULTILINE)
            assert garbled is not None, found.stderr
            self.assertLess(int(garbled[1].replace(",", "")), guess.MOST / 2)
            self.assertNotIn("57600", found.stderr)
            self.assertRegex(found.stderr, r"1200 baud: [0-9]+ bytes, text with parity \(7E1\)\n")
            table = {"path": str(self.path), "dialect": "teleinfo"}
            self.assertEqual(tomllib.loads(found.stdout), {"device": {"board": table}})

    def test_other_settings(self) -> None:
        """
        A speed and a line that are not the defaults are in the table, unlike the dialect that is.
        """
        self.pretend_speeds()
        with talking(self.path, bytes(byte | 0x80 if byte.bit_count() % 2 else byte for byte in FIELDS)):
            found = self.guess("--baud", "19200")
        self.assertEqual(
            tomllib.loads(found.stdout)["device"]["board"], {"path": str(self.path), "baud": 19200, "line": "7E1"}
        )

    def test_failures(self) -> None:
        """
        Nothing, garbage, and text that no dialect reads: one line says which, and the exit status is 1.
        """
        for data, error in [
            (b"", "nothing came; .*--each"),
            (b"\xf8\x00\xfe\x80" * 8, "no text came at any speed"),
            (b"hello world\n", "no dialect reads what came: hello world .*dialects.md"),
        ]:
            with talking(self.path, data):
                found = self.guess("--each", "0.3s")
            self.assertEqual((found.exit_code, found.stdout), (1, ""), found.output)
            self.assertRegex(found.stderr.splitlines()[-1], error)
