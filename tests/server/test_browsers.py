"""
Pages of another origin in a real browser, which try to command a sensor through the line port (protocol §3).
"""

from __future__ import annotations

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.support.daemon import RunningCase
from tests.support.waiting import eventually
from usbgate.core.fieldline import parse

try:
    from tests.support.browser import browser, find_browser
except ImportError:  # there is no Playwright for 32-bit Arm
    MISSING: str | None = "Playwright is not installed"
else:
    MISSING = None if find_browser() else "no Chromium is installed (apt install chromium)"

# Each way in which a page can have bytes of its choice sent, and what it begins with.
ATTACKS = {
    "fetch": ("HTTP", "fetch(http, {method: 'POST', mode: 'no-cors', body: lines})"),
    "fetch of a path": ("HTTP", "fetch(http + encodeURI(lines), {mode: 'no-cors'})"),
    "fetch with its own method": ("HTTP", "fetch(http, {method: 'ask', body: lines})"),
    "fetch with credentials": ("HTTP", "fetch(http, {method: 'POST', credentials: 'include', body: lines})"),
    "beacon": ("HTTP", "navigator.sendBeacon(http, lines)"),
    "request": ("HTTP", "const r = new XMLHttpRequest(); r.open('POST', http); r.send(lines)"),
    "form as text": ("HTTP", "submit('text/plain')"),
    "form in parts": ("HTTP", "submit('multipart/form-data')"),
    "image": ("HTTP", "new Image().src = http + encodeURI(lines)"),
    "socket": ("HTTP", "new WebSocket(http.replace('http', 'ws'))"),
    "fetch over TLS": ("TLS", "fetch(http.replace('http', 'https'), {method: 'POST', mode: 'no-cors', body: lines})"),
    "turn": (
        "control character",
        """
        const server = {urls: `turn:${http.slice(7, -1)}?transport=tcp`, username: lines, credential: lines};
        window.peer = new RTCPeerConnection({iceServers: [server], iceTransportPolicy: 'relay'});
        peer.createDataChannel('x');
        peer.createOffer().then(offer => peer.setLocalDescription(offer));
        """,
    ),
}

PAGE = """
<!doctype html><meta charset="utf-8"><title>elsewhere</title>
<script>
const lines = '\\nMSG:ON_ID:9_ORIGIN:page\\n\\nask 9 ON\\n';
function submit(enctype) {
  const form = document.body.appendChild(document.createElement('form'));
  const frame = document.body.appendChild(document.createElement('iframe'));
  const input = form.appendChild(document.createElement('textarea'));
  frame.name = form.target = `frame of ${enctype}`;
  Object.assign(form, {action: http, method: 'POST', enctype});
  Object.assign(input, {name: 'x', value: lines});
  form.submit();
}
</script><body></body>
"""


class _Elsewhere(BaseHTTPRequestHandler):
    """
    Another site: one page at every path.
    """

    def do_GET(self) -> None:
        """
        Send the page.
        """
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, format: str, *args: object) -> None:
        """
        Log nothing.
        """


class PageTests(RunningCase):
    """
    A daemon, its device, and a page of another origin on the same machine.
    """

    skip = MISSING

    def setUp(self) -> None:
        """
        Serve the page.
        """
        super().setUp()
        self.site = ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)
        self.addCleanup(self.site.server_close)
        self.addCleanup(self.site.shutdown)
        Thread(target=self.site.serve_forever, daemon=True).start()

    def test_commands_nothing(self) -> None:
        """
        Whatever the page tries, its connection is closed and counted, and the device receives nothing of it.
        """
        device = self.plug()
        daemon = self.run_daemon("--device", str(device.path), "--database", "none")
        client = self.online(daemon)

        def refused() -> Mapping[str, int]:
            lines = [parse(line.encode()) for line in client.word("status") if line.startswith("MALFORMED:")]
            return {line["REASON"]: int(line["MALFORMED"]) for line in lines}

        page = browser().new_page()
        self.addCleanup(page.close)
        page.goto(f"http://localhost:{self.site.server_port}/")
        page.evaluate(f"window.http = 'http://127.0.0.1:{daemon.port}/'")
        for name, (reason, attack) in ATTACKS.items():
            before = refused().get(reason, 0)
            page.evaluate(f"() => {{ {attack} }}")
            eventually(lambda: refused().get(reason, 0) > before, f"{name} is refused: {refused()}")  # noqa: B023  # it is called at once
        self.assertTrue(client.word("ask 20")[0].startswith("ID:20_"))
        self.assertEqual([line.partition(b"_ORIGIN")[0] for line in device.received], [b"MSG:J_ID:20"])
        self.assertEqual(daemon.log.count("that did not begin as a line client's"), 1)
