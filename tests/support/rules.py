"""
Rules and their actions, for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from usbgate.rules.actions.interfaces import IAction
from usbgate.rules.outbox import WaitingAction
from usbgate.rules.settings import RuleSettings, When

_T = TypeVar("_T")


def rule(when: str, name: str = "r", **settings: Any) -> RuleSettings:
    """
    Return a rule.
    """
    return RuleSettings(name=name, when=When.parse(when), **settings)


def at_once(function: Callable[[], _T]) -> Deferred[_T]:
    """
    Do what another thread would do.
    """
    return maybeDeferred(function)


@implementer(IAction)
class ListedAction:
    """
    An action that the test ends.

    Attributes:
        tried: What was tried: the ids of actions, each with the Deferred that ends the try.
    """

    def __init__(self, patience: float = 3600.0, at_most_once: bool = False) -> None:
        self.patience = patience
        self.at_most_once = at_most_once
        self.tried: list[tuple[WaitingAction, Deferred[None]]] = []

    def destination(self, action: WaitingAction) -> str:
        return str(action.payload.get("to", "there"))

    def details(self, rule: RuleSettings, action: WaitingAction) -> Mapping[str, str]:
        return {"ACTION": action.id}

    def perform(self, rule: RuleSettings, action: WaitingAction) -> Deferred[None]:
        """
        Remember the try.
        """
        done: Deferred[None] = Deferred()
        self.tried.append((action, done))
        return done

    @property
    def ids(self) -> list[str]:
        """
        The ids of what was tried, in order.
        """
        return [action.id for action, _ in self.tried]

    def end(self, index: int = -1, error: Exception | None = None) -> None:
        """
        Let a try succeed, or fail.
        """
        done = self.tried[index][1]
        if error is None:
            done.callback(None)
        else:
            done.errback(error)
