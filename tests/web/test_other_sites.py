"""
Pages of other sites in a real browser: whatever they try, with whatever port of this machine, they command nothing and
read nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar

from psycopg2.extensions import parse_dsn
from twisted.trial.unittest import SynchronousTestCase

from tests.support.home import flat
from tests.support.page import MISSING
from tests.support.running import LineClient
from tests.support.waiting import eventually
from usbgate.core.fieldline import parse

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Each way in which a page can have bytes of its choice sent to a port.
SENDING = {
    "fetch": "fetch(target, {method: 'POST', mode: 'no-cors', body})",
    "fetch of a path": "fetch(target + encodeURI(body), {mode: 'no-cors'})",
    "fetch with its own method": "fetch(target, {method: 'ask', body})",
    "fetch with credentials": "fetch(target, {method: 'POST', credentials: 'include', body})",
    "fetch as JSON": "fetch(target, {method: 'POST', body, headers: {'Content-Type': 'application/json'}})",
    "fetch of a form": "fetch(target, {method: 'POST', mode: 'no-cors', body: new URLSearchParams({x: body})})",
    "beacon": "navigator.sendBeacon(target, body)",
    "beacon as JSON": "navigator.sendBeacon(target, new Blob([body], {type: 'application/json'}))",
    "request": "const r = new XMLHttpRequest(); r.open('POST', target); r.send(body)",
    "form as text": "submit(target, 'text/plain')",
    "form in parts": "submit(target, 'multipart/form-data')",
    "form": "submit(target, 'application/x-www-form-urlencoded')",
    "image": "new Image().src = target + encodeURI(body)",
    "socket": "new WebSocket(target.replace('http', 'ws'))",
    "events": "new EventSource(target)",
    "frame": "element('iframe', {src: target})",
}

# What they begin with, where that is not HTTP.
OTHERS = [
    ("TLS", "fetch(target.replace('http', 'https'), {method: 'POST', mode: 'no-cors', body})"),
    (
        "control character",
        """
        const server = {urls: `turn:${target.slice(7, -1)}?transport=tcp`, username: body, credential: body};
        window.peer = new RTCPeerConnection({iceServers: [server], iceTransportPolicy: 'relay'});
        peer.createDataChannel('x');
        peer.createOffer().then(offer => peer.setLocalDescription(offer));
        """,
    ),
]

# Each way in which a page can read what is at an address: a promise of what it has read.
READING = {
    "fetch": "fetch(target).then(r => r.text())",
    "fetch with credentials": "fetch(target, {credentials: 'include'}).then(r => r.text())",
    "fetch without CORS": "fetch(target, {mode: 'no-cors'}).then(r => r.text())",
    "request": """new Promise(done => {
        const r = new XMLHttpRequest(); r.onloadend = () => done(r.responseText); r.open('GET', target); r.send();
    })""",
    "events": "event(Object.assign(new EventSource(target)), ['message', 'reading', 'open'])",
    "image": "event(element('img', {src: target}), ['load'])",
    "script": "event(element('script', {src: target}), ['load'])",
    "module": "import(target).then(module => Object.keys(module).join())",
    "style": "event(element('link', {rel: 'stylesheet', href: target}), ['load'])",
    "worker": "event(new Worker(target), ['message'])",
    "frame": """event(element('iframe', {src: target}), ['load'])
        .then(() => window[0].document.body.innerText || window[0].location.href)""",
}

# The browser waits longer and longer with each that fails, so this is tried only once for each port.
SOCKET = {"socket": "event(new WebSocket(target.replace('http', 'ws')), ['message', 'open'])"}

PAGE = """
<!doctype html><meta charset="utf-8"><title>elsewhere</title>
<script>
let body, field;
function element(name, attributes) {
  return document.body.appendChild(Object.assign(document.createElement(name), attributes));
}
function submit(target, enctype) {
  const frame = element('iframe', {name: `frame of ${target} ${enctype}`});
  const form = element('form', {action: target, method: 'POST', enctype, target: frame.name});
  form.append(Object.assign(document.createElement('textarea'), {name: field[0], value: field[1]}));
  form.submit();
}
function event(source, names) {
  return new Promise(done => {
    for (const name of names) source.addEventListener(name, event => done(`${name} ${event.data}`));
    source.addEventListener('error', () => done(''));
  });
}
</script><body></body>
"""

LINES = "\nMSG:ON_ID:9_ORIGIN:page\n\nask 9 ON\n"
ASK = '{"command": "ON", "origin": "page"}'

# What begins a session with PostgreSQL.
STARTUP = "\0\0\0\x17\0\x03\0\0user\0postgres\0\0"

# Paths with something to read.
PATHS = ("", "page.css", "app.js", "icon.svg", "healthz", "metrics", "api/v1/sensors", "api/v1/events")


class _Site(BaseHTTPRequestHandler):
    """
    Another site: one page at every path.

    Attributes:
        seen: How often each path was requested.
    """

    seen: ClassVar[Counter[str]] = Counter()

    def handle_one_request(self) -> None:
        """
        Send the page, whatever the request is.
        """
        self.raw_requestline = self.rfile.readline(65537)
        if self.parse_request():
            self.seen[self.path.split("/")[1]] += 1
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE.encode())
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """
        Log nothing.
        """


@cache
def _site() -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    Thread(target=server.serve_forever, daemon=True).start()
    return server


@cache
def _shared_page() -> Page:
    from tests.support.browser import browser

    return browser().new_page()


class OtherSitesTests(SynchronousTestCase):
    """
    The daemon of the demo's home, where everybody on this machine may command, and one page of another site.
    """

    skip = MISSING

    def setUp(self) -> None:
        """
        Open the page.
        """
        from tests.support.browser import ELSEWHERE

        self.elsewhere = ELSEWHERE
        self.page = _shared_page()
        self.addCleanup(self.page.goto, "about:blank")
        self.page.goto(f"http://www.{ELSEWHERE}:{_site().server_port}/")
        self.client = LineClient(flat().port)
        self.addCleanup(self.client.close)
        self.commands = len(self.received())

    def received(self) -> list[bytes]:
        """
        Return what the device has received for sensor 9.
        """
        return [line for line in flat().device.received if b"ID:9" in line]

    def be_rebound(self, port: int) -> None:
        """
        Open the page under a name whose owner serves it, and then lets the name resolve to this machine.
        """
        url = f"http://rebound.{self.elsewhere}:{port}/page"
        self.page.route(url, lambda route: route.fulfill(body=PAGE, content_type="text/html"))
        self.page.goto(url)
        self.page.unroute(url)  # or the browser would ask us at each request

    def send(self, attack: str, target: str, body: str, name: str, value: str) -> None:
        """
        Let the page send something.

        Args:
            attack: How, of `SENDING` or `OTHERS`.
            target: The URL.
            body: The body.
            name: The name of a form's field.
            value: Its value.
        """
        parameters = {"target": target, "sent": body, "name": name, "value": value}
        self.page.evaluate(
            f"({{target, sent, name, value}}) => {{ body = sent; field = [name, value]; {attack} }}", parameters
        )

    def read(self, target: str, ways: Mapping[str, str] = READING) -> dict[str, Any]:
        """
        Let the page read, in some ways; return what it has read.
        """
        functions = ", ".join(f"{json.dumps(name)}: () => {attack}" for name, attack in ways.items())
        found: dict[str, Any] = self.page.evaluate(
            f"""async target => {{
                const ways = {{{functions}}}, found = {{}};
                const late = new Promise(done => setTimeout(done, 5000, 'nothing came'));
                await Promise.all(Object.keys(ways).map(async name => {{
                    try {{ found[name] = await Promise.race([ways[name](), late]); }} catch {{ found[name] = ''; }}
                }}));
                return found;
            }}""",
            target,
        )
        return found

    def test_line_port(self) -> None:
        """
        Whatever a page sends to the line port, its connection is closed and counted.
        """

        def refused() -> Mapping[str, int]:
            lines = [parse(line.encode()) for line in self.client.word("status") if line.startswith("MALFORMED:")]
            return {line["REASON"]: int(line["MALFORMED"]) for line in lines}

        attacks = [("HTTP", attack) for attack in SENDING.values()] + OTHERS
        for host in ("127.0.0.1", f"rebound.{self.elsewhere}"):
            if host != "127.0.0.1":
                self.be_rebound(flat().port)
            target = f"http://{host}:{flat().port}/"
            for reason, attack in attacks:
                before = refused().get(reason, 0)
                self.send(attack, target, LINES, "x", LINES)
                eventually(lambda: refused().get(reason, 0) > before, f"refused: {attack}")  # noqa: B023  # called at once
            self.assertEqual(set(self.read(target).values()), {""})
        self.assertEqual(self.read(target, SOCKET), {"socket": ""})
        self.assertEqual(len(self.received()), self.commands)
        self.assertIn("that did not begin as a line client's", flat().daemon.log)

    def test_http_commands(self) -> None:
        """
        Whatever a page sends to the HTTP port, no sensor is asked. To a site that accepts it, it is sent.
        """
        form = ASK[:-2], '"}'
        for rebound in (False, True):
            host = f"rebound.{self.elsewhere}" if rebound else "127.0.0.1"
            if rebound:
                self.be_rebound(flat().http_port)
            for number, attack in enumerate(SENDING.values()):
                self.send(attack, f"http://{host}:{flat().http_port}/api/v1/sensors/9/ask", ASK, *form)
                if not rebound:
                    self.send(attack, f"http://127.0.0.1:{_site().server_port}/{number}/", ASK, *form)
        eventually(lambda: len(_Site.seen) > len(SENDING), f"all was sent: {_Site.seen}")
        self.assertEqual(len(self.received()), self.commands)
        self.client.word("ask 9")
        self.assertEqual(len(self.received()), self.commands + 1)

    def test_http_reading(self) -> None:
        """
        A page reads nothing of the HTTP port, nor shows it in a frame. Rebound, it reads that its name is not ours.
        """
        for path in PATHS:
            self.assertEqual(set(self.read(f"http://127.0.0.1:{flat().http_port}/{path}").values()), {""}, path)
        self.assertEqual(self.read(f"http://127.0.0.1:{flat().http_port}/api/v1/events", SOCKET), {"socket": ""})
        self.assertEqual({frame.url for frame in self.page.frames[1:]}, {"chrome-error://chromewebdata/"})
        self.be_rebound(flat().http_port)
        for path in PATHS:
            for way, text in self.read(f"http://rebound.{self.elsewhere}:{flat().http_port}/{path}").items():
                if text:
                    self.assertIn("this host is not allowed", text, (path, way))

    def test_database_port(self) -> None:
        """
        Nor does it get anything from the database's port, even rebound.
        """
        port = int(parse_dsn(flat().database)["port"])
        self.be_rebound(port)
        target = f"http://rebound.{self.elsewhere}:{port}/"
        for attack in SENDING.values():
            self.send(attack, target, STARTUP, "x", STARTUP)
        self.assertEqual(set(self.read(target).values()), {""})
        self.assertEqual(self.client.word("history 9 limit=1")[-1], "OK:history")
