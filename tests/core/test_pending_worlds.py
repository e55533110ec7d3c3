"""
Random worlds over `usbgate.core.pending`: whatever happens in whatever order, no answer reaches another's asker.

Every answer of the simulated device is labelled with the message it truly belongs to, and every move is compared with
protocol §4 (see `tests.support.worlds`). A failure names its world: `random_world(SEED, Counter())` runs it again.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.connections import NETWORKS, Connection
from tests.support.worlds import (
    TICK,
    TOGGLE,
    Firmware,
    LinkBook,
    Message,
    Violated,
    World,
    may_slip,
    questions,
    random_world,
)
from usbgate.core.holders import Holder
from usbgate.core.model import Priority, Question, Report
from usbgate.core.rules import Rules

WORLDS = int(os.environ.get("USBGATE_WORLDS", "10000" if os.environ.get("USBGATE_FAULTS") == "full" else "1000"))
FIRST_SEED = int(os.environ.get("USBGATE_FIRST_SEED", "0"))
EXAMPLES = max(1, WORLDS // 5)  # hypothesis spends more on one

SENSORS = ("20", "21")

# What has to have happened in some thousands of worlds, or they show nothing.
INTERESTING = [
    "another spelling",
    "answered",
    "askers: one displaced",
    "askers: too many",
    "behind for longer",
    "buffer full",
    "busy",
    "delay ended by a report",
    "displaced by no poll",
    "displaced: joined by others",
    "displaced: not the newest",
    "displaced: of the gone",
    "gone: one goes on",
    "gone: one too many",
    "heard",
    "heard: before others of its sensor",
    "heard: joins",
    "held again",
    "held again before later ones",
    "held again, not written",
    "held back after a flap",
    "held to its end",
    "join",
    "known by a report while it waits",
    "joined by others, not displaced",
    "link full",
    "link full: one displaced",
    "new turn",
    "no more retries",
    "not two in a row",
    "offline",
    "overtakes one that is behind",
    "place kept",
    "place kept for people",
    "place kept in the buffer",
    "poll not asked again",
    "poll or rule joined",
    "raised before a person's",
    "recent",
    "sensor full",
    "sensor full: one displaced",
    "settled by a line",
    "slip: late",
    "slip: second",
    "slip: unasked",
    "timeout",
    "toggle asked again",
]


class Ask(NamedTuple):
    """
    Somebody asks.
    """

    link: int
    question: Question
    limit: float
    max_age: float | None
    connection: int
    priority: Priority
    when_heard: bool


class HangUp(NamedTuple):
    """
    A connection goes, and another one comes.
    """

    connection: int
    host: str


class Line(NamedTuple):
    """
    One line of a device.

    Attributes:
        kind: `answer`, `wrong` (an answer with another command) or `unasked`.
        pick: Which message is answered, 0 the newest; which sensor speaks unasked.
        command: What a line says that is no plain answer; None for nothing.
        says_msg: Whether an answer tells its command.
    """

    kind: str
    pick: int
    command: str | None
    says_msg: bool


class Chunk(NamedTuple):
    """
    Some lines come in at once.
    """

    link: int
    lines: list[Line]


class Wait(NamedTuple):
    """
    Time goes by; the timers may be late.
    """

    ticks: int
    timer: bool


class Flip(NamedTuple):
    """
    A link comes or goes.
    """

    link: int


def chunk_of(world: World, chunk: Chunk) -> list[tuple[Report, Message | None]]:
    """
    Spell the lines of a chunk, each with the message that it belongs to.
    """
    spelled: list[tuple[Report, Message | None]] = []
    messages = world.links[chunk.link].messages
    for line in chunk.lines:
        if line.kind == "unasked":
            spelled.append((world.report(SENSORS[line.pick % len(SENSORS)], line.command, None), None))
        elif messages:
            message = messages[-1 - line.pick % len(messages)]
            wrong = line.command if line.kind == "wrong" else None
            spelled.append((world.spell(message, line.says_msg, wrong), message))
    return spelled


class Limits(NamedTuple):
    """
    How many questions may wait for a sensor and on a link, and how many askers there may be in all and of one address
    whose connections are gone.
    """

    sensor: int
    link: int
    askers: int
    gone: int


def live(
    rules: list[Rules],
    firmware: list[Firmware],
    limits: Limits,
    up: bool,
    events: list[Ask | HangUp | Chunk | Wait | Flip],
) -> None:
    """
    Run a world of drawn events to its end.
    """
    unknown = set(SENSORS[1:])
    books = [LinkBook(f"tty{n}", each, Counter(), 0, unknown) for n, each in enumerate(rules)]
    for book in books:
        book.pending.queues.sensor_limit, book.pending.queues.link_limit = limits.sensor, limits.link
    connections = [Connection(Holder("10.0.0.1")) for _ in range(3)]
    world = World(books, dict(zip(SENSORS, firmware, strict=True)), connections, limits.askers, limits.gone)
    for book in books if up else []:
        book.link_up(0.0)
    for event in events:
        if isinstance(event, Wait):
            world.wait(event.ticks * TICK, event.timer)
            continue
        if isinstance(event, HangUp):
            world.hang_up(event.connection, event.host)
            continue
        link = event.link % len(books)
        book = books[link]
        connected = book.state in ("settling", "online")
        if isinstance(event, Ask):
            world.ask(link, *event[1:])
        elif isinstance(event, Chunk):
            if connected:
                world.receive(link, chunk_of(world, event._replace(link=link)))
        elif connected:
            book.link_down(world.now)
        else:
            book.link_up(world.now)
    world.finish()


# Mostly one link, one sensor and the same command with other arguments, so that there is something to confuse.
asked = st.sampled_from([*questions("20")[:3], *questions("20")[:3], *questions("20"), *questions("21")])
links = st.sampled_from([0, 0, 0, 0, 0, 1])
asks = st.builds(
    Ask,
    links,
    asked,
    st.sampled_from([30.0, 1.0, 3.0, 8.0, 60.0]),
    st.sampled_from([None, None, 4.0]),
    st.integers(0, 2),
    st.sampled_from([Priority.PERSON, *Priority]),
    st.sampled_from([False, False, False, True]),
)
hang_ups = st.builds(HangUp, st.integers(0, 2), st.sampled_from(list(NETWORKS)))
lines = st.builds(
    Line,
    st.sampled_from(["answer", "answer", "answer", "wrong", "unasked"]),
    st.sampled_from([0, 0, 0, 1, 1, 2]),
    st.sampled_from([None, "L", "J"]),
    st.sampled_from([True, True, False]),
)
chunks = st.builds(Chunk, links, st.lists(lines, min_size=1, max_size=3))
waits = st.builds(Wait, st.sampled_from([1, 4, 12, 20, 40]), st.sampled_from([True, True, False]))
flips = st.builds(Flip, links)
events = st.lists(
    st.one_of(asks, asks, asks, chunks, chunks, chunks, waits, waits, flips, hang_ups), min_size=10, max_size=50
)
limits = st.builds(
    Limits,
    st.sampled_from([64, 1, 2]),
    st.sampled_from([4096, 1, 2, 4]),
    st.sampled_from([20_000, 2, 5]),
    st.sampled_from([1024, 1, 2]),
)
rules = st.builds(
    Rules,
    window=st.integers(1, 4),
    buffer=st.sampled_from([0, 0, 40, 63, 90, 140]),
    tags=st.sampled_from([False, False, True]),
    settle=st.sampled_from([0.0, 2.0, None]),
    patience=st.sampled_from([None, 1.0, 5.0]),
    once=st.just(frozenset([TOGGLE])),
    retries=st.sampled_from([{}, {"L": 1, TOGGLE: 2}]),
    fields=st.sampled_from([{}, {"K": frozenset(["HUM"])}]),
)
firmwares = st.lists(
    st.builds(Firmware, tag=st.booleans(), bare=st.booleans(), shouts=st.booleans()), min_size=2, max_size=2
)


class TestWorlds(SynchronousTestCase):
    """
    Protocol §4 in every order of events.
    """

    def test_random_worlds(self) -> None:
        """
        In thousands of random worlds every rule holds; and what is dangerous did happen in them.
        """
        seen: Counter[str] = Counter()
        for seed in range(FIRST_SEED, FIRST_SEED + WORLDS):
            try:
                random_world(seed, seen)
            except Exception as error:
                error.add_note(f"in the world of seed {seed}")
                raise
        if WORLDS >= 500:
            self.assertEqual([what for what in INTERESTING if seen[what] < 20], [])

    def test_drawn_worlds(self) -> None:
        """
        In whatever world hypothesis draws every rule holds.
        """

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(rules, min_size=1, max_size=2), firmwares, limits, st.sampled_from([True, True, False]), events)
        def check(
            rules: list[Rules],
            firmware: list[Firmware],
            limits: Limits,
            up: bool,
            events: list[Ask | HangUp | Chunk | Wait | Flip],
        ) -> None:
            live(rules, firmware, limits, up, events)

        check()


class TestMaySlip(SynchronousTestCase):
    """
    What §4.6 permits, and only that: or the worlds would forgive too much.
    """

    def message(self, command: str = "L", **state: bool) -> Message:
        """
        Build a message to sensor 20.
        """
        message = Message(Question("20", command), None, 0.0, 5.0, 5.0)
        for name, value in state.items():
            setattr(message, name, value)
        return message

    def test_without_msg(self) -> None:
        """
        Without `MSG` an unasked, a second and a late line may slip; an answer in its time never.
        """
        report = Report("20", None, None, (("VALUE", "1"),))
        on_wire = self.message()
        cases = {
            "unasked": None,
            "second": self.message(answered=True),
            "late": self.message(forgotten=True),
            "": self.message(),
        }
        for case, label in cases.items():
            self.assertEqual(may_slip(Rules(), False, report, label, on_wire), case)
            self.assertEqual(may_slip(Rules(), True, report, label, on_wire), "")
            self.assertEqual(may_slip(Rules(tags=True), False, report, label, on_wire), "")
            self.assertEqual(may_slip(Rules(fields={"L": frozenset(["HUM"])}), False, report, label, on_wire), "")

    def test_with_msg(self) -> None:
        """
        With `MSG` they may slip only to the same command, whatever the sensor has shown.
        """
        late = self.message(forgotten=True)
        report = Report("20", "L", None, (("VALUE", "1"),))
        self.assertEqual(may_slip(Rules(), True, report, late, self.message("L")), "late")
        self.assertEqual(may_slip(Rules(), False, report, late, self.message("J")), "")

    def test_another_sensor(self) -> None:
        """
        Nothing slips to another sensor.
        """
        self.assertEqual(may_slip(Rules(), False, Report("21", "L", None, ()), None, self.message()), "")

    def test_flapped(self) -> None:
        """
        What a flap left behind is not late until its patience is over.
        """
        label = self.message(flapped=True)
        self.assertEqual(may_slip(Rules(), False, Report("20", "L", None, ()), label, self.message()), "")

    def test_a_world_fails(self) -> None:
        """
        A world in which somebody gets another's answer is a failure: the check itself works.
        """
        book = LinkBook("tty", Rules(patience=5.0), Counter())
        world = World([book], {"20": Firmware()}, [Connection(Holder("local"))])
        book.link_up(0.0)
        level, other, *_ = questions("20")
        world.ask(0, level, 1.0)
        false_label = Message(other, None, 0.0, 5.0, 5.0)
        with self.assertRaisesRegex(Violated, "another's asker"):
            world.receive(0, [(world.report("20", "L", None), false_label)])
