"""
The page in a browser.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.request import urlopen

from tests.bench.figures import Figure, Row
from tests.bench.rig import Rig
from tests.support.running import free_port
from tests.support.waiting import eventually

SENSORS = 200

# Milliseconds from the navigation until all rows are drawn.
_DRAWN = f"""() => new Promise((resolve) => {{
    const look = () => document.querySelectorAll(".row .state").length === {SENSORS}
        ? requestAnimationFrame(() => resolve(performance.now()))
        : requestAnimationFrame(look);
    look();
}})"""


def _measure(rig: Rig) -> Mapping[str, float]:
    # Only here: there is no Playwright for 32-bit Arm.
    try:
        from tests.support.browser import browser, find_browser
    except ImportError:
        rig.progress("Playwright is not installed: not measured")
        return {}
    if find_browser() is None:
        rig.progress("no Chromium is installed: not measured")
        return {}
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    http = f"tcp:{port}:interface=127.0.0.1"

    def known() -> int:
        with urlopen(f"{url}api/v1/status") as response:
            count: int = json.load(response)["sensors"]
        return count

    with rig.device() as device, rig.database() as database, rig.daemon(device, database.url, http=http):
        device.flood(SENSORS, SENSORS)
        device.go()
        eventually(lambda: known() == SENSORS, "all sensors have reported")
        context = browser().new_context(service_workers="block")
        page = context.new_page()
        page.goto("about:blank")
        page.goto(url, wait_until="commit")
        drawn = page.evaluate(_DRAWN)
        client = context.new_cdp_session(page)
        client.send("HeapProfiler.collectGarbage")
        used = client.send("Runtime.getHeapUsage")["usedSize"]
        context.close()
    return {"drawn": drawn / 1000, "heap": used / 2**20}


BROWSING = Row(
    "page",
    f"the page with {SENSORS} sensors, opened in Chromium",
    [
        Figure("drawn", "until all are drawn", "s", reach="<= 1"),
        Figure("heap", "memory of its scripts", "MiB", reach="<= 10"),
    ],
    _measure,
)
