"""
The recipes of docs/architecture.md: what is added in one place must be shown in all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pkgutil import iter_modules
from typing import Any, get_args

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.support.access import OPEN, authority
from tests.support.memory_gateway import MemoryGateway, PeerTransport
from tests.support.running import ROOT
from tests.support.turnclock import TurnClock
from usbgate.config.fields import KNOWN_KEYS, decode_fields
from usbgate.core.calibration import Implausible
from usbgate.core.counts import LinkCounts
from usbgate.core.messages import event_line
from usbgate.core.model import Alarm, AlarmEvent, DeviceEvent, Event, ReportEvent, StoreEvent
from usbgate.core.status import BrokerStatus, JournalStatus, Status, StoreStatus
from usbgate.core.uncompared import Uncompared
from usbgate.device import dialects
from usbgate.device.finddialect import make_dialect
from usbgate.device.interfaces import IDialect
from usbgate.gateway.interfaces import DeviceSummary
from usbgate.server.factory import ClientFactory
from usbgate.testing import AT
from usbgate.web.metrics import metrics_pieces
from usbgate.web.serialize import device_json, event_json, status_json

# One of each kind of event, with the name that it has in protocol §3 and docs/http.md.
EVENTS: dict[type[Event], tuple[str, Event]] = {
    ReportEvent: ("reading", ReportEvent("20", "leonardo", "J", AT, (("VALUE", "456"),))),
    DeviceEvent: ("device", DeviceEvent("leonardo", "online", AT)),
    StoreEvent: ("store", StoreEvent("away", 12)),
    AlarmEvent: ("alarm", AlarmEvent(Alarm("a1", "leonardo", "2", "SMOKE", "== 1", 1.0, None, AT), "raised", AT)),
}
HTTP_ONLY = {StoreEvent}  # `watch` does not send it

STORE = StoreStatus("away", "pi", 12, 1, AT, "no route")
JOURNAL = JournalStatus("disk full", 5, 0.25, 512, 1024, 3)
BROKER = BrokerStatus("away", 7, 2, 1, 3, "no route")
STATUS = Status("1.2", 7.0, True, 3, 1, STORE, JOURNAL, {"uno": ["5", "6"]}, [], BROKER)

# Another value of each type; a field of a status that is of another type is named below.
OTHER: dict[type, Any] = {str: "other", int: 99, float: 99.0, bool: False}
UNSURE = {"uno": ["7"]}
UNCOMPARED = [Uncompared("uno", "20", "TEMP", "> 60", 25, "nan")]
IMPLAUSIBLE = [Implausible("uno", "20", "TEMP", 3, "85")]


def other(status: Any, name: str) -> Any:
    """
    Return a status with another value of one field.
    """
    return replace(status, **{name: OTHER[type(getattr(status, name))]})


class EventTests(SynchronousTestCase):
    """
    An event.
    """

    def test_everywhere(self) -> None:
        """
        Each kind of event has a name and data over HTTP and is documented there, and is sent to `watch` or left out on
        purpose.
        """
        http = (ROOT / "docs" / "http.md").read_text()
        protocol = (ROOT / "docs" / "protocol.md").read_text()
        self.assertEqual(set(EVENTS), set(get_args(Event)))
        for kind, (name, event) in EVENTS.items():
            self.assertEqual(event_json(event, {})[0], name)
            self.assertIn(f"`{name}`", http)
            spelled = event_line(event)
            if kind in HTTP_ONLY:
                self.assertIsNone(spelled)
            else:
                assert spelled is not None
                _, line = spelled
                self.assertTrue(line.startswith(f"EVENT:{name}_"), line)
                self.assertIn(f"EVENT:{name}_", protocol)


class StatusTests(SynchronousTestCase):
    """
    A field of `status`, a count of a device, a metric.
    """

    def setUp(self) -> None:
        """
        Connect a client to a gateway in memory.
        """
        self.clock = TurnClock()
        self.gateway = MemoryGateway()
        self.gateway.current_status = STATUS
        factory = ClientFactory(self.clock, self.gateway, authority(self.clock), door=OPEN)
        self.client = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4000))
        self.transport = PeerTransport(self.clock)
        self.transport.protocol = self.client
        self.client.makeConnection(self.transport)
        self.addCleanup(self.transport.abortConnection)

    def lines(self, word: str) -> Sequence[str]:
        """
        Return the reply to a word.
        """
        self.transport.clear()
        self.client.dataReceived(word.encode() + b"\n")
        self.clock.pump([0.0] * 20)
        lines: list[str] = self.transport.value().decode().splitlines()
        return lines

    def test_status(self) -> None:
        """
        Each field of the status is shown by `status`; all but the unsure sensors are shown over HTTP, too.
        """
        before, json = self.lines("status"), status_json(self.gateway, {})
        statuses = [
            replace(STATUS, unsure=UNSURE),
            replace(STATUS, uncompared=UNCOMPARED),
            replace(STATUS, implausible=IMPLAUSIBLE),
        ]
        statuses += [
            other(STATUS, each.name)
            for each in fields(Status)
            if each.name not in ("store", "journal", "broker", "unsure", "uncompared", "implausible")
        ]
        statuses += [replace(STATUS, store=other(STORE, each.name)) for each in fields(STORE)]
        statuses += [replace(STATUS, journal=other(JOURNAL, each.name)) for each in fields(JOURNAL)]
        statuses += [replace(STATUS, broker=other(BROKER, each.name)) for each in fields(BROKER)]
        for status in statuses:
            self.gateway.current_status = status
            self.assertNotEqual(self.lines("status"), before, status)
            if status.unsure is not UNSURE:
                self.assertNotEqual(status_json(self.gateway, {}), json, status)

    def metrics(self) -> bytes:
        """
        Return the metrics.
        """
        return b"".join(metrics_pieces(self.gateway, dict, lambda: AT + 1000, 1000))

    def test_counts(self) -> None:
        """
        Each count of a device is shown by `devices`, over HTTP and in the metrics, and its key is in the protocol.
        """
        protocol = (ROOT / "docs" / "protocol.md").read_text()
        for each, count in zip(fields(LinkCounts), LinkCounts(), strict=True):
            self.gateway.known_devices = [device] = [
                DeviceSummary("uno", "/dev/x", "online", AT, LinkCounts(**{each.name: 99}))
            ]
            self.assertIn(f"_{count.key}:99", self.lines("devices")[0])
            self.assertEqual(device_json(device).counts[count.key.lower()], 99)
            self.assertIn(b"99.0", self.metrics())
            self.assertRegex(protocol, rf"`{count.key}`")

    def test_metrics(self) -> None:
        """
        Each number of the totals and of the status is a metric.
        """
        before = self.metrics()
        totals = self.gateway.current_totals
        for each in fields(totals):
            value: Any = getattr(totals, each.name)
            if isinstance(value, int | float):
                value += 1
            elif isinstance(value, dict):
                value = {name: number + 1 for name, number in value.items()}
            else:
                value = [(bound, number + 1) for bound, number in value]
            self.gateway.current_totals = replace(totals, **{each.name: value})
            self.assertNotEqual(self.metrics(), before, each.name)
        self.gateway.current_totals = totals
        for status in (
            *[other(STATUS, name) for name in ("version", "uptime", "clock_trusted", "sensors", "in_flight", "held")],
            replace(STATUS, implausible=IMPLAUSIBLE),
            *[replace(STATUS, store=other(STORE, name)) for name in ("backlog", "rejected", "oldest")],
            *[replace(STATUS, journal=other(JOURNAL, each.name)) for each in fields(JOURNAL) if each.name != "trouble"],
            *[replace(STATUS, broker=other(BROKER, each.name)) for each in fields(BROKER) if each.name != "trouble"],
        ):
            self.gateway.current_status = status
            self.assertNotEqual(self.metrics(), before, status)


class DialectTests(SynchronousTestCase):
    """
    A dialect.
    """

    def test_provided(self) -> None:
        """
        Each module of `device/dialects` has a dialect, whose fields are as a configuration might have them, a module of
        tests and a recording; the configuration's example and the documentation name it.
        """
        names = [module.name for module in iter_modules(dialects.__path__)]
        self.assertIn("fields", names)
        example = (ROOT / "etc" / "usbgate.toml").read_text()
        page = (ROOT / "docs" / "dialects.md").read_text()
        for name in names:
            dialect = make_dialect(name, {})
            verifyObject(IDialect, dialect)
            decode_fields(f"{name}: ", dialect.fields, KNOWN_KEYS)
            self.assertTrue((ROOT / "tests" / "device" / f"test_{name}.py").exists(), name)
            self.assertTrue(list((ROOT / "tests" / "device" / "dialects").glob(f"{name}.*.raw")), name)
            self.assertIn(f'"{name}"', example)
            self.assertIn(f"`{name}`", page)
