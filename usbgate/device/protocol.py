"""
The protocol of one opening of a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IAddress, IConsumer, IPushProducer, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from usbgate.device.frames import FrameReceiver
from usbgate.device.interfaces import IFraming, IResettable
from usbgate.net.keepalive import keep_alive
from usbgate.net.sendqueue import SendQueue

if TYPE_CHECKING:
    from usbgate.device.link import Link

# Bytes that are read of a device in a reactor turn: 110 lines, which take 0.5 ms. A tty keeps up to 4,095, and a serial
# server on the network sends far more after a pause.
READ_SIZE = 3072

# The same while it is asked: an answer waits for the lines before it and costs as much as ten, so fewer are read at a
# time, although each then costs 8 % more. It counts as asked until it was read so many times without a message to it.
ASKED_READ_SIZE = 1024
READS_UNASKED = 100


def _feed_both(framing: IFraming, tap: Callable[[bytes], None], data: bytes) -> Sequence[bytes]:
    tap(data)
    return framing.feed(data)


class DeviceProtocol(Protocol):
    """
    One opening of a device: has its data cut into frames, and writes to it at once.

    Attributes:
        path: The path of the tty; None if there is none.
        framing: Cuts the data.
        paused: Whether reading is paused.
    """

    def __init__(
        self,
        link: Link,
        framing: IFraming,
        path: str | None,
        gap: float | None,
        tap: Callable[[bytes], None] | None = None,
    ) -> None:
        """
        Args:
            link: The link that has opened it.
            framing: See the class, as for `path`.
            path: See the class.
            gap: Seconds of silence that end a frame; None to go by the framing.
            tap: Receives all data as well.
        """
        self.path = path
        self.framing = framing
        self.paused = False
        self._link = link
        self._reads = READS_UNASKED  # since the last message; or more, if it counts as not asked
        self._feed = framing.feed if tap is None else partial(_feed_both, framing, tap)
        self._frames = FrameReceiver(link.reactor, link.decoder, framing, self, gap)

    def connectionMade(self) -> None:
        """
        Report that the device is open, after setting the options of a network connection.
        """
        assert self.transport is not None
        # A device that has stopped reading is noticed by the first byte that waits; there is no time limit.
        self._queue = SendQueue(self._link.reactor, IConsumer(self.transport), self._sent, lambda: None)
        self._producer = IPushProducer(self.transport)
        self._read_by(READ_SIZE)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            keep_alive(self.transport)
        self._link.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Cut a chunk into frames, and receive those.
        """
        self._frames.receive(self._feed(data))
        self._reads += 1
        if self._reads == READS_UNASKED:
            self._read_by(READ_SIZE)

    def _read_by(self, size: int) -> None:
        if isinstance(self.transport, FileDescriptor):
            self.transport.bufferSize = size

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Report that the device is closed.
        """
        self._frames.stop()
        self._queue.close()
        self._link.closed()

    def write(self, messages: Sequence[bytes]) -> bool:
        """
        Write messages in one piece, at once if no earlier data waits.

        Returns:
            Whether the device took all of it; if not, `Link.drained` is called when it has.
        """
        if messages:
            if self._reads >= READS_UNASKED:
                self._read_by(ASKED_READ_SIZE)
            self._reads = 0
            self._queue.write(b"".join(messages))
        return not self._queue.unsent

    @property
    def unsent(self) -> int:
        """
        Bytes that the device has not taken yet.
        """
        return self._queue.unsent

    def _sent(self) -> None:
        if not self._queue.unsent:
            self._link.drained()

    def pauseProducing(self) -> None:
        """
        Read nothing until `resumeProducing`.
        """
        self.paused = True
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """
        Read again.
        """
        self.paused = False
        self._producer.resumeProducing()

    def reset(self) -> bool:
        """
        Reset the board, and return whether that is possible.
        """
        return IResettable.providedBy(self.transport) and self.transport.reset()

    def abort(self) -> None:
        """
        Close a network connection at once; unsent data is lost.
        """
        if ITCPTransport.providedBy(self.transport):
            self.transport.abortConnection()


class DeviceFactory(Factory):
    """
    Builds a protocol for each opening.
    """

    noisy = False  # do not log "Starting factory" at every attempt

    def __init__(self, build: Callable[[str | None], DeviceProtocol]) -> None:
        """
        Args:
            build: Builds the protocol of a tty with this path; None is an endpoint without a tty.
        """
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> DeviceProtocol:
        """
        Build the protocol of an opening.
        """
        return self._build(getattr(addr, "path", None))
