"""
The delivery, between a journal and a store in memory, with a manual clock; and once on a real journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.support.journal import JournalCase
from tests.support.waiting import until
from usbgate.core.model import Row
from usbgate.core.status import StoreStatus
from usbgate.store.delivery import BACK_OFF_MOST, STOP_PATIENCE, Delivery
from usbgate.store.interfaces import Refusal, SinkUnavailable
from usbgate.store.restoration import RETRY_INTERVAL
from usbgate.testing import MemoryJournal, MemorySink, readings, request_record


class DeliveryTests(TestCase):
    """
    Whatever a store can do.
    """

    def setUp(self) -> None:
        """
        Create the parts.
        """
        self.clock = Clock()
        self.outbox = MemoryJournal()
        self.sink = MemorySink()
        self.restored = 0
        self.restore: Callable[[], Awaitable[Any]] = self.count_restore
        self.delivery = self.make()

    def make(self, jitter: float = 0.0) -> Delivery:
        """
        Create a delivery.
        """
        return Delivery(self.clock, self.outbox, self.sink, lambda: self.restore(), jitter=lambda: jitter)

    def tearDown(self) -> None:
        """
        No timer and no pending `oldest` is left after the stop.
        """
        if self.delivery.running:
            self.successResultOf(self.delivery.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.outbox.awaited)

    async def count_restore(self) -> None:
        """
        Count the call.
        """
        self.restored += 1

    def test_stores_in_order(self) -> None:
        """
        The backlog is stored first, then new rows; each batch is confirmed when it is stored.
        """
        self.outbox.append(readings(0, 3), [])
        self.delivery.startService()
        self.assertEqual((self.delivery.state, self.delivery.trouble), ("connected", None))
        self.outbox.append(readings(3, 1), [request_record()])
        self.assertEqual(self.sink.numbers(), [1, 2, 3, 4, 5])
        self.assertEqual(self.outbox.events, ["confirm 1-3", "confirm 4-5"])
        self.assertEqual(self.sink.calls, ["connect", "store 1-3", "store 4-5"])

    def test_one_statement_in_flight(self) -> None:
        """
        At most one statement is in flight; its batch is confirmed when it has ended.
        """
        self.sink.hanging = True
        self.delivery.startService()
        self.outbox.append(readings(0, 1), [])
        self.outbox.append(readings(1, 1), [])
        self.assertEqual(self.sink.calls, ["connect", "store 1-1"])
        self.assertEqual(self.outbox.events, [])
        self.sink.release()
        self.assertEqual(self.outbox.events, ["confirm 1-1", "confirm 2-2"])

    def test_backs_off(self) -> None:
        """
        An unreachable store is retried after 0.5 s, then after twice as long, up to 30 s; after a success at 0.5 s
        again.
        """
        states: list[str] = []
        self.delivery.state_changed = lambda: states.append(self.delivery.state)
        self.sink.unavailable = "connection refused"
        self.delivery.startService()
        self.assertEqual((self.delivery.state, self.delivery.trouble), ("away", "connection refused"))
        waits = []
        for _ in range(9):
            (call,) = self.clock.getDelayedCalls()
            waits.append(call.getTime() - self.clock.seconds())
            self.clock.advance(waits[-1])
        self.assertEqual(waits, [0.5, 1, 2, 4, 8, 16, 30, 30, 30])
        self.assertEqual(self.restored, 0)
        self.sink.unavailable = None
        self.clock.advance(BACK_OFF_MOST)
        self.assertEqual((self.delivery.state, self.delivery.trouble, self.restored), ("connected", None, 1))
        self.assertEqual(states, ["away", "connected"])  # called when it changes, not at each attempt
        self.sink.unavailable = "gone"
        self.outbox.append(readings(0, 1), [])
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime() - self.clock.seconds(), 0.5)

    def test_tries_now(self) -> None:
        """
        `try_now` ends the back-off; at any other time it does nothing.
        """
        self.delivery.try_now()
        self.sink.unavailable = "connection refused"
        self.delivery.startService()
        for _ in range(5):
            self.clock.advance(BACK_OFF_MOST)
        self.delivery.try_now()
        self.assertEqual((self.sink.calls, self.delivery.state), (["connect"] * 7, "away"))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.sink.unavailable = None
        self.delivery.try_now()
        self.assertEqual((self.delivery.state, self.clock.getDelayedCalls()), ("connected", []))
        self.delivery.try_now()
        self.outbox.append(readings(0, 1), [])
        self.assertEqual(self.sink.calls[7:], ["connect", "store 1-1"])

    def test_jitter_shortens(self) -> None:
        """
        The wait is shortened by up to a quarter.
        """
        self.delivery = self.make(jitter=1.0)
        self.sink.unavailable = "connection refused"
        self.delivery.startService()
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime(), 0.375)

    def test_lost_and_back(self) -> None:
        """
        A store that goes away loses nothing: the same rows are sent again, and nothing is restored again.
        """
        self.delivery.startService()
        self.sink.unavailable = "server closed the connection"
        self.outbox.append(readings(0, 2), [])
        self.outbox.append(readings(2, 1), [])
        self.assertEqual((self.delivery.state, self.delivery.trouble), ("away", "server closed the connection"))
        self.clock.advance(0.5)
        self.assertEqual(self.outbox.events, [])
        self.sink.unavailable = None
        self.clock.advance(1)
        self.assertEqual(self.sink.numbers(), [1, 2, 3])
        self.assertEqual(self.outbox.events, ["confirm 1-2", "confirm 3-3"])
        self.assertEqual(self.restored, 1)

    def test_lost_while_idle(self) -> None:
        """
        A store that is lost while no rows are waiting becomes `away`, and is connected again before any arrive.
        """
        self.delivery.startService()
        self.sink.unavailable = "the server is down"
        self.sink.lost("the server went away")
        self.assertEqual((self.delivery.state, self.delivery.trouble), ("away", "the server went away"))
        self.sink.lost("once is enough")
        self.clock.advance(0.5)
        self.assertEqual(self.delivery.trouble, "the server is down")
        self.sink.unavailable = None
        self.clock.advance(1)
        self.assertEqual((self.delivery.state, self.delivery.trouble), ("connected", None))
        self.outbox.append(readings(0, 1), [])
        self.assertEqual(self.sink.calls, ["connect", "connect", "connect", "store 1-1"])

    def test_status(self) -> None:
        """
        The status has the state, the numbers of waiting and rejected rows, the oldest time and the trouble.
        """
        self.assertEqual(self.delivery.status(), StoreStatus("connecting"))
        self.sink.refuses = lambda number, row: number == 2
        self.delivery.startService()
        self.outbox.append(readings(0, 2), [])
        self.assertEqual(self.delivery.status(), StoreStatus("connected", rejected=1))
        self.sink.unavailable = 'relation "usbgate_schema" is\nnot there'
        self.outbox.append(readings(0, 3), [])
        oldest = readings(0, 1)[0].at
        expected = StoreStatus("away", None, 3, 1, oldest, self.sink.unavailable)
        self.assertEqual(self.delivery.status(), expected)

    def test_logged_once(self) -> None:
        """
        That the store is away is logged once, with the reason, and once when it is back; not at each attempt.

        A store that accepts connections and refuses writes (a dropped table) is away all the time.
        """
        lines: list[str] = []
        self.patch(self.delivery, "log", FakeLog(lines))
        self.delivery.startService()
        connect = self.sink.connect
        self.patch(self.sink, "connect", lambda: succeed(None))
        self.sink.unavailable = "42P01: no such table"
        self.outbox.append(readings(0, 2), [])
        for _ in range(5):
            self.clock.advance(BACK_OFF_MOST)
            self.assertEqual((self.delivery.state, self.delivery.trouble), ("away", "42P01: no such table"))
        self.sink.unavailable = None
        self.sink.connect = connect  # type: ignore[method-assign]  # as it was
        self.clock.advance(BACK_OFF_MOST)
        self.assertEqual(
            lines,
            [
                "info the store is connected; 0 rows are waiting",
                "warn the store is unavailable: 42P01: no such table; rows are kept in the journal, 2 so far",
                "info the store is back after 180.0 s; 2 rows are waiting",
            ],
        )

    def test_conditions_reject_nothing(self) -> None:
        """
        No row is rejected because of the server's condition.
        """
        self.delivery.startService()
        self.sink.unavailable = "53100: disk full"
        self.outbox.append(readings(0, 8), [])
        self.clock.pump([BACK_OFF_MOST] * 10)
        self.assertEqual(self.outbox.events, [])

    def test_bad_rows_stand_alone(self) -> None:
        """
        In a batch of readings and requests, only the refused rows are rejected; the rest is stored once, in order.
        """
        bad = {3, 4, 11, 14}
        self.sink.refuses = lambda number, row: number in bad
        self.outbox.append(readings(0, 10), [request_record() for _ in range(5)])
        self.outbox.append(readings(0, 1), [])
        self.delivery.startService()
        self.assertEqual(self.sink.numbers(), [n for n in range(1, 17) if n not in bad])
        self.assertEqual(
            self.outbox.events,
            [*[f"reject {n} 22P02: refused by the test" for n in sorted(bad)], "confirm 1-15", "confirm 16-16"],
        )

    def test_a_bad_row_alone(self) -> None:
        """
        A refused batch of one row is rejected and confirmed.
        """
        self.sink.refuses = lambda number, row: True
        self.delivery.startService()
        self.outbox.append([], [request_record()])
        self.assertEqual(self.outbox.events, ["reject 1 22P02: refused by the test", "confirm 1-1"])
        self.assertEqual((self.delivery.state, self.delivery.trouble), ("connected", None))

    def test_rejected_before_they_are_let_go(self) -> None:
        """
        A batch with refused rows is not confirmed before these are on disk; if the journal's disk refuses, it is sent
        again.
        """
        on_disk: list[Deferred[None]] = []

        def reject(rows: Sequence[Refusal]) -> Deferred[None]:
            on_disk.append(Deferred())
            return on_disk[-1]

        self.patch(self.outbox, "reject", reject)
        self.sink.refuses = lambda number, row: number == 3
        self.outbox.append(readings(0, 8), [request_record()])
        self.delivery.startService()
        self.assertEqual((self.outbox.events, self.sink.numbers()), ([], []))
        on_disk[0].errback(SinkUnavailable("the journal is full"))
        self.assertEqual((self.delivery.state, self.delivery.trouble), ("away", "the journal is full"))
        self.clock.advance(0.5)
        on_disk[1].callback(None)
        self.assertEqual(self.sink.numbers(), [1, 2, 4, 5, 6, 7, 8, 9])
        self.assertEqual(self.outbox.events, ["confirm 1-9"])

    def test_landed(self) -> None:
        """
        If the sink finds at the next connection that everything is stored, nothing is sent again, the store is
        connected, and what it has is restored.
        """
        self.sink.unavailable = "the connection was lost"
        self.outbox.append(readings(0, 2), [])
        self.delivery.startService()
        self.clock.advance(0.5)
        self.assertEqual((self.delivery.state, self.restored), ("away", 0))
        connect = self.sink.connect

        def find() -> Deferred[None]:
            self.outbox.discard(0)
            return connect()

        self.patch(self.sink, "connect", find)
        self.sink.unavailable = None
        self.clock.advance(BACK_OFF_MOST)
        self.assertEqual((self.delivery.state, self.delivery.status().oldest, self.restored), ("connected", None, 2))
        self.assertEqual(self.sink.numbers(), [])
        self.outbox.append(readings(2, 1), [])
        self.assertEqual(self.sink.numbers(), [3])

    def test_refused_rows_are_logged_at_a_limited_rate(self) -> None:
        """
        A device whose every row is refused does not fill the log.
        """
        lines: list[str] = []
        self.patch(self.delivery, "log", FakeLog(lines))
        self.sink.refuses = lambda number, row: True
        self.delivery.startService()
        for _ in range(5):
            self.outbox.append(readings(0, 2), [])
        self.clock.advance(60)
        self.outbox.append(readings(0, 1), [])
        self.assertEqual(
            lines[1:],
            [
                "warn the store refused 2 rows, which were set aside; the last, number 2: 22P02: refused by the test",
                "warn the store refused 9 rows, which were set aside; the last, number 11: 22P02: refused by the test",
            ],
        )

    def test_our_own_bug(self) -> None:
        """
        An unexpected exception is logged once and retried with the back-off; the rows stay in the journal.
        """

        def refuses(number: int, row: Row) -> bool:
            raise ZeroDivisionError("ours")

        self.sink.refuses = refuses
        self.delivery.startService()
        self.outbox.append(readings(0, 1), [])
        self.assertEqual((self.delivery.state, self.delivery.trouble), ("away", "unexpected ZeroDivisionError: ours"))
        self.clock.pump([BACK_OFF_MOST] * 4)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.sink.refuses = lambda number, row: False
        self.clock.advance(BACK_OFF_MOST)
        self.assertEqual(self.sink.numbers(), [1])

    def test_restoring_delays_no_storing(self) -> None:
        """
        Rows are stored while readings are restored; if that fails, it is logged once and retried each minute.
        """
        lines: list[str] = []
        self.patch(self.delivery.restoration, "log", FakeLog(lines))
        restoring: list[Deferred[None]] = []

        def restore() -> Deferred[None]:
            restoring.append(Deferred())
            return restoring[-1]

        self.restore = restore
        self.delivery.startService()
        self.outbox.append(readings(0, 1), [])
        self.assertEqual((self.delivery.state, self.sink.numbers()), ("connected", [1]))
        for count in (1, 2):
            restoring[-1].errback(SinkUnavailable("too many connections"))
            self.assertEqual(self.delivery.state, "connected")
            self.assertEqual(len(restoring), count)
            self.clock.advance(RETRY_INTERVAL)
        restoring[-1].callback(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(restoring), 3)
        again = "warn cannot restore the newest readings: too many connections; retrying"
        self.assertEqual(lines.count(again), 1)

    def test_restored_again_after_the_backlog(self) -> None:
        """
        When the initial backlog is stored or rejected, readings are restored once more, and no more.
        """
        self.sink.refuses = lambda number, row: number == 3
        self.sink.hanging = True
        self.outbox.append(readings(0, 1), [])
        self.outbox.append(readings(1, 2), [])
        self.delivery.startService()
        self.assertEqual(self.restored, 1)
        self.outbox.append(readings(3, 1), [])  # received since the start
        self.sink.release()
        self.assertEqual(self.outbox.events[1:], ["reject 3 22P02: refused by the test", "confirm 2-3", "confirm 4-4"])
        self.assertEqual(self.restored, 2)
        self.outbox.append(readings(4, 1), [])
        self.assertEqual(self.restored, 2)

    def test_backlog_that_was_dropped(self) -> None:
        """
        If a part of the initial backlog was dropped, readings are restored again when the rest is stored.
        """
        self.sink.hanging = True
        for n in range(3):
            self.outbox.append(readings(n, 1), [])
        self.delivery.startService()
        self.outbox.discard(1)
        self.sink.release()
        self.assertEqual(self.outbox.events, ["confirm 1-1", "confirm 3-3"])
        self.assertEqual(self.restored, 2)

    def test_stopped_before_the_backlog_is_stored(self) -> None:
        """
        The stop ends the wait for the initial backlog.
        """
        self.sink.hanging = True
        self.outbox.append(readings(0, 1), [])
        self.delivery.startService()
        stopped = self.delivery.stopService()
        self.clock.advance(STOP_PATIENCE)
        self.successResultOf(stopped)
        self.assertEqual(self.restored, 1)

    def test_restoring_fails(self) -> None:
        """
        An unexpected exception while restoring is logged, and rows are stored nevertheless.
        """

        def restore() -> Deferred[None]:
            raise ZeroDivisionError("ours")

        self.restore = restore
        self.outbox.append(readings(0, 1), [])
        self.delivery.startService()
        self.assertEqual(self.sink.numbers(), [1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop_while_waiting(self) -> None:
        """
        The stop while idle, or during the back-off, ends at once and closes the sink.
        """
        self.delivery.startService()
        self.successResultOf(self.delivery.stopService())
        self.assertEqual(self.sink.calls, ["connect", "close"])
        self.setUp()
        self.sink.unavailable = "connection refused"
        self.delivery.startService()
        self.successResultOf(self.delivery.stopService())
        self.clock.advance(BACK_OFF_MOST)
        self.assertEqual(self.sink.calls, ["connect", "close"])

    def test_stop_lets_a_statement_end(self) -> None:
        """
        A statement in flight may end and is confirmed; no other is started.
        """
        self.sink.hanging = True
        self.outbox.append(readings(0, 1), [])
        self.outbox.append(readings(1, 1), [])
        self.delivery.startService()
        stopped = self.delivery.stopService()
        self.assertNoResult(stopped)
        self.clock.advance(1.4)
        self.sink.release()
        self.successResultOf(stopped)
        self.assertEqual(self.outbox.events, ["confirm 1-1"])
        self.assertEqual(self.sink.calls, ["connect", "store 1-1", "close"])

    def test_stop_abandons_a_statement(self) -> None:
        """
        A statement that hangs is abandoned after 1.5 s by closing the sink; its rows stay in the journal.
        """
        self.sink.hanging = True
        self.outbox.append(readings(0, 1), [])
        self.delivery.startService()
        stopped = self.delivery.stopService()
        self.clock.advance(1.4)
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(self.outbox.events, [])
        self.assertEqual(self.sink.calls, ["connect", "store 1-1", "close"])

    def test_stop_in_a_connection_that_hangs(self) -> None:
        """
        Neither a connection that is never made nor a restoration that hangs, or waits for a retry, delays the stop.
        """
        hanging: Deferred[None] = Deferred()
        self.patch(self.sink, "connect", lambda: hanging)
        self.delivery.startService()
        self.successResultOf(self.delivery.stopService())
        self.setUp()
        for restoring in (Deferred[None](), fail(SinkUnavailable("too many connections"))):
            self.restore = [restoring].pop
            self.delivery.startService()
            self.successResultOf(self.delivery.stopService())
            self.assertTrue(restoring.called)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.setUp()

    def test_never_started(self) -> None:
        """
        A delivery that was never started can be stopped.
        """
        self.successResultOf(self.delivery.stopService())
        self.assertEqual(self.sink.calls, [])


class FakeLog:
    """
    Keeps what is logged, formatted.
    """

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def info(self, text: str, **fields: object) -> None:
        """
        Keep it.
        """
        self._lines.append("info " + text.format(**fields))

    def warn(self, text: str, **fields: object) -> None:
        """
        Keep it.
        """
        self._lines.append("warn " + text.format(**fields))


class WithJournalTests(JournalCase):
    """
    The delivery on a real journal.
    """

    async def test_outage(self) -> None:
        """
        After an outage beyond the memory limit, every row is stored once and in order, except the rejected ones.
        """
        journal = self.start(live_limit=40_000)
        reads = self.count_reads()
        sink = MemorySink()
        sink.unavailable = "not yet"
        sink.refuses = lambda number, row: number in (5, 2000)
        delivery = Delivery(self.reactor, journal, sink, lambda: succeed(None), jitter=lambda: 0.99)
        delivery.startService()
        self.addCleanup(lambda: delivery.stopService() if delivery.running else None)
        for n in range(8):
            journal.append(readings(n * 400, 400), ())
            await self.committed(journal)
        sink.unavailable = None
        delivery.try_now()
        await until(lambda: journal.backlog == 0)
        self.assertNotEqual(reads, [])
        self.assertEqual(sink.numbers(), [n for n in range(1, 3201) if n not in (5, 2000)])
        await delivery.stopService()
        await journal.stopService()
        self.assertEqual(self.query("select n from rejected order by n"), [(5,), (2000,)])
        self.assertEqual(self.query("select * from batch"), [])
