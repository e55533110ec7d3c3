"""
The client that blocks, and how it starts a daemon; the daemon is a stand-in, a real process.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support import standin
from tests.support.processes import end, is_running
from tests.support.running import ROOT, free_port
from tests.support.standin import answering
from tests.support.waiting import LIMIT, eventually
from usbgate.cli.autostart import DaemonStarter, twistd_arguments
from usbgate.cli.connection import (
    ANSWER_LIMIT,
    AskError,
    ConnectionLost,
    NoDaemon,
    RequestRefused,
    ask,
    ask_word,
    connect,
    is_self_connected,
)

# A client as its own process: STATE PORT [fault], and prints the answer or what is wrong.
CLIENT = """
import os, sys
from pathlib import Path
from usbgate.cli.connection import AskError, ask
from usbgate.cli.autostart import DaemonStarter
state, port, *fault = sys.argv[1:]
daemon = DaemonStarter(Path(state), [sys.executable, os.environ["STANDIN"], state, port, *fault], os.environ)
try:
    connection = daemon.reach(("127.0.0.1", int(port)), within=float(os.environ.get("WITHIN", "60")))
    print(list(ask(connection, {"MSG": "J", "ID": "20"}, 60.0))[-1])
except AskError as error:
    print(error)
    sys.exit(error.status)
"""


def wait_until_kept_waiting(pid: int, lock: Path) -> None:
    """
    Wait until a process has opened a lock that another one holds, and has gone to sleep a few times since.
    """

    def has_opened() -> bool:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if os.readlink(link) == str(lock):
                    return True
            except FileNotFoundError:  # closed meanwhile
                continue
        return False

    def sleeps() -> int:
        return int(Path(f"/proc/{pid}/status").read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    eventually(has_opened, "the lock is open")
    before = sleeps()
    eventually(lambda: sleeps() > before + 3, "it waits for the lock")


class AskTests(TestCase):
    """
    One request on one connection.
    """

    FIELDS = {"MSG": "J", "ID": "20"}  # noqa: RUF012

    def ask(self, *replies: str) -> list[str]:
        """
        Ask one that answers so.
        """
        with answering(*replies) as port:
            connection = connect(("127.0.0.1", port))
            assert connection is not None
            self.addCleanup(connection.close)
            return list(ask(connection, self.FIELDS, 10.0))

    def test_answer(self) -> None:
        """
        Echo and answer come out as they came.
        """
        answer = "ID:20_VALUE:4_5_MSG:J_AT:2013-03-11T21:02:10.123Z"
        self.assertEqual(self.ask("MSG:J_ID:20", answer), ["MSG:J_ID:20", answer])

    def test_no_name(self) -> None:
        """
        What cannot be the name of a host is one line.
        """
        for host in ("a" * 64, "a..b", "\u202e"):
            error = self.assertRaises(NoDaemon, connect, (host, 1))
            self.assertEqual(str(error), f"cannot reach usbgate at {host}:1: not the name of a host")

    def test_keep_alive(self) -> None:
        """
        A connection asks the kernel to notice that the other machine is gone: `watch` only waits.
        """
        made: list[socket.socket] = []
        create = socket.create_connection

        def keep(address: tuple[str, int], within: float) -> socket.socket:
            made.append(create(address, within))
            return made[-1]

        self.patch(socket, "create_connection", keep)
        self.ask("MSG:J_ID:20", "ID:20_VALUE:1")
        self.assertEqual(
            [made[0].getsockopt(socket.IPPROTO_TCP, each) for each in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)],
            [10, 10],
        )
        self.assertTrue(made[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def test_long_answer(self) -> None:
        """
        An answer is a device's line and what usbgate adds: it may be longer than a line to usbgate.
        """
        answer = "ID:20_VALUE:" + "x" * 4000 + "_MSG:J_AT:2013-03-11T21:02:10.123Z"
        self.assertEqual(self.ask("MSG:J_ID:20", answer)[1], answer)
        endless = answer + "y" * ANSWER_LIMIT
        self.assertIn("is not usbgate", str(self.assertRaises(AskError, self.ask, "MSG:J_ID:20", endless)))

    def test_errors(self) -> None:
        """
        Each code of the protocol has its exit status, before the echo as after it.
        """
        for code, status in [("timeout", 3), ("offline", 4), ("busy", 1), ("malformed", 1), ("stopped", 1)]:
            error = f"ERROR:{code}_MSG:J_ID:20_TEXT:it is so"
            for replies in ([error], ["MSG:J_ID:20", error]):
                caught = self.assertRaises(RequestRefused, self.ask, *replies)
                self.assertEqual((caught.status, str(caught)), (status, f"{code}: it is so"))

    def test_hung_up(self) -> None:
        """
        A connection that ends before the answer is said, with status 1.
        """
        caught = self.assertRaises(ConnectionLost, self.ask, "MSG:J_ID:20")
        self.assertEqual(caught.status, 1)
        self.assertIn("closed the connection", str(caught))

    def test_stranger(self) -> None:
        """
        What is not usbgate is called so.
        """
        for greeting in ("SSH-2.0-OpenSSH_9.2", "ID:20_MSG:T", "ID:1_MSG:J"):
            self.assertIn("is not usbgate", str(self.assertRaises(AskError, self.ask, greeting)))

    def test_silence(self) -> None:
        """
        A daemon that says nothing is not waited for longer than the limit.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            connection = connect(server.getsockname())
            assert connection is not None
            self.addCleanup(connection.close)
            caught = self.assertRaises(RequestRefused, list, ask(connection, self.FIELDS, 0.1))
        self.assertEqual(caught.status, 3)

    def test_word(self) -> None:
        """
        The word `ask` has no echo: the first line is the answer.
        """
        with answering("ID:20_VALUE:4_MSG:J", "OK:ask") as port:
            connection = connect(("127.0.0.1", port))
            assert connection is not None
            self.addCleanup(connection.close)
            self.assertEqual(ask_word(connection, "20", 10.0), "ID:20_VALUE:4_MSG:J")

    def test_unix_socket(self) -> None:
        """
        A path is the address of a Unix socket; where there is none, nobody listens.
        """
        path = f"/tmp/usbgate-test-{os.getpid()}.sock"
        self.assertIsNone(connect(path))
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            self.addCleanup(os.unlink, path)
            server.listen()
            connection = connect(path)
        assert connection is not None
        connection.close()

    def test_self_connected(self) -> None:
        """
        A connection to a closed port that met itself is no daemon, and leaves the port free.
        """
        channel = socket.socket()
        self.addCleanup(channel.close)
        channel.bind(("127.0.0.1", 0))
        port = channel.getsockname()[1]
        channel.connect(("127.0.0.1", port))
        self.assertTrue(is_self_connected(channel))
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))

    def test_no_way(self) -> None:
        """
        A host that can't be reached at all is one line, and status 5.
        """
        caught = self.assertRaises(NoDaemon, connect, ("no-such-host.invalid", 50007))
        self.assertEqual(caught.status, 5)
        self.assertIn("no-such-host.invalid:50007", str(caught))


class StartTests(TestCase):
    """
    Clients that start a daemon, all of them processes.
    """

    def setUp(self) -> None:
        """
        Begin with no daemon.
        """
        self.state = Path(self.mktemp()).absolute() / "state"
        self.port = free_port()
        self.clients: list[subprocess.Popen[str]] = []
        self.addCleanup(self.end_all)

    def started(self) -> list[int]:
        """
        Tell the process ids of all daemons that were ever started.
        """
        try:
            return [int(pid) for pid in (self.state / "started").read_text().split()]
        except FileNotFoundError:
            return []

    def end_all(self) -> None:
        """
        End clients, then daemons.
        """
        for client in self.clients:
            client.kill()
            client.wait()
            assert client.stdout is not None
            client.stdout.close()
        for pid in self.started():
            end(pid)

    def start_client(self, fault: str = "", **environ: str) -> subprocess.Popen[str]:
        """
        Start a client that starts a daemon with this fault.
        """
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(self.state), str(self.port), *([fault] if fault else [])],
            env={**os.environ, "PYTHONPATH": str(ROOT), "STANDIN": standin.__file__, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.clients.append(client)
        return client

    def results(self) -> list[tuple[int, str]]:
        """
        Wait for all clients that were started since, and tell their status and what they said.
        """
        clients, self.clients = self.clients, []
        said = [client.communicate(timeout=LIMIT)[0].strip() for client in clients]
        return [(client.wait(), text) for client, text in zip(clients, said, strict=True)]

    def test_ten_at_once(self) -> None:
        """
        Of ten clients that find no daemon one starts it, and all get their answer from it.
        """
        for _ in range(10):
            self.start_client()
        results = self.results()
        (pid,) = self.started()
        self.assertEqual(results, [(0, f"ID:20_VALUE:456_MSG:J_BY:{pid}")] * 10)
        self.assertTrue(is_running(pid))

    def test_detached(self) -> None:
        """
        The daemon has nothing of the client that started it: session, folder, streams and locks are its own. Other
        users can read none of its files.
        """
        self.start_client()
        self.assertEqual(self.results()[0][0], 0)
        (pid,) = self.started()
        proc = Path(f"/proc/{pid}")
        self.assertEqual(os.readlink(proc / "cwd"), "/")
        self.assertEqual(os.getsid(pid), pid)
        files = {link.name: os.readlink(link) for link in (proc / "fd").iterdir()}
        self.assertEqual(files["0"], "/dev/null")
        self.assertEqual({files["1"], files["2"]}, {str(self.state / "usbgate.log")})
        self.assertNotIn(str(self.state / "start.lock"), files.values())
        for path in (self.state, self.state / "start.lock", self.state / "usbgate.log"):
            self.assertEqual(path.stat().st_mode & 0o7, 0, path)

    def test_link(self) -> None:
        """
        Whoever starts it follows no link that another user has made.
        """
        self.state.mkdir(parents=True)
        victim = self.state.parent / "victim"
        other = os.geteuid() + 1
        self.patch(os, "geteuid", lambda: other)
        for name in ("usbgate.log", "start.lock"):
            link = self.state / name
            link.symlink_to(victim)
            if link.lstat().st_uid == 0:
                os.lchown(link, other + 1, -1)
            starter = DaemonStarter(self.state, (sys.executable, "-c", ""), {})
            error = self.assertRaises(NoDaemon, starter.reach, ("127.0.0.1", self.port))
            self.assertRegex(str(error), f"cannot be started: .*/{name} is a link that another user, ")
            link.unlink()
        self.assertFalse(victim.exists())

    def test_dies(self) -> None:
        """
        A daemon that dies is started once for all who wait meanwhile, and all say what its log says.
        """
        for _ in range(4):
            self.start_client("dies")
        for status, said in self.results():
            self.assertEqual((status, said), (5, "the daemon exited during its start: no serial device: try --device"))
        # Whoever came when the first attempt was over may have made another.
        self.assertLessEqual(len(self.started()), 4)

    def test_stopped(self) -> None:
        """
        Of a daemon that was stopped, the log's last word is by what, and not what followed.
        """
        starter = DaemonStarter(self.state, (), {})
        self.state.mkdir(parents=True)
        (self.state / "usbgate.log").write_text(
            "2013-03-11T21:02:10+0000 [usbgate.device.reconnect.Reconnector#info] leonardo is open: /dev/ttyACM0\n"
            "2013-03-11T21:02:11+0000 [twisted.internet.base#info] Received SIGTERM, shutting down.\n"
            "2013-03-11T21:02:11+0000 [-] (TCP Port 50007 Closed)\n"
            "2013-03-11T21:02:11+0000 [twisted.internet.base#info] Main loop terminated.\n"
        )
        error = self.assertRaises(NoDaemon, starter.check_death)
        self.assertEqual(str(error), "the daemon exited before it answered: Received SIGTERM, shutting down.")

    def test_tried_again(self) -> None:
        """
        A failure is no memory: who comes later tries again.
        """
        self.start_client("dies")
        self.assertEqual(self.results()[0][0], 5)
        self.start_client()
        self.assertEqual(self.results()[0][0], 0)

    def test_waiter_hears_of_the_death(self) -> None:
        """
        Who waited while another one's daemon died says why, and starts none.
        """
        self.state.mkdir(parents=True)
        with open(self.state / "start.lock", "a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            client = self.start_client()
            wait_until_kept_waiting(client.pid, self.state / "start.lock")
            lock.write("the daemon exited during its start: so it is")
        self.assertEqual(self.results(), [(5, "the daemon exited during its start: so it is")])
        self.assertEqual(self.started(), [])

    def test_deaf(self) -> None:
        """
        A daemon that lives, and does not listen on the port, is neither started again nor waited for for ever.
        """
        self.start_client("deaf", WITHIN="1.5")
        self.start_client("deaf", WITHIN="1.5")
        for status, said in self.results():
            self.assertEqual(status, 5)
            self.assertIn(f"does not listen on 127.0.0.1:{self.port}", said)
        self.assertEqual(len(self.started()), 1)

    def test_client_killed(self) -> None:
        """
        A client that was killed while its daemon came up is in nobody's way.
        """
        first = self.start_client("deaf")
        eventually(lambda: len(self.started()) == 1, "a daemon was started")
        first.kill()
        first.wait()
        end(self.started()[0])
        second = self.start_client()
        self.assertEqual(second.wait(LIMIT), 0)

    def test_no_state_folder(self) -> None:
        """
        A state folder that can't be made is one line that names it.
        """
        self.state.parent.mkdir(parents=True)
        self.state.write_text("a file")
        self.start_client()
        ((status, said),) = self.results()
        self.assertEqual(status, 5)
        self.assertIn(f"state folder {self.state}: File exists", said)
        self.state.unlink()

    def test_no_such_program(self) -> None:
        """
        A daemon whose program is not there is one line.
        """
        daemon = DaemonStarter(self.state, ["/no/such/program"], {})
        caught = self.assertRaises(NoDaemon, daemon.reach, ("127.0.0.1", self.port))
        self.assertEqual(str(caught), "the daemon cannot be started: /no/such/program: No such file or directory")

    def test_arguments(self) -> None:
        """
        The command twistd is told no pid file, the log of the state folder, and the configuration if there is one.
        """
        arguments = twistd_arguments(Path("/s"), Path("/c.toml"))
        self.assertEqual(arguments[-5:], ["--pidfile=", "--logfile=/s/usbgate.log", "usbgate", "--config", "/c.toml"])
        self.assertEqual(twistd_arguments(Path("/s"), None)[-1], "usbgate")
