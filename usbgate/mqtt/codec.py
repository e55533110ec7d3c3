"""
paho's MQTT client as a codec: it encodes, decodes and keeps the state of one connection, and never has a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client

from usbgate.mqtt.longpackets import LongPackets

# Bytes. The largest packet that is received: questions are lines, answers of Home Assistant a word. A longer message is
# cut.
PACKET_LIMIT = 64 * 1024

_PUBREC = 0x50  # what paho sends for a message of QoS 2, which it then keeps until the broker releases it


class Wire:
    """
    What paho uses like a socket that does not block.
    """

    def __init__(self, write: Callable[[bytes], None], close: Callable[[], None]) -> None:
        """
        Args:
            write: Sends bytes.
            close: Called when paho closes the connection.
        """
        self._write = write
        self._close = close
        self._packets = LongPackets(PACKET_LIMIT)
        self._data = b""
        self._read = 0  # bytes of it

    def feed(self, data: bytes) -> None:
        """
        Add bytes that were received.
        """
        self._data = self._data[self._read :] + self._packets.cut(data)
        self._read = 0

    @property
    def unread(self) -> int:
        """
        How many bytes paho has not read yet.
        """
        return len(self._data) - self._read

    def recv(self, buffer_size: int) -> bytes:
        """
        Return at most so many bytes; paho asks for what is missing of a packet.
        """
        if buffer_size > PACKET_LIMIT:
            raise ConnectionError(f"a packet of more than {PACKET_LIMIT} bytes")
        found = self._data[self._read : self._read + buffer_size]
        if not found:
            raise BlockingIOError
        self._read += len(found)
        return found

    def send(self, buffer: bytes | bytearray) -> int:
        """
        Send all bytes of a packet.
        """
        if buffer[0] & 0xF0 == _PUBREC:
            raise ConnectionError("a message of QoS 2, to which nobody has subscribed")
        self._write(bytes(buffer))
        return len(buffer)

    def close(self) -> None:
        """
        Close the connection.
        """
        self._data = b""
        self._close()

    def setblocking(self, flag: bool) -> None:
        """
        Do nothing: it never blocks.
        """

    def fileno(self) -> int:
        """
        Return -1, as of a socket that is closed: there is no descriptor.
        """
        return -1


class Codec(Client):
    """
    A client of paho's for one connection, which others read (`loop_read`), write (`loop_write`) and time (`loop_misc`).
    """

    def __init__(self, wire: Wire, **options: Any) -> None:
        """
        Args:
            wire: The connection.
            options: As of paho's client.
        """
        self._wire = wire
        super().__init__(**options)

    def _create_socket(self) -> Wire:
        # The one private hook of paho's; `tests/mqtt/test_codec.py` fails if a release does without it.
        return self._wire

    @property
    def closed(self) -> bool:
        """
        Whether paho has closed the connection.
        """
        return self.socket() is None
