"""
Data waiting to be sent to one peer: how much it is, and whether the peer still reads (protocol §3, the end).
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

# Bytes handed to the transport at once; it reports only that it sent all of them. Smaller, and a fast reader costs a
# reactor turn for too little; larger, and a slow one seems to read nothing for too long.
PIECE = 16 * 1024

STUCK_AFTER = 60.0  # seconds within which a peer must read some of the waiting data, protocol §3

# Checks of the kernel's send queue within that time: a peer that stopped reading is found one such step late at most.
# The kernel holds up to 4 MiB, and accepts more only when a third of it is sent: a reader of 5 kB/s needs minutes.
CHECKS = 6


@implementer(IPullProducer)
class SendQueue:
    """
    A queue before a transport, since a transport does not report how much it still holds.

    It is the transport's pull producer, but only while the transport holds some of its data. So `loseConnection` waits
    for the queued data, too, and a transport that pulls all the time (TLS) is not left polling an empty queue.

    Attributes:
        unsent: Bytes waiting here and in the transport.
    """

    def __init__(
        self, reactor: IReactorTime, transport: IConsumer, sent: Callable[[], None], stuck: Callable[[], None]
    ) -> None:
        """
        Args:
            reactor: For the time limit.
            transport: Where the data goes.
            sent: Called whenever the transport has sent all that it held.
            stuck: Called when data waited for `STUCK_AFTER` seconds and the peer read none of it.
        """
        self.unsent = 0
        self._reactor = reactor
        self._transport = transport
        self._sent = sent
        self._stuck = stuck
        # Writing at once instead of a reactor turn later saves 21 % of a round trip. Only on a bare socket: what
        # wraps one (TLS) forwards this method to the socket as it is, past the encryption.
        bare = isinstance(transport, FileDescriptor) and not getattr(transport, "TLS", False)
        self._send_now = transport.writeSomeData if bare and isinstance(transport, FileDescriptor) else None
        self._pieces: deque[bytes] = deque()
        self._in_transport = 0  # bytes, part of `unsent`
        self._busy = False  # whether we are the transport's producer
        self._registering = False
        self._closed = False
        self._progress_at = 0.0  # when the peer last read some, or data began to wait
        self._in_kernel: int | None = None  # bytes, at the last check
        self._timer: IDelayedCall | None = None

    def write(self, data: bytes) -> None:
        """
        Send data after all that was written before.

        Args:
            data: At least one byte.
        """
        self.add(data)
        self.flush()

    def add(self, data: bytes) -> None:
        """
        Keep data until `flush` or the next `write`, so that both leave in one packet.

        Args:
            data: At least one byte.
        """
        if not self._closed:
            self._pieces.append(data)
            self.unsent += len(data)

    def write_behind(self, data: bytes) -> None:
        """
        Send the first data, after any that was written to the transport itself before.

        Args:
            data: At least one byte.
        """
        self._pieces.append(data)
        self.unsent += len(data)
        self._hand_over()

    def flush(self) -> None:
        """
        Send as much as the transport has room for.
        """
        if self._closed:
            return
        if self._send_now is not None and not self._busy:
            while self._pieces:
                data = self._pieces.popleft() if len(self._pieces) == 1 else self._pop(PIECE)
                result = self._send_now(data)
                # An error shows again when the reactor writes, and is handled there.
                count = result if isinstance(result, int) and result > 0 else 0
                self.unsent -= count
                if count < len(data):
                    self._pieces.appendleft(data[count:])
                    break
        if self._pieces and self._in_transport + len(self._pieces[0]) <= max(PIECE, len(self._pieces[0])):
            self._hand_over()

    def close(self) -> None:
        """
        Discard the waiting data; the connection is over.
        """
        self._closed = True
        self._sent = self._stuck = lambda: None  # those of the owner, which refers to this, would keep both in memory
        self._pieces.clear()
        self.unsent = self._in_transport = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resumeProducing(self) -> None:
        """
        Hand over the next data; the transport has sent all that it held.
        """
        if self._registering or self._closed:  # `registerProducer` calls this, too, with nothing sent yet
            return
        self.unsent -= self._in_transport
        self._in_transport = 0
        self._progress_at = self._reactor.seconds()
        if self._pieces:
            self._hand_over()
        else:
            self._busy = False
            self._transport.unregisterProducer()
        self._sent()

    def stopProducing(self) -> None:
        """
        Close the queue; the connection was lost.
        """
        self.close()

    def _pop(self, most: int) -> bytes:
        # At least one piece, and more as long as they are at most so many bytes together.
        popped = [self._pieces.popleft()]
        size = len(popped[0])
        while self._pieces and size + len(self._pieces[0]) <= most:
            popped.append(self._pieces.popleft())
            size += len(popped[-1])
        return b"".join(popped)

    def _hand_over(self) -> None:
        data = self._pop(PIECE - self._in_transport)
        self._in_transport += len(data)
        self._transport.write(data)
        if not self._busy:
            self._busy = True
            self._progress_at = self._reactor.seconds()
            self._registering = True
            self._transport.registerProducer(self, False)
            self._registering = False
            self._in_kernel = self.count_in_kernel()
            if self._timer is None:
                self._timer = self._reactor.callLater(STUCK_AFTER / CHECKS, self._check_progress)

    def _check_progress(self) -> None:
        # One timer for many writes: it is not moved by each, but checks when it is due whether there was progress.
        self._timer = None
        if not self._busy:
            return
        in_kernel = self.count_in_kernel()
        if in_kernel != self._in_kernel:  # less: the peer read some; more: the kernel had room, so it read some, too
            self._in_kernel = in_kernel
            self._progress_at = self._reactor.seconds()
        left = self._progress_at + STUCK_AFTER - self._reactor.seconds()
        if left > 0:
            self._timer = self._reactor.callLater(min(left, STUCK_AFTER / CHECKS), self._check_progress)
        else:
            self._stuck()

    def count_in_kernel(self) -> int | None:
        """
        Return how many bytes the kernel holds that the peer has not read; None if the system does not report that.
        """
        if not IFileDescriptor.providedBy(self._transport):
            return None
        try:
            (count,) = struct.unpack("i", fcntl.ioctl(self._transport.fileno(), termios.TIOCOUTQ, bytes(4)))
        except (OSError, ValueError):  # no socket or tty, or closed
            return None
        return int(count)
