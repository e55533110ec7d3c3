"""
A publisher of MQTT messages in memory.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from usbgate.mqtt.interfaces import IPublisher, MessageRefused, NotDelivered


class Published(NamedTuple):
    """
    A message that was published.
    """

    topic: str
    payload: bytes
    retain: bool
    expiry: int | None
    correlation: bytes | None

    @property
    def json(self) -> dict[str, object]:
        """
        Its payload.
        """
        return msgspec.json.decode(self.payload, type=dict[str, object])


@implementer(IPublisher)
class MemoryPublisher:
    """
    Keeps what is published.

    Attributes:
        connected: Whether anything is.
        permitted: Whether the broker permits it.
        published: The messages, oldest first.
    """

    def __init__(self) -> None:
        self.connected = self.permitted = True
        self.published: list[Published] = []

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        expiry: int | None = None,
        correlation: bytes | None = None,
    ) -> bool:
        if self.connected:
            self.published.append(Published(topic, payload, retain, expiry, correlation))
        return self.connected

    def deliver(self, topic: str, payload: bytes, *, retain: bool = False) -> Deferred[None]:
        if not self.permitted:
            return fail(MessageRefused("the broker does not take it"))
        if self.publish(topic, payload, retain=retain):
            return succeed(None)
        return fail(NotDelivered("the broker is away"))

    def room(self) -> Deferred[None]:
        return succeed(None)

    def take(self) -> list[Published]:
        """
        Return what was published since the last call.
        """
        published, self.published = self.published, []
        return published
