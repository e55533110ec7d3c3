"""
The benchmark runs, from the command to the page. Its figures are not tested.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.bench import child, page, report
from tests.bench.database import Database
from tests.bench.figures import Figure, Found, Row, reached
from tests.bench.reasons import REASONS
from tests.bench.rig import Rig
from tests.bench.roundtrip import check, least, sliced
from tests.bench.rows import ROWS
from tests.bench.throughput import all_there
from tests.bench.traced import Hold, Trace, read
from tests.support import postgresql
from tests.support.running import ROOT, environment


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Run the command to its end.
    """
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=120,
        start_new_session=True,
    )


class RunTests(SynchronousTestCase):
    """
    The command, as a person runs it.
    """

    def test_quick(self) -> None:
        """
        Rows are measured with small sizes, and nothing is lost or wrong.
        """
        folder = Path(tempfile.mkdtemp(prefix="usbgate-bench-test-"))
        self.addCleanup(shutil.rmtree, folder)
        names = "throughput", "coalescing", "holds", "hostile", "http"
        done = bench(*names, "--quick", "--rounds", "1", "--json", str(folder / "out.json"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        results = json.loads((folder / "out.json").read_text())
        self.assertEqual(results["wrong"], [])
        self.assertEqual(sorted(results["rounds"]), sorted(names))
        for name in names:
            [found] = results["rounds"][name]
            for figure in ROWS[name].figures:
                self.assertLessEqual({figure.key, *figure.beside}, found.keys())
            self.assertIn(f"{name}: ", done.stdout)
        [together] = results["rounds"]["coalescing"]
        self.assertEqual((together["messages"], together["clients"]), (1, 50))

    def test_unknown(self) -> None:
        """
        An unknown row is refused, and the known ones are listed.
        """
        done = bench("speed")
        self.assertEqual(done.returncode, 2)
        self.assertIn("no such row: speed", done.stderr)
        self.assertIn("throughput", done.stderr)


class SliceTests(SynchronousTestCase):
    """
    Gateways that are asked by turns.
    """

    def test_least(self) -> None:
        """
        Two gateways answer every question of all their clients right, over the same connections in each slice; the
        first slice is not counted.
        """
        rig = Rig(quick=True)
        self.addCleanup(rig.close)
        with rig.device() as one, rig.device() as other, least(rig, one) as fast, least(rig, other) as slow:
            slices = list(sliced(rig, {"fast": fast, "slow": slow}, 3, 0.1))
            asked = [device.counts()["received"] for device in (one, other)]
        [found] = slices
        self.assertEqual(list(found), ["fast", "slow"])
        for results, received in zip(found.values(), asked, strict=True):
            self.assertLess(0, results["all_answers"])
            self.assertLess(results["all_answers"], received)
            self.assertLess(0, results["cpu"])


class CheckTests(SynchronousTestCase):
    """
    Errors are found.
    """

    def asked(self, answer: Callable[[str], bytes]) -> dict[str, Any]:
        """
        Ask a server that answers in a given way; return the results of the clients.
        """
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    connection.sendall(line + answer(line.decode().rpartition("_N:")[2].strip()))

        thread = Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)
        results = child.run(
            "tests.bench.load",
            json.dumps(
                {"does": "ask", "port": listening.getsockname()[1], "clients": 1, "seconds": 0.1, "patience": 0.2}
            ),
        )
        return results

    def test_right(self) -> None:
        """
        The answer to the question is counted.
        """
        results = self.asked(lambda number: f"ID:1_VALUE:{number}_MSG:J_AT:2026-03-11T21:02:10.123Z\n".encode())
        self.assertGreater(results["answers"], 0)
        check(results)

    def test_wrong(self) -> None:
        """
        A wrong answer in addition to the right one, an error, and a missing answer are reported.
        """

        def doubled(number: str) -> bytes:
            right = f"ID:1_VALUE:{number}_MSG:J_AT:2026-03-11T21:02:10.123Z\n"
            return (right if number < "3" else right + right).encode()

        def failing(number: str) -> bytes:
            return doubled(number) if number < "3" else b"ERROR:timeout_MSG:J_ID:1_ORIGIN:b_N:3\n"

        def silent(number: str) -> bytes:
            return doubled(number) if number < "3" else b""

        for answer, what in [(doubled, "wrong"), (failing, "errors"), (silent, "unanswered")]:
            results = self.asked(answer)
            self.assertGreater(results[what], 0, what)
            with self.assertRaisesRegex(AssertionError, "not every answer was right"):
                check(results)

    def test_stored(self) -> None:
        """
        A reading that is lost, doubled, changed, of another sensor or out of order is found in the table.
        """
        server = postgresql.server()
        url = server.create_database()
        self.addCleanup(server.query, server.url, f"drop database {url.rpartition('/')[2]} with (force)")
        server.query(url, "create table reading (gateway text, seq bigint, sensor text, field text, value float8)")
        fill = "insert into reading select 'bench', n + 7, (n % 4)::text, 'VALUE', n from generate_series(0, 19) n"
        for harm in [
            "",
            "delete from reading where value = 5",
            "insert into reading select * from reading where value = 5",
            "update reading set value = 4 where value = 5",
            "update reading set sensor = '2' where value = 5",
            "update reading set field = 'X' where value = 5",
            "update reading set seq = 40 - seq",
        ]:
            server.query(url, f"delete from reading; {fill}; {harm}")
            with closing(Database(url, lambda: 0)) as database:
                if harm:
                    with self.assertRaisesRegex(AssertionError, "out of order", msg=harm):
                        all_there(database, 20, 4)
                else:
                    all_there(database, 20, 4)


class TraceTests(SynchronousTestCase):
    """
    What held the reactor.
    """

    def test_parts(self) -> None:
        """
        The seconds of a part count once, as its own; a call by the reactor has all seconds by the clock.
        """
        now = 0.0

        def wait(seconds: float) -> None:
            nonlocal now
            now += seconds

        trace = Trace(clock=lambda: now + 1000, cpu=lambda: now / 2)

        def read_device() -> str:
            wait(1)
            trace.call("flush", wait, 4)
            self.assertRaises(TypeError, trace.call, "insert", wait)
            wait(2)
            return "done"

        self.assertEqual(trace.call("device", read_device), "done")
        trace.call("timer", wait, 8)
        path = Path(self.mktemp())
        trace.write(path)
        expected = {
            "flush": [Hold(1005, 2, 0)],
            "insert": [Hold(1005, 0, 0)],
            "device": [Hold(1007, 1.5, 7)],
            "timer": [Hold(1015, 4, 8)],
        }
        self.assertEqual(read(path), expected)


ROW = Row(
    "row",
    "a row",
    [
        Figure("fast", "it does", "/s", {"other": "the other"}, ">= 1,000"),
        Figure("slow", "it takes", "ms", reach="<= 2"),
        Figure("gone", "nobody knows", reach="<= 1"),
    ],
    lambda rig: {},
)

ROUNDS = [{"fast": 1500.0, "other": 2000.0, "slow": 2.5}, {"fast": 900.0, "slow": 2.5}, {"fast": 1200.0, "slow": 3.0}]


class ReportTests(SynchronousTestCase):
    """
    How results are shown.
    """

    def test_found(self) -> None:
        """
        A figure is the median of the rounds that have it, between the least and the most.
        """
        self.assertEqual(Found.of(ROUNDS, "fast"), Found(1200.0, 900.0, 1500.0))
        self.assertEqual(Found.of(ROUNDS, "other"), Found(2000.0, 2000.0, 2000.0))
        self.assertIsNone(Found.of(ROUNDS, "gone"))
        self.assertEqual(Found.of([{"fast": [1.0, 4.0]}, {"fast": [2.0, 3.0, 5.0]}], "fast"), Found(3.0, 1.0, 5.0))

    def test_reached(self) -> None:
        """
        The median must reach the limit, upwards or downwards.
        """
        fast, slow, _ = ROW.figures
        self.assertIs(reached(fast, Found(1000, 0, 0)), True)
        self.assertIs(reached(fast, Found(999, 0, 5000)), False)
        self.assertIs(reached(slow, Found(2, 9, 9)), True)
        self.assertIs(reached(slow, Found(2.1, 0, 0)), False)
        self.assertIsNone(reached(Figure("mere", "it is"), Found(1, 1, 1)))

    def test_plain(self) -> None:
        """
        Each figure is shown beside its reference, its spread and its limit.
        """
        self.assertEqual(
            list(report.plain([ROW], {"row": ROUNDS})),
            [
                "row: a row",
                "  it does: 1,200/s (900 – 1,500) [the other: 2,000/s] target ≥ 1,000/s: yes",
                "  it takes: 2.50 ms (2.50 – 3) target ≤ 2 ms: NO",
                "  nobody knows: not measured target ≤ 1",
            ],
        )

    def test_keys(self) -> None:
        """
        No row shows a figure twice.
        """
        for row in ROWS.values():
            keys = [figure.key for figure in row.figures]
            self.assertEqual(len(keys), len(set(keys)), row.name)

    def test_reasons(self) -> None:
        """
        Each reason is that of a figure with a limit.
        """
        limited = {(row.name, figure.key) for row in ROWS.values() for figure in row.figures if figure.reach}
        self.assertLessEqual(REASONS.keys(), limited)

    def test_page(self) -> None:
        """
        The table of the page is replaced, and nothing else.
        """
        results = {
            **report.circumstances(quick=False),
            "load": 0.1,
            "seconds": 601,
            "rounds": {"coalescing": [{"messages": 1.0, "clients": 500.0}], "flow": [{"times": 2.5}]},
        }
        lines = list(page.table(results))
        self.assertIn("in 10 minutes.", " ".join(lines[:2]))
        self.assertIn("- **`flow`, relative to no flow: 2.50 x, target ≤ 2 x.** The readings of 2 ms arrive", lines[-2])
        self.assertIn("| exchanges with the device | 1 |  |  | ≤ 1 | yes |", lines)
        once = page.replaced(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", lines)
        self.assertNotIn("old", once)
        self.assertTrue(once.startswith(f"before\n{page.BEGIN}\nMeasured on "))
        self.assertTrue(once.endswith(f"\n{page.END}\nafter\n"))
        self.assertEqual(page.replaced(once, lines), once)

    def test_page_doubts(self) -> None:
        """
        Figures of a busy machine, or of a quick run, are marked as such.
        """
        results = {**report.circumstances(quick=False), "load": 0.1, "seconds": 600, "rounds": {}}
        self.assertNotIn("reliable", " ".join(page.table(results)))
        doubts: list[dict[str, Any]] = [{"load": 3.2}, {"quick": True}]
        for doubt in doubts:
            self.assertIn("not reliable", " ".join(page.table({**results, **doubt})))

    def test_page_of_the_docs(self) -> None:
        """
        The page in the docs has its marks.
        """
        text = (ROOT / "docs" / "bench.md").read_text()
        self.assertEqual((text.count(page.BEGIN), text.count(page.END)), (1, 1))
