"""
Who may do what over HTTP: every call, with every role.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import partial
from ipaddress import ip_network
from pathlib import Path

from twisted.internet.defer import Deferred, succeed

from tests.support.access import EVENTS, limit_to_20
from tests.support.memory_gateway import report_event
from tests.support.waiting import until
from tests.support.web import RawClient, Reply, WebTestCase
from usbgate.access.doors import Door, Rule
from usbgate.access.failures import FIRST_DELAY
from usbgate.access.rights import CALL_ROLES, RIGHTS
from usbgate.access.roles import ROLES, Role
from usbgate.access.tokens import Token, TokenFile, digest
from usbgate.core.holders import Holder
from usbgate.core.model import AlarmEvent, Answer, Request
from usbgate.gateway.interfaces import DeviceSummary
from usbgate.testing import AT, report
from usbgate.web.credentials import COOKIE

ASK = "/api/v1/sensors/20/ask"


def _has(client: RawClient, what: bytes) -> bool:
    return what in client.received


class AccessCase(WebTestCase):
    """
    A site whose door gives no role, and a state folder with a token of each role, named for it, whose secret is
    `secret-ROLE`.
    """

    door = Door(Role.NONE)

    def setUp(self) -> None:
        """
        Make the folder.
        """
        self.state = Path(self.mktemp())
        self.state.mkdir()
        self.tokens = TokenFile(self.state)
        for role in ROLES:
            token = Token(name=role, role=role, sha256=digest(f"secret-{role}"), created=AT)  # type: ignore[arg-type]
            self.tokens.add(token)
        super().setUp()
        self.gateway.known_devices = [DeviceSummary("leonardo", "/dev/ttyACM0", "online", AT)]
        self.asked: list[Request] = []
        self.patch(self.gateway, "ask", self.answer)

    def answer(self, request: Request, holder: Holder) -> Deferred[Answer]:
        """
        Answer at once.
        """
        self.asked.append(request)
        return succeed(Answer(report(request.question.sensor, V="1"), request.question.command, AT, "leonardo"))

    async def call_as(self, role: Role, call: str, json: object = None) -> Reply:
        """
        Make a call with the token of a role; with none for `Role.NONE`.
        """
        method, path = call.split()
        path = path.format(sensor="20", alarm="a1")
        headers = {} if role is Role.NONE else {"Authorization": f"Bearer secret-{role.spelled}"}
        if json is None and method == "POST":
            json = {}
        return await self.call(method, path, json=json, headers=headers)


class MatrixTests(AccessCase):
    """
    Every call and every kind of event x every role x a token, a browser that has logged in, and a `[[client]]` table.
    """

    requests_per_second = 1e5

    async def ways(self, role: Role) -> AsyncIterator[dict[str, str]]:
        """
        Give a client a role in each way, and yield the headers that it must send.
        """
        self.authority.change_rules([Rule(role, [ip_network("127.0.0.0/8")])])
        yield {}
        self.authority.change_rules(())
        if role is not Role.NONE:
            secret = f"secret-{role.spelled}"
            yield {"Authorization": f"Bearer {secret}"}
            reply = await self.call("POST", "/api/v1/login", json={"token": secret})
            yield {"Cookie": (reply.header("Set-Cookie") or "").partition("; ")[0]}

    async def test_calls(self) -> None:
        """
        A call is refused exactly if the role is too low: with 401 if there was no token, else with 403, and with the
        role that is required.
        """
        for call, required in CALL_ROLES.items():
            for role in Role:
                if call == "GET /api/v1/events" and role >= required:
                    continue  # it does not end; see `test_events`
                async for headers in self.ways(role):
                    method, path = call.split()
                    json: dict[str, str] | None = {} if method == "POST" else None
                    reply = await self.call(
                        method, path.format(sensor="20", alarm="a1", number="1"), json=json, headers=headers
                    )
                    denied = reply.code in (401, 403) and call != "POST /api/v1/login"
                    self.assertEqual(denied, role < required, (call, role, headers, reply.code, reply.body))
                    if denied:
                        self.assertEqual(reply.code, 403 if headers else 401)
                        self.assertEqual((reply.json["code"], reply.json["role"]), ("denied", required.spelled))
                        self.assertEqual(reply.header("WWW-Authenticate") is None, bool(headers))

    async def test_events(self) -> None:
        """
        Who may subscribe gets every kind of event.
        """
        topics = {topic for right in RIGHTS for topic in right.topics}
        for role in ROLES.values():
            async for headers in self.ways(role):
                client = await self.listen("", *(f"{name}: {value}" for name, value in headers.items()))
                self.gateway.publish(*EVENTS)
                await until(partial(_has, client, b"event: store"))
                received = set(re.findall("event: (.*)", client.received.decode()))
                self.assertEqual(received, topics)

    async def test_questions(self) -> None:
        """
        Questions that only read require `ask`, all others `command`; those that are refused are recorded, and those
        that are asked have the name of the token.
        """
        for command, required in (("J", Role.ASK), ("ON", Role.COMMAND)):
            for role in Role:
                reply = await self.call_as(role, f"POST {ASK}", {"command": command})
                self.assertEqual(reply.code == 200, role >= required, (command, role, reply.body))
        self.assertEqual([request.question.command for request in self.asked], ["J", "J", "J", "ON", "ON"])
        self.assertTrue(self.asked[-1].client.startswith("admin@127.0.0.1:"))
        recorded = [(request.client.partition("@")[0], code) for request, code in self.gateway.refused]
        self.assertEqual(recorded, [("ask", "denied")])  # the call itself is refused to `read`

    async def test_paths(self) -> None:
        """
        Only `admin` sees where devices are.
        """
        for role in ROLES.values():
            reply = await self.call_as(role, "GET /api/v1/devices")
            self.assertEqual(reply.json["devices"][0]["path"], "/dev/ttyACM0" if role is Role.ADMIN else None)

    async def test_page(self) -> None:
        """
        Everybody gets the files of the page.
        """
        for path in ("/", "/app.js", "/vendor/uplot.min.js"):
            self.assertEqual((await self.call("GET", path)).code, 200)


def _is_lost(client: RawClient) -> bool:
    return client.lost


class SensorsTests(AccessCase):
    """
    A token that may use the sensor 20 only; there is another one, 99.
    """

    def setUp(self) -> None:
        """
        Make both sensors known.
        """
        super().setUp()
        limit_to_20(self.gateway, self.tokens)

    async def call_limited(self, method: str, path: str) -> Reply:
        """
        Make a call with the token.
        """
        json: dict[str, str] | None = {} if method == "POST" else None
        return await self.call(method, path, json=json, headers={"Authorization": "Bearer secret-kids"})

    async def test_listed(self) -> None:
        """
        Nothing is shown of the other sensor.
        """
        for path in ("/api/v1/sensors", "/api/v1/alarms", "/api/v1/status", "/metrics", "/api/v1/session"):
            reply = await self.call_limited("GET", path)
            self.assertEqual(reply.code, 200)
            self.assertIn(b'"20"', reply.body)
            self.assertNotIn(b"99", reply.body)
        for path in ("/api/v1/requests", "/api/v1/alarms/history"):
            self.assertEqual((await self.call_limited("GET", path)).code, 200)
        self.assertEqual(
            (self.gateway.request_calls, self.gateway.alarm_calls), ([("20", 100)], [("20", None, None, 100)])
        )

    async def test_named(self) -> None:
        """
        The other sensor is denied where it is named, and nothing is done.
        """
        for method, path in (
            *(("GET", "sensors/99"), ("GET", "readings?sensor=99"), ("GET", "readings?sensor=20&sensor=99")),
            *(("GET", "readings.csv?sensor=99"), ("GET", "readings?sensor=99&bucket=1h")),
            *(("GET", "states?sensor=99&field=T"), ("GET", "requests?sensor=99"), ("GET", "events?sensor=99")),
            *(("GET", "alarms/history?sensor=99"), ("POST", "sensors/99/ask"), ("POST", "alarms/a99/acknowledge")),
        ):
            reply = await self.call_limited(method, f"/api/v1/{path}")
            self.assertEqual((reply.code, reply.json["code"]), (403, "denied"), (path, reply.body))
        self.assertEqual((self.asked, self.gateway.acknowledged, self.gateway.request_calls), ([], [], []))
        self.assertEqual(len(self.gateway.actions), 10)
        action = self.gateway.actions[0]
        self.assertTrue(action.client.startswith("kids@127.0.0.1:"), action)
        self.assertEqual(action[2:], ("127.0.0.1", {"ID": "99"}, None, "denied"))
        self.assertEqual(action.command, "GET /api/v1/sensors/{sensor}")
        self.gateway.actions.clear()
        self.assertEqual(
            [(request.question.sensor, code) for request, code in self.gateway.refused], [("99", "denied")]
        )
        for method, path in (("POST", "sensors/20/ask"), ("POST", "alarms/a20/acknowledge"), ("GET", "sensors/20")):
            self.assertEqual((await self.call_limited(method, f"/api/v1/{path}")).code, 200)
        (action,) = self.gateway.actions
        details = {"ALARM": "a20", "ID": "20", "BY": "127.0.0.1 (kids)"}
        self.assertEqual(action[2:], ("127.0.0.1", details, "leonardo", "done"))
        self.assertEqual(action.command, "acknowledge")

    async def test_events(self) -> None:
        """
        Nor are there events of it, neither new ones nor those that were missed.
        """
        for query in ("", "?sensor=20"):
            client = await self.listen(query, "Authorization: bearer secret-kids")
            changes = [AlarmEvent(alarm, "raised", AT) for alarm in self.gateway.raised]
            self.gateway.publish(report_event("99"), *changes, report_event("20"))
            await until(partial(_has, client, b"event: reading"))
            (first, *_) = re.findall(rb"id: (.*)", client.received)
            again = await self.listen(query, "Authorization: bearer secret-kids", f"Last-Event-ID: {first.decode()}")
            for each in (client, again):
                self.assertIn(b"event: alarm", each.received)
                self.assertNotIn(b'"99"', each.received)


class TokenTests(AccessCase):
    """
    `Authorization`.
    """

    async def test_wrong(self) -> None:
        """
        A wrong token is refused even where none is required; what is no token of ours is ignored, as the password of a
        proxy.
        """
        wrong = {"Authorization": "Bearer wrong"}
        for path in ("/healthz", "/api/v1/sensors"):
            code, kind, text = await self.problem("GET", path, headers=wrong)
            self.assertEqual((code, kind, text), (401, "denied", "there is no such token, or it has expired"))
        reply = await self.call("GET", "/healthz", headers={"Authorization": "Basic bWU6c2VjcmV0"})
        self.assertEqual(reply.code, 200)

    async def test_wrong_recorded(self) -> None:
        """
        A wrong token is recorded.
        """
        await self.call("GET", "/healthz", headers={"Authorization": "Bearer wrong"})
        (action,) = self.gateway.actions
        self.assertTrue(action.client.startswith("127.0.0.1:"))
        self.assertEqual((action.command, action.origin, action.outcome), ("auth", "127.0.0.1", "denied"))

    async def test_reloaded(self) -> None:
        """
        A stream of events without a token ends when a reload changes what its client may do.
        """
        read, command = (Rule(role, [ip_network("127.0.0.0/8")]) for role in (Role.READ, Role.COMMAND))
        self.authority.change_rules([read])
        client = await self.listen()
        self.authority.change_rules([command])
        await until(lambda: client.lost)

    async def test_removed(self) -> None:
        """
        A stream of events ends when its token is removed.
        """
        client = await self.listen("", "Authorization: bearer secret-read")
        self.tokens.remove("read")
        await until(lambda: client.lost)
        self.assertEqual((await self.call_as(Role.READ, "GET /api/v1/sensors")).code, 401)


class ProxiedTests(AccessCase):
    """
    Behind a reverse proxy, as the configuration says.
    """

    door = Door(proxied=True)
    requests_per_second = 1.0

    async def test_rates(self) -> None:
        """
        Each client behind the proxy, and each token, may make so many requests; beyond, there is 429, and when to try
        again. Files of the page count, too. All others go on.
        """
        here, there = ({"X-Forwarded-For": f"203.0.113.{number}"} for number in (9, 10))
        for path in ("/", "/healthz") * 5:
            self.assertEqual((await self.call("GET", path, headers=here)).code, 200)
        for path in ("/", "/healthz"):
            reply = await self.call("GET", path, headers=here)
            self.assertEqual((reply.code, reply.header("Retry-After"), reply.json["code"]), (429, "1", "limit"))
        for number in range(11):
            token = {"Authorization": "Bearer secret-read", "X-Forwarded-For": f"198.51.100.{number}"}
            reply = await self.call("GET", "/api/v1/sensors", headers=token)
            self.assertEqual(reply.code, 429 if number == 10 else 200)
        self.assertEqual((await self.call("GET", "/healthz", headers=there)).code, 200)

    async def test_forwarded(self) -> None:
        """
        Without a token, nobody may do anything, though the proxy is on this machine. Its word says who the client is:
        its last one, since those before it are the client's; and whether the client is encrypted.
        """
        self.assertEqual((await self.call("GET", "/api/v1/sensors")).code, 401)
        token = {"Authorization": "Bearer secret-ask"}
        for header, host in (
            ({"X-Forwarded-For": "1.2.3.4, 203.0.113.9"}, "203.0.113.9"),
            ({"Forwarded": 'for=1.2.3.4, for="[2001:db8::1]:4711";proto=https'}, "2001:db8::1"),
            ({"Forwarded": "proto=http;for=203.0.113.9"}, "203.0.113.9"),
            ({"Forwarded": 'for="1.2.3.4, for=203.0.113.9'}, "203.0.113.9"),
            ({"Forwarded": 'for=1.2.3.4, host="for=1.2.3.4;for=1.2.3.4";For="203.0.113.9:80"'}, "203.0.113.9"),
            ({"X-Forwarded-For": "203.0.113.9:4711", "Forwarded": "for=1.2.3.4"}, "203.0.113.9"),
            ({"X-Forwarded-For": "[2001:db8::1]:4711"}, "2001:db8::1"),
            ({"X-Forwarded-For": "2001:db8::1"}, "2001:db8::1"),
            ({"X-Forwarded-For": "nonsense"}, "127.0.0.1"),
            ({"Forwarded": "for=unknown"}, "127.0.0.1"),
        ):
            await self.call("POST", ASK, json={}, headers={**token, **header})
            self.assertEqual(self.asked[-1].origin, host)
            self.assertEqual(self.asked[-1].client.partition(":")[0], f"ask@{host.partition(':')[0]}")
        secure = {"X-Forwarded-Proto": "https"}
        for headers, expected in ((secure, True), ({}, False)):
            reply = await self.call("POST", "/api/v1/login", json={"token": "secret-read"}, headers=headers)
            self.assertEqual("Secure" in (reply.header("Set-Cookie") or "").split("; "), expected)

    async def test_failures(self) -> None:
        """
        Wrong tokens delay only the client that sends them, not all others behind the proxy.
        """
        for last in (9, 9, 10):
            headers = {"Authorization": "Bearer wrong", "X-Forwarded-For": f"203.0.113.{last}"}
            self.assertEqual((await self.call("GET", "/healthz", headers=headers)).code, 401)
        delays = [self.authority.failures.delay(host) for host in ("203.0.113.9", "203.0.113.10", "127.0.0.1")]
        self.assertEqual(delays, [2 * FIRST_DELAY, FIRST_DELAY, 0])


class NotProxiedTests(AccessCase):
    """
    A door without a proxy.
    """

    door = Door(Role.COMMAND)

    async def test_not_believed(self) -> None:
        """
        Nobody's word is believed: not for what is recorded, nor for the delay after a wrong token.
        """
        headers = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
        await self.call("POST", ASK, json={}, headers=headers)
        self.assertEqual(self.asked[-1].origin, "127.0.0.1")
        self.assertTrue(self.asked[-1].client.startswith("127.0.0.1:"))
        await self.call("GET", "/healthz", headers={"Authorization": "Bearer wrong", **headers})
        delays = [self.authority.failures.delay(host) for host in ("127.0.0.1", "203.0.113.9")]
        self.assertEqual(delays, [FIRST_DELAY, 0])


class CookieTests(AccessCase):
    """
    Browsers.
    """

    async def log_in(self, token: str) -> tuple[Reply, str]:
        """
        Log in; return the response, and the cookie with its attributes.
        """
        reply = await self.call("POST", "/api/v1/login", json={"token": token})
        return reply, reply.header("Set-Cookie") or ""

    async def test_session(self) -> None:
        """
        A browser that has logged in sends a cookie, which no script can read and no other site can make it send. It is
        not the token, and of no use once the browser has logged out.
        """
        before = await self.get("/api/v1/session")
        self.assertEqual(before, {"role": "none", "name": None, "sensors": None, "open": False})
        reply, cookie = await self.log_in("secret-command")
        self.assertEqual(reply.json, {"role": "command", "name": "command", "sensors": None, "open": False})
        pair, *attributes = cookie.split("; ")
        self.assertRegex(pair, f"^{COOKIE}=[0-9a-f]{{64}}$")
        self.assertEqual(sorted(attributes), ["HttpOnly", "Max-Age=34560000", "SameSite=Strict"])
        sent = {"Cookie": pair}
        self.assertEqual(
            await self.get("/api/v1/session", headers=sent),
            {"role": "command", "name": "command", "sensors": None, "open": False},
        )
        reply = await self.call("POST", ASK, json={"command": "ON"}, headers=sent)
        self.assertEqual((reply.code, self.asked[0].client.partition("@")[0]), (200, "command"))
        reply = await self.call("POST", "/api/v1/logout", json={}, headers=sent)
        self.assertEqual(reply.json, {"role": "none", "name": None, "sensors": None, "open": False})
        self.assertTrue((reply.header("Set-Cookie") or "").startswith(f"{COOKIE}=; Max-Age=0; "))
        self.assertEqual((await self.get("/api/v1/session", headers=sent))["role"], "none")
        bearer = {"Authorization": f"Bearer {pair.partition('=')[2]}"}
        self.assertEqual((await self.call("GET", "/api/v1/session", headers=bearer)).code, 401)

    async def test_ended(self) -> None:
        """
        When a browser logs out, or its token is removed, its streams of events end, too, and the cookie gives nothing.
        """
        for end in (self.log_out, self.remove_token):
            _, cookie = await self.log_in("secret-read")
            sent = {"Cookie": cookie.partition("; ")[0]}
            client = await self.listen("", f"Cookie: {sent['Cookie']}")
            await end(sent)
            await until(partial(_is_lost, client))
            self.assertEqual((await self.call("GET", "/api/v1/sensors", headers=sent)).code, 401)

    async def log_out(self, sent: dict[str, str]) -> None:
        """
        Log a browser out.
        """
        await self.call("POST", "/api/v1/logout", json={}, headers=sent)

    async def remove_token(self, sent: dict[str, str]) -> None:
        """
        Remove its token.
        """
        self.tokens.remove("read")

    async def test_recorded(self) -> None:
        """
        Who logs in and out is recorded, and who fails to, once, also if it may read without a token.
        """
        self.authority.change_rules([Rule(Role.READ, [ip_network("127.0.0.0/8")])])
        _, cookie = await self.log_in("secret-read")
        sent = {"Cookie": cookie.partition("; ")[0]}
        for _ in range(2):  # the second time, there is no session any more
            await self.log_out(sent)
        await self.log_in("wrong")
        actions = [(each.command, each.client.partition("127")[0], each.outcome) for each in self.gateway.actions]
        self.assertEqual(actions, [("login", "read@", "done"), ("logout", "read@", "done"), ("login", "", "denied")])
        self.assertEqual({each.origin for each in self.gateway.actions}, {"127.0.0.1"})

    async def test_wrong(self) -> None:
        """
        Nobody logs in with a wrong token. A cookie whose session has ended is deleted, and the client may do what
        everybody may.
        """
        reply, cookie = await self.log_in("wrong")
        self.assertEqual((reply.code, cookie), (401, ""))
        reply = await self.call("GET", "/api/v1/session", headers={"Cookie": f"{COOKIE}=old"})
        self.assertEqual(reply.json["role"], "none")
        self.assertIn("Max-Age=0", reply.header("Set-Cookie") or "")

    async def test_other_sites(self) -> None:
        """
        A page of another site can't log in, nor command with the cookie.
        """
        _, cookie = await self.log_in("secret-command")
        foreign = {"Origin": "http://evil.example", "Cookie": cookie.partition("; ")[0]}
        for path, body in (("/api/v1/login", {"token": "secret-read"}), (ASK, {"command": "ON"})):
            reply = await self.call("POST", path, json=body, headers=foreign)
            self.assertEqual((reply.code, reply.header("Set-Cookie")), (403, None))
        self.assertEqual(self.asked, [])
