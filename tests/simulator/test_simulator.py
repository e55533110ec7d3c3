"""
The simulated home: what it says, and the device that it says it on.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import selectors
import signal
import subprocess
import sys
import termios
from collections.abc import Awaitable, Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.processes import heed_interrupts
from tests.support.waiting import LIMIT
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import parse
from usbgate.core.model import Report
from usbgate.device.dialects.fields import Dialect
from usbgate.simulator.home import Home
from usbgate.simulator.sensors import furnish
from usbgate.simulator.service import Simulator, SimulatorError


def live(home: Home, until: float, asks: dict[float, bytes] | None = None) -> list[bytes]:
    """
    Let a home live from 0 to a time, ask what is to be asked, and take all that it says.
    """
    asks = dict(asks or {})
    said: list[bytes] = []
    home.power_on(0.0)
    now = 0.0
    while (now := min([home.next_due, *asks])) <= until:
        if now in asks:
            home.receive(asks.pop(now), now)
        said += home.due(now)
    return said


class HomeTests(SynchronousTestCase):
    """
    The logic, with numbers for clocks.
    """

    def asked(self, request: bytes, **options: Any) -> list[bytes]:
        """
        What a silent home says to one request.
        """
        return live(Home(1, rate=0, **options), 10, {1.0: request})[1:]

    def test_seed(self) -> None:
        """
        The same seed gives the same lines, another seed others; the first is the board's own.
        """
        asks = {1.0: b"MSG:J_ID:20", 2.0: b"MSG:J_ID:22"}
        first = live(Home(7, rate=2, noise=0.2), 60, asks)
        self.assertEqual(first, live(Home(7, rate=2, noise=0.2), 60, asks))
        self.assertNotEqual(first, live(Home(8, rate=2, noise=0.2), 60, asks))
        self.assertEqual(first[0], b"# home ready\r\n")

    def test_answers(self) -> None:
        """
        New firmware tells the command, old firmware does not, both give the asker's tag back.
        """
        self.assertRegex(self.asked(b"MSG:J_ID:20_ORIGIN:x")[0], rb"\AID:20_VALUE:2\d\.\d\r\n\Z")
        self.assertRegex(self.asked(b"MSG:J_ID:20_TAG:a1")[0], rb"\AID:20_VALUE:2\d\.\d_TAG:a1\r\n\Z")
        self.assertRegex(self.asked(b"MSG:J_ID:23")[0], rb"\AID:23_VALUE:\d\.\d_MSG:J\r\n\Z")
        both = self.asked(b"MSG:J_ID:22_TAG:2")[0]
        self.assertRegex(both, rb"\AID:22_TEMP:2\d\.\d_HUM:\d\d\.\d_BAT:OK_MSG:J_TAG:2\r\n\Z")
        self.assertRegex(self.asked(b"MSG:H_ID:22")[0], rb"\AID:22_HUM:\d\d\.\d_MSG:H\r\n\Z")
        self.assertEqual(self.asked(b"MSG:J_ID:2"), [b"ID:2_SMOKE:0\r\n"])

    def test_commands(self) -> None:
        """
        The lamp says what became of it, the shutter only acknowledges, and both keep it.
        """
        home = Home(1, rate=0, max_delay=0)
        home.power_on(0)
        for request, answer in [
            (b"# hello", b"# home ready"),
            (b"MSG:ON_ID:9", b"ID:9_LEVEL:100_MSG:ON"),
            (b"MSG:L_ID:9_LEVEL:50", b"ID:9_LEVEL:50_MSG:L"),
            (b"MSG:TOGGLE_ID:9", b"ID:9_LEVEL:0_MSG:TOGGLE"),
            (b"MSG:TOGGLE_ID:9", b"ID:9_LEVEL:100_MSG:TOGGLE"),
            (b"MSG:OFF_ID:9", b"ID:9_LEVEL:0_MSG:OFF"),
            (b"MSG:L_ID:10_LEVEL:30", b"ID:10_MSG:L"),
            (b"MSG:J_ID:10", b"ID:10_LEVEL:30_MSG:J"),
        ]:
            home.receive(request, 1)
            self.assertEqual(home.due(1), [answer + b"\r\n"])

    def test_not_understood(self) -> None:
        """
        What is no request, or nothing for that sensor, is left alone.
        """
        for request in [
            b"",
            b"\xff",
            b"J 20",
            b"ID:20",
            b"MSG:J",
            b"MSG:J_ID:99",
            b"MSG:X_ID:20",
            b"MSG:L_ID:9",
            b"MSG:L_ID:9_LEVEL:101",
            b"MSG:L_ID:9_LEVEL:nan",
            b"MSG:T_ID:20",
            b"MSG:ON_ID:2",
        ]:
            self.assertEqual(self.asked(request), [])

    def test_mute(self) -> None:
        """
        A mute home answers nothing and goes on speaking.
        """
        self.assertEqual(self.asked(b"MSG:J_ID:20", mute=True), [])
        self.assertGreater(len(live(Home(1, rate=1, mute=True), 60)), 20)

    def test_order(self) -> None:
        """
        Answers take up to the longest delay and overtake each other.
        """
        home = Home(3, rate=0, max_delay=3)
        home.power_on(0)
        home.due(0)
        for _ in range(20):
            for sensor in (b"20", b"21", b"22", b"23"):
                home.receive(b"MSG:J_ID:%b" % sensor, 0)
        self.assertEqual(home.due(0), [])
        said = [parse(line.rstrip())["ID"] for line in home.due(3)]
        self.assertEqual(sorted(said), sorted(["20", "21", "22", "23"] * 20))
        self.assertNotEqual(said, ["20", "21", "22", "23"] * 20)

    def test_unasked(self) -> None:
        """
        Unasked lines come about as often as said, from detectors and from the climate; from what takes commands only
        after the start, when each sensor reports once.
        """
        said = [Dialect().decode(line.rstrip()) for line in live(Home(1, rate=2), 1000)[1:]]
        self.assertTrue(1800 < len(said) < 2200, len(said))
        reports = [report for report in said if isinstance(report, Report)]
        self.assertEqual([report.sensor for report in reports[:9]], list(furnish()))
        self.assertEqual({report.sensor for report in reports[9:]}, set(furnish()) - {"9", "10"})
        self.assertEqual({report.values for report in reports if report.sensor == "2"}, {(("SMOKE", "0"),)})
        presence = [report.values[0][1] for report in reports if report.sensor == "6"]
        changes = sum(before != after for before, after in itertools.pairwise(presence))
        self.assertTrue(5 < changes < len(presence) / 5, changes)
        degrees = [float(report.values[0][1]) for report in reports if report.sensor == "20"]
        self.assertTrue(15 < min(degrees) < max(degrees) < 28, degrees)

    def test_detector(self) -> None:
        """
        A detector that is tested reports 1 at once and a few times more, and then what it detects.
        """
        home = Home(1, rate=10, max_delay=0)
        home.power_on(0)
        home.due(5)
        home.receive(b"MSG:TEST_ID:2", 5)
        smoke = [line.rstrip() for line in home.due(30) if line.startswith(b"ID:2_")]
        self.assertEqual([line.endswith(b"SMOKE:1") for line in smoke[:6]], [True] * 4 + [False] * 2)

    def test_noise(self) -> None:
        """
        Noise is malformed, all of it, and takes nothing away from what is good.
        """
        good = bad = 0
        for line in live(Home(1, rate=1, noise=0.3), 3000)[1:]:
            self.assertTrue(line.endswith(b"\n") and line.count(b"\n") == 1, line)
            try:
                Dialect().decode(line.rstrip(b"\r\n"))
                good += 1
            except Malformed:
                bad += 1
        self.assertTrue(2700 < good < 3300, good)
        self.assertTrue(0.25 < bad / good < 0.35, bad)

    def test_bounded(self) -> None:
        """
        Neither requests without end nor a clock that jumps make it grow.
        """
        home = Home(1, rate=1000)
        home.power_on(0)
        for _ in range(10_000):
            home.receive(b"MSG:J_ID:20", 0)
        self.assertLess(len(home.due(1_000_000)), 10_100)
        self.assertGreater(home.next_due, 1_000_000)


def unread(descriptor: int) -> int:
    """
    Tell how many bytes of a tty wait to be read.
    """
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


class RecordedHome(Home):
    """
    A home that keeps what it has said.
    """

    powered = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.said = bytearray()

    def power_on(self, now: float) -> None:
        self.powered = True
        super().power_on(now)

    def due(self, now: float) -> list[bytes]:
        lines = super().due(now)
        self.said += b"".join(lines)
        return lines


class SimulatorTests(TestCase):
    """
    A real pty, opened as a client opens it.
    """

    timeout = 30

    def setUp(self) -> None:
        self.opened: set[int] = set()
        self.path = Path(os.path.abspath(self.mktemp()))
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def start(self, **options: Any) -> Simulator:
        from twisted.internet import reactor

        self.home = RecordedHome(1, **{"rate": 0, "max_delay": 0.05, **options})
        simulator = Simulator(reactor, self.path, self.home)
        simulator.startService()
        self.addCleanup(simulator.stopService)
        return simulator

    def open(self) -> int:
        descriptor = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self.opened.add(descriptor)
        self.addCleanup(self.close, descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        if descriptor in self.opened:  # else its number may be another's by now
            self.opened.remove(descriptor)
            os.close(descriptor)

    async def read(self, descriptor: int, enough: Callable[[bytes], bool]) -> bytes:
        """
        Read until it is enough; the test's own limit ends it otherwise.
        """
        received = b""
        while not enough(received):
            try:
                received += os.read(descriptor, 65_536)
            except BlockingIOError:
                await self.turn()
        return received

    def turn(self) -> Awaitable[None]:
        from twisted.internet import reactor

        return deferLater(reactor, 0.005)

    async def found_closed(self, simulator: Simulator) -> None:
        """
        Wait until the simulator knows that nobody has the device open any more.
        """
        from twisted.internet import reactor

        while not self.home.powered or simulator in IReactorFDSet(reactor).getReaders():
            await self.turn()

    async def test_asked(self) -> None:
        """
        Whoever opens the device hears the board start, asks many at once, and gets each answer once, out of order.
        """
        self.start(max_delay=0.3)
        device = self.open()
        self.assertEqual(await self.read(device, lambda received: b"\n" in received), b"# home ready\r\n")
        sensors = [b"20", b"21", b"22", b"23"] * 5
        os.write(device, b"".join(b"MSG:J_ID:%b_ORIGIN:x_TAG:%d\n" % (s, n) for n, s in enumerate(sensors)))
        received = await self.read(device, lambda received: received.count(b"\n") == len(sensors))
        tags = [(fields["ID"].encode(), int(fields["TAG"])) for fields in map(parse, received.split(b"\r\n")[:-1])]
        self.assertEqual(sorted(tags, key=lambda tag: tag[1]), [(s, n) for n, s in enumerate(sensors)])
        self.assertNotEqual([n for _, n in tags], sorted(n for _, n in tags))

    async def test_raw(self) -> None:
        """
        The device neither echoes nor changes what is written, whoever opens it.
        """
        self.start()
        mode = termios.tcgetattr(self.open())
        self.assertFalse(
            mode[0] & termios.ICRNL or mode[1] & termios.OPOST or mode[3] & (termios.ECHO | termios.ICANON)
        )
        await self.turn()

    async def test_opened_again(self) -> None:
        """
        The device outlives its clients: the next one can ask, and hears nothing of what was meant for the last.
        """
        simulator = self.start()
        said = b"ID:9_LEVEL:100_MSG:ON_TAG:%b\r\n"
        for number in range(3):
            device = self.open()
            os.write(device, b"MSG:ON_ID:9_TAG:mine\n")
            received = await self.read(device, lambda received: b"mine\r\n" in received)
            self.assertEqual(sorted(received.split(b"\r\n")[:-2]), [] if number else [b"# home ready"])
            self.assertEqual(received.splitlines(keepends=True)[-1], said % b"mine")
            os.write(device, b"MSG:ON_ID:9_TAG:left\n" * 20)
            while unread(device) < len(said % b"left") * 20:
                await self.turn()
            self.close(device)
            await self.found_closed(simulator)

    async def test_lost_while_closed(self) -> None:
        """
        What the board says while nobody has the device open is lost, as it is on a real one.
        """
        simulator = self.start(max_delay=0.5, rate=200)
        device = self.open()
        os.write(device, b"MSG:ON_ID:9\n" * 20)
        await self.read(device, lambda received: b"MSG:ON" in received)
        self.close(device)
        await self.found_closed(simulator)
        while self.home.said.count(b"MSG:ON") < 20:
            await self.turn()
        device = self.open()
        os.write(device, b"MSG:J_ID:9\n")
        received = await self.read(device, lambda received: b"MSG:J" in received)
        self.assertNotIn(b"MSG:ON", received)

    async def test_stopped_while_closed(self) -> None:
        """
        It can end while nobody has the device open, and leaves no timer.
        """
        simulator = self.start(rate=200)
        device = self.open()
        await self.read(device, lambda received: b"ready" in received)
        self.close(device)
        await self.found_closed(simulator)
        spoken = self.home.next_due
        while self.home.next_due < spoken + 0.05:
            await self.turn()
        simulator.stopService()

    async def test_written_and_gone(self) -> None:
        """
        What was written by somebody who closed at once is heard all the same.
        """
        simulator = self.start(max_delay=0)
        device = self.open()
        os.write(device, b"MSG:ON_ID:9\n")
        self.close(device)
        await self.found_closed(simulator)
        device = self.open()
        os.write(device, b"MSG:J_ID:9\n")
        self.assertIn(b"ID:9_LEVEL:100_MSG:J", await self.read(device, lambda received: b"MSG:J" in received))

    async def test_nobody_reads(self) -> None:
        """
        A client that opens and reads nothing makes nothing grow; what it gets in the end are whole lines.
        """
        self.start(rate=50_000)
        device = self.open()
        while len(self.home.said) < 200_000:
            await self.turn()
        received = await self.read(device, lambda received: len(received) > 100_000)
        kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(received, self.home.said, strict=False)))
        self.assertTrue(65_000 < kept < 90_000, kept)  # 64 KiB, and what the pty holds
        for line in received.split(b"\r\n")[1:-1]:
            self.assertIsInstance(Dialect().decode(line), Report)

    def test_symlink(self) -> None:
        """
        The path leads to the device while the simulator runs, and to nothing after.
        """
        simulator = self.start()
        self.assertTrue(os.readlink(self.path).startswith("/dev/pts/"))
        simulator.stopService()
        self.assertFalse(os.path.lexists(self.path))

    def test_symlink_of_another(self) -> None:
        """
        What somebody put in the symlink's place is theirs.
        """
        simulator = self.start()
        self.path.unlink()
        self.path.write_text("theirs")
        simulator.stopService()
        self.assertEqual(self.path.read_text(), "theirs")

    def test_left_over(self) -> None:
        """
        A symlink that a killed simulator left is replaced.
        """
        self.path.symlink_to("/dev/pts/987654")
        self.start()
        self.assertNotEqual(os.readlink(self.path), "/dev/pts/987654")

    def test_refused(self) -> None:
        """
        Anything else at the path is refused in one line, and left as it was.
        """
        self.path.write_text("mine")
        self.assertEqual(str(self.assertRaises(SimulatorError, self.start)), f"{self.path}: File exists")
        self.assertEqual(self.path.read_text(), "mine")
        self.path.unlink()
        self.path.symlink_to("/nowhere")
        self.assertRaises(SimulatorError, self.start)
        self.assertEqual(os.readlink(self.path), "/nowhere")
        self.path.unlink()
        first = self.start()
        device = os.readlink(self.path)
        error = self.assertRaises(SimulatorError, self.start)
        self.assertEqual(str(error), f"{self.path}: leads to {device}, which is in use; remove it if no simulator runs")
        self.assertTrue(first.running)
        self.path = Path("/nowhere/device")
        self.assertEqual(
            str(self.assertRaises(SimulatorError, self.start)), "/nowhere/device: No such file or directory"
        )

    async def test_stopped(self) -> None:
        """
        When it ends the device is gone for whoever has it open, and it can be started again.
        """
        simulator = self.start(rate=10)
        device = self.open()
        await self.read(device, lambda received: received.count(b"\n") > 2)
        simulator.stopService()
        self.assertEqual(os.read(device, 65_536), b"")
        simulator.startService()
        await self.read(self.open(), lambda received: b"\n" in received)


class RunTests(SynchronousTestCase):
    """
    The simulator as a program.
    """

    def test_interrupted(self) -> None:
        """
        It says where the device is, and Ctrl-C ends it with status 0 and nothing left behind.
        """
        heed_interrupts()
        path = os.path.abspath(self.mktemp())
        code = (
            "import sys; from twisted.internet import reactor; from usbgate.simulator.home import Home;"
            "from usbgate.simulator.service import run;"
            " run(reactor, sys.argv[1], Home(1), 'a home')"
        )
        root = Path(__file__).parents[2]
        process = subprocess.Popen(
            [sys.executable, "-c", code, path], cwd=root, stdout=subprocess.PIPE, start_new_session=True
        )
        self.addCleanup(process.kill)
        with process, selectors.DefaultSelector() as selector:
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ)
            self.assertTrue(selector.select(LIMIT), "it says nothing")
            self.assertIn(f"is at {path};".encode(), process.stdout.readline())
            self.assertTrue(os.path.exists(path))
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(LIMIT), 0)
        self.assertFalse(os.path.lexists(path))
