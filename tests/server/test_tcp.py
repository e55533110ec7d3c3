"""
The line server over real sockets: half-close, slow readers, netcat, the original client.
"""

from __future__ import annotations

import fcntl
import gc
import shutil
import socket
import struct
import sys
import termios
from typing import Any
from unittest import skipIf

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import ClientFactory as TwistedClientFactory
from twisted.internet.protocol import ProcessProtocol, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.support.access import OPEN, authority
from tests.support.memory_gateway import ANSWER, AT_TEXT, ECHO, ORIGINALS, MemoryGateway, report_event
from tests.support.waiting import until
from usbgate.net.sendqueue import STUCK_AFTER
from usbgate.server.factory import ClientFactory
from usbgate.server.protocol import HALF_CLOSED_CHECK, UNSENT_LIMIT, ClientProtocol

NETCAT = shutil.which("nc")


@implementer(IHalfCloseableProtocol)
def in_kernel(client: Any) -> int:
    """
    Return how many bytes for a client wait in the kernel.
    """
    return int.from_bytes(fcntl.ioctl(client.transport.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


class Peer(Protocol):
    """
    The client's end of a TCP connection.
    """

    transport: Any  # a TCP connection

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        """
        Keep the data.
        """
        self.received += data

    def readConnectionLost(self) -> None:
        """
        The server has closed.
        """
        self.ended = True
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """
        The client has half-closed.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection is over.
        """
        self.ended = self.lost = True


class Process(ProcessProtocol):
    """
    A client in a process of its own.
    """

    def __init__(self) -> None:
        self.said = b""
        self.status: int | None = None

    def outReceived(self, data: bytes) -> None:
        """
        Keep the output.
        """
        self.said += data

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """
        Keep the exit status.
        """
        ended: Any = reason.value  # a ProcessDone or ProcessTerminated
        self.status = ended.exitCode


THE_ORIGINAL = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect(("127.0.0.1", int(sys.argv[1])))
client.send(b"MSG:J_ID:20_ORIGIN:TOTO")
data = client.recv(1024)
client.close()
print("Received", repr(data.decode()))
"""


def _count() -> int:
    return sum(type(each) is ClientProtocol for each in gc.get_objects())


class TcpTests(TestCase):
    """
    Clients over real sockets.
    """

    timeout = 30

    def setUp(self) -> None:
        """
        Listen on a free port.
        """
        self.reactor: Any = global_reactor
        self.gateway = MemoryGateway()
        self.listen(self.reactor)

    def listen(self, time: IReactorTime) -> None:
        """
        Serve on another port, with this clock for time limits.
        """
        self.factory = ClientFactory(time, self.gateway, authority(time), door=OPEN)
        port = self.reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.port: int = port.getHost().port
        self.addCleanup(port.stopListening)

    async def ended(self, process: Process) -> None:
        """
        Wait for the end of a process.
        """
        await until(lambda: process.status is not None)

    async def connect(self) -> Peer:
        """
        Connect a client.
        """
        peer = Peer()
        factory: Any = TwistedClientFactory()
        factory.buildProtocol = lambda _: peer
        factory.noisy = False
        self.reactor.connectTCP("127.0.0.1", self.port, factory)
        await until(lambda: peer.connected and self.factory.counts()["CLIENTS"])
        self.addCleanup(self.end, peer)
        return peer

    def end(self, peer: Peer) -> Deferred[None]:
        """
        Close a client's connection, if it is open, and wait for both ends.
        """
        if not peer.lost and peer.transport is not None:
            peer.transport.abortConnection()
        return Deferred.fromCoroutine(until(lambda: peer.lost and not self.factory.counts()["CLIENTS"]))

    def run_client(self, *command: str, stdin: bytes = b"") -> Process:
        """
        Start a client process in a session of its own; it is killed by its pid if it does not end.
        """
        process = Process()
        transport = self.reactor.spawnProcess(process, command[0], command, env=None)
        transport.write(stdin)
        transport.closeStdin()

        def end() -> Deferred[None]:
            if process.status is None and transport.pid:
                transport.signalProcess("KILL")
            return Deferred.fromCoroutine(until(lambda: transport.pid is None))

        self.addCleanup(end)
        return process

    async def test_half_close(self) -> None:
        """
        Everything that was asked before a half-close is answered, then the server closes.
        """
        peer = await self.connect()
        peer.transport.write(ORIGINALS + b"\nask 21\nping\nMSG:ON_ORIGIN:me_ID:2")
        peer.transport.loseWriteConnection()
        await until(lambda: len(self.gateway.asked) == 2)
        self.gateway.answer(1)
        await until(lambda: b"OK:ping\n" in peer.received)
        self.assertFalse(peer.ended)
        self.gateway.answer(0)
        await until(lambda: peer.ended)
        self.assertTrue(peer.received.endswith(b"OK:ping\n" + ANSWER.encode() + b"\n"))
        self.assertEqual(len(self.gateway.asked), 2)

    async def test_freed(self) -> None:
        """
        A connection is freed when it is lost, not when the garbage collector comes, which would hold the reactor; also
        if it waited for an answer, or had a subscription.
        """
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        before = _count()
        for sent, received in (
            (b"help\nask 20\nping\n", b"OK:help"),
            (b"watch\n", b"OK:watch"),
            (b"quit\n", b"OK:quit"),
        ):
            peer = await self.connect()
            peer.transport.write(sent)
            await until(lambda peer=peer, received=received: received in peer.received)  # type: ignore[misc]
            await self.end(peer)
        self.assertEqual(len(self.gateway.asked), 1)
        self.gateway.answer(0)
        self.gateway.asked.clear()
        await until(lambda: _count() <= before)

    async def test_at_once(self) -> None:
        """
        The reply to a line is in the kernel before the reactor waits for the next line.
        """
        peer = await self.connect()
        client: Any = next(iter(self.factory.connections))
        peer.transport.write(b"ping\n")
        await until(lambda: peer.received == b"OK:ping\n")
        client.dataReceived(b"ping\n")
        await deferLater(self.reactor, 0)
        self.assertEqual(client.unsent, 0)
        await until(lambda: peer.received == b"OK:ping\n" * 2)
        self.assertTrue(client.transport.getTcpNoDelay())

    async def test_bytes_per_turn(self) -> None:
        """
        A limited number of bytes is read at once, of those that wait in the socket.
        """
        self.factory.intake.bytes_per_turn = 1000
        peer = await self.connect()
        client: Any = next(iter(self.factory.connections))
        sizes = []
        received = client.dataReceived

        def read(data: bytes) -> None:
            sizes.append(len(data))
            received(data)

        client.dataReceived = read
        peer.transport.write(b"ping\n" * 2000)
        await until(lambda: peer.received == b"OK:ping\n" * 2000)
        self.assertEqual((max(sizes), sum(sizes)), (1000, 10_000))

    async def test_slow_reader(self) -> None:
        """
        A client that sends much and reads nothing makes usbgate hold little, and gets everything when it reads.
        """
        peer = await self.connect()
        client: Any = next(iter(self.factory.connections))
        client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        peer.transport.pauseProducing()
        peer.transport.write(b"help\n" * 4000)
        await until(lambda: client.paused and client.unsent > UNSENT_LIMIT)
        self.assertLess(client.unsent, UNSENT_LIMIT + 4096)
        peer.transport.resumeProducing()
        await until(lambda: client.unsent == 0 and peer.received.endswith(b"OK:help\n"))
        peer.transport.write(b"ping\n")
        await until(lambda: peer.received.endswith(b"OK:ping\n"))
        self.assertEqual(peer.received.count(b"OK:help\n"), 4000)

    async def test_burst_for_a_watcher(self) -> None:
        """
        A subscriber that reads loses nothing of a burst within one reactor turn, and gets it in order.
        """
        peer = await self.connect()
        peer.transport.write(b"watch\n")
        await until(lambda: peer.received == b"OK:watch\n")
        for n in range(5000):
            self.gateway.publish(report_event("20", A=str(n)))
        await until(lambda: peer.received.endswith(f"_A:4999_AT:{AT_TEXT}\n".encode()))
        self.assertEqual(peer.received.count(b"\n"), 5001)

    async def test_half_closed_watch(self) -> None:
        """
        A half-closed subscription goes on until the client is gone.
        """
        peer = await self.connect()
        peer.transport.write(b"watch 20\n")
        peer.transport.loseWriteConnection()
        await until(lambda: peer.received)
        client: Any = next(iter(self.factory.connections))
        await until(lambda: client.half_closed)
        self.gateway.publish(report_event("20", A="1"))
        await until(lambda: b"EVENT" in peer.received)
        peer.transport.abortConnection()
        await until(lambda: peer.lost)

        while self.factory.counts()["CLIENTS"]:
            self.gateway.publish(report_event("20", A="1"))
            await deferLater(self.reactor, 0.005)
        self.assertEqual(self.gateway.subscribers, [])

    async def test_watchers_that_closed(self) -> None:
        """
        Subscribers that closed after a half-close are found, although there is no event to send to them.
        """
        clock = Clock()
        self.listen(clock)
        path = self.mktemp()
        port = self.reactor.listenUNIX(path, self.factory)
        self.addCleanup(port.stopListening)
        watchers = [socket.socket(), socket.socket(socket.AF_UNIX)]
        watchers[0].connect(("127.0.0.1", self.port))
        watchers[1].connect(path)
        for watcher in watchers:
            self.addCleanup(watcher.close)
            watcher.sendall(b"watch\n")
            watcher.shutdown(socket.SHUT_WR)
        await until(lambda: [client.half_closed for client in self.factory.connections] == [True, True])
        clock.pump([HALF_CLOSED_CHECK] * 3)
        self.assertEqual(self.factory.counts()["WATCHERS"], 2)
        # The first as its kernel ends it, a minute after it was closed: with a reset.
        watchers[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for watcher in watchers:
            watcher.close()

        def looked() -> bool:
            clock.advance(HALF_CLOSED_CHECK)
            return not self.factory.counts()["CLIENTS"]

        await until(looked)
        self.assertEqual((self.gateway.subscribers, clock.getDelayedCalls()), ([], []))

    async def test_stuck(self) -> None:
        """
        A client that reads nothing of what is unsent is disconnected after a minute.
        """
        clock = Clock()
        self.listen(clock)
        quiet = socket.socket()
        self.addCleanup(quiet.close)
        quiet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        quiet.connect(("127.0.0.1", self.port))
        await until(lambda: self.factory.counts()["CLIENTS"])
        client: Any = next(iter(self.factory.connections))
        client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        quiet.sendall(b"help\n" * 4000)

        def turned() -> object:
            clock.advance(0)  # waiting words are taken in turns of this clock
            return client.paused and client.unsent > UNSENT_LIMIT

        await until(turned)
        clock.advance(STUCK_AFTER * 0.9)
        self.assertEqual(self.factory.counts()["CLIENTS"], 1)

        def dropped() -> bool:
            clock.advance(STUCK_AFTER / 6)  # what the kernel passed on meanwhile may still have been progress
            return not self.factory.counts()["CLIENTS"]

        await until(dropped)
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_slow_is_not_stuck(self) -> None:
        """
        A client that reads slowly is not disconnected, although only the kernel's send queue shows that it reads.
        """
        clock = Clock()
        self.listen(clock)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", self.port))
            await until(lambda: self.factory.counts()["CLIENTS"])
            client: Any = next(iter(self.factory.connections))
            client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            slow.sendall(b"help\n" * 4000)

            def turned() -> object:
                clock.advance(0)
                return client.paused and client.unsent > UNSENT_LIMIT

            await until(turned)
            unsent = client.unsent
            for _ in range(5):
                held = in_kernel(client)

                def taken(held: int = held) -> bool:
                    slow.recv(500)
                    return bool(in_kernel(client) < held)

                await until(taken)
                clock.pump([STUCK_AFTER / 10] * 9)
                self.assertEqual((self.factory.counts()["CLIENTS"], client.unsent), (1, unsent))
            clock.pump([STUCK_AFTER / 10] * 11)
            await until(lambda: not self.factory.counts()["CLIENTS"])
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_keep_alive(self) -> None:
        """
        A client that vanishes without closing is found within half a minute.
        """
        await self.connect()
        client: Any = next(iter(self.factory.connections))
        handle = client.transport.getHandle()
        self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        idle, interval, probes = [
            handle.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ]
        self.assertLessEqual(idle + interval * probes, 30)

    async def test_stop(self) -> None:
        """
        What was sent before the stop arrives; then the connection is closed.
        """
        peer = await self.connect()
        peer.transport.write(b"help\n" * 10 + b"ask 20\n")
        await until(lambda: self.gateway.asked)
        self.gateway.answer(0)
        await self.factory.stop()
        await until(lambda: peer.ended)
        self.assertTrue(peer.received.endswith(b"OK:ask\n"), peer.received[-100:])

    async def test_the_original_client(self) -> None:
        """
        The original client's own code prints the echo.
        """
        process = self.run_client(sys.executable, "-c", THE_ORIGINAL, str(self.port))
        await until(lambda: self.gateway.asked)
        await self.ended(process)
        self.assertEqual(process.said.decode(), "Received 'MSG:J_ID:20_ORIGIN:TOTO'\n")
        self.gateway.answer(0)
        self.assertEqual(process.status, 0)

    @skipIf(NETCAT is None, "no nc on this machine")
    async def test_netcat(self) -> None:
        """
        `printf … | nc -N` gets its answers and ends, with and without a line end.
        """
        for sent, expected in [
            (ORIGINALS + b"\nping\n", f"{ECHO}\nOK:ping\n{ANSWER}\n"),
            (ORIGINALS, f"{ECHO}\n{ANSWER}\n"),
        ]:
            assert NETCAT is not None
            process = self.run_client(NETCAT, "-N", "127.0.0.1", str(self.port), stdin=sent)
            await until(lambda: self.gateway.asked)
            self.gateway.answer(0)
            self.gateway.asked.clear()
            await self.ended(process)
            self.assertEqual(process.said.decode(), expected)
