"""
Settings of sensors that change while usbgate runs.
"""

from __future__ import annotations

from msgspec.structs import replace

from tests.support.gateway import WALL, GatewayCase, MemoryLink
from usbgate.core.condition import Condition
from usbgate.core.model import AlarmEvent, AlarmRecord, Event
from usbgate.core.rules import Rules
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.core.uncompared import UNCOMPARED_LIMIT
from usbgate.testing import reading


def above(condition: str) -> SensorSettings:
    """
    Return the settings of a sensor with the condition for an alarm.
    """
    return SensorSettings(fields={"VALUE": FieldSettings(alarm=Condition.parse(condition))})


class ReloadTests(GatewayCase):
    """
    `Gateway.sensors_changed`.
    """

    names = ("leonardo", "uno")

    def setUp(self) -> None:
        """
        Begin without settings.
        """
        self.sensor_settings = {}
        super().setUp()
        self.published: list[Event] = []
        self.gateway.subscribe(self.published.append)

    def change(self, **settings: SensorSettings) -> None:
        """
        Change the settings: those of the sensor 20, as `s20`, and so on.
        """
        self.sensor_settings.clear()
        self.sensor_settings.update({name[1:]: each for name, each in settings.items()})
        self.gateway.sensors_changed()

    def alarms(self) -> list[tuple[str, bool]]:
        """
        Return the conditions of the open alarms, each with whether it is active.
        """
        return [(alarm.condition, alarm.ended is None) for alarm in self.gateway.queries.alarms()]

    def test_alarms(self) -> None:
        """
        A new condition counts from the next reading on, and so does another one; an alarm that has no condition any
        more ends, which is stored and published.
        """
        self.receive(("20", "70"))
        self.change(s20=above("> 60"))
        self.assertEqual(self.alarms(), [])
        self.receive(("20", "70"))
        self.assertEqual(self.alarms(), [("> 60", True)])
        self.change(s20=above("> 80"))
        self.assertEqual(self.alarms(), [("> 60", True)])
        self.receive(("20", "70"))
        self.assertEqual(self.alarms(), [("> 60", False)])
        self.receive(("20", "90"))
        self.published.clear()
        self.clock.advance(1)
        self.change(s21=above("> 1"))
        (ended,) = [event for event in self.published if isinstance(event, AlarmEvent)]
        self.assertEqual((ended.change, ended.alarm.ended), ("ended", WALL + 1000))
        stored = [row.event for row in self.journal.rows if isinstance(row, AlarmRecord)]
        self.assertEqual(stored, ["raised", "ended", "raised", "ended"])

    def test_known_fields(self) -> None:
        """
        What a dialect knows of a field goes on behind what is configured, attribute by attribute, however often that
        changes; it holds for the readings of its devices only, and its unit only for values without one.
        """
        known = FieldSettings(kind="energy", label={"fr": "Base"}, values={"0": "none"}, unit="Wh", decimals=0, rank=3)
        self.gateway.add_link(MemoryLink("meter", self.events), Rules(), fields={"VALUE": known})
        find = self.gateway.queries.field_settings
        of_meter = reading(device="meter")
        self.assertEqual(find(of_meter), known)
        self.assertEqual(find(of_meter._replace(text="4e2")), known)
        self.assertEqual(find(of_meter._replace(text="456kWh")), replace(known, unit=None))
        for other in (reading(device="uno"), reading(device="gone"), of_meter._replace(field="OTHER")):
            self.assertEqual(find(other), FieldSettings())
        alarm = Condition.parse("> 60")
        for configured, expected in (
            (FieldSettings(alarm=alarm), replace(known, alarm=alarm)),
            (FieldSettings(label="Index"), replace(known, label="Index")),
            (FieldSettings(unit="kWh"), replace(known, unit="kWh")),
            (FieldSettings(decimals=3, values={"1": "one"}), replace(known, decimals=3, values={"1": "one"})),
            (FieldSettings(kind="ph"), FieldSettings(kind="ph", rank=3)),
        ):
            self.change(s20=SensorSettings(fields={"VALUE": configured}))
            self.assertEqual(find(of_meter), expected)
            self.assertEqual(find(reading(device="uno")), configured)
        self.change()
        self.assertEqual(find(of_meter), known)

    def test_uncompared(self) -> None:
        """
        A condition with which readings could not be compared is forgotten when it changes.
        """
        self.change(s20=above("> 60"))
        self.receive(*[("20", "x")] * UNCOMPARED_LIMIT)
        self.change(s20=above("> 60"), s21=above("> 60"))
        self.assertEqual(len(self.gateway.queries.status().uncompared), 1)
        self.change(s20=above("> 61"))
        self.assertEqual(self.gateway.queries.status().uncompared, [])

    def test_store(self) -> None:
        """
        What was held back is stored when the setting changes, and from then on all readings are.
        """
        self.change(s20=SensorSettings(store=300.0))
        self.receive(*[("20", "1")] * 3)
        self.assertEqual(len(self.journal.readings), 1)
        self.change(s20=SensorSettings(store=300.0, name="other"))
        self.receive(("20", "1"))
        self.assertEqual(len(self.journal.readings), 1)
        self.change()
        self.receive(*[("20", "1")] * 3)
        self.assertEqual(len(self.journal.readings), 5)

    def test_device(self) -> None:
        """
        The device that is asked is that of the settings, until they have none.
        """
        self.receive(*[("20", "1")] * 3)
        for link in self.links.values():
            link.listener.link_up()
        for settings, device in (({"s20": SensorSettings(device="uno")}, "uno"), ({}, "leonardo")):
            self.change(**settings)
            for _ in range(3):
                self.receive(("20", "1"))
            summary = self.gateway.queries.sensor("20")
            assert summary is not None
            self.assertEqual(summary.device, device)

    def test_timeout(self) -> None:
        """
        A new sensor has the time limit of its settings.
        """
        self.link.listener.link_up()
        self.change(s20=SensorSettings(timeout=1.0))
        asked = self.ask("MSG:J_ID:20_DEV:leonardo")
        self.clock.advance(1.0)
        self.assertEqual(self.failureResultOf(asked).value.code, "timeout")
