"""
How an action is carried out, and how it fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from zope.interface import Attribute, Interface

from usbgate.rules.outbox import WaitingAction
from usbgate.rules.settings import RuleSettings


class ActionFailed(Exception):
    """
    An action failed, and trying it again would not help; the text says why.
    """


class TryAgain(ActionFailed):
    """
    An action failed, and may succeed later.
    """


class IAction(Interface):
    """
    Carries out one kind of actions.
    """

    patience: float = Attribute("Seconds after which an action is given up.")
    at_most_once: bool = Attribute("Whether an action is forgotten before it is begun, and not once it is done.")

    def destination(action: WaitingAction) -> str:
        """
        Return where an action goes: those of one kind with the same destination are carried out one after the other.
        """

    def details(rule: RuleSettings, action: WaitingAction) -> Mapping[str, str] | None:
        """
        Return what is recorded of an action; None if it is recorded elsewhere.
        """

    def perform(rule: RuleSettings, action: WaitingAction) -> Awaitable[None]:
        """
        Carry out an action; it may be cancelled.

        Raises:
            TryAgain: It failed, and may succeed later.
            ActionFailed: It failed.
        """
