"""
Test cases of the page in a real browser, with the real daemon and what `usbgate demo` configures.

Everything here blocks. All tests of a process share the daemon, the database, the browser, and one page that is not
loaded again.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.home import flat
from tests.support.waiting import LIMIT

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import Locator, Page, ViewportSize, expect

    from tests.support.browser import browser, find_browser
except ImportError:  # there is no Playwright for 32-bit Arm
    MISSING: str | None = "Playwright is not installed"
else:
    MISSING = None if find_browser() else "no Chromium is installed (apt install chromium)"
    expect.set_options(timeout=LIMIT * 1000)
    DESKTOP: ViewportSize = {"width": 1280, "height": 800}
    PHONE: ViewportSize = {"width": 360, "height": 740}

GREY = "rgb(89, 97, 107)"  # of what may be old, in the light theme

# The browser logs every response that is not 200, such as a timeout; that is not an error of the page.
_OF_THE_NETWORK = "Failed to load resource"


class PageCase(SynchronousTestCase):
    """
    One or more pages, none of which may log an error.
    """

    skip = MISSING

    def setUp(self) -> None:
        """
        Begin without alarms, also after a test that failed.
        """
        flat().end_alarms()

    def open(self, path: str = "", url: str | None = None, **context: Any) -> Page:
        """
        Open the page in a browser context of its own.

        Args:
            path: What comes behind its address.
            url: Its address; by default the daemon's.
            context: See Playwright's `new_context`.
        """
        page, errors = _new_page(**context)
        self.addCleanup(page.context.close)
        self.addCleanup(lambda: self.assertEqual(errors, []))
        page.goto((url or flat().url) + path)
        return page

    def show(self, path: str = "#/") -> Page:
        """
        Show a view on the page that all tests share: of a desktop, in English, with nothing kept in the browser.

        Args:
            path: The view's `#…`.
        """
        page, errors = _shared_page()
        self.addCleanup(page.emulate_media, color_scheme="light", reduced_motion="no-preference")
        self.addCleanup(page.set_viewport_size, DESKTOP)
        self.addCleanup(errors.clear)
        self.addCleanup(lambda: self.assertEqual(errors, []))
        page.goto(f"{flat().url}#/sensor/none")  # so that the view is made anew
        page.evaluate("localStorage.clear()")
        page.goto(flat().url + path)
        self.live(page)
        return page

    def card(self, page: Page, name: str) -> Locator:
        """
        Return the card of a sensor.
        """
        return page.get_by_role("article").filter(has=page.get_by_role("heading", name=name, exact=True))

    def refresh(self, page: Page, name: str) -> Locator:
        """
        Return the button that asks a sensor.
        """
        return page.get_by_role("button", name=re.compile(f"^(Refresh|Asking…) {name}$"))

    def acknowledge(self, page: Page) -> None:
        """
        Acknowledge the only alarm.
        """
        page.get_by_role("alert").get_by_role("button", name="Acknowledge").click()

    def assert_old(self, card: Locator) -> None:
        """
        Wait until the values of a card are grey and its state is not green.
        """
        expect(card.locator(".value").first).to_have_css("color", GREY)
        expect(card.locator(".state.fresh")).to_have_count(0)

    def assert_fresh(self, card: Locator) -> None:
        """
        Wait until the values of a card are not grey.
        """
        expect(card.locator(".value").first).not_to_have_css("color", GREY)

    def refetch(self, page: Page) -> None:
        """
        Let the page fetch all that it shows; if it is doing so already, once more, since that may have begun too early.
        """
        page.evaluate("import('./store.js').then(({ store }) => store.refresh(true))")

    def live(self, page: Page) -> None:
        """
        Wait until the stream of events is open.
        """
        expect(page.locator("#connection")).to_have_text("live")


def _new_page(**context: Any) -> tuple[Page, list[str]]:
    # A page in a browser context of its own, and the errors that it logs.
    usual = {"locale": "en-GB", "timezone_id": "Europe/Paris", "viewport": DESKTOP, "service_workers": "block"}
    opened = browser().new_context(**{**usual, **context})
    opened.set_default_timeout(LIMIT * 1000)
    page = opened.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda message: (
            errors.append(message.text) if message.type == "error" and _OF_THE_NETWORK not in message.text else None
        ),
    )
    return page, errors


@cache
def _shared_page() -> tuple[Page, list[str]]:
    return _new_page()


def faults(page: Page, *rules: str) -> list[str]:
    """
    List the violations of any impact that axe finds, of some rules or of all.
    """
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    return [
        f"{violation['id']}: {[node['html'] for node in violation['nodes']]}"
        for violation in Axe().run(page, options=options).response["violations"]
    ]
