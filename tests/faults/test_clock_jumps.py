"""
The wall clock jumps by years, in both directions, and starts in 1970: nothing is early, late, lost or out of order, and
the times can be corrected afterwards.
"""

from __future__ import annotations

import select
import sys
import time
from datetime import datetime
from typing import Any

from click.testing import CliRunner

from tests.faults.ledger import LedgerCase
from tests.faults.wrong_clock import WrongClock
from tests.support.running import LineClient, TwistdDaemon, environment
from tests.support.waiting import eventually
from usbgate.cli.main import main
from usbgate.core.fieldline import parse
from usbgate.daemon.clock import RELEASED

YEARS = 10 * 365 * 86400.0  # seconds: ten of them

# The right time, as seconds to add to this machine's, whose own clock may be behind.
RIGHT = max(0.0, RELEASED / 1000 + 86400 - time.time())

# Seconds by which a corrected time may be wrong: steps as small as this go unnoticed (protocol §5). The clock of these
# tests makes none, but a mark looks at two clocks, and may be interrupted in between.
TOLERANCE = 0.5

BOUND = 15.0  # seconds for a time limit of one second to end, on a busy machine; a jump makes it ten years, or nothing

ROWS = "select seq, at, clock from reading union all select seq, at, clock from request order by seq"


class JumpTests(LedgerCase):
    """
    A real daemon whose wall clock is controlled by a file.
    """

    def setUp(self) -> None:
        """
        Start in 1970, as a small computer without a clock does.
        """
        super().setUp()
        self.spans: dict[int, tuple[float, float]] = {}  # when each number was said and heard, in right time
        self.clock = WrongClock(self.folder / "clock")
        self.clock.set(100 - time.time(), False)
        self.device.answer = self.answer
        self.late_answers: list[bytes] = []

    def answer(self, fields: dict[str, str]) -> list[bytes]:
        """
        Answer for sensor 20 at once; keep the answers of others back.
        """
        if fields["ID"] == "20":
            return [b"ID:20_VALUE:456"]
        self.late_answers.append(f"ID:{fields['ID']}_VALUE:1_MSG:{fields['MSG']}".encode())
        return []

    def run_daemon(self, *options: str, port: int | None = None) -> TwistdDaemon:
        """
        Run a daemon with this clock.
        """
        program = (sys.executable, "-m", "tests.faults.wrong_clock", str(self.folder / "clock"))
        twistd = ("-n", "--pidfile=", "--rundir", str(self.folder))
        daemon = TwistdDaemon(self.state, *options, port=port, twistd=twistd, program=program)
        self.addCleanup(daemon.stop)
        return daemon.ready()

    @staticmethod
    def right_time() -> float:
        """
        Return the right time.
        """
        return time.time() + RIGHT

    def say(self, count: int) -> None:
        """
        Send some numbers, and record when.
        """
        first, before = self.said, self.right_time()
        super().say(count)
        for number in range(first, self.said):
            self.spans[number] = before, self.right_time()

    def waiting(self, sensor: str, timeout: float) -> LineClient:
        """
        Ask a sensor that does not answer yet.
        """
        client = self.connect(self.daemon)
        client.socket.settimeout(BOUND)
        asked = len(self.late_answers)
        client.say(f"ask {sensor} J timeout={timeout} origin=waiting{sensor}")
        eventually(lambda: len(self.late_answers) > asked, "the device is asked")
        return client

    def correct(self, *options: str) -> str:
        """
        Run `usbgate correct-clock`; return its output.
        """
        arguments = ["correct-clock", *(options or ["--database", self.database])]
        ran = CliRunner().invoke(main, arguments, env={**environment(), "HOME": str(self.folder)})
        self.assertEqual((ran.exit_code, ran.stderr), (0, ""))
        return ran.stdout

    def begin(self) -> None:
        """
        Start a daemon.
        """
        self.daemon = self.start()

    def test_jumps(self) -> None:
        """
        The clock starts in 1970 and jumps by ten years in both directions, with requests in flight: each answer and
        each time limit comes when it is due, everything is stored once and in order, and `correct-clock` corrects it,
        once.
        """
        self.begin()
        self.say(20)
        self.daemon.stop()
        self.begin()  # again in 1970, the same machine
        self.say(20)
        patient, impatient = self.waiting("30", 60), self.waiting("31", 1)
        in_1970 = 100 - time.time()
        self.clock.set(in_1970 + YEARS, False)
        self.say(20)
        self.ask(5)
        self.assertTrue(impatient.receive().startswith("ERROR:timeout_"))
        impatient = self.waiting("32", 1)
        self.clock.set(in_1970, False)
        self.say(20)
        self.assertTrue(impatient.receive().startswith("ERROR:timeout_"), "not ten years late")
        self.ask(5)
        self.assertEqual(self.rows("select 1 from reading where clock"), [])
        self.clock.set(RIGHT, True)
        self.say(20)
        self.ask(5)
        eventually(lambda: self.rows("select 1 from reading where clock"), "the clock is right")
        self.clock.set(RIGHT - YEARS, False)
        self.say(20)
        self.clock.set(RIGHT + YEARS, False)
        self.say(20)
        self.ask(5)
        self.assertEqual(select.select([patient.socket], [], [], 0)[0], [], "its 60 seconds are not over")
        self.device.say(b"ID:30_VALUE:1_MSG:J")
        self.assertTrue(patient.receive().startswith("ID:30_VALUE:1_MSG:J_"))
        self.clock.set(RIGHT, True)
        self.say(20)

        eventually(lambda: self.store()["BACKLOG"] == "0", "all is stored")
        self.numbers_stored()
        outcomes = "select outcome, count(*) from request where origin like 'waiting%' group by 1 order by 1"
        self.assertEqual(self.rows(outcomes), [("answered", 1), ("timeout", 2)])
        marks = self.rows("select clock, count(*), count(distinct boot) from clock_mark group by 1 order by 1")
        self.assertEqual([boots for _, _, boots in marks], [1, 1])
        self.assertEqual(self.daemon.log.count("Traceback"), 0)

        before = self.rows(ROWS)
        self.assertIn("would be moved by", self.correct("--dry-run", "--database", self.database))
        self.assertEqual(self.rows(ROWS), before)
        said = self.correct()
        self.assertIn(": moved by +", said)
        self.assertIn(": moved by -3,650 days", said)
        after = self.rows(ROWS)
        self.times_are_right(before, after)
        self.assertIn("nothing to correct", self.correct())
        self.assertEqual(self.rows(ROWS), after)

        self.clock.set(RIGHT + YEARS, False)  # what came later is corrected later, and nothing else
        self.say(20)
        eventually(lambda: self.store()["BACKLOG"] == "0", "all is stored")
        self.assertIn("20 readings, ", self.correct())
        self.assertEqual(self.rows(ROWS)[: len(after)], after)
        self.numbers_are_right()

    def test_embedded(self) -> None:
        """
        The embedded database is found while its daemon runs.
        """
        self.daemon = self.start(database="embedded")
        self.say(3)
        self.clock.set(RIGHT, True)
        self.say(3)
        eventually(lambda: self.store()["BACKLOG"] == "0", "all is stored")
        self.assertIn("3 readings, numbers 1 to 4: moved by +", self.correct("--state", str(self.state)))
        lines = [parse(line.encode()) for line in self.client.word("history 1")[:-1]]
        self.assertEqual([line["N"] for line in lines], list("012345"))
        for line in lines:
            at = datetime.fromisoformat(line["AT"]).timestamp()
            before, after = self.spans[int(line["N"])]
            self.assertTrue(before - TOLERANCE <= at <= after + TOLERANCE, (line, before, after))

    def times_are_right(self, before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]) -> None:
        """
        Check that all times are right, and that the distances between corrected times did not change.
        """
        self.assertEqual([seq for seq, *_ in after], [seq for seq, *_ in before])
        self.assertTrue(all(clock for *_, clock in after))
        shifts = [new[1] - old[1] for new, old in zip(after, before, strict=True)]
        jumps = sum(shift != previous for shift, previous in zip(shifts[1:], shifts, strict=False))
        self.assertLessEqual(jumps, 10)  # by stretches, not row by row
        self.numbers_are_right()
        requests = self.rows("select extract(epoch from at), latency_ms from request where origin like 'waiting%'")
        first, last = self.spans[0][0], self.spans[self.said - 1][1]
        for at, latency in requests:
            self.assertLess(first - TOLERANCE, float(at))
            self.assertLess(float(at) + latency / 1000, last + TOLERANCE)

    def numbers_are_right(self) -> None:
        """
        Check that each number was read between the moments at which it was sent and received.
        """
        for value, at in self.rows("select value, extract(epoch from at) from reading where sensor = '1' order by seq"):
            before, after = self.spans[int(value)]
            self.assertTrue(before - TOLERANCE <= float(at) <= after + TOLERANCE, (value, at, before, after))
