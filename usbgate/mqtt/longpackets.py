"""
Messages that are too long, cut before they fill the memory.

Over MQTT 5, a client says how long a packet may be, and the broker keeps back what is longer. Over 3.1.1 it sends
everything. To close the connection would be wrong: a retained message would come again each time.
"""

from __future__ import annotations

PUBLISH = 0x30
_LENGTH_BYTES = 4  # at most


class LongPackets:
    """
    Cuts the packets of a connection: what is longer than may be is a shorter message then, too long to be anything that
    usbgate reads.
    """

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: The most bytes of a packet, not counting its head; a topic must fit into it.
        """
        self._limit = limit
        self._head = bytearray()  # of the packet that begins, as far as it has come
        self._pass = 0  # bytes of the current packet that are passed on
        self._drop = 0  # and those that then are not

    def cut(self, data: bytes) -> bytes:
        """
        Return what of these bytes is to be read.
        """
        kept = []
        at = 0
        while at < len(data):
            if self._pass:
                piece = data[at : at + self._pass]
                kept.append(piece)
                self._pass -= len(piece)
                at += len(piece)
            elif self._drop:
                dropped = min(self._drop, len(data) - at)
                self._drop -= dropped
                at += dropped
            else:
                self._head.append(data[at])
                at += 1
                if len(self._head) > 1 and (data[at - 1] < 0x80 or len(self._head) > _LENGTH_BYTES):
                    kept.append(self._begin())
        return b"".join(kept)

    def _begin(self) -> bytes:
        # Returns the head to be read, once the packet's is whole.
        kind, *digits = self._head
        self._head.clear()
        length = sum((digit & 0x7F) << 7 * place for place, digit in enumerate(digits))
        self._pass = length
        if kind & 0xF0 == PUBLISH and length > self._limit:
            self._pass, self._drop = self._limit, length - self._limit
        return bytes([kind, *_digits(self._pass)])


def _digits(length: int) -> list[int]:
    digits = []
    while True:
        length, digit = divmod(length, 0x80)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return digits
