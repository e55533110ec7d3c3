"""
Carrying actions out: for each destination one after the other, again if they fail (docs/rules.md, "If an action
fails").
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from usbgate.core.model import Action
from usbgate.rules.actions.interfaces import ActionFailed, IAction, TryAgain
from usbgate.rules.outbox import Outbox, WaitingAction
from usbgate.rules.settings import RuleSettings

WAITING_LIMIT = 1_000  # actions in all: 100 rules that fire ten times while a server is away
FIRST_PAUSE, LAST_PAUSE = 5.0, 600.0  # seconds between tries; each pause is twice the one before


class _Entry(NamedTuple):
    action: WaitingAction
    until: float  # when it is given up, in monotonic seconds


class _Queue:
    """
    The actions for one destination.

    Attributes:
        actions: Those that are not done, oldest first.
        running: Carries them out; cancelled at the end.
        trouble: Why the last try failed, which is logged already; None if it did not.
        begun: The id of the action that was begun last.
    """

    def __init__(self) -> None:
        self.actions: deque[_Entry] = deque()
        self.running: Deferred[None] | None = None
        self.trouble: str | None = None
        self.begun = ""


class ActionQueues:
    """
    All actions that are not done.

    Attributes:
        dropped: How many actions of each rule were not even tried, since too many waited.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        find_action: Callable[[str], IAction | None],
        outbox: Outbox,
        find_rule: Callable[[str], RuleSettings | None],
        record: Callable[[Action], None],
    ) -> None:
        """
        Args:
            reactor: The monotonic clock.
            find_action: Returns who carries out actions of a kind; None if that is not configured.
            outbox: Keeps what is not done.
            find_rule: Returns a rule by its name; None if there is none any more.
            record: Records what was done.
        """
        self._reactor = reactor
        self._find_action = find_action
        self._outbox = outbox
        self._find_rule = find_rule
        self._record = record
        self._queues: dict[str, _Queue] = {}
        self._full = False
        self._stopped = False
        self.dropped: Counter[str] = Counter()

    def waiting(self) -> Counter[str]:
        """
        Count the actions that are not done, by rule.
        """
        return Counter(each.action.rule for queue in self._queues.values() for each in queue.actions)

    def troubles(self) -> Mapping[str, str]:
        """
        Return why the actions of rules are not done, by rule.
        """
        return {
            each.action.rule: queue.trouble
            for queue in self._queues.values()
            if queue.trouble is not None
            for each in queue.actions
        }

    def admit(self, actions: Sequence[WaitingAction]) -> Sequence[WaitingAction]:
        """
        Return those of some new actions for which there is room, in order; the others are dropped.
        """
        room = max(0, WAITING_LIMIT - sum(len(queue.actions) for queue in self._queues.values()))
        if len(actions) > room:
            self.dropped.update(action.rule for action in actions[room:])
            if not self._full:
                self.log.error("{limit} actions of rules wait: further ones are dropped", limit=WAITING_LIMIT)
        self._full = len(actions) > room
        return actions[:room]

    def add(self, actions: Iterable[WaitingAction], wall: int) -> None:
        """
        Carry actions out, as soon as those before them at the same destination are done or given up.

        Args:
            actions: The actions, oldest first; they are in the outbox.
            wall: Now: whole milliseconds since 1970, UTC.
        """
        for action in actions:
            performer = self._find_action(action.kind)
            if performer is None or self._find_rule(action.rule) is None:
                line = "rule {rule}: {kind} is not done, since it is not configured any more"
                self.log.warn(line, rule=action.rule, kind=action.kind)
                self._outbox.write(removed=[action.id])
                continue
            age = max(0.0, (wall - action.at) / 1000)
            destination = f"{action.kind} {performer.destination(action)}"
            queue = self._queues.setdefault(destination, _Queue())
            queue.actions.append(_Entry(action, self._reactor.seconds() + performer.patience - age))
            if queue.running is None and not self._stopped:
                queue.running = Deferred.fromCoroutine(self._run(destination, queue, performer))
                queue.running.addErrback(lambda failure: self.log.failure("unexpected error in actions", failure))

    async def stop(self) -> None:
        """
        Try nothing again. What is not done stays in the outbox.
        """
        self._stopped = True
        running = [queue.running for queue in self._queues.values() if queue.running is not None]
        for each in running:
            each.cancel()
        await gatherResults(running)

    async def _run(self, destination: str, queue: _Queue, performer: IAction) -> None:
        try:
            await deferLater(self._reactor, 0)  # `running` is set by then
            pause = FIRST_PAUSE
            while queue.actions:
                if await self._try(queue, performer):
                    queue.actions.popleft()
                    pause = FIRST_PAUSE
                elif self._stopped:
                    return
                else:
                    await deferLater(self._reactor, pause)
                    pause = min(2 * pause, LAST_PAUSE)
            del self._queues[destination]
        except CancelledError:
            pass

    async def _try(self, queue: _Queue, performer: IAction) -> bool:
        """
        Try the first action of a queue.

        Returns:
            Whether nothing more is to be done for it.
        """
        action, until = queue.actions[0]
        rule = self._find_rule(action.rule)
        fields = {"rule": action.rule, "kind": action.kind}
        outcome = "failed"
        details: Mapping[str, str] | None = None
        if performer.at_most_once and queue.begun != action.id:
            queue.begun = action.id
            await self._outbox.write(removed=[action.id])
        try:
            if rule is None:
                raise ActionFailed("the configuration has this rule no more")
            details = performer.details(rule, action)
            if self._reactor.seconds() >= until:
                raise ActionFailed("too much time has passed")
            await performer.perform(rule, action)
            outcome = "done"
            if queue.trouble is not None:
                queue.trouble = None
                self.log.info("rule {rule}: {kind} succeeds again", **fields)
        except TryAgain as error:
            if self._stopped:  # it was cancelled, and stays in the outbox
                return False
            if self._reactor.seconds() < until:
                if queue.trouble is None:
                    self.log.warn(
                        "rule {rule}: {kind} failed: {reason}; trying again",
                        **fields,
                        reason=str(error),
                    )
                queue.trouble = str(error)
                return False
            self.log.error("rule {rule}: {kind} is given up: {reason}", **fields, reason=str(error))
        except ActionFailed as error:
            self.log.error("rule {rule}: {kind} is given up: {reason}", **fields, reason=str(error))
        except CancelledError:
            raise
        except Exception:
            self.log.failure("unexpected error in an action of rule {rule}", rule=action.rule)
        if not performer.at_most_once:
            self._outbox.write(removed=[action.id])
        if details is not None:
            who = f"rule {action.rule}"
            self._record(Action(action.kind, who, who, details, None, outcome))
        return True
