"""
A simulated world: the whole daemon but its sockets, and everything around it, drawn from a seed.

Real are the core, `Gateway`, `Link`, `Delivery`, and the clients' face; in memory are the devices, the clients, the
journal's disk and the database (`tests.faults.parts`). All run on one `Clock`. The world keeps a book of what was said
to the daemon and compares it with all that comes out: a broken promise is `Violated`.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import inf

from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.faults.parts import (
    CALL_LIMIT,
    Database,
    Disk,
    Life,
    MemoryDatabaseSink,
    MemoryJournal,
    MemoryTransport,
    SteppingClock,
    demand,
)
from usbgate.clients import ClientFactory, Clients
from usbgate.delivery import Delivery
from usbgate.dialects.fields import Dialect
from usbgate.fieldline import parse
from usbgate.gateway import Gateway, SensorRules
from usbgate.link import Link
from usbgate.model import Malformed, Reading, RequestRecord
from usbgate.pending import PATIENCE, Rules
from usbgate.server import ClientProtocol
from usbgate.tap import Daemon
from usbgate.watchers import IWatcher, Watchers

TOGGLE = "T"  # `coalesce = false`
COMMANDS = ("J", "J", "J", "K", "L", "ON", TOGGLE)
PEERS = 6  # at a time
STOP_LIMIT = 5.0  # seconds in which the daemon ends
HEALING = 150.0  # seconds without a fault after which all must be well: longer than the longest back-off and limit
LATE = 3.0  # seconds that a busy machine lets timers be late

FAULTS = (
    "flaps", "garbage", "late", "lost", "repeated", "stuck device", "database away", "database hangs",
    "confirmation lost", "database slow", "no readers", "poison", "disk refuses", "disk slow", "crash", "stop",
    "clock steps", "late timers", "hang up", "half-close", "never reads", "junk", "cut chunks",
)  # fmt: skip

# Lines of a device that hold no report, and whether each counts as malformed.
GARBAGE = [
    (b"\xff\xfe\x00\x13", True),
    (b"ID:20", True),
    (b"ID:20_VALUE:", True),
    (b"VALUE:7", True),
    (b"ID:20_VALUE:1_VALUE:2", True),
    (b"ID:20_HU%:1", True),
    (b"x" * 3000, True),
    (b"# booted", False),
    (b"", False),
]

# Lines of a client that are no request, and what each is told.
JUNK = [
    ("MSG:_ID:20", "malformed"),
    ("MSG:J", "malformed"),
    ("MSG:J_ID:20_AT:now", "malformed"),
    ("MSG:J_ID:20_TIMEOUT:0", "malformed"),
    ("MSG:J_ID:2 0", "malformed"),
]

WORDS = (
    "ping", "status", "last", "last 20", "last 21 VALUE", "devices", "sensors", "noise", "help", "help ask",
    "history 20", "history 30 limit=3", "watch", "watch 20", "watch 21 30", "unwatch", "frobnicate", "history",
)  # fmt: skip


@dataclass(eq=False, slots=True)
class Message:
    """
    A question as a device got it.
    """

    sensor: str
    command: str
    arguments: frozenset[tuple[str, str]]
    tag: str | None
    written: float
    life: Life


@dataclass(eq=False, slots=True)
class Line:
    """
    One line of a device.

    Attributes:
        values: What it measures; empty for what is no report, and for an acknowledgement.
        label: The message that it answers; None if none.
        kind: `answer`, `repeated`, `unasked` or `garbage`.
        end: The offset of its end in all that was said since the opening.
        malformed: Whether it is to be counted.
        heard: When the daemon read it, and in which life.
    """

    sensor: str
    values: tuple[tuple[str, str], ...]
    command: str | None
    label: Message | None
    kind: str
    end: int = 0
    malformed: bool = False
    heard: float = inf
    life: Life | None = None


@dataclass(eq=False, slots=True)
class Asked:
    """
    One request of a client.

    Attributes:
        mark: Its `ORIGIN`, and its `TAG` where it has one; no two are the same.
        expects: The code that it must end with, if that is known.
    """

    mark: str
    sensor: str
    command: str
    arguments: frozenset[tuple[str, str]]
    timeout: float
    word: bool
    life: Life
    fields: dict[str, str]
    expects: str | None = None
    echoed: float = inf
    outcome: str | None = None
    recorded: list[str] = field(default_factory=list)
    dropped: bool = False
    written: int = 0


@implementer(IStreamClientEndpoint)
class Device:
    """
    A device and the endpoint where it is found. It goes on living when the daemon does not.
    """

    def __init__(self, world: World, name: str, sensors: Sequence[str], rules: Rules, says_msg: bool) -> None:
        self.name = name
        self.sensors = sensors
        self.rules = rules
        self.plugged = True
        self.malformed = 0  # said in this life and read
        self.stuck = False
        self._says_msg = says_msg
        self._world = world
        self._transport: MemoryTransport | None = None
        self._protocol: IProtocol | None = None
        self._said = b""  # not yet read
        self._read = 0
        self._lines: deque[Line] = deque()
        self._heard = b""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        See `IStreamClientEndpoint`.
        """
        if not self.plugged or (self._transport is not None and self._transport.open):
            return fail(ConnectError(string="there is no such device"))
        protocol = protocolFactory.buildProtocol(IPv4Address("TCP", "device", 1))
        assert protocol is not None
        self._said = self._heard = b""
        self._read = 0
        self._lines.clear()
        self._transport = MemoryTransport(self._world.life, self._take)
        self._transport.stuck = self.stuck
        self._transport.protocol = self._protocol = protocol
        protocol.makeConnection(self._transport)
        if self._world.chance("garbage"):
            self._said = self._world.random.choice([b"5_HUM:3\n", b"\n", b"56\r\n"])
        return succeed(protocol)

    def unplug(self) -> None:
        """
        Go away, and what was not read with it.
        """
        self.plugged = False
        if self._transport is not None:
            self._transport.cut()

    def stick(self, stuck: bool) -> None:
        """
        Take nothing that is written, or go on.
        """
        self.stuck = stuck
        if self._transport is not None:
            self._transport.stuck = stuck
            if not stuck and self._transport.open:
                self._transport.take()

    def _take(self, data: bytes) -> None:
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            self._asked(dict(part.split(":", 1) for part in line.decode().split("_")))

    def _asked(self, fields: dict[str, str]) -> None:
        world = self._world
        demand(not {"MAXAGE", "TIMEOUT", "DEV"} & fields.keys(), "§2 what is never sent to a device", fields)
        demand(("TAG" in fields) == self.rules.tags, "§2 a device gets usbgate's own tag, or none", fields)
        arguments = frozenset((k, v) for k, v in fields.items() if k not in ("MSG", "ID", "ORIGIN", "TAG"))
        asked = world.asked[fields["ORIGIN"]]
        asked.written += 1
        told = (fields["ID"], fields["MSG"], arguments)
        demand(told == (asked.sensor, asked.command, asked.arguments), "a device is told what was asked", told, asked)
        demand(asked.command != TOGGLE or asked.written == 1, "§4.3 a toggle is written as often as asked", asked)
        tag = fields.get("TAG")
        message = Message(fields["ID"], fields["MSG"], arguments, tag, world.now, world.life)
        world.note(f"{self.name} hears {fields}")
        if world.chance("lost"):
            return
        delay = world.random.choice([0.0, 0.05, 0.3, 1.0, 2.5])
        if world.chance("late"):
            delay += world.random.uniform(0.5, 3) * (self.rules.patience or PATIENCE)
        world.clock.callLater(delay, self.say, message.sensor, message, "answer")
        if world.chance("repeated"):
            world.clock.callLater(delay + world.random.choice([0.0, 0.2, 4.0]), self.say, message.sensor, message, "repeated")

    def say(self, sensor: str, label: Message | None, kind: str) -> None:
        """
        Say one line.
        """
        world = self._world
        if self._transport is None or not self._transport.open:
            return
        malformed = False
        values: tuple[tuple[str, str], ...] = ()
        command = None
        if kind == "garbage":
            data, malformed = world.random.choice(GARBAGE)
        else:
            if label is None or label.command != "ON":
                values = (("VALUE", world.mark()),)
                if world.chance("poison"):
                    values += (("NOTE", f"bad{values[0][1]}"),)
                elif world.random.random() < 0.2:
                    values += (("HUM", values[0][1]),)
            if label is not None and (self._says_msg or not values):
                command = label.command
            fields = {"ID": sensor, **dict(values)}
            if command is not None:
                fields["MSG"] = command
            if label is not None and label.tag is not None:
                fields["TAG"] = label.tag
            data = "_".join(f"{key}:{value}" for key, value in fields.items()).encode()
        self._said += data + world.random.choice([b"\n", b"\n", b"\r\n"])
        line = Line(sensor, values, command, label, kind, self._read + len(self._said), malformed)
        self._lines.append(line)
        if values:
            world.said[values[0][1]] = line
        world.clock.callLater(0.0, self.flush)

    def flush(self) -> None:
        """
        Let the daemon read what was said, if it reads.
        """
        world = self._world
        transport, protocol = self._transport, self._protocol
        if transport is None or protocol is None or not transport.read or not self._said:
            return
        size = len(self._said)
        if world.chance("cut chunks"):
            size = world.random.randint(1, size)
        data, self._said = self._said[:size], self._said[size:]
        self._read += size
        lines = []
        while self._lines and self._lines[0].end <= self._read:
            line = self._lines.popleft()
            line.heard, line.life = world.now, world.life
            self.malformed += line.malformed
            lines.append(line)
        world.hears(self, lines, lambda: protocol.dataReceived(data))
        if self._said:
            world.clock.callLater(0.01, self.flush)


class RecordedWatchers(Watchers):
    """
    Tells the world who watches what.
    """

    world: World

    def add(self, watcher: IWatcher, sensors: Collection[str]) -> None:
        """
        See `Watchers`.
        """
        assert isinstance(watcher, ClientProtocol)
        self.world.watching[watcher] = frozenset(sensors)
        super().add(watcher, sensors)

    def remove(self, watcher: IWatcher) -> None:
        """
        See `Watchers`.
        """
        assert isinstance(watcher, ClientProtocol)
        self.world.watching.pop(watcher, None)
        super().remove(watcher)


class Peer:
    """
    A client: a program that marks its requests, a person who says words, or both on one connection; or the original
    client, with one request without a line end.
    """

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.life = world.life
        self.name = f"peer{number}"
        self.address = IPv4Address("TCP", "10.0.0.1", number)
        self.original = world.random.random() < 0.15
        self.half_closed = False
        self.left = False  # hung up, or said quit, or may have been dropped for not reading
        self.requests: dict[str, Asked] = {}
        self.words: deque[tuple[str, str | None]] = deque()  # said and not answered: the word, its mark
        self.expected: list[str] = []  # events, from the world's own subscription
        self.events = 0  # of them, told or counted as dropped
        self.dropped = 0
        self._end = world.random.choice([b"\n", b"\n", b"\r\n"])
        self._out = b""
        self._in = b""
        protocol = world.factory.buildProtocol(self.address)
        self.protocol = protocol
        self.transport = MemoryTransport(world.life, self._heard)
        self.transport.protocol = protocol
        world.peers[protocol] = self
        protocol.makeConnection(self.transport)

    def ask(self, word: bool = False) -> None:
        """
        Ask something.
        """
        world, draw = self.world, self.world.random
        mark = "q" + world.mark()
        fields = {"MSG": draw.choice(COMMANDS), "ID": draw.choice(world.sensors), "ORIGIN": mark}
        arguments = {}
        if fields["MSG"] == "L":
            arguments["LEVEL"] = "bad" if world.chance("poison") else draw.choice(["1", "2"])
        fields.update(arguments)
        timeout = 10.0
        if draw.random() < 0.5:
            timeout = draw.choice([0.5, 2.0, 7.0, 30.0])
            fields["TIMEOUT"] = f"{timeout:g}"
        if draw.random() < 0.15:
            fields["MAXAGE"] = "5"
        if draw.random() < 0.2:
            fields["DEV"] = draw.choice([device.name for device in world.devices] * 3 + ["nowhere"])
        if not self.original:
            fields["TAG"] = mark
        question = frozenset(arguments.items())
        asked = Asked(mark, fields["ID"], fields["MSG"], question, timeout, word, self.life, fields)
        self.requests[mark] = world.asked[mark] = asked
        if word:
            options = " ".join(f"{key.lower()}={value}" for key, value in fields.items() if key not in ("MSG", "ID"))
            self.say_word(f"ask {asked.sensor} {asked.command} {options.replace('maxage', 'max_age')}", mark)
        else:
            self.say("_".join(f"{key}:{value}" for key, value in fields.items()))

    def junk(self) -> None:
        """
        Say what can't be understood.
        """
        line, code = self.world.random.choice(JUNK)
        mark = "q" + self.world.mark()
        if self.world.random.random() < 0.2:
            line, code = "MSG:J_ID:20_ORIGIN:" + mark, "limit"
        asked = Asked(mark, "", "", frozenset(), 0.0, False, self.life, {}, expects=code)
        self.requests[mark] = self.world.asked[mark] = asked
        self.say(f"{line}_TAG:{mark}" + ("_X:" + "x" * 2000 if code == "limit" else ""))

    def say_word(self, line: str, mark: str | None = None) -> None:
        """
        Say a word.
        """
        self.words.append((line.split()[0], mark))
        self.left = self.left or line == "quit"
        self.say(line)

    def say(self, line: str) -> None:
        """
        Send a line; the original client sends it as it is.
        """
        self.world.note(f"{self.name} says {line[:150]}")
        self._out += line.encode() + (b"" if self.original else self._end)
        self.flush()

    def flush(self) -> None:
        """
        Let the daemon read what was sent, if it reads.
        """
        while self._out and self.transport.read:
            size = len(self._out)
            if not self.original and self.world.chance("cut chunks"):
                size = self.world.random.randint(1, size)
            data, self._out = self._out[:size], self._out[size:]
            self.protocol.dataReceived(data)
        if self.half_closed and not self._out and self.transport.read:
            self.protocol.readConnectionLost()
            self.transport.producerState = "ended"

    def hang_up(self) -> None:
        """
        Be gone.
        """
        self.left = True
        self.transport.cut()

    def stick(self, stuck: bool) -> None:
        """
        Read nothing, or go on.
        """
        self.transport.stuck = stuck
        if not stuck and self.transport.open:
            self.transport.take()

    def _heard(self, data: bytes) -> None:
        if self.original:  # its echo has no line end, and is one chunk
            asked = next(iter(self.requests.values()), None)
            if asked is not None and asked.echoed == inf and self._told_echo(asked, data.decode().strip()):
                return
            data = data.lstrip(b"\n")
        *lines, self._in = (self._in + data).split(b"\n")
        for line in lines:
            self._told(line.removesuffix(b"\r").decode())

    def _told_echo(self, asked: Asked, line: str) -> bool:
        if line != "_".join(f"{key}:{value}" for key, value in asked.fields.items()):
            return False
        demand(asked.echoed == inf and asked.outcome is None, "a request is echoed once, and first", line)
        asked.echoed = self.world.now
        self.world.seen["echoed"] += 1
        return True

    def _told(self, line: str) -> None:
        world = self.world
        fields = parse(line.encode())
        if "EVENT" in fields:
            self._told_event(line, fields)
            return
        mark = fields.get("TAG")
        if self.original:
            mark = next(iter(self.requests))
        if mark is None:
            self._told_word(line, fields)
            return
        world.note(f"{self.name} is told {line[:200]}")
        demand(mark in self.requests, "nobody is told of another's request", line)
        asked = self.requests[mark]
        if not asked.word and asked.echoed == inf and self._told_echo(asked, line):
            return
        if asked.word and "OK" in fields:
            demand(asked.outcome == "answered", "OK: follows an answer", line)
            self._word_over("ask", mark)
            return
        self._told_end(asked, fields)
        if asked.word and "ERROR" in fields:
            self._word_over("ask", mark)

    def _told_end(self, asked: Asked, fields: dict[str, str]) -> None:
        world = self.world
        demand(asked.outcome is None, "a request ends once", fields, asked)
        asked.outcome = fields.get("ERROR", "answered")
        world.seen["told " + asked.outcome] += 1
        if asked.expects is not None:
            demand(asked.outcome == asked.expects and asked.echoed == inf, "§3 what can't be read", fields, asked)
            return
        demand(asked.word or asked.echoed < inf, "§3 echoed before anything else about it", fields)
        if asked.outcome == "limit":
            return
        recorded = [{"recent": "answered"}.get(outcome, outcome) for outcome in asked.recorded]
        demand(asked.dropped or recorded == [asked.outcome], "journalled, once, before anybody is told", fields, asked)
        waited = world.now - asked.echoed
        if asked.outcome == "timeout" and asked.command != TOGGLE and not asked.word:
            demand(waited >= asked.timeout - 1e-6, "no timer fires early", waited, asked)
        if not (self.transport.stuck or self.left or asked.word):
            demand(waited <= asked.timeout + LATE + 0.1, "no timer fires late", waited, asked)
        if asked.outcome == "answered":
            world.check_answer(asked, fields)

    def _told_word(self, line: str, fields: dict[str, str]) -> None:
        first = next(iter(fields))
        if first not in ("OK", "ERROR"):
            return
        if fields.get("ERROR") == "stopped":  # says so for every word that waits, whichever it is
            demand(bool(self.words), "a word is answered once", line)
            self.words.popleft()
        elif first == "OK":
            self._word_over(fields["OK"], None)
        else:
            demand(fields["ERROR"] in ("malformed", "unknown", "failed", "limit"), "how a word may fail", line)
            self._word_over(None, None)

    def _word_over(self, name: str | None, mark: str | None) -> None:
        demand(bool(self.words), "a word is answered once", name, mark)
        said = self.words.popleft()
        demand(said[1] == mark and name in (None, said[0]), "words are answered in their order", said, name, mark)

    def _told_event(self, line: str, fields: dict[str, str]) -> None:
        if fields["EVENT"] == "dropped":
            self.events += int(fields["COUNT"])
            self.dropped += int(fields["COUNT"])
            self.world.seen["events dropped"] += 1
            demand(self.events <= len(self.expected), "no more is dropped than there was", line)
        else:
            demand(self.events < len(self.expected), "no event is told twice", line)
            demand(self.expected[self.events] == line, "events come in order", line, self.expected[self.events])
            self.events += 1


class World:
    """
    Everything, from a seed.
    """

    def __init__(self, seed: int, seen: Counter[str]) -> None:
        """
        Begin with a daemon that has just been started.

        Args:
            seed: Says everything.
            seen: How often each interesting thing happened, over many worlds.
        """
        self.random = random.Random(seed)
        self.seen = seen
        self.trace: deque[str] = deque(maxlen=400)
        self.clock = Clock()
        self.clock.advance(self.random.uniform(0, 1e6))
        self.time = SteppingClock(self.clock)
        self.disk = Disk()
        self.database = Database()
        self.faults = {fault: self.random.choice([0.03, 0.1, 0.25]) for fault in FAULTS if self.random.random() < 0.4}
        self.said: dict[str, Line] = {}
        self.asked: dict[str, Asked] = {}
        self.peers: dict[ClientProtocol, Peer] = {}
        self.watching: dict[ClientProtocol, frozenset[str]] = {}
        self.appended: list[str] = []  # every reading that the journal took, in order
        self.heard: dict[tuple[str, str], str] = {}  # the newest of each field in this life
        self.events: list[str] = []  # of this life
        self.lives = 0
        self._marks = 0
        self._peers = 0
        self.running = False
        two = self.random.random() < 0.5
        self.devices = [self._make_device("tty0", ("20", "21"))]
        if two:
            self.devices.append(self._make_device("tty1", ("30", "21") if self.random.random() < 0.3 else ("30",)))
        self.sensors = ["20", "20", "20", "21", "21", "30"]
        self.start()

    def _make_device(self, name: str, sensors: Sequence[str]) -> Device:
        rules = Rules(
            window=self.random.randint(1, 4),
            tags=self.random.random() < 0.4,
            settle=self.random.choice([0.0, 0.0, 2.0]),
            patience=self.random.choice([None, 1.0, 5.0]),
            once=frozenset([TOGGLE]),
        )
        return Device(self, name, sensors, rules, self.random.random() < 0.6)

    @property
    def now(self) -> float:
        """
        Monotonic seconds.
        """
        return float(self.clock.seconds())

    def chance(self, fault: str) -> bool:
        """
        Whether a fault happens now.
        """
        return self.random.random() < self.faults.get(fault, 0.0)

    def mark(self) -> str:
        """
        Make a number that nobody else has.
        """
        self._marks += 1
        return str(self._marks)

    def note(self, text: str) -> None:
        """
        Keep for the trace.
        """
        self.trace.append(f"{self.now:.3f} life {self.lives}: {text}")

    # The daemon.

    def start(self) -> None:
        """
        Start the daemon, on what the last one left: the same tree of services as in `usbgate.tap`.
        """
        self.lives += 1
        self.note("starts")
        self.life = life = Life(self.lives, self.clock)
        self.heard, self.events = {}, []
        self.peers, self.watching = {}, {}
        self.gateway = Gateway(
            life, self.time, "J", {"21": SensorRules("bath", None, None, 4.0)}, self.random.getrandbits(32)
        )
        self.gateway.subscribe(self._event)
        self.journal = MemoryJournal(
            life, self.disk, self.gateway.hold_devices, self._appended, self._not_recorded, self._is_safe
        )
        self.sink = MemoryDatabaseSink(life, self.database)
        self.delivery = Delivery(life, self.journal, self.sink, self.gateway.recall, self.random.random)
        self.gateway.store_in(self.journal, self.sink, lambda: [self.delivery.status()])
        self.factory = ClientFactory(life, self.gateway, wall=self.time.wall)
        self.factory.watchers = watchers = RecordedWatchers(life, self.gateway)
        watchers.world = self
        self.daemon = Daemon()
        self.journal.setServiceParent(self.daemon)
        neighbours = MultiService()
        self.delivery.setServiceParent(neighbours)
        Clients(self.factory).setServiceParent(neighbours)
        self.links: list[Link] = []
        for device in self.devices:
            device.malformed = 0
            link = Link(life, device, device.name, device.name, Dialect(), self.gateway, lambda failures: 0.3)
            self.gateway.add_link(link, device.rules)
            link.setServiceParent(neighbours)
            self.links.append(link)
        neighbours.setServiceParent(self.daemon)
        self.gateway.setServiceParent(self.daemon)
        self.running = True
        self.daemon.startService()
        for device, link in zip(self.devices, self.links, strict=True):
            self.seen["partial"] += link.partial

    def _after(self) -> None:
        # After every step: a crash is noticed here.
        if self.running and not self.life.alive:
            self.note("CRASHED")
            self.seen["crashes"] += 1
            self.running = False
            self.life.end()
            for peer in self.peers.values():
                peer.left = True
            self.clock.callLater(self.random.choice([0.0, 0.5, 20.0]), self.start)

    def stop(self) -> None:
        """
        End the daemon as SIGTERM does.
        """
        self.note("is stopped")
        self.seen["stops"] += 1
        ended: list[None] = []
        life, peers = self.life, list(self.peers.values())
        began = self.now
        self.running = False
        self.daemon.stopService().addCallback(ended.append)
        while not ended and self.now - began < STOP_LIMIT:
            self._step(began + STOP_LIMIT)
        if not life.alive:
            self.running = True
            self._after()
            return
        demand(bool(ended), "it stops within 5 s")
        demand(not life.getDelayedCalls(), "no timer is left at the end", life.getDelayedCalls())
        life.end()
        for peer in peers:
            demand(not peer.transport.connected, "at the end no connection is open", peer.name)
            if not (peer.left or peer.transport.stuck):
                for asked in peer.requests.values():
                    told = asked.outcome is not None or (asked.echoed == inf and not asked.word)
                    demand(told or asked.word, "who waits is told at the end", asked)
            for asked in peer.requests.values():
                if asked.echoed < inf and asked.outcome != "limit":
                    demand(asked.dropped or len(asked.recorded) == 1, "every echoed request has one row", asked)

    # What is compared at once.

    def _event(self, sensor: str | None, line: str) -> None:
        self.events.append(line)
        for protocol, sensors in self.watching.items():
            if sensor is None or not sensors or sensor in sensors:
                self.peers[protocol].expected.append(line)

    def _appended(self, readings: Sequence[Reading], requests: Sequence[RequestRecord]) -> None:
        self.appended += [reading_name(r.field, r.value, r.text) for r in readings]
        for record in requests:
            asked = self.asked[record.origin]
            asked.recorded.append(record.outcome)
            demand(len(asked.recorded) == 1, "a request has one row", asked)
            told = (record.sensor, record.command, record.arguments)
            arguments = "_".join(f"{key}:{value}" for key, value in asked.arguments) or None
            demand(told == (asked.sensor, asked.command, arguments), "a row tells what was asked", record, asked)
            self.seen["row " + record.outcome] += 1
            if record.outcome == "busy":
                demand(asked.command != TOGGLE or not asked.written, "§4.4 busy: the device never saw it", asked)

    def _not_recorded(self, requests: Sequence[RequestRecord]) -> None:
        for record in requests:
            self.seen["not recorded"] += 1
            self.asked[record.origin].dropped = True

    def _is_safe(self, n: int) -> bool:
        return n in self.database.rows or n in self.disk.rejected

    def hears(self, device: Device, lines: Sequence[Line], read: Callable[[], None]) -> None:
        """
        Let the daemon read a chunk of a device, and see that all of it goes where it belongs, at once.
        """
        told = [(key, text, line) for line in lines for key, text in line.values]
        reports = [line for line in lines if line.values]
        life, before, events = self.life, len(self.appended), len(self.events)
        for line in lines:
            self.note(f"{device.name} says {line.kind} {line.sensor} {line.values}")
        read()
        if not life.alive:
            return
        names = [f"{key}:{text}" for key, text, _ in told]
        demand(self.appended[before:] == names, "every reading goes to the journal, once, at once", names)
        for key, text, line in told:
            self.heard[line.sensor, key] = text
        published = [event for event in self.events[events:] if event.startswith("EVENT:reading_")]
        demand(len(published) == len(reports), "every report is an event", published, names)
        for event, line in zip(published, reports, strict=True):
            demand(f"_ID:{line.sensor}_VALUE:{line.values[0][1]}_" in event, "events tell what was read", event)
        link = next(link for link in self.links if link.name == device.name)
        demand(link.malformed == device.malformed, "malformed lines are counted", link.malformed, device.malformed)

    def check_answer(self, asked: Asked, fields: dict[str, str]) -> None:
        """
        See that an answer belongs to the question, as far as protocol §4.6 lets it be told.
        """
        demand(fields["ID"] == asked.sensor, "an answer is of the sensor that was asked", fields, asked)
        demand(fields.get("MSG") == asked.command, "an answer names its command", fields, asked)
        if "VALUE" not in fields:
            demand(asked.command == "ON", "only a command is acknowledged", fields, asked)
            return
        line = self.said[fields["VALUE"]]
        rules = next(device.rules for device in self.devices if line.sensor in device.sensors)
        label = line.label
        demand(line.sensor == asked.sensor and line.life is self.life, "an answer is what was read", fields)
        if label is not None and (label.sensor, label.command, label.arguments) == (
            asked.sensor, asked.command, asked.arguments
        ):  # fmt: skip
            self.seen["answers"] += 1
            return
        contested = len([device for device in self.devices if line.sensor in device.sensors]) > 1
        demand(contested or not rules.tags, "with tags nobody gets another's answer", fields, asked, label)
        demand(line.command in (None, asked.command), "with MSG nobody gets another command's answer", fields, asked)
        late = label is None or label.life is not line.life or line.heard - label.written >= (rules.patience or PATIENCE)
        demand(late or line.kind == "repeated", "§4.6 nobody gets another's answer in its time", fields, asked, label)
        self.seen["slips"] += 1

    def check_last(self) -> None:
        """
        See that `last` tells the newest that was heard in this life, and else what the database had.
        """
        stored = {(r.sensor, r.field, reading_name(r.field, r.value, r.text)) for r in self.database.readings()}
        found = set()
        for reading in self.gateway.last(None, None):
            key = reading.sensor, reading.field
            name = reading_name(reading.field, reading.value, reading.text)
            found.add(key)
            if key in self.heard:
                demand(name == f"{reading.field}:{self.heard[key]}", "`last` is the newest", reading, self.heard[key])
            else:
                self.seen["recalled"] += 1
                demand((*key, name) in stored, "`last` is what was stored", reading)
        demand(found >= self.heard.keys(), "`last` knows all that was heard", found, self.heard.keys())

    # Time.

    def _step(self, end: float) -> None:
        # To the next timer, or the end.
        due = min((call.getTime() for call in self.clock.getDelayedCalls()), default=inf)
        self.clock.advance(max(0.0, min(due, end) - self.now))
        self._after()

    def run(self, seconds: float) -> None:
        """
        Let time go by, and all timers fire when they are due.
        """
        end = self.now + seconds
        while True:
            due = min((call.getTime() for call in self.clock.getDelayedCalls()), default=inf)
            self._step(end)
            if due > end:
                break
        for peer in list(self.peers.values()):
            if peer.life.alive:
                peer.flush()
        for device in self.devices:
            device.flush()
        self._after()

    # What happens.

    def live(self, events: int) -> None:
        """
        Let so many things happen; then heal everything, and see that all is well.
        """
        for _ in range(events):
            if self.running:
                self._happen()
                self._after()
            self.run(self.random.choice([0.0, 0.0, 0.02, 0.1, 0.5, 2.0]))
            if self.running and self.random.random() < 0.1:
                self.check_last()
        self.heal()
        self.finish()

    def _happen(self) -> None:
        for fault in FAULTS:
            if fault in DEEDS and self.chance(fault) and self.random.random() < 0.3:
                self.note(fault)
                self.seen[fault] += 1
                DEEDS[fault](self)
                return
        device = self.random.choice(self.devices)
        here = [peer for peer in self.peers.values() if peer.transport.open and not peer.left and not peer.half_closed]
        what = self.random.random()
        if what < 0.35:
            for _ in range(self.random.randint(1, 4)):
                device.say(self.random.choice(device.sensors), None, "garbage" if self.chance("garbage") else "unasked")
        elif what < 0.45 or not here:
            if len(here) < PEERS:
                self._peers += 1
                peer = Peer(self, self._peers)
                if peer.original:
                    peer.ask()
        else:
            peer = self.random.choice(here)
            if peer.original:
                return
            for _ in range(self.random.choice([1, 1, 2, 3, 12])):
                self._say(peer)

    def _say(self, peer: Peer) -> None:
        what = self.random.random()
        if self.chance("junk"):
            peer.junk()
        elif what < 0.6:
            peer.ask()
        elif what < 0.7:
            peer.ask(word=True)
        elif what < 0.99:
            peer.say_word(self.random.choice(WORDS))
        else:
            peer.say_word("quit")

    def heal(self) -> None:
        """
        Let all be well, for long enough.
        """
        self.note("heals")
        self.faults = {}
        for _ in range(2):  # a daemon that is started now is healed as well
            self.life.fuse = None
            self.database.away = None
            self.database.hangs = self.disk.refuses = False
            self.database.loses_confirmation = 0
            self.database.latency = self.disk.latency = 0.01
            self.database.readers = True
            for device in self.devices:
                device.plugged = True
                device.stick(False)
            for peer in self.peers.values():
                peer.stick(False)
            self.run(HEALING)

    def finish(self) -> None:
        """
        See that all that was promised was kept, and end.
        """
        demand(self.running, "it runs")
        self.check_last()
        demand(self.journal.backlog == 0, "all that waits is stored", self.journal.backlog, self.delivery.status())
        for device, state in zip(self.devices, self.gateway.devices(), strict=True):
            demand(state.state == "online", "a device is found again", device.name, state)
        for peer in self.peers.values():
            self._check_peer(peer)
        self._check_memory()
        self.stop()
        self._check_rows()

    def _check_peer(self, peer: Peer) -> None:
        if peer.left:
            return
        for asked in peer.requests.values():
            demand(asked.outcome is not None, "every request ends", asked)
        demand(not peer.words, "every word is answered", peer.words)
        demand(peer.events == len(peer.expected), "a watcher gets every event or an exact count", peer.name, peer.dropped)
        stays = not peer.half_closed or peer.protocol in self.watching
        demand(peer.transport.open == stays, "who is there stays, who half-closed is closed at the end", peer.name)

    def _check_memory(self) -> None:
        for line in self.gateway._lines.values():
            pending = line.pending
            demand(pending.idle and pending.in_flight == 0 and pending.deadline == inf, "no lane is left", line)
            left = pending._waiting, pending._on_wire, pending._limits.first(), pending._taken.first()
            demand(left == (0, 0, None, None), "nothing is left in line", left)
        demand(not self.life.getDelayedCalls(), "no timer is left", self.life.getDelayedCalls())
        here = {protocol for protocol, peer in self.peers.items() if peer.transport.open}
        demand(self.factory._connections == here, "connections are forgotten", self.factory._connections, here)
        for protocol in here:
            demand(protocol.in_flight == 0, "no request is in flight", protocol.in_flight)
            demand(protocol._queue.unsent == 0, "all was sent", protocol._queue.unsent)
        watchers = self.factory.watchers
        demand(watchers._sensors.keys() == self.watching.keys(), "who watches is known", watchers._sensors)
        demand(watchers._of_all | set().union(*watchers._of_sensor.values()) == set(watchers._sensors), "and no other")

    def _check_rows(self) -> None:
        ever, rows, rejected = self.disk.ever, self.database.rows, self.disk.rejected
        demand(not rows.keys() & rejected.keys(), "stored or set aside, not both", rows.keys() & rejected.keys())
        demand({**rows, **rejected} == ever, "all that was in the journal is stored, once", ever.keys() - rows.keys())
        self.seen["rows"] += len(rows)
        self.seen["rejected"] += len(rejected)
        self.seen["rows that came again"] += self.database.repeated
        names = [
            reading_name(row["field"] or "", float(row["value"]) if row["value"] is not None else None, row["text"])
            for _, row in sorted(ever.items())
            if "field" in row
        ]
        rest = iter(self.appended)
        demand(all(name in rest for name in names), "readings are in the order in which they were read", names)
        demand(len(set(names)) == len(names), "no reading is there twice", names)
        if self.lives == 1 and not self.seen_crash:
            demand(names == self.appended, "nothing is lost", set(self.appended) - set(names))
        origins = Counter(row["origin"] for row in ever.values() if "origin" in row)
        demand(max(origins.values(), default=1) == 1, "a request has one row", origins.most_common(3))

    @property
    def seen_crash(self) -> bool:
        """
        Whether the daemon ever lost what was not on disk.
        """
        return not self.life.alive and self.running


def reading_name(field: str, value: float | None, text: str | None) -> str:
    """
    Name a reading: each value is said once.
    """
    return f"{field}:{text or format(value or 0.0, '.0f')}"


def _flap(world: World) -> None:
    device = world.random.choice(world.devices)
    if device.plugged:
        device.unplug()
    else:
        device.plugged = True


def _stick_device(world: World) -> None:
    device = world.random.choice(world.devices)
    device.stick(not device.stuck)


def _database_away(world: World) -> None:
    database = world.database
    if database.away is None:
        database.away = world.random.choice(["refused", "read-only", "no such table"])
        world.sink.drop("terminated")
    else:
        database.away = None


def _database_hangs(world: World) -> None:
    world.database.hangs = not world.database.hangs


def _lose_confirmation(world: World) -> None:
    world.database.loses_confirmation = 1


def _database_slow(world: World) -> None:
    world.database.latency = world.random.choice([0.0, 0.01, 1.0, CALL_LIMIT + 1])


def _no_readers(world: World) -> None:
    world.database.readers = not world.database.readers


def _disk_refuses(world: World) -> None:
    world.disk.refuses = not world.disk.refuses


def _disk_slow(world: World) -> None:
    world.disk.latency = world.random.choice([0.0, 0.01, 0.5, 3.0])


def _crash(world: World) -> None:
    world.life.fuse = world.random.choice([0, 1, 2, 3, 5, 8, 13, 21])


def _stop(world: World) -> None:
    world.stop()
    if not world.running and not world.life.alive:
        world.clock.callLater(world.random.choice([0.0, 5.0]), world.start)


def _step_clock(world: World) -> None:
    year = 365 * 86_400_000
    world.time.offset = world.random.choice([0, 10 * year, 57 * year, 60 * year, 200 * year])
    world.time.right = world.random.random() < 0.5


def _late_timers(world: World) -> None:
    world.clock.advance(world.random.uniform(0, LATE))


def _some_peer(world: World) -> Peer | None:
    here = [peer for peer in world.peers.values() if peer.transport.open]
    return world.random.choice(here) if here else None


def _hang_up(world: World) -> None:
    if peer := _some_peer(world):
        peer.hang_up()


def _half_close(world: World) -> None:
    if peer := _some_peer(world):
        peer.half_closed = True
        peer.flush()


def _never_read(world: World) -> None:
    if peer := _some_peer(world):
        peer.stick(not peer.transport.stuck)


# Faults that are things that happen; the others are in how things are said and done.
DEEDS: dict[str, Callable[[World], None]] = {
    "flaps": _flap,
    "stuck device": _stick_device,
    "database away": _database_away,
    "database hangs": _database_hangs,
    "confirmation lost": _lose_confirmation,
    "database slow": _database_slow,
    "no readers": _no_readers,
    "disk refuses": _disk_refuses,
    "disk slow": _disk_slow,
    "crash": _crash,
    "stop": _stop,
    "clock steps": _step_clock,
    "late timers": _late_timers,
    "hang up": _hang_up,
    "half-close": _half_close,
    "never reads": _never_read,
}


def readable(line: bytes) -> bool:
    """
    Whether a line reads as fields.
    """
    try:
        parse(line)
    except Malformed:
        return False
    return True
