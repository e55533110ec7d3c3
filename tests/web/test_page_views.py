"""
Views of the page: the overview of many sensors, phones, the wall display, and the page while usbgate is away.
"""

from __future__ import annotations

import json
from typing import Any

from tests.support.home import flat
from tests.support.page import MISSING, PageCase
from tests.support.waiting import eventually

if MISSING is None:
    from playwright.sync_api import Page, expect

    from tests.support.page import PHONE

ROOMS = ("attic", "bath", "cellar", "kitchen", "living room", "école", "office", "hall", "garage", "garden")
TOUCH = 44  # px of what a finger can hit


def sensor_json(sensor: str, *, name: str | None, place: str | None, fields: dict[str, float]) -> dict[str, Any]:
    """
    Return a sensor as the API does.
    """
    usual: dict[str, Any] = {
        **{"text": None, "kind": None, "label": None, "values": {}, "states": False, "unit": None, "decimals": None}
    }
    at = "2013-03-11T21:02:10.123Z"
    return {
        **{"id": sensor, "name": name, "place": place, "device": "arduino", "device_state": "online", "seen": at},
        **{"stale": False, "reports": 1, "poll": None, "default_command": "J", "commands": []},
        "fields": [
            {"field": field, "value": value, **usual, "at": at, "age": 0.0, "alarm": None, "alarming": value == 99}
            for field, value in fields.items()
        ],
    }


def many() -> list[dict[str, Any]]:
    """
    Return 200 sensors: 20 in each of ten rooms, last ones first, of which one raises an alarm and one has 12 fields.
    """
    sensors = [
        sensor_json(f"{room}{n}", name=f"{room} {n}", place=room, fields={"TEMP": 20.5 + n})
        for n in range(20, 0, -1)
        for room in reversed(ROOMS)
    ]
    sensors[0]["fields"] = sensor_json("", name="", place="", fields={f"F{n}": n for n in range(12)})["fields"]
    sensors[-1]["fields"][0]["alarming"] = True
    return sensors


class ManyTests(PageCase):
    """
    An overview of 200 sensors.
    """

    def show_many(self, page: Page) -> None:
        """
        Let the page have 200 sensors.
        """
        body = json.dumps({"now": "2013-03-11T21:02:10.123Z", "sensors": many()})
        page.route("**/api/v1/sensors", lambda route: route.fulfill(body=body, content_type="application/json"))
        self.addCleanup(self.refetch, page)
        self.addCleanup(page.unroute, "**/api/v1/sensors")
        self.refetch(page)
        expect(page.locator("[data-sensor='attic1']")).to_be_visible()

    def test_list(self) -> None:
        """
        More than a few sensors are shown as a compact list, by place and name; on a phone, too. One can choose cards
        instead, of which none stretches its row, and the choice is kept.
        """
        page = self.show()
        self.show_many(page)
        rows = page.locator(".row h3")
        expect(rows).to_have_count(200)
        places = page.get_by_role("heading", level=2)
        expect(places).to_contain_text([*sorted(ROOMS, key=lambda room: room.replace("é", "e"))])
        self.assertEqual(rows.all_text_contents()[:2], ["attic 1", "attic 2"])
        expect(page.locator("[data-sensor='attic1'] .value")).to_have_text("21.5")
        page.set_viewport_size(PHONE)
        self.assertLess(page.evaluate("document.documentElement.scrollHeight"), 12_000)
        page.get_by_role("button", name="Cards").click()
        expect(page.locator(".card")).to_have_count(200)
        self.assertEqual(page.locator(".card .more").all_inner_texts(), ["9 more values"])
        heights = page.locator(".card").evaluate_all("cards => cards.map(card => card.offsetHeight)")
        self.assertLess(max(heights), 1.5 * min(heights))
        page.goto(f"{flat().url}#/alarms")
        page.goto(f"{flat().url}#/")
        expect(page.locator(".card")).to_have_count(200)

    def test_search(self) -> None:
        """
        The search finds sensors by all of its words, in any case and without accents, also in folded places; it is kept
        while another view is shown.
        """
        page = self.show()
        self.show_many(page)
        page.get_by_role("button", name="Fold all").click()
        expect(page.locator(".row")).to_have_count(0)
        search = page.get_by_role("searchbox")
        search.fill("Ecole 20")
        expect(page.locator(".row h3")).to_have_text(["école 20"])
        expect(page.locator(".found")).to_have_text("1 of 200")
        page.locator(".row a").click()
        page.get_by_role("link", name="All sensors").click()
        expect(page.locator(".row h3")).to_have_text(["école 20"])
        search.fill("xyz")
        expect(page.locator(".empty")).to_have_text("No sensor matches “xyz”.")
        search.fill("")
        expect(page.locator(".row")).to_have_count(0)

    def test_fold(self) -> None:
        """
        A place can be folded; its alarms are still counted, and the browser remembers it.
        """
        page = self.show()
        self.show_many(page)
        attic = page.get_by_role("button", name="attic")
        attic.click()
        expect(attic).to_have_attribute("aria-expanded", "false")
        expect(attic).to_contain_text("1 alarm")
        expect(page.locator(".row")).to_have_count(180)
        page.goto(f"{flat().url}#/alarms")
        page.goto(f"{flat().url}#/")
        expect(page.locator(".row")).to_have_count(180)
        page.get_by_role("button", name="attic").click()
        expect(page.locator(".row")).to_have_count(200)


class ExactTests(PageCase):
    """
    What is shown as it is.
    """

    def test_as_it_is(self) -> None:
        """
        An id is shown as it is spelled, and a number with all of its digits.
        """
        page = self.show()
        flat().device.say(b"ID:rfid_A:1e-9_B:0.000000001_C:123456.789012")
        card = self.card(page, "rfid")
        expect(card.get_by_role("link")).to_have_css("text-transform", "none")
        first_letter = "node => getComputedStyle(node, '::first-letter').textTransform"
        self.assertEqual(card.get_by_role("link").evaluate(first_letter), "none")
        self.assertEqual(self.card(page, "lamp").get_by_role("link").evaluate(first_letter), "uppercase")
        expect(card.locator(".value")).to_have_text(["1e-9", "1e-9", "123,456.789012"])


class WordsTests(PageCase):
    """
    How failures are worded; `test_words` checks that both languages have all words.
    """

    def test_problem(self) -> None:
        """
        A problem of the API is shown in words of the page: by its reason if there is one, else by its code; only of a
        request that usbgate did not understand, the technical detail is shown.
        """
        page = self.show("#/sensor/20")
        card = page.locator(".card")
        needs = "You are not allowed to do this: it requires the role “command”."
        problems = [
            ("failed", {}, "Something went wrong in usbgate. Its log has the details."),
            ("denied", {"reason": "role too low", "role": "command"}, needs),
            ("malformed", {"reason": "line too long"}, "This request is too long for the device."),
            ("malformed", {"reason": "new"}, "usbgate could not understand this request. Technical detail: x: y"),
            ("new", {}, "Something went wrong in usbgate. Its log has the details."),
        ]
        bodies = [json.dumps({"code": code, "detail": "x: y", **more}) for code, more, _ in problems]
        page.route("**/ask", lambda route: route.fulfill(status=400, body=bodies.pop(0)), times=len(bodies))
        for _, _, text in problems:
            card.locator(".refresh").click()
            expect(card.locator(".problem")).to_have_text(text)


class PhoneTests(PageCase):
    """
    A phone, with fingers.
    """

    def test_phone(self) -> None:
        """
        Nothing is wider than a small phone, in both languages; all that can be pressed has the size of a finger, the
        top bar is one line, a past alarm has labels, and a table of requests fits. A text may have no blanks.
        """
        flat().device.say(b'ID:77_STATE:<img src="x" onerror="document.title=1">')
        flat().say("78", f"STATE:{'longword' * 12}")
        page = self.open(viewport=PHONE, has_touch=True)
        for language in ("English", "Français"):
            page.set_viewport_size(PHONE)
            page.goto(f"{flat().url}#/")
            expect(page.get_by_role("article").first).to_be_visible()
            if language != "English":
                page.get_by_role("button", name=language).click()
            flat().say("2", "SMOKE:1")
            expect(page.get_by_role("alert").get_by_role("button")).to_be_visible()
            self.check_size(page)
            page.get_by_role("alert").get_by_role("button").click()
            flat().say("2", "SMOKE:0")
            expect(page.get_by_role("alert")).to_be_empty()
            self.assertLess(page.locator("#top").bounding_box()["height"], 70)  # type: ignore[index]  # it is visible
            page.locator("#top").get_by_role("link").last.click()
            alarm = page.locator(".past tbody tr").first
            expect(alarm).to_be_visible()
            self.check_size(page)
            names = page.locator(".past th").all_text_contents()
            labels = "cells => cells.map(cell => JSON.parse(getComputedStyle(cell, '::before').content))"
            self.assertEqual(alarm.locator("td").evaluate_all(labels), names)
            page.goto(f"{flat().url}#/sensor/78")
            expect(page.locator(".readout")).to_contain_text("longword")
            self.check_size(page)
            page.goto(f"{flat().url}#/sensor/22")
            expect(page.locator("canvas").first).to_be_visible()
            page.locator(".refresh").click()
            expect(page.locator(".requests td").first).to_be_visible()
            page.locator(".csv summary").click()
            self.check_size(page)
            region = page.locator(".requests .scroll")
            self.assertEqual(*region.evaluate("node => [node.scrollWidth, node.clientWidth]"))
            self.check_wall(page)

    def check_wall(self, page: Page) -> None:
        """
        Check that no value of a wall display is cut, on screens of three sizes.
        """
        page.goto(f"{flat().url}#/wall/")
        expect(page.locator(".tile").first).to_be_visible()
        for width, height in [(390, 844), (1440, 900), (1920, 1080)]:
            page.set_viewport_size({"width": width, "height": height})
            cut = "nodes => nodes.filter(node => node.scrollWidth > node.clientWidth).map(node => node.textContent)"
            self.assertEqual(page.locator(".tile .value").evaluate_all(cut), [], (width, height))

    def check_size(self, page: Page) -> None:
        """
        Check the width of the page and the heights of what can be pressed.
        """
        self.assertEqual(page.evaluate("document.documentElement.scrollWidth"), PHONE["width"])
        pressed = ":is(main, .banner) :is(button, .button, select, input, summary, .back), #top :is(a, button)"
        small = page.locator(pressed).evaluate_all(
            f"nodes => nodes.filter(node => node.checkVisibility() && node.offsetHeight < {TOUCH})"
            ".map(node => node.outerHTML)"
        )
        self.assertEqual(small, [])

    def test_zoom(self) -> None:
        """
        Buttons zoom in and out and move the period; a hint that is only true of a mouse is not shown.
        """
        page = self.open("#/sensor/20", viewport=PHONE, has_touch=True)
        expect(page.locator("canvas")).to_be_visible()
        expect(page.locator(".hint")).to_be_hidden()
        periods: list[str] = []
        page.on("request", lambda request: periods.append(request.url) if "/readings?" in request.url else None)
        for name, custom in [("Zoom in", True), ("Earlier", True), ("Later", True), ("Zoom out", False)]:
            page.get_by_role("button", name=name).click()
            pressed = page.get_by_role("button", name="Custom range" if custom else "24 hours")
            expect(pressed).to_have_attribute("aria-pressed", "true")
        eventually(lambda: len(periods) == 4, "each button loads a period")
        page.get_by_role("button", name="Custom range").click()
        until = page.get_by_label("To", exact=True)
        before = until.input_value()
        page.get_by_role("button", name="Earlier").click()
        self.assertLess(until.input_value(), before)  # the form shows the period, too


class WallTests(PageCase):
    """
    The wall display.
    """

    def test_wall(self) -> None:
        """
        It shows the sensors of a place in large letters, without controls; an alarm, of any place, is over everything
        until it is acknowledged.
        """
        page = self.show("#/wall/bedroom")
        names = ["bedroom humidity", "bedroom temperature", "lamp", "shutter"]
        expect(page.locator(".tile h2")).to_have_text(names)
        expect(page.locator(":is(button, input, select):visible")).to_have_count(0)
        flat().say("20", "VALUE:19.5")
        value = page.locator(".tile").nth(1).locator(".value")
        expect(value).to_have_text("19.5")
        self.assertGreater(value.evaluate("node => parseFloat(getComputedStyle(node).fontSize)"), 60)
        self.assertEqual(page.evaluate("document.documentElement.scrollHeight"), page.evaluate("innerHeight"))
        flat().say("2", "SMOKE:1")
        expect(page.get_by_role("alert")).to_contain_text("smoke detector · hall")
        corners = """[[5, 5], [innerWidth - 5, innerHeight - 5]].map(
            place => document.elementFromPoint(...place).closest(".alarms") !== null
        )"""
        self.assertEqual(page.evaluate(corners), [True, True])
        expect(page.locator(":is(button, input, select):visible")).to_have_count(0)
        flat().say("2", "SMOKE:0")
        expect(page.get_by_role("alert")).to_contain_text("ended")
        self.assertEqual(page.evaluate(corners), [True, False])
        page.get_by_role("link", name="bedroom", exact=True).click()
        self.acknowledge(page)
        expect(page.get_by_role("alert")).to_be_empty()


class AwayTests(PageCase):
    """
    The page as an installed program, while usbgate is away.
    """

    def test_installed(self) -> None:
        """
        The page can be installed, and opens while usbgate is away, with no readings but the time since when it is.
        """
        page = self.open(service_workers="allow")
        self.live(page)
        client = page.context.new_cdp_session(page)
        errors = client.send("Page.getInstallabilityErrors")["installabilityErrors"]
        self.assertEqual([each["errorId"] for each in errors], ["in-incognito"])  # as all contexts of Playwright
        has_files = "caches.open('files').then(files => files.keys()).then(keys => keys.length > 20)"
        eventually(lambda: page.evaluate(has_files), "the files of the page are kept")
        page.context.set_offline(True)
        page.reload()
        expect(page.locator("#notices")).to_contain_text("No connection to usbgate since")
        expect(page.locator("#connection")).to_have_text("not connected")
        expect(page.locator(".empty")).to_contain_text("usbgate is away")
        expect(page.get_by_role("article")).to_have_count(0)
        for view in ("#/sensor/20", "#/wall/", "#/"):
            page.goto(flat().url + view)
            expect(page.locator(".empty:visible")).to_contain_text("usbgate is away")
        page.context.set_offline(False)
        self.live(page)
        expect(self.card(page, "lamp")).to_be_visible()
