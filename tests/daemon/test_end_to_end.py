"""
From a serial line to a stored, answered reading: the real plug-in under twistd, a pty, a real PostgreSQL.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from threading import Thread, Timer

from tests.support.daemon import RunningCase, StoreCase, value_of
from tests.support.running import RUN, LineClient, PtyDevice, TwistdDaemon, environment
from tests.support.waiting import LIMIT, eventually
from usbgate.core.fieldline import parse
from usbgate.daemon.logfile import ROTATED


class MainJobTests(StoreCase):
    """
    Ask, watch, and read the tables back.
    """

    def test_ask_watch_store(self) -> None:
        """
        An answer goes to who asked, an event to who watches, and both readings and the request into the tables.
        """
        device = self.plug()
        daemon = self.run_daemon("--device", str(device.path), "--database", self.database)
        watcher, asker = self.connect(daemon), self.online(daemon)
        self.assertEqual(watcher.word("watch"), ["OK:watch"])
        asker.say("MSG:J_ID:20_ORIGIN:TOTO")
        self.assertEqual(asker.receive(), "MSG:J_ID:20_ORIGIN:TOTO")
        answer = parse(asker.receive().encode())
        self.assertEqual({**answer, "AT": ""}, {"ID": "20", "VALUE": "456", "MSG": "J", "AT": ""})
        device.say(b"ID:2_SMOKE:1")
        events = [parse(watcher.receive().encode()) for _ in range(2)]
        self.assertEqual([(e["EVENT"], e["ID"]) for e in events], [("reading", "20"), ("reading", "2")])
        self.assertEqual(device.received, [b"MSG:J_ID:20_ORIGIN:TOTO"])

        eventually(lambda: len(self.rows("select 1 from reading")) == 2, "both readings are stored")
        self.assertEqual(
            self.rows("select device, sensor, field, value, text, command from reading order by seq"),
            [("ttyACM0", "20", "VALUE", 456.0, None, "J"), ("ttyACM0", "2", "SMOKE", 1.0, None, None)],
        )
        [(at,)] = self.rows(
            "select to_char(at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') from reading"
            " where sensor = '20'"
        )
        self.assertEqual(at, answer["AT"])
        self.assertEqual(
            self.rows("select origin, device, sensor, command, arguments, outcome from request"),
            [("TOTO", "ttyACM0", "20", "J", None, "answered")],
        )
        self.assertEqual(self.rows("select id, value from measures order by id"), [("2.SMOKE", 1.0), ("20", 456.0)])
        [line, ok] = asker.word("history 20")
        self.assertEqual((parse(line.encode())["VALUE"], ok[:10]), ("456", "OK:history"))
        self.assertEqual(daemon.stop(), -signal.SIGTERM)
        self.assertNotIn("Traceback", daemon.log)

    def test_original_client(self) -> None:
        """
        The original client, which sends without a line end and receives once, gets its echo as it expects it.
        """
        device = self.plug(lambda fields: [])  # else it may receive the answer with the echo
        daemon = self.run_daemon("--device", str(device.path), "--database", "none")
        self.online(daemon)
        client = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)\n"
            "s.connect(('127.0.0.1', int(sys.argv[1])))\n"
            "s.send(b'MSG:J_ID:20_ORIGIN:TOTO')\n"
            "data = s.recv(1024)\n"
            "s.close()\n"
            "print('Received', repr(data))\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", client, str(daemon.port)], capture_output=True, text=True, timeout=LIMIT
        )
        self.assertEqual(said.stdout, "Received b'MSG:J_ID:20_ORIGIN:TOTO'\n", said.stderr)
        eventually(lambda: device.received == [b"MSG:J_ID:20_ORIGIN:TOTO"], "the device was asked all the same")

    def test_nobody_gets_anothers_answer(self) -> None:
        """
        A humidity answer overtakes a temperature answer, many people ask for both: nobody ever gets the other's.
        """

        def overtaking(fields: dict[str, str]) -> list[bytes]:
            field, takes = ("TEMP", 0.03) if fields["ID"] == "20" else ("HUM", 0.005)
            Timer(takes, lambda: device.say(f"ID:{fields['ID']}_{field}:{fields['ID']}".encode())).start()
            return []

        device = self.plug(overtaking)
        daemon = self.run_daemon("--device", str(device.path), "--database", self.database)
        self.online(daemon)
        wrong: list[str] = []
        right: list[str] = []

        def ask(sensor: str, field: str) -> None:
            client = LineClient(daemon.port)
            for _ in range(20):
                client.say(f"MSG:J_ID:{sensor}_ORIGIN:{field}")
                client.receive()
                answer = client.receive()
                (right if answer.startswith(f"ID:{sensor}_{field}:{sensor}_") else wrong).append(answer)
            client.close()

        people = [Thread(target=ask, args=pair) for pair in [("20", "TEMP"), ("30", "HUM")] * 10]
        for person in people:
            person.start()
        for person in people:
            person.join(LIMIT)
        self.assertEqual(wrong, [])
        self.assertEqual(len(right), 400)
        eventually(lambda: self.rows("select count(*) from request") == [(400,)], "each request has its row")
        self.assertEqual(self.rows("select distinct outcome from request"), [("answered",)])

    def test_small_buffer(self) -> None:
        """
        A board is sent no more than its receive buffer holds until it answers, however many ask.
        """
        device = self.plug(lambda fields: [])
        daemon = self.run_daemon("--device", str(device.path), "--database", "none")
        client = self.online(daemon)
        questions = [f"MSG:J_ID:{sensor}_ORIGIN:website" for sensor in range(20, 28)]  # 27 bytes with the line end
        client.say("\n".join(questions))
        self.assertEqual([client.receive() for _ in questions], questions)
        for sensor in range(20, 27):
            written = [question.encode() for question in questions[: sensor - 18]]
            eventually(partial(written.__eq__, device.received), f"{written} were written, and no more")
            device.say(f"ID:{sensor}_VALUE:1_MSG:J".encode())
            self.assertTrue(client.receive().startswith(f"ID:{sensor}_VALUE:1_MSG:J_"))
        self.assertEqual(device.received, [question.encode() for question in questions])

    def test_replug(self) -> None:
        """
        Who waits is told at once when the device is pulled; plugged in again, it answers again.
        """
        device = PtyDevice(self.folder / "ttyACM0", lambda fields: [] if fields["ID"] == "9" else value_of(fields))
        daemon = self.run_daemon("--device", str(device.path), "--database", "none")
        client = self.online(daemon)
        client.say("MSG:J_ID:9_TIMEOUT:60")
        client.receive()
        eventually(lambda: device.received, "the device was asked")
        device.unplug()
        self.assertTrue(client.receive().startswith("ERROR:offline_MSG:J_ID:9_"))
        self.assertTrue(client.word("ask 20")[0].startswith("ERROR:offline"))
        device.plug()
        self.addCleanup(device.unplug)
        self.online(daemon)
        self.assertTrue(client.word("ask 20")[0].startswith("ID:20_VALUE:456"))
        self.assertNotIn("Traceback", daemon.log)

    def test_stop_with_requests_in_flight(self) -> None:
        """
        At the end of the daemon, who waits is told, and the request's row is stored after the next start.
        """
        device = self.plug(lambda fields: [])
        options = ("--device", str(device.path), "--database", self.database)
        daemon = self.run_daemon(*options)
        client = self.online(daemon)
        client.say("MSG:J_ID:9")
        client.receive()
        daemon.stop()
        self.assertTrue(client.receive().startswith("ERROR:stopped_MSG:J_ID:9_"))
        self.assertEqual(client.receive(), "")
        self.run_daemon(*options)
        eventually(lambda: self.rows("select outcome from request") == [("stopped",)], "its row is stored")

    def test_killed(self) -> None:
        """
        After `kill -9`, all that had been in the journal is stored once, in order, by the next daemon.
        """
        device = self.plug()
        away = self.database.rpartition("/")[0] + "/not_there_yet"
        daemon = self.run_daemon("--device", str(device.path), "--database", away)
        client = self.online(daemon)
        for n in range(500):
            device.say(f"ID:1_N:{n}".encode())
        eventually(lambda: client.word("last 1")[0].startswith("ID:1_N:499_"), "all lines were read")
        eventually(
            lambda: any("_BACKLOG:501_" in line for line in client.word("status")),
            "all are journalled, with a mark of the clock",
        )
        eventually(lambda: self._in_journal() == 501, "all are on disk")
        daemon.kill()
        daemon = self.run_daemon("--device", str(device.path), "--database", self.database)
        self._stored(500)
        self.assertEqual(self.rows("select value from reading order by seq"), [(float(n),) for n in range(500)])

    def _in_journal(self) -> int:
        import sqlite3

        db = sqlite3.connect(f"file:{self.state}/journal.sqlite?mode=ro", uri=True)
        try:
            [(count,)] = db.execute("select coalesce(sum(count), 0) from batch")
            return int(count)
        finally:
            db.close()

    def test_state_folder_lost(self) -> None:
        """
        With the state folder deleted, numbers go on (a mark of the clock has one, too), and `last` is what came last.
        """
        device = self.plug()
        options = ("--device", str(device.path), "--database", self.database)
        for n in (1, 2):
            daemon = self.run_daemon(*options)
            self.online(daemon)
            device.say(f"ID:1_N:{n}".encode())
            self._stored(n)
            daemon.stop()
            shutil.rmtree(self.state)
        self.assertEqual(self.rows("select seq, value from reading order by seq"), [(2, 1.0), (4, 2.0)])
        client = self.online(self.run_daemon(*options))
        eventually(lambda: client.word("last 1")[0].startswith("ID:1_N:2_"), "the newest was loaded")

    def test_name_kept(self) -> None:
        """
        The name in the state folder, and not the host's, is that of the rows; a configured one wins and is logged.
        """
        device = self.plug()
        options = ("--device", str(device.path), "--database", self.database)
        daemon = self.run_daemon(*options)
        self.online(daemon)
        file = self.state / "gateway"
        self.assertEqual(file.read_text(), socket.gethostname() + "\n")
        daemon.stop()
        file.write_text("an earlier name\n")
        client = self.online(self.run_daemon(*options))
        device.say(b"ID:1_N:1")
        self._stored(1)
        self.assertIn("_GW:an earlier name_", client.word("status")[1])
        self.assertTrue(client.word("history 1")[0].startswith("ID:1_N:1_"))
        self.assertEqual(self.rows("select gateway from reading"), [("an earlier name",)])

    def test_configured_name(self) -> None:
        """
        A configured name wins over the one in the state folder, and the log names both.
        """
        device = self.plug()
        self.state.mkdir()
        (self.state / "gateway").write_text("an earlier name\n")
        config = self.folder / "usbgate.toml"
        config.write_text('gateway = "attic"\n')
        daemon = self.run_daemon("--device", str(device.path), "--database", self.database, "--config", str(config))
        self.assertIn("_GW:attic_", self.online(daemon).word("status")[1])
        self.assertIn("this gateway is attic from now on, as configured; it was an earlier name", daemon.log)

    def _stored(self, count: int) -> None:
        eventually(lambda: self.rows("select count(*) from reading") == [(count,)], "the readings are stored")

    def test_routing_after_restart(self) -> None:
        """
        After a restart, a sensor is asked by the device of its newest stored reading.
        """
        hall, attic = self.plug(name="hall"), self.plug(name="attic")
        options = ("--device", str(hall.path), "--device", str(attic.path), "--database", self.database)
        daemon = self.run_daemon(*options)
        client = self.online(daemon)
        self.assertTrue(client.word("ask 7")[0].startswith("ERROR:unknown"))
        attic.say(b"ID:7_TEMP:20")
        eventually(lambda: self.rows("select 1 from reading"), "the reading is stored")
        daemon.stop()
        client = self.online(self.run_daemon(*options))
        eventually(lambda: client.word("last 7")[0].startswith("ID:7_TEMP:20_"), "the newest was loaded")
        self.assertTrue(client.word("ask 7")[0].startswith("ID:7_VALUE:456"))
        self.assertEqual((len(hall.received), len(attic.received)), (0, 1))

    def test_two_boards_with_one_id(self) -> None:
        """
        A second board that reports the ids of the first is not asked, before and after a restart, until the first one
        leaves a question unanswered.
        """
        hall, attic = self.plug(lambda fields: [], name="hall"), self.plug(name="attic")
        config = self.folder / "usbgate.toml"
        config.write_text("[sensor.9]\npatience = 0.5\n")
        devices = ("--device", str(hall.path), "--device", str(attic.path))
        options = (*devices, "--database", self.database, "--config", str(config))
        daemon = self.run_daemon(*options)
        client = self.online(daemon)
        for _ in range(3):
            hall.say(b"ID:9_VALUE:1")
        eventually(lambda: self.rows("select device, event from owner_event") == [("hall", "claimed")], "it is stored")
        attic.say(b"ID:9_VALUE:0")
        eventually(lambda: len(client.word("last 9")) == 3, "both are shown")
        daemon.stop()
        client = self.online(self.run_daemon(*options))
        for _ in range(3):
            attic.say(b"ID:9_VALUE:0")
        eventually(lambda: "_REPORTS:3" in client.word("sensors")[0], "they were read")
        eventually(lambda: "_DEV:hall_" in client.word("sensors")[0], "the owner is restored")
        self.assertTrue(client.word("ask 9 OPEN code=1234 timeout=0.3")[0].startswith("ERROR:timeout"))
        self.assertEqual((len(hall.received), len(attic.received)), (1, 0))
        eventually(lambda: "_DEV:attic_" in client.word("sensors")[0], "it has passed")
        self.assertTrue(client.word("ask 9")[0].startswith("ID:9_"))
        owners = [("hall", "claimed"), ("attic", "passed")]
        query = "select device, event from owner_event where event = 'passed' or device = 'hall' order by seq"
        eventually(lambda: self.rows(query) == owners, "all is stored")


class EmbeddedTests(RunningCase):
    """
    Without any database configured.
    """

    def test_embedded(self) -> None:
        """
        usbgate runs a server of its own, which ends with it, and keeps what was stored.
        """
        device = self.plug()
        self.state = self.folder / "a state folder, with blanks"
        for stored in (1, 2):
            daemon = self.run_daemon("--device", str(device.path))
            client = self.online(daemon)
            self.assertTrue(client.word("ask 20")[0].startswith("ID:20_VALUE:456"))
            self._stored(client, stored)
            self.assertEqual(daemon.stop(), -signal.SIGTERM)
            self.assertEqual(self._servers(), [])

    def _stored(self, client: LineClient, count: int) -> None:
        eventually(lambda: len(client.word("history 20")) == count + 1, "the reading is stored")

    def _servers(self) -> list[str]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                cwd = os.readlink(folder / "cwd")
            except OSError:
                continue
            if cwd.startswith(str(self.folder)):
                found.append(cwd)
        return found


class StartTests(RunningCase):
    """
    How the daemon starts, and how it does not.
    """

    def refused(self, *options: str) -> str:
        """
        Start a daemon that ends by itself; give what it said.
        """
        status, said = self.run_forked(RUN, "-n", "--pidfile=", "usbgate", "--http", "none", *options)
        self.assertEqual(status, 1, said)
        self.assertNotIn("Traceback", said)
        return said

    def test_one_daemon_a_state_folder(self) -> None:
        """
        A second daemon on the same state folder says so and ends; the lock decides, not a file that is left.
        """
        device = self.plug()
        daemon = self.run_daemon("--device", str(device.path), "--database", "none")
        said = self.refused(
            "--device",
            str(device.path),
            "--database",
            "none",
            "--state",
            str(self.state),
            "--listen",
            "tcp:0:interface=127.0.0.1",
        )
        self.assertIn("another usbgate is running", said)
        daemon.kill()
        self.run_daemon("--device", str(device.path), "--database", "none")

    def test_port_taken(self) -> None:
        """
        A port that is taken ends the start with one line that names it.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            said = self.refused(
                "--device",
                "/dev/null",
                "--database",
                "none",
                "--state",
                str(self.state),
                "--listen",
                f"tcp:{port}:interface=127.0.0.1",
            )
        self.assertIn(f"cannot listen on tcp:{port}:interface=127.0.0.1: Address already in use; ", said)

    def test_other_endpoints(self) -> None:
        """
        A Unix socket, and a socket that systemd hands over, are listened on as well.
        """
        device = self.plug()
        path = self.folder / "socket"
        with socket.create_server(("127.0.0.1", 0)) as handed:
            port = handed.getsockname()[1]
            as_systemd = (
                "import os, sys\n"
                f"os.dup2({handed.fileno()}, 3)\n"
                "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='usbgate')\n"
                "from twisted.scripts.twistd import run\n"
                "run()\n"
            )
            process = subprocess.Popen(
                [
                    *(sys.executable, "-c", as_systemd, "-n", "--pidfile=", "usbgate", "--device", str(device.path)),
                    *("--database", "none", "--http", "none", "--state", str(self.state)),
                    *("--listen", "systemd:domain=INET:index=0", "--listen", f"unix:{path}"),
                ],
                pass_fds=[handed.fileno()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment(),
                start_new_session=True,
            )
            self.addCleanup(process.wait, LIMIT)
            self.addCleanup(process.terminate)
            client = LineClient(port)
        self.addCleanup(client.close)
        self.assertEqual(client.word("ping"), ["OK:ping"])
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(str(path))
            local.sendall(b"MSG:J_ID:20\n")
            self.assertEqual(local.makefile().readline(), "MSG:J_ID:20\n")
        eventually(lambda: device.received, "the device was asked")
        self.assertEqual(device.received, [b"MSG:J_ID:20_ORIGIN:local"])

    def test_nothing_handed_over(self) -> None:
        """
        An endpoint that only systemd can fill, without systemd, ends the start with one line.
        """
        listen = "systemd:domain=INET:index=0"
        said = self.refused(
            *("--device", "/dev/null", "--database", "none", "--state", str(self.state), "--listen", listen)
        )
        self.assertIn(f"cannot listen on {listen}", said)

    def test_wrong_options(self) -> None:
        """
        What is wrong with the options is one line.
        """
        cases = [
            (["--devise", "x"], "--devise"),
            (["--device", "/dev/x,baud=fast"], "baud"),
            (["--config", "/nowhere/usbgate.toml"], "/nowhere/usbgate.toml"),
            (["--database", "mysql"], "--database"),
            (["--device", "foo:bar"], "foo:bar"),
            (["--device", "/dev/x,colour=1"], "--device: device.x.colour: unknown key"),
            (["--device", "/dev/x,dialect=klingon"], "--device: device.x.dialect: there is no module"),
            (["--device", "serial:/dev/x:baudrate=abc"], "serial:/dev/x:baudrate=abc"),
            (["--device", "/dev/x", "more"], "more"),
        ]
        # In one process, which does with each what twistd does.
        program = (
            "from usbgate import tap\n"
            f"for arguments in {[options for options, _ in cases]!r}:\n"
            "    try:\n"
            "        options = tap.Options()\n"
            "        options.parseOptions(arguments)\n"
            "        tap.makeService(options)\n"
            "    except SystemExit as error:\n"
            "        print(error)\n"
        )
        _, told = self.run_forked(program)
        self.assertEqual(told.count("\n"), len(cases), told)
        for line, (_, expected) in zip(told.splitlines(), cases, strict=True):
            self.assertTrue(line.startswith("usbgate: "), line)
            self.assertIn(expected, line)
        said = self.refused(*cases[-1][0])
        self.assertEqual(said, told.splitlines(keepends=True)[-1])

    def test_daemonized(self) -> None:
        """
        Without -n it daemonizes as twistd does: the foreground process ends when the daemon is up.
        """
        device = self.plug()
        daemon = TwistdDaemon(
            self.state,
            *("--device", str(device.path), "--database", "none"),
            twistd=(f"--pidfile={self.folder}/pid", f"--logfile={self.folder}/log"),
        )
        self.assertEqual(daemon.process.wait(LIMIT), 0, daemon.log)
        pid = int((self.folder / "pid").read_text())
        self.addCleanup(self._end, pid)
        client = LineClient(daemon.port)
        self.addCleanup(client.close)
        eventually(lambda: client.word("ask 20")[0].startswith("ID:20_VALUE:456"), "it answers")

    def test_pid_file(self) -> None:
        """
        A pid file of an earlier boot, whose process is another program now, does not prevent a start; that of a running
        daemon does, also for a daemon with another state folder.
        """
        pid_file = self.folder / "pid"
        pid_file.write_text(str(os.getppid()))
        device = self.plug()
        options = ("--device", str(device.path), "--database", "none")
        twistd = ("-n", f"--pidfile={pid_file}")
        daemon = TwistdDaemon(self.state, *options, twistd=twistd)
        self.addCleanup(daemon.stop)
        daemon.ready()
        self.assertEqual(pid_file.read_text(), str(daemon.process.pid))
        self.assertIn(f"removed the pid file {pid_file}: process {os.getppid()} is no daemon", daemon.log)
        for state in (self.state, self.folder / "other"):
            second = TwistdDaemon(state, *options, twistd=twistd, program=RUN)
            self.assertEqual(second.process.wait(LIMIT), 1)
            self.assertIn(f"Another twistd server is running, PID {daemon.process.pid}", second.log)
            self.assertEqual(pid_file.read_text(), str(daemon.process.pid))

    def test_log_file(self) -> None:
        """
        Of the log files that were rotated away, at 1 MB or by a signal, only the newest few are kept.
        """
        log = self.folder / "log"
        log.write_text("old\n" * 250_001)
        for number in range(1, 30):
            (self.folder / f"log.{number}").write_text(f"{number}")
        device = self.plug()
        daemon = TwistdDaemon(
            self.state,
            *("--device", str(device.path), "--database", "none"),
            twistd=("-n", "--pidfile=", f"--logfile={log}"),
            program=RUN,
        )
        self.addCleanup(daemon.stop)
        daemon.ready()
        eventually(lambda: "is open" in log.read_text(), "it logs to the file")
        self.assertEqual((self.folder / "log.1").read_text()[:4], "old\n")
        left = {path.name for path in self.folder.glob("log.*")}
        self.assertEqual(left, {f"log.{number}" for number in range(1, ROTATED + 1)})
        client = LineClient(daemon.port)
        self.addCleanup(client.close)
        for number in (signal.SIGUSR1, signal.SIGHUP):
            log.rename(self.folder / "moved")
            daemon.process.send_signal(number)
            eventually(lambda: client.word("ping") and log.exists(), "it is reopened")
        self.assertEqual({path.name for path in self.folder.glob("log.*")}, left)
        daemon.stop()
        self.assertIn("Server Shut Down", log.read_text())

    def test_log_nobody_reads(self) -> None:
        """
        Standard output that nobody reads holds up nobody. When it is read again, nothing of it is missing; if it is
        not, the daemon ends in time all the same.
        """
        for reads_again in (True, False):
            end, output = os.pipe()
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, 4096)
            device = self.plug(name=f"tty{reads_again}")
            options = ("--device", str(device.path), "--database", "none")
            daemon = TwistdDaemon(self.folder / str(reads_again), *options, output=output, program=RUN)
            os.close(output)
            self.addCleanup(daemon.kill)
            with os.fdopen(end, "rb") as pipe:
                client = LineClient(daemon.ready().port)
                self.addCleanup(client.close)
                eventually(lambda: client.word("ask 20")[0].startswith("ID:20_VALUE:456"), "it is online")  # noqa: B023
                device.say(*[b"# %02d" % n + b"x" * 200 for n in range(20)])
                for _ in range(10):
                    self.assertTrue(client.word("ask 20")[0].startswith("ID:20_VALUE:456"))
                if reads_again:
                    log = b""
                    while b"19x" not in log:
                        log += os.read(pipe.fileno(), 65536)
                    self.assertEqual([n for n in range(20) if b"%02dx" % n not in log], [])
                daemon.process.send_signal(signal.SIGTERM)
                if reads_again:
                    self.assertIn(b"Server Shut Down", pipe.read())
                self.assertEqual(daemon.process.wait(LIMIT), -signal.SIGTERM)

    def test_signals(self) -> None:
        """
        SIGTERM and Ctrl-C stop it, and more signals while it stops change nothing.
        """
        device = self.plug()
        for first in (signal.SIGTERM, signal.SIGINT):
            daemon = self.run_daemon("--device", str(device.path), "--database", "none")
            for number in (first, signal.SIGTERM, signal.SIGINT):
                daemon.process.send_signal(number)
            daemon.process.wait(LIMIT)
            self.assertNotIn("Traceback", daemon.log)
            self.assertIn("Server Shut Down", daemon.log)

    def test_signals_while_starting(self) -> None:
        """
        A signal that comes when the parts are started and the reactor does not run yet stops it in good order, too.
        """
        device = self.plug()
        for number, status in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)):
            start = (
                "import os\n"
                "from twisted.internet import reactor\n"
                "from twisted.scripts.twistd import run\n"
                "run_reactor = reactor.run\n"
                "def signal_and_run(*arguments, **keys):\n"
                f"    os.kill(os.getpid(), {int(number)})\n"
                "    run_reactor(*arguments, **keys)\n"
                "reactor.run = signal_and_run\n"
                "run()\n"
            )
            daemon = TwistdDaemon(
                self.state,
                *("--device", str(device.path), "--database", "none"),
                program=start,
            )
            self.addCleanup(daemon.stop)
            self.assertEqual(daemon.process.wait(LIMIT), -status, daemon.log)
            self.assertNotIn("Traceback", daemon.log)
            self.assertIn("Server Shut Down", daemon.log)

    def test_private(self) -> None:
        """
        Nobody else can read what is in the state folder, however the daemon was started.
        """
        device = self.plug()
        away = "postgresql://nobody@127.0.0.1:1/nowhere"
        self.run_daemon("--device", str(device.path), "--database", away)
        eventually((self.state / "journal.sqlite").exists, "the journal is there")
        modes = {path.name: path.stat().st_mode & 0o077 for path in [self.state, *self.state.iterdir()]}
        self.assertIn("journal.sqlite", modes)
        self.assertEqual(set(modes.values()), {0}, modes)

    def test_daemonized_in_vain(self) -> None:
        """
        A start that fails in the background is told in the foreground, which ends with status 1.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            daemon = TwistdDaemon(
                self.state,
                *("--device", "/dev/null", "--database", "none"),
                port=taken.getsockname()[1],
                twistd=(f"--pidfile={self.folder}/pid", f"--logfile={self.folder}/log"),
                program=RUN,
            )
            self.assertEqual(daemon.process.wait(LIMIT), 1)
        eventually(lambda: not (self.folder / "pid").exists(), "no pid file is left")
        self.assertIn("cannot listen", daemon.log)
        self.assertNotIn("Traceback", (self.folder / "log").read_text())

    def _end(self, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not Path(f"/proc/{pid}").exists(), "the daemon has ended")

    def test_make_service_opens_nothing(self) -> None:
        """
        Since twistd forks afterwards, makeService leaves no thread, file or child.
        """
        program = (
            "import os, sys, threading\n"
            "from twisted.internet import reactor\n"
            "from usbgate import tap\n"
            "options = tap.Options()\n"
            f"options.parseOptions(['--device', '/dev/ttyNONE', '--state', {str(self.state)!r}])\n"
            "files = set(os.listdir('/proc/self/fd'))\n"
            "service = tap.makeService(options)\n"
            "assert set(os.listdir('/proc/self/fd')) == files\n"
            "assert threading.enumerate() == [threading.main_thread()]\n"
            "assert not open(f'/proc/self/task/{os.getpid()}/children').read()\n"
            f"assert not os.path.exists({str(self.state)!r})\n"
            "assert not reactor.getDelayedCalls()\n"
            "import time\n"
            "assert reactor.seconds is time.monotonic\n"
            "names = [type(each).__name__ for each in service]\n"
            "assert names[:2] == ['Signals', 'StateDirectory']\n"
            "assert names[-2:] == ['Reload', 'SystemdNotifier']\n"  # no reload changes what has stopped
        )
        self.assertEqual(self.run_forked(program), (0, ""))
