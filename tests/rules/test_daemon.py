"""
Rules in a real daemon that is killed.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from tests.support.daemon import RunningCase
from tests.support.running import TwistdDaemon
from tests.support.waiting import eventually

CONFIGURATION = """
database = "none"

[device.uno]
path = "{path}"

[[rule]]
name = "smoke"
when = "sensor 2 SMOKE == 1"
command = "9 ON"
webhook = "http://127.0.0.1:{port}/secret"
alarm = true
"""


class Hook(BaseHTTPRequestHandler):
    """
    Receives what a rule sends.
    """

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Receiver)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.received.append((self.headers["Idempotency-Key"], body["readings"][0]["value"]))
        self.send_response(server.status)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class Receiver(HTTPServer):
    """
    Where the webhook goes.

    Attributes:
        status: What it replies.
        received: The id of each request, and the reading in it.
    """

    status = 503

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.received: list[tuple[str | None, float]] = []


class KillTests(RunningCase):
    """
    `kill -9` between what a rule decided and what is done.
    """

    def setUp(self) -> None:
        """
        Start a receiver that has no time yet, and a board with a lamp.
        """
        super().setUp()
        self.hook = Receiver(("127.0.0.1", 0), Hook)
        thread = threading.Thread(target=self.hook.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.hook.server_close)
        self.addCleanup(self.hook.shutdown)
        self.lamp: list[dict[str, str]] = []
        self.device = self.plug(self.answer)
        self.file = self.folder / "usbgate.toml"
        self.file.write_text(CONFIGURATION.format(path=self.device.path, port=self.hook.server_port))

    def answer(self, fields: dict[str, str]) -> list[bytes]:
        """
        Switch the lamp.
        """
        self.lamp.append(fields)
        return [f"ID:{fields['ID']}_STATE:1_MSG:{fields['MSG']}".encode()]

    def start(self) -> TwistdDaemon:
        """
        Start the daemon.
        """
        daemon = self.run_daemon("--config", str(self.file))
        self.online(daemon).close()
        return daemon

    def rule(self, daemon: TwistdDaemon) -> str:
        """
        Return the line of the rule.
        """
        client = self.connect(daemon)
        try:
            return client.word("rules")[0]
        finally:
            client.close()

    def test_kill(self) -> None:
        """
        The lamp is switched once, what was not accepted is sent again with the same id, and nothing fires twice.
        """
        daemon = self.start()
        self.device.say(b"ID:9_STATE:0", b"ID:9_STATE:0", b"ID:9_STATE:0", b"ID:2_SMOKE:1")
        eventually(lambda: self.hook.received and self.lamp, "the rule does what it says")
        daemon.kill()
        self.hook.status = 200
        daemon = self.start()
        eventually(lambda: len(self.hook.received) > 1, "the webhook is sent again")
        self.device.say(b"ID:2_SMOKE:1")
        eventually(lambda: "_STATE:true_" in self.rule(daemon), "the reading is known")
        eventually(lambda: "_FIRED:0_WAITING:0_" in self.rule(daemon), "nothing is left to be done")
        (first, second) = self.hook.received
        self.assertEqual(first, second)
        self.assertEqual([(each["MSG"], each["ORIGIN"]) for each in self.lamp], [("ON", "rule smoke")])
        client = self.connect(daemon)
        self.assertIn("_CONDITION:rule smoke_", client.word("alarms")[0])
        self.device.say(b"ID:2_SMOKE:0", b"ID:2_SMOKE:1")
        eventually(lambda: len(self.hook.received) == 3, "it fires again")
        self.assertNotEqual(self.hook.received[2][0], first[0])
        self.assertNotIn("secret", daemon.log)
        self.assertNotIn(b"secret", (self.state / "rules.sqlite").read_bytes())
        client.close()
