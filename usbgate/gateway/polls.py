"""
Questions that usbgate asks by itself, as `poll` of a sensor says (protocol §4.11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from usbgate.core.holders import Holder
from usbgate.core.messages import parse_request
from usbgate.core.model import POLLER, Answer, Priority, Question, Report, Request
from usbgate.core.settings import SensorSettings

SPREAD = 2.0  # seconds a polled sensor over which first polls, after a start or a return, are spread
JITTER = 0.1  # by which part of the interval a poll may come early, so that those of equal intervals drift apart


@dataclass(eq=False, slots=True)
class _Poll:
    """
    The polls of one sensor.

    Attributes:
        request: What is asked.
        interval: Seconds, as configured.
        period: Seconds from `last` to the next poll.
        last: When its question was answered, or a poll ended, in monotonic seconds.
        timer: For the next poll; None while it is asked, and if the device was not there when it was due.
        asking: Whether it is asked.
    """

    request: Request
    interval: float
    period: float
    last: float = -inf
    timer: IDelayedCall | None = None
    asking: bool = False


class Polls:
    """
    Asks each sensor that is to be polled, unless its question was answered within the interval; not while its device is
    not there.

    Attributes:
        sensors: The polls, by sensor.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        ask: Callable[[Request, Holder], Deferred[Answer]],
        is_online: Callable[[Request], bool],
        chance: Callable[[], float],
    ) -> None:
        """
        Args:
            reactor: The monotonic clock, and for timers.
            ask: Asks a device.
            is_online: Returns whether the device of a request can be asked, or is not known.
            chance: Returns a random number, 0 or more and below 1.
        """
        self.sensors: dict[str, _Poll] = {}
        self._reactor = reactor
        self._ask = ask
        self._is_online = is_online
        self._chance = chance
        self._holder = Holder(POLLER)

    def configure(self, settings: Mapping[str, SensorSettings], command: Callable[[str], str]) -> None:
        """
        Poll as configured from now on; a poll that has not changed goes on.

        Args:
            settings: The configured sensors, by id.
            command: Returns the command that a sensor is asked by default.
        """
        before, self.sensors = self.sensors, {}
        for sensor, about in settings.items():
            if about.poll is None:
                continue
            fields = {"MSG": command(sensor), "ID": sensor}
            request = parse_request(fields, POLLER, POLLER)._replace(priority=Priority.POLL)
            poll = before.get(sensor)
            if poll is not None and (poll.request, poll.interval) == (request, about.poll):
                self.sensors[sensor] = before.pop(sensor)
                continue
            self.sensors[sensor] = _Poll(request, about.poll, about.poll)
        for poll in before.values():
            self._cancel(poll)
        self.resume()

    def received(self, handed: Sequence[tuple[Report, Question | None]], now: float) -> None:
        """
        Record which questions were answered, whoever asked.

        Args:
            handed: Reports, each with the question that it answered.
            now: Monotonic seconds.
        """
        for report, question in handed:
            poll = self.sensors.get(report.sensor)
            if poll is None:
                continue
            if question == poll.request.question or report.command == poll.request.question.command:
                poll.last = now

    def resume(self) -> None:
        """
        Poll what is new, and what was given up until a device is back.
        """
        for poll in self.sensors.values():
            if poll.timer is None and not poll.asking:
                self._call_later(poll, self._chance() * min(poll.interval, SPREAD * len(self.sensors)))

    def stop(self) -> None:
        """
        Poll nothing any more.
        """
        stopped, self.sensors = self.sensors, {}
        for poll in stopped.values():
            self._cancel(poll)

    def _call_later(self, poll: _Poll, delay: float) -> None:
        poll.timer = self._reactor.callLater(delay, self._due, poll)

    def _cancel(self, poll: _Poll) -> None:
        if poll.timer is not None:
            poll.timer.cancel()
            poll.timer = None

    def _due(self, poll: _Poll) -> None:
        poll.timer = None
        wait = poll.last + poll.period - self._reactor.seconds()
        if wait > 0:
            self._call_later(poll, wait)
        elif self._is_online(poll.request):
            poll.asking = True
            self._ask(poll.request, self._holder).addBoth(partial(self._asked, poll))

    def _asked(self, poll: _Poll, outcome: object) -> None:
        # However it ended, the gateway has recorded it. Without its device, it is asked when that is back.
        poll.asking = False
        if self.sensors.get(poll.request.question.sensor) is poll and self._is_online(poll.request):
            poll.last = self._reactor.seconds()
            poll.period = poll.interval * (1 - JITTER * self._chance())
            self._call_later(poll, poll.period)
