"""
The dashboards for Grafana in etc/grafana: each of their queries finds something in the demo's home.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any
from unittest import skipIf
from urllib.parse import quote
from urllib.request import Request, urlopen

from twisted.trial.unittest import SynchronousTestCase

from tests.support import postgresql
from tests.support.folders import new_folder
from tests.support.home import Home, flat
from tests.support.running import ROOT, free_port
from tests.support.waiting import LIMIT, eventually

PROMETHEUS = shutil.which("prometheus")


def read(name: str) -> dict[str, Any]:
    """
    Return a dashboard.
    """
    dashboard: dict[str, Any] = json.loads((ROOT / "etc" / "grafana" / f"{name}.json").read_text())
    return dashboard


def queries(part: Any, *keys: str) -> Iterator[str]:
    """
    Find all queries, which are texts under one of these keys.
    """
    if isinstance(part, dict):
        for key, value in part.items():
            if key in keys and isinstance(value, str):
                yield value
            yield from queries(value, *keys)
    elif isinstance(part, list):
        for each in part:
            yield from queries(each, *keys)


def call(home: Home, path: str, body: object = None) -> Any:
    """
    Make a call of the API, and return its JSON; a problem is a response, too.
    """
    data = None if body is None else json.dumps(body).encode()
    request = Request(home.url + path, data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=LIMIT) as response:
        return json.load(response)


class DashboardTests(SynchronousTestCase):
    """
    A home with an open alarm, a malformed line, and requests of which one failed.
    """

    def setUp(self) -> None:
        """
        Let it happen, unless it has.
        """
        self.home = flat()
        call(self.home, "api/v1/sensors/20/ask", {})
        with self.assertRaises(OSError):
            call(self.home, "api/v1/sensors/99/ask", {})
        self.home.device.say(b"this is no line")
        self.home.say("98", "TEMP:75")
        self.addCleanup(self.end_alarm)
        eventually(self.is_stored, "the alarm and the requests are stored")

    def is_stored(self) -> bool:
        """
        Return whether everything is in the database.
        """
        count = "(select count(*) from request where outcome = 'timeout'), (select count(*) from request)"
        ((alarms, failed, all_requests),) = self.query(
            f"select (select count(*) from alarm where sensor = '98' and ended is null), {count}"
        )
        return bool(alarms and failed and all_requests > failed)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """
        Query the home's database.
        """
        return postgresql.server().query(self.home.database, sql)

    def end_alarm(self) -> None:
        """
        Leave no alarm behind.
        """
        self.home.say("98", "TEMP:40")
        for alarm in call(self.home, "api/v1/alarms")["alarms"]:
            if alarm["sensor"] == "98":
                call(self.home, f"api/v1/alarms/{alarm['id']}/acknowledge", {})
        eventually(lambda: not call(self.home, "api/v1/alarms")["alarms"], "the alarm is over")

    def test_postgresql(self) -> None:
        """
        Each query of the dashboard over PostgreSQL returns rows to the role of docs/operating.md.
        """
        server, role = postgresql.server(), f"grafana_{uuid.uuid4().hex[:8]}"
        page = (ROOT / "docs" / "operating.md").read_text()
        (grants,) = [block for block in re.findall(r"(?s)```sql\n(.*?)```", page) if "role grafana" in block]
        self.query(re.sub(r"\bgrafana\b", role, grants))
        self.addCleanup(self.query, f"drop owned by {role}; drop role {role}")
        url = server.url_of(self.home.database.rpartition("/")[2], user=role, password="choose%20one")
        dashboard = read("usbgate-postgresql")
        found = [
            *queries(dashboard["panels"], "rawSql"),
            *queries([each for each in dashboard["templating"]["list"] if each["type"] == "query"], "query"),
            *queries(dashboard["annotations"], "rawSql"),
        ]
        self.assertEqual(len(found), 9)
        for sql in found:
            self.assertTrue(server.query(url, self.expand_sql(sql)), sql)

    def expand_sql(self, sql: str) -> str:
        """
        Put in what Grafana does for its macros and variables.
        """
        hour = "now() - interval '1 h' and now() + interval '1 h'"
        sql = re.sub(r"\$__timeFilter\(([^)]+)\)", rf"\1 between {hour}", sql)
        sql = re.sub(
            r"\$__timeGroupAlias\(([^,]+), \$__interval\)", r'floor(extract(epoch from \1) / 60) * 60 as "time"', sql
        )
        sql = sql.replace("${gateway:sqlstring}", "'demo'").replace("${id:sqlstring}", "'20','98.TEMP'")
        self.assertNotIn("$", sql)
        return sql

    def prometheus_queries(self) -> list[str]:
        """
        Return the queries of the dashboard over Prometheus, with their variables put in.
        """
        found = list(queries(read("usbgate-prometheus")["panels"], "expr"))
        self.assertEqual(len(found), 14)
        texts = [text.replace("$__rate_interval", "1m").replace("$job", "usbgate") for text in found]
        texts = [text.replace("$sensor", "98|20") for text in texts]
        self.assertNotIn("$", "".join(texts))
        return texts

    def test_names(self) -> None:
        """
        Each metric and each label that the dashboard over Prometheus names is in the metrics.
        """
        with urlopen(f"{self.home.url}metrics", timeout=LIMIT) as response:
            text = response.read().decode()
        variables = [each["query"] for each in read("usbgate-prometheus")["templating"]["list"]]
        self.assertIn("label_values(usbgate_info, job)", variables)
        for query in [*self.prometheus_queries(), *variables]:
            for name, selected in re.findall(r"(usbgate_\w+)(?:\{([^}]*)\})?", query):
                sample = re.search(rf"(?m)^{name}(?:\{{(.*)\}})? \S+$", text)
                assert sample is not None, f"{name} is no metric"
                labels = set(re.findall(r'(\w+)=~?"', sample[1] or "")) | {"job"}  # which Prometheus adds
                named = {*re.findall(r"(\w+)=~?", selected), *re.findall(r"by \(([\w, ]+)\)", query)}
                for label in filter(None, ", ".join(named).split(", ")):
                    self.assertIn(label, labels, query)

    @skipIf(PROMETHEUS is None, "Prometheus is not installed")
    def test_prometheus(self) -> None:
        """
        Each query of the dashboard over Prometheus finds something in a Prometheus that reads the home's metrics.
        """
        folder, port = new_folder(), free_port()
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        config = folder / "prometheus.yml"
        target = self.home.url.removeprefix("http://").rstrip("/")
        config.write_text(
            "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
            f"scrape_configs: [{{job_name: usbgate, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(str(PROMETHEUS), f"--config.file={config}", f"--storage.tsdb.path={folder}/data"),
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.addCleanup(process.wait, LIMIT)
        self.addCleanup(process.terminate)

        def finds(query: str) -> bool:
            url = f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}"
            try:
                with urlopen(url, timeout=LIMIT) as response:
                    return bool(json.load(response)["data"]["result"])
            except OSError:
                return False

        for query in self.prometheus_queries():
            eventually(lambda: finds(query), query)  # noqa: B023  # waited for here
