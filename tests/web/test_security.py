"""
Which requests are refused, which headers every response has, and the same under a base path behind nginx.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
from itertools import product
from pathlib import Path
from typing import Any
from unittest import skipIf
from urllib.parse import quote

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.running import free_port
from tests.support.waiting import LIMIT, eventually, until
from tests.support.web import JSON, PROBLEM, RawClient, WebTestCase, reactor
from usbgate.core.settings import SensorSettings
from usbgate.web.security import BODY_LIMIT, RequestGuard
from usbgate.web.static import TYPES, load_page

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

ASK = "/api/v1/sensors/20/ask"


class HostTests(SynchronousTestCase):
    """
    Hosts by which browsers may call us.
    """

    def test_names(self) -> None:
        """
        IP addresses, localhost, the machine's name and configured hosts are allowed, and no other name.
        """
        guard = RequestGuard(["House.example"], own_name="Pi.lan")
        for host in (
            *(
                "localhost",
                "LOCALHOST:8080",
                "127.0.0.1",
                "127.0.0.1:8080",
                "192.168.1.2:80",
                "[::1]",
                "[fe80::1]:8080",
            ),
            *("pi", "pi.lan", "PI.local:8080", "pi.local.", "house.example", "house.example:443"),
        ):
            self.assertTrue(guard.is_ours(host), host)
        for host in (
            *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "pi.evil.example", "example"),
            *("", ":8080", "localhost:", "localhost:x", "localhost@evil.example", "[::1", "::1", "1", "0x7f.1", "a b"),
        ):
            self.assertFalse(guard.is_ours(host), host)

    def test_own_name(self) -> None:
        """
        By default, the machine's name is the system's.
        """
        self.assertTrue(RequestGuard().is_ours(socket.gethostname()))


class GuardTests(WebTestCase):
    """
    Requests that are refused, and headers of all responses.
    """

    hosts = ("house.example",)

    async def test_rebinding(self) -> None:
        """
        DNS rebinding: a page of another site gets nothing, neither API nor files nor metrics.
        """
        for path in ("/", "/api/v1/sensors", "/api/v1/events", "/healthz", "/metrics", "/nix"):
            code, kind, _ = await self.problem("GET", path, headers={"Host": "evil.example:8080"})
            self.assertEqual((code, kind), (421, "denied"), path)
        reply = await self.call("GET", "/", headers={"Host": "evil.example"})
        self.assertEqual(reply.phrase, "Misdirected Request")
        for host in ("house.example", "localhost:8080", "[::1]:8080"):
            self.assertEqual((await self.call("GET", "/healthz", headers={"Host": host})).code, 200)

    async def test_one_host(self) -> None:
        """
        Two `Host` headers, or none in HTTP/1.1, are refused; HTTP/1.0 needs none.
        """
        for head, status in [
            ("GET /healthz HTTP/1.1\nHost: localhost\nHost: evil.example", b"HTTP/1.1 400 "),
            ("GET /healthz HTTP/1.1", b"HTTP/1.1 400 "),
            ("GET /healthz HTTP/1.0", b"HTTP/1.0 200 "),
            ("GET http://evil.example/healthz HTTP/1.1\nHost: localhost", b"HTTP/1.1 400 "),
            ("OPTIONS * HTTP/1.1\nHost: localhost", b"HTTP/1.1 400 "),
        ]:
            client = await self.connect()
            client.say(f"{head}\nConnection: close")
            await until(lambda: client.lost)  # noqa: B023  # waited for here
            self.assertTrue(client.received.startswith(status), (head, client.received))

    async def test_origin(self) -> None:
        """
        A call that changes something is refused with an `Origin` of another site, and accepted without one.
        """
        for origin in (
            *("http://evil.example", "null", "file://", "http://localhost.evil.example", "http://[::1"),
            *("http://9.9.9.9:8080", "http://[2620:fe::9]"),
        ):
            problem = await self.problem("POST", ASK, json={}, headers={"Origin": origin})
            self.assertEqual(problem[:2], (403, "denied"), origin)
        for site in ("cross-site", "same-site"):
            headers = {"Origin": "http://localhost:3000", "Sec-Fetch-Site": site}
            self.assertEqual((await self.problem("POST", ASK, json={}, headers=headers))[:2], (403, "denied"), site)
        self.assertEqual(self.gateway.asked, [])
        public = {"Origin": "http://9.9.9.9:8080", "Host": "9.9.9.9:8080", "Sec-Fetch-Site": "same-origin"}
        origins = ("http://127.0.0.1:8080", "https://house.example", "http://localhost")
        for index, headers in enumerate([public, *({"Origin": origin} for origin in origins)]):
            asking = self.ask_for("POST", ASK, json={}, headers=headers)
            await until(lambda: len(self.gateway.asked) > index)  # noqa: B023  # waited for here
            self.gateway.answer(index)
            self.assertEqual((await asking).code, 200)

    async def test_content_type(self) -> None:
        """
        A call that changes something requires JSON, which no form can send.
        """
        for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
            problem = await self.problem("POST", ASK, data=b'{"command": "ON"}', headers=headers)
            self.assertEqual(problem[:2], (415, "malformed"))
        broken = {"Content-Type": "multipart/form-data; boundary=x"}
        self.assertEqual((await self.problem("POST", ASK, data=b"?", headers=broken))[0], 415)
        self.assertEqual(self.gateway.asked, [])
        asking = self.ask_for("POST", ASK, data=b"{}", headers={"Content-Type": "application/json; charset=utf-8"})
        await until(lambda: self.gateway.asked)
        self.gateway.answer(0)
        self.assertEqual((await asking).code, 200)

    async def test_no_utf8(self) -> None:
        """
        A head that is not UTF-8 is refused, without a server error.
        """
        for name in (b"Host", b"Origin", b"Content-Type", b"Accept", b"Last-Event-ID", b"If-None-Match", b"X"):
            for path in (b"/", b"/api/v1/events", b"/api/v1/readings?sensor=20"):
                client = await self.connect()
                client.transport.write(b"GET %s HTTP/1.0\r\nHost: localhost\r\n%s: \xff\r\n\r\n" % (path, name))
                await until(lambda: client.lost)  # noqa: B023  # waited for here
                self.assertTrue(client.received.startswith(b"HTTP/1.0 400 "), (name, client.received))
                self.assertNotIn(b"Server", client.received)

    async def test_size(self) -> None:
        """
        A body beyond the limit is refused, chunked or not; a client that continues to send is disconnected.
        """
        for data in (b"x" * (BODY_LIMIT + 1), b"x" * 10 * BODY_LIMIT):
            self.assertEqual((await self.problem("POST", ASK, data=data, headers=JSON))[:2], (413, "limit"))
        client = await self.connect()
        head = f"POST {ASK} HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"
        client.say(
            head + "Transfer-Encoding: chunked\nConnection: close", b"10001\r\n" + b"x" * 65537 + b"\r\n0\r\n\r\n"
        )
        await until(lambda: client.lost)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 413 "), client.received)
        client = await self.connect()
        client.say(head + "Content-Length: 1000000000", b"x" * 100 * BODY_LIMIT)
        await until(lambda: client.lost)
        self.assertEqual(self.gateway.asked, [])

    async def test_long_head(self) -> None:
        """
        A head beyond the limit is refused.
        """
        client = await self.connect()
        client.say("GET / HTTP/1.1\nHost: localhost\nX: " + "x" * 100_000)
        await until(lambda: client.lost)
        self.assertFalse(client.received.startswith(b"HTTP/1.1 200"))

    async def test_methods(self) -> None:
        """
        A method that a path does not support is a problem that lists the others; HEAD is GET without a body.
        """
        for method, path, allowed in [
            ("GET", ASK, "POST"),
            ("POST", "/api/v1/sensors", "GET, HEAD"),
            ("POST", "/", "GET, HEAD"),
            ("DELETE", "/", "GET, HEAD"),
            ("OPTIONS", "/api/v1/sensors", "GET, HEAD"),
            ("QWERTZ", ASK, "POST"),
        ]:
            reply = await self.call(method, path, headers=JSON)
            self.assertEqual((reply.code, reply.header("Allow")), (405, allowed), method)
            self.assertEqual(reply.header("Content-Type"), PROBLEM)
        for path in ("/", "/api/v1/sensors", "/api/v1/events", "/api/v1/readings?sensor=20", "/metrics"):
            reply = await self.call("HEAD", path)
            self.assertEqual((reply.code, reply.body), (200, b""), path)
        reply = await self.call("HEAD", "/nix")
        self.assertEqual((reply.code, reply.header("Content-Type"), reply.body), (404, PROBLEM, b""))

    async def test_nowhere(self) -> None:
        """
        Only listed files are served, and there is no list of them.
        """
        for path in (
            *("/nix", "/page/", "/page", "/index.html/", "/api", "/api/v1", "/api/v1/", "/api/v1/sensors/"),
            *("/..%2f..%2fsetup.cfg", "/../files.py", "/%2e%2e/files.py", "/files.py", "/index.html%00"),
        ):
            client = await self.connect()  # sent as it is: clients normalize the path first
            client.say(f"GET {path} HTTP/1.0\nHost: localhost")
            await until(lambda: client.lost)  # noqa: B023  # waited for here
            self.assertRegex(client.received, b"^HTTP/1.0 404 Not Found", path)
        self.assertEqual((await self.problem("GET", "/%ff"))[:2], (400, "malformed"))

    async def test_headers(self) -> None:
        """
        Every response has the security headers, and none names the server's software.
        """
        replies = [
            await self.call(method, path, headers=headers)
            for method, path, headers in [
                ("GET", "/", {}),
                ("GET", "/api/v1/sensors", {}),
                ("GET", "/api/v1/readings.csv?sensor=20", {}),
                ("GET", "/nix", {}),
                ("PUT", "/", {}),
                ("GET", "/", {"Host": "evil.example"}),
                ("HEAD", "/api/v1/events", {}),
            ]
        ]
        for reply in replies:
            policy = reply.header("Content-Security-Policy") or ""
            self.assertIn("default-src 'none'", policy)
            self.assertIn("script-src 'self';", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(reply.header("X-Content-Type-Options"), "nosniff")
            self.assertEqual(reply.header("Referrer-Policy"), "no-referrer")
            self.assertIsNone(reply.header("Server"))
            self.assertIsNone(reply.header("Access-Control-Allow-Origin"))
            self.assertNotIn(b"wisted", reply.body)
        client = await self.listen()
        self.assertIn(b"X-Content-Type-Options: nosniff\r\n", client.received)
        self.assertNotIn(b"wisted", client.received)

    async def test_page(self) -> None:
        """
        The page is at the root; a client that has it gets 304.
        """
        reply = await self.call("GET", "/?from=bookmark")
        self.assertEqual(reply.header("Content-Type"), "text/html; charset=utf-8")
        self.assertEqual(reply.header("Cache-Control"), "no-cache")
        etag = reply.header("ETag") or ""
        again = await self.call("GET", "/index.html", headers={"If-None-Match": etag})
        self.assertEqual((again.code, again.body, again.header("ETag")), (304, b"", etag))
        self.assertEqual((await self.call("GET", "/index.html")).body, reply.body)

    async def test_files(self) -> None:
        """
        Every file below `page/` is served under its path there, with its type; nothing else is.
        """
        folder = Path(__file__).parents[2] / "usbgate" / "web" / "page"
        found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.assertEqual(sorted(found), sorted(TYPES))
        for path, content_type in TYPES.items():
            reply = await self.call("GET", f"/{path}")
            self.assertEqual((reply.code, reply.header("Content-Type")), (200, content_type), path)
            self.assertEqual(reply.body, found[path])
        for path in ("/static.py", "/vendor", "/vendor/", "/vendor/page.css", "/vendor/..%2Fpage.css", "/uplot.min.js"):
            self.assertEqual((await self.problem("GET", path))[0], 404, path)

    async def test_left_open(self) -> None:
        """
        An idle connection is closed after a while, and nothing is logged.
        """
        self.web.site.timeOut = 0.3
        logged: list[Any] = []
        observer: Any = logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        client = await self.connect()
        client.say("GET /healthz HTTP/1.1\nHost: localhost")
        await until(lambda: client.lost)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 200"))
        self.assertEqual([event for event in logged if "imin" in str(event.get("log_format"))], [])

    async def test_idle(self) -> None:
        """
        No timer runs without requests: there is no access log.
        """
        await self.call("GET", "/healthz")
        self.assertEqual([call for call in reactor.getDelayedCalls() if "LogDateTime" in str(call)], [])


class CrossOriginTests(WebTestCase):
    """
    Pages of other sites, of which one may use the API and all may read.
    """

    cors = ("https://house.example", "*")
    listed = "https://house.example"

    async def seen_by(self, origin: str, method: str, path: str, **how: Any) -> tuple[int, str | None]:
        """
        Make a call as the page of an origin; return the status, and whose page may see the response.
        """
        reply = await self.call(method, path, headers={"Origin": origin}, **how)
        self.assertEqual(reply.headers.getRawHeaders("Vary", [])[0], "Origin")
        self.assertEqual(reply.header("Access-Control-Allow-Credentials"), None)
        return reply.code, reply.header("Access-Control-Allow-Origin")

    async def preflight(self, origin: str, method: str = "POST") -> tuple[int, str | None]:
        """
        Ask as a browser does before it sends a command; return the status, and the methods that are allowed.
        """
        headers = {"Origin": origin, "Access-Control-Request-Method": method}
        reply = await self.call("OPTIONS", ASK, headers={**headers, "Access-Control-Request-Headers": "content-type"})
        return reply.code, reply.header("Access-Control-Allow-Methods")

    async def test_listed(self) -> None:
        """
        The page of a listed origin reads and commands, and sees errors, too.
        """
        for path in ("/api/v1/status", "/api/v1/readings?sensor=20", "/metrics"):
            self.assertEqual(await self.seen_by(self.listed, "GET", path), (200, self.listed), path)
        self.assertEqual(await self.seen_by(self.listed, "GET", "/api/v1/nix"), (404, self.listed))
        self.assertEqual(await self.preflight(self.listed), (204, "GET, HEAD, POST"))
        asking = self.ask_for("POST", ASK, json={}, headers={"Origin": self.listed})
        await until(lambda: bool(self.gateway.asked))
        self.gateway.answer(0)
        self.assertEqual((await asking).header("Access-Control-Allow-Origin"), self.listed)

    async def test_events(self) -> None:
        """
        It can read the stream of events.
        """
        client = await self.listen("", f"Origin: {self.listed}")
        self.assertIn(b"access-control-allow-origin: " + self.listed.encode(), client.received.lower())

    async def test_all(self) -> None:
        """
        All others read, but no command of theirs is accepted, with or without a preflight.
        """
        for other in ("https://evil.example", "null", "https://house.example:8443", "http://house.example"):
            self.assertEqual(await self.seen_by(other, "GET", "/api/v1/status"), (200, "*"))
            self.assertEqual(await self.seen_by(other, "POST", ASK, json={}), (403, None))
            self.assertEqual(await self.preflight(other), (204, "GET, HEAD"))
        self.assertEqual(self.gateway.asked, [])

    async def test_no_preflight(self) -> None:
        """
        OPTIONS that is no preflight is refused as ever.
        """
        reply = await self.call("OPTIONS", ASK, headers={"Origin": self.listed})
        self.assertEqual(reply.code, 405)


class SameOriginTests(WebTestCase):
    """
    Without `cors`, as by default, and with one origin.
    """

    async def test_nobody(self) -> None:
        """
        No page of another site sees anything.
        """
        reply = await self.call("GET", "/api/v1/status", headers={"Origin": "https://house.example"})
        self.assertEqual((reply.header("Access-Control-Allow-Origin"), reply.header("Vary")), (None, None))
        headers = {"Origin": "https://house.example", "Access-Control-Request-Method": "GET"}
        self.assertEqual((await self.problem("OPTIONS", ASK, headers=headers))[:2], (403, "denied"))


class FullTests(WebTestCase):
    """
    The limit on connections.
    """

    max_connections = 2

    async def test_too_many(self) -> None:
        """
        For a connection beyond the limit, the one that has waited for a request for the longest time makes room, even
        if it has sent the beginning of one.
        """
        clients = [await self.connect() for _ in range(4)]
        await until(lambda: len(self.web.site.channels) == 4)
        clients[0].transport.write(b"GET /healthz HTTP/1.1\r\nHost: lo")
        self.assertEqual((await self.call("GET", "/healthz")).code, 200)
        await until(lambda: clients[0].lost)
        self.assertFalse(any(client.lost for client in clients[1:]))

    async def test_too_many_streams(self) -> None:
        """
        One stream too many is a problem, and streams leave connections for other calls.
        """
        for _ in range(2):
            await self.listen()
        self.assertEqual((await self.problem("GET", "/api/v1/events"))[:2], (429, "limit"))


class BasePathTests(WebTestCase):
    """
    Under a base path that a proxy does not remove.
    """

    base_path = "/house/usbgate"

    async def test_base_path(self) -> None:
        """
        Paths work with and without the base path; the base path without a slash redirects to the page.
        """
        for path in ("/house/usbgate/", "/house/usbgate/api/v1/sensors", "/api/v1/sensors", "/"):
            self.assertEqual((await self.call("GET", path)).code, 200, path)
        for path in ("/house/", "/house/usbgate/nix", "/house/usbgatex/"):
            self.assertEqual((await self.call("GET", path)).code, 404, path)
        reply = await self.call("GET", "/house/usbgate")
        self.assertEqual((reply.code, reply.header("Location")), (308, "usbgate/"))


@skipIf(NGINX is None, "nginx is not installed")
class ProxyTests(WebTestCase):
    """
    Behind nginx, which removes a path prefix, as Home Assistant's ingress does, or keeps it.
    """

    hosts = ("house.example",)
    base_path = "/kept"

    def setUp(self) -> None:
        """
        Start nginx.
        """
        super().setUp()
        folder = Path(tempfile.mkdtemp(prefix="usbgate-nginx-"))
        self.addCleanup(shutil.rmtree, folder)
        self.proxy = free_port()
        config = folder / "nginx.conf"
        config.write_text(f"""
            daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
            events {{}}
            http {{
                access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
                fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
                server {{
                    listen 127.0.0.1:{self.proxy};
                    proxy_set_header Host $host;
                    location /taken/ {{ proxy_pass http://127.0.0.1:{self.port}/; }}
                    location /kept/ {{ proxy_pass http://127.0.0.1:{self.port}; }}
                }}
            }}
        """)
        process = subprocess.Popen(
            [str(NGINX), "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.addCleanup(process.wait, LIMIT)
        self.addCleanup(process.send_signal, signal.SIGTERM)

    async def test_sub_path(self) -> None:
        """
        The page, the API, asking and events work in both cases.
        """
        await deferToThread(_wait_for, self.proxy)
        self.port = self.proxy
        host = {"Host": "house.example"}
        for index, base in enumerate(["/taken", "/kept"]):
            self.assertEqual(
                (await self.call("GET", f"{base}/", headers=host)).header("ETag"),
                load_page()["index.html"].etag.decode(),
            )
            self.assertEqual((await self.get(f"{base}/api/v1/sensors", headers=host))["sensors"], [])
            origin = {**host, "Origin": "https://house.example"}
            asking = self.ask_for("POST", base + ASK, json={}, headers=origin)
            await until(lambda: len(self.gateway.asked) > index)  # noqa: B023  # waited for here
            self.gateway.answer(index)
            self.assertEqual((await asking).code, 200)
            client: RawClient = await self.connect()
            client.say(f"GET {base}/api/v1/events HTTP/1.1\nHost: house.example")
            await until(lambda: b"\n\nid: " in client.received)  # noqa: B023  # waited for here
            client.transport.loseConnection()
            await until(lambda: not self.web.events)
            problem = await self.problem("GET", f"{base}/", headers={"Host": "evil.example"})
            self.assertEqual(problem[0], 421)
        await deferLater(reactor, 0)

    async def test_odd_ids(self) -> None:
        """
        A sensor whose id contains a `/`, which nginx decodes where it removes the prefix, is found and asked.
        """
        await deferToThread(_wait_for, self.proxy)
        self.port = self.proxy
        host = {"Host": "house.example"}
        ids = ["garage/door", "a/b/c", "28:FF", "50%/é?#"]
        self.gateway.presented = {sensor: SensorSettings(name=f"{sensor}!") for sensor in [*ids, "a/ask"]}
        cases = [*product(["/kept", "/taken"], ids), ("/kept", "a/ask")]
        for index, (base, sensor) in enumerate(cases):
            path = f"{base}/api/v1/sensors/{quote(sensor, safe='')}"
            self.assertEqual((await self.get(path, headers=host))["name"], f"{sensor}!", path)
            asking = self.ask_for("POST", f"{path}/ask", json={}, headers=host)
            await until(lambda: len(self.gateway.asked) > index)  # noqa: B023  # waited for here
            self.assertEqual(self.gateway.requested[index].question.sensor, sensor)
            self.gateway.answer(index)
            self.assertEqual((await asking).code, 200)
        await deferLater(reactor, 0)


def _wait_for(port: int) -> None:
    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), LIMIT):
            return True
        return False

    eventually(listens, "nginx listens")
