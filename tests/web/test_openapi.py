"""
The OpenAPI document: it is complete, and schemathesis finds that the API conforms to it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import skipIf

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests.support.running import ROOT, environment
from tests.support.web import WebTestCase
from usbgate.access import failures
from usbgate.core.counts import LinkCounts
from usbgate.core.holders import Holder
from usbgate.core.model import (
    Alarm,
    Answer,
    Bucket,
    Report,
    Request,
    RequestRecord,
    StoredAlarm,
    StoredReading,
    StoredRequest,
    StoredState,
)
from usbgate.gateway.interfaces import DeviceSummary, SensorSummary
from usbgate.testing import AT, reading
from usbgate.web.api import Api
from usbgate.web.openapi import document

CASES = 100 if os.environ.get("USBGATE_FAULTS") == "full" else 5  # generated cases a call

# No schema can say that `since` is not later than `until`, nor that a timeout of more than an hour requires `when`.
_EXCEPTIONS = """
[[operations]]
include-path = [
    "/api/v1/readings", "/api/v1/readings.csv", "/api/v1/states", "/api/v1/alarms/history",
    "/api/v1/sensors/{sensor}/ask",
]
checks.positive_data_acceptance.enabled = false
"""


class DocumentTests(SynchronousTestCase):
    """
    The document itself.
    """

    def test_complete(self) -> None:
        """
        It has every route but those of the page's files.
        """
        routes = {
            (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
            for rule in Api.app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD"}
        }
        paths = document(Api.calls.documented)["paths"]
        documented = {(method, path) for path, methods in paths.items() for method in methods}
        self.assertEqual(routes - {("get", "/"), ("get", "/{name}"), ("get", "/vendor/{name}")}, documented)

    def test_described(self) -> None:
        """
        Every call is in the table of docs/http.md, or, for another form of one, in its text.
        """
        text = (ROOT / "docs" / "http.md").read_text()
        for call in Api.calls.documented:
            path = re.sub(r"\{\w+\}", "ID", call.path)
            self.assertRegex(text, rf"`(GET |POST )?{re.escape(path)}[`?]", path)

    def test_references(self) -> None:
        """
        All references resolve, and each call has a name of its own.
        """
        whole = document(Api.calls.documented)
        referred: set[str] = set()
        names: list[str] = []

        def look(part: Any) -> None:
            if isinstance(part, dict):
                if isinstance(part.get("$ref"), str):
                    referred.add(part["$ref"])
                if isinstance(part.get("operationId"), str):
                    names.append(part["operationId"])
                part = list(part.values())
            if isinstance(part, list):
                for each in part:
                    look(each)

        look(whole)
        known = {f"#/components/schemas/{name}" for name in whole["components"]["schemas"]}
        self.assertLessEqual(referred, known)
        self.assertEqual(len(set(names)), len(Api.calls.documented))


@skipIf(find_spec("schemathesis") is None, "schemathesis is not installed")
class SchemathesisTests(WebTestCase):
    """
    A site with a little of everything, which answers at once.
    """

    def setUp(self) -> None:
        """
        Fill the gateway; refuse a login at once, however many failed before.
        """
        super().setUp()
        self.patch(failures, "LONGEST_DELAY", 0.0)
        gateway = self.gateway
        gateway.known_sensors = [SensorSummary("20", "leonardo", ["VALUE"], AT, 7)]
        gateway.readings = [reading()]
        gateway.known_devices = [DeviceSummary("leonardo", "/dev/x", "online", AT, LinkCounts(3))]
        gateway.stored = [StoredReading(n, reading(n / 2)) for n in range(3)]
        gateway.stored_buckets = [Bucket(AT, "leonardo", "VALUE", 1.0, 2.5, 4.0, 3)]
        gateway.stored_requests = [
            StoredRequest(9, RequestRecord(AT, "me", "127.0.0.1:5", None, "20", "J", None, "offline", 1.5, True))
        ]
        gateway.raised = [Alarm("a1", "leonardo", "2", "SMOKE", "== 1", 1.0, None, AT)]
        gateway.stored_states = [StoredState(AT, AT + 9, "leonardo", "SMOKE", 1.0, None)]
        gateway.stored_alarms = [StoredAlarm(gateway.raised[0], 1.0, ((AT, None),))]

        def answer(request: Request, holder: Holder) -> Deferred[Answer]:
            question = request.question
            report = Report(question.sensor, None, None, (("VALUE", "456"), ("STATE", "OK")))
            return succeed(Answer(report, question.command, AT, "leonardo"))

        self.patch(gateway, "ask", answer)

    async def test_schemathesis(self) -> None:
        """
        Each response to valid and invalid calls conforms to the document, and none is a server error.
        """
        finished = await deferToThread(self.run_schemathesis)
        self.assertEqual(finished.returncode, 0, finished.stdout + finished.stderr)
        self.assertRegex(finished.stdout, r"1[0-9] passed|No issues found")

    def run_schemathesis(self) -> subprocess.CompletedProcess[str]:
        """
        Run schemathesis against the site.
        """
        base = f"http://127.0.0.1:{self.port}"
        config = Path(self.mktemp()).absolute()
        config.write_text(_EXCEPTIONS)
        return subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "schemathesis.cli",
                    "--config-file",
                    str(config),
                    "run",
                    f"{base}/api/v1/openapi.json",
                    "--url",
                    base,
                ),
                # Events never end.
                *("--exclude-path", "/api/v1/events", "--phases", "examples,coverage,fuzzing"),
                *("--max-examples", str(CASES), "--seed", "1", "--generation-database", "none", "--warnings", "off"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env={**environment(), "NO_COLOR": "1"},
            timeout=240,
            start_new_session=True,
        )
