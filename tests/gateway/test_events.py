"""
What the gateway tells faces that want more than lines: events as values, totals, what the configuration says.
"""

from __future__ import annotations

from math import inf

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.gateway import GatewayCase
from usbgate.core.errors import Failed, Unknown
from usbgate.core.latencies import LatencyHistogram
from usbgate.core.model import (
    Bucket,
    DeviceEvent,
    Event,
    Report,
    ReportEvent,
    Selection,
    StoredReading,
    StoredRequest,
    StoreEvent,
)
from usbgate.gateway.interfaces import Presentation
from usbgate.gateway.routing import SensorRules
from usbgate.store.interfaces import IArchive, SinkUnavailable


@implementer(IArchive)
class MemoryArchive:
    """
    Knows where things are, and not what they are; or nothing.
    """

    away = False

    def extent(self, selection: Selection, limit: int | None) -> Deferred[tuple[int, int] | None]:
        """
        See `IArchive`.
        """
        return fail(SinkUnavailable("no route")) if self.away else succeed((1, 9))

    def page(self, selection: Selection, first: int, last: int, limit: int) -> Deferred[list[StoredReading]]:
        """
        See `IArchive`.
        """
        return succeed([])

    def buckets(self, selection: Selection, width: int, limit: int) -> Deferred[list[Bucket]]:
        """
        See `IArchive`.
        """
        return succeed([])

    def requests(self, sensor: str | None, limit: int) -> Deferred[list[StoredRequest]]:
        """
        See `IArchive`.
        """
        return succeed([])


class EventTests(GatewayCase):
    """
    Events as values.
    """

    sensor_rules = {"2": SensorRules(name="smoke", device="leonardo")}  # noqa: RUF012  # only read

    def setUp(self) -> None:
        """
        Hear them.
        """
        super().setUp()
        self.heard: list[Event] = []
        self.unsubscribe = self.gateway.subscribe_events(self.heard.append)

    def test_readings(self) -> None:
        """
        A report with measurements is told with what it answered, an acknowledgement is not; all of it after who asked.
        """
        self.gateway.link_up(self.link)
        del self.heard[:]
        at = self.time.wall()
        order: list[object] = []
        asked = self.ask("MSG:J_ID:20_ORIGIN:TOTO").addCallback(lambda answer: order.append(list(self.heard)))
        values = (("VALUE", "456"), ("STATE", "OK"))
        self.gateway.reports_received(
            self.link,
            [
                Report("20", None, None, values),
                Report("9", "ON", None, ()),
                Report("7", "T", None, values),
                Report("2", None, None, values),
            ],
        )
        self.successResultOf(asked)
        self.assertEqual(order, [[]])
        self.assertEqual(
            self.heard,
            [
                ReportEvent("20", "leonardo", "J", at, values),
                ReportEvent("7", "leonardo", "T", at, values),
                ReportEvent("2", "leonardo", None, at, values),
            ],
        )

    def test_devices_and_store(self) -> None:
        """
        A link's and the store's states are told when they change.
        """
        self.gateway.link_up(self.link)
        self.clock.advance(1)
        self.gateway.link_down(self.link, "unplugged")
        self.gateway.store_changed("away", 12)
        at = self.time.wall()
        self.assertEqual(
            self.heard,
            [
                DeviceEvent("leonardo", "online", at - 1000),
                DeviceEvent("leonardo", "offline", at),
                StoreEvent("away", 12),
            ],
        )

    def test_unsubscribed(self) -> None:
        """
        Who wants no more gets no more.
        """
        self.unsubscribe()
        self.gateway.link_up(self.link)
        self.hear(("20", "456"))
        self.assertEqual((self.heard, self.gateway._announcements.values.wanted), ([], False))

    def test_totals(self) -> None:
        """
        Readings, outcomes and malformed lines are counted; the time of those that a device answered, too.
        """
        self.gateway.link_up(self.link)
        asked = self.ask("MSG:J_ID:20_ORIGIN:TOTO")
        self.clock.advance(0.2)
        self.hear(("20", "456"), ("20", "457"))
        self.successResultOf(asked)
        self.gateway.line_refused(self.link, b"?", "no key: '?'")
        self.failureResultOf(self.ask("MSG:J_ID:20_ORIGIN:TOTO_DEV:none"), Unknown)
        totals = self.gateway.totals()
        self.assertEqual(totals.readings, 2)
        self.assertEqual((totals.outcomes, totals.malformed), ({"answered": 1, "unknown": 1}, {"no key": 1}))
        self.assertEqual([count for bound, count in totals.latencies if bound in (0.1, 0.25, inf)], [0, 1, 1])
        self.assertAlmostEqual(totals.latency_sum, 0.2)

    def test_presentations(self) -> None:
        """
        Sensors of the configuration are told by their names, heard of or not.
        """
        presentations = self.gateway.presentations()
        self.assertEqual(presentations, {"2": Presentation(name="smoke", device="leonardo")})

    def test_archive(self) -> None:
        """
        The archive is asked where there is one; that there is none, or that it can't be asked, is said.
        """
        archive = MemoryArchive()
        selection = Selection("20")
        failure = self.failureResultOf(self.gateway.extent(selection, None), Failed)
        self.assertIn("nothing is stored", failure.getErrorMessage())
        self.gateway.store_in(self.journal, self.journal, list, archive)
        self.assertEqual(self.successResultOf(self.gateway.extent(selection, 1)), (1, 9))
        self.assertEqual(self.successResultOf(self.gateway.page(selection, 1, 9, 5)), [])
        self.assertEqual(self.successResultOf(self.gateway.buckets(selection, 1000, 5)), [])
        self.assertEqual(self.successResultOf(self.gateway.requests(None, 5)), [])
        archive.away = True
        failure = self.failureResultOf(self.gateway.extent(selection, None), Failed)
        self.assertIn("no route", failure.getErrorMessage())


class LatencyTests(SynchronousTestCase):
    """
    A histogram.
    """

    def test_bounds(self) -> None:
        """
        Each counts where it is at most the bound, and at all that are higher.
        """
        latencies = LatencyHistogram()
        for seconds in (0.0, 0.005, 0.0051, 10.0, 1000.0):
            latencies.add(seconds)
        cumulated = dict(latencies.cumulated())
        self.assertEqual([cumulated[bound] for bound in (0.005, 0.01, 5.0, 10.0, 30.0, inf)], [2, 3, 3, 4, 4, 5])
        self.assertAlmostEqual(latencies.sum, 1010.0101)
