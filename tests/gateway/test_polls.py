"""
Protocol §4.11: what usbgate asks by itself.
"""

from __future__ import annotations

from itertools import cycle, pairwise

from tests.support.gateway import GatewayCase, MemoryLink
from usbgate.core.model import RequestRecord
from usbgate.core.rules import Rules
from usbgate.core.settings import SensorSettings
from usbgate.gateway.polls import JITTER, SPREAD
from usbgate.testing import report


class PollTests(GatewayCase):
    """
    A gateway with two devices; the chances of its polls are in turn 0, 0.25, 0.5 and 0.75.
    """

    names = ("leonardo", "uno")
    rules = Rules(window=4, patience=5.0)

    def setUp(self) -> None:
        """
        Begin without settings, with both devices online.
        """
        self.sensor_settings = {}
        self.chances = cycle([0.0, 0.25, 0.5, 0.75])
        super().setUp()
        for link in self.links.values():
            link.listener.link_up()

    def chance(self) -> float:
        """
        Return the next number.
        """
        return next(self.chances)

    def poll(self, **sensors: SensorSettings | float) -> None:
        """
        Configure polls of the first device: seconds, or all settings, by sensor as `s20` and so on.
        """
        self.sensor_settings.clear()
        for name, about in sensors.items():
            settings = about if isinstance(about, SensorSettings) else SensorSettings(poll=about, device="leonardo")
            self.sensor_settings[name[1:]] = settings
        self.gateway.sensors_changed()

    def polled(self, seconds: float, answering: bool = True, link: MemoryLink | None = None) -> list[tuple[float, str]]:
        """
        Let time pass; return when which sensor was asked what. All are answered at once unless told otherwise.
        """
        found = []
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.events.clear()
            self.clock.advance(0.25)
            for event in list(self.events):
                if isinstance(event, tuple) and event[0] == "send":
                    _, device, command, sensor = event
                    found.append((self.clock.seconds(), f"{sensor} {command}"))
                    if answering:
                        self.links[device].listener.reports_received([report(sensor, command)])
        return found

    def rows(self) -> list[tuple[str | None, str, str, str]]:
        """
        Return the requests that were stored.
        """
        stored = [row for row in self.journal.rows if isinstance(row, RequestRecord)]
        return [(row.sensor, row.command, row.client, row.outcome) for row in stored]

    def test_interval(self) -> None:
        """
        The first poll comes within the interval, and each next one an interval after the answer, or up to a tenth
        earlier.
        """
        self.poll(s20=100.0)
        times = [when for when, question in self.polled(1000.0) if question == "20 J"]
        self.assertLessEqual(times[0], 100.0)
        between = {later - earlier for earlier, later in pairwise(times)}
        self.assertTrue(all(100.0 * (1 - JITTER) <= each <= 100.5 for each in between), between)
        self.assertGreater(len(between), 1)

    def test_command(self) -> None:
        """
        It asks the sensor's default command.
        """
        self.poll(s20=SensorSettings(poll=10.0, device="uno", default_command="STATUS"))
        self.assertEqual(self.polled(10.0)[0][1], "20 STATUS")

    def test_spread(self) -> None:
        """
        The first polls of 40 sensors are spread over the interval, or 80 s; so are those when a device is back.
        """
        for interval, within in [(50.0, 50.0), (3600.0, 40 * SPREAD)]:
            self.chances = cycle([n / 40 for n in range(40)])
            self.poll(**{f"s{n}": interval for n in range(40)})
            for _ in range(2):
                started = self.clock.seconds()
                times = [when - started for when, _ in self.polled(within)][:40]
                self.assertEqual(len(times), 40)
                self.assertLessEqual(max(times.count(when) for when in times), 2)
                self.assertGreater(max(times), 0.9 * within)
                self.link.listener.link_down("gone")
                self.clock.advance(interval)
                self.link.listener.link_up()

    def test_somebody_asked(self) -> None:
        """
        An answer to the same question, or a report with its command, counts as a poll; other reports do not.
        """
        self.chances = cycle([0.5])
        self.poll(s20=100.0)
        self.clock.advance(0.5)
        self.ask("MSG:J_ID:20")
        self.receive(("20", "1"))
        self.assertEqual(self.polled(99.0), [])
        self.assertEqual(len(self.polled(2.0)), 1)
        self.clock.advance(80.0)
        self.link.listener.reports_received([report("20", "J")])
        self.assertEqual(self.polled(80.0), [])
        self.link.listener.reports_received([report("20", "K"), report("20"), report("21", "J")])
        self.assertEqual(len(self.polled(16.0)), 1)

    def test_offline(self) -> None:
        """
        Nothing is asked, and nothing fails, while the device is offline or lent; another device is not affected.
        """
        self.poll(s20=10.0, s9=SensorSettings(poll=10.0, device="uno"))
        for leave, come in [
            (lambda: self.link.listener.link_down("gone"), self.link.listener.link_up),
            (lambda: self.lend(), lambda: self.take_back()),
        ]:
            leave()
            self.journal.rows.clear()
            self.assertEqual({question for _, question in self.polled(100.0)}, {"9 J"})
            self.assertNotIn("offline", [row[3] for row in self.rows()])
            come()
            self.assertEqual({question for _, question in self.polled(10.5)}, {"20 J", "9 J"})

    def lend(self) -> None:
        """
        Lend the first device.
        """
        lent = self.gateway.lend("leonardo", "me")
        self.link.released.callback("/dev/ttyACM0")
        self.lease = self.successResultOf(lent)

    def take_back(self) -> None:
        """
        End that.
        """
        self.lease.end()
        self.link.listener.link_up()

    def test_lost_while_it_is_asked(self) -> None:
        """
        A poll that ends because its device is lost is taken up when that is back, however long its interval is.
        """
        self.poll(s20=86_400.0)
        self.assertEqual(len(self.polled(1.0, answering=False)), 1)
        self.link.listener.link_down("gone")
        self.assertEqual(self.polled(100.0), [])
        self.link.listener.link_up()
        self.assertEqual(len(self.polled(SPREAD + 5.0)), 1)

    def test_dead_sensor(self) -> None:
        """
        A sensor that does not answer is asked once in an interval.
        """
        self.poll(s20=60.0)
        self.assertLessEqual(len(self.polled(600.0, answering=False)), 10)

    def test_reload(self) -> None:
        """
        A poll that is taken out is asked no more, one that is changed begins anew, and another one goes on as it was.
        """
        self.poll(s20=100.0, s21=100.0, s22=100.0)
        self.polled(100.0)
        self.poll(s21=1.0, s22=100.0, s23=SensorSettings(device="leonardo"))
        questions = [question for _, question in self.polled(100.0)]
        self.assertNotIn("20 J", questions)
        self.assertNotIn("23 J", questions)
        self.assertGreater(questions.count("21 J"), 90)
        self.assertEqual(questions.count("22 J"), 1)
        self.poll()
        self.assertEqual(self.polled(100.0), [])

    def test_reload_while_it_is_asked(self) -> None:
        """
        A poll that is taken out while it is asked is not asked again.
        """
        self.poll(s20=10.0)
        self.assertEqual(len(self.polled(1.0, answering=False)), 1)
        self.poll()
        self.assertEqual(self.polled(100.0), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_another_device_while_it_is_asked(self) -> None:
        """
        A poll that is asked is not asked twice because another device comes.
        """
        self.poll(s20=10.0)
        self.polled(1.0, answering=False)
        self.links["uno"].listener.link_down("gone")
        self.links["uno"].listener.link_up()
        self.assertEqual(self.polled(3.5), [])
        self.clock.advance(1.0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_rows(self) -> None:
        """
        A poll is stored as a request of `poll` if it ended in another way than the one before of its sensor.
        """
        self.poll(s20=10.0)
        self.polled(100.0)
        self.assertEqual(self.rows(), [("20", "J", "poll", "answered")])
        self.polled(100.0, answering=False)
        self.polled(100.0)
        self.assertEqual([row[3] for row in self.rows()], ["answered", "timeout", "answered"])
        self.poll(s20=10.0, s21=10.0)
        self.polled(100.0)
        self.assertEqual([row[0] for row in self.rows()][3:], ["21"])
        self.assertGreater(self.gateway.queries.totals().outcomes["answered"], 20)

    def test_unknown_device(self) -> None:
        """
        A sensor whose device is not known is polled as soon as it is.
        """
        self.poll(s20=SensorSettings(poll=10.0))
        self.assertEqual(self.polled(30.0), [])
        self.receive(("20", "1"), link=self.links["uno"])
        self.assertEqual(len(self.polled(10.5)), 1)

    def test_people_first(self) -> None:
        """
        A poll is asked as one: what a person asks meanwhile is written before it.
        """
        self.poll(s20=10.0)
        for sensor in ("1", "2", "3"):
            self.ask(f"MSG:J_ID:{sensor}_DEV:leonardo").addErrback(lambda failure: None)
        self.assertEqual(self.polled(4.0, answering=False), [])
        self.receive(("1", "1"))
        self.assertIn(("send", "leonardo", "J", "20"), self.events)

    def test_stop(self) -> None:
        """
        When usbgate stops, no timer is left.
        """
        self.poll(s20=10.0, s21=10.0)
        self.polled(10.5, answering=False)
        self.gateway.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
