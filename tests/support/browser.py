"""
A browser, and a proxy in front of a daemon.

Everything here blocks. The browser is started once per process, since it starts slowly.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
from contextlib import suppress
from functools import cache

from playwright.sync_api import Browser, sync_playwright
from twisted.trial.unittest import SkipTest

from tests.support.folders import new_folder
from tests.support.running import free_port, is_answered
from tests.support.waiting import LIMIT, eventually

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """
    Return the path of an installed browser.
    """
    return next((path for path in map(shutil.which, NAMES) if path is not None), None)


# The hosts below it are this machine, for the browser: other sites, and those whose name resolves to our address.
ELSEWHERE = "elsewhere.example"

ARGUMENTS = [
    "--no-sandbox",  # which root can't use
    # Two hidden pages of each window, as dear as ours; and what keeps pages of other sites from this machine, which not
    # all browsers have.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
    f"--host-resolver-rules=MAP *.{ELSEWHERE} 127.0.0.1",
]


@cache
def browser() -> Browser:
    """
    Start the browser, which loads nothing but our page.
    """
    playwright = sync_playwright().start()
    started = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)

    def stop() -> None:
        with suppress(Exception):  # it may have ended already
            started.close()
            playwright.stop()

    atexit.register(stop)
    return started


class Proxy:
    """
    nginx in front of a daemon, with a base path, configured as in docs/http.md.
    """

    def __init__(self, behind: str) -> None:
        """
        Start it.

        Args:
            behind: The address of the daemon.

        Raises:
            SkipTest: There is no nginx.
        """
        nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if nginx is None:
            raise SkipTest("nginx is not installed")
        self._nginx = nginx
        self._folder, self._port = new_folder(), free_port()
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {self._folder}/{kind};" for kind in kinds)
        (self._folder / "nginx.conf").write_text(
            f"""
            daemon off; master_process off; pid {self._folder}/pid; error_log stderr crit; events {{}}
            http {{
                access_log off; {paths}
                server {{
                    listen 127.0.0.1:{self._port};
                    location /house/flat/ {{
                        proxy_pass {behind};
                        proxy_set_header Host $host;
                        proxy_read_timeout 1h;
                    }}
                }}
            }}
            """
        )
        self.start()

    @property
    def url(self) -> str:
        """
        Where the page is.
        """
        return f"http://127.0.0.1:{self._port}/house/flat/"

    def start(self) -> None:
        """
        Start nginx, or start it again.
        """
        self._process = subprocess.Popen(
            [self._nginx, "-c", self._folder / "nginx.conf", "-e", "stderr"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        eventually(lambda: is_answered(f"{self.url}healthz"), "nginx is there")

    def stop(self) -> None:
        """
        Stop nginx and close all connections.
        """
        self._process.terminate()
        self._process.wait(LIMIT)
