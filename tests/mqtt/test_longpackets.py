"""
Messages that are too long.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from usbgate.mqtt.codec import PACKET_LIMIT, Codec, Wire
from usbgate.mqtt.longpackets import LongPackets


def packet(kind: int, body: bytes) -> bytes:
    """
    Encode a packet.
    """
    digits: list[int] = []
    length = len(body)
    while not digits or length:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
    return bytes([kind, *digits]) + body


class LongPacketsTests(SynchronousTestCase):
    """
    `LongPackets`.
    """

    @given(
        st.lists(st.tuples(st.sampled_from([0x30, 0x3D, 0x40, 0xE0]), st.integers(0, 300))),
        st.lists(st.integers(0, 1000)),
    )
    def test_cut(self, packets: list[tuple[int, int]], cuts: list[int]) -> None:
        """
        Messages keep as many bytes as are allowed, all other packets stay as they are, however the bytes come.
        """
        data = b"".join(packet(kind, bytes(size)) for kind, size in packets)
        expected = b"".join(
            packet(kind, bytes(min(size, 200) if kind in (0x30, 0x3D) else size)) for kind, size in packets
        )
        long_packets = LongPackets(200)
        found = b""
        edges = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
        for start, end in pairwise(edges):
            found += long_packets.cut(data[start:end])
        self.assertEqual(found, expected)

    def test_paho(self) -> None:
        """
        What is left of a long message is read and acknowledged as a message, and so is the next one.
        """
        sent: list[bytes] = []
        wire = Wire(sent.append, lambda: None)
        codec = Codec(
            wire,
            callback_api_version=CallbackAPIVersion.VERSION2,
            client_id="me",
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        received: list[tuple[str, int]] = []

        def receive(client: object, data: object, message: MQTTMessage) -> None:
            received.append((message.topic, len(message.payload)))

        codec.on_message = receive
        codec.connect_async("broker.invalid")
        codec.reconnect()
        data = packet(0x20, b"\x00\x00")  # CONNACK
        for number, size in enumerate((10_000_000, 5), 1):  # with QoS 1
            data += packet(0x32, b"\x00\x01t" + number.to_bytes(2, "big") + bytes(size))
        for start in range(0, len(data), 65536):
            wire.feed(data[start : start + 65536])
            self.assertLessEqual(wire.unread, 2 * PACKET_LIMIT)
            while wire.unread > 4:
                codec.loop_read()
        self.assertEqual(received, [("t", PACKET_LIMIT - 5), ("t", 5)])
        self.assertEqual(b"".join(sent[1:]), b"\x40\x02\x00\x01\x40\x02\x00\x02")  # PUBACKs
