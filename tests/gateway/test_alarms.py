"""
Alarms in the gateway: journalled with the readings that raised them, published, and restored from the database.
"""

from __future__ import annotations

from itertools import count

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from tests.support.gateway import WALL, GatewayCase
from usbgate.core.condition import Condition
from usbgate.core.errors import Malformed, Stopped, Unknown
from usbgate.core.model import Alarm, AlarmEvent, AlarmRecord, Event
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.core.status import JournalStatus, StoreStatus
from usbgate.core.uncompared import UNCOMPARED_LIMIT, Uncompared
from usbgate.gateway.gateway import Gateway


class AlarmTests(GatewayCase):
    """
    A smoke detector, whose unchanged readings are not all stored.
    """

    sensor_settings = {  # noqa: RUF012  # only read
        "2": SensorSettings(store=3600.0, fields={"VALUE": FieldSettings(alarm=Condition.parse("== 1"))})
    }

    def setUp(self) -> None:
        """
        Number its alarms, and subscribe to all events.
        """
        super().setUp()
        ids = count(1)
        self.gateway = Gateway(self.clock, self.time, "J", self.sensor_settings, new_alarm_id=lambda: f"a{next(ids)}")
        self.gateway.add_link(self.link, self.rules)
        self.gateway.store_in(self.journal, self.store, lambda: (StoreStatus(), JournalStatus()))
        self.gateway.startService()
        self.received: list[Event] = []
        self.gateway.subscribe(self.received.append)
        self.link.listener.link_up()

    def told(self) -> list[Alarm]:
        """
        List the alarms that were told of as they then were, and forget them.
        """
        received = [event.alarm for event in self.received if isinstance(event, AlarmEvent)]
        self.received.clear()
        return received

    def stored(self) -> list[tuple[str, str, str | None]]:
        """
        List what was journalled of alarms.
        """
        return [(row.alarm, row.event, row.who) for row in self.journal.rows if isinstance(row, AlarmRecord)]

    def test_life(self) -> None:
        """
        It is raised by the first reading, told and journalled once, ends, and is gone when somebody has seen it.
        """
        self.receive(("2", "0"), ("20", "1"))
        self.assertEqual((self.gateway.queries.alarms(), self.told(), self.stored()), ([], [], []))
        self.receive(("2", "1"), ("2", "1"))
        raised = Alarm("a1", "leonardo", "2", "VALUE", "== 1", 1.0, None, WALL)
        self.assertEqual((self.gateway.queries.alarms(), self.told()), ([raised], [raised]))
        self.clock.advance(5)
        self.receive(("2", "0"))
        ended = raised._replace(ended=WALL + 5000)
        self.assertEqual((self.gateway.queries.alarms(), self.told()), ([ended], [ended]))
        seen = self.successResultOf(self.gateway.acknowledge("a1", "Anna"))
        self.assertEqual(seen, ended._replace(acknowledged=WALL + 5000, by="Anna"))
        self.assertEqual((self.gateway.queries.alarms(), self.told()), ([], [seen]))
        self.assertEqual(self.stored(), [("a1", "raised", None), ("a1", "ended", None), ("a1", "acknowledged", "Anna")])

    def test_unchanged_readings_count(self) -> None:
        """
        A reading that is not stored, since it is what it was, is minded like any other.
        """
        self.receive(("2", "1"))
        self.gateway.acknowledge("a1", "Anna")
        self.receive(("2", "1"), ("2", "0"), ("2", "1"))
        self.assertEqual([alarm.alarm for alarm in self.gateway.queries.alarms()], ["a2"])

    def test_recalled(self) -> None:
        """
        What was open before the start goes on, and what was raised meanwhile joins it.
        """
        self.receive(("2", "1"))
        self.told()
        old = Alarm("old", "leonardo", "2", "VALUE", "== 1", 1.0, None, WALL - 5000)
        self.store.open_alarms = [old]
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        self.assertEqual(self.gateway.queries.alarms(), [old])
        (joined,) = self.told()
        self.assertEqual((joined.alarm, joined.ended, joined.acknowledged), ("a1", WALL, WALL))
        self.assertEqual(self.stored(), [("a1", "raised", None), ("a1", "joined", None)])
        self.successResultOf(Deferred.fromCoroutine(self.gateway.restore()))
        self.assertEqual((self.gateway.queries.alarms(), self.told()), ([old], []))

    def test_unknown(self) -> None:
        """
        What is not open can't be acknowledged, nor can anything when usbgate ends.
        """
        self.failureResultOf(self.gateway.acknowledge("a1", "Anna"), Unknown)
        self.receive(("2", "1"))
        self.gateway.stopService()
        self.failureResultOf(self.gateway.acknowledge("a1", "Anna"), Stopped)

    def test_by(self) -> None:
        """
        What the database would refuse is refused before anything is stored.
        """
        self.receive(("2", "1"))
        self.failureResultOf(self.gateway.acknowledge("a1", "Anna\0"), Malformed)
        self.assertEqual([alarm.acknowledged for alarm in self.gateway.queries.alarms()], [None])
        self.assertEqual(self.stored(), [("a1", "raised", None)])

    def test_uncompared(self) -> None:
        """
        A condition with which 20 readings could not be compared is logged once, and the status shows it meanwhile.
        """
        self.receive(*[("2", "nan")] * (UNCOMPARED_LIMIT - 1))
        self.assertEqual(self.gateway.queries.status().uncompared, [])
        with capturedLogs() as logged:
            self.receive(("2", "ERR"))
            self.receive(*[("2", "nan")] * 50)
        shown = Uncompared("leonardo", "2", "VALUE", "== 1", UNCOMPARED_LIMIT + 50, "nan")
        self.assertEqual(self.gateway.queries.status().uncompared, [shown])
        self.assertEqual(
            [formatEvent(event) for event in logged],
            [
                "the last 20 readings of VALUE of sensor 2 on leonardo can't be compared with its alarm condition == 1"
                ", the last one is ERR: they neither raise nor end the alarm"
            ],
        )
        self.receive(("2", "0"))
        self.assertEqual(self.gateway.queries.status().uncompared, [])
