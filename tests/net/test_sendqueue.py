"""
Data waiting to be sent: none is lost, doubled or reordered, however much the socket takes (protocol §3, the end).
"""

from __future__ import annotations

import random
from socket import socketpair
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IPullProducer
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from usbgate.net.sendqueue import PIECE, STUCK_AFTER, SendQueue


class Socket(FileDescriptor):
    """
    Twisted's own buffering above a socket that takes so many bytes and no more.
    """

    connected = 1

    def __init__(self) -> None:
        super().__init__(reactor=MemoryReactor())
        self.room = 0
        self.lost = False
        self.sent = b""

    def writeSomeData(self, data: bytes) -> int | BaseException:
        """
        Take what there is room for.
        """
        if self.lost:
            return CONNECTION_LOST
        taken = bytes(data)[: self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)


class SendQueueTests(SynchronousTestCase):
    """
    A queue before a socket that can be full.
    """

    def setUp(self) -> None:
        """
        Build a queue before a socket that has no room.
        """
        self.clock = Clock()
        self.socket = Socket()
        self.calls: list[str] = []
        self.queue = self.build(self.socket)

    def build(self, transport: Any) -> SendQueue:
        """
        Build a queue before a transport.
        """
        return SendQueue(self.clock, transport, lambda: self.calls.append("sent"), lambda: self.calls.append("stuck"))

    def test_interface(self) -> None:
        """
        A queue is a pull producer.
        """
        verifyObject(IPullProducer, self.queue)

    def test_at_once(self) -> None:
        """
        Where nothing waits, data is sent within the call, and no timer is started.
        """
        self.socket.room = 100
        self.queue.write(b"hello")
        self.assertEqual(self.socket.sent, b"hello")
        self.assertEqual((self.queue.unsent, self.socket.producer), (0, None))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_behind(self) -> None:
        """
        The first data can follow data that the transport holds already; all later data follows it.
        """
        self.socket.write(b"before ")
        self.queue.write_behind(b"first ")
        self.queue.write(b"second ")
        self.socket.room = 100
        while self.queue.unsent:
            self.socket.doWrite()
        self.queue.write(b"third")
        self.assertEqual(self.socket.sent, b"before first second third")

    def test_later(self) -> None:
        """
        Data that may wait is sent before the next, or when flushed.
        """
        self.socket.room = 100
        self.queue.add(b"a")
        self.assertEqual(self.socket.sent, b"")
        self.queue.write(b"b")
        self.assertEqual(self.socket.sent, b"ab")
        self.queue.add(b"c")
        self.queue.flush()
        self.assertEqual(self.socket.sent, b"abc")

    def test_any_room(self) -> None:
        """
        However much is taken at a time, all arrives once and in order, and the waiting bytes are counted.
        """
        drawn = random.Random(20)
        for _ in range(50):
            self.socket = Socket()
            queue = self.build(self.socket)
            written = b""
            while len(written) < 10 * PIECE:
                data = drawn.randbytes(drawn.choice([1, 20, 500, PIECE, 3 * PIECE]))
                written += data
                (queue.write if drawn.random() < 0.7 else queue.add)(data)
                self.socket.room += drawn.choice([0, 1, 100, PIECE])
                if drawn.random() < 0.5:
                    self.socket.doWrite()
                # Twisted reports what it sent only when it holds nothing more.
                self.assertGreaterEqual(queue.unsent, len(written) - len(self.socket.sent))
                self.assertLessEqual(queue.unsent - 4 * PIECE, len(written) - len(self.socket.sent))
            self.socket.room = 10**9
            queue.flush()
            while queue.unsent:
                self.socket.doWrite()
            self.assertEqual(self.socket.sent, written)
            self.assertIsNone(self.socket.producer)

    def test_close_after_all(self) -> None:
        """
        A connection that is closed while data waits is closed when all of it is sent.
        """
        written = b"x" * 10 * PIECE
        for start in range(0, len(written), 100):
            self.queue.write(written[start : start + 100])
        self.socket.loseConnection()
        ends: list[object] = []
        while not ends or ends[-1] is None:
            self.assertEqual(self.calls.count("stuck"), 0)
            self.socket.room = 5000
            ends.append(self.socket.doWrite())
        self.assertIs(ends[-1], CONNECTION_DONE)
        self.assertEqual(self.socket.sent, written)

    def test_bounded_pieces(self) -> None:
        """
        The transport gets little at a time, so that it is noticed when some of it is sent.
        """
        for _ in range(100):
            self.queue.write(b"x" * 1000)
        self.assertLessEqual(self.socket._tempDataLen, PIECE)
        self.assertEqual(self.queue.unsent, 100_000)

    def test_stuck(self) -> None:
        """
        A queue is stuck when none of its data was sent for `STUCK_AFTER`; each piece sent restarts that time.
        """
        self.queue.write(b"x" * 1000)
        self.queue.write(b"y" * PIECE)
        self.clock.advance(STUCK_AFTER * 0.9)
        self.socket.room = 1000
        self.socket.doWrite()
        self.clock.advance(STUCK_AFTER * 0.9)
        self.assertEqual(self.calls, ["sent"])
        self.clock.advance(STUCK_AFTER * 0.2)
        self.assertEqual(self.calls, ["sent", "stuck"])

    def test_read_from_the_kernel(self) -> None:
        """
        What the peer reads of the kernel's own queue counts as progress, before the transport sends anything.
        """
        near, far = socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        for _ in range(3):
            near.send(b"k" * 5000)
        self.socket.fileno = near.fileno  # type: ignore[method-assign]  # a real one, with a queue in the kernel
        self.queue.write(b"x" * 1000)
        for _ in range(3):
            self.clock.pump([STUCK_AFTER / 20] * 18)
            far.recv(5000)
        self.clock.pump([STUCK_AFTER / 20] * 18)
        self.assertEqual(self.calls, [])
        self.clock.pump([STUCK_AFTER / 20] * 6)
        self.assertEqual(self.calls, ["stuck"])

    def test_lost(self) -> None:
        """
        An error while sending at once is left to the reactor, which finds it when it writes.
        """
        self.socket.lost = True
        self.queue.write(b"hello")
        self.assertIs(self.socket.doWrite(), CONNECTION_LOST)
        self.socket.connectionLost(None)
        self.queue.write(b"more")
        self.assertEqual(self.queue.unsent, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_encrypted(self) -> None:
        """
        Nothing is written past the encryption of a transport that has it.
        """
        self.socket.TLS = True  # type: ignore[attr-defined]  # as Twisted's connections mark it
        self.queue = self.build(self.socket)
        self.socket.room = 100
        self.queue.write(b"secret")
        self.assertEqual(self.socket.sent, b"")
        self.assertEqual(self.queue.unsent, 6)
