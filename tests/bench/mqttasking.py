"""
The benchmark's client that asks over MQTT; run by tests/bench/load.py. It speaks as much of MQTT 3.1.1 as it needs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from tests.bench.asking import PATIENCE, Timing, connect

CONNECT, CONNACK, PUBLISH, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x30, 0x82, 0x90  # first bytes of packets, with QoS 0

ANSWERS = "bench/answers"


def text(value: str) -> bytes:
    """
    Encode a text: its length in two bytes, and its UTF-8.
    """
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def packet(kind: int, body: bytes) -> bytes:
    """
    Encode a packet.
    """
    length = len(body)
    head = bytearray([kind])
    while True:
        length, low = divmod(length, 128)
        head.append(low | (0x80 if length else 0))
        if not length:
            return bytes(head) + body


class MqttCrowd:
    """
    One connection that asks for several sensors, and again for each as soon as it is answered.
    """

    def __init__(self, port: int, topic: str, clients: int) -> None:
        """
        Connect.

        Args:
            port: The port of the broker.
            topic: Where to ask.
            clients: The number of sensors.
        """
        self._topic = text(topic)
        self._data = b""
        self._numbers = [0] * (clients + 1)
        self._sent = [0.0] * (clients + 1)
        self._waiting: set[int] = set()
        self._socket = connect(port)
        self._socket.send(packet(CONNECT, text("MQTT") + b"\x04\x02\x00\x00" + text("asking")))
        self._expect(CONNACK)
        self._socket.send(packet(SUBSCRIBE, b"\x00\x01" + text(ANSWERS) + b"\x00"))
        self._expect(SUBACK)

    def _expect(self, kind: int) -> None:
        (found, body), *_ = self._receive()
        if found != kind or body[-1] >= 0x80:
            raise AssertionError(f"the broker says {found:x} {body!r}")

    def ask(self, timing: Timing, rate: float = 0.0) -> dict[str, Any]:
        """
        Ask for a while; return the results. There is no `rate`: 0.
        """
        assert not rate
        for sensor in range(1, len(self._numbers)):
            self._ask(sensor)
        deadline = timing.end + PATIENCE
        while self._waiting and time.monotonic() < deadline:
            for kind, body in self._receive():
                assert kind == PUBLISH
                answer = json.loads(body[2 + len(ANSWERS) :])
                self._answered(answer, timing)
        return timing.results(len(self._waiting))

    def _ask(self, sensor: int) -> None:
        self._numbers[sensor] += 1
        number = self._numbers[sensor]
        question = {"sensor": str(sensor), "arguments": {"N": number}, "origin": "b", "reply": ANSWERS, "id": number}
        self._waiting.add(sensor)
        self._sent[sensor] = time.monotonic()
        self._socket.send(packet(PUBLISH, self._topic + json.dumps(question).encode()))

    def _answered(self, answer: dict[str, Any], timing: Timing) -> None:
        now = time.monotonic()
        sensor = int(answer["sensor"])
        self._waiting.remove(sensor)
        number = self._numbers[sensor]
        if answer.get("values") == {"VALUE": number} and answer["id"] == number:
            timing.answered(self._sent[sensor], now)
        else:
            timing.refused(b"ERROR:" * ("error" in answer) + json.dumps(answer).encode())
        if now < timing.end:
            self._ask(sensor)

    def _receive(self) -> Iterator[tuple[int, bytes]]:
        # Waits for at least a part of a packet; yields the first byte and the body of each whole one.
        self._socket.settimeout(PATIENCE)
        found: list[tuple[int, bytes]] = []
        while not found:
            try:
                received = self._socket.recv(65536)
            except TimeoutError:
                break
            if not received:
                raise AssertionError("the broker closed the connection")
            self._data += received
            while (whole := self._first()) is not None:
                found.append(whole)
        return iter(found)

    def _first(self) -> tuple[int, bytes] | None:
        length = shift = 0
        for index, byte in enumerate(self._data[1:5], 2):
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if len(self._data) < index + length:
                    return None
                kind, body = self._data[0], self._data[index : index + length]
                self._data = self._data[index + length :]
                return kind, body
        return None
