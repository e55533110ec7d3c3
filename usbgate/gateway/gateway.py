"""
The live way: what is read goes to the journal, to who asked, and to who watches; what is asked goes to a device.

The only one who knows both the core and the parts. `PendingRequests` decides, the gateway acts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from usbgate.core.alarms import Alarms, Change
from usbgate.core.clock import IClock
from usbgate.core.clockmarks import ClockWatch, Stamp
from usbgate.core.errors import Busy, Malformed, RequestError, Stopped, Unknown
from usbgate.core.model import Alarm, Answer, Report, Request, Row
from usbgate.core.onchange import OnChangeFilter
from usbgate.core.pending import Moves, Rules
from usbgate.core.recorder import Entry, Recorder
from usbgate.device.interfaces import IDeviceLink, ILinkListener
from usbgate.gateway.interfaces import IGateway, Lease, Presentation
from usbgate.gateway.queries import Queries
from usbgate.gateway.replies import Ending, Replies, Waiter
from usbgate.gateway.routing import Route, Routing, SensorRules
from usbgate.store.interfaces import IArchive, IHistory, IJournal

TIMEOUT = 10.0  # seconds, as in the original


@implementer(IGateway, ILinkListener)
class Gateway(Queries, Service):
    """
    What devices and clients have in common.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        clock: IClock,
        default_command: str,
        sensor_rules: Mapping[str, SensorRules],
        first_tag: int = 0,
        presentations: Mapping[str, Presentation] | None = None,
        alarms: Alarms | None = None,
    ) -> None:
        """
        Begin with no links, and nothing to store in.

        Args:
            reactor: For the one timer, and for turns to come.
            clock: For everything else.
            default_command: What `ask` means where neither the asker nor the sensor says otherwise.
            sensor_rules: The configured sensors, by id.
            first_tag: See `PendingRequests`.
            presentations: See `IGateway.presentations`; by default the names of the configured sensors.
            alarms: Minds what is an alarm; by default nothing is.
        """
        thinned = {sensor: each.store_every for sensor, each in sensor_rules.items() if each.store_every is not None}
        ledger = Recorder(
            ClockWatch(clock.boot),
            Alarms({}, str) if alarms is None else alarms,
            OnChangeFilter(thinned) if thinned else None,
        )
        switchboard = Routing(reactor, sensor_rules, ledger.sensors, self._expire, first_tag)
        super().__init__(clock, ledger, switchboard, default_command, sensor_rules, presentations)
        self._telling = Replies(reactor, self._note_late)
        self._journal: IJournal | None = None
        self._stopping = False

    def add_link(self, link: IDeviceLink, rules: Rules, warn: Callable[[], str | None] = lambda: None) -> None:
        """
        Take on a link, before it is started; its listener is this gateway.

        Args:
            link: The link.
            rules: How it is asked.
            warn: Tells what a person should know of its device (see `DeviceSummary.warning`).
        """
        self._switchboard.add(link, rules, warn, self._clock.wall())

    def store_in(
        self,
        journal: IJournal,
        history: IHistory,
        status: Callable[[], list[Mapping[str, str]]],
        archive: IArchive | None = None,
    ) -> None:
        """
        Store from now on.

        Args:
            journal: Takes readings and requests.
            history: Gives them back.
            status: Tells the state of both, each mapping as one line of `status`.
            archive: Gives them back page by page; None where it can't.
        """
        self._journal = journal
        self._history = history
        self._archive = archive
        self._store_status = status

    def stopService(self) -> None:
        """
        Fail who waits with `Stopped`, and everybody who asks from now on.
        """
        super().stopService()
        self._stopping = True
        self._append([self._ledger.end_thinning()])
        self._telling.stop()
        self._switchboard.stop()
        for line in self._switchboard.lines.values():
            self._act(line, line.pending.stop(self._clock.monotonic()))

    def hold_devices(self, hold: bool) -> None:
        """
        Read nothing from any device while the journal can't keep up (`hold`), and again afterwards.
        """
        for line in self._switchboard.lines.values():
            if hold:
                line.link.pause()
            else:
                line.link.resume()

    async def restore(self) -> None:
        """
        Load the newest readings from the database, for `last` and for routing, and the alarms that are open.

        Raises:
            SinkUnavailable: The database went away again.
        """
        if self._history is not None:
            self._ledger.sensors.restore(await self._history.latest())
            stored = await self._history.alarms()
            stamp = self._stamp()
            self._take_changes(self._ledger.alarms.restore(stored, stamp.at, stamp.trusted), stamp)

    # What faces ask for (IGateway); the rest of it is in `Enquiries`.

    def ask(self, request: Request) -> Deferred[Answer]:
        """
        Ask a device (see `IGateway.ask`).
        """
        now = self._clock.monotonic()
        waiter = Waiter(request, now, Deferred())
        line: Route | None = None
        try:
            if self._stopping:
                raise Stopped
            line = self._switchboard.route(request)
            if request.size > line.room:
                raise Malformed("line too long", "with what usbgate adds for the device")
        except RequestError as error:
            device = None if line is None else line.link.name
            endings = self._telling.sift([(waiter, error)], device, now)
            self._note_late(endings, device, now)
            self._telling.tell(endings)
            return waiter.deferred
        timeout = request.timeout
        if timeout is None:
            rules = self._sensor_rules.get(request.question.sensor)
            timeout = TIMEOUT if rules is None or rules.timeout is None else rules.timeout
        moves = line.pending.ask(request, waiter, timeout, now)
        if moves:
            self._act(line, moves)
        else:  # as mostly where many ask: it waits for its turn, or for an answer that is on its way
            self._switchboard.arm(now)
        return waiter.deferred

    def acknowledge(self, alarm: str, by: str) -> Deferred[Alarm]:
        """
        Record that somebody has seen an alarm (see `IGateway.acknowledge`).
        """
        if self._stopping:
            return fail(Stopped())
        stamp = self._stamp()
        try:
            found, changes = self._ledger.alarms.acknowledge(alarm, by, stamp.at, stamp.trusted)
        except Unknown as error:
            return fail(error)
        self._take_changes(changes, stamp)
        return succeed(found)

    def lend(self, device: str, client: str) -> Deferred[Lease]:
        """
        Let go of a device (see `IGateway.lend`).
        """
        line = self._switchboard.lines.get(device)
        if self._stopping:
            return fail(Stopped())
        if line is None:
            return fail(Unknown(f"no such device: {device}"))
        if line.lent is not None:
            return fail(Busy(f"{device} is lent already"))
        line.lent = mark = object()
        self.log.info("{device} is lent to {client}", device=device, client=client)
        released = line.link.release()
        self._act(line, line.pending.link_down(self._clock.monotonic()))
        return released.addCallback(lambda port: Lease(device, port, partial(self._end_lease, line, mark)))

    def _end_lease(self, line: Route, mark: object) -> None:
        if line.lent is mark and not self._stopping:
            line.lent = None
            self.log.info("{device} is taken back", device=line.link.name)
            self._tell_state(line)
            line.link.take_back()

    def store_changed(self, state: str, backlog: int) -> None:
        """
        Tell who watches that the store's state is another one.
        """
        self._announcements.store(state, backlog)

    # What links tell (ILinkListener).

    def link_up(self, link: IDeviceLink) -> None:
        """
        The device was opened (see `ILinkListener.link_up`).
        """
        line = self._switchboard.lines[link.name]
        line.silent = False
        self._act(line, line.pending.link_up(self._clock.monotonic()))

    def link_down(self, link: IDeviceLink, reason: str) -> None:
        """
        The device went away (see `ILinkListener.link_down`).
        """
        line = self._switchboard.lines[link.name]
        self._act(line, line.pending.link_down(self._clock.monotonic()))

    def link_full(self, link: IDeviceLink) -> None:
        """
        The device takes nothing for now (see `ILinkListener.link_full`).
        """
        self._switchboard.lines[link.name].pending.hold()

    def link_drained(self, link: IDeviceLink) -> None:
        """
        The device takes what is written again (see `ILinkListener.link_drained`).
        """
        line = self._switchboard.lines[link.name]
        self._act(line, line.pending.release(self._clock.monotonic()))

    def link_silent(self, link: IDeviceLink) -> None:
        """
        The device says nothing (see `ILinkListener.link_silent`).
        """
        line = self._switchboard.lines[link.name]
        line.silent = True
        self._tell_state(line)

    def link_heard(self, link: IDeviceLink) -> None:
        """
        The device speaks again (see `ILinkListener.link_heard`).
        """
        line = self._switchboard.lines[link.name]
        line.silent = False
        self._tell_state(line)

    def line_refused(self, link: IDeviceLink, line: bytes, reason: str) -> None:
        """
        A line of a device was malformed (see `ILinkListener.line_refused`).
        """
        self._noise.add(link.name, line, reason)

    def reports_received(self, link: IDeviceLink, reports: Sequence[Report]) -> None:
        """
        A chunk was read (see `ILinkListener.reports_received`).
        """
        line = self._switchboard.lines[link.name]
        stamp = self._stamp()
        self._act(line, line.pending.received(reports, self._clock.monotonic(), stamp.at), stamp)

    # How it is done.

    def _stamp(self) -> Stamp:
        # Trust first: a clock that is put right in between then counts as wrong for a moment, not the other way round.
        trusted = self._clock.trusted()
        return Stamp(self._clock.wall(), self._clock.uptime(), trusted)

    def _act(self, line: Route, moves: Moves[Waiter], stamp: Stamp | None = None) -> None:
        # The one place where decisions become deeds. Everything is journalled before anybody is told, and the device
        # has its next message before that, which it can work on meanwhile.
        now = self._clock.monotonic()
        device = line.link.name
        changes: Sequence[Change] = ()
        endings = self._telling.sift([*moves.answered, *moves.failed], device, now)
        if moves.handed or endings:
            stamp = stamp or self._stamp()
            changes = self._journalled(self._ledger.enter(device, moves.handed, endings, stamp, now, now))
        if moves.send:
            line.link.send(moves.send)
        self._telling.tell(endings)
        self._switchboard.arm(now)
        if stamp is not None:
            self._announcements.readings(device, moves.handed, stamp.at)
        self._announcements.alarms(changes)
        self._tell_state(line)

    def _note_late(self, endings: Sequence[Ending], device: str | None, decided: float) -> None:
        # What was not decided in `_act`, or some turns ago.
        self._journalled(self._ledger.enter(device, (), endings, self._stamp(), self._clock.monotonic(), decided))

    def _take_changes(self, changes: Sequence[Change], stamp: Stamp) -> None:
        self._announcements.alarms(self._journalled(self._ledger.enter_changes(changes, stamp)))

    def _journalled(self, entry: Entry) -> Sequence[Change]:
        self._append(entry.runs)
        for sensor, device, before in entry.contested:
            self.log.warn(
                "sensor {sensor} is heard by {device} and by {before}: readings are stored under each",
                sensor=sensor,
                device=device,
                before=before,
            )
        return entry.changes

    def _append(self, runs: Sequence[Sequence[Row]]) -> None:
        if self._journal is not None and any(runs):
            self._journal.append(*runs)

    def _tell_state(self, line: Route) -> None:
        if line.look(self._clock.wall):
            self._announcements.device(line.link.name, line.state, line.since)

    def _expire(self) -> None:
        for line in self._switchboard.lines.values():
            self._act(line, line.pending.expire(self._clock.monotonic()))
