"""
What the gateway tells faces that want more than lines: events as values, totals, what the configuration says.
"""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from tests.support.gateway import GatewayCase
from usbgate.core.errors import StoreUnavailable, Unknown
from usbgate.core.latencies import LatencyHistogram
from usbgate.core.model import (
    Alarm,
    DeviceEvent,
    Event,
    Report,
    ReportEvent,
    Selection,
    StoredAlarm,
    StoredState,
    StoreEvent,
)
from usbgate.core.settings import SensorSettings
from usbgate.gateway.gateway import Gateway
from usbgate.testing import AT, reading, request_record


class EventTests(GatewayCase):
    """
    Events as values.
    """

    sensor_settings = {"2": SensorSettings(name="smoke", device="leonardo")}  # noqa: RUF012  # only read

    def setUp(self) -> None:
        """
        Hear them.
        """
        super().setUp()
        self.received: list[Event] = []
        self.unsubscribe = self.gateway.subscribe(self.received.append)

    def test_readings(self) -> None:
        """
        A report with measurements is told with what it answered, an acknowledgement is not; all of it after who asked.
        """
        self.link.listener.link_up()
        del self.received[:]
        at = self.time.wall()
        order: list[object] = []
        asked = self.ask("MSG:J_ID:20_ORIGIN:TOTO").addCallback(lambda answer: order.append(list(self.received)))
        values = (("VALUE", "456"), ("STATE", "OK"))
        self.link.listener.reports_received(
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
            self.received,
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
        self.link.listener.link_up()
        self.clock.advance(1)
        self.link.listener.link_down("unplugged")
        self.gateway.store_changed("away", 12)
        at = self.time.wall()
        self.assertEqual(
            self.received,
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
        self.link.listener.link_up()
        self.receive(("20", "456"))
        self.assertEqual(self.received, [])

    def test_totals(self) -> None:
        """
        Readings, outcomes and malformed lines are counted; the time of those that a device answered, too.
        """
        self.link.listener.link_up()
        asked = self.ask("MSG:J_ID:20_ORIGIN:TOTO")
        self.clock.advance(0.2)
        self.receive(("20", "456"), ("20", "457"))
        self.successResultOf(asked)
        self.link.listener.line_malformed(b"?", "no key: '?'")
        self.failureResultOf(self.ask("MSG:J_ID:20_ORIGIN:TOTO_DEV:none"), Unknown)
        totals = self.gateway.queries.totals()
        self.assertEqual(totals.readings, 2)
        self.assertEqual((totals.outcomes, totals.malformed), ({"answered": 1, "unknown": 1}, {"no key": 1}))
        self.assertEqual([count for bound, count in totals.latencies if bound in (0.1, 0.25, inf)], [0, 1, 1])
        self.assertAlmostEqual(totals.latency_sum, 0.2)

    def test_sensor_settings(self) -> None:
        """
        Sensors of the configuration are told by their names, heard of or not.
        """
        configured = self.gateway.queries.sensor_settings()
        self.assertEqual(configured, {"2": SensorSettings(name="smoke", device="leonardo")})

    def test_history(self) -> None:
        """
        History comes from the store; errors say that there is none, or why it can't be queried.
        """
        selection = Selection("20")
        queries = Gateway(self.clock, self.time, "J", {}).queries
        failure = self.failureResultOf(queries.extent(selection, None), StoreUnavailable)
        self.assertIn("nothing is stored", failure.getErrorMessage())
        queries = self.gateway.queries
        self.store.add([reading(1.0), reading(3.0)], [request_record()])
        self.assertEqual(self.successResultOf(queries.extent(selection, 1)), (2, 2))
        self.assertEqual(self.successResultOf(queries.page(selection, 1, 9, 1)), [(1, reading(1.0))])
        self.assertEqual([each.avg for each in self.successResultOf(queries.buckets(selection, 1000, 5))], [2.0])
        self.assertEqual(self.successResultOf(queries.requests(None, 5)), [(3, request_record())])
        self.store.stored_states = [StoredState(AT, AT, "leonardo", "VALUE", 1.0, None)]
        self.assertEqual(self.successResultOf(queries.states(selection, 5)), self.store.stored_states)
        alarm = Alarm("a1", "leonardo", "20", "VALUE", "== 1", 1.0, None, AT)
        self.store.stored_alarms = [StoredAlarm(alarm, 1.0, ((AT, None),))]
        self.assertEqual(self.successResultOf(queries.past_alarms(["20"], None, None, 5)), self.store.stored_alarms)
        self.assertEqual(self.successResultOf(queries.history("20", None, None, 1)), [reading(3.0)])
        self.store.unavailable = "no route"
        failure = self.failureResultOf(queries.extent(selection, None), StoreUnavailable)
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
