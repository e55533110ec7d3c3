"""
An MQTT message.
"""

from __future__ import annotations

from collections.abc import Mapping

from zope.interface import implementer

from usbgate.mqtt.interfaces import IPublisher, MessageRefused, NotDelivered
from usbgate.rules.actions.interfaces import ActionFailed, IAction, TryAgain
from usbgate.rules.outbox import WaitingAction
from usbgate.rules.settings import RuleSettings


@implementer(IAction)
class PublishAction:
    """
    Publishes by the connection that usbgate has to a broker.
    """

    patience = 86_400.0
    at_most_once = False

    def __init__(self, publisher: IPublisher) -> None:
        """
        Args:
            publisher: Publishes messages.
        """
        self._publisher = publisher

    def destination(self, action: WaitingAction) -> str:
        return action.rule

    def details(self, rule: RuleSettings, action: WaitingAction) -> Mapping[str, str]:
        return {"TOPIC": action.payload["topic"]}

    async def perform(self, rule: RuleSettings, action: WaitingAction) -> None:
        payload = action.payload
        try:
            await self._publisher.deliver(payload["topic"], payload["payload"].encode(), retain=payload["retain"])
        except MessageRefused as error:
            raise ActionFailed(str(error)) from None
        except NotDelivered as error:
            raise TryAgain(str(error)) from None
