"""
`usbgate stop` and `usbgate restart`: real daemons, started by `usbgate ask`; and stand-ins for odd ones.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import rmtree

from click.testing import CliRunner
from twisted.trial.unittest import TestCase

from tests.support import standin
from tests.support.folders import new_folder
from tests.support.processes import end, is_running, processes_of
from tests.support.running import PtyDevice, environment, free_port
from tests.support.waiting import eventually
from usbgate.cli.main import main


class RunningCase(TestCase):
    """
    A folder with a configuration.
    """

    def setUp(self) -> None:
        """
        Write the configuration.
        """
        self.folder = new_folder()
        self.addCleanup(rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self.end_all)
        self.state = self.folder / "state"
        self.configure(free_port())

    def end_all(self) -> None:
        """
        End what is left.
        """
        for pid in processes_of(str(self.folder)):
            end(pid)

    def configure(self, port: int) -> None:
        """
        Let the daemon listen on this port.
        """
        self.config = self.folder / "usbgate.toml"
        self.config.write_text(
            f'state = "state"\ndatabase = "none"\nhttp = "none"\nlisten = ["tcp:{port}:interface=127.0.0.1"]\n'
            '[device.uno]\npath = "./uno"\n'
        )

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        """
        Run `usbgate` in this process; return its exit status, its output and its errors.
        """
        result = CliRunner().invoke(main, [*arguments, "--config", str(self.config)], env=environment())
        return result.exit_code, result.stdout, result.stderr

    def pid(self) -> int:
        """
        Return the process id of the daemon.
        """
        return int((self.state / "lock").read_text())


class DaemonTests(RunningCase):
    """
    A daemon that `ask` started.
    """

    def watch(self) -> Path:
        """
        Start `watch`; return the file with what it shows.
        """
        shown = self.folder / "watched"
        with shown.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "usbgate.cli", "watch", "--config", str(self.config)],
                env=environment(),
                stdout=output,
                start_new_session=True,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return shown

    def test_restart_and_stop(self) -> None:
        """
        A restarted daemon is another process that has read the changed configuration; a stopped one has ended when the
        command does, and then there is none to stop or restart. `watch` waits for the restarted one.
        """
        device = PtyDevice(self.folder / "uno", lambda fields: [b"ID:%s_VALUE:1_MSG:J" % fields["ID"].encode()])
        self.addCleanup(device.unplug)
        self.assertEqual(self.run_command("ask", "20", "J")[0], 0)
        first = self.pid()
        watched = self.watch()

        def shows(field: str) -> bool:
            device.say(f"ID:7_{field}:1".encode())
            return f" {field} " in watched.read_text()

        eventually(lambda: shows("X"), "a reading is shown")
        self.configure(free_port())
        status, said, complained = self.run_command("restart")
        self.assertEqual((status, complained), (0, ""))
        second = self.pid()
        self.assertEqual(said, f"usbgate runs again (process {second})\n")
        self.assertNotEqual(first, second)
        self.assertFalse(is_running(first))
        self.assertEqual(self.run_command("ping")[0], 0)
        eventually(lambda: shows("Y"), "a reading is shown again")
        self.assertEqual(watched.read_text().count("has closed the connection"), 1)
        self.assertEqual(self.run_command("stop"), (0, f"usbgate has stopped (process {second})\n", ""))
        self.assertFalse(is_running(second))
        for verb in ("stop", "restart"):
            none = f"usbgate: no daemon runs with the state folder {self.state}\n"
            self.assertEqual(self.run_command(verb), (5, "", none))


class OddTests(RunningCase):
    """
    Daemons that are left alone.
    """

    def start(self, shell: str = "", fault: str = "") -> None:
        """
        Start a stand-in with a fault behind a shell command, and wait until it has the lock.
        """
        self.state.mkdir()
        process = subprocess.Popen(
            [
                "sh",
                "-c",
                f'{shell} exec "$@"',
                "sh",
                sys.executable,
                standin.__file__,
                str(self.state),
                str(free_port()),
                fault,
            ],
            env=environment(),
            start_new_session=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        eventually(
            lambda: Path(self.state, "lock").exists() and Path(self.state, "lock").read_text(), "it has the lock"
        )

    def test_systemd(self) -> None:
        """
        What systemd started is its own to stop.
        """
        self.start("SYSTEMD_EXEC_PID=$$; export SYSTEMD_EXEC_PID;")
        for verb in ("stop", "restart"):
            status, said, complained = self.run_command(verb)
            self.assertEqual((status, said), (1, ""))
            self.assertRegex(complained, rf"^usbgate: systemd runs this daemon; use: systemctl .*\b{verb} \S+\n$")
        self.assertTrue(is_running(self.pid()))

    def test_lingers(self) -> None:
        """
        A daemon that has released its lock has not stopped before its process has ended.
        """
        self.start(fault="lingers")
        pid = self.pid()
        self.assertEqual(self.run_command("stop"), (0, f"usbgate has stopped (process {pid})\n", ""))
        self.assertFalse(is_running(pid))

    def test_another_process(self) -> None:
        """
        A process id that is not the daemon's, as from another container, is sent no signal.
        """
        self.start()
        other = subprocess.Popen(["sleep", "60"], start_new_session=True)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        (self.state / "lock").write_text(str(other.pid))
        status, _, complained = self.run_command("stop")
        self.assertEqual(status, 1)
        self.assertIn("is not a process that can be seen here", complained)
        self.assertIsNone(other.poll())
