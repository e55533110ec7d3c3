"""
The whole daemon in thousands of random worlds: whatever fails, in whatever order, its promises are kept.

A failure names its world: `USBGATE_FIRST_SEED=SEED USBGATE_SIMULATIONS=1` runs it again, and `USBGATE_TRACE=400` shows
more of what happened in it.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.faults.ledger import FULL
from tests.faults.simulated.database import SimulatedSink
from tests.faults.simulated.life import Violated
from tests.faults.simulated.weather import DEEDS
from tests.faults.simulation import World
from usbgate.core import messages, queues
from usbgate.core.batch import Batch, halve
from usbgate.core.displacement import displaced
from usbgate.core.errors import RequestError
from usbgate.core.exchanges import Exchange, Lane, Moves
from usbgate.core.model import Answer, Reading, Report, RequestRecord, Row
from usbgate.core.pending import PendingRequests
from usbgate.core.recorder import Entry, Recorder
from usbgate.core.sensors import KnownSensors
from usbgate.net import sendqueue
from usbgate.net.broadcast import EventBatch
from usbgate.server import commands, console, protocol, requests
from usbgate.store.interfaces import Reject
from usbgate.store.restoration import Restoration

SIMULATIONS = int(os.environ.get("USBGATE_SIMULATIONS", "5000" if FULL else "110"))
FIRST_SEED = int(os.environ.get("USBGATE_FIRST_SEED", "0"))
TRACE = int(os.environ.get("USBGATE_TRACE", "100"))  # lines that are shown of a world that failed
EVENTS = 80  # in one world

# What has to have happened in some hundreds of worlds, besides each fault, or they show nothing.
INTERESTING = [
    "answers",
    "crashes",
    "dropped for not reading",
    "events dropped",
    "given up",
    "polls",
    "restored",
    "rejected",
    "row busy",
    "row of a poll",
    "row offline",
    "row recent",
    "row stopped",
    "row timeout",
    "row unknown",
    "rows that came again",
    "limit reply",
    "malformed reply",
]


class SimulationCase(SynchronousTestCase):
    """
    Runs worlds.
    """

    def setUp(self) -> None:
        """
        Make some limits so small that a world reaches them with some hundred lines.
        """
        self.patch(requests, "IN_FLIGHT_LIMIT", 8)
        self.patch(protocol, "WORDS_LIMIT", 6)
        self.patch(protocol.ClientProtocol, "lines_at_once", 3)
        self.patch(protocol, "UNSENT_LIMIT", 300)
        self.patch(console, "SUBSCRIBER_LIMIT", 900)
        self.patch(sendqueue, "PIECE", 200)
        self.patch(queues, "QUESTIONS_PER_SENSOR", 4)
        self.patch(queues, "displaced", self._displace)
        self.displaced: set[str] = set()

    def _displace(self, lanes: Iterable[Lane[Any]]) -> Exchange[Any]:
        newest = displaced(lanes)
        self.displaced.update(asker.request.origin for asker in newest.askers)
        return newest

    def run_world(self, seed: int, seen: Counter[str]) -> None:
        """
        Run the world of a seed; nothing unexpected may be raised or logged.
        """
        self.displaced.clear()
        world = World(seed, seen, self.displaced)
        trouble = ""
        try:
            world.live(EVENTS)
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
        for failure in self.flushLoggedErrors():
            trouble = trouble or f"it was logged: {failure.getTraceback()}"
        if trouble:
            shown = "\n".join([*world.trace][-TRACE:])
            raise self.failureException(f"in the world of seed {seed}: {trouble}\n{shown}")


class TestSimulation(SimulationCase):
    """
    Nothing is lost, and nothing hangs.
    """

    def test_random_worlds(self) -> None:
        """
        In every world each promise is kept; and the dangerous events did happen.
        """
        seen: Counter[str] = Counter()
        for seed in range(FIRST_SEED, FIRST_SEED + SIMULATIONS):
            self.run_world(seed, seen)
            if seed % 50 == 0:
                gc.collect()  # a failure that nobody handled is logged only now, and belongs to one of the last worlds
        if SIMULATIONS >= 100:
            self.assertEqual([what for what in [*INTERESTING, *DEEDS] if seen[what] < 5], [])


class TestSabotage(SimulationCase):
    """
    A daemon that breaks a promise is found: the worlds themselves work.
    """

    def assert_found(self, *promises: str, first: int = 0) -> None:
        """
        Check that one of the first worlds fails for one of these reasons.

        Args:
            promises: The reasons.
            first: The seed to begin with, which saves the time of worlds in which nothing is found.
        """
        for seed in range(first, first + 100):
            try:
                self.run_world(seed, Counter())
            except self.failureException as error:
                found = str(error)
            else:
                continue
            Violated.first = None  # only now is nothing left that holds the world; its failures are logged as it goes
            gc.collect()
            self.flushLoggedErrors()
            self.assertTrue(any(promise in found for promise in promises), found[:500])
            return
        self.fail("nothing was found")

    def test_restoring_overwrites(self) -> None:
        """
        It is found that the database's readings replace newer ones.
        """
        really = KnownSensors.restore

        def restore(sensors: KnownSensors, owners: dict[str, str], readings: list[Reading]) -> Iterator[None]:
            yield from really(sensors, owners, readings)
            for reading in readings:
                if known := sensors.get(reading.sensor):
                    known.asked.remember(reading)

        self.patch(KnownSensors, "restore", restore)
        self.assert_found("`last` is the newest", first=40)

    def test_backlog_is_not_restored(self) -> None:
        """
        It is found that `last` does not know what an earlier life left in the journal.
        """
        begin = Restoration.begin

        def begin_without_backlog(restoration: Restoration) -> None:
            restoration.backlog = 0
            begin(restoration)

        self.patch(Restoration, "begin", begin_without_backlog)
        self.assert_found("`last` is the newest that was stored", "and all that was stored")

    def test_rows_are_lost(self) -> None:
        """
        It is found that half of a batch is confirmed but not stored.
        """
        store = SimulatedSink.store

        def lose(sink: SimulatedSink, batch: Batch, reject: Reject) -> Deferred[None]:
            return store(sink, halve(batch)[0] if batch.rows > 1 else batch, reject)

        self.patch(SimulatedSink, "store", lose)
        self.assert_found("a row is let go only when it is stored or set aside")

    def leave_out(self, kind: type[Row]) -> None:
        """
        Keep rows of one kind from the journal.
        """
        record = Recorder.record

        def some(recorder: Recorder, *happened: Any) -> Entry:
            entry = record(recorder, *happened)
            return entry._replace(runs=[run for run in entry.runs if run and not isinstance(run[0], kind)])

        self.patch(Recorder, "record", some)

    def test_requests_are_not_recorded(self) -> None:
        """
        It is found that requests are not in the journal.
        """
        self.leave_out(RequestRecord)
        self.assert_found("journalled, once, in the turn of the reply")

    def test_readings_are_not_recorded(self) -> None:
        """
        It is found that readings are not in the journal.
        """
        self.leave_out(Reading)
        self.assert_found("every reading goes to the journal", "journalled, once")

    def test_answers_are_mixed_up(self) -> None:
        """
        It is found that a request gets the answer to the question before, of the same sensor.
        """
        received = PendingRequests.received
        before: dict[tuple[PendingRequests[Any], str], Report] = {}

        def mix_up(requests: PendingRequests[Any], reports: Sequence[Report], now: float, at: int) -> Moves[Any]:
            moves = received(requests, reports, now, at)
            for index, (outcome, askers) in enumerate(moves.ended):
                if isinstance(outcome, Answer):
                    key, report = (requests, outcome.report.sensor), outcome.report
                    moves.ended[index] = (outcome._replace(report=before.get(key, report)), askers)
                    before[key] = report
            return moves

        self.patch(PendingRequests, "received", mix_up)
        self.assert_found("nobody gets another", "only a command is acknowledged")

    def test_tag_is_forgotten(self) -> None:
        """
        It is found that an error reply lacks its tag.
        """
        error_line = messages.error_line

        def forget(error: RequestError, fields: Mapping[str, str]) -> str:
            return error_line(error, {key: fields[key] for key in fields if key != "TAG"})

        for module in (commands, protocol):
            self.patch(module, "error_line", forget)
        self.assert_found("a word is answered once", "words are answered in their order", "every request ends")

    def test_event_is_not_counted(self) -> None:
        """
        It is found that a subscriber loses more events than are reported.
        """
        deliver = console.Console.deliver

        def lose(client: console.Console, batch: EventBatch) -> None:
            if b"VALUE:9" not in batch.encode(b""):
                deliver(client, batch)

        self.patch(console.Console, "deliver", lose)
        self.assert_found("events come in order", "a watcher gets every event or an exact count")
