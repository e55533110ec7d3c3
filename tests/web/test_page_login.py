"""
The page in a real browser, for people with a token and without one.
"""

from __future__ import annotations

from typing import Literal

from tests.support.folders import new_folder
from tests.support.page import MISSING, PageCase
from tests.support.running import RUN, PtyDevice, TwistdDaemon, free_port, is_answered
from tests.support.waiting import eventually
from usbgate.access.tokens import Token, TokenFile, digest
from usbgate.testing import AT

if MISSING is None:
    from playwright.sync_api import expect


class LoginTests(PageCase):
    """
    A daemon that gives no role without a token, or a low one.
    """

    def start(self, door: str, role: Literal["read", "command"]) -> None:
        """
        Start a daemon with this door, and a token for a role.
        """
        folder = new_folder()
        device = PtyDevice(folder / "tty")
        self.addCleanup(device.unplug)
        port = free_port()
        file = folder / "usbgate.toml"
        file.write_text(
            f'[http]\nlisten = {{ endpoint = "tcp:{port}:interface=127.0.0.1", {door} }}\n'
            f'[device.board]\npath = "{device.path}"\n[sensor.20]\nname = "bedroom"\n'
        )
        state = folder / "state"
        daemon = TwistdDaemon(state, "--config", str(file), "--database", "none", program=RUN, http=None)
        self.addCleanup(daemon.stop)
        self.url = f"http://127.0.0.1:{port}/"
        eventually(lambda: is_answered(f"{self.url}healthz"), "it listens")
        TokenFile(state).add(Token(name="tablet", role=role, sha256=digest("secret"), created=AT))

    def test_login(self) -> None:
        """
        Without a token, the page shows nothing but a form; with one, it shows the sensors until one logs out, and also
        when it is loaded again. No address and no script has the token.
        """
        self.start("proxied = true", "read")
        page = self.open(url=self.url)
        page.get_by_label("Token").fill("secret")
        expect(page.get_by_text("bedroom")).to_have_count(0)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("bedroom").first).to_be_visible()
        page.reload()
        expect(page.get_by_text("bedroom").first).to_be_visible()
        self.assertEqual((page.evaluate("document.cookie"), "secret" in page.url), ("", False))
        page.get_by_role("button", name="Log out (tablet)").click()
        expect(page.get_by_label("Token")).to_be_visible()
        expect(page.get_by_text("bedroom")).to_have_count(0)

    def test_more(self) -> None:
        """
        Who may only see can log in to do more.
        """
        self.start('role = "read"', "command")
        page = self.open(url=self.url)
        page.get_by_role("button", name="Refresh").click()
        expect(page.locator(".problem:visible")).to_contain_text("Log in to do this")
        page.get_by_role("link", name="Log in").click()
        page.get_by_label("Token").fill("secret")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("button", name="Log out (tablet)")).to_be_visible()
        expect(page.get_by_role("link", name="Log in")).to_have_count(0)
        page.get_by_role("button", name="Refresh").click()
        expect(page.get_by_text("waiting…")).to_be_visible()
