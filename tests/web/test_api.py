"""
The calls of the HTTP API, on a real port.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from tests.support.memory_gateway import AT_TEXT
from tests.support.waiting import until
from tests.support.web import JSON, Reply, WebTestCase
from usbgate.core.calibration import Implausible
from usbgate.core.condition import Condition
from usbgate.core.counts import LinkCounts
from usbgate.core.errors import (
    Busy,
    Cancelled,
    Denied,
    Failed,
    LimitExceeded,
    Malformed,
    NotHeard,
    Offline,
    RequestError,
    Stopped,
    StoreUnavailable,
    TimedOut,
    Unknown,
)
from usbgate.core.model import (
    Alarm,
    Bucket,
    Button,
    DeviceWarning,
    RequestRecord,
    Selection,
    StoredAlarm,
    StoredReading,
    StoredRequest,
    StoredState,
)
from usbgate.core.replacements import Offer
from usbgate.core.settings import FieldSettings, SensorSettings
from usbgate.core.status import BrokerStatus, JournalStatus, StoreStatus
from usbgate.core.uncompared import Uncompared
from usbgate.gateway.interfaces import DeviceSummary, HeldRequest, RuleSummary, SensorSummary
from usbgate.testing import AT, reading, request

SMOKE = Alarm("a1", "leonardo", "2", "SMOKE", "== 1", 1.0, None, AT)


class SensorTests(WebTestCase):
    """
    The calls that list sensors.
    """

    def setUp(self) -> None:
        """
        Let the gateway know some sensors.
        """
        super().setUp()
        self.gateway.known_sensors = [SensorSummary("28:FF:4C:01", "leonardo", ["TEMP"], AT, 7)]
        self.gateway.readings = [
            reading(21.5, sensor="28:FF:4C:01", field="TEMP"),
            reading("OK", sensor="28:FF:4C:01", field="BAT"),
        ]
        self.gateway.known_devices = [DeviceSummary("leonardo", "/dev/x", "silent", AT)]

    async def test_all(self) -> None:
        """
        Configured sensors come first, including those that have not reported yet, then the others.
        """
        self.gateway.presented = {"2": SensorSettings(name="smoke", place="hall", poll=300.0)}
        body = await self.get("/api/v1/sensors")
        self.assertEqual(body["now"], "2013-03-11T21:02:15.123Z")
        silent, reported = body["sensors"]
        self.assertEqual(
            silent,
            {
                **{"id": "2", "name": "smoke", "place": "hall", "device": None, "device_state": None, "seen": None},
                **{"stale": True, "reports": 0, "poll": 300.0, "default_command": "S", "commands": [], "fields": []},
            },
        )
        field: dict[str, Any] = {
            **{"kind": None, "label": None, "values": {}, "states": False, "unit": None, "decimals": None},
            **{"at": AT_TEXT, "age": 5.0, "alarm": None, "alarming": False},
        }
        self.assertEqual(
            reported,
            {
                **{"id": "28:FF:4C:01", "name": None, "place": None, "device": "leonardo", "device_state": "silent"},
                **{"seen": AT_TEXT, "stale": False, "reports": 7, "poll": None, "default_command": "J", "commands": []},
                "fields": [
                    {"field": "TEMP", "value": 21.5, "text": None, **field},
                    {"field": "BAT", "value": None, "text": "OK", **field},
                ],
            },
        )

    async def test_order(self) -> None:
        """
        The fields of a sensor are in the order of the dialect, behind them those that it does not know.
        """
        self.gateway.readings = [reading(1.0, sensor="28:FF:4C:01", field=field) for field in "XABY"]
        self.gateway.known_fields = {"B": FieldSettings(rank=0), "A": FieldSettings(rank=1)}
        body = await self.get("/api/v1/sensors/28%3AFF%3A4C%3A01")
        self.assertEqual([each["field"] for each in body["fields"]], [*"BAXY"])

    async def test_presented(self) -> None:
        """
        A sensor has its presentation from the configuration and the dialect, and its fields say whether they are
        alarming.
        """
        temp = FieldSettings(
            kind="temperature",
            label={"fr": "eau"},
            values={"0": "off"},
            unit="°C",
            decimals=1,
            alarm=Condition(">", 60.0),
        )
        self.gateway.presented = {
            "28:FF:4C:01": SensorSettings(
                stale=4.0,
                device="uno",
                commands=(Button("On", "ON"), Button("Half", "L", {"LEVEL": "50", "X": "1"})),
                fields={"TEMP": temp},
            )
        }
        ended = Alarm("a2", "leonardo", "28:FF:4C:01", "BAT", "== LOW", None, "LOW", AT, ended=AT)
        self.gateway.raised = [Alarm("a1", "leonardo", "28:FF:4C:01", "TEMP", "> 60", 61.0, None, AT), ended]
        self.gateway.known_fields = {"BAT": FieldSettings(label={"en": "Battery", "fr": "Pile"})}
        body = await self.get("/api/v1/sensors/28%3AFF%3A4C%3A01")
        self.assertEqual((body["stale"], body["device"], body["device_state"]), (True, "uno", None))
        self.assertEqual(
            body["commands"],
            [
                {"label": "On", "command": "ON", "arguments": {}},
                {"label": "Half", "command": "L", "arguments": {"LEVEL": "50", "X": "1"}},
            ],
        )
        shown = {
            each["field"]: [each[key] for key in ("unit", "decimals", "alarm", "alarming")] for each in body["fields"]
        }
        self.assertEqual(shown, {"TEMP": ["°C", 1, "> 60", True], "BAT": [None, None, None, False]})
        words = [[each[key] for key in ("kind", "label", "values", "states")] for each in body["fields"]]
        self.assertEqual(
            words,
            [["temperature", {"fr": "eau"}, {"0": "off"}, True], [None, {"en": "Battery", "fr": "Pile"}, {}, False]],
        )

    async def test_unknown(self) -> None:
        """
        An unknown sensor is a problem, and so is an unknown parameter.
        """
        code, kind, _ = await self.problem("GET", "/api/v1/sensors/99")
        self.assertEqual((code, kind), (404, "unknown"))
        code, kind, text = await self.problem("GET", "/api/v1/sensors?sensr=20")
        self.assertEqual((code, kind), (400, "malformed"))
        self.assertIn("sensr", text)

    async def test_many(self) -> None:
        """
        Very many sensors are all listed, in order.
        """
        self.gateway.known_sensors = [SensorSummary(str(n), "leonardo", [], AT, 1) for n in range(1500)]
        body = (await self.get("/api/v1/sensors"))["sensors"]
        self.assertEqual([each["id"] for each in body], [str(n) for n in range(1500)])

    async def test_odd_id(self) -> None:
        """
        An id may contain the characters of a path, if they are percent-encoded. A `/` need not be.
        """
        self.gateway.presented = {"a/b%2F?ç": SensorSettings(name="odd")}
        self.assertEqual((await self.get("/api/v1/sensors/a%2Fb%252F%3F%C3%A7"))["name"], "odd")
        self.assertEqual((await self.get("/api/v1/sensors/a/b%252F%3F%C3%A7"))["name"], "odd")
        for path in ("a", "a/b", "a/b%2F%3F%C3%A7", "a/b%252F%3F%C3%A7/", "a//b%252F%3F%C3%A7", "/a/b%252F%3F%C3%A7"):
            self.assertEqual((await self.problem("GET", f"/api/v1/sensors/{path}"))[:2], (404, "unknown"), path)

    async def test_markup(self) -> None:
        """
        Markup that a device sends is text in JSON, and browsers may not sniff another type.
        """
        evil = "<img src=x onerror=alert(1)>"
        self.gateway.readings = [reading(evil, sensor="28:FF:4C:01", field="TEMP")]
        reply = await self.call("GET", "/api/v1/sensors")
        self.assertEqual(reply.json["sensors"][0]["fields"][0]["text"], evil)
        self.assertEqual(reply.header("Content-Type"), "application/json")
        self.assertEqual(reply.header("X-Content-Type-Options"), "nosniff")
        _, _, text = await self.problem("GET", "/api/v1/sensors/%3Cimg%20onerror%3D1%3E")
        self.assertIn("<img onerror=1>", text)


class AskTests(WebTestCase):
    """
    The call that asks a sensor.
    """

    def asking(self, sensor: str = "20", **body: Any) -> Deferred[Reply]:
        """
        Begin to ask a sensor.
        """
        return self.ask_for("POST", f"/api/v1/sensors/{sensor}/ask", json=body)

    async def asked(self, count: int = 1) -> None:
        """
        Wait until the gateway has received so many requests.
        """
        await until(lambda: len(self.gateway.asked) == count)

    async def test_odd_id(self) -> None:
        """
        A `/` in an id need not be percent-encoded, since nginx decodes it.
        """
        for index, (path, sensor) in enumerate([("a/b", "a/b"), ("a%2Fb", "a/b"), ("ask/ask%2Fask", "ask/ask/ask")]):
            asking = self.ask_for("POST", f"/api/v1/sensors/{path}/ask", json={})
            await self.asked(index + 1)
            self.assertEqual(self.gateway.requested[index].question.sensor, sensor)
            self.gateway.answer(index)
            self.assertEqual((await asking).code, 200)

    async def test_plain(self) -> None:
        """
        An empty body asks the default command; the origin is the peer's address, and the client has its port, too.
        """
        asking = self.asking("2")
        await self.asked()
        (request,) = self.gateway.requested
        self.assertEqual((request.question.sensor, request.question.command), ("2", "S"))
        self.assertEqual(request.origin, "127.0.0.1")
        self.assertRegex(request.client, r"^127\.0\.0\.1:\d+$")
        self.assertEqual((request.timeout, request.max_age, request.device), (None, None, None))
        self.gateway.answer(0, ("SMOKE", "0"), ("ID2", "12345678901234567890"), ("STATE", "OK"))
        response = await asking
        self.assertEqual(response.code, 200)
        self.assertEqual(
            response.json,
            {
                **{"sensor": "2", "command": "S", "device": "leonardo", "at": AT_TEXT, "recent": False},
                "values": {"SMOKE": 0.0, "ID2": "12345678901234567890", "STATE": "OK"},
            },
        )

    async def test_held(self) -> None:
        """
        A question is held, listed and cancelled; there is a problem for what is not held.
        """
        asking = self.asking(when="heard", timeout=604800)
        await self.asked()
        (asked,) = self.gateway.requested
        self.assertEqual((asked.when_heard, asked.timeout), (True, 604800.0))
        self.gateway.held_requests = [HeldRequest(7, request("20", X="1"), "leonardo", AT, AT)]
        held = {
            **{"number": 7, "at": AT_TEXT, "until": AT_TEXT, "origin": "TOTO", "client": "test"},
            **{"device": "leonardo", "sensor": "20", "command": "J", "arguments": "X:1"},
        }
        self.assertEqual(await self.get("/api/v1/held"), {"held": [held]})
        self.assertEqual((await self.call("POST", "/api/v1/held/7/cancel", json={})).json, held)
        self.gateway.fail(0, Cancelled())
        self.assertEqual((await asking).code, 409)
        (action,) = self.gateway.actions
        self.assertEqual((action.command, dict(action.details)), ("cancel", {"HELD": "7", "ID": "20", "MSG": "J"}))
        for number in ("7", "x"):
            problem = await self.problem("POST", f"/api/v1/held/{number}/cancel", json={})
            self.assertEqual(problem[:2], (404, "unknown"))

    async def test_everything(self) -> None:
        """
        Each key of the body reaches the gateway as in a request line, in the same order.
        """
        asking = self.asking(
            command="L", arguments={"level": 50, "X": "a b"}, origin="me", timeout=2.5, max_age=30, device="uno"
        )
        await self.asked()
        (request,) = self.gateway.requested
        fields = [("MSG", "L"), ("ID", "20"), ("ORIGIN", "me"), ("LEVEL", "50"), ("X", "a b")]
        self.assertEqual(list(request.fields.items()), fields)
        self.assertEqual(request.question.arguments, frozenset({("LEVEL", "50"), ("X", "a b")}))
        self.assertEqual((request.timeout, request.max_age, request.device), (2.5, 30.0, "uno"))
        self.gateway.answer(0)
        self.assertEqual((await asking).json["values"], {"VALUE": 456.0})

    async def test_failures(self) -> None:
        """
        Each error has its status and code, and its text as detail.
        """
        statuses: dict[type[RequestError], int] = {
            TimedOut: 504,
            NotHeard: 504,
            Cancelled: 409,
            Offline: 503,
            Busy: 429,
            LimitExceeded: 429,
            Denied: 403,
            Unknown: 404,
            Failed: 500,
            StoreUnavailable: 503,
            Stopped: 503,
            Malformed: 400,
        }
        for index, (kind, status) in enumerate(statuses.items()):
            asking = Deferred.fromCoroutine(self.problem("POST", "/api/v1/sensors/20/ask", json={}))
            await self.asked(index + 1)
            self.gateway.fail(index, kind("because of that"))
            self.assertEqual(await asking, (status, kind.code, "because of that"))

    async def test_malformed(self) -> None:
        """
        A malformed body is refused, and nothing is asked.
        """
        for body in (
            b"{",
            b"[]",
            b"\xff",
            b'{"comand": "J"}',
            b'{"command": 1}',
            b'{"command": "A_B:C"}',
            b'{"timeout": 0}',
            b'{"timeout": 1e9}',
            b'{"timeout": 3601}',
            b'{"when": "soon"}',
            b'{"arguments": {"WHEN": "heard"}}',
            b'{"max_age": -1}',
            b'{"arguments": {"TAG": "1"}}',
            b'{"arguments": {"id": "1"}}',
            b'{"arguments": {"A B": "1"}}',
            b'{"arguments": {"x": "1", "X": "1"}}',
            b'{"arguments": {"timeout": "1"}}',
            b'{"origin": ""}',
        ):
            code, kind, _ = await self.problem("POST", "/api/v1/sensors/20/ask", data=body, headers=JSON)
            self.assertEqual((code, kind), (400, "malformed"), body)
        code, kind, _ = await self.problem("POST", "/api/v1/sensors/a%20b/ask", json={})
        self.assertEqual((code, kind), (400, "malformed"))
        self.assertEqual(self.gateway.asked, [])

    async def test_empty_body(self) -> None:
        """
        No body is the same as an empty object.
        """
        asking = self.ask_for("POST", "/api/v1/sensors/20/ask", headers=JSON)
        await self.asked()
        self.gateway.answer(0)
        self.assertEqual((await asking).code, 200)

    async def test_hung_up(self) -> None:
        """
        A client that disconnects loses only the response; nothing is logged.
        """
        client = await self.connect()
        client.say(
            "POST /api/v1/sensors/20/ask HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 2",
            b"{}",
        )
        await self.asked()
        self.assertEqual(self.gateway.gone, [])
        client.transport.abortConnection()
        await until(lambda: not self.web.site.channels)
        self.assertEqual(self.gateway.requested[0].question.sensor, "20")
        self.assertEqual(self.gateway.gone, [(self.gateway.holders[0], 1)])
        self.assertEqual(self.gateway.holders[0].host, "127.0.0.1")

    async def test_our_fault(self) -> None:
        """
        An unexpected error is logged, and the response does not show it.
        """
        self.gateway.broken = ZeroDivisionError("secret")
        reply = await self.call("POST", "/api/v1/sensors/20/ask", json={})
        self.assertEqual((reply.code, reply.json["code"]), (500, "failed"))
        self.assertNotIn(b"secret", reply.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class HistoryTests(WebTestCase):
    """
    Stored readings and requests.
    """

    def store(self, count: int) -> None:
        """
        Let the store have so many readings of sensor 20, one each second from `AT` on.
        """
        self.gateway.stored = [
            StoredReading(10 * n, reading(n / 2, at=AT + 1000 * n, command="J" if n % 2 else None))
            for n in range(count)
        ]

    async def test_json(self) -> None:
        """
        A reading has all columns; the newest is last.
        """
        self.store(2)
        body = (await self.get("/api/v1/readings?sensor=20"))["readings"]
        self.assertEqual(
            body[1],
            {
                **{"seq": 10, "at": "2013-03-11T21:02:11.123Z", "sensor": "20", "field": "VALUE"},
                **{"device": "leonardo", "value": 0.5, "text": None, "command": "J", "clock": True},
            },
        )
        self.assertEqual([each["seq"] for each in body], [0, 10])
        self.assertEqual(await self.get("/api/v1/readings?sensor=21"), {"readings": []})

    async def test_selection(self) -> None:
        """
        Field, times and limit select readings; a time is a moment or an age.
        """
        self.store(6)
        for query, seqs in [
            ("&limit=2", [40, 50]),
            ("&field=value&since=2s", [30, 40, 50]),
            ("&field=TEMP", []),
            ("&since=2013-03-11T21:02:13.123Z&until=2013-03-11T21:02:14.123Z", [30]),
            ("&since=2013-03-11T22:02:15.123%2B01:00", [50]),
            ("&since=2013-03-11T22:02:15.123+01:00", [50]),
            ("&until=4s", [0]),
            (f"&since={AT + 3000}&until={AT + 4000}", [30]),
        ]:
            body = await self.get("/api/v1/readings?sensor=20" + query)
            self.assertEqual([each["seq"] for each in body["readings"]], seqs, query)

    async def test_malformed(self) -> None:
        """
        A query that is not understood is refused, with the parameter's name and the reason.
        """
        for query, text in [
            ("", "invalid query: sensor: required"),
            ("?sensor=", "sensor: not a sensor id: ''"),
            ("?sensor=a_b", "sensor: not a sensor id: 'a_b'"),
            ("?sensor=20&limit=1&limit=2", "limit: given twice"),
            ("?sensor=20&sensor=a_b", "sensor: not a sensor id: 'a_b'"),
            ("?" + "&".join(f"sensor={n}" for n in range(101)), "sensor: expected `array` of length <= 100"),
            (
                "?" + "&".join(f"sensor={n}&field=F{n}" for n in range(11)),
                "value out of range: more than 100 fields in all",
            ),
            ("?sensor=20&limit=0", "limit: expected `int` >= 1"),
            ("?sensor=20&limit=x", "limit: expected `int`"),
            ("?sensor=20&limit=null", "limit: expected `int`"),
            ("?sensor=20&since=soon", "since: not a time: 'soon'"),
            ("?sensor=20&field=%C3%A9", "field: not a field: 'é'"),
            ("?sensor=20&bucket=5x", "bucket: not a number with one of the units"),
            ("?sensor=20&bucket=0.1s", "bucket: not a duration from 1s to 366d: '0.1s'"),
            ("?sensor=20&limit=99999999999", "limit: expected `int` <= 9999999999"),
            ("?sensor=%FF", "not UTF-8: the query"),
            ("?sensor=20&frm=1h", "frm: unknown parameter (known: bucket, field, limit, "),
        ]:
            code, kind, detail = await self.problem("GET", "/api/v1/readings" + query)
            self.assertEqual((code, kind), (400, "malformed"))
            self.assertIn(text, detail)

    async def test_several(self) -> None:
        """
        Several sensors and fields come one after the other, in the order of the query, each newest last and with its
        own limit.
        """
        self.gateway.stored = [
            StoredReading(n, reading(n, sensor=sensor, field=field))
            for n, (sensor, field) in enumerate(
                [("20", "TEMP"), ("21", "TEMP"), ("20", "HUM"), ("20", "TEMP"), ("21", "BAT"), ("22", "TEMP")]
            )
        ]
        for query, seqs in [
            ("sensor=21&sensor=20", [1, 4, 0, 2, 3]),
            ("sensor=21&sensor=20&sensor=21&limit=1", [4, 3]),
            ("sensor=20&sensor=21&field=hum&field=TEMP", [2, 0, 3, 1]),
            ("sensor=23&sensor=22", [5]),
        ]:
            body = await self.get("/api/v1/readings?" + query)
            self.assertEqual([each["seq"] for each in body["readings"]], seqs, query)
        reply = await self.call("GET", "/api/v1/readings.csv?sensor=21&sensor=22")
        self.assertEqual([row.split(",")[0] for row in reply.body.decode().split()], ["seq", "1", "4", "5"])

    async def test_csv(self) -> None:
        """
        CSV has a header row; the path or `Accept` selects it.
        """
        self.gateway.stored = [StoredReading(7, reading('say "a, b"', command="J", clock=False))]
        expected = (
            "seq,at,sensor,field,device,value,text,command,clock\r\n"
            f'7,{AT_TEXT},20,VALUE,leonardo,,"say ""a, b""",J,false\r\n'
        )
        for path, accept in [
            ("readings.csv", "*/*"),
            ("readings", "text/csv"),
            ("readings", "text/csv;q=0.9, application/json;q=0.1"),
        ]:
            reply = await self.call("GET", f"/api/v1/{path}?sensor=20", headers={"Accept": accept})
            self.assertEqual(reply.body.decode(), expected)
            self.assertEqual(reply.header("Content-Type"), "text/csv; charset=utf-8; header=present")
            self.assertEqual(reply.header("Content-Disposition"), 'attachment; filename="20-2013-03-11-2102.csv"')
        await self.get("/api/v1/readings?sensor=20", headers={"Accept": "application/json, text/csv"})

    async def test_csv_for_spreadsheets(self) -> None:
        """
        The separator, the decimal sign and the time zone of CSV can be chosen; the file is named by the sensor's name,
        also with accents, and by the span.
        """
        self.gateway.stored = [StoredReading(7, reading(21.5, command="J"))]
        self.gateway.presented = {"20": SensorSettings(name="pièce d’été")}
        query = "sensor=20&separator=semicolon&decimal=comma&zone=Europe/Paris&since=1h"
        reply = await self.call("GET", f"/api/v1/readings.csv?{query}")
        self.assertEqual(
            reply.body.decode().splitlines()[1], "7;2013-03-11 22:02:10.123;20;VALUE;leonardo;21,5;;J;true"
        )
        self.assertEqual(
            reply.header("Content-Disposition"),
            'attachment; filename="pi_ce-d-_t_-2013-03-11-2102-to-2013-03-11-2202.csv"; '
            "filename*=UTF-8''pi%C3%A8ce-d-%C3%A9t%C3%A9-2013-03-11-2102-to-2013-03-11-2202.csv",
        )
        for query, reason in [
            ("zone=Europe/Nowhere", "zone: not a time zone of this machine: 'Europe/Nowhere'"),
            ("separator=x", "separator: invalid enum value 'x'"),
        ]:
            self.assertEqual(
                (await self.problem("GET", f"/api/v1/readings.csv?sensor=20&{query}"))[2], f"invalid query: {reason}"
            )

    async def test_buckets(self) -> None:
        """
        The store aggregates readings, with the width in milliseconds; as JSON or CSV.
        """
        self.gateway.stored_buckets = [Bucket(AT, "leonardo", "VALUE", 1.0, 2.5, 4.0, 3)]
        body = await self.get("/api/v1/readings?sensor=20&field=value&since=1h&bucket=5m&limit=7")
        bucket = {
            **{"at": AT_TEXT, "sensor": "20", "device": "leonardo", "field": "VALUE"},
            **{"min": 1.0, "avg": 2.5, "max": 4.0, "count": 3},
        }
        self.assertEqual(body, {"bucket": 300.0, "buckets": [bucket]})
        ((selection, width, limit),) = self.gateway.bucket_calls
        self.assertEqual((selection, width, limit), (Selection("20", "VALUE", AT + 5_000 - 3_600_000), 300_000, 7))
        await self.get("/api/v1/readings?sensor=20&bucket=5m&raw=true")
        self.assertEqual([each.raw for each, _, _ in self.gateway.bucket_calls], [False, True])
        reply = await self.call("GET", "/api/v1/readings.csv?sensor=20&bucket=5m")
        rows = ["at,sensor,device,field,min,avg,max,count", f"{AT_TEXT},20,leonardo,VALUE,1,2.5,4,3", ""]
        self.assertEqual(reply.body.decode(), "\r\n".join(rows))

    async def test_buckets_of_several(self) -> None:
        """
        Several sensors share the most buckets that there can be, and each bucket has its sensor.
        """
        self.gateway.stored_buckets = [Bucket(AT, "leonardo", "VALUE", 1.0, 2.5, 4.0, 3)]
        body = await self.get("/api/v1/readings?sensor=20&sensor=21&bucket=5m")
        self.assertEqual([each["sensor"] for each in body["buckets"]], ["20", "21"])
        self.assertEqual([limit for _, _, limit in self.gateway.bucket_calls], [5000, 5000])

    async def test_states(self) -> None:
        """
        The store merges equal readings.
        """
        self.gateway.stored_states = [StoredState(AT, AT, "leonardo", "BAT", None, "OK")]
        state = {"since": AT_TEXT, "until": AT_TEXT, "device": "leonardo", "field": "BAT", "value": None, "text": "OK"}
        self.assertEqual(await self.get("/api/v1/states?sensor=20&field=bat&since=1h"), {"states": [state]})
        self.assertEqual(self.gateway.state_calls, [(Selection("20", "BAT", AT + 5_000 - 3_600_000), 1000)])

    async def test_since_and_until(self) -> None:
        """
        `since` later than `until` is a mistake of the client; the same time for both selects nothing.
        """
        later, earlier = "2013-03-11T21:02:10.001Z", "2013-03-11T21:02:10Z"
        for path in ("states?field=A&", "alarms/history?"):
            found = await self.problem("GET", f"/api/v1/{path}sensor=20&since=1h&until=2h")
            self.assertEqual(found, (400, "malformed", "value out of range: since is later than until"), path)
        for path in ("readings", "readings.csv"):
            for times in (f"since={later}&until={earlier}", "since=1h&until=2h", f"since=1s&until={earlier}&bucket=1h"):
                found = await self.problem("GET", f"/api/v1/{path}?sensor=20&{times}")
                self.assertEqual(found, (400, "malformed", "value out of range: since is later than until"), times)
            for times in (f"since={earlier}&until={later}", "since=1h&until=1h", "since=2h&until=1h", "until=1h"):
                self.assertEqual((await self.call("GET", f"/api/v1/{path}?sensor=20&{times}")).code, 200, times)

    async def test_page_by_page(self) -> None:
        """
        Many readings are fetched page by page, each after the last number of the one before.
        """
        self.store(2500)
        body = await self.get("/api/v1/readings?sensor=20&limit=2400")
        self.assertEqual([each["seq"] for each in body["readings"]], [10 * n for n in range(100, 2500)])
        self.assertEqual(
            [page[1:] for page in self.gateway.pages], [(1000, 24990, 1000), (10991, 24990, 1000), (20991, 24990, 1000)]
        )

    async def test_slow_client(self) -> None:
        """
        While a client does not read, no pages are fetched for it; when it reads, it gets all of them.
        """
        self.store(60_000)
        client = await self.connect()
        client.transport.pauseProducing()
        client.say("GET /api/v1/readings.csv?sensor=20 HTTP/1.0\nHost: localhost")
        seen = -1
        while seen != len(self.gateway.pages) or seen < 1:  # until it fetches no more
            seen = len(self.gateway.pages)
            for _ in range(20):
                await self.call("GET", "/healthz")
        self.assertLess(seen, 60)
        self.assertEqual(self.gateway.pages_kept, 0)
        client.transport.resumeProducing()
        await until(lambda: client.lost)
        self.assertEqual(
            client.received.count(b"\r\n"), 60_001 + client.received.partition(b"\r\n\r\n")[0].count(b"\r\n") + 2
        )

    async def test_broken_off(self) -> None:
        """
        If the store fails in the middle, the response breaks off visibly; if before, it is a problem.
        """
        self.store(2500)
        self.gateway.page_fails = StoreUnavailable("the database went away")
        client = await self.connect()
        client.say("GET /api/v1/readings?sensor=20 HTTP/1.1\nHost: localhost")
        await until(lambda: client.lost)
        self.assertIn(b'{"readings":[', client.received)
        self.assertNotIn(b"\r\n0\r\n\r\n", client.received)
        self.gateway.broken = StoreUnavailable("the database is away")
        for path in ("readings?sensor=20", "readings.csv?sensor=20"):
            self.assertEqual(await self.problem("GET", f"/api/v1/{path}"), (503, "failed", "the database is away"))

    async def test_hung_up(self) -> None:
        """
        When a client disconnects, no more pages are fetched, and nothing is logged.
        """
        self.store(60_000)
        client = await self.connect()
        client.say("GET /api/v1/readings?sensor=20 HTTP/1.1\nHost: localhost")
        await until(lambda: client.received)
        client.transport.pauseProducing()
        await until(lambda: any(channel.transport.dataBuffer for channel in self.web.site.channels))
        client.transport.abortConnection()
        await until(lambda: not self.web.site.channels)
        self.assertLess(len(self.gateway.pages), 60)

    async def test_requests(self) -> None:
        """
        Requests are listed in the order of the store, newest first; by default 100.
        """
        record = RequestRecord(AT, "me", "127.0.0.1:5", None, "20", "J", "LEVEL:50", "offline", 1.5, True)
        self.gateway.stored_requests = [StoredRequest(9, record)]
        body = await self.get("/api/v1/requests?sensor=20&limit=5")
        self.assertEqual(
            body["requests"],
            [
                {
                    **{
                        "seq": 9,
                        "at": AT_TEXT,
                        "origin": "me",
                        "client": "127.0.0.1:5",
                        "device": None,
                        "sensor": "20",
                    },
                    **{"command": "J", "arguments": "LEVEL:50", "outcome": "offline", "latency_ms": 1.5},
                }
            ],
        )
        await self.get("/api/v1/requests")
        self.assertEqual(self.gateway.request_calls, [("20", 5), (None, 100)])
        self.assertEqual((await self.problem("GET", "/api/v1/requests?limit=1001"))[:2], (400, "malformed"))


class OtherTests(WebTestCase):
    """
    Alarms, devices and state.
    """

    async def test_alarms(self) -> None:
        """
        Alarms have the sensor's name and place, and record who acknowledges them.
        """
        self.gateway.raised = [SMOKE]
        self.gateway.presented = {"2": SensorSettings(name="smoke", place="hall")}
        alarm = {
            **{"id": "a1", "device": "leonardo", "sensor": "2", "field": "SMOKE", "name": "smoke", "place": "hall"},
            "condition": "== 1",
            **{"value": 1.0, "text": None, "since": AT_TEXT, "ended": None, "acknowledged": None},
        }
        self.assertEqual(await self.get("/api/v1/alarms"), {"alarms": [alarm]})
        reply = await self.call("POST", "/api/v1/alarms/a1/acknowledge", json={"by": "Zoé"})
        self.assertEqual(reply.json, {**alarm, "acknowledged": {"by": "Zoé", "at": AT_TEXT}})
        self.gateway.stored_alarms = [StoredAlarm(SMOKE, 2.0, ((AT, None), (AT, AT)))]
        spans = [{"since": AT_TEXT, "until": None}, {"since": AT_TEXT, "until": AT_TEXT}]
        found = await self.get("/api/v1/alarms/history?sensor=2&until=1s&limit=5")
        self.assertEqual(found, {"alarms": [{**alarm, "peak": 2.0, "spans": spans}]})
        await self.get("/api/v1/alarms/history")
        self.assertEqual(self.gateway.alarm_calls, [("2", None, AT + 4_000, 5), (None, None, None, 100)])
        await self.call("POST", "/api/v1/alarms/a1/acknowledge", json={})
        self.assertEqual(self.gateway.acknowledged, [("a1", "Zoé"), ("a1", "127.0.0.1")])
        self.assertEqual((await self.problem("POST", "/api/v1/alarms/a9/acknowledge", json={}))[:2], (404, "unknown"))

    async def test_devices(self) -> None:
        """
        Devices have their states, counts and warnings.
        """
        warning = DeviceWarning("name not unique", "ttyUSB0, ttyUSB1", "which one?")
        self.gateway.known_devices = [DeviceSummary("uno", "/dev/x", "offline", AT, LinkCounts(3), (warning,))]
        device = {
            **{"name": "uno", "path": "/dev/x", "state": "offline", "since": AT_TEXT},
            **{
                "counts": {count.key.lower(): count.value for count in LinkCounts(3)},
                "warnings": [{"reason": warning.reason, "about": warning.about, "text": warning.text}],
                "lent_to": None,
            },
        }
        self.assertEqual(await self.get("/api/v1/devices"), {"devices": [device]})

    async def test_rules(self) -> None:
        """
        Rules have their conditions, and whether these hold, which may be unknown.
        """
        self.gateway.known_rules = [
            RuleSummary("smoke", "sensor 2 SMOKE == 1", True, AT, 3, 1, 2, "no route"),
            RuleSummary("night", "time 22:00-06:00", None, None, 0, 0),
        ]
        smoke = {
            **{"name": "smoke", "when": "sensor 2 SMOKE == 1", "holds": True, "last": AT_TEXT, "fired": 3},
            **{"waiting": 1, "dropped": 2, "trouble": "no route"},
        }
        night = {
            **{"name": "night", "when": "time 22:00-06:00", "holds": None, "last": None, "fired": 0},
            **{"waiting": 0, "dropped": 0, "trouble": None},
        }
        self.assertEqual(await self.get("/api/v1/rules"), {"rules": [smoke, night]})

    async def test_replacements(self) -> None:
        """
        Sensors that were replaced, and those that may be, are listed; a replacement is made and taken back, and
        recorded.
        """
        reply = await self.call("POST", "/api/v1/sensors/a%2Fb/replace", json={"successor": "31"})
        made = {"sensor": "a/b", "successor": "31", "device": "leonardo", "since": "2013-03-11T21:02:09.123Z"}
        self.assertEqual(reply.json, {**made, "at": AT_TEXT, "by": "127.0.0.1"})
        self.assertEqual(self.gateway.actions[-1].details, {"ID": "a/b", "SUCCESSOR": "31"})
        self.gateway.offered = [Offer("21", "33", "leonardo", AT - 1000, AT)]
        offer = {**made, "sensor": "21", "successor": "33", "first": AT_TEXT}
        listed = {"replacements": [reply.json], "offers": [offer]}
        self.assertEqual(await self.get("/api/v1/replacements"), listed)
        undone = await self.call("POST", "/api/v1/sensors/a%2Fb/undo-replacement", json={})
        self.assertEqual(undone.json, reply.json)
        self.assertEqual(self.gateway.actions[-1].command, "replace undo")
        for path, body, code in (("replace", {"successor": "a_b"}, 400), ("undo-replacement", {}, 404)):
            refused = await self.call("POST", f"/api/v1/sensors/20/{path}", json=body)
            self.assertEqual(refused.code, code)

    async def test_status(self) -> None:
        """
        The gateway's status, its counts and those of the clients, as one object.
        """
        self.gateway.current_status = replace(
            self.gateway.current_status,
            sensors=4,
            in_flight=1,
            store=StoreStatus("away", "flat", 12, 1, AT, "no_route"),
            journal=JournalStatus("disk_full", 5, 0.01254, 512, 1024, 3),
            uncompared=[Uncompared("uno", "5", "TEMP", "> 60", 25, "n_a")],
            broker=BrokerStatus("away", 7, 2, 1, 3, "no_route"),
            implausible=[Implausible("uno", "5", "TEMP", 3, "85")],
            held=2,
        )
        uncompared = {"device": "uno", "sensor": "5", "field": "TEMP", "condition": "> 60"}
        journal = {"state": "trouble", "commits": 5, "slowest": 0.0125, "written": 512, "daily": 1024, "lost": 3}
        self.assertEqual(
            await self.get("/api/v1/status"),
            {
                **{"version": "1.2", "uptime": 7.0, "clock": "trusted", "gateway": "flat"},
                **{"sensors": 4, "inflight": 1, "held": 2},
                "store": {"state": "away", "backlog": 12, "oldest": AT_TEXT, "rejected": 1, "text": "no route"},
                "journal": {**journal, "text": "disk full"},
                "mqtt": {"state": "away", "published": 7, "dropped": 2, "refused": 1, "unasked": 3, "text": "no route"},
                "requests": {"answered": 3, "timeout": 1},
                "malformed": {"no key": 2},
                "uncompared": [{**uncompared, "readings": 25, "text": "n_a"}],
                "implausible": [{"device": "uno", "sensor": "5", "field": "TEMP", "readings": 3, "text": "85"}],
                "clients": {"clients": 3, "http": 1, "streams": 0},
            },
        )

    async def test_health(self) -> None:
        """
        A device that is offline, or a store that is away, is `degraded`, with status 200; a lent device is not.
        """
        for store, state, expected in [
            ("connected", "online", "ok"),
            ("none", "lent", "ok"),
            ("away", "online", "degraded"),
            ("connected", "offline", "degraded"),
        ]:
            self.gateway.current_status = replace(self.gateway.current_status, store=StoreStatus(store))
            self.gateway.known_devices = [DeviceSummary("uno", "/dev/x", state, AT)]
            body = await self.get("/healthz")
            self.assertEqual(body, {"status": expected, "store": store, "devices": {"uno": state}})

    async def test_metrics(self) -> None:
        """
        Counts and states have metrics; those that count lines say so in their names.
        """
        counts = LinkCounts(3, 2, fields_left_out=4)
        self.gateway.known_devices = [DeviceSummary("uno", "/dev/x", "offline", AT, counts)]
        self.gateway.current_status = replace(
            self.gateway.current_status,
            store=StoreStatus("away", "pi", backlog=12, oldest=AT),
            journal=JournalStatus(commits=5, slowest_commit=0.25, lost=7),
        )
        reply = await self.call("GET", "/metrics")
        self.assertEqual(reply.code, 200)
        self.assertRegex(reply.header("Content-Type") or "", "^text/plain")
        lines = reply.body.decode().splitlines()
        for line in (
            "usbgate_readings_total 12.0",
            'usbgate_lines_total{device="uno",kind="in"} 3.0',
            'usbgate_fields_left_out_total{device="uno"} 4.0',
            'usbgate_malformed_lines_total{reason="no key"} 2.0',
            'usbgate_requests_total{outcome="timeout"} 1.0',
            'usbgate_answer_seconds_bucket{le="0.5"} 2.0',
            'usbgate_answer_seconds_bucket{le="+Inf"} 3.0',
            "usbgate_answer_seconds_sum 1.25",
            "usbgate_journal_rows 12.0",
            "usbgate_journal_age_seconds 5.0",
            "usbgate_journal_commits_total 5.0",
            "usbgate_journal_slowest_commit_seconds 0.25",
            "usbgate_journal_lost_rows_total 7.0",
            'usbgate_store_state{state="away"} 1.0',
            'usbgate_store_state{state="connected"} 0.0',
            'usbgate_device_state{device="uno",state="offline"} 1.0',
            'usbgate_clients{kind="clients"} 3.0',
            'usbgate_clients{kind="http"} 1.0',
        ):
            self.assertIn(line, lines)
        for count in counts:
            kind = f'usbgate_lines_total{{device="uno",kind="{count.key.lower()}"}}'
            self.assertEqual(f"{kind} {count.value:.1f}" in lines, count.lines, count)


class CsvTests(WebTestCase):
    """
    CSV for spreadsheets.
    """

    async def test_formulas(self) -> None:
        """
        A text that a spreadsheet takes for a formula is defused, a number is not, and the query may ask for neither.
        """
        row = reading(-1.5, sensor="=A1")._replace(text="@SUM(1)")
        self.gateway.stored = [StoredReading(7, row)]
        for query, expected in (
            ("", "'=A1,VALUE,leonardo,-1.5,'@SUM(1),"),
            ("&formulas=kept", "=A1,VALUE,leonardo,-1.5,@SUM(1),"),
        ):
            reply = await self.call("GET", f"/api/v1/readings.csv?sensor=%3DA1{query}")
            self.assertIn(f",{expected}", reply.body.decode())
