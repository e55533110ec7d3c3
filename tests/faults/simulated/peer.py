"""
A client that knows what it asked and what it must receive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address

from tests.faults.simulated.device import TOGGLE
from tests.faults.simulated.life import Life, MemoryTransport, demand
from usbgate.core.fieldline import parse
from usbgate.net.broadcast import Broadcast, ISubscriber
from usbgate.server.console import Console

if TYPE_CHECKING:
    from tests.faults.simulation import World

COMMANDS = ("J", "J", "J", "K", "L", "ON", TOGGLE)
BATH, BATH_TIMEOUT = "21", 4.0  # a sensor with a time limit of its own
LATE = 3.0  # seconds that a busy machine lets timers be late

# Lines of a client that are no request, and the reply to each.
JUNK = [
    ("MSG:_ID:20", "malformed"),
    ("MSG:J", "malformed"),
    ("MSG:J_ID:20_AT:now", "malformed"),
    ("MSG:J_ID:20_TIMEOUT:0", "malformed"),
    ("MSG:J_ID:2 0", "malformed"),
]

WORDS = (
    "ping", "status", "last", "last 20", "last 21 VALUE", "devices", "sensors", "malformed", "help", "help ask",
    "history 20", "history 30 limit=3", "watch", "watch 20", "watch 21 30", "unwatch", "frobnicate", "history",
)  # fmt: skip


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


class RecordedWatchers(Broadcast):
    """
    Reports the subscribers to the world.
    """

    world: World

    def add(self, subscriber: ISubscriber, sensors: Collection[str]) -> None:
        """
        See `Broadcast`.
        """
        assert isinstance(subscriber, Console)
        self.world.watching[subscriber.connection] = frozenset(sensors)
        super().add(subscriber, sensors)

    def remove(self, subscriber: ISubscriber) -> None:
        """
        See `Broadcast`.
        """
        assert isinstance(subscriber, Console)
        self.world.watching.pop(subscriber.connection, None)
        super().remove(subscriber)


class Peer:
    """
    A client: a program that marks its requests, a person who sends words, or both on one connection; or the original
    client, with one request without a line end.
    """

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.life = world.life
        self.name = f"peer{number}"
        self.address = IPv4Address("TCP", "10.0.0.1", number)
        self.original = world.random.random() < 0.15
        self.half_closed = False
        self.slow = False  # ever read nothing for a while
        self.stuck_since = inf
        self.begun = False  # whether it sent a line
        self.left = False  # hung up, or said quit, or may have been dropped for not reading
        self.requests: dict[str, Asked] = {}
        self.words: deque[tuple[str, str | None]] = deque()  # said and not answered: the word, its mark
        self.expected: list[str] = []  # events, from the world's own subscription
        self.events = 0  # of them, received or counted as dropped
        self.dropped = 0
        self._end = world.random.choice([b"\n", b"\n", b"\r\n"])
        self._out = b""
        self._in = b""
        protocol = world.factory.buildProtocol(self.address)
        self.protocol = protocol
        self.transport = MemoryTransport(world.life, self._heard, self.flush)
        self.transport.protocol = protocol
        if "reads slowly" in world.faults and world.random.random() < 0.5:
            self.transport.pace, self.slow = 0.3, True
        world.peers[protocol] = self
        protocol.makeConnection(self.transport)

    def ask(self, word: bool = False) -> None:
        """
        Send a random request.
        """
        world, draw = self.world, self.world.random
        mark = "q" + world.mark()
        fields = {"MSG": draw.choice(COMMANDS), "ID": draw.choice(world.sensors), "ORIGIN": mark}
        arguments = {}
        if fields["MSG"] == "L":
            arguments["LEVEL"] = "bad" if world.chance("poison") else draw.choice(["1", "2"])
        fields.update(arguments)
        timeout = BATH_TIMEOUT if fields["ID"] == BATH else 10.0
        if draw.random() < 0.5:
            timeout = draw.choice([0.5, 2.0, 7.0, 30.0])
            fields["TIMEOUT"] = f"{timeout:g}"
        if draw.random() < 0.15:
            fields["MAXAGE"] = "5"
        if draw.random() < 0.1:
            fields["WHEN"] = "heard"
            fields.setdefault("TIMEOUT", f"{timeout:g}")
        if draw.random() < 0.2:
            fields["DEV"] = draw.choice([device.name for device in world.devices] * 3 + ["nowhere"])
        self._ask(fields, frozenset(arguments.items()), timeout, word)

    def ask_plainly(self, sensor: str, device: str) -> Asked:
        """
        Send a request that is answered if all is well.
        """
        fields = {"MSG": "J", "ID": sensor, "ORIGIN": "q" + self.world.mark(), "DEV": device, "TIMEOUT": "30"}
        return self._ask(fields, frozenset(), 30.0, False)

    def _ask(self, fields: dict[str, str], arguments: frozenset[tuple[str, str]], timeout: float, word: bool) -> Asked:
        mark = fields["ORIGIN"]
        if not self.original:
            fields["TAG"] = mark
        asked = Asked(mark, fields["ID"], fields["MSG"], arguments, timeout, word, self.life, fields)
        self.requests[mark] = self.world.asked[mark] = asked
        if word:
            options = " ".join(f"{key.lower()}={value}" for key, value in fields.items() if key not in ("MSG", "ID"))
            self.say_word(f"ask {asked.sensor} {asked.command} {options.replace('maxage', 'max_age')}", mark)
        else:
            self.say("_".join(f"{key}:{value}" for key, value in fields.items()))
        return asked

    def junk(self) -> None:
        """
        Send a line that is no request.
        """
        line, code = self.world.random.choice(JUNK)
        mark = "q" + self.world.mark()
        if self.begun and self.world.random.random() < 0.2:  # an over-long first line ends the connection unread
            line, code = "MSG:J_ID:20_ORIGIN:" + mark, "limit"
        asked = Asked(mark, "", "", frozenset(), 0.0, False, self.life, {}, expects=code)
        self.requests[mark] = self.world.asked[mark] = asked
        self.say(f"{line}_TAG:{mark}" + ("_X:" + "x" * 2000 if code == "limit" else ""))

    def say_word(self, line: str, mark: str | None = None) -> None:
        """
        Send a word.
        """
        self.words.append((line.split()[0], mark))
        self.left = self.left or line == "quit"
        self.say(line)

    def say(self, line: str) -> None:
        """
        Send a line; the original client sends it without a line end.
        """
        self.world.note(f"{self.name} says {line[:150]}")
        self._out += line.encode() + (b"" if self.original else self._end)
        self.begun = True
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
        Close the connection.
        """
        self.left = True
        self.transport.cut()

    def stick(self, stuck: bool) -> None:
        """
        Stop reading, or read again.
        """
        self.transport.stuck = stuck
        if stuck:
            self.slow, self.stuck_since = True, self.world.now
        if not stuck and self.transport.open:
            self.transport.take()

    @property
    def unread(self) -> int:
        """
        How many lines the daemon has not handled.
        """
        return self._out.count(b"\n") + len(self.protocol.waiting)

    def _heard(self, data: bytes) -> None:
        if self.original:  # its echo has no line end, and is one chunk
            asked = next(iter(self.requests.values()), None)
            if asked is not None and asked.echoed == inf and self._received_echo(asked, data.decode().strip()):
                return
            data = data.lstrip(b"\n")
        *lines, self._in = (self._in + data).split(b"\n")
        for line in lines:
            self._received(line.removesuffix(b"\r").decode())

    def _received_echo(self, asked: Asked, line: str) -> bool:
        if line != "_".join(f"{key}:{value}" for key, value in asked.fields.items()):
            return False
        demand(asked.echoed == inf and asked.outcome is None, "a request is echoed once, and first", line)
        asked.echoed = self.world.now
        self.world.seen["echoed"] += 1
        return True

    def _received(self, line: str) -> None:
        world = self.world
        fields = parse(line.encode(), 4096)  # `malformed` quotes whole lines
        if "EVENT" in fields:
            self._received_event(line, fields)
            return
        mark = fields.get("TAG")
        if self.original:
            mark = next(iter(self.requests))
        if mark is None:
            self._received_word(line, fields)
            return
        world.note(f"{self.name} receives {line[:200]}")
        demand(mark in self.requests, "nobody gets a reply to another's request", line)
        asked = self.requests[mark]
        if not asked.word and asked.echoed == inf and self._received_echo(asked, line):
            return
        if asked.word and "OK" in fields:
            demand(asked.outcome == "answered", "OK: follows an answer", line)
            self._word_over("ask", mark)
            return
        self._received_end(asked, fields)
        if asked.word and "ERROR" in fields:
            self._word_over("ask", mark)

    def _received_end(self, asked: Asked, fields: dict[str, str]) -> None:
        world = self.world
        demand(asked.outcome is None, "a request ends once", fields, asked)
        asked.outcome = fields.get("ERROR", "answered")
        world.seen[f"{asked.outcome} reply"] += 1
        if asked.expects is not None:
            demand(asked.outcome == asked.expects and asked.echoed == inf, "§3 what can't be read", fields, asked)
            return
        demand(asked.word or asked.echoed < inf, "§3 echoed before anything else about it", fields)
        if asked.outcome == "limit":
            return
        self.life.callLater(0, self._check_recorded, asked)
        waited = world.now - asked.echoed
        if not (self.slow or asked.word):
            early = asked.outcome == "timeout" and asked.command != TOGGLE and waited < asked.timeout - 1e-6
            demand(not early or asked.mark in world.displaced, "no timer fires early", waited, asked)
            demand(waited <= asked.timeout + LATE + 0.1, "no timer fires late", waited, asked)
        if asked.outcome == "answered":
            # One that the device is not ready to take may be answered by what it says unasked.
            written = asked.written or asked.command != TOGGLE or "stuck device" in world.faults
            demand(bool(written), "§4.3 a toggle is written as often as it is asked", asked)
            world.check_answer(asked, fields)

    def _check_recorded(self, asked: Asked) -> None:
        recorded = [{"recent": "answered"}.get(outcome, outcome) for outcome in asked.recorded]
        kept = asked.dropped or not self.life.alive or recorded == [asked.outcome]
        demand(kept, "journalled, once, in the turn of the reply", asked)

    def _received_word(self, line: str, fields: dict[str, str]) -> None:
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
        self.world.note(f"{self.name}: {name} is over")
        said = self.words.popleft()
        demand(said[1] == mark and name in (None, said[0]), "words are answered in their order", said, name, mark)

    def _received_event(self, line: str, fields: dict[str, str]) -> None:
        if fields["EVENT"] == "dropped":
            self.events += int(fields["COUNT"])
            self.dropped += int(fields["COUNT"])
            self.world.seen["events dropped"] += 1
            demand(self.events <= len(self.expected), "no more is dropped than there was", line)
        else:
            demand(self.events < len(self.expected), "no event comes twice", line)
            demand(self.expected[self.events] == line, "events come in order", line, self.expected[self.events])
            self.events += 1
