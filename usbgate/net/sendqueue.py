"""
What waits to be sent to one peer: how much it is, and whether the peer takes any of it (protocol §3, the end).
"""

from __future__ import annotations

import fcntl
import struct
import termios
from collections import deque
from collections.abc import Callable

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IConsumer, IDelayedCall, IFileDescriptor, IPullProducer, IReactorTime
from zope.interface import implementer

# Bytes given to the transport at once: what is measured as taken or not taken. Smaller, and a full-speed reader
# costs a reactor turn for too little; larger, and a slow one seems to take nothing for too long.
PIECE = 16 * 1024

STUCK_AFTER = 60.0  # seconds in which a peer must take something of what waits, protocol §3

# Looks at the kernel's own queue within that time: so much later than it should a peer is dropped at most. The kernel
# holds up to 4 MiB, and takes more only when a third of it is gone: a reader of 5 kB/s needs minutes for that.
LOOKS = 6


@implementer(IPullProducer)
class SendQueue:
    """
    A queue before a transport, since a transport does not tell how much it still holds.

    It is the transport's pull producer, but only while the transport holds something of it: so `loseConnection`
    waits for what is queued here too, and a transport that pulls all the time (TLS) has nobody to pull at.
    """

    def __init__(
        self, reactor: IReactorTime, transport: IConsumer, taken: Callable[[], None], stuck: Callable[[], None]
    ) -> None:
        """
        Stand before a transport.

        Args:
            reactor: For the time limit.
            transport: Where it goes.
            taken: Called whenever the transport has got rid of what it held.
            stuck: Called when something waited for `STUCK_AFTER` seconds and nothing of it was taken.
        """
        self._reactor = reactor
        self._transport = transport
        self._taken = taken
        self._stuck = stuck
        # Writing at once instead of a reactor turn later: 21 % off a round trip. Only on a bare socket: what
        # wraps one (TLS) forwards this method to the socket as it is, past the encryption.
        bare = isinstance(transport, FileDescriptor) and not getattr(transport, "TLS", False)
        self._send_now = transport.writeSomeData if bare and isinstance(transport, FileDescriptor) else None
        self._pieces: deque[bytes] = deque()
        self._queued = 0  # bytes in `_pieces`
        self._handed = 0  # bytes that the transport holds
        self._busy = False  # whether we are the transport's producer
        self._registering = False
        self._holds = 0
        self._closed = False
        self._progress = 0.0  # when something was taken last, or began to wait
        self._in_kernel: int | None = None  # bytes, at the last look
        self._timer: IDelayedCall | None = None

    @property
    def unsent(self) -> int:
        """
        How many bytes wait here and in the transport.
        """
        return self._queued + self._handed

    def write(self, data: bytes, at_once: bool = True) -> None:
        """
        Send data after all that was written before.

        Args:
            data: At least one byte.
            at_once: If false, it may wait until `flush`, or until the next data is sent.
        """
        if self._closed:
            return
        self._pieces.append(data)
        self._queued += len(data)
        if at_once and not self._holds:
            self.flush()

    def write_behind(self, data: bytes) -> None:
        """
        Send data after what the transport may hold already, which we have not seen.

        Args:
            data: At least one byte, the first that is written.
        """
        self._pieces.append(data)
        self._queued += len(data)
        self._hand_over()

    def hold(self) -> None:
        """
        Collect what is written until `release`, so that it goes out in one packet.
        """
        self._holds += 1

    def release(self) -> None:
        """
        Send what was collected.
        """
        self._holds -= 1
        self.flush()

    def flush(self) -> None:
        """
        Send as much as the transport has room for, held or not.
        """
        if self._closed:
            return
        if self._send_now is not None and not self._busy:
            while self._pieces:
                data = self._take(PIECE)
                sent = self._send_now(data)
                # An error shows again when the reactor writes, and is handled there.
                count = sent if isinstance(sent, int) and sent > 0 else 0
                if count < len(data):
                    self._pieces.appendleft(data[count:])
                    self._queued += len(data) - count
                    break
        if self._pieces and self._handed + len(self._pieces[0]) <= max(PIECE, len(self._pieces[0])):
            self._hand_over()

    def close(self) -> None:
        """
        The connection is over: forget what waits.
        """
        self._closed = True
        self._pieces.clear()
        self._queued = self._handed = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resumeProducing(self) -> None:
        """
        The transport has nothing left to send.
        """
        if self._registering or self._closed:  # registering calls this, too, with nothing taken yet
            return
        self._handed = 0
        self._progress = self._reactor.seconds()
        if self._pieces:
            self._hand_over()
        else:
            self._busy = False
            self._transport.unregisterProducer()
        self._taken()

    def stopProducing(self) -> None:
        """
        The transport was lost.
        """
        self.close()

    def _take(self, most: int) -> bytes:
        """
        Take at least one piece out of the queue, and more while they are no more than so many bytes.
        """
        if len(self._pieces) == 1:  # as nearly always
            self._queued = 0
            return self._pieces.popleft()
        taken = [self._pieces.popleft()]
        size = len(taken[0])
        while self._pieces and size + len(self._pieces[0]) <= most:
            taken.append(self._pieces.popleft())
            size += len(taken[-1])
        self._queued -= size
        return b"".join(taken)

    def _hand_over(self) -> None:
        data = self._take(PIECE - self._handed)
        self._handed += len(data)
        self._transport.write(data)
        if not self._busy:
            self._busy = True
            self._progress = self._reactor.seconds()
            self._registering = True
            self._transport.registerProducer(self, False)
            self._registering = False
            self._in_kernel = self._ask_kernel()
            if self._timer is None:
                self._timer = self._reactor.callLater(STUCK_AFTER / LOOKS, self._look)

    def _look(self) -> None:
        # One timer for many writes: it looks when it is due whether there was progress meanwhile.
        self._timer = None
        if not self._busy:
            return
        in_kernel = self._ask_kernel()
        if in_kernel != self._in_kernel:  # less: the peer took some; more: the kernel had room, so it took some, too
            self._in_kernel = in_kernel
            self._progress = self._reactor.seconds()
        left = self._progress + STUCK_AFTER - self._reactor.seconds()
        if left > 0:
            self._timer = self._reactor.callLater(min(left, STUCK_AFTER / LOOKS), self._look)
        else:
            self._stuck()

    def _ask_kernel(self) -> int | None:
        """
        Return how many bytes the kernel holds that the peer has not taken; None where it does not tell.
        """
        if not IFileDescriptor.providedBy(self._transport):
            return None
        try:
            (count,) = struct.unpack("i", fcntl.ioctl(self._transport.fileno(), termios.TIOCOUTQ, bytes(4)))
        except (OSError, ValueError):  # no socket or tty, or closed
            return None
        return int(count)
