"""
Questions, commands and events over MQTT, with the demo's home and a real broker.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from typing import Any

from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.home import flat
from tests.support.mosquitto import Peer, shared_mosquitto
from tests.support.running import ROOT
from tests.support.waiting import LIMIT, eventually

BASE = "usbgate/demo"
ASK = f"{BASE}/ask"
EVENTS = f"{BASE}/events"


class HomeTests(SynchronousTestCase):
    """
    As programs at the broker see it.
    """

    def setUp(self) -> None:
        """
        Put the home in order; tests of the page may have left other values.
        """
        self.broker = shared_mosquitto()
        self.home = flat()
        self.home.values |= {"20": "VALUE:21.5", "9": "LEVEL:0"}

    def connect(self, *filters: str, v5: bool = True) -> Peer:
        """
        Connect a program, and wait until the home is there.
        """
        peer = Peer(self.broker, f"{BASE}/availability", *filters, v5=v5)
        self.addCleanup(peer.close)
        eventually(lambda: "online" in peer.payloads(f"{BASE}/availability"), "the home is at the broker")
        return peer

    def received(self, peer: Peer, topic: str, **expected: object) -> tuple[dict[str, Any], MQTTMessage]:
        """
        Wait for a message on a topic with these values; return its payload and itself.
        """
        found: list[tuple[dict[str, Any], MQTTMessage]] = []

        def find() -> bool:
            of_topic = [(json.loads(each.payload), each) for each in peer.received if each.topic == topic]
            found[:] = [each for each in of_topic if expected.items() <= each[0].items()]
            return bool(found)

        eventually(find, f"{expected} is received")
        return found[0]

    def test_version_5(self) -> None:
        """
        The answer goes to the response topic, with the correlation data; a command of another client is carried out.
        """
        peer = self.connect("test/5/answers")
        wanted = Properties(PacketTypes.PUBLISH)
        wanted.ResponseTopic, wanted.CorrelationData, wanted.MessageExpiryInterval = "test/5/answers", b"\x00\xff", 30
        peer.publish(ASK, '{"sensor": "20"}', properties=wanted)
        answer, message = self.received(peer, "test/5/answers", sensor="20")
        self.assertEqual(answer["values"], {"VALUE": 21.5})
        assert message.properties is not None
        self.assertEqual(message.properties.json()["CorrelationData"], "00ff")
        peer.publish(ASK, '{"sensor": "9", "command": "L", "arguments": {"LEVEL": 40}}')
        eventually(lambda: self.home.values["9"] == "LEVEL:40", "the lamp is dimmed")

    def test_version_3(self) -> None:
        """
        Without response topics, the message has one, and an `id`.
        """
        peer = self.connect("test/3/answers", v5=False)
        for sensor in ("20", "99"):
            peer.publish(ASK, json.dumps({"sensor": sensor, "reply": "test/3/answers", "id": int(sensor)}))
        answer, _ = self.received(peer, "test/3/answers", id=20)
        self.assertEqual(answer["values"], {"VALUE": 21.5})
        self.received(peer, "test/3/answers", id=99, error="timeout")

    def test_documented(self) -> None:
        """
        The commands of docs/mqtt.md do what it says.
        """
        page = (ROOT / "docs" / "mqtt.md").read_text().partition("\n## Asking\n")[2].partition("\n```sh\n")[2]
        program, *_ = commands = page.partition("```")[0].replace("usbgate/flat/", f"{BASE}/").splitlines()
        if shutil.which(program.partition(" ")[0]) is None:
            raise SkipTest("the clients of mosquitto are not installed")
        peer = self.connect("my/answers")
        answers = [
            subprocess.run(
                [*shlex.split(command), "-p", str(self.broker.port)], capture_output=True, check=True, timeout=LIMIT
            ).stdout
            for command in commands
        ]
        self.assertEqual(json.loads(answers[0])["values"], {"VALUE": 21.5})
        self.received(peer, "my/answers", id=7)
        eventually(lambda: self.home.values["9"] == "LEVEL:50", "the lamp is dimmed")

    def test_retained(self) -> None:
        """
        A retained command is not carried out, and that is an event.
        """
        peer = self.connect(EVENTS)
        peer.publish(ASK, '{"sensor": "9", "command": "ON", "id": 1}', retain=True)
        self.addCleanup(peer.publish, ASK, "", True)
        self.received(peer, EVENTS, event_type="command_failed", reason="retained message", id=1)
        self.assertEqual(self.home.values["9"], "LEVEL:0")

    def test_alarms(self) -> None:
        """
        An alarm that is raised, ends and is acknowledged is three events, for its sensor, too; none is retained.
        """
        own = f"{BASE}/arduino/98/_events"
        peer = self.connect(EVENTS, own)
        self.home.end_alarms()
        self.home.say("98", "TEMP:71.5")
        self.received(peer, own, event_type="alarm_raised", value=71.5)
        self.home.end_alarms()
        for event_type in ("alarm_ended", "alarm_acknowledged"):
            for topic in (EVENTS, own):
                self.received(peer, topic, event_type=event_type, sensor="98")
        late = self.connect(EVENTS, own)
        self.assertEqual((late.payloads(EVENTS), late.payloads(own)), ([], []))

    def test_discovery(self) -> None:
        """
        The gateway and the sensors are announced to Home Assistant, and again when it starts, or when somebody else has
        changed a message.
        """
        topics = [f"homeassistant/device/usbgate__demo{each}/config" for each in ("", "__20", "__2")]
        peer = self.connect("homeassistant/#")
        eventually(lambda: all(peer.payloads(topic) for topic in topics), "the home is announced")
        peer.publish(topics[1], "{}", retain=True)
        peer.publish("homeassistant/status", "online")

        def again() -> bool:
            payloads = [peer.payloads(topic) for topic in topics]
            return all(len(each) > 1 and "components" in each[-1] for each in payloads)

        eventually(again, "the home is announced again")
        button = json.loads(peer.payloads(topics[2])[-1])["components"]["button_Test_20the_20alarm"]
        self.assertEqual(button["command_topic"], ASK)
