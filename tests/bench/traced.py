"""
Runs twistd with a trace of what holds the reactor: how long each call takes that the reactor makes.
"""

from __future__ import annotations

import gc
import json
import pkgutil
from array import array
from collections import defaultdict
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from time import monotonic, thread_time
from typing import Any, NamedTuple, TypeVar

from twisted.internet import reactor
from twisted.python import log
from twisted.scripts import twistd

T = TypeVar("T")

# Functions whose calls count as such, not as part of the calls that they are made in.
PARTS = {
    "usbgate.store.journal.journal.Journal.flush": "flush",
    "usbgate.store.journal.readahead.ReadAhead.next": "merge",
    "usbgate.store.postgres.sink.insert": "insert",
    "txpostgres.txpostgres.Cursor.execute": "psycopg2",
    "txpostgres.txpostgres.Cursor.continuePolling": "psycopg2",
    "txpostgres.txpostgres.Connection.continuePolling": "psycopg2",
}


class Hold(NamedTuple):
    """
    One call.

    Attributes:
        ended: When it ended, in monotonic seconds.
        own: Seconds of CPU time, without those of the parts in it.
        whole: Seconds by the clock, with the parts; 0 for a part.
    """

    ended: float
    own: float
    whole: float


class Trace:
    """
    The calls by name: the function of a timer or of another thread, the class of what is read or written, `gc`, or one
    of `PARTS`.
    """

    def __init__(self, clock: Callable[[], float] = monotonic, cpu: Callable[[], float] = thread_time) -> None:
        """
        Args:
            clock: Returns monotonic seconds.
            cpu: Returns the seconds of CPU time that the thread has used.
        """
        self._clock = clock
        self._cpu = cpu
        self._open: list[tuple[str, float, float]] = []  # the calls that have not ended
        self._inner = [0.0]  # seconds of the parts in each of them; before these, of all that have ended
        # The fields of each `Hold` one after the other: objects would give the garbage collector more to do.
        self._holds: dict[str, array[float]] = defaultdict(lambda: array("d"))

    def call(self, name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """
        Call a function, and record that under a name.
        """
        self._begin(name)
        try:
            return function(*args, **kwargs)
        finally:
            self._end()

    def _begin(self, name: str) -> None:
        self._inner.append(0.0)
        self._open.append((name, self._clock(), self._cpu()))

    def _end(self) -> None:
        cpu, now = self._cpu(), self._clock()
        name, began, cpu_began = self._open.pop()
        inner = self._inner.pop()
        self._inner[-1] += cpu - cpu_began
        self._holds[name].extend((now, cpu - cpu_began - inner, 0.0 if self._open else now - began))

    def install(self, reactor: Any) -> None:
        """
        Begin to trace.
        """
        run_event, call_later, call_from_thread = log.callWithLogger, reactor.callLater, reactor.callFromThread

        def event(logger: Any, func: Any, *args: Any, **kw: Any) -> Any:
            return self.call(type(logger).__name__, run_event, logger, func, *args, **kw)

        def later(delay: float, function: Callable[..., object], *args: object, **kwargs: object) -> object:
            return call_later(delay, self.call, _name(function), function, *args, **kwargs)

        def from_thread(function: Callable[..., object], *args: object, **kwargs: object) -> None:
            call_from_thread(self.call, _name(function), function, *args, **kwargs)

        def collect(phase: str, info: object) -> None:
            if phase == "start":
                self._begin("gc")
            else:
                self._end()

        log.callWithLogger, reactor.callLater, reactor.callFromThread = event, later, from_thread
        for path, name in PARTS.items():
            owner, _, attribute = path.rpartition(".")
            place = pkgutil.resolve_name(owner)
            setattr(place, attribute, self._part(name, getattr(place, attribute)))
        gc.callbacks.append(collect)

    def _part(self, name: str, function: Callable[..., T]) -> Callable[..., T]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> T:
            return self.call(name, function, *args, **kwargs)

        return call

    def write(self, path: Path) -> None:
        """
        Write all calls as JSON.
        """
        path.write_text(json.dumps({name: list(holds) for name, holds in self._holds.items()}))


def _name(function: Callable[..., object]) -> str:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__name__)


def read(path: Path) -> dict[str, list[Hold]]:
    """
    Read what was written.
    """
    found = json.loads(path.read_text())
    return {name: [Hold(*holds[at : at + 3]) for at in range(0, len(holds), 3)] for name, holds in found.items()}


def run(path: str) -> None:
    """
    Run twistd, and write the trace to a file when the reactor has stopped.
    """
    trace = Trace()
    trace.install(reactor)
    reactor.addSystemEventTrigger("after", "shutdown", trace.write, Path(path))
    twistd.run()
