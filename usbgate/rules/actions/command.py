"""
A command to a sensor.
"""

from __future__ import annotations

from zope.interface import implementer

from usbgate.core.errors import Busy, Offline, RequestError, Unknown
from usbgate.core.holders import Holder
from usbgate.core.messages import parse_request
from usbgate.core.model import Priority
from usbgate.gateway.interfaces import IGateway
from usbgate.rules.actions.interfaces import ActionFailed, IAction, TryAgain
from usbgate.rules.outbox import WaitingAction
from usbgate.rules.settings import RuleSettings


@implementer(IAction)
class CommandAction:
    """
    Asks the gateway, behind the requests of people.
    """

    patience = 60.0  # a lamp that is switched on an hour late helps nobody
    at_most_once = True

    def __init__(self, gateway: IGateway) -> None:
        """
        Args:
            gateway: The gateway.
        """
        self._gateway = gateway
        self._holder = Holder("rules")

    def destination(self, action: WaitingAction) -> str:
        sensor: str = action.payload["sensor"]
        return sensor

    def details(self, rule: RuleSettings, action: WaitingAction) -> None:
        return None  # the gateway records each request

    async def perform(self, rule: RuleSettings, action: WaitingAction) -> None:
        payload = action.payload
        fields = {"MSG": payload["command"], "ID": payload["sensor"], **payload["arguments"]}
        origin = f"rule {action.rule}"
        try:
            request = parse_request(fields, origin, origin)._replace(priority=Priority.RULE)
            await self._gateway.ask(request, self._holder)
        except (Offline, Busy, Unknown) as error:  # it was not sent
            raise TryAgain(f"sensor {payload['sensor']}: {error.text}") from None
        except RequestError as error:
            raise ActionFailed(f"sensor {payload['sensor']}: {error.text}") from None
