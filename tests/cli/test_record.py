"""
`usbgate record`: the command in this process, a device on a pty.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from tests.support.running import ROOT, free_port
from tests.support.standin import replying
from tests.support.talking import talking
from tests.support.waiting import LIMIT
from usbgate.cli.main import main
from usbgate.core.recording import Piece, parse_recording

SENT = b"ID:20_T:1\r\n"


class RecordTests(SynchronousTestCase):
    """
    Recordings of a talking device.
    """

    def setUp(self) -> None:
        """
        Make a folder.
        """
        self.folder = Path(os.path.abspath(self.mktemp()))
        self.folder.mkdir(parents=True)
        self.path = self.folder / "board"
        self.file = self.folder / "board.txt"

    def record(self, *arguments: str, port: int | None = None, seconds: float = 0.2) -> Result:
        """
        Record for some time.
        """
        return CliRunner(env={"USBGATE_STATE": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}).invoke(
            main, ["record", str(self.file), "-p", str(port or free_port()), "--for", str(seconds), *arguments]
        )

    def pieces(self) -> list[Piece]:
        """
        Return what was recorded.
        """
        return list(parse_recording(self.file.read_text()))

    def test_device(self) -> None:
        """
        Each line that the device sends is a line, with its time; a file is never overwritten.
        """
        with talking(self.path, SENT):
            found = self.record("--device", str(self.path), "--baud", "115200")
            self.assertEqual((found.exit_code, found.output), (0, f"recording {self.path} at 115200 baud, 8N1\n"))
            pieces = self.pieces()
            self.assertEqual({piece[1:] for piece in pieces[1:-1]}, {(False, SENT)})
            self.assertGreater(len(pieces), 2)
            self.assertEqual([piece.at for piece in pieces], sorted(piece.at for piece in pieces))
            again = self.record("--device", str(self.path))
            self.assertEqual((again.exit_code, again.output[-len("File exists\n") :]), (1, "File exists\n"))

    def test_reader_gone(self) -> None:
        """
        If nobody reads the standard output any more, the recording ends without a word.
        """
        reads, writes = os.pipe()
        os.close(reads)
        own = "-p", str(free_port())
        with talking(self.path, SENT):
            ended = subprocess.run(
                [sys.executable, "-m", "usbgate.cli", "record", "-", *own, "--device", str(self.path), "--for", "5"],
                stdout=writes,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(ROOT), "USBGATE_STATE": str(self.folder), "HOME": "/nonexistent"},
            )
        os.close(writes)
        self.assertEqual((ended.returncode, ended.stderr.decode()), (1, f"recording {self.path} at 9600 baud, 8N1\n"))

    def test_through(self) -> None:
        """
        A program that opens the pseudo-terminal beside talks with the device, and both are recorded.
        """
        through = self.folder / "through"
        heard: list[bytes] = []

        def program() -> None:
            end = time.monotonic() + LIMIT
            while not through.exists() and time.monotonic() < end:
                time.sleep(0.005)
            with open(through, "r+b", buffering=0) as port:
                port.write(b"MSG:J_ID:20\n")
                heard.append(port.read(1) + port.read(1))

        with talking(self.path, SENT) as device:
            thread = Thread(target=program)
            thread.start()
            found = self.record("--device", str(self.path), "--through", str(through), seconds=0.5)
            thread.join()
            self.assertEqual(found.exit_code, 0, found.output)
            self.assertEqual(device.received, [b"MSG:J_ID:20"])
        self.assertIn((True, b"MSG:J_ID:20\n"), [piece[1:] for piece in self.pieces()])
        self.assertEqual(len(heard[0]), 2)
        self.assertFalse(os.path.lexists(through))

    def test_through_in_the_way(self) -> None:
        """
        What is at the place of the pseudo-terminal stays: it may be the device itself.
        """
        with talking(self.path, SENT):
            found = self.record("--device", str(self.path), "--through", str(self.path))
            self.assertEqual((found.exit_code, found.output), (1, f"usbgate: {self.path}: exists already\n"))
            self.assertEqual((self.path.exists(), self.file.exists()), (True, False))
            nowhere = self.folder / "nowhere" / "through"
            found = self.record("--device", str(self.path), "--through", str(nowhere))
            self.assertEqual(found.exit_code, 1)
            self.assertEqual(found.output.splitlines()[1:], [f"usbgate: {nowhere}: No such file or directory"])

    def test_lent(self) -> None:
        """
        A daemon that has the device, by this name or path, lends it; the configuration says how the port is set.
        """
        config = self.folder / "usbgate.toml"
        config.write_text(f'[device.uno]\npath = "{self.path}"\ndialect = "teleinfo"\nbaud = 9600\n')
        replies = {"devices": [f"DEV:uno_PATH:{self.path}_STATE:online_SINCE:2026-01-01T00:00:00Z"]}
        with talking(self.path, SENT):
            tty = os.readlink(self.path)
            for arguments in ((), ("--device", "uno"), ("--device", tty)):
                with replying({**replies, "lend uno": [f"DEV:uno_PORT:{tty}"]}) as (port, sent):
                    found = self.record("--config", str(config), *arguments, port=port, seconds=0.01)
                self.assertEqual((found.exit_code, sent[-1]), (0, "lend uno"), found.output)
                self.assertEqual(found.output, f"recording {tty} at 9600 baud, 7E1, lent by usbgate (uno)\n")
                self.file.unlink()

    def test_lent_by_name(self) -> None:
        """
        The name that only the daemon has for it is good enough, and the file says which device it was.
        """
        with talking(self.path, SENT):
            tty = os.readlink(self.path)
            replies = {"devices": ["DEV:uno_PATH:/dev/board_STATE:online_SINCE:2026-01-01T00:00:00Z"]}
            with replying({**replies, "lend uno": [f"DEV:uno_PORT:{tty}"]}) as (port, _):
                found = self.record("--device", "uno", port=port, seconds=0.01)
        self.assertEqual(found.exit_code, 0, found.output)
        self.assertTrue(self.file.read_text().splitlines()[1].startswith("# /dev/board, 9600 baud, 8N1, 20"))

    def test_refused(self) -> None:
        """
        What is no device is one line.
        """
        for arguments, status, error in [
            (["--device", "nothing"], 1, "nothing: neither a device nor the path of a serial port"),
            (["--device", str(self.path)], 1, "no such device"),
            (["--device", "usb:2341:ffff"], 1, "usb:2341:ffff: no such device"),
            (["--device", "usb:x"], 64, "usb:x: expected a USB device"),
            (["--device", "/dev/null"], 1, "cannot be opened as a serial port"),
        ]:
            found = self.record(*arguments)
            self.assertEqual(found.exit_code, status, found.output)
            self.assertIn(error, found.output)
            self.assertEqual(len(found.output.splitlines()), 1)
            self.assertFalse(self.file.exists())
