"""
Boards of several kinds on one daemon: what each of them does wrong costs only itself.
"""

from __future__ import annotations

import os

from tests.support.daemon import RunningCase
from tests.support.running import LineClient, PtyDevice, TwistdDaemon
from tests.support.usb import MadeUpUsb
from tests.support.waiting import eventually
from usbgate.core.fieldline import parse

# It begins with a byte order mark, as Windows' editors write it.
CONFIG = """\ufeff
[device.radio]
path = "{folder}/radio"
window = 2
buffer = 0
patience = 0.2

[device.loop]
path = "{folder}/loop"

[device.endless]
path = "{folder}/endless"

[device.uno]
path = "usb:1a86:7523"

[device.other]
path = "usb:dead:beef"
"""


def answer(fields: dict[str, str]) -> list[bytes]:
    """
    Answer for the sensors that do.
    """
    values = {"healthy": "VALUE:1", "broken": "ERROR:busy"}
    sensor = fields["ID"]
    return [f"ID:{sensor}_{values[sensor]}_MSG:{fields['MSG']}".encode()] if sensor in values else []


class BoardsTests(RunningCase):
    """
    One life of a daemon with five boards.
    """

    def setUp(self) -> None:
        """
        Start the daemon and subscribe; the boards on USB are plugged in later.
        """
        super().setUp()
        self.usb = MadeUpUsb(self.folder)
        self.radio, self.loop, self.endless = (self.plug(answer, name) for name in ("radio", "loop", "endless"))
        config = self.folder / "usbgate.toml"
        config.write_text(CONFIG.format(folder=self.folder))
        self.daemon = TwistdDaemon(
            self.state, "--database", "none", "--config", str(config), program=self.usb.program()
        )
        self.addCleanup(self.daemon.stop)
        self.daemon.ready()
        self.watcher, self.client = self.connect(self.daemon), self.connect(self.daemon)
        self.states: dict[str, list[str]] = {"uno": [], "other": []}
        self.watcher.word("watch")
        for device in ("radio", "loop", "endless"):
            self.until_online(device)

    def device(self, name: str) -> dict[str, str]:
        """
        Return a line of `devices`.
        """
        lines = [parse(line.encode()) for line in self.client.word("devices")[:-1]]
        return next(fields for fields in lines if fields["DEV"] == name)

    def until_online(self, name: str) -> None:
        """
        Wait until a device is online.
        """
        eventually(lambda: self.device(name)["STATE"] == "online", f"{name} is online")

    def until_state(self, device: str, state: str) -> None:
        """
        Receive events until one says that a device has a state.
        """
        while state not in self.states[device]:
            fields = parse(self.watcher.receive().encode())
            if fields.get("DEV") in self.states and fields["STATE"] != "offline":
                self.states[fields["DEV"]].append(fields["STATE"])

    def plug_usb(self, port: str, ids: str) -> PtyDevice:
        """
        Plug a board in; its tty is named as its pty is.
        """
        device = self.plug(answer, port)
        tty = os.readlink(device.path)
        name = os.path.basename(tty)
        (self.usb.dev / name).symlink_to(tty)
        self.usb.plug(port, ids, None, **{name: "1.0"})
        return device

    def test_rules(self) -> None:
        """
        All rules, one after the other; the board in a boot loop and that without line ends take their time meanwhile.
        """
        self.endless.pour(b"ID:5_V:1" * 30)
        self.bridge()
        self.fairness()
        self.boot_loop()
        self.texts()
        eventually(lambda: "endless: 240 bytes without a line end" in self.daemon.log, "a gap is recommended")
        self.assertNotIn("Traceback", self.daemon.log)

    def bridge(self) -> None:
        """
        A board behind a bridge that resets it settles, by its USB ids, until its first line; another one does not.
        """
        uno = self.plug_usb("1-2", "1a86:7523")
        self.plug_usb("1-3", "dead:beef")
        self.until_state("uno", "settling")
        uno.say(b"ID:30_UP:1")
        self.until_state("uno", "online")
        self.until_state("other", "online")
        self.assertEqual(self.states, {"uno": ["settling", "online"], "other": ["online"]})

    def fairness(self) -> None:
        """
        Further questions to sensors that left one unanswered come after one to another sensor that was asked later.
        """
        self.radio.say(b"ID:dead_UP:1", b"ID:silent_UP:1", b"ID:healthy_UP:1")  # else the board may not have them
        eventually(lambda: len(self.client.word("last healthy")) == 2, "they are known")
        messages = ["A dead", "A silent", "J healthy", "B dead", "B silent"]
        limits = {"A": "0.1", "B": "600", "J": "600"}
        asked = ["A dead", "B dead", "A silent", "B silent", "J healthy"]
        pairs = [message.split() for message in asked]
        self.client.say(
            *[f"MSG:{command}_ID:{sensor}_DEV:radio_TIMEOUT:{limits[command]}" for command, sensor in pairs]
        )
        while not self.client.receive().startswith("ID:healthy_VALUE:1_"):
            pass

        def received() -> list[str]:
            lines = [parse(line) for line in self.radio.received]
            return [f"{fields['MSG']} {fields['ID']}" for fields in lines[: len(messages)]]

        eventually(lambda: len(received()) == len(messages), "all are asked")
        self.assertEqual(received(), messages)

    def boot_loop(self) -> None:
        """
        A board that comes and goes is opened at once each time; that is logged once, then counted.
        """
        for _ in range(3):
            self.loop.unplug()
            eventually(lambda: self.device("loop")["STATE"] == "offline", "it is gone")
            self.loop.plug()
            self.until_online("loop")
        self.assertEqual(self.device("loop")["RECONNECTS"], "3")
        log = self.daemon.log
        self.assertEqual(log.count("loop was disconnected"), 1)
        self.assertEqual(log.count("loop is connected only briefly again and again: check the board's power"), 1)

    def texts(self) -> None:
        """
        A byte order mark before a client's first line is skipped, and an answer with a field ERROR begins with ID.
        """
        client: LineClient = self.connect(self.daemon)
        self.assertEqual(client.word("\ufeffping"), ["OK:ping"])
        self.assertTrue(client.word("ask broken dev=other")[0].startswith("ID:broken_ERROR:busy_MSG:J_AT:"))
