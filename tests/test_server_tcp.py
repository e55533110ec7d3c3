"""
The line server over real sockets: half-close, slow readers, netcat, the original client.
"""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable
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

from tests.memory_gateway import ANSWER, ECHO, ORIGINALS, MemoryGateway
from usbgate.sendqueue import STUCK_AFTER
from usbgate.server import UNSENT_LIMIT, ClientFactory

NETCAT = shutil.which("nc")


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """
    The other end of a TCP connection.
    """

    transport: Any  # a TCP connection

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        """
        Keep it.
        """
        self.received += data

    def readConnectionLost(self) -> None:
        """
        The server closed.
        """
        self.ended = True
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """
        We half-closed.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        It is over.
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
        Keep it.
        """
        self.said += data

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """
        Keep how it ended.
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


class TcpTests(TestCase):
    """
    Over real sockets.
    """

    timeout = 30

    def setUp(self) -> None:
        """
        Listen on a free port, with a clock of our own for the time limits.
        """
        self.reactor: Any = global_reactor
        self.gateway = MemoryGateway()
        self.listen(self.reactor)

    def listen(self, time: IReactorTime) -> None:
        """
        Serve with this clock.
        """
        self.factory = ClientFactory(time, self.gateway)
        port = self.reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.port: int = port.getHost().port
        self.addCleanup(port.stopListening)

    async def until(self, condition: Callable[[], object]) -> None:
        """
        Wait for something to become true; trial's own limit bounds it.
        """
        while not condition():
            await deferLater(self.reactor, 0.005)

    async def ended(self, process: Process) -> None:
        """
        Wait for the end of a process.
        """
        await self.until(lambda: process.status is not None)

    async def connect(self) -> Peer:
        """
        Connect a client.
        """
        peer = Peer()
        factory: Any = TwistedClientFactory()
        factory.buildProtocol = lambda _: peer
        factory.noisy = False
        self.reactor.connectTCP("127.0.0.1", self.port, factory)
        await self.until(lambda: peer.connected and self.factory.counts()["CLIENTS"])
        self.addCleanup(self.end, peer)
        return peer

    def end(self, peer: Peer) -> Deferred[None]:
        """
        Close a client, if it is not, and wait for both ends.
        """
        if not peer.lost and peer.transport is not None:
            peer.transport.abortConnection()
        return Deferred.fromCoroutine(self.until(lambda: peer.lost and not self.factory.counts()["CLIENTS"]))

    def run_client(self, *command: str, stdin: bytes = b"") -> Process:
        """
        Start a client in a session of its own; it is ended, if it must be, by its number.
        """
        process = Process()
        transport = self.reactor.spawnProcess(process, command[0], command, env=None)
        transport.write(stdin)
        transport.closeStdin()

        def end() -> Deferred[None]:
            if process.status is None and transport.pid:
                transport.signalProcess("KILL")
            return Deferred.fromCoroutine(self.until(lambda: transport.pid is None))

        self.addCleanup(end)
        return process

    async def test_half_close(self) -> None:
        """
        All that was asked before a half-close is answered, then the server closes.
        """
        peer = await self.connect()
        peer.transport.write(ORIGINALS + b"\nask 21\nping\nMSG:ON_ORIGIN:me_ID:2")
        peer.transport.loseWriteConnection()
        await self.until(lambda: len(self.gateway.asked) == 2)
        self.gateway.answer(1)
        await self.until(lambda: b"OK:ping\n" in peer.received)
        self.assertFalse(peer.ended)
        self.gateway.answer(0)
        await self.until(lambda: peer.ended)
        self.assertTrue(peer.received.endswith(b"OK:ping\n" + ANSWER.encode() + b"\n"))
        self.assertEqual(len(self.gateway.asked), 2)

    async def test_at_once(self) -> None:
        """
        Echo and answer are on their way when the call that caused them returns.
        """
        peer = await self.connect()
        client: Any = next(iter(self.factory._connections))
        peer.transport.write(b"ping\n")
        await self.until(lambda: peer.received == b"OK:ping\n")
        client.dataReceived(b"ping\n")
        self.assertEqual(client._queue.unsent, 0)
        await self.until(lambda: peer.received == b"OK:ping\n" * 2)
        self.assertTrue(client.transport.getTcpNoDelay())
        self.assertTrue(client.transport.getTcpKeepAlive())

    async def test_slow_reader(self) -> None:
        """
        A client that says much and reads nothing makes usbgate hold little, and gets all when it reads.
        """
        peer = await self.connect()
        client: Any = next(iter(self.factory._connections))
        client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        peer.transport.pauseProducing()
        peer.transport.write(b"help\n" * 4000)
        await self.until(lambda: client.paused and client._queue.unsent > UNSENT_LIMIT)
        self.assertLess(client._queue.unsent, UNSENT_LIMIT + 4096)
        peer.transport.resumeProducing()
        await self.until(lambda: client._queue.unsent == 0 and peer.received.endswith(b"OK:help\n"))
        peer.transport.write(b"ping\n")
        await self.until(lambda: peer.received.endswith(b"OK:ping\n"))
        self.assertEqual(peer.received.count(b"OK:help\n"), 4000)

    async def test_burst_for_a_watcher(self) -> None:
        """
        A watcher that reads loses nothing of a burst within one reactor turn, and gets it in order.
        """
        peer = await self.connect()
        peer.transport.write(b"watch\n")
        await self.until(lambda: peer.received == b"OK:watch\n")
        for n in range(5000):
            self.gateway.publish("20", f"EVENT:reading_ID:20_A:{n}")
        await self.until(lambda: peer.received.endswith(b"_A:4999\n"))
        self.assertEqual(peer.received.count(b"\n"), 5001)

    async def test_half_closed_watch(self) -> None:
        """
        A half-closed watch goes on until the watcher is gone.
        """
        peer = await self.connect()
        peer.transport.write(b"watch 20\n")
        peer.transport.loseWriteConnection()
        await self.until(lambda: peer.received)
        client: Any = next(iter(self.factory._connections))
        await self.until(lambda: client._half_closed)
        self.gateway.publish("20", "EVENT:reading_ID:20_A:1")
        await self.until(lambda: b"EVENT" in peer.received)
        peer.transport.abortConnection()
        await self.until(lambda: peer.lost)

        while self.factory.counts()["CLIENTS"]:
            self.gateway.publish("20", "EVENT:reading_ID:20_A:1")
            await deferLater(self.reactor, 0.005)
        self.assertEqual(self.gateway.watching, [])

    async def test_stuck(self) -> None:
        """
        A peer that takes nothing of what waits for it is dropped after a minute.
        """
        clock = Clock()
        self.listen(clock)
        quiet = socket.create_connection(("127.0.0.1", self.port))
        self.addCleanup(quiet.close)
        await self.until(lambda: self.factory.counts()["CLIENTS"])
        client: Any = next(iter(self.factory._connections))
        client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        quiet.sendall(b"help\n" * 4000)

        def turned() -> object:
            clock.advance(0)  # waiting words are taken in turns of this clock
            return client.paused and client._queue.unsent > UNSENT_LIMIT

        await self.until(turned)
        clock.advance(STUCK_AFTER * 0.9)
        self.assertEqual(self.factory.counts()["CLIENTS"], 1)
        clock.advance(STUCK_AFTER * 0.2)
        await self.until(lambda: not self.factory.counts()["CLIENTS"])
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_stop(self) -> None:
        """
        What was said before the end arrives; then all is closed.
        """
        peer = await self.connect()
        peer.transport.write(b"help\n" * 10 + b"ask 20\n")
        await self.until(lambda: self.gateway.asked)
        self.gateway.answer(0)
        await self.factory.stop()
        await self.until(lambda: peer.ended)
        self.assertTrue(peer.received.endswith(b"OK:ask\n"), peer.received[-100:])

    async def test_the_original_client(self) -> None:
        """
        The original client, in its own words, prints the echo.
        """
        process = self.run_client(sys.executable, "-c", THE_ORIGINAL, str(self.port))
        await self.until(lambda: self.gateway.asked)
        await self.ended(process)
        self.assertEqual(process.said.decode(), "Received 'MSG:J_ID:20_ORIGIN:TOTO'\n")
        self.gateway.answer(0)
        self.assertEqual(process.status, 0)

    @skipIf(NETCAT is None, "no nc on this machine")
    async def test_netcat(self) -> None:
        """
        `printf … | nc -N` gets its answers and ends, with a line end and without.
        """
        for sent, expected in [
            (ORIGINALS + b"\nping\n", f"{ECHO}\nOK:ping\n{ANSWER}\n"),
            (ORIGINALS, f"{ECHO}\n{ANSWER}\n"),
        ]:
            assert NETCAT is not None
            process = self.run_client(NETCAT, "-N", "127.0.0.1", str(self.port), stdin=sent)
            await self.until(lambda: self.gateway.asked)
            self.gateway.answer(0)
            self.gateway.asked.clear()
            await self.ended(process)
            self.assertEqual(process.said.decode(), expected)
