"""
The board that replays a file.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from usbgate.cli.main import main
from usbgate.core.recording import UnreadableRecording
from usbgate.simulator import service
from usbgate.simulator.replay import BYTES_PER_SECOND, CHUNK, Replay, read_script
from usbgate.simulator.service import Simulator

RECORDING = b'# usbgate recording\n1 < "a\\n"\n1.5 > "b\\n"\n3 < "c\\n"\n'


class ReplayTests(SynchronousTestCase):
    """
    The logic, with numbers for clocks.
    """

    def test_recording(self) -> None:
        """
        What the device sent is sent at its times, once, from the moment at which it is switched on.
        """
        board = Replay(read_script(RECORDING))
        self.assertEqual((board.due(1e9), board.next_due), ([], math.inf))
        board.power_on(100)
        self.assertEqual(board.next_due, 101)
        self.assertEqual((board.due(100.9), board.due(101)), ([], [b"a\n"]))
        board.receive(b"x", 101)
        self.assertEqual((board.next_due, board.due(200)), (103, [b"c\n"]))
        self.assertEqual(board.next_due, math.inf)

    def test_speed(self) -> None:
        """
        Twice as fast, and again and again, with a rest.
        """
        board = Replay(read_script(RECORDING), speed=2, loop=True)
        board.power_on(0)
        times = []
        for _ in range(4):
            times.append(board.next_due)
            self.assertEqual(len(board.due(board.next_due)), 1)
        self.assertEqual(times, [0.5, 1.5, 2.5, 3.5])

    def test_clock_jumps(self) -> None:
        """
        After a jump of the clock, one call does not replay forever.
        """
        board = Replay(read_script(RECORDING), loop=True)
        board.power_on(0)
        self.assertLess(len(board.due(1e9)), 20_000)

    def test_plain(self) -> None:
        """
        Any other file is sent as it is, in small pieces, at a byte rate.
        """
        data = bytes(range(256)) * 8
        board = Replay(read_script(data))
        board.power_on(0)
        first = b"".join(board.due(1))
        self.assertTrue(0 <= len(first) - BYTES_PER_SECOND <= CHUNK, len(first))
        self.assertEqual(first + b"".join(board.due(1e9)), data)

    def test_nothing(self) -> None:
        """
        A file without anything to send is refused.
        """
        for data in (b"", b"# usbgate recording\n", b'# usbgate recording\n1 > "x"\n'):
            self.assertRaises(UnreadableRecording, read_script, data)


class CommandTests(SynchronousTestCase):
    """
    `usbgate simulate --replay`.
    """

    def simulate(self, data: bytes, *arguments: str) -> tuple[Result, list[Any]]:
        """
        Run the command with a file, but not the reactor; return also with what that would run.
        """
        file = Path(self.mktemp())
        file.write_bytes(data)
        started: list[Any] = []
        self.patch(service, "run", lambda reactor, *what: started.append(what))
        return CliRunner().invoke(main, ["simulate", "x", "--replay", str(file), *arguments]), started

    def test_options(self) -> None:
        """
        Speed and loop are as given.
        """
        found, [(path, board, what)] = self.simulate(RECORDING, "--speed", "4", "--loop")
        self.assertEqual((found.exit_code, str(path)), (0, "x"), found.output)
        board.power_on(0)
        self.assertEqual((board.next_due, len(board.due(1)), board.next_due), (0.25, 2, 1.25))
        self.assertTrue(what.startswith("a replay of "))

    def test_refused(self) -> None:
        """
        Options that do not go together, and a file that is wrong, are one line.
        """
        for data, arguments, status, error in [
            (RECORDING, ["--mute"], 64, "--mute is not for a replay"),
            (RECORDING, ["--noise", "0"], 64, "--noise is not for a replay"),
            (RECORDING + b"x", [], 1, "line 5: expected"),
            (b"", [], 1, "there is nothing to send"),
        ]:
            found, started = self.simulate(data, *arguments)
            self.assertEqual((found.exit_code, started), (status, []), found.output)
            self.assertIn(error, found.output)
        for option in (["--loop"], ["--speed", "2"]):
            found = CliRunner().invoke(main, ["simulate", "x", *option])
            self.assertEqual((found.exit_code, "requires --replay" in found.output), (64, True))


class ReplayPortTests(TestCase):
    """
    On a real pty.
    """

    timeout = 30

    async def test_pty(self) -> None:
        """
        It begins when a program opens the device.
        """
        from twisted.internet import reactor

        path = os.path.abspath(self.mktemp())
        simulator = Simulator(reactor, path, Replay(read_script(RECORDING), speed=50))
        simulator.startService()
        self.addCleanup(simulator.stopService)
        await deferLater(reactor, 0.1)
        device = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self.addCleanup(os.close, device)
        received = b""
        while received != b"a\nc\n":
            await deferLater(reactor, 0.005)
            try:
                received += os.read(device, 100)
            except BlockingIOError:
                continue
