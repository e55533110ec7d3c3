"""
A gateway in memory that marks its answers and returns unusual values.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred

from tests.support.memory_gateway import MemoryGateway
from tests.support.reference import check_request
from usbgate.core.counts import LinkCounts
from usbgate.core.errors import Offline
from usbgate.core.holders import Holder
from usbgate.core.model import Answer, DeviceWarning, Reading, Request
from usbgate.core.settings import SensorSettings
from usbgate.gateway.interfaces import DeviceSummary, Lease, MalformedLine, SensorSummary
from usbgate.testing import AT, reading


class MarkedGateway(MemoryGateway):
    """
    Marks each answer, so that a test can see who received it, and returns unusual values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: deque[int] = deque()  # requests that have not ended
        self.answered: set[str] = set()  # marks
        self.failed: set[str] = set()  # marks
        self.histories: deque[Deferred[list[Reading]]] = deque()
        self.lent = 0
        self.readings = [reading(), reading("a_B:1", field="OK"), reading(1e22, sensor="é")]
        self.known_sensors = [SensorSummary("20", "leonardo", ["A", "B"], AT, 3)]
        self.presented = {"20": SensorSettings(name="the_name:1_X:2")}
        warnings = [DeviceWarning("port shared", "x", "two\nlines")]
        self.known_devices = [DeviceSummary("leonardo", "/dev/a_b:c", "online", AT, LinkCounts(3), warnings)]
        self.kept_malformed = [MalformedLine(AT, "leonardo", "no key", b"_\x00:")]

    def ask(self, request: Request, holder: Holder) -> Deferred[Answer]:
        """
        Check that the request can be written to a device, and accept it.
        """
        check_request(request)
        self.open.append(len(self.asked))
        return super().ask(request, holder)

    def history(
        self, sensor: str, field: str | None, since: int | None, limit: int, raw: bool = False
    ) -> Deferred[list[Reading]]:
        historic = super().history(sensor, field, since, limit, raw)
        self.histories.append(historic)
        return historic

    def end_one(self, newest: bool, fails: bool) -> None:
        """
        Answer or fail one open request, if there is any.
        """
        if not self.open:
            return
        index = self.open.pop() if newest else self.open.popleft()
        mark = f"M{index}"
        if fails:
            self.failed.add(mark)
            self.fail(index, Offline(mark))
        else:
            self.answered.add(mark)
            self.answer(index, ("ERROR", "1_x"), ("MARK", mark))

    def give_one(self) -> None:
        """
        Deliver one history and one lease, if they are waited for.
        """
        if self.histories:
            self.histories.popleft().callback(self.readings)
        if self.lendings:
            device, _, lending = self.lendings.pop(0)
            self.lent += 1
            lending.callback(Lease(device, "/dev/tty_x:0", self._end_lease))

    def _end_lease(self) -> None:
        self.lent -= 1
