"""
A simulated world: the whole daemon without its sockets, and its environment, all drawn from a seed.

The core, `Gateway`, `Link`, `Delivery` and the line server are real; the devices, the clients, the journal and the
database are in memory (`tests.faults.simulated`). All run on one `Clock`. The world records what is sent to the daemon
and compares it with everything that comes out: a broken promise is `Violated`.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence, Set
from math import inf
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.task import Clock

from tests.faults.simulated.database import Database, SimulatedSink
from tests.faults.simulated.device import TOGGLE, Device, Line
from tests.faults.simulated.disk import Disk, SimulatedJournal
from tests.faults.simulated.life import Life, SteppingClock, Violated, demand
from tests.faults.simulated.peer import BATH, BATH_TIMEOUT, WORDS, Asked, Peer, RecordedWatchers
from tests.faults.simulated.weather import DEEDS, FAULTS
from tests.support.access import OPEN, authority
from usbgate.core.batch import Batch
from usbgate.core.matching import PATIENCE
from usbgate.core.model import POLLER, ClockMark, Reading, RequestRecord, Row
from usbgate.core.rules import Rules
from usbgate.core.settings import SensorSettings
from usbgate.core.status import JournalStatus
from usbgate.daemon.service import Daemon
from usbgate.device.dialects.fields import Dialect
from usbgate.device.link import Link
from usbgate.gateway.gateway import Gateway
from usbgate.net.sendqueue import STUCK_AFTER
from usbgate.server.factory import ClientFactory, Clients
from usbgate.server.protocol import ClientProtocol
from usbgate.store.delivery import Delivery
from usbgate.testing import rows_of

PEERS = 6  # at a time
STOP_LIMIT = 5.0  # seconds in which the daemon ends
HEALING = 150.0  # seconds without a fault after which all must be well: longer than the longest back-off and limit


class World:
    """
    A world, determined by its seed.
    """

    def __init__(self, seed: int, seen: Counter[str], displaced: Set[str]) -> None:
        """
        Start a daemon.

        Args:
            seed: Determines everything.
            seen: Counts the interesting events, over many worlds.
            displaced: The marks of the requests that have lost their places to newcomers so far.
        """
        Violated.first = None
        self.random = random.Random(seed)
        self.seen = seen
        self.displaced = displaced
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
        self.appended: list[str] = []  # every reading that the journal took and has not given up, in order
        self.taken = 0  # readings that the journal took
        self.received: dict[tuple[str, str, str], str] = {}  # the newest of each device and field in this life
        self.events: list[str] = []  # of this life
        self.lives = 0
        self._marks = 0
        self._peers = 0
        self.running = False
        self.lost = False  # whether something was not on disk when the daemon ended
        two = self.random.random() < 0.5
        self.devices = [self._make_device("tty0", ("20", "21"))]
        if two:
            self.devices.append(self._make_device("tty1", ("30", "21") if self.random.random() < 0.3 else ("30",)))
        self.sensors = ["20", "20", "20", "21", "21", "30"]
        self.settings = {BATH: SensorSettings(name="bath", timeout=BATH_TIMEOUT)}
        if self.random.random() < 0.3:
            self.settings["20"] = SensorSettings(device="tty0", poll=3.0)
        self.start()

    def _make_device(self, name: str, sensors: Sequence[str]) -> Device:
        rules = Rules(
            window=self.random.randint(1, 4),
            buffer=self.random.choice([0, 63]),
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
        Return whether a fault happens now.
        """
        return self.random.random() < self.faults.get(fault, 0.0)

    def mark(self) -> str:
        """
        Return a new number.
        """
        self._marks += 1
        return str(self._marks)

    def note(self, text: str) -> None:
        """
        Add a line to the trace.
        """
        self.trace.append(f"{self.now:.3f} life {self.lives}: {text}")

    # The daemon.

    def start(self) -> None:
        """
        Start the daemon on what the last one left: the tree of services of `usbgate.assembly.daemon`.
        """
        self.lives += 1
        self.note("starts")
        self.life = life = Life(self.lives, self.clock)
        self.received, self.events = {}, []
        self.peers, self.watching = {}, {}
        self.gateway = Gateway(
            life, self.time, "J", self.settings, self.random.getrandbits(32), chance=self.random.random
        )
        self.journal = SimulatedJournal(
            life, self.disk, self.gateway.hold_devices, self._appended, self._given_up, self._is_safe
        )
        self.sink = SimulatedSink(life, self.database)
        self.delivery = Delivery(life, self.journal, self.sink, self.gateway.restore, self.random.random)
        self.gateway.store_in(self.journal, self.sink, lambda: (self.delivery.status(), JournalStatus()))
        self.factory = ClientFactory(life, self.gateway, authority(life), wall=self.time.wall, door=OPEN)
        self.factory.subscribe_lines(self._event)
        self.factory.subscribers = watchers = RecordedWatchers(life, self.factory.subscribe_lines)
        watchers.world = self
        self.daemon = Daemon()
        self.journal.setServiceParent(self.daemon)
        neighbours = MultiService()
        self.delivery.setServiceParent(neighbours)
        Clients(self.factory).setServiceParent(neighbours)
        self.links: list[Link] = []
        for device in self.devices:
            device.malformed = 0
            dialect = Dialect()
            dialect.tags = device.rules.tags
            link = Link(life, device, device.name, device.name, dialect, lambda failures: 0.3)
            self.gateway.add_link(link, device.rules)
            link.setServiceParent(neighbours)
            self.links.append(link)
        neighbours.setServiceParent(self.daemon)
        self.gateway.setServiceParent(self.daemon)
        self.running = True
        self.daemon.startService()

    def _after(self) -> None:
        # After every step: a crash is noticed here, and what was raised where somebody caught it.
        if Violated.first is not None:
            raise Violated.first
        if self.running and not self.life.alive:
            self.note("CRASHED")
            self.seen["crashes"] += 1
            self.running = False
            self.lost = True
            self.life.end()
            for peer in self.peers.values():
                peer.left = True
            self.clock.callLater(self.random.choice([0.0, 0.5, 20.0]), self.start)

    def stop(self) -> bool:
        """
        End the daemon as SIGTERM does.

        Returns:
            Whether it came to its end; else it crashed on the way.
        """
        self.note("is stopped")
        self.seen["stops"] += 1
        ended: list[None] = []
        life, peers = self.life, list(self.peers.values())
        unread = {peer: peer.unread for peer in peers}
        began = self.now
        self.running = False
        self.daemon.stopService().addCallback(ended.append)
        while not ended and self.now - began < STOP_LIMIT:
            self._step(began + STOP_LIMIT)
        if not life.alive:
            self.running = True
            self._after()
            return False
        demand(bool(ended), "it stops within 5 s")
        self.lost = self.lost or self.journal.unwritten > 0
        demand(not life.getDelayedCalls(), "no timer is left at the end", life.getDelayedCalls())
        life.end()
        for peer in peers:
            demand(not peer.transport.connected, "at the end no connection is open", peer.name)
            if not (peer.left or peer.transport.stuck or (peer.slow and peer.transport.aborted is not None)):
                for asked in peer.requests.values():
                    replied = asked.outcome is not None or (asked.echoed == inf and not asked.word)
                    demand(replied or asked.word, "whoever waits gets a reply at the end", asked)
                demand(len(peer.words) <= unread[peer], "words are answered at the end", peer.words)
            for asked in peer.requests.values():
                # A client that did not read may have missed the reply about a limit.
                unclear = asked.outcome is None and peer.slow
                if asked.echoed < inf and asked.outcome != "limit" and not unclear:
                    demand(asked.dropped or len(asked.recorded) == 1, "every echoed request has one row", asked)
        return True

    # What is compared at once.

    def _event(self, sensor: str | None, line: str) -> None:
        self.events.append(line)
        for protocol, sensors in self.watching.items():
            if sensor is None or not sensors or sensor in sensors:
                self.peers[protocol].expected.append(line)

    def _appended(self, readings: Sequence[Reading], requests: Sequence[RequestRecord]) -> None:
        self.appended += [name_of(r) for r in readings]
        self.taken += len(readings)
        for device in self.devices:
            for r in readings:
                if r.device == device.name and r.command is not None:
                    device.asked[r.sensor].answered = True
        for record in requests:
            if record.client == POLLER:
                self.seen["row of a poll"] += 1
                continue
            asked = self.asked[record.origin]
            asked.recorded.append(record.outcome)
            demand(len(asked.recorded) == 1, "a request has one row", asked)
            question = (record.sensor, record.command, record.arguments)
            arguments = "_".join(f"{key}:{value}" for key, value in asked.arguments) or None
            demand(question == (asked.sensor, asked.command, arguments), "a row has what was asked", record, asked)
            self.seen["row " + record.outcome] += 1
            if record.outcome == "busy":
                demand(asked.command != TOGGLE or not asked.written, "§4.4 busy: the device never saw it", asked)

    def _given_up(self, batch: Batch) -> None:
        for row in rows_of(batch).values():
            self.seen["given up"] += 1
            if isinstance(row, Reading):
                self.appended.remove(name_of(row))
            elif isinstance(row, RequestRecord) and row.client != POLLER:
                self.asked[row.origin].dropped = True

    def _is_safe(self, n: int) -> bool:
        return n in self.database.rows or n in self.disk.rejected

    def deliver(self, device: Device, lines: Sequence[Line], read: Callable[[], None]) -> None:
        """
        Let the daemon read a chunk from a device; check at once that everything goes where it belongs.
        """
        values = [(key, text, line) for line in lines for key, text in line.values]
        reports = [line for line in lines if line.values]
        demand(not self.journal.held, "nothing is read while the journal is full", device.name)
        life, taken, events = self.life, self.taken, len(self.events)
        device.asked = {**device.newest}  # the next messages are written before the readings are recorded
        for line in lines:
            self.note(f"{device.name} says {line.kind} {line.sensor} {line.values}")
            if line.command is not None and not line.values:  # an acknowledgement leaves no reading as evidence
                newest = device.newest[line.sensor]
                newest.answered = newest.answered or newest.command == line.command
        read()
        if not life.alive:
            return
        names = [f"{key}:{text}" for key, text, _ in values]
        tail = self.appended[len(self.appended) - len(names) :]  # older ones can have been given up meanwhile
        demand(
            self.taken - taken == len(names) and tail == names,
            "every reading goes to the journal, once, at once",
            names,
        )
        for key, text, line in values:
            self.received[device.name, line.sensor, key] = text
        published = [event for event in self.events[events:] if event.startswith("EVENT:reading_")]
        demand(len(published) == len(reports), "every report is an event", published, names)
        for event, line in zip(published, reports, strict=True):
            demand(f"_ID:{line.sensor}_VALUE:{line.values[0][1]}_" in event, "events have what was read", event)
        link = next(link for link in self.links if link.name == device.name)
        counted = link.counts.malformed + link.counts.partial
        demand(counted == device.malformed, "malformed lines are counted", counted, device.malformed)

    def check_answer(self, asked: Asked, fields: dict[str, str]) -> None:
        """
        Check that an answer belongs to the question, as far as protocol §4.6 guarantees it.
        """
        demand(fields["ID"] == asked.sensor, "an answer is of the sensor that was asked", fields, asked)
        demand(fields.get("MSG") == asked.command, "an answer names its command", fields, asked)
        if "VALUE" not in fields:
            demand(asked.command == "ON", "only a command is acknowledged", fields, asked)
            return
        line = self.said[fields["VALUE"]]
        rules, label = line.device.rules, line.label
        demand(line.sensor == asked.sensor and line.life is self.life, "an answer is what was read", fields)
        if label is not None and (label.sensor, label.command, label.arguments) == (
            asked.sensor, asked.command, asked.arguments
        ):  # fmt: skip
            self.seen["answers"] += 1
            return
        demand(not rules.tags, "with tags nobody gets another's answer", fields, asked, label)
        demand(line.command in (None, asked.command), "with MSG nobody gets another command's answer", fields, asked)
        late = (
            label is None
            or label.life is not line.life
            or line.received - label.written >= (rules.patience or PATIENCE)
        )
        second = label is not None and label.answered
        demand(late or second, "§4.6 nobody gets another's answer in its time", fields, asked, label)
        self.seen["slips"] += 1

    def check_last(self) -> None:
        """
        Check that `last` returns the newest reading that each device sent in this life, or else the newest in the
        database.

        Until all that an earlier life left is stored, and read back, that may be an older one, or none.
        """
        stored = {(r.sensor, r.field): name_of(r) for r in self.database.readings()}
        ever = {(r.sensor, r.field, name_of(r)) for r in self.database.readings()}
        restored = self.delivery.restoration.complete
        found = set()
        received = {(sensor, field) for _, sensor, field in self.received}
        for reading in self.gateway.queries.last(None, None):
            key = reading.sensor, reading.field
            name = name_of(reading)
            found.add(key)
            text = self.received.get((reading.device, *key))
            if text is not None:
                demand(name == f"{reading.field}:{text}", "`last` is the newest", reading, text)
            else:
                demand((*key, name) in ever, "`last` is what was stored", reading)
                if restored and key not in received:
                    self.seen["restored"] += 1
                    demand(name == stored[key], "`last` is the newest that was stored", reading, stored[key])
        known = received | (stored.keys() if restored else set())
        demand(found >= known, "`last` knows all that was heard, and all that was stored", found, known)

    # Time.

    def _step(self, end: float) -> None:
        # To the next timer, or the end.
        due = min((call.getTime() for call in self.clock.getDelayedCalls()), default=inf)
        self.clock.advance(max(0.0, min(due, end) - self.now))
        self._after()

    def run(self, seconds: float) -> None:
        """
        Let time pass, and fire all timers when they are due.
        """
        end = self.now + seconds
        while True:
            due = min((call.getTime() for call in self.clock.getDelayedCalls()), default=inf)
            self._step(end)
            if due > end:
                break

    # What happens.

    def live(self, events: int) -> None:
        """
        Run a number of events; then end all faults and check that everything is well.
        """
        for _ in range(events):
            if self.running:
                self._happen()
                self._after()
            self.run(self.random.choice([0.0, 0.0, 0.02, 0.1, 0.5, 2.0]) if self.random.random() < 0.97 else 40.0)
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
            for _ in range(self.random.choice([1, 2, 4, 12])):
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
        End all faults, for long enough.
        """
        self.note("heals")
        self.faults = {}
        self._heal()
        self.run(20.0)  # one that is started only now is healed as well
        self._heal()
        there = [peer for peer in self.peers.values() if peer.transport.open]
        unread = [peer for peer in there if peer.transport.stuck and peer.protocol.unsent]
        self.run(STUCK_AFTER + 20)
        for peer in unread:
            demand(not peer.transport.open, "who reads nothing for 60 s is dropped", peer.name)
        for peer in self.peers.values():
            peer.stick(False)
        self.settings.pop("20", None)  # while there are polls, there is no end
        self.gateway.sensors_changed()
        self.run(HEALING)

    def _heal(self) -> None:
        self.life.fuse = None
        self.database.away = None
        self.database.hangs = self.disk.refuses = False
        self.database.loses_confirmation = 0
        self.database.latency = self.disk.latency = 0.01
        self.database.readers = True
        for device in self.devices:
            device.plugged = True
            device.stick(False)

    def finish(self) -> None:
        """
        Check that every promise was kept, and end.
        """
        demand(self.running, "it runs")
        demand(self.delivery.restoration.complete, "what was stored is restored")
        self.check_last()
        demand(self.journal.backlog == 0, "all that waits is stored", self.journal.backlog, self.delivery.status())
        for device, state in zip(self.devices, self.gateway.queries.devices(), strict=True):
            demand(state.state == "online", "a device is found again", device.name, state)
        last = Peer(self, 0)
        last.original = False
        answers = [last.ask_plainly(sensor, device.name) for device in self.devices for sensor in device.sensors]
        self.run(60.0)
        for asked in answers:
            demand(asked.outcome == "answered", "when all is well, whoever asks is answered", asked)
        for peer in self.peers.values():
            self._check_peer(peer)
            if peer.half_closed:  # one that watches is looked after by a timer for as long as it is there
                peer.hang_up()
        self._check_memory()
        self.stop()
        self._check_rows()

    def _check_peer(self, peer: Peer) -> None:
        if peer.left:
            return
        if peer.transport.aborted is not None:
            self.seen["dropped for not reading"] += 1
            waited = peer.transport.aborted - peer.stuck_since
            # What was written just before it got stuck was not taken then, either.
            demand(
                waited >= STUCK_AFTER - 0.5, "who reads nothing is dropped after 60 s, nobody else", peer.name, waited
            )
            return
        for asked in peer.requests.values():
            demand(asked.outcome is not None, "every request ends", asked)
        demand(not peer.words, "every word is answered", peer.words)
        demand(
            peer.events == len(peer.expected), "a watcher gets every event or an exact count", peer.name, peer.dropped
        )
        stays = not peer.half_closed or peer.protocol in self.watching
        demand(peer.transport.open == stays, "who is there stays, who half-closed is closed at the end", peer.name)

    def _check_memory(self) -> None:
        for link in self.links:
            listener: Any = link.listener
            pending = listener.route.pending
            demand(
                pending.idle and pending.queues.in_flight == 0 and pending.deadline == inf,
                "no request is left",
                link.name,
            )
        demand(not self.life.getDelayedCalls(), "no timer is left", self.life.getDelayedCalls())
        here = {protocol for protocol, peer in self.peers.items() if peer.transport.open}
        demand(self.factory.connections == here, "connections are forgotten", self.factory.connections, here)
        for protocol in here:
            demand(protocol.requests.in_flight == 0, "no request is in flight", protocol.requests.in_flight)
            demand(protocol.unsent == 0, "all was sent", protocol.unsent)
        watchers = self.factory.subscribers
        subscribed = {protocol for protocol in here if protocol.console in watchers}
        demand(subscribed == self.watching.keys(), "who watches is known", subscribed)
        demand(len(watchers) == len(subscribed), "who is gone does not watch", here, self.watching)

    def _check_rows(self) -> None:
        ever, rows, rejected = self.disk.ever, self.database.rows, self.disk.rejected
        demand(not rows.keys() & rejected.keys(), "stored or set aside, not both", rows.keys() & rejected.keys())
        demand({**rows, **rejected} == ever, "all that was in the journal is stored, once", ever.keys() - rows.keys())
        self.seen["rows"] += len(rows)
        self.seen["rejected"] += len(rejected)
        self.seen["rows that came again"] += self.database.repeated
        self._check_marks(ever)
        names = [name_of(row) for _, row in sorted(ever.items()) if isinstance(row, Reading)]
        rest = iter(self.appended)
        demand(all(name in rest for name in names), "readings are in the order in which they were read", names)
        demand(len(set(names)) == len(names), "no reading is there twice", names)
        if not self.lost:
            demand(names == self.appended, "nothing is lost", set(self.appended) - set(names))
        requests = [row for row in ever.values() if isinstance(row, RequestRecord)]
        origins = Counter(row.origin for row in requests if row.client != POLLER)
        demand(max(origins.values(), default=1) == 1, "a request has one row", origins.most_common(3))

    def _check_marks(self, ever: Mapping[int, Row]) -> None:
        # Between two marks the clock went evenly, and was right or was not; so the mark tells when a reading was taken.
        # Where numbers are missing a mark may be among what was given up.
        mark: ClockMark | None = None
        before = 0
        for n, row in sorted(ever.items()):
            if isinstance(row, ClockMark):
                mark = row
                self.seen["marks"] += 1
            elif n - before > 2:  # as usbgate.cli.correct_clock has it
                mark = None
            before = n
            if mark is None:
                demand(n > 1, "the first row is a mark", row)
                continue
            demand(row.clock == mark.clock, "a row is as right as the mark before it", row, mark)
            if isinstance(row, Reading) and row.value is not None:
                line = self.said[format(row.value, ".0f")]
                taken = mark.uptime + (row.at - mark.at) / 1000
                demand(
                    abs(taken - line.received) < 0.51,
                    "the mark tells when a reading was taken",
                    row,
                    mark,
                    line.received,
                )


def name_of(reading: Reading) -> str:
    """
    Name a reading: each value is sent once.
    """
    return f"{reading.field}:{reading.text or format(reading.value or 0.0, '.0f')}"
