"""
Noticing other programs on a device's port.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs
from twisted.trial import unittest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.support.board import Board
from tests.support.links import texts
from tests.support.waiting import until
from usbgate.device import portwatch
from usbgate.device.diagnostics import GARBLED_BYTES
from usbgate.device.dialects.fields import Dialect
from usbgate.device.endpoint import SerialEndpoint
from usbgate.device.interfaces import ISharedPort
from usbgate.device.link import Link
from usbgate.device.portwatch import PortWatch
from usbgate.testing import RecordingListener

reactor: Any = global_reactor


@implementer(ISharedPort)
class MemoryPort:
    """
    A port whose settings were changed to `changed`.
    """

    def __init__(self) -> None:
        self.changed: str | None = None

    def disturbed(self) -> None:
        """
        Nothing disturbs it.
        """

    def tty(self) -> os.stat_result | None:
        """
        Return some tty.
        """
        return os.stat("/dev/null")

    def restore_settings(self) -> str | None:
        """
        Return what they were, and keep them.
        """
        return self.changed


class WatchTests(unittest.SynchronousTestCase):
    """
    A watch on a clock that the test moves.
    """

    def setUp(self) -> None:
        """
        Begin to watch a port that nobody else has open.
        """
        self.clock = Clock()
        self.port = MemoryPort()
        self.users: list[str] = []
        self.looks: list[float] = []
        self.watch = PortWatch(self.clock, "board", "/dev/board", self.find)
        self.watch.start(self.port)

    def find(self, tty: os.stat_result) -> Deferred[Sequence[str]]:
        """
        Record the time, and find `users`.
        """
        self.looks.append(self.clock.seconds())
        return succeed(list(self.users))

    def pass_time(self, seconds: float, step: float = 0.25) -> Sequence[LogEvent]:
        """
        Let time pass, and return what was logged.
        """
        with capturedLogs() as logs:
            self.clock.pump([step] * int(seconds / step))
        return logs

    def test_interface(self) -> None:
        """
        The port of these tests provides the interface.
        """
        verifyObject(ISharedPort, self.port)

    def test_once_a_minute(self) -> None:
        """
        The port is looked at when it is opened, and once a minute until it is closed; then no timer is left.
        """
        self.pass_time(190)
        self.assertEqual(self.looks, [0.0, 60.0, 120.0, 180.0])
        self.watch.stop()
        self.watch.suspect()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.watch.start(self.port)
        self.assertEqual(self.looks[4:], [190.0])

    def test_suspicion(self) -> None:
        """
        A suspicion causes a look at once, or half a second after the last one; many cause ever fewer, but at least one
        a minute. A minute without one restores the quick look.
        """
        self.pass_time(10)
        self.watch.suspect()
        self.watch.suspect()
        self.pass_time(0.25)
        self.assertEqual(self.looks, [0.0, 10.25])
        for _ in range(200):
            self.watch.suspect()
            self.pass_time(1.0)
        waits = [later - earlier for earlier, later in zip(self.looks[1:], self.looks[2:], strict=False)]
        self.assertEqual(waits[:6], [1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
        self.assertLessEqual(max(waits), 60.0)
        self.pass_time(180)
        before = len(self.looks)
        self.watch.suspect()
        self.pass_time(0.5)
        self.assertEqual(len(self.looks), before + 1)

    def test_once(self) -> None:
        """
        Another program is logged once until it has closed the port; the warning names those that have it open now.
        """
        self.users = ["cat (process 1)"]
        logs = self.pass_time(130)
        self.assertEqual(
            texts(logs),
            ["board: another program has the port open and may take lines away, stop it: cat (process 1) (/dev/board)"],
        )
        self.users = ["cat (process 1)", "screen (process 2)"]
        self.assertEqual(self.pass_time(60), [])
        warning = self.watch.warning
        assert warning is not None
        self.assertEqual(warning[:2], ("port shared", "cat (process 1), screen (process 2)"))
        self.assertTrue(warning.text.endswith("stop it: cat (process 1), screen (process 2)"))
        self.users = []
        self.assertEqual(texts(self.pass_time(120)), ["board: no other program has the port open any more"])
        self.assertIsNone(self.watch.warning)
        self.users = ["cat (process 3)"]
        self.assertEqual(len(self.pass_time(60)), 1)
        self.watch.stop()
        self.assertIsNone(self.watch.warning)

    def test_late(self) -> None:
        """
        What was found out after the port was closed is not reported.
        """
        waiting: Deferred[Sequence[str]] = Deferred()
        watch = PortWatch(self.clock, "board", "/dev/board", lambda tty: waiting)
        watch.start(self.port)
        watch.stop()
        watch.start(MemoryPort())
        with capturedLogs() as logs:
            waiting.callback(["cat (process 1)"])
        self.assertEqual((logs, watch.warning), ([], None))
        watch.stop()

    def test_settings(self) -> None:
        """
        Changed settings are logged once, and again if they were right in between.
        """
        self.port.changed = "115200 baud"
        logs = self.pass_time(180)
        self.assertEqual(
            texts(logs), ["board: another program changed /dev/board to 115200 baud; usbgate has set it back"]
        )
        self.port.changed = None
        self.pass_time(60)
        self.port.changed = "another mode"
        self.assertEqual(len(self.pass_time(60)), 1)

    def test_failing(self) -> None:
        """
        If the programs cannot be found, that is logged once.
        """
        failing: list[Deferred[Sequence[str]]] = []

        def find(tty: os.stat_result) -> Deferred[Sequence[str]]:
            failing.append(Deferred())
            failing[-1].errback(PermissionError("no access"))
            return failing[-1]

        watch = PortWatch(self.clock, "board", "/dev/board", find)
        with capturedLogs() as logs:
            watch.start(self.port)
            self.clock.pump([60.0] * 3)
        watch.stop()
        self.assertEqual(len(failing), 4)
        self.assertEqual(texts(logs), ["cannot find out who else has /dev/board open: no access"])


class LinkTests(unittest.TestCase):
    """
    What makes a link look.
    """

    async def test_suspicions(self) -> None:
        """
        A malformed line, bytes that are no text, a line that never ends, silence, and an opening by another program.
        """
        self.patch(portwatch, "SUSPICION_INTERVAL", 0.01)
        looks: list[os.stat_result] = []

        def find(tty: os.stat_result) -> Deferred[Sequence[str]]:
            looks.append(tty)
            return succeed(["cat (process 1)"])

        for data in (b"#on\nno line\n", b"#on\n\x80\x81ID:1_A:1\n", b"#on\n" + b"x" * GARBLED_BYTES, b"", None):
            board = Board(self.mktemp())
            self.addCleanup(board.unplug)
            endpoint = SerialEndpoint(reactor, board.path)
            silence = 0.1 if data == b"" else None
            link = Link(reactor, endpoint, "board", board.path, Dialect(), silence=silence, find_users=find)
            link.listener = RecordingListener()
            link.startService()
            await until(lambda: looks)
            self.assertEqual(looks.pop().st_rdev, os.stat(board.tty).st_rdev)
            self.assertEqual(link.warning and link.warning.about, "cat (process 1)")
            if data is None:
                os.close(os.open(board.tty, os.O_RDONLY | os.O_NOCTTY))
            else:
                board.say(data)
            await until(lambda: looks, str(data))
            await link.stopService()
            self.assertIsNone(link.warning)
            looks.clear()
