"""
Carrying actions out.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.rules import ListedAction, at_once, rule
from usbgate.core.model import Action
from usbgate.rules.actions.interfaces import ActionFailed, TryAgain
from usbgate.rules.outbox import Outbox, WaitingAction
from usbgate.rules.queues import FIRST_PAUSE, LAST_PAUSE, WAITING_LIMIT, ActionQueues


def action(number: int, to: str = "there", kind: str = "mail", at: int = 0) -> WaitingAction:
    """
    Return an action.
    """
    return WaitingAction(f"a{number}", "smoke", kind, at, {"to": to})


class ActionQueuesTests(SynchronousTestCase):
    """
    Actions that the test ends.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.file = Path(self.mktemp())
        self.mail = ListedAction()
        self.command = ListedAction(patience=60.0, at_most_once=True)
        self.rules = {"smoke": rule("day mon", "smoke")}
        self.recorded: list[Action] = []
        self.queues = self.start()

    def start(self) -> ActionQueues:
        """
        Start, with what was kept.
        """
        self.outbox = Outbox(self.clock, self.file, at_once)
        _, self.kept = self.successResultOf(Deferred.fromCoroutine(self.outbox.open()))
        found = {"mail": self.mail, "command": self.command}
        return ActionQueues(self.clock, found.get, self.outbox, self.rules.get, self.recorded.append)

    def add(self, *actions: WaitingAction, wall: int = 0) -> None:
        """
        Keep actions, and begin them.
        """
        self.successResultOf(self.outbox.write(added=actions))
        self.queues.add(actions, wall)
        self.clock.advance(0)

    def left(self) -> list[str]:
        """
        Return the ids of what is on disk.
        """
        self.start()
        return [each.id for each in self.kept]

    def test_in_order(self) -> None:
        """
        Actions for one destination wait for each other, those for others do not; what is done is forgotten.
        """
        self.add(action(1), action(2), action(3, "elsewhere"))
        self.assertEqual(self.mail.ids, ["a1", "a3"])
        self.assertEqual(self.queues.waiting(), {"smoke": 3})
        self.assertEqual(self.left(), ["a1", "a2", "a3"])
        self.mail.end(0)
        self.assertEqual(self.mail.ids, ["a1", "a3", "a2"])
        self.mail.end(1)
        self.mail.end(2)
        self.assertEqual((self.left(), self.queues.waiting()), ([], {}))
        (first, *_) = self.recorded
        self.assertEqual(first, Action("mail", "rule smoke", "rule smoke", {"ACTION": "a1"}, None, "done"))

    def test_again(self) -> None:
        """
        What failed is tried again, later and later, with the same id; the first failure and the success are logged.
        """
        with capturedLogs() as events:
            self.add(action(1), action(2))
            pause, tries = FIRST_PAUSE, 1
            while self.clock.seconds() < 3000:
                self.mail.end(error=TryAgain("no route"))
                self.assertEqual(self.queues.troubles(), {"smoke": "no route"})
                self.clock.advance(pause - 0.1)
                self.assertEqual(self.mail.ids, ["a1"] * tries)
                self.clock.advance(0.1)
                pause, tries = min(2 * pause, LAST_PAUSE), tries + 1
            self.mail.end()
            self.mail.end()
        self.assertEqual((self.mail.ids, self.queues.troubles()), (["a1"] * tries + ["a2"], {}))
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["rule smoke: mail failed: no route; trying again", "rule smoke: mail succeeds again"],
        )
        self.assertEqual(self.left(), [])

    def test_given_up(self) -> None:
        """
        What can't succeed, and what took too long, is given up; the next one is tried.
        """
        with capturedLogs() as events:
            self.add(action(1), action(2, at=-3_595_000), action(3))
            self.mail.end(error=ActionFailed("550 no such user"))
            self.mail.end(error=TryAgain("no route"))
            self.clock.advance(FIRST_PAUSE)
            self.mail.end()
        self.assertEqual(self.mail.ids, ["a1", "a2", "a3"])
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "rule smoke: mail is given up: 550 no such user",
                "rule smoke: mail failed: no route; trying again",
                "rule smoke: mail is given up: too much time has passed",
                "rule smoke: mail succeeds again",
            ],
        )
        self.assertEqual([each.outcome for each in self.recorded], ["failed", "failed", "done"])
        self.assertEqual(self.left(), [])

    def test_unexpected(self) -> None:
        """
        A bug in one action does not stop the others.
        """
        self.add(action(1), action(2))
        self.mail.end(error=ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.mail.ids, ["a1", "a2"])

    def test_at_most_once(self) -> None:
        """
        A command is forgotten before it is begun; others are not before they are done.
        """
        self.add(action(1), action(2, kind="command", to="lamp"))
        self.assertEqual((self.mail.ids, self.command.ids), (["a1"], ["a2"]))
        self.assertEqual(self.left(), ["a1"])
        self.command.end(error=TryAgain("offline"))
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(self.command.ids, ["a2", "a2"])

    def test_stop(self) -> None:
        """
        What is not done at the end is done after the next start, but not by a rule that is no more.
        """
        self.add(action(1), action(2, "elsewhere"))
        self.mail.end(1, TryAgain("no route"))
        stopped = Deferred.fromCoroutine(self.queues.stop())
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.queues = self.start()
        self.queues.add(self.kept, 0)
        self.clock.advance(0)
        self.assertEqual(self.mail.ids, ["a1", "a2", "a1", "a2"])
        self.queues = self.start()
        del self.rules["smoke"]
        self.queues.add(self.kept, 0)
        self.assertEqual(self.left(), [])

    def test_stop_late(self) -> None:
        """
        An action that fails because it is cancelled is not tried again, nor logged; it is kept.
        """
        self.patch(self.mail, "perform", lambda *_: Deferred(lambda done: done.errback(TryAgain("cancelled"))))
        self.add(action(1))
        with capturedLogs() as events:
            self.successResultOf(Deferred.fromCoroutine(self.queues.stop()))
        self.assertEqual((events, self.left()), ([], ["a1"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_such_kind(self) -> None:
        """
        An action that the configuration has no more is forgotten.
        """
        self.add(action(1, kind="publish"))
        self.assertEqual(self.left(), [])

    def test_limit(self) -> None:
        """
        Only so many wait; that others are dropped is logged once.
        """
        actions = [action(number) for number in range(WAITING_LIMIT + 1)]
        with capturedLogs() as events:
            admitted = self.queues.admit(actions)
            self.queues.add(admitted, 0)
            self.assertEqual((len(admitted), self.queues.admit(actions[:3])), (WAITING_LIMIT, []))
        self.assertEqual(self.queues.dropped, {"smoke": 4})
        self.assertEqual(
            [formatEvent(event) for event in events], ["1000 actions of rules wait: further ones are dropped"]
        )
