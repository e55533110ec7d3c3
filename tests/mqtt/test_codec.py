"""
paho as a codec.
"""

from __future__ import annotations

from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from twisted.trial.unittest import SynchronousTestCase

from usbgate.mqtt.codec import PACKET_LIMIT, Codec, Wire


class HookTests(SynchronousTestCase):
    """
    What is used of paho without its promise.
    """

    def test_create_socket(self) -> None:
        """
        paho asks the one private method that is overridden for its socket, and does all else with what it got: with a
        release for which that is no longer so, usbgate must not connect by paho's own sockets, which block.
        """
        sent: list[bytes] = []
        wire = Wire(sent.append, lambda: sent.append(b"closed"))
        codec = Codec(
            wire,
            callback_api_version=CallbackAPIVersion.VERSION2,
            client_id="me",
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        codec.connect_async("broker.invalid")
        codec.reconnect()
        self.assertIs(codec.socket(), wire, "paho does not call _create_socket any more")
        self.assertEqual([data[:1] for data in sent], [b"\x10"])  # CONNECT
        accepted: list[object] = []
        codec.on_connect = lambda *arguments: accepted.append(arguments[3])
        for byte in b"\x20\x03\x00\x00\x00":  # CONNACK
            wire.feed(bytes([byte]))
            codec.loop_read()
        self.assertEqual([*map(str, accepted)], ["Success"])
        codec.disconnect()
        self.assertEqual([data[:1] for data in sent[1:]], [b"\xe0", b"c"])  # DISCONNECT, and closed
        self.assertTrue(codec.closed)


class WireTests(SynchronousTestCase):
    """
    What paho reads from.
    """

    def test_read(self) -> None:
        """
        Bytes come in order, as many as there are; none is an error of a socket that does not block.
        """
        wire = Wire(lambda data: None, lambda: None)
        wire.feed(b"abc")
        self.assertEqual((wire.recv(1), wire.unread), (b"a", 2))
        wire.feed(b"d")
        self.assertEqual((wire.recv(10), wire.unread), (b"bcd", 0))
        self.assertRaises(BlockingIOError, wire.recv, 1)

    def test_too_large(self) -> None:
        """
        A packet that is larger than what usbgate takes ends the connection before it fills the memory.
        """
        wire = Wire(lambda data: None, lambda: None)
        wire.feed(b"abc")
        self.assertRaises(ConnectionError, wire.recv, PACKET_LIMIT + 1)
