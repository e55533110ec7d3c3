"""
The daemon at a real broker.
"""

from __future__ import annotations

import signal

from tests.support.daemon import RunningCase
from tests.support.mosquitto import RUN_HURRIED, Peer, shared_mosquitto
from tests.support.running import TwistdDaemon
from tests.support.waiting import eventually

SETTINGS = """
database = "none"
gateway = "of test_daemon"

[mqtt]
broker = "{broker}"
version = "{version}"
user = "me"
password_file = "password"

[device.leonardo]
path = "./ttyACM0"
"""
BASE = "usbgate/of_20test_5Fdaemon"


class DaemonTests(RunningCase):
    """
    From the tty to the broker.
    """

    def start(self, version: str) -> TwistdDaemon:
        """
        Start the daemon with a version of MQTT.
        """
        file = self.folder / "usbgate.toml"
        file.write_text(SETTINGS.format(broker=shared_mosquitto().endpoint, version=version))
        daemon = TwistdDaemon(self.state, "--config", str(file), program=RUN_HURRIED)
        self.addCleanup(daemon.stop)
        self.online(daemon.ready())
        return daemon

    def test_values(self) -> None:
        """
        What the device says is at the broker, retained, and so is whether device and daemon are there: when it is
        killed, and when it stops. A reload publishes values anew, and what Home Assistant learns. `status` has the
        broker; nothing has the password.
        """
        (self.folder / "password").write_text("of nobody\n")
        peer = Peer(shared_mosquitto(), f"{BASE}/#")
        self.addCleanup(peer.close)
        device = self.plug()
        daemon = self.start("3.1.1")
        device.say(b"ID:20_TEMP:21.5_HUM:40%", b"ID:hall/1_STATE:a b")
        eventually(lambda: "a b" in peer.payloads(f"{BASE}/leonardo/hall_2F1/STATE"), "the values are there")
        late = Peer(shared_mosquitto(), f"{BASE}/leonardo/#", f"{BASE}/availability")
        self.addCleanup(late.close)
        expected = {
            (f"{BASE}/availability", "online", True),
            (f"{BASE}/leonardo/_availability", "online", True),
            (f"{BASE}/leonardo/20/TEMP", "21.5", True),
            (f"{BASE}/leonardo/20/HUM", "40", True),
            (f"{BASE}/leonardo/hall_2F1/STATE", "a b", True),
        }
        eventually(lambda: expected <= set(late.messages), "the values are retained")
        device.unplug()
        eventually(lambda: "offline" in peer.payloads(f"{BASE}/leonardo/_availability"), "the device is away")
        device.plug()
        self.online(daemon)
        (line,) = [line for line in self.connect(daemon).word("status") if line.startswith("MQTT:")]
        self.assertIn("MQTT:connected_", line)
        daemon.kill()
        eventually(lambda: peer.payloads(f"{BASE}/availability")[-1] == "offline", "the will is published")
        daemon = self.start("5")
        eventually(lambda: peer.payloads(f"{BASE}/availability")[-1] == "online", "it is back")
        announced = Peer(shared_mosquitto(), "homeassistant/device/usbgate__of_20test_5Fdaemon__20/config")
        self.addCleanup(announced.close)
        device.say(b"ID:20_TEMP:21.5")
        eventually(lambda: any(not retained for *_, retained in announced.messages), "the sensor is announced again")
        with (self.folder / "usbgate.toml").open("a") as file:
            file.write('[sensor.20]\nname = "Hall"\nfield.TEMP.offset = 1\n')
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: "22.5" in peer.payloads(f"{BASE}/leonardo/20/TEMP"), "the value is corrected")
        eventually(lambda: any('"name":"Hall"' in each for _, each, _ in announced.messages), "its name is announced")
        daemon.stop()
        eventually(lambda: peer.payloads(f"{BASE}/availability")[-1] == "offline", "it said so")
        self.assertNotIn("of nobody", daemon.log)
