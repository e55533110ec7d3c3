"""
The page in a real browser, with the real daemon and what `usbgate demo` configures.
"""

from __future__ import annotations

import os
import re
import socket
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.support import postgresql
from tests.support.home import Home, flat
from tests.support.page import MISSING, PageCase, faults
from tests.support.waiting import LIMIT
from usbgate.core.fieldkinds import FIELD_KINDS
from usbgate.core.uncompared import UNCOMPARED_LIMIT

if MISSING is None:
    from playwright.sync_api import Page, Route, ViewportSize, expect

    from tests.support.browser import Proxy
    from tests.support.page import DESKTOP, PHONE

# Counts the pixels of the line or the band in the upper fourth of the first chart.
BLUE_ON_TOP = """() => {
    const canvas = document.querySelector(".plot canvas"), over = document.querySelector(".u-over");
    const [box, all] = [over.getBoundingClientRect(), canvas.getBoundingClientRect()];
    const place = [box.left - all.left, box.top - all.top, box.width, box.height / 4];
    const { data } = canvas.getContext("2d").getImageData(...place.map((each) => each * devicePixelRatio));
    let count = 0;
    for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 0 && data[at + 2] - data[at] > 40) count += 1;
    return count;
}"""


class AskTests(PageCase):
    """
    Asking sensors.
    """

    def test_refresh(self) -> None:
        """
        Refresh shows that it waits, then the new value with its unit and the configured decimals.
        """
        page = self.show()
        card = self.card(page, "bedroom temperature")
        self.addCleanup(flat().keep_silent("20"))
        self.refresh(page, "bedroom temperature").click()
        expect(card).to_have_attribute("data-state", "asked")
        expect(card.get_by_text("Asking…")).to_be_visible()
        self.assertTrue(flat().asked["20"].wait(LIMIT))
        flat().reply("20", "VALUE:19.25")
        expect(card.locator(".reading")).to_have_text("19.3\u202f°C")
        expect(card).to_have_attribute("data-state", "fresh")
        expect(self.refresh(page, "bedroom temperature")).to_contain_text("Refresh")
        expect(page.locator("#announcement")).to_have_text("bedroom temperature: 19.3\u202f°C")

    def test_no_answer(self) -> None:
        """
        A failed request is shown with its reason, as a text and a shape, until the sensor reports again; until then the
        value is grey.
        """
        page = self.show()
        card = self.card(page, "cellar")
        expect(card).to_have_attribute("data-state", "never")
        self.refresh(page, "cellar").click()
        expect(card.locator(".problem")).to_have_text("The device did not answer in time.")
        expect(card.locator(".state")).to_have_text("no answer")
        expect(card.locator(".state svg")).to_be_visible()
        flat().device.say(b"ID:99_VALUE:1")
        expect(card.locator(".state")).to_have_text("up to date")
        expect(card.locator(".problem")).to_be_hidden()
        self.assert_fresh(card)
        self.refresh(page, "cellar").click()
        expect(card.locator(".state")).to_have_text("no answer")
        self.assert_old(card)
        flat().device.say(b"ID:99_VALUE:2")
        expect(card.locator(".value")).to_have_text("2")
        self.assert_fresh(card)

    def test_two_pages(self) -> None:
        """
        Two pages that ask two sensors at the same time each get the right answer.
        """
        first, second = self.show(), self.open()
        self.addCleanup(flat().keep_silent("20", "21"))
        self.refresh(first, "bedroom temperature").click()
        self.refresh(second, "bedroom humidity").click()
        for sensor in ("20", "21"):
            self.assertTrue(flat().asked[sensor].wait(LIMIT))
        flat().reply("21", "VALUE:55")
        flat().reply("20", "VALUE:17")
        expect(first.locator("#announcement")).to_have_text("bedroom temperature: 17.0\u202f°C")
        expect(second.locator("#announcement")).to_have_text("bedroom humidity: 55\u202f%")
        for page in (first, second):
            expect(self.card(page, "bedroom temperature").locator(".value")).to_have_text("17.0")
            expect(self.card(page, "bedroom humidity").locator(".value")).to_have_text("55")

    def test_command(self) -> None:
        """
        A configured button sends its command once, and shows that it was carried out.
        """
        page = self.show()
        card = self.card(page, "lamp")
        received = len(flat().device.received)
        on = card.get_by_role("button", name="On lamp")
        on.click()
        expect(on).to_have_attribute("data-asked", "done")
        expect(card.locator(".reading")).to_have_text("100\u202f%")
        card.get_by_role("button", name="Half lamp").click()
        expect(card.locator(".reading")).to_have_text("50\u202f%")
        self.assertEqual(
            flat().device.received[received:], [b"MSG:ON_ID:9_ORIGIN:page", b"MSG:L_ID:9_ORIGIN:page_LEVEL:50"]
        )

    def test_keyboard(self) -> None:
        """
        A button can be reached and pressed by keyboard, and keeps the focus when the answer arrives.
        """
        page = self.show()
        button = self.refresh(page, "bedroom humidity")
        expect(button).to_be_visible()
        flat().values["21"] = "VALUE:33"
        for _ in range(30):
            page.keyboard.press("Tab")
            if button.evaluate("node => node === document.activeElement"):
                break
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(self.card(page, "bedroom humidity").locator(".value")).to_have_text("33")
        expect(button).to_be_focused()

    def test_text(self) -> None:
        """
        A sensor that is not configured appears with its first report, whose values are text, never markup.
        """
        page = self.show()
        spelled = '<img src="x" onerror="document.title=1">'
        flat().device.say(f"ID:77_STATE:{spelled}".encode())
        card = self.card(page, "77")
        expect(card.locator(".value")).to_have_text(spelled)
        expect(page.get_by_role("heading", name="No place set")).to_be_visible()
        page.goto(flat().url + "#/sensor/77")
        page.get_by_text("Changes: STATE").click()
        expect(page.get_by_role("cell", name=spelled)).to_be_visible()
        self.assertEqual(page.locator("main img").count(), 0)
        self.assertEqual(page.title(), "77 · usbgate")


class TopTests(PageCase):
    """
    Alarms and notices.
    """

    def test_alarm(self) -> None:
        """
        An alarm is shown at the top and announced, and stays after its end until it is acknowledged.
        """
        page, other = self.show(), self.open("#/sensor/20")
        for each in (page, other):
            self.live(each)
        flat().say("2", "SMOKE:1")
        self.addCleanup(flat().say, "2", "SMOKE:0")
        for each in (page, other):
            expect(each.get_by_role("alert")).to_contain_text("Alarm: smoke detector · hall")
            expect(each.get_by_role("alert")).to_contain_text("smoke detected")
        expect(self.card(page, "smoke detector")).to_have_attribute("data-state", "alarm")
        self.assertTrue(page.title().startswith("⚠ smoke detector"))
        flat().say("2", "SMOKE:0")
        expect(page.get_by_role("alert")).to_contain_text("ended")
        expect(self.card(page, "smoke detector")).to_have_attribute("data-state", "fresh")
        page.reload()
        self.acknowledge(page)
        for each in (page, other):
            expect(each.get_by_role("alert")).to_be_empty()
        self.assertEqual(page.title(), "usbgate")

    def test_rules(self) -> None:
        """
        An alarm of a rule that is about no reading says so in words, and has a link only if it is about a sensor.
        """
        at = "2013-03-11T21:02:10.123Z"
        alarms: list[dict[str, Any]] = [
            {
                **{"id": rule, "device": device, "sensor": sensor, "field": text.upper(), "condition": f"rule {rule}"},
                **{"name": None, "place": None, "value": None, "text": text, "since": at, "ended": None},
                **{"acknowledged": None, "peak": None, "spans": []},
            }
            for rule, device, sensor, text in [
                ("dead", "arduino", "20", "stale"),
                ("away", "arduino", "arduino", "offline"),
                ("night", "arduino", "night", "time"),
            ]
        ]
        page = self.show()
        self.addCleanup(self.refetch, page)
        self.addCleanup(page.unroute_all)
        for call in ("alarms", "alarms/history?*"):
            page.route(f"**/api/v1/{call}", lambda route: route.fulfill(json={"alarms": alarms}))
        self.refetch(page)
        banners = page.locator(".banner")
        words = ["out of date (rule dead)", "offline (rule away)", "rule night"]
        for n, (text, links) in enumerate(zip(words, [1, 0, 0], strict=True)):
            expect(banners.nth(n).locator(".about")).to_have_text(re.compile(f"^{re.escape(text)} · since .*10$"))
            expect(banners.nth(n).get_by_role("link")).to_have_count(links)
        page.goto(f"{flat().url}#/alarms")
        expect(page.locator("td[data-label='Condition']")).to_have_text(["rule dead", "rule away", "rule night"])
        expect(page.locator("td[data-label='Peak']")).to_have_text(["out of date", "offline", ""])
        expect(page.locator(".past").get_by_role("link")).to_have_count(1)

    def test_many_events(self) -> None:
        """
        Events that come faster than responses, as of an alarm that comes and goes, do not keep the page from showing
        what else there is.
        """
        page = self.show()
        calls = page.evaluate("""async () => {
            const { store } = await import("./store.js");
            const fetched = async (calls) => {
                if (calls.push(calls.length) > 100) throw new Error("without end");
                store.eventCount += 1;
                return calls;
            };
            const calls = [];
            return await store.latest(() => fetched(calls));
        }""")
        self.assertGreater(len(calls), 1)

    def test_acknowledged_first(self) -> None:
        """
        An alarm that is acknowledged and active is shown with who acknowledged it, without a button.
        """
        page = self.show()
        flat().say("2", "SMOKE:1")
        self.acknowledge(page)
        expect(page.get_by_role("alert")).to_contain_text("acknowledged by 127.0.0.1")
        expect(page.get_by_role("alert").get_by_role("button")).to_have_count(0)
        flat().say("2", "SMOKE:0")
        expect(page.get_by_role("alert")).to_be_empty()

    def test_name(self) -> None:
        """
        The browser remembers the name under which somebody acknowledges alarms, by the button or the Enter key.
        """
        page = self.show()
        for each in ("Zoé", None):
            flat().say("2", "SMOKE:1")
            name = page.get_by_role("alert").get_by_label("Your name")
            if each is not None:
                name.fill(each)
            expect(name).to_have_value("Zoé")
            if each is None:
                self.acknowledge(page)
            else:
                name.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text("acknowledged by Zoé")
            flat().say("2", "SMOKE:0")
            expect(page.get_by_role("alert")).to_be_empty()
            page.reload()

    def test_uncompared(self) -> None:
        """
        A condition with which the newest readings cannot be compared is shown.
        """
        for _ in range(UNCOMPARED_LIMIT):
            flat().say("2", "SMOKE:nan")
        self.addCleanup(flat().say, "2", "SMOKE:0")
        page = self.show()
        self.refetch(page)
        expect(page.locator(".notice.uncompared")).to_contain_text("is “nan”, which can’t be compared")

    def test_broker(self) -> None:
        """
        An MQTT broker that is not connected is shown.
        """
        page = self.show()

        def away(route: Route) -> None:
            status = route.fetch().json()
            broker = {"state": "away", "published": 0, "dropped": 0, "refused": 0, "unasked": 0, "text": "no route"}
            route.fulfill(json={**status, "mqtt": broker})

        page.route("**/api/v1/status", away)
        self.addCleanup(page.unroute_all)
        self.refetch(page)
        expect(page.locator(".notice.broker")).to_contain_text("The MQTT broker is not connected")
        page.unroute("**/api/v1/status")
        self.refetch(page)
        expect(page.locator("#notices")).to_be_empty()

    def test_offer(self) -> None:
        """
        A sensor that may have a new id is offered with a button, or, to who may not say so, with the command; the offer
        is gone once it is accepted, and a refusal is shown.
        """
        page = self.show()
        offer = {"sensor": "20", "successor": "31", "device": "arduino"}
        offer |= {"since": "2013-03-11T21:02:10.123Z", "first": "2013-03-11T21:31:00.000Z"}
        replies: list[dict[str, Any]] = [
            {"status": 404, "json": {"code": "unknown", "reason": "no such sensor"}},
            {"json": offer},
        ]
        page.route("**/api/v1/replacements", lambda route: route.fulfill(json={"replacements": [], "offers": [offer]}))
        page.route("**/api/v1/sensors/20/replace", lambda route: route.fulfill(**replies.pop(0)))
        self.addCleanup(page.unroute_all)
        self.addCleanup(page.evaluate, "import('./store.js').then(({ store }) => { store.role = 'command' })")
        self.refetch(page)
        offers = page.locator("#offers")
        expect(offers).to_contain_text("bedroom temperature (20) has not reported since")
        expect(offers).to_contain_text("usbgate replace 20 31")
        button = offers.get_by_role("button", name="31 is bedroom temperature (20)")
        expect(button).to_be_hidden()
        page.evaluate("import('./store.js').then(({ store }) => { store.role = 'admin' })")
        self.refetch(page)
        button.click()
        expect(offers.locator(".problem")).to_have_text("usbgate does not know this sensor.")
        page.unroute("**/api/v1/replacements")
        button.click()
        expect(offers).to_be_empty()
        self.assertEqual(replies, [])

    def test_device(self) -> None:
        """
        A device that is unplugged is shown at the top; its sensors' values are grey and their states unknown.
        """
        page = self.show()
        flat().device.unplug()
        try:
            expect(page.locator("#notices")).to_contain_text("arduino is not connected")
            expect(self.card(page, "lamp").locator(".state")).to_have_text(re.compile(r"^unknown since [0-9:]+$"))
            self.assert_old(self.card(page, "lamp"))
            expect(page.locator("main .state.fresh")).to_have_count(0)
            self.refresh(page, "lamp").click()
            expect(self.card(page, "lamp").locator(".problem")).to_have_text("The device is not connected.")
        finally:
            flat().device.plug()
        expect(page.locator("#notices")).to_be_empty()
        expect(self.card(page, "balcony temperature")).to_have_attribute("data-state", "fresh")
        self.assert_fresh(self.card(page, "balcony temperature"))

    def test_lent(self) -> None:
        """
        A device that is lent is shown with the client that has it.
        """
        page = self.show()
        with socket.create_connection(("127.0.0.1", flat().port)) as client:
            client.sendall(f"auth {flat().daemon.local_token()}\nlend arduino\n".encode())
            expect(page.locator("#notices")).to_contain_text("arduino is lent to local@127.0.0.1:")
            self.assert_old(self.card(page, "balcony temperature"))
        expect(page.locator("#notices")).to_be_empty()

    def test_dead_network(self) -> None:
        """
        A network that died without an error, or a computer that slept, is noticed.
        """
        page = self.open("about:blank", url="")
        page.clock.install()
        page.add_init_script("AbortSignal.timeout = () => new AbortController().signal")  # calls never fail
        page.goto(flat().url)
        self.live(page)
        self.assert_fresh(self.card(page, "balcony temperature"))
        page.route("**/api/v1/**", lambda route: None)
        page.clock.fast_forward(60_000)
        expect(page.locator("#connection")).to_have_text("not connected")
        expect(self.card(page, "balcony temperature").locator(".state")).to_contain_text("unknown since")
        self.assert_old(self.card(page, "balcony temperature"))

    def test_connection(self) -> None:
        """
        A lost connection is shown, and nothing is green; after reconnecting, the page has all that it missed, and what
        failed meanwhile is asked again.
        """
        page = self.show()
        expect(self.card(page, "balcony temperature")).to_be_visible()
        flat().stop()
        try:
            expect(page.locator("#notices")).to_contain_text("No connection to usbgate since")
            expect(page.locator("#connection")).to_have_text("not connected")
            self.assert_old(self.card(page, "balcony temperature"))
            expect(page.locator(".fresh")).to_have_count(0)
            expect(page.locator("#bottom")).to_contain_text("arduino: unknown")
            self.refresh(page, "balcony temperature").click()
            expect(self.card(page, "balcony temperature").locator(".problem")).to_have_text("usbgate is unreachable.")
            flat().values["23"] = "VALUE:-4.5"
        finally:
            flat().start()
        self.live(page)
        expect(page.locator("#notices")).to_be_empty()
        expect(self.card(page, "balcony temperature").locator(".value")).to_have_text("-4.5")
        expect(self.card(page, "balcony temperature").locator(".problem")).to_be_hidden()


class ChartTests(PageCase):
    """
    Charts, sparklines and past alarms.
    """

    def test_alarm(self) -> None:
        """
        A peak that was just read is in the chart and on its axis, with the threshold, the time when the condition held
        and a flag; the alarm is in the lists of past alarms, and stays there.
        """
        page = self.show("#/sensor/98")
        for value in (*[20] * 30, 75):
            flat().say("98", f"TEMP:{value}")
        expect(page.get_by_role("img", name=re.compile(r"highest 75\s°C"))).to_be_visible()
        expect(page.locator(".marks .threshold")).to_be_visible()
        expect(page.locator(".marks .held")).to_have_count(1)
        expect(page.locator(".marks .flag")).to_have_text(re.compile("[0-9]{2}:[0-9]{2}"))
        self.assertGreater(page.evaluate(BLUE_ON_TOP), 10)
        flat().say("98", "TEMP:90.5")
        flat().say("98", "TEMP:21")
        expect(page.get_by_role("alert")).to_contain_text("ended")
        background = page.locator(".banner").evaluate("node => getComputedStyle(node).backgroundColor")
        self.assertEqual(background, "rgb(255, 255, 255)")  # no longer red
        page.get_by_role("alert").get_by_label("Your name").fill("Anna")
        self.acknowledge(page)
        expect(page.get_by_role("alert")).to_be_empty()
        row = page.get_by_role("region", name="Past alarms").get_by_role("row").nth(1)
        expect(row).to_contain_text(re.compile(r"temperature > 60\s°C.*90.5\s°C.*Anna"))
        page.get_by_role("link", name="Alarms", exact=True).click()
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name="boiler")).first
        expect(row).to_contain_text(re.compile(r"temperature > 60\s°C.*90.5\s°C.*Anna"))

    def test_lines(self) -> None:
        """
        Lines are interrupted where there are gaps, also in sparklines; each device has lines of its own; the sparklines
        of a card have one time axis.
        """
        sql = """
            insert into reading
            select now() - n * interval '5 min', (select name from gateway limit 1), -n * 10 - k, device, '97', 'VALUE',
                k * 10 + n % 3, null, null, true
            from generate_series(1, 200) as n, (values (1, 'arduino'), (2, 'mega')) as of (k, device)
            where n < 30 or n > 60
            """
        postgresql.server().query(flat().database, sql)
        flat().say("97", "VALUE:11")
        page = self.show()
        self.card(page, "97").scroll_into_view_if_needed()
        line = self.card(page, "97").locator(".spark .line")
        expect(line).to_have_attribute("d", re.compile("^M[^M]+M[^M]+$"))
        places = re.findall("([0-9.]+) [0-9.]+", line.get_attribute("d") or "")
        self.assertEqual(len(places), len(set(places)))  # one of each interval, not one of each device
        middle = """import("./buckets.js").then(({ middle }) => {
            return [[0, 9], [5, 30], [0, 4]].map((period) => middle({ at: 0 }, 10, ...period));
        })"""
        self.assertEqual(page.evaluate(middle), [4.5, 7.5, 2])  # within the period
        first, second = (self.card(page, "bathroom climate").locator(".spark").nth(n).bounding_box() for n in (0, 1))
        assert first is not None
        assert second is not None
        self.assertEqual((first["x"], first["width"]), (second["x"], second["width"]))
        page.goto(flat().url + "#/sensor/97")
        expect(page.locator(".charts h3")).to_have_text(["value · arduino", "value · mega"])
        expect(page.get_by_role("img", name=re.compile("highest 1[0-9]$"))).to_have_count(1)
        expect(page.get_by_role("img", name=re.compile("lowest 2[0-9]"))).to_have_count(1)


class StateTests(PageCase):
    """
    Fields whose values are states.
    """

    def test_states(self) -> None:
        """
        A state is shown by the words of the configuration or of its kind, in the reader's language, and over time as a
        bar with the time that each state lasted, with what is received meanwhile; its axis names the day.
        """
        sql = """
            insert into reading
            select now() - n * interval '5 min', (select name from gateway limit 1), -n - 5000, 'arduino', '96', 'GATE',
                case when n between 12 and 23 then 1 else 0 end, null, null, true
            from generate_series(0, 48) as n
            """
        postgresql.server().query(flat().database, sql)
        flat().say("96", "GATE:0_SW:1")
        page = self.show()
        page.reload()  # it may have read the states before
        card = self.card(page, "garage")
        card.scroll_into_view_if_needed()
        expect(card.locator("dt")).to_have_text(["gate", "switch"])
        expect(card.locator(".reading")).to_have_text(["shut", "on"])
        expect(card.locator(".reading .kind")).to_have_count(1)
        expect(card.locator(".spark .band").first).to_have_attribute("d", re.compile("Z.*Z"))
        page.goto(flat().url + "#/sensor/96")
        bar = page.get_by_role("img", name=re.compile(r"^gate: shut 3\sh.*, open 1\sh$"))
        expect(bar).to_be_visible()
        expect(page.locator("canvas")).to_have_count(0)
        self.live(page)
        widths = bar.locator(".segment").evaluate_all("nodes => nodes.map(node => node.getBoundingClientRect().width)")
        whole = bar.evaluate("node => node.getBoundingClientRect().width")
        self.assertEqual(len(widths), 3)
        self.assertAlmostEqual(widths[1] / whole, 1 / 24, 3)
        page.get_by_text("Changes: gate").click()
        changes = page.get_by_role("region", name="Changes: gate").get_by_role("row")
        expect(changes).to_have_count(4)
        flat().say("96", "GATE:1_SW:1")
        expect(changes).to_have_count(5)
        expect(changes.nth(1)).to_contain_text("open")
        page.get_by_role("button", name="1 hour").click()
        ticks = page.locator(".ticks").first
        expect(ticks).to_have_text(re.compile(r":\d\d.*\d [A-Z][a-z]{2}|\d [A-Z][a-z]{2}.*:\d\d"))
        ends = "all => [...all.children].filter(one => one.firstChild).map(one => one.offsetLeft + one.offsetWidth)"
        self.assertLessEqual(max(ticks.evaluate(ends)), ticks.evaluate("node => node.clientWidth"))
        page = self.open("#/sensor/96", locale="fr-FR")
        expect(page.get_by_role("heading", level=3)).to_have_text(["portail", "interrupteur"])
        expect(page.locator(".reading")).to_have_text(["ouvert", "allumé"])

    def test_alarm(self) -> None:
        """
        States that meet the condition of an alarm are marked in the bar, each with a flag.
        """
        flat().say("2", "SMOKE:0")
        page = self.show("#/sensor/2")
        flat().say("2", "SMOKE:1")
        expect(page.locator(".segment.alarm").last).to_be_visible()
        expect(page.locator(".flags .flag").last).to_have_text(re.compile("[0-9]{2}:[0-9]{2}|^$"))
        self.acknowledge(page)
        flat().say("2", "SMOKE:0")
        expect(page.get_by_role("alert")).to_be_empty()

    def test_first_report(self) -> None:
        """
        A sensor that reports for the first time while its view is open has a bar, not a line.
        """
        page = self.show("#/sensor/95")
        held: list[Route] = []
        page.route("**/api/v1/sensors**", lambda route: held.append(route))  # the answer says that the field has states
        flat().say("95", "OPEN:1")
        expect(page.locator(".charts").get_by_role("heading")).to_have_text("OPEN")
        for route in held:
            route.continue_()
        page.unroute("**/api/v1/sensors**")
        expect(page.get_by_role("img", name=re.compile("door: open"))).to_be_visible()
        expect(page.locator(".segment")).to_have_count(1)

    def test_not_stored_yet(self) -> None:
        """
        What was reported just before the view was opened is in the bar, although it is not stored yet.
        """
        page = self.show()
        page.route("**/api/v1/states?*", lambda route: route.fulfill(json={"states": []}))
        self.addCleanup(page.unroute, "**/api/v1/states?*")
        flat().say("95", "OPEN:0")
        expect(self.card(page, "cellar door").locator(".reading")).to_have_text("closed")
        page.evaluate("location.hash = '#/sensor/95'")
        expect(page.get_by_role("img", name=re.compile("door: closed"))).to_be_visible()

    def test_late_response(self) -> None:
        """
        A report is shown at once, even if the response by which the page knows the time came late.
        """
        page = self.show("#/sensor/95")

        def late(route: Route) -> None:
            found = route.fetch().json()
            begun = (datetime.fromisoformat(found["now"]) - timedelta(minutes=5)).isoformat()
            route.fulfill(json={**found, "now": begun})

        page.route("**/api/v1/sensors", late)
        self.addCleanup(page.unroute, "**/api/v1/sensors")
        with page.expect_response("**/api/v1/status"):
            self.refetch(page)
        newest = page.get_by_role("region", name="Changes: door").get_by_role("row").nth(1)
        flat().say("95", "OPEN:0")
        page.get_by_text("Changes: door").click()
        expect(newest).to_contain_text("closed")
        flat().say("95", "OPEN:1")
        expect(newest).to_contain_text("open")
        # The same if it was asked for before a report, and comes just after it.
        page.evaluate(
            """() => import('./store.js').then(({ store }) => {
                const begun = performance.now(), sensors = [...store.sensors.values()];
                const report = { sensor: '95', device: store.sensors.get('95').device, values: { OPEN: 0 } };
                store.receive('reading', { ...report, at: new Date(store.now() + 1).toISOString() });
                store.setSensors({ now: new Date(store.now() - 300_000).toISOString(), sensors }, begun);
            })"""
        )
        expect(newest).to_contain_text("closed")

    def test_words(self) -> None:
        """
        The page has words in both languages and an icon for every kind of field, and words for 0 and 1 of every state.
        """
        page = self.show()
        script = """async (names) => {
            const { kindWords, kindIcon } = await import("./kinds.js");
            return names.map((name) => [kindWords(name, "en").length, kindWords(name, "fr").length, !!kindIcon(name)]);
        }"""
        found = page.evaluate(script, list(FIELD_KINDS))
        expected = [[3, 3, True] if kind.states else [1, 1, True] for kind in FIELD_KINDS.values()]
        self.assertEqual(dict(zip(FIELD_KINDS, found, strict=True)), dict(zip(FIELD_KINDS, expected, strict=True)))


class LookTests(PageCase):
    """
    Languages, accessibility, screens and views.
    """

    def test_french(self) -> None:
        """
        A French browser gets French texts and numbers; another choice is kept.
        """
        page = self.open(locale="fr-FR")
        flat().say("20", "VALUE:20.5")
        card = self.card(page, "bedroom temperature")
        expect(card.locator(".reading")).to_have_text("20,5\u202f°C")
        expect(card.get_by_role("button", name="Actualiser bedroom temperature")).to_be_visible()
        expect(card.locator(".state")).to_have_text("à jour")
        expect(page.locator("html")).to_have_attribute("lang", "fr")
        page.get_by_role("button", name="English").click()
        expect(self.refresh(page, "bedroom temperature")).to_be_visible()
        page.reload()
        expect(self.refresh(page, "bedroom temperature")).to_be_visible()
        expect(page.locator("html")).to_have_attribute("lang", "en")

    def test_accessible(self) -> None:
        """
        axe finds no violation in any view, light or dark, with an alarm and a failed request.
        """
        flat().say("2", "SMOKE:1")
        page = self.show()
        page.emulate_media(reduced_motion="reduce")  # a value that flashes has changing colours
        page.goto(flat().url + "#/")
        expect(page.get_by_role("alert")).to_contain_text("smoke detector")
        self.refresh(page, "cellar").click()
        expect(self.card(page, "cellar")).to_have_attribute("data-state", "failed")
        found = self.faults(page)
        page.get_by_role("button", name="List").click()
        found += self.faults(page)
        page.get_by_role("button", name="Cards").click()
        page.goto(flat().url + "#/sensor/22")
        expect(page.locator("canvas").first).to_be_visible()
        page.get_by_text("CSV…").click()
        found += self.faults(page)
        page.goto(flat().url + "#/alarms")
        expect(page.locator(".past table")).to_be_visible()
        found += self.faults(page)
        page.goto(flat().url + "#/wall/bedroom")
        found += self.faults(page)
        page.goto(flat().url + "#/")
        self.acknowledge(page)
        expect(page.get_by_role("alert").get_by_role("button")).to_have_count(0)
        flat().say("2", "SMOKE:0")
        self.assertEqual(found, [])

    def faults(self, page: Page) -> list[str]:
        """
        List the violations that axe finds: all of the light view, and in the dark, which differs in its colours, those
        of contrast.
        """
        found = faults(page)
        page.emulate_media(color_scheme="dark")
        found += faults(page, "color-contrast")
        page.emulate_media(color_scheme="light")
        return found

    def test_own_view(self) -> None:
        """
        A sensor's view has a live chart for each number, the changes of its texts, its latest requests, and its
        readings as CSV; the way back leads to the sensor's card.
        """
        flat().say("22", "TEMP:23.0_HUM:61.0_BAT:OK")
        page = self.show()
        self.card(page, "bathroom climate").get_by_role("link").click()
        expect(page.get_by_role("heading", level=1, name="bathroom climate")).to_be_focused()
        expect(page.locator("canvas")).to_have_count(2)
        flat().say("22", "TEMP:99.5_HUM:61.0_BAT:LOW")
        expect(page.get_by_role("img", name=re.compile("^temperature: .* highest 99.5.°C"))).to_be_visible()
        page.get_by_text("Changes: battery").click()
        changes = page.get_by_role("region", name="Changes: battery")
        expect(changes.get_by_role("row").nth(1)).to_contain_text("LOW")
        self.refresh(page, "bathroom climate").click()
        requests = page.get_by_role("region", name="Latest requests")
        expect(requests.get_by_role("row").nth(1)).to_contain_text("answered")
        page.get_by_role("button", name="7 days").click()
        expect(page.get_by_role("button", name="7 days")).to_have_attribute("aria-pressed", "true")
        expect(changes.get_by_role("row").nth(1)).to_contain_text("LOW")
        page.get_by_text("CSV…").click()
        page.get_by_label("Separator").select_option("semicolon (;)")
        page.get_by_label("Decimal mark").select_option("1,5")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download CSV").click()
        self.assertRegex(download.value.suggested_filename, r"^bathroom-climate-[0-9-]{15}-to-[0-9-]{15}\.csv$")
        lines = Path(download.value.path()).read_text().splitlines()
        self.assertTrue(lines[0].startswith("seq;at;sensor;field"), lines[0])
        self.assertTrue(any(re.search(r";[0-9-]{10} [0-9:.]{12};22;TEMP;arduino;99,5;", line) for line in lines), lines)
        page.get_by_role("link", name="All sensors").click()
        expect(page.get_by_role("link", name="bathroom climate")).to_be_focused()

    def test_zoom(self) -> None:
        """
        Dragging across a chart zooms in, and there is a way out.
        """
        page = self.show("#/sensor/20")
        box = page.locator(".u-over").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 30, steps=3)
        page.mouse.up()
        expect(page.get_by_role("button", name="Custom range")).to_have_attribute("aria-pressed", "true")
        page.get_by_role("button", name="Zoom in").click()
        page.get_by_role("button", name="24 hours").click()
        expect(page.get_by_role("button", name="24 hours")).to_have_attribute("aria-pressed", "true")

    def test_proxy(self) -> None:
        """
        The page works under a path of a reverse proxy, and misses nothing while the proxy is down.
        """
        proxy = Proxy(flat().url)
        self.addCleanup(proxy.stop)
        page = self.open(url=proxy.url)
        self.live(page)
        flat().values["21"] = "VALUE:44"
        self.refresh(page, "bedroom humidity").click()
        expect(self.card(page, "bedroom humidity").locator(".value")).to_have_text("44")
        self.card(page, "bedroom humidity").get_by_role("link").click()
        expect(page.get_by_role("img", name=re.compile("highest"))).to_be_visible()
        proxy.stop()
        expect(page.locator("#notices")).to_contain_text("No connection")
        flat().say("21", "VALUE:91")
        flat().say("21", "VALUE:45")
        proxy.start()
        self.live(page)
        expect(page.get_by_role("img", name=re.compile("highest 91"))).to_be_visible()
        expect(page.get_by_role("article").locator(".value")).to_have_text("45")

    def test_screenshots(self) -> None:
        """
        Make the screenshots of the documentation in the folder of USBGATE_SCREENSHOTS.
        """
        folder = os.environ.get("USBGATE_SCREENSHOTS")
        if not folder:
            raise SkipTest("USBGATE_SCREENSHOTS names no folder")
        homes = {"fr-FR": Home(french=True), "en-GB": Home()}
        history = (files("usbgate.cli") / "demohistory.sql").read_text("utf-8")
        for home in homes.values():
            self.addCleanup(home.stop)
            postgresql.server().query(home.database, history)
            home.say_all()
        wide: ViewportSize = {"width": 1920, "height": 1080}
        for name, path, language, scheme, size in [
            ("desktop-light", "", "fr-FR", "light", DESKTOP),
            ("phone-light", "", "fr-FR", "light", PHONE),
            ("sensor", "#/sensor/22", "fr-FR", "light", DESKTOP),
            ("states", "#/sensor/6", "en-GB", "light", DESKTOP),
            ("desktop-dark", "", "en-GB", "dark", DESKTOP),
            ("phone-dark", "#/sensor/2", "en-GB", "dark", PHONE),
            ("wall", "#/wall/", "en-GB", "dark", wide),
        ]:
            shown = homes[language]
            look = {"locale": language, "color_scheme": scheme, "reduced_motion": "reduce"}
            page = self.open(path, shown.url, viewport=size, has_touch=size is PHONE, **look)
            shown_lines = {"desktop-light": 6, "desktop-dark": 6, "phone-light": 2}.get(name, 0)
            if scheme == "dark" and name != "wall":
                shown.say("2", "SMOKE:1")
                expect(page.get_by_role("alert")).to_contain_text("smoke detector")
            else:
                shown.end_alarms()
            expect(page.locator(".spark .line[d*=L], canvas, .bar, .tile").nth(shown_lines)).to_be_attached()
            page.wait_for_load_state("networkidle")
            page.screenshot(path=f"{folder}/page-{name}.png")
