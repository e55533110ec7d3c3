"""
A pty with a copy of what a device sends.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.board import open_files
from tests.support.links import texts
from usbgate.device.tapport import TapPort


class TapPortTests(SynchronousTestCase):
    """
    A tap at a path.
    """

    def setUp(self) -> None:
        """
        Create it.
        """
        self.files = open_files()
        self.path: str = os.path.abspath(self.mktemp())
        self.tap = TapPort("board", self.path)
        self.addCleanup(self.tap.stop)

    def open(self) -> int:
        """
        Open it as a program does.
        """
        program = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self.addCleanup(os.close, program)
        return program

    def test_copy(self) -> None:
        """
        A program reads what is sent while it has the tap open, byte for byte; what it writes goes nowhere.
        """
        self.tap.start()
        self.tap.write(b"before")
        program = self.open()
        data = bytes(range(256))
        for _ in range(3):
            os.write(program, b"ignored\n" * 100)
            self.tap.write(data)
            self.assertEqual(os.read(program, 1000), data)

    def test_slow(self) -> None:
        """
        A program that does not read loses data, which is logged once, and not kept.
        """
        self.tap.start()
        program = self.open()
        with capturedLogs() as logs:
            for _ in range(1000):
                self.tap.write(b"x" * 100)
        self.assertEqual(texts(logs), [f"board: the program at {self.path} reads too slowly"])
        while len(os.read(program, 65536)) > 4000:
            pass

    def test_stop(self) -> None:
        """
        It is gone when it is stopped, and nothing is left open; what somebody else put in its place stays.
        """
        self.tap.start()
        self.tap.stop()
        self.assertFalse(os.path.lexists(self.path))
        self.tap.write(b"late")
        self.tap.start()
        os.replace(self.tap_elsewhere(), self.path)
        self.tap.stop()
        self.assertEqual(os.readlink(self.path), "/dev/null")
        self.assertEqual(open_files(), self.files)

    def tap_elsewhere(self) -> str:
        """
        Create another symlink.
        """
        os.symlink("/dev/null", self.path + ".other")
        return self.path + ".other"

    def test_in_the_way(self) -> None:
        """
        A symlink that a killed daemon left is replaced; a file is not, and neither is a folder created.
        """
        os.symlink("/dev/pts/99999", self.path)
        self.tap.start()
        self.open()
        Path(self.path + ".file").touch()
        for path, reason in [(self.path + ".file", "there is a file of this name"), ("/nowhere/x", "No such file")]:
            with capturedLogs() as logs:
                other = TapPort("board", path)
                other.start()
                other.write(b"x")
                other.stop()
            self.assertIn(f"board: no tap at {path}: {reason}", texts(logs)[0])

    def test_both_ways(self) -> None:
        """
        A caller that wants what a program writes receives it, and knows whether a program has the tap open.
        """
        received: list[bytes] = []
        path = os.path.abspath(self.mktemp())
        tap = TapPort("board", path, received.append)
        self.addCleanup(tap.stop)
        tap.start()
        self.assertFalse(tap.read())
        program = os.open(path, os.O_RDWR | os.O_NOCTTY)
        os.write(program, b"one")
        self.assertTrue(tap.read())
        os.write(program, b"two")
        tap.write(b"x")
        self.assertEqual(received, [b"one", b"two"])
        os.close(program)
        self.assertFalse(tap.read())
