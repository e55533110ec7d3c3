"""
Clients that do not read, do not end their lines, or are too many: others are answered, and memory stays flat.
"""

from __future__ import annotations

import contextlib  # `suppress` by its bare name means something else to trial
import resource
import select
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Event

from twisted.logger import Logger

from tests.faults.ledger import FULL, Neighbour, measured, processor_time, resident
from tests.support.daemon import StoreCase, value_of
from tests.support.running import Answer, LineClient, PtyDevice
from tests.support.waiting import LIMIT, eventually
from usbgate.core.fieldline import parse

# MB by which a daemon may grow beside what one client does: beyond the buffers that protocol §3 allows it (1 MiB), what
# Python keeps of memory that was used once.
GROWTH = 16.0


class ClientsCase(StoreCase):
    """
    A device that answers, a daemon that stores nothing, and a neighbour that asks all the time.
    """

    log = Logger()

    def setUp(self) -> None:
        """
        Start the device and the daemon.
        """
        super().setUp()
        self.device = self.plug()
        device = f"{self.device.path}{self.device_options()}"
        self.daemon = self.run_daemon("--device", device, *self.options())
        self.client = self.online(self.daemon)

    def options(self) -> tuple[str, ...]:
        """
        Return more options for the daemon.
        """
        return ("--database", "none")

    def device_options(self) -> str:
        """
        Return more options for the device.
        """
        return ""

    @contextlib.contextmanager
    def beside(self, growth: float = GROWTH, word: str = "ask 20") -> Iterator[None]:
        """
        Check that a neighbour is answered meanwhile, and that the daemon grows by no more than some MB.
        """
        pid = self.daemon.process.pid
        with Neighbour(self.daemon.port, word) as neighbour:
            before = resident(pid)
            alone = neighbour.summary
            yield
            grown = resident(pid) - before
        self.log.info(
            "{test}: {summary}; alone: {alone}; grown by {grown:.1f} MB",
            test=self.id(),
            summary=neighbour.summary,
            alone=alone,
            grown=grown,
        )
        self.assertLess(grown, growth)
        self.assertNotIn("Traceback", self.daemon.log)

    def open(self, receive: int | None = None) -> socket.socket:
        """
        Connect, with a receive buffer of so many bytes.
        """
        client = socket.socket()
        self.addCleanup(client.close)
        if receive is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # or the other end's buffer holds MB
        client.settimeout(LIMIT)
        client.connect(("127.0.0.1", self.daemon.port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def counts(self) -> dict[str, str]:
        """
        Return the line of `status` about connections.
        """
        [line] = [line for line in self.client.word("status") if line.startswith("CLIENTS:")]
        return parse(line.encode())


class RudeClientTests(ClientsCase):
    """
    One client that misbehaves.
    """

    def test_never_reads(self) -> None:
        """
        A client that asks and never reads is no longer read from, and dropped after a minute.
        """
        rude = self.open(receive=4096)
        rude.setblocking(False)
        request = b"".join(b"help\nMSG:J_ID:20_ORIGIN:x_TAG:%d\n" % n for n in range(1000))
        sent = 0
        with self.beside():
            while select.select([], [rude], [], 0.5)[1]:
                sent += rude.send(request)
                self.assertLess(sent, 64e6, "nobody stops it")
            if FULL:
                eventually(lambda: "took nothing of" in self.daemon.log, "it is dropped", 90)
                with self.assertRaises(OSError):
                    rude.setblocking(True)
                    while True:
                        rude.sendall(request)

    def test_watcher_never_reads(self) -> None:
        """
        A subscriber that does not read loses events, is told their exact number when it reads, and loses no reply of
        its own.
        """
        rude = self.open(receive=4096)
        rude.sendall(b"watch 1\n")
        total = 1_000_000 if FULL else 40_000
        with self.beside():
            rude.sendall(b"MSG:J_ID:20_ORIGIN:x_TAG:mine\n")
            for start in range(0, total, 1000):
                self.device.say(*[b"ID:1_N:%d" % n for n in range(start, start + 1000)])
            eventually(lambda: self.client.word("last 1")[0].startswith(f"ID:1_N:{total - 1}_"), "all was read")
        rude.sendall(b"ping\n")
        counts: Counter[str] = Counter()
        received = []
        for line in rude.makefile():
            kind = line.partition("_")[0].rstrip()
            counts[kind] += 1
            if kind == "EVENT:reading":
                received.append(int(parse(line.rstrip().encode())["N"]))
            elif kind == "EVENT:dropped":
                counts["lost"] += int(parse(line.rstrip().encode())["COUNT"])
            if kind == "OK:ping" or "TAG:mine" in line:
                counts["replies"] += 1
            if counts["replies"] == 3 and counts["lost"]:
                break
        self.assertEqual(counts["OK:watch"], 1)
        self.assertGreater(counts["lost"], 0)
        self.assertEqual(counts["EVENT:reading"] + counts["lost"], total)
        self.assertEqual(received, sorted(set(received)))

    def test_reads_slowly(self) -> None:
        """
        A client that reads a few bytes at a time gets all its answers in the end.
        """
        slow = self.open(receive=4096)
        count = 3000
        with self.beside():
            slow.sendall(b"".join(b"MSG:J_ID:20_ORIGIN:x_TAG:%d\n" % n for n in range(250)) + b"help\n" * 60)
            data = b""
            while data.count(b"\nOK:help") < 60 or data.count(b"_VALUE:456_") < 250:
                chunk = slow.recv(16 if len(data) < count else 65536)
                self.assertTrue(chunk)
                data += chunk
        tags = [parse(line)["TAG"] for line in data.splitlines() if line.startswith(b"ID:20_VALUE:")]
        self.assertEqual(sorted(map(int, tags)), list(range(250)))

    def test_byte_by_byte(self) -> None:
        """
        A request that arrives byte by byte is one request, also from many clients at a time.
        """
        clients = [self.open() for _ in range(50)]
        with self.beside():
            for byte in b"MSG:J_ID:20_ORIGIN:x\n":
                for client in clients:
                    client.send(bytes([byte]))
            for client in clients:
                file = client.makefile()
                self.assertEqual(file.readline(), "MSG:J_ID:20_ORIGIN:x\n")
                self.assertTrue(file.readline().startswith("ID:20_VALUE:456_"))

    def test_no_line_end(self) -> None:
        """
        A line without an end gets one error, that it is too long; what follows 60 KB of it is served. Beyond 64 KiB, or
        as the first line, it closes the connection.
        """
        rude = self.open()
        file = rude.makefile()
        rude.sendall(b"ping\n")
        self.assertEqual(file.readline(), "OK:ping\n")
        with self.beside():
            rude.sendall(b"x" * 60_000 + b"\nping\n")
            self.assertTrue(file.readline().startswith("ERROR:limit_"))
            self.assertEqual(file.readline(), "OK:ping\n")
            for client in (rude, self.open()):
                with self.assertRaises(ConnectionError):
                    while True:
                        client.sendall(b"x" * 1_000_000)

    def test_half_closes(self) -> None:
        """
        A client that half-closes gets all its answers, and then the end; its unfinished line is no request.
        """
        with self.beside():
            clients = [self.open() for _ in range(20)]
            for client in clients:
                client.sendall(b"".join(b"MSG:J_ID:20_ORIGIN:x_TAG:%d\n" % n for n in range(10)) + b"MSG:ON_ID:9")
                client.shutdown(socket.SHUT_WR)
            for client in clients:
                lines = client.makefile().read().splitlines()
                answered = [parse(line.encode())["TAG"] for line in lines if line.startswith("ID:20_VALUE:456_")]
                self.assertEqual(sorted(answered), list(map(str, range(10))))
                self.assertEqual(len(lines), 20)
        self.assertEqual({line.partition(b"_ORIGIN")[0] for line in self.device.received}, {b"MSG:J_ID:20"})


class ResetTests(ClientsCase):
    """
    Clients that reset their connections, with a database.
    """

    def options(self) -> tuple[str, ...]:
        """
        Use the database.
        """
        return ("--database", self.database)

    def test_resets(self) -> None:
        """
        Clients that reset the connection lose only the answer: each request has its row.
        """
        with self.beside():
            for n in range(200):
                client = self.open()
                client.sendall(b"MSG:J_ID:20_ORIGIN:gone%d\n" % n)
                if n % 2:  # else it may be gone before anything was read of it: what is lost was never accepted
                    self.assertEqual(client.recv(1), b"M")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
        gone = (
            "select count(distinct origin) from request where origin ~ '^gone[0-9]*[13579]$' and outcome = 'answered'"
        )
        eventually(lambda: self.rows(gone) == [(100,)], "each that was echoed has its row")
        eventually(lambda: self.counts()["CLIENTS"] == "1", "they are forgotten")


class CrowdTests(ClientsCase):
    """
    More connections than are allowed.
    """

    def setUp(self) -> None:
        """
        Raise the limit of open files of this process.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        super().setUp()

    def options(self) -> tuple[str, ...]:
        """
        Use the database, whose connections need descriptors, too.
        """
        return ("--database", self.database)

    def crowd(self, count: int) -> tuple[list[socket.socket], Counter[str]]:
        """
        Open many connections, and send `ping` on each.

        Returns:
            The connections, and how often each reply came.
        """
        crowd = [self.open() for _ in range(count)]
        replies: Counter[str] = Counter()
        for client in crowd:
            try:
                client.sendall(b"ping\n")
                replies[client.recv(1000).decode().partition("_")[0].strip()] += 1
            except ConnectionError:  # it was closed while it spoke, and may have missed the reply
                replies[""] += 1
        return crowd, replies

    def test_too_many(self) -> None:
        """
        Of 2,000 connections 1,000 are served and all others refused with a reason; new ones are served afterwards.
        """
        with self.beside(growth=60.0):  # MB; 1,000 connections are some 30 kB each
            crowd, replies = self.crowd(2000)
            self.assertEqual(replies["OK:ping"], 998)  # one is ours, one is the neighbour's
            self.assertGreater(replies["ERROR:limit"], 0)
            self.assertEqual(replies["ERROR:limit"] + replies[""], 1002)
            self.assertEqual(self.counts()["LIMITED"], "1002")
            for client in crowd:
                client.close()
            eventually(lambda: self.counts()["CLIENTS"] == "2", "they are forgotten")
            self.assertEqual(LineClient(self.daemon.port).word("ping"), ["OK:ping"])

    def test_no_file_left(self) -> None:
        """
        Without a free file descriptor the daemon neither ends nor spins; it serves existing clients, and new ones
        afterwards.
        """
        # A store that is connected only now would find no descriptor.
        eventually(lambda: "STORE:connected" in "".join(self.client.word("status")), "the store is connected")
        pid = self.daemon.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (48, hard))
        with self.beside():
            crowd, replies = self.crowd(100)
            self.assertGreater(replies["OK:ping"], 5)
            self.assertLess(replies["OK:ping"], 48)
            self.assertEqual(replies["OK:ping"] + replies[""], 100)
        self.assertNotIn("EMFILE", self.daemon.log)
        self.assertEqual(self.daemon.log.count("could not be accepted: too many open files"), 1)
        # Nobody speaks now, and some still come in.
        more = [self.open() for _ in range(20)]
        self.assertLess(measured(lambda: processor_time(pid), 0.5), 0.2)
        # What was there goes on: a reading is stored, and an answer given.
        self.device.say(b"ID:1_N:1")
        self.assertTrue(self.client.word("ask 20")[0].startswith("ID:20_VALUE:456"))
        eventually(lambda: self.rows("select 1 from reading where sensor = '1'"), "it is stored")
        # Its device is pulled, and can't be opened while there is no descriptor.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, hard))
        self.device.unplug()
        self.device.plug()
        eventually(lambda: "Too many open files" in self.daemon.log, "it cannot be opened")
        self.assertTrue(self.client.word("ask 20")[0].startswith("ERROR:offline_"))
        for client in (*crowd, *more):
            client.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        eventually(lambda: self.counts()["CLIENTS"] == "1", "they are forgotten")
        eventually(lambda: "_STATE:online_" in self.client.word("devices")[0], "it is back")
        self.assertTrue(self.client.word("ask 20")[0].startswith("ID:20_VALUE:456"))
        self.assertEqual(LineClient(self.daemon.port).word("ping"), ["OK:ping"])
        self.assertNotIn("Traceback", self.daemon.log)


class FloodTests(ClientsCase):
    """
    10,000 requests at once over 50 connections, while the device answers nothing; then it answers.
    """

    def setUp(self) -> None:
        """
        Keep the device's answers back until the test releases them.
        """
        self.kept: list[bytes] = []
        self.may_speak = Event()
        super().setUp()

    def options(self) -> tuple[str, ...]:
        """
        Use the database.
        """
        return ("--database", self.database)

    def device_options(self) -> str:
        """
        Wait long for an answer, however busy this machine is.
        """
        return ",patience=100"

    def plug(self, answer: Answer = value_of, name: str = "ttyACM0") -> PtyDevice:
        """
        Plug the device in.
        """

        def thinking(fields: dict[str, str]) -> list[bytes]:
            if fields["ID"] == "20":
                return value_of(fields)
            said = f"ID:{fields['ID']}_VALUE:{fields['ID']}_MSG:J".encode()
            if self.may_speak.is_set():
                return [said]
            self.kept.append(said)
            return []

        return super().plug(thinking, name)

    def flood(
        self, sensor: Callable[[int], int], accepted: int, last: Callable[[], object] | None = None
    ) -> Counter[str]:
        """
        Ask; when so many questions are in flight, release the answers, and wait until every request has ended.

        Args:
            sensor: Which sensor the nth request asks.
            accepted: How many are not refused.
            last: Asks one more, when all others are in flight.

        Returns:
            How many ended how.
        """
        many, each = 50, 200  # there may be 256 in flight on a connection
        outcomes: Counter[str] = Counter()
        self.may_speak.clear()
        refused = self.refused()
        with contextlib.ExitStack() as opened:
            clients = [opened.enter_context(contextlib.closing(LineClient(self.daemon.port))) for _ in range(many)]
            for number, client in enumerate(clients):
                asked = range(number * each, (number + 1) * each)
                client.say(*[f"MSG:J_ID:{sensor(n)}_ORIGIN:x_TAG:{n}_TIMEOUT:100" for n in asked])
            eventually(
                lambda: self.in_flight() + self.refused() - refused >= many * each, "all are in flight or refused"
            )
            self.assertGreaterEqual(self.in_flight(), accepted)
            if last is not None:
                received = len(self.kept)
                last()
                eventually(lambda: len(self.kept) > received, "the device has heard the last, too")
            self.may_speak.set()
            kept, self.kept = self.kept, []
            self.device.say(*kept)
            for number, client in enumerate(clients):
                left = set(range(number * each, (number + 1) * each))
                while left:
                    fields = parse(client.receive().encode())
                    if "TIMEOUT" in fields and "ERROR" not in fields:
                        continue  # the echo
                    n = int(fields["TAG"])
                    left.remove(n)
                    if "ERROR" in fields:
                        outcomes[fields["ERROR"]] += 1
                    else:
                        self.assertEqual((fields["ID"], fields["VALUE"]), (str(sensor(n)), str(sensor(n))))
                        outcomes["answered"] += 1
        return outcomes

    def refused(self) -> int:
        """
        Return how many requests found no room.
        """
        return sum(count for (count,) in self.rows("select count(*)::int from request where outcome = 'busy'"))

    def in_flight(self) -> int:
        """
        Return how many requests have not ended.
        """
        [line] = [line for line in self.client.word("status") if line.startswith("VERSION:")]
        return int(parse(line.encode())["INFLIGHT"])

    def test_one_sensor(self) -> None:
        """
        Requests for one sensor are one message, and all get its answer; each has its row. A request for another sensor
        is not answered last, though its answer came later.
        """
        other = self.connect(self.daemon)
        with self.beside(growth=60.0):  # MB; each is a kB or two, until it has its row
            outcomes = self.flood(lambda n: 30, 10_000, lambda: other.say("ask 40"))
        self.assertEqual(outcomes, {"answered": 10_000})
        self.assertEqual([line for line in self.device.received if b"ID:30_" in line], [b"MSG:J_ID:30_ORIGIN:x"])
        ended = "select count(*) from request where sensor = '30' and outcome = 'answered'"
        eventually(lambda: self.rows(ended) == [(10_000,)], "each has its row")
        # Rows are in the order of telling.
        self.assertTrue(other.receive().startswith("ID:40_VALUE:40_"))
        order = "select max(seq) filter (where sensor = '40') < max(seq) filter (where sensor = '30') from request"
        self.assertEqual(self.rows(order), [(True,)])

    def test_as_many_sensors(self) -> None:
        """
        Requests for different sensors are answered as far as there is room; the others get `busy` at once; each has its
        row.
        """
        with self.beside(growth=60.0, word="ping"):
            first = resident(self.daemon.process.pid)
            outcomes = self.flood(lambda n: 1000 + n, 4096)
        self.assertEqual(set(outcomes), {"answered", "busy"})
        self.assertGreaterEqual(outcomes["answered"], 4096)
        self.assertLess(outcomes["answered"], 4096 + 64)
        ended = "select outcome, count(*)::int from request where origin = 'x' group by outcome"
        eventually(lambda: dict(self.rows(ended)) == outcomes, "each has its row")
        received = Counter(self.device.received)
        self.assertEqual(set(received.values()), {1})
        self.assertEqual(len(received), outcomes["answered"])
        for _ in range(20 if FULL else 0):
            self.flood(lambda n: 1000 + n, 4096)
        self.assertLess(resident(self.daemon.process.pid) - first, 60.0)


class GreedyTests(ClientsCase):
    """
    Clients that ask without end, while only sensor 20 answers; sensor 9 is a lamp that answers when the test lets it.
    """

    def setUp(self) -> None:
        """
        Keep the lamp silent.
        """
        self.lamp_answers = Event()
        super().setUp()

    def options(self) -> tuple[str, ...]:
        """
        Use the database.
        """
        return ("--database", self.database)

    def device_options(self) -> str:
        """
        Give up soon on what does not answer, but not so soon that nobody minds.
        """
        return ",patience=3"

    def plug(self, answer: Answer = value_of, name: str = "ttyACM0") -> PtyDevice:
        """
        Plug the device in.
        """

        def answering(fields: dict[str, str]) -> list[bytes]:
            if fields["ID"] == "9" and self.lamp_answers.is_set():
                return [f"ID:9_MSG:{fields['MSG']}".encode()]
            return value_of(fields) if fields["ID"] == "20" else []

        return super().plug(answering, name)

    def in_flight(self) -> int:
        """
        Return how many requests have not ended.
        """
        [line] = [line for line in self.client.word("status") if line.startswith("VERSION:")]
        return int(parse(line.encode())["INFLIGHT"])

    def ask_much(self, client: socket.socket, requests: list[bytes]) -> None:
        """
        Send requests over a connection; wait until all are echoed, that is accepted or refused.
        """
        client.sendall(b"".join(requests))
        echoed = client.makefile("rb")
        while echoed.readline() != requests[-1]:
            pass

    def reset(self, client: socket.socket) -> None:
        """
        Hang up.
        """
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    def all_stored(self, asked: int) -> None:
        """
        Check that so many requests of the greedy wait, or have their row.
        """
        ended = "select count(*)::int from request where origin = 'greedy'"
        eventually(lambda: self.rows(ended) == [(asked - self.in_flight(),)], "each has its row")

    def test_hangs_up(self) -> None:
        """
        A client that sends 250 long requests and hangs up, again and again: 1,024 of them go on, and each has its row.
        """
        requests = [b"MSG:L_ID:%d_ORIGIN:greedy_A:%s_TIMEOUT:3600\n" % (n // 63, b"x" * 900) for n in range(249)]
        requests.append(b"MSG:L_ID:4_ORIGIN:greedy_TIMEOUT:3600\n")  # whose echo is no other's
        times = 400 if FULL else 50
        with self.beside(growth=60.0 if FULL else 30.0):  # MB; without a bound it grows by one for each 250
            for _ in range(times):
                greedy = self.open()
                self.ask_much(greedy, requests)
                self.reset(greedy)
        eventually(lambda: self.in_flight() <= 1024, "all are gone")
        self.assertEqual(self.in_flight(), 1024)
        self.all_stored(times * 250)

    def test_holds_the_queue(self) -> None:
        """
        17 connections have all the questions that can wait for the device, to sensors that do not exist: others are
        served.
        """
        self.assertTrue(self.client.word("ask 20")[0].startswith("ID:20_VALUE:456_"))
        crowd = [self.open() for _ in range(17)]
        for number, client in enumerate(crowd):
            sensors = range(number * 4, number * 4 + 4)
            self.ask_much(
                client,
                [b"MSG:C%d_ID:%d_ORIGIN:greedy_TIMEOUT:3600\n" % (n, 100 + k) for n in range(64) for k in sensors],
            )
        self.assertGreaterEqual(self.in_flight(), 4096)
        with self.beside():
            self.assertTrue(self.connect(self.daemon).word("ask 20")[0].startswith("ID:20_VALUE:456_"))
        self.assertGreaterEqual(self.in_flight(), 4000)
        for client in crowd:
            self.reset(client)
        eventually(lambda: self.in_flight() <= 1024, "those of gone connections are bounded")
        self.assertTrue(self.client.word("ask 20")[0].startswith("ID:20_VALUE:456_"))
        self.all_stored(17 * 256)

    def test_one_lamp(self) -> None:
        """
        64 levels for one lamp: somebody else switches it off all the same, and another one does, once the first client
        is gone.
        """
        greedy = self.open()
        self.ask_much(greedy, [b"MSG:L_ID:9_LEVEL:%d_ORIGIN:greedy_TIMEOUT:3600\n" % n for n in range(70)])
        busy = "select count(*)::int from request where origin = 'greedy' and outcome in ('busy', 'timeout')"
        eventually(lambda: self.rows(busy) == [(5,)], "it has 65, one of them on the wire")
        others = [self.connect(self.daemon) for _ in range(2)]
        others[0].say("ask 9 OFF timeout=100")
        eventually(lambda: self.rows(busy) == [(6,)], "it has displaced another")
        self.reset(greedy)
        eventually(lambda: self.counts()["CLIENTS"] == "3", "it is gone")
        others[1].say("ask 9 ON timeout=100")
        self.lamp_answers.set()
        for client, command in zip(others, ("OFF", "ON"), strict=True):
            self.assertTrue(client.receive().startswith(f"ID:9_MSG:{command}_"))
            self.assertEqual(client.receive(), "OK:ask")
        self.all_stored(70)
