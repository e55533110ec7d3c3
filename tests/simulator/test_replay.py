"""
The board that replays a file.
"""

from __future__ import annotations

import math
import os

from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from usbgate.core.recording import UnreadableRecording
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
