"""
A device, which outlives the daemon, and knows which message each of its lines answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from tests.faults.simulated.life import Life, MemoryTransport, demand
from usbgate.core.fieldline import LINE_LIMIT
from usbgate.core.matching import PATIENCE
from usbgate.core.model import POLLER
from usbgate.core.rules import Rules

if TYPE_CHECKING:
    from tests.faults.simulation import World

TOGGLE = "T"  # `coalesce = false`
LINGER = 0.2  # seconds that a port waits for what was written to be taken, before it closes

# Lines of a device that hold no report, and whether each counts as malformed.
GARBAGE = [
    (b"\xff\xfe\x00\x13", False),  # stray bytes, but no line
    (b"x\xff\xfe\x00\x13", True),
    (b"ID:20", True),
    (b"ID:20_VALUE:", True),
    (b"VALUE:7", True),
    (b"ID:20_VALUE:1_VALUE:2", True),
    (b"ID:20_HU%:1", True),
    (b"x" * 3000, True),
    (b"# booted", False),
    (b"", False),
]


@dataclass(eq=False, slots=True)
class Message:
    """
    A question as a device received it.
    """

    sensor: str
    command: str
    arguments: frozenset[tuple[str, str]]
    tag: str | None
    written: float
    life: Life
    answered: bool = False  # something was taken for its answer


@dataclass(eq=False, slots=True)
class Line:
    """
    One line of a device.

    Attributes:
        values: Its values; empty for an acknowledgement, and for a line that is no report.
        label: The message that it answers; None if none.
        kind: `answer`, `repeated`, `unasked` or `garbage`.
        end: The offset of its end in all that was said since the opening.
        malformed: Whether it is to be counted, and was not.
        heard: When the daemon read it, and in which life.
    """

    device: Device
    data: bytes
    sensor: str
    values: tuple[tuple[str, str], ...]
    command: str | None
    label: Message | None
    kind: str
    end: int = 0
    malformed: bool = False
    received: float = inf
    life: Life | None = None


@implementer(IStreamClientEndpoint)
class Device:
    """
    A device and the endpoint at which it is found; it outlives the daemon.
    """

    def __init__(self, world: World, name: str, sensors: Sequence[str], rules: Rules, says_msg: bool) -> None:
        self.name = name
        self.sensors = sensors
        self.rules = rules
        self.plugged = True
        self.malformed = 0  # said in this life and read
        self.stuck = False
        self.newest: dict[str, Message] = {}  # to each sensor
        self.asked: dict[str, Message] = {}  # the same when the daemon last began to read
        self._says_msg = says_msg
        self._world = world
        self._transport: MemoryTransport | None = None
        self._protocol: IProtocol | None = None
        self._said = b""  # not yet read
        self._read = 0
        self._lines: deque[Line] = deque()
        self._heard = b""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if not self.plugged or (self._transport is not None and self._transport.open):
            return fail(ConnectError(string="there is no such device"))
        protocol = protocolFactory.buildProtocol(IPv4Address("TCP", "device", 1))
        assert protocol is not None
        self._said = self._heard = b""
        self._read = 0
        self._lines.clear()
        self._transport = MemoryTransport(self._world.life, self._take, self.flush, LINGER)
        self._transport.stuck = self.stuck
        self._transport.protocol = self._protocol = protocol
        protocol.makeConnection(self._transport)
        if self._world.chance("garbage"):
            self._said, counts = self._world.random.choice([(b"5_HUM:3\n", True), (b"\n", False), (b"56\r", True)])
            self._lines.append(Line(self, self._said, "", (), None, None, "garbage", len(self._said), counts))
        return succeed(protocol)

    def unplug(self) -> None:
        """
        Unplug the device; unread data is lost.
        """
        self.plugged = False
        if self._transport is not None:
            self._transport.cut()

    def stick(self, stuck: bool) -> None:
        """
        Stop reading, or read again.
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
        demand(not {"MAXAGE", "TIMEOUT", "WHEN", "DEV"} & fields.keys(), "§2 what is never sent to a device", fields)
        demand(("TAG" in fields) == self.rules.tags, "§2 a device gets usbgate's own tag, or none", fields)
        arguments = frozenset((k, v) for k, v in fields.items() if k not in ("MSG", "ID", "ORIGIN", "TAG"))
        question = (fields["ID"], fields["MSG"], arguments)
        if fields["ORIGIN"] == POLLER:
            world.seen["polls"] += 1
            demand(question == ("20", "J", frozenset()), "§4.11 a poll is the default command", question)
        else:
            asked = world.asked[fields["ORIGIN"]]
            asked.written += 1
            demand(
                question == (asked.sensor, asked.command, asked.arguments),
                "a device receives what was asked",
                question,
                asked,
            )
            demand(asked.command != TOGGLE or asked.written == 1, "§4.3 a toggle is written as often as asked", asked)
        tag = fields.get("TAG")
        message = Message(fields["ID"], fields["MSG"], arguments, tag, world.now, world.life)
        self.newest[message.sensor] = message
        world.note(f"{self.name} receives {fields}")
        if message.sensor not in self.sensors or world.chance("lost"):
            return
        delay = world.random.choice([0.0, 0.05, 0.3, 1.0, 2.5])
        if world.chance("late"):
            delay += world.random.uniform(0.5, 3) * (self.rules.patience or PATIENCE)
        world.clock.callLater(delay, self.say, message.sensor, message, "answer")
        if world.chance("repeated"):
            world.clock.callLater(
                delay + world.random.choice([0.0, 0.2, 4.0]), self.say, message.sensor, message, "repeated"
            )

    def say(self, sensor: str, label: Message | None, kind: str) -> None:
        """
        Send one line.
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
            # Firmware that never says `MSG` can't acknowledge: from then on nothing without it would be an answer.
            if label is None or label.command != "ON" or not (self._says_msg or self.rules.tags):
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
        data += world.random.choice([b"\n", b"\n", b"\r\n"])
        self._said += data
        data = data.removesuffix(b"\n") if data.endswith(b"\r\n") else data  # it ends at the CR
        end = self._read + len(self._said) - self._said.endswith(b"\r\n")
        line = Line(self, data, sensor, values, command, label, kind, end, malformed)
        self._lines.append(line)
        if values:
            world.said[values[0][1]] = line
        world.clock.callLater(0.0, self.flush)

    def flush(self) -> None:
        """
        Let the daemon read what was sent, if it reads.
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
            line.received, line.life = world.now, world.life
            self.malformed += line.malformed
            lines.append(line)
        if self._lines and self._lines[0].malformed:
            # A line that is too long is found out before its end.
            unended = len(self._lines[0].data) - (self._lines[0].end - self._read)
            if unended > LINE_LIMIT:
                self._lines[0].malformed = False
                self.malformed += 1
        world.deliver(self, lines, lambda: protocol.dataReceived(data))
        if self._said:
            world.clock.callLater(0.01, self.flush)
