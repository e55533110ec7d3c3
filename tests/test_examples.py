"""
The programs in `docs/examples` and the flows in `etc/node-red`, with the demo's home.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.folders import new_folder
from tests.support.home import flat
from tests.support.mosquitto import shared_mosquitto
from tests.support.running import ROOT, free_port
from tests.support.waiting import LIMIT, eventually

EXAMPLES = ROOT / "docs" / "examples"
FLOWS = ROOT / "etc" / "node-red"


def find(program: str) -> str:
    """
    Find a program.

    Raises:
        SkipTest: It is not installed.
    """
    path = shutil.which(program)
    if path is None:
        raise SkipTest(f"{program} is not installed")
    return path


class ExampleTests(SynchronousTestCase):
    """
    Each prints what it should.
    """

    def setUp(self) -> None:
        """
        Open the home; tests of the page may have left other values.
        """
        self.home = flat()
        self.home.values |= {"20": "VALUE:21.5", "22": "TEMP:23.0_HUM:61.0_BAT:OK"}
        self.http, self.tcp = self.home.url.rstrip("/"), f"tcp://127.0.0.1:{self.home.port}"

    def output(self, program: str, example: str, *arguments: str) -> str:
        """
        Run an example to its end; return what it printed.
        """
        finished = subprocess.run(
            [find(program), str(EXAMPLES / example), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        return finished.stdout + finished.stderr

    def start(self, *command: str | Path) -> Path:
        """
        Run a program until the end of the test; return the file with its output.
        """
        folder = new_folder()
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True
            )
        self.addCleanup(process.wait, LIMIT)
        self.addCleanup(os.killpg, process.pid, signal.SIGKILL)
        return folder / "log"

    def test_php(self) -> None:
        """
        PHP asks over HTTP and over TCP, and shows an error by its code.
        """
        for example, address in (("ask.php", self.http), ("ask-tcp.php", self.tcp)):
            lines = self.output("php", example, address, "22").replace(".0", "").splitlines()
            self.assertEqual(lines, ["TEMP is 23", "HUM is 61", "BAT is OK"], example)
            self.assertRegex(self.output("php", example, address, "99"), "^timeout: .")
            self.assertRegex(self.output("php", example, address, "a_b"), "^malformed: .")

    def test_python(self) -> None:
        """
        Python follows the events.
        """
        log = self.start(sys.executable, EXAMPLES / "follow.py", self.http)

        def follows() -> bool:
            self.home.say("23", "VALUE:8.0")
            return "Z 23 {'VALUE': 8.0}" in log.read_text()

        eventually(follows, "the reading is shown")

    def test_javascript(self) -> None:
        """
        JavaScript shows hourly means of two sensors, or the error.
        """
        for sensor, values in (("20", "VALUE:21.5"), ("22", "TEMP:23.0_HUM:61.0_BAT:OK")):
            self.home.say(sensor, values)
        mean = r"\d{4}-\d\d-\d\dT\d\d:00:00\.000Z %s \d+\.\d\d \([\d.]+ to [\d.]+\)"

        def shows() -> bool:
            output = self.output("node", "means.mjs", self.http, "20", "22")
            return all(re.search(mean % field, output) for field in ("20 VALUE", "22 HUM", "22 TEMP"))

        eventually(shows, "all are shown")
        self.assertIn("Error: malformed: ", self.output("node", "means.mjs", self.http, "a_b"))

    def test_shell(self) -> None:
        """
        A shell script asks and shows readings as CSV; for an error it exits.
        """
        for program in ("nc", "curl"):
            find(program)
        ports = str(self.home.port), str(self.home.http_port)
        output = self.output("sh", "day.sh", "127.0.0.1", "20", *ports)
        self.assertRegex(output, r"^ID:20_VALUE:21.5_MSG:J_AT:.*Z\n")
        self.assertIn("\nseq,at,sensor,field,device,value,text,command,clock\n", output)
        self.assertRegex(self.output("sh", "day.sh", "127.0.0.1", "99", *ports), "^ERROR:timeout_")
        self.assertEqual(self.output("sh", "day.sh", "127.0.0.1", "20", "1", ports[1]), "no answer\n")

    def test_node_red(self) -> None:
        """
        The flows for Node-RED ask a sensor and follow what happens: one over HTTP and TCP, one over MQTT.
        """
        node_red, broker = find("node-red"), shared_mosquitto()
        flows = [json.loads((FLOWS / name).read_text()) for name in ("usbgate-http.json", "usbgate-mqtt.json")]
        text = json.dumps([node for flow in flows for node in flow])
        for old, new in (
            ("127.0.0.1:8080", f"127.0.0.1:{self.home.http_port}"),
            ('"50007"', f'"{self.home.port}"'),
            ('"1883"', f'"{broker.port}"'),
            ("usbgate/pi/ask", "usbgate/demo/ask"),
        ):
            self.assertEqual(text.count(old), 1)
            text = text.replace(old, new)
        folder = new_folder()
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        (folder / "flows.json").write_text(text)
        options = ("--userDir", folder, "--port", str(free_port()), folder / "flows.json")
        log = self.start(node_red, *options)
        self.addCleanup(self.home.end_alarms)

        def follows() -> bool:
            self.home.say("23", "VALUE:8.0")
            for value in (71.5, 20):  # each time is one more event
                self.home.say("98", f"TEMP:{value}")
            output = log.read_text()
            return (
                output.count("[debug:answer]") == 2  # over HTTP, and over MQTT
                and output.count("values: { VALUE: 21.5 }") >= 3  # and as the newest value
                and "EVENT:reading_ID:23_VALUE:8.0" in output
                and "event_type: 'alarm_raised'" in output
            )

        eventually(lambda: "Connected to broker" in log.read_text(), "Node-RED is at the broker")
        eventually(follows, "the answers, the readings and the alarm are shown")
