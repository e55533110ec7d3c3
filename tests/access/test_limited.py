"""
The queries of clients that may use some sensors only.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.support.memory_gateway import MemoryGateway
from usbgate.access.limited import LimitedQueries
from usbgate.access.roles import Access, Role
from usbgate.core.errors import Denied
from usbgate.core.model import Selection
from usbgate.gateway.interfaces import IQueries
from usbgate.testing import reading

# How a query names a sensor, by the name of its argument.
NAMED = {
    "sensor": "99",
    "sensors": ["20", "99"],
    "selection": Selection("99", None),
    "reading": reading(1.0, sensor="99"),
}


class LimitedTests(SynchronousTestCase):
    """
    `LimitedQueries` for the sensor 20. What they list is tested with the front ends.
    """

    def test_named(self) -> None:
        """
        Each query that names another sensor is denied at once, and not asked; only its default command is not its own.
        """
        gateway = MemoryGateway()
        access = Access(Role.COMMAND, "kids", sensors=frozenset(["20"]))
        queries: Any = LimitedQueries(gateway, frozenset(["20"]), access.check_sensor)
        self.assertTrue(verifyObject(IQueries, queries))
        named = []
        for name in IQueries.names():
            arguments = signature(getattr(queries, name)).parameters
            values = [NAMED.get(each) for each in arguments]
            if any(value is not None for value in values) and name != "default_command":
                error = self.assertRaises(Denied, getattr(queries, name), *values)
                self.assertEqual(error.sensor, "99")
                named.append(name)
        self.assertGreaterEqual(len(named), 9)
        asked = gateway.last_calls, gateway.history_calls, gateway.pages, gateway.request_calls, gateway.alarm_calls
        self.assertFalse(any(asked), asked)
        self.assertEqual((queries.default_command("2"), gateway.default_command("2")), ("J", "S"))
