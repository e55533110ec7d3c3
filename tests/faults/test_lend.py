"""
A device is lent to a program that needs its port alone: the real daemon, a pty, and real programs that end in all ways.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys

from tests.support.daemon import RunningCase
from tests.support.running import PtyDevice, environment
from tests.support.waiting import LIMIT, eventually
from usbgate.core.fieldline import parse

# What a program does with the port that it gets: opens it for itself, as one does that must not be disturbed; writes to
# the device, and waits for its answer, which it leaves unread, so that none comes later, when the port is taken back;
# says so in a given file; and then does what the test wants.
FLASH = """
import fcntl, os, select, signal, sys, time
assert sys.argv[1] == os.environ["USBGATE_PORT"]
port = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.write(port, b"MSG:FLASH_ID:0\\n")
select.select([port], [], [])
with open(sys.argv[2] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[2] + ".new", sys.argv[2])
"""
WAIT = "\ntime.sleep(3600)"


class LendCase(RunningCase):
    """
    A daemon with a device.
    """

    def setUp(self) -> None:
        """
        Start the daemon and watch it.
        """
        super().setUp()
        self.device = self.plug(lambda fields: [] if fields["MSG"] == "QUIET" else [f"ID:{fields['ID']}_V:1".encode()])
        self.daemon = self.run_daemon("--database", "none", "--device", f"{self.device.path},name=board")
        self.online(self.daemon)
        self.client = self.administer(self.daemon)
        self.watcher = self.connect(self.daemon)
        self.watcher.word("watch")
        self.done = self.folder / "done"

    def now(self) -> str:
        """
        Return the state of the device.
        """
        return parse(self.client.word("devices")[0].encode())["STATE"]

    def lend(self, code: str, *command: str) -> subprocess.Popen[str]:
        """
        Run `usbgate lend`.
        """
        program = command or (sys.executable, "-c", FLASH + code, "{}", str(self.done))
        lender = subprocess.Popen(
            [sys.executable, "-m", "usbgate.cli", "lend", "-p", str(self.daemon.port), "board", "--", *program],
            env=environment() | {"USBGATE_STATE": str(self.state)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

        def end() -> None:
            if lender.poll() is None:
                lender.kill()
            lender.communicate()

        self.addCleanup(end)
        return lender

    def has_it(self) -> int:
        """
        Wait until the program has the port; return its process id.
        """
        eventually(self.done.exists, "the program has the port")
        program = int(self.done.read_text())
        self.addCleanup(self.end, program)
        return program

    def end(self, program: int) -> None:
        """
        End a program that is left.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(program, signal.SIGKILL)

    def assert_back(self) -> None:
        """
        Check that the device is served again, that the subscriber received all states, and that an unasked reading is
        published.
        """
        for state in ("lent", "offline", "online"):
            self.assertEqual(self.watcher.receive(), f"EVENT:device_DEV:board_STATE:{state}")
        self.assertRegex(self.client.word("ask 20")[0], "^ID:20_V:1_")
        self.assertRegex(self.watcher.receive(), "^EVENT:reading_ID:20_V:1_")
        self.device.say(b"ID:7_V:2")
        self.assertRegex(self.watcher.receive(), "^EVENT:reading_ID:7_V:2_")


class LendTests(LendCase):
    """
    However a program ends, the port is taken back.
    """

    def test_flash(self) -> None:
        """
        The program has the port alone; waiting requests and new ones get `offline`. Its exit status is ours.
        """
        self.client.say("MSG:QUIET_ID:30_ORIGIN:t_TIMEOUT:3600")
        self.client.receive()
        eventually(lambda: self.device.received, "it was asked")
        go_on = self.folder / "go on"
        lender = self.lend(f"\nwhile not os.path.exists({str(go_on)!r}): time.sleep(0.01)\nsys.exit(7)")
        self.assertRegex(self.client.receive(), "^ERROR:offline_MSG:QUIET_ID:30")
        self.has_it()
        self.assertIn(b"MSG:FLASH_ID:0", self.device.received)
        self.assertEqual(self.now(), "lent")
        self.assertRegex(self.client.word("ask 20")[0], "^ERROR:offline_MSG:J_ID:20")
        self.assertRegex(self.client.word("lend board")[0], "^ERROR:busy_TEXT:")
        self.assertRegex(self.client.word("lend boards")[0], "^ERROR:unknown_TEXT:")
        go_on.touch()
        _, complained = lender.communicate(timeout=LIMIT)
        self.assertEqual((lender.returncode, complained), (7, ""))
        # What the device answered to the flasher's line is gone when the port is opened.
        self.assert_back()

    def test_program_killed(self) -> None:
        """
        A program that is killed ends the lease, and the exit status gives the signal as a shell does.
        """
        lender = self.lend(WAIT)
        os.kill(self.has_it(), signal.SIGKILL)
        lender.communicate(timeout=LIMIT)
        self.assertEqual(lender.returncode, 128 + signal.SIGKILL)
        self.assert_back()

    def test_lender_ended(self) -> None:
        """
        Ending the lender ends its program, and the port is taken back.
        """
        lender = self.lend(WAIT)
        program = self.has_it()
        lender.send_signal(signal.SIGTERM)
        lender.communicate(timeout=LIMIT)
        self.assertEqual(lender.returncode, 128 + signal.SIGTERM)
        self.assertRaises(ProcessLookupError, os.kill, program, 0)
        self.assert_back()

    def test_lender_killed(self) -> None:
        """
        The death of the lender ends the lease, though its program lives on: while that has the port, the port is in
        use; afterwards it is taken back.
        """
        lender = self.lend(WAIT)
        program = self.has_it()
        lender.kill()
        eventually(lambda: self.now() == "offline", "the lease is over")
        eventually(lambda: "board cannot be opened" in self.daemon.log, "the port is in use")
        self.assertIn("in use by another program", self.daemon.log)
        self.end(program)
        self.assert_back()

    def test_no_such_program(self) -> None:
        """
        A program that can't be run is reported in one line, with a shell's exit status, and the port is taken back.
        """
        for program, status in (("/no/such/program", 127), (str(self.folder), 126)):
            lender = self.lend("", program)
            _, complained = lender.communicate(timeout=LIMIT)
            self.assertEqual(lender.returncode, status)
            self.assertRegex(complained, rf"\Ausbgate: {program}: [^\n]+\n\Z")
            self.assert_back()

    def test_by_hand(self) -> None:
        """
        Over TCP the lease lasts as long as the connection: the port is free when `OK:lend` is sent.
        """
        borrower = self.administer(self.daemon)
        real = os.path.realpath(self.device.path)
        self.assertEqual(borrower.word("lend board"), [f"DEV:board_PORT:{real}", "OK:lend"])
        port = os.open(real, os.O_RDWR | os.O_NOCTTY)
        fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(port)
        self.assertEqual(self.now(), "lent")
        borrower.close()
        self.assert_back()

    def test_stop_while_lent(self) -> None:
        """
        A daemon that is stopped while the port is lent stops as always and leaves the program alone.
        """
        lender = self.lend(WAIT)
        program = self.has_it()
        self.assertEqual(self.daemon.stop(), -signal.SIGTERM)
        os.kill(program, 0)
        self.end(program)
        lender.communicate(timeout=LIMIT)
        self.assertEqual(lender.returncode, 128 + signal.SIGKILL)
        self.assertNotIn("Traceback", self.daemon.log)


class SilenceTests(RunningCase):
    """
    A device that falls silent.
    """

    def test_silent_pty(self) -> None:
        """
        A device that sends nothing is `silent`, for subscribers and in `devices`, and `online` when it sends again. A
        pty has no DTR: asking to reset by it, or to keep it, does no harm.
        """
        devices = [PtyDevice(self.folder / name) for name in ("a", "b")]
        for device in devices:
            self.addCleanup(device.unplug)
        daemon = self.run_daemon(
            *("--database", "none"),
            *("--device", f"{devices[0].path},silence=1,reset=silent"),
            *("--device", f"{devices[1].path},reset=never"),
        )
        watcher = self.connect(daemon)
        watcher.word("watch")
        client = self.connect(daemon)

        def states() -> list[str]:
            return [parse(line.encode())["STATE"] for line in client.word("devices")[:-1]]

        eventually(lambda: states() == ["silent", "online"], "one is silent")
        devices[0].say(b"ID:1_V:1")
        devices[1].say(b"ID:2_V:2")
        received: list[str] = []
        while sum("_ID:" in line for line in received) < 2:
            received.append(watcher.receive())
        silent = received.index("EVENT:device_DEV:a_STATE:silent")
        self.assertIn("EVENT:device_DEV:a_STATE:online", received[silent:])
        eventually(lambda: states() == ["silent", "online"], "it is silent again")
        self.assertEqual(daemon.log.count("a has sent no line for 1 s"), 2)
        self.assertNotIn("Traceback", daemon.log)
