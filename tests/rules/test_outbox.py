"""
What rules keep on disk.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.rules import at_once
from usbgate.rules.outbox import PATIENCE, Outbox, WaitingAction
from usbgate.rules.ruleset import KeptState

ACTIONS = [WaitingAction(f"a{number}", "smoke", "mail", number, {"text": "é\n" * number}) for number in range(3)]
KEPT = KeptState("sensor 2 SMOKE == 1", True, 123, frozenset([1, 17]))


class OutboxTests(SynchronousTestCase):
    """
    A file that is opened again and again.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        folder = Path(self.mktemp())
        folder.mkdir()
        self.file = folder / "rules.sqlite"

    def open(self, in_thread: Any = at_once) -> Outbox:
        """
        Open the file; what it has is in `states` and `actions` then.
        """
        outbox = Outbox(self.clock, self.file, in_thread)
        self.states, self.actions = self.successResultOf(Deferred.fromCoroutine(outbox.open()))
        return outbox

    def test_kept(self) -> None:
        """
        What was written is there, in order, whether the file was closed or not; a later state replaces an earlier one.
        """
        outbox = self.open()
        self.assertEqual((self.states, self.actions), ({}, []))
        self.successResultOf(outbox.write({"smoke": KeptState("x")}, ACTIONS))
        self.successResultOf(outbox.write({"smoke": KEPT}, removed=["a1"]))
        self.open()
        self.assertEqual((self.states, self.actions), ({"smoke": KEPT}, [ACTIONS[0], ACTIONS[2]]))
        self.successResultOf(Deferred.fromCoroutine(outbox.close()))
        self.open()
        self.assertEqual(self.actions, [ACTIONS[0], ACTIONS[2]])

    def test_together(self) -> None:
        """
        What comes during a transaction is written in the next one; each waits for its own.
        """
        calls: list[tuple[Callable[[], Any], Deferred[Any]]] = []

        def later(function: Callable[[], Any]) -> Deferred[Any]:
            calls.append((function, Deferred()))
            return calls[-1][1]

        outbox = Outbox(self.clock, self.file, later)
        written = [outbox.write(added=[action]) for action in ACTIONS]
        closed = Deferred.fromCoroutine(outbox.close())
        self.assertEqual(len(calls), 1)
        ended = []
        for function, done in calls:  # more are added meanwhile
            done.callback(function())
            ended.append([each.called for each in written])
        self.assertEqual(ended, [[True, False, False], [True, True, True], [True, True, True]])
        self.successResultOf(closed)
        for each in written:
            self.successResultOf(each)
        self.open()
        self.assertEqual(self.actions, ACTIONS)

    def test_disk_hangs(self) -> None:
        """
        Nobody waits for a disk that does not answer.
        """
        outbox = Outbox(self.clock, self.file, lambda function: Deferred())
        written = outbox.write(added=ACTIONS)
        self.clock.advance(PATIENCE - 0.1)
        self.assertNoResult(written)
        self.clock.advance(0.1)
        self.successResultOf(written)

    def test_disk_refuses(self) -> None:
        """
        A disk that refuses is logged once; rules go on, and when it accepts again, so does the file.
        """
        failing = True

        def full(function: Callable[[], Any]) -> Deferred[Any]:
            return fail(sqlite3.OperationalError("database or disk is full")) if failing else at_once(function)

        outbox = self.open(full)
        self.assertEqual((self.states, self.actions), ({}, ()))
        for action in ACTIONS[:2]:
            self.successResultOf(outbox.write(added=[action]))
        failing = False
        self.successResultOf(outbox.write(added=ACTIONS[2:]))
        self.open()
        self.assertEqual(self.actions, ACTIONS[2:])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_folder(self) -> None:
        """
        A file that cannot be opened is not taken for a damaged one.
        """
        self.file = self.file.parent / "missing" / "rules.sqlite"
        with capturedLogs() as events:
            self.open()
        self.assertEqual((self.states, self.actions), ({}, ()))
        (line,) = map(formatEvent, events)
        self.assertIn("cannot be used: unable to open database file", line or "")

    def test_damaged(self) -> None:
        """
        A damaged file is set aside, and a new one begins.
        """
        for content in (b"not a database" * 100, b""):
            self.file.write_bytes(content)
            outbox = self.open()
            self.assertEqual((self.states, self.actions), ({}, []))
            self.successResultOf(outbox.write({"smoke": KEPT}, ACTIONS))
            self.successResultOf(Deferred.fromCoroutine(outbox.close()))
        self.assertTrue(self.file.with_suffix(".damaged").exists())
        with sqlite3.connect(self.file) as db:
            db.execute("update action set payload = '{'")
        db.close()
        self.open()
        self.assertEqual((self.states, self.actions), ({}, []))
        self.assertIn("rules.sqlite", os.listdir(self.file.parent))
