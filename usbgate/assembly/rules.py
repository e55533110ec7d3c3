"""
The rules, and what they do.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from usbgate.config.settings import Settings
from usbgate.core.clock import IClock
from usbgate.gateway.gateway import Gateway
from usbgate.mqtt.interfaces import IPublisher
from usbgate.rules.actions.command import CommandAction
from usbgate.rules.actions.interfaces import IAction
from usbgate.rules.outbox import Outbox
from usbgate.rules.service import RuleService

T = TypeVar("T")


def make_rules(
    reactor: Any,
    clock: IClock,
    settings: Settings,
    gateway: Gateway,
    name: str,
    publisher: IPublisher | None,
) -> RuleService:
    """
    Make what looks at the rules, and carries out what they fire.

    Args:
        reactor: The reactor.
        clock: The wall clock.
        settings: The configuration.
        gateway: The gateway.
        name: The name of this usbgate.
        publisher: Publishes by MQTT; None if that is not configured.
    """

    def in_thread(function: Callable[[], T]) -> Deferred[T]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function)

    @cache
    def find_action(kind: str) -> IAction | None:
        # Imported when they are used for the first time, since they take time and memory.
        match kind:
            case "command":
                return CommandAction(gateway)
            case "mail":
                from usbgate.rules.actions.mail import MailAction

                return MailAction(reactor, lambda: rules.mail, socket.gethostname(), in_thread)
            case "webhook":
                from usbgate.rules.actions.webhook import WebhookAction

                return WebhookAction(reactor)
            case "publish" if publisher is not None:
                from usbgate.rules.actions.publish import PublishAction

                return PublishAction(publisher)
        return None

    outbox = Outbox(reactor, settings.state / "rules.sqlite", in_thread)
    rules = RuleService(reactor, clock, gateway, outbox, find_action, settings.rules, settings.mail, name)
    gateway.restored.append(rules.restored)
    gateway.queries.list_rules = rules.summaries
    return rules
