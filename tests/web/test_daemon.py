"""
The HTTP API of the real daemon, with a device on a pty and a real PostgreSQL. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from contextlib import closing
from threading import Thread
from typing import Any

from tests.support.daemon import RunningCase, StoreCase, value_of
from tests.support.running import RUN, TwistdDaemon, free_port
from tests.support.waiting import LIMIT, eventually
from usbgate.daemon.service import raise_file_limit

# Enough for the test; more would make it slow.
STREAMS = 1000 if os.environ.get("USBGATE_FAULTS") == "full" else 200


class WebDaemon(TwistdDaemon):
    """
    The daemon with its HTTP API.
    """

    def __init__(self, *arguments: Any, **others: Any) -> None:
        self.http_port = free_port()
        super().__init__(*arguments, http=f"tcp:{self.http_port}:interface=127.0.0.1", program=RUN, **others)

    def connect(self) -> http.client.HTTPConnection:
        """
        Connect to the HTTP port.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=LIMIT)
        connection.connect()
        return connection

    def call(self, method: str, path: str, body: object = None) -> Any:
        """
        Make a call, and return its response, which is JSON.
        """
        with closing(self.connect()) as connection:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())

    def stream(self) -> socket.socket:
        """
        Open a stream of events.
        """
        client = socket.create_connection(("127.0.0.1", self.http_port), LIMIT)
        client.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return client

    def memory_peak(self) -> int:
        """
        Return the peak of its memory since `forget_peak`, in bytes.
        """
        with open(f"/proc/{self.process.pid}/status") as status:
            (line,) = [line for line in status if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    def forget_peak(self) -> None:
        """
        Reset the peak.
        """
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as file:
            file.write("5")


class WebRunningCase(StoreCase):
    """
    Tests with a `WebDaemon`.
    """

    def run_web(self, *options: str) -> WebDaemon:
        """
        Run a daemon until the end of the test.
        """
        daemon = WebDaemon(self.state, *options)
        self.addCleanup(daemon.stop)
        daemon.ready()
        return daemon


class AlarmTests(WebRunningCase):
    """
    Alarms.
    """

    def test_kept(self) -> None:
        """
        An alarm is listed until it has ended and is acknowledged; a `kill -9` and a restart neither lose it nor raise
        it again.
        """
        device = self.plug(lambda fields: [])
        config = self.state.parent / "usbgate.toml"
        config.write_text('[sensor.2]\nname = "smoke"\n[sensor.2.field.SMOKE]\nalarm = "== 1"\n')
        options = "--device", str(device.path), "--database", self.database, "--config", str(config)
        daemon = self.run_web(*options)
        self.online(daemon)
        stream = daemon.stream().makefile("rb")
        self.assertTrue(any(line.startswith(b":") for line in stream), "the stream has begun")
        device.say(b"ID:2_SMOKE:1")
        event = next(line for line in stream if line == b"event: alarm\n") and json.loads(next(stream)[6:])
        stream.close()
        (raised,) = daemon.call("GET", "/api/v1/alarms")["alarms"]
        self.assertEqual(raised, event)
        self.assertEqual(
            (raised["sensor"], raised["field"], raised["name"], raised["condition"], raised["value"], raised["ended"]),
            ("2", "SMOKE", "smoke", "== 1", 1, None),
        )
        eventually(lambda: self.rows("select alarm, event from alarm_event"), "it is stored")
        daemon.kill()
        daemon = self.run_web(*options)
        self.online(daemon)
        eventually(lambda: daemon.call("GET", "/api/v1/alarms")["alarms"] == [raised], "it is known again")
        device.say(b"ID:2_SMOKE:1", b"ID:2_SMOKE:0")
        eventually(lambda: daemon.call("GET", "/api/v1/alarms")["alarms"][0]["ended"], "it has ended")
        seen = daemon.call("POST", f"/api/v1/alarms/{raised['id']}/acknowledge", {"by": "Anna"})
        self.assertEqual(seen["acknowledged"]["by"], "Anna")
        self.assertEqual(daemon.call("GET", "/api/v1/alarms")["alarms"], [])
        self.assertEqual(daemon.call("POST", f"/api/v1/alarms/{raised['id']}/acknowledge", {})["code"], "unknown")
        stored = [(raised["id"], event) for event in ("raised", "ended", "acknowledged")]
        eventually(lambda: self.rows("select alarm, event from alarm_event order by seq") == stored, "all is stored")

    def test_nothing_else_ends_it(self) -> None:
        """
        An alarm is ended neither by a reading that is no number, nor by another device, nor by an acknowledgement that
        cannot be stored; after its device was removed from the configuration, by an acknowledgement.
        """
        devices = [self.plug(lambda fields: [], name) for name in ("ttyACM0", "ttyACM1")]
        config = self.state.parent / "usbgate.toml"
        common = '[sensor.3.field.TEMP]\nalarm = "> 60"\n[sensor.4.field.STATUS]\nalarm = "!= OK"\n'
        names = "".join(f'[device.{name}]\npath = "{each.path}"\n' for name, each in zip("ab", devices, strict=True))
        config.write_text(common + names)
        options = "--database", self.database, "--config", str(config)
        daemon = self.run_web(*options)
        self.online(daemon)
        devices[0].say(b"ID:3_TEMP:75", b"ID:3_TEMP:nan", b"ID:4_STATUS:17")

        def alarms() -> list[tuple[str, str, bool]]:
            found = daemon.call("GET", "/api/v1/alarms")["alarms"]
            return sorted((each["device"], each["sensor"], each["ended"] is not None) for each in found)

        eventually(lambda: alarms() == [("a", "3", False), ("a", "4", False)], "they are raised")
        devices[1].say(b"ID:3_TEMP:20", b"ID:4_STATUS:OK", b"ID:3_TEMP:80")
        raised = [("a", "3", False), ("a", "4", False), ("b", "3", False)]
        eventually(lambda: alarms() == raised, "each device has its own")
        ids = {(each["device"], each["sensor"]): each["id"] for each in daemon.call("GET", "/api/v1/alarms")["alarms"]}
        path = f"/api/v1/alarms/{ids['a', '3']}/acknowledge"
        self.assertEqual(daemon.call("POST", path, {"by": "Anna\0"})["status"], 400)
        self.assertEqual(alarms(), raised)
        eventually(lambda: len(self.rows("select 1 from alarm_event")) == 3, "they are stored")
        daemon.stop()
        config.write_text(common + names.replace("[device.a]", "[device.c]"))
        daemon = self.run_web(*options)
        self.online(daemon)
        eventually(lambda: alarms() == raised, "they are restored")
        self.assertTrue(daemon.call("POST", path, {"by": "Anna"})["ended"])
        self.assertEqual(alarms(), raised[1:])
        stored = [("a", "acknowledged", "Anna"), ("a", "ended", "Anna")]
        query = "select device, event, who from alarm_event where event <> 'raised' order by seq"
        eventually(lambda: self.rows(query) == stored, "it is stored")


class WebJobTests(WebRunningCase):
    """
    Asking, storing and events.
    """

    def test_asked_by_both(self) -> None:
        """
        The same question over HTTP and TCP at the same time is one message to the device; both requests are recorded
        with their addresses.
        """
        device = self.plug(lambda fields: [])
        daemon = self.run_web("--device", str(device.path), "--database", self.database)
        asker = self.online(daemon)
        asker.say("MSG:J_ID:20_ORIGIN:TOTO")
        self.assertEqual(asker.receive(), "MSG:J_ID:20_ORIGIN:TOTO")
        with closing(daemon.connect()) as connection:
            address, port = connection.sock.getsockname()
            body = json.dumps({"origin": "page"})
            connection.request("POST", "/api/v1/sensors/20/ask", body, {"Content-Type": "application/json"})
            eventually(lambda: daemon.call("GET", "/api/v1/status")["inflight"] == 2, "both wait")
            device.say(b"ID:20_VALUE:456_MSG:J")
            answer = json.loads(connection.getresponse().read())
        self.assertEqual({**answer, "at": ""}, {
            **{"sensor": "20", "command": "J", "device": "ttyACM0", "at": "", "recent": False},
            "values": {"VALUE": 456.0},
        })  # fmt: skip
        self.assertIn("VALUE:456", asker.receive())
        self.assertEqual(device.received, [b"MSG:J_ID:20_ORIGIN:TOTO"])
        eventually(lambda: len(self.rows("select 1 from request")) == 2, "both requests are stored")
        rows = self.rows("select client from request where origin = 'page' and outcome = 'answered'")
        self.assertEqual(rows, [(f"{address}:{port}",)])
        requests = daemon.call("GET", "/api/v1/requests?sensor=20")["requests"]
        self.assertEqual(sorted(each["origin"] for each in requests), ["TOTO", "page"])
        self.assertEqual(daemon.call("GET", "/api/v1/status")["requests"], {"answered": 2})

    def test_history(self) -> None:
        """
        A report is published, stored, and returned from the database as JSON, CSV and aggregates; the settings of
        [http] count.
        """
        device = self.plug()
        config = self.folder / "usbgate.toml"
        config.write_text('[http]\ncors = ["https://house.example"]\nmetrics_limit = 0\n')
        options = "--device", str(device.path), "--database", self.database, "--config", str(config)
        daemon = self.run_web(*options)
        self.online(daemon)
        with closing(daemon.stream()) as client, client.makefile("rb") as stream:
            while not stream.readline().startswith(b"id: "):
                pass
            device.say(*[f"ID:22_TEMP:{n}_STATE:OK".encode() for n in range(10)])
            eventually(lambda: len(self.rows("select 1 from reading")) == 20, "all readings are stored")
            for n in range(10):
                while not (line := stream.readline()).startswith(b"data: "):
                    pass
                self.assertEqual(json.loads(line[6:])["values"], {"TEMP": float(n), "STATE": "OK"})
        readings = daemon.call("GET", "/api/v1/readings?sensor=22&field=TEMP&since=1h")["readings"]
        self.assertEqual([each["value"] for each in readings], [float(n) for n in range(10)])
        self.assertEqual(daemon.call("GET", "/api/v1/readings?sensor=22&since=1h&until=2h")["status"], 400)
        with closing(daemon.connect()) as connection:
            connection.request("GET", "/api/v1/readings.csv?sensor=22&limit=2")
            names, *rows = connection.getresponse().read().decode().splitlines()
        self.assertEqual((names[:16], len(rows)), ("seq,at,sensor,fi", 2))
        buckets = daemon.call("GET", "/api/v1/readings?sensor=22&bucket=366d")["buckets"]
        self.assertEqual(
            [(each["min"], each["avg"], each["max"], each["count"]) for each in buckets], [(0, 4.5, 9, 10)]
        )
        self.assertEqual(daemon.call("GET", "/healthz")["status"], "ok")
        with closing(daemon.connect()) as connection:
            connection.request("GET", "/metrics", headers={"Origin": "https://house.example"})
            response = connection.getresponse()
            self.assertEqual(response.headers["Access-Control-Allow-Origin"], "https://house.example")
            metrics = response.read()
            self.assertIn(b"\nusbgate_readings_total 20.0\n", metrics)
            self.assertIn(b'\nusbgate_metrics_left_out{what="readings"} 1.0\n', metrics)
        (sensor,) = daemon.call("GET", "/api/v1/sensors")["sensors"]
        self.assertEqual((sensor["id"], sensor["device_state"], sensor["stale"]), ("22", "online", False))
        self.assertEqual(daemon.stop(), -15)
        self.assertNotIn("Traceback", daemon.log)
        self.assertNotIn("1970", daemon.log)

    def test_store_events(self) -> None:
        """
        Losing the database is an event; history fails with status 503 then, and what is in memory does not.
        """
        device = self.plug()
        daemon = self.run_web("--device", str(device.path), "--database", self.database)
        client = self.online(daemon)
        with closing(daemon.stream()) as hearing, hearing.makefile("rb") as stream:
            eventually(lambda: any("STORE:connected" in line for line in client.word("status")), "it is connected")
            name = self.database.rpartition("/")[2]
            self.server.query(self.server.url, f"alter database {name} allow_connections false")
            self.server.query(
                self.server.url, "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,)
            )
            while (line := stream.readline()) != b'data: {"state":"away","backlog":0}\n':
                self.assertTrue(line)
        self.assertEqual(daemon.call("GET", "/api/v1/readings?sensor=20")["status"], 503)
        device.say(b"ID:garage/door_OPEN:1")
        eventually(lambda: daemon.call("GET", "/api/v1/sensors")["sensors"], "its report arrived")
        for path in ("garage%2Fdoor", "garage/door"):
            self.assertEqual(daemon.call("GET", f"/api/v1/sensors/{path}")["id"], "garage/door")


class ManyTests(WebRunningCase):
    """
    Many rows and many clients.
    """

    def test_many_rows(self) -> None:
        """
        Sending many rows as JSON or CSV takes little memory.
        """
        device = self.plug()
        daemon = self.run_web("--device", str(device.path), "--database", self.database)
        self.online(daemon)
        eventually(lambda: daemon.call("GET", "/api/v1/status")["store"]["state"] == "connected", "the store is there")
        self.rows(
            "insert into reading select now() - n * interval '1 s', (select name from gateway), 1000000 - n, 'd', '20',"
            " 'VALUE', n, null, null, true from generate_series(1, 40000) as n"
        )
        daemon.call("GET", "/api/v1/readings?sensor=20&limit=5000")
        daemon.forget_peak()
        before = daemon.memory_peak()
        size = 0
        for path, mark in [("readings", b"}"), ("readings.csv", b"\n")]:
            with closing(daemon.connect()) as connection:
                connection.request("GET", f"/api/v1/{path}?sensor=20")
                response = connection.getresponse()
                count = 0
                while data := response.read(1 << 20):
                    size += len(data)
                    count += data.count(mark)
                self.assertEqual(count, 40_001)
        self.assertGreater(size, 7_500_000)
        self.assertLess(daemon.memory_peak() - before, 6_000_000)

    def test_many_streams(self) -> None:
        """
        With many streams, some of which are not read, the others lose no event, and requests are answered.
        """
        raise_file_limit()
        device = self.plug(value_of)
        daemon = self.run_web("--device", str(device.path), "--database", "none")
        asker = self.online(daemon)
        clients = [daemon.stream() for _ in range(STREAMS)]
        for client in clients:
            self.addCleanup(client.close)
        eventually(lambda: daemon.call("GET", "/api/v1/status")["clients"]["streams"] == STREAMS, "all are there")
        reading = clients[STREAMS // 10 :]  # the others do not
        received: list[list[Any]] = []
        threads = [Thread(target=self.receive, args=(part, received)) for part in (reading[::2], reading[1::2])]
        for thread in threads:
            thread.start()
        for n in range(30):
            device.say(f"ID:7_VALUE:{n}".encode())
            asker.say(f"MSG:J_ID:20_ORIGIN:TOTO_TAG:{n}")
            self.assertIn(f"TAG:{n}", asker.receive())
            self.assertIn("VALUE:456", asker.receive())
        for thread in threads:
            thread.join(LIMIT)
        self.assertEqual(received, [[float(n) for n in range(30)]] * len(reading))
        self.assertEqual(daemon.stop(), -15)
        self.assertNotIn("Traceback", daemon.log)

    def receive(self, clients: list[socket.socket], received: list[list[Any]]) -> None:
        """
        Read the readings of sensor 7 from each client.
        """
        for client in clients:
            values: list[Any] = []
            with client.makefile("rb") as stream:
                while len(values) < 30:
                    line = stream.readline()
                    if line.startswith(b"data: ") and b'"sensor":"7"' in line:
                        values.append(json.loads(line[6:])["values"]["VALUE"])
                    if not line:
                        break
            received.append(values)


class AddressTests(RunningCase):
    """
    The address of the HTTP port.
    """

    def test_default_taken(self) -> None:
        """
        If the default address is in use, that is logged once, and the daemon runs without HTTP.
        """
        with contextlib.suppress(OSError):  # another program that has it will do, too
            self.addCleanup(socket.create_server(("127.0.0.1", 8080)).close)
        daemon = TwistdDaemon(self.state, "--device", "/dev/null", "--database", "none", http=None, program=RUN)
        self.addCleanup(daemon.stop)
        self.assertEqual(self.connect(daemon.ready()).word("status")[-1], "OK:status")
        self.assertEqual(daemon.log.count("cannot listen on tcp:8080:interface=127.0.0.1: "), 1)
        self.assertNotIn("the page is at", daemon.log)

    def test_asked_for_taken(self) -> None:
        """
        If a configured address is in use, the start fails with one line that names it.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            options = ("--device", "/dev/null", "--database", "none")
            http = f"tcp:{port}:interface=127.0.0.1"
            daemon = TwistdDaemon(self.state, *options, http=http, program=RUN)
            self.addCleanup(daemon.kill)
            self.assertEqual(daemon.process.wait(LIMIT), 1)
        self.assertIn(f"cannot listen on {http}: Address already in use; ", daemon.log)
        self.assertNotIn("Traceback", daemon.log)

    def test_says_where(self) -> None:
        """
        The page's address is logged once; with HTTP off, none of its modules are imported.
        """
        device = self.plug()
        daemon = WebDaemon(self.state, "--device", str(device.path), "--database", "none")
        self.addCleanup(daemon.stop)
        daemon.ready()
        address = f"the page is at http://127.0.0.1:{daemon.http_port}/"
        eventually(lambda: address in daemon.log, "the address is logged")
        self.assertEqual(daemon.call("GET", "/healthz")["store"], "none")
        self.assertEqual(daemon.log.count(address), 1)
        loaded = "import sys, usbgate.tap; print([name for name in sys.modules if name in ('klein', 'usbgate.web')])"
        self.assertEqual(self.run_forked(loaded), (0, "[]\n"))
