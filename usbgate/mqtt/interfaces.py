"""
The parts of the MQTT client as they see each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


class Message(NamedTuple):
    """
    A message that the broker delivered.

    Attributes:
        topic: Its topic.
        payload: What it says.
        retained: Whether it was published as a retained message, now or earlier; over MQTT 3.1.1, whether it was
            retained before the subscription.
        response_topic: Where the answer shall go; None if it says nothing of that, as over MQTT 3.1.1.
        correlation: What the answer must carry; None if nothing.
        expires: When it is no longer to be acted on, on the reactor's clock; None for never.
    """

    topic: str
    payload: bytes
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    expires: float | None = None


class NotDelivered(Exception):
    """
    The broker did not acknowledge a message; the text says why. It may have it all the same.
    """


class MessageRefused(NotDelivered):
    """
    The broker does not take this message.
    """


class IPublisher(Interface):
    """
    Publishes messages.
    """

    connected: bool = Attribute("Whether the broker is connected.")

    def publish(
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        expiry: int | None = None,
        correlation: bytes | None = None,
    ) -> bool:
        """
        Publish a message, at least once (QoS 1). Who has many to publish waits for `room` in between.

        Args:
            topic: The topic.
            payload: What to say; an empty one removes a retained message.
            retain: Whether the broker keeps it for those who subscribe later.
            expiry: The whole seconds that it is of use for, at least 1; None for no limit. MQTT 3.1.1 has none.
            correlation: The correlation data of the message that this one answers. MQTT 3.1.1 has none.

        Returns:
            Whether it was sent. It is not while the broker is away, or takes nothing, or not so much; then it is
            counted and dropped.
        """

    def deliver(topic: str, payload: bytes, *, retain: bool = False) -> Deferred[None]:
        """
        Publish a message as `publish` does, and wait for the broker.

        Returns:
            Fires when the broker has acknowledged it; fails with `NotDelivered` if it was not sent, or if the
            connection is lost first, and with `MessageRefused` if the broker would not take it another time either
            (MQTT 5 says so).
        """

    def room() -> Deferred[None]:
        """
        Wait until the broker takes messages at once. This is what bounds messages by the thousand: some 20 fit between
        two calls.

        Returns:
            Fires when it does; of several callers, one after the other. It never fires once the broker is gone:
            cancel it in `IMqttPart.disconnected`.
        """


class IMqttPart(Interface):
    """
    A part that uses the connection to the broker.
    """

    filters: Sequence[str] = Attribute("The topic filters that it subscribes to at each connection.")
    retained: Sequence[str] = Attribute("Others, of which it also gets what is retained, after `connected`.")

    def connected(publisher: IPublisher) -> None:
        """
        The broker is connected, and the subscriptions to `filters` are made.
        """

    def received(message: Message) -> None:
        """
        A message for one of the filters, also of `retained`.
        """

    def disconnected() -> None:
        """
        The broker is gone, or usbgate stops; called once after each `connected`.
        """
