"""
The modules through which one reading, one row, one request and one answer pass, in order.

    python -m tests.support.route [reading|row|request|answer]...

prints the route of each, one line for each module that is entered, with the functions that were called there. A line
that begins with `<` returns to a module that the route had left. Calls are counted, not times; comprehensions,
generator expressions and lambdas do not count, and a return from a call enters nothing.

All parts are real but the ends: the device, the client and the store are in memory.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from random import randrange
from tempfile import TemporaryDirectory
from types import FrameType, TracebackType
from typing import NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

import usbgate
from tests.support.access import OPEN, authority
from usbgate.core.fieldline import fold
from usbgate.core.rules import Rules
from usbgate.daemon.clock import SystemClock
from usbgate.device.dialects.fields import Dialect
from usbgate.device.link import Link
from usbgate.gateway.gateway import Gateway
from usbgate.server.factory import ClientFactory
from usbgate.store.delivery import Delivery
from usbgate.store.journal.journal import FLUSH_INTERVAL, Journal
from usbgate.testing import MemorySink

SOURCE = f"{Path(usbgate.__file__).parent}/"
LIMIT = 10.0  # seconds for the journal's thread


class Call(NamedTuple):
    """
    A call of a function.

    Attributes:
        module: Its file, below the package's folder and without `.py`.
        function: Its qualified name.
    """

    module: str
    function: str


class Route(NamedTuple):
    """
    The calls on the way of one thing.
    """

    name: str
    calls: Sequence[Call]

    @property
    def entries(self) -> list[tuple[str, list[str]]]:
        """
        The modules in the order in which they were entered, each with the functions called there.
        """
        return [
            (module, [call.function for call in calls])
            for module, calls in groupby(self.calls, lambda call: call.module)
        ]

    @property
    def modules(self) -> int:
        """
        The number of different modules.
        """
        return len({call.module for call in self.calls})

    @property
    def returns(self) -> int:
        """
        How often a module was entered again after it had been left.
        """
        return len(self.entries) - self.modules

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.modules} modules, {self.returns} returns"]
        left: set[str] = set()
        for module, functions in self.entries:
            called = ", ".join(function for function, _ in groupby(functions))
            lines.append(f"  {'<' if module in left else ' '} {module:<24} {called}")
            left.add(module)
        return "\n".join(lines)


class Tracer:
    """
    Collects the calls of usbgate's functions, in this thread and in threads that start while it is entered.
    """

    def __init__(self) -> None:
        self._calls: list[Call] = []  # of this thread
        self._threads: list[Call] = []  # of the other one
        self._tracing = False
        self._waits = threading.Event()  # set while the other thread waits for work
        self._main = threading.get_ident()

    def __enter__(self) -> Tracer:
        self._before = sys.getprofile()
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        sys.setprofile(self._before)
        threading.setprofile(None)  # as `threading` begins

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        other = threading.get_ident() != self._main
        if other and event.startswith("c_"):
            if event == "c_call" and getattr(argument, "__qualname__", "") == "SimpleQueue.get":
                self._waits.set()
            else:
                self._waits.clear()
        code = frame.f_code
        if event == "call" and self._tracing and code.co_filename.startswith(SOURCE) and code.co_name[0] != "<":
            calls = self._threads if other else self._calls
            calls.append(Call(code.co_filename.removeprefix(SOURCE).removesuffix(".py"), code.co_qualname))

    def trace(self, name: str, *steps: Callable[[], object]) -> Route:
        """
        Collect the calls of some steps.

        Args:
            name: The name of the route.
            steps: What to do. The calls of the other thread, until it waits again, follow those of each step.
        """
        route: list[Call] = []
        self.rest()
        self._tracing = True
        for step in steps:
            self._calls, self._threads = [], []
            step()
            self.rest()
            route += self._calls + self._threads
        self._tracing = False
        return Route(name, route)

    def rest(self) -> None:
        """
        Wait until the other thread has nothing to do.
        """
        if not self._waits.wait(LIMIT):
            raise TimeoutError("the journal's thread does not come to rest")


class _Turns(Clock):
    """
    A reactor's clock, and its way in from other threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[tuple[Callable[..., object], tuple[object, ...]]] = SimpleQueue()
        self._came: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def callFromThread(self, call: Callable[..., object], *args: object) -> None:
        """
        Call a function in a later turn.
        """
        self._calls.put((call, args))

    def wait(self) -> None:
        """
        Wait for a call from another thread.
        """
        try:
            self._came.append(self._calls.get(timeout=LIMIT))
        except Empty:
            raise TimeoutError("nothing came from the journal's thread") from None

    def turn(self) -> None:
        """
        Make the calls that came from the other thread.
        """
        came, self._came = self._came, []
        for call, args in came:
            call(*args)


@implementer(IStreamClientEndpoint)
class _Device:
    """
    A device in memory.
    """

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect at once.
        """
        return execute(self._connect, protocolFactory)

    def _connect(self, factory: IProtocolFactory) -> IProtocol:
        protocol = factory.buildProtocol(None)  # type: ignore[arg-type]  # nobody looks at the address
        assert protocol is not None
        self.protocol = protocol
        self.transport = StringTransport()
        protocol.makeConnection(self.transport)
        return protocol


def _taken(transport: StringTransport) -> bytes:
    # Read what was sent, as a peer does.
    while transport.producer is not None:
        transport.producer.resumeProducing()
    sent: bytes = transport.value()
    transport.clear()
    return sent


def trace() -> list[Route]:
    """
    Send a reading, its row, a request and its answer through usbgate; return the route of each.
    """
    # Values that are new, so that no cache shortens the route.
    first, second, answer, origin = (str(randrange(10**9, 10**10)) for _ in range(4))
    with Tracer() as tracer, TemporaryDirectory() as folder:
        reactor, clock, device, sink = _Turns(), SystemClock(), _Device(), MemorySink()
        gateway = Gateway(reactor, clock, "J", {})
        journal = Journal(reactor, Path(folder) / "journal.sqlite")  # type: ignore[arg-type]  # as much of it as is used
        delivery = Delivery(reactor, journal, sink, gateway.restore)
        gateway.store_in(journal, sink, lambda: (delivery.status(), journal.status()))
        link = Link(reactor, device, "board", "/dev/board", Dialect())
        gateway.add_link(link, Rules(buffer=None, settle=None))
        services = (journal, delivery, link)
        for service in services:
            service.startService()
        client = ClientFactory(reactor, gateway, authority(reactor), 1, clock.wall, door=OPEN).buildProtocol(
            IPv4Address("TCP", "127.0.0.1", 4000)
        )
        transport = StringTransport()
        client.makeConnection(transport)

        def flush() -> None:
            reactor.advance(FLUSH_INTERVAL)
            reactor.wait()

        def say(value: str) -> Callable[[], None]:
            return lambda: device.protocol.dataReceived(f"ID:20_VALUE:{value}\r\n".encode())

        def ask() -> None:
            client.dataReceived(f"MSG:J_ID:20_ORIGIN:{origin}\r\n".encode())

        fold("J")  # a command that was asked before, as most are
        reactor.wait()  # the journal is open
        reactor.turn()
        say(first)()  # the first one also stores a clock mark and makes the sensor known
        flush()
        reactor.turn()
        # In this order the request sets the timer for the next deadline, and nothing else changes it.
        routes = [tracer.trace("request", ask)]
        _taken(transport)
        if origin.encode() not in _taken(device.transport):
            raise AssertionError("the device was not asked")
        routes.append(tracer.trace("answer", say(answer), lambda: reactor.advance(0)))
        if answer.encode() not in _taken(transport):
            raise AssertionError("the client got no answer")
        flush()
        reactor.turn()
        routes[:0] = [tracer.trace("reading", say(second)), tracer.trace("row", flush, reactor.turn)]
        stored = [batch.rows for batch in sink.batches]
        if stored != [2, 2, 1]:
            raise AssertionError(f"stored {stored}, expected a mark and a reading, a reading and a request, a reading")
        for service in reversed(services):
            service.stopService()
        client.connectionLost(connectionDone)
        device.protocol.connectionLost(connectionDone)
        reactor.wait()
        reactor.turn()
    return routes


if __name__ == "__main__":
    for route in trace():
        if route.name in sys.argv[1:] or not sys.argv[1:]:
            print(route)
