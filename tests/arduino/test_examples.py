"""
The examples of `arduino/UsbGate`: compiled for real boards, and run on emulated ones, with the real daemon at the other
end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.support.arduino import LEONARDO, LIBRARY, MEGA, SKETCHES, UNO, ArduinoModel, EmulatedBoard, size, workshop
from tests.support.firmware import FirmwareCase, read_count, summed
from tests.support.running import ROOT, LineClient, TwistdDaemon
from tests.support.waiting import LIMIT, eventually
from usbgate.core.fieldline import parse

EXAMPLES = ("Reading", "Lamp", "Shutter", "Hub")

# What an example may take of an Uno's 32,256 bytes of flash and 2,048 of RAM, with what the core takes (1,450 and 184).
# The rest is for the drivers of a radio and sensors, and for the stack.
FLASH, RAM = 8192, 768

# The device that serves each sensor.
SENSORS = {
    **{"20": "reading", "21": "reading", "9": "lamp", "12": "shutter", "31": "hub", "32": "hub", "hub": "hub"},
    **{"40": "busy", "41": "busy"},
}

CONFIG = """
[device.reading]
path = "{folder}/reading"

[device.lamp]
path = "{folder}/lamp"
tags = true

[device.shutter]
path = "{folder}/shutter"

[device.hub]
path = "{folder}/hub"
tags = true
checksum = true
buffer = 0

[device.busy]
path = "{folder}/busy"
tags = true
checksum = true
buffer = 0
patience = "5s"
"""


def example(name: str) -> Path:
    """
    Return an example's sketch.
    """
    return LIBRARY / "examples" / name / f"{name}.ino"


def in_parallel(tasks: list[Callable[[], None]]) -> None:
    """
    Call functions, each in a thread, and wait for all; raise the first error.
    """
    with ThreadPoolExecutor(len(tasks)) as pool:
        for call in [pool.submit(task) for task in tasks]:
            call.result()


def answers(client: LineClient, *requests: str, origin: str = "t") -> list[dict[str, str]]:
    """
    Send requests; return their answers, in the order in which they arrive. On a machine that is busy, boards are slow.
    """
    client.say(*(f"{request}_ORIGIN:{origin}_TIMEOUT:{LIMIT}" for request in requests))
    lines: list[str] = []
    while len(lines) < len(requests):
        line = client.receive()
        assert line, "the connection was closed"
        if not line.startswith("MSG:"):  # an echo
            lines.append(line)
    return [parse(line.encode()) for line in lines]


def ask(client: LineClient, request: str) -> dict[str, str]:
    """
    Send a request; return its answer.
    """
    (answer,) = answers(client, request)
    return answer


def next_reading(watcher: LineClient) -> dict[str, str]:
    """
    Return the fields of the next event that is a reading.
    """
    while True:
        line = watcher.receive()
        assert line, "the connection was closed"
        if line.startswith("EVENT:reading_"):
            return parse(line.encode())


class ExamplesTests(FirmwareCase):
    """
    The examples.
    """

    def test_examples(self) -> None:
        """
        They are compiled for all boards, fit an Uno beside a radio's driver, and do what they say.
        """
        config = self.folder / "usbgate.toml"
        sensors = "".join(f'\n[sensor.{sensor}]\ndevice = "{device}"\n' for sensor, device in SENSORS.items())
        config.write_text(CONFIG.format(folder=self.folder) + sensors)
        firmware: dict[tuple[ArduinoModel, str], Path] = {}
        compiler = workshop()  # made here: threads that begin at once would each make one
        daemon = self.run_daemon("--config", str(config), "--database", "none")

        def build(model: ArduinoModel) -> None:
            for name in EXAMPLES:
                firmware[model, name] = compiler.build(model, example(name))

        (documented,) = re.findall(r"(?s)```cpp\n(#include <UsbGate.h>.*?)```", (ROOT / "docs/devices.md").read_text())
        five_lines = self.folder / "Five.ino"
        five_lines.write_text(documented)

        def build_others() -> None:
            compiler.build_runner()
            firmware[UNO, "Reading, by the IDE"] = compiler.build_as_ide(example("Reading"))

        in_parallel([build_others, *(partial(build, model) for model in (UNO, LEONARDO, MEGA))])
        for (model, name), elf in firmware.items():
            flash, ram = size(elf)
            print(f"{name} on {model.name}: {flash} bytes of flash, {ram} of RAM")
            if model is UNO:
                self.assertLess(flash, FLASH, name)
                self.assertLess(ram, RAM, name)

        # A Leonardo's `Serial` is USB, which is not emulated; and a shutter need not take 20 s.
        shutter = compiler.build(LEONARDO, example("Shutter"), Serial="Serial1", **{"20000": "5000"})
        compiler.build(UNO, five_lines)
        compiler.build(UNO, ROOT / "arduino/usbgate_example/usbgate_example.ino")
        busy = compiler.build(UNO, SKETCHES / "Busy" / "Busy.ino")
        boards = {
            self.check_reading: self.switch_on(UNO, firmware[UNO, "Reading"], f"0={self.folder}/reading"),
            self.check_lamp: self.switch_on(UNO, firmware[UNO, "Lamp"], f"0={self.folder}/lamp"),
            self.check_shutter: self.switch_on(LEONARDO, shutter, f"1={self.folder}/shutter"),
            self.check_hub: self.switch_on(
                MEGA, firmware[MEGA, "Hub"], f"0={self.folder}/hub", f"1={self.folder}/radio"
            ),
            self.check_busy: self.switch_on(UNO, busy, f"0={self.folder}/busy"),
        }
        self.online(daemon)

        def check(test: Callable[[TwistdDaemon, EmulatedBoard], None], board: EmulatedBoard) -> None:
            try:
                test(daemon, board)
                self.assertEqual(board.do("lost"), "0")  # by the chip: it interrupts the sketch for each byte
            finally:
                self.assertEqual(board.end(), 0)  # it needs a quarter of a CPU

        in_parallel([partial(check, test, board) for test, board in boards.items()])
        self.assertIn("UsbGate started", daemon.log)

    def check_reading(self, daemon: TwistdDaemon, board: EmulatedBoard) -> None:
        """
        Answers overtake each other; readings come unasked; a line that a reset cuts off is no reading; it is found
        again after it was unplugged.
        """
        client, watcher = self.connect(daemon), self.connect(daemon)
        watcher.word("watch 20")
        board.do("adc 0 215")
        self.assertEqual(float(next_reading(watcher)["TEMP"]), 21.0)
        board.do("adc 1 2500")
        first, second = answers(client, "MSG:J_ID:21_TAG:a", "MSG:J_ID:20_TAG:b")
        self.assertEqual((first["ID"], first["TAG"], float(first["TEMP"])), ("20", "b", 21.0))
        self.assertEqual((second["ID"], second["TAG"], second["LEVEL"]), ("21", "a", "511"))
        self.assertEqual(float(next_reading(watcher)["TEMP"]), 21.0)

        board.do(f"cut {len('ID:20_TEMP:14')}")  # of 149.41
        board.do("adc 0 1500")
        self.assertEqual(float(next_reading(watcher)["TEMP"]), 149.41)
        malformed = self.administer(daemon).word("malformed")
        self.assertIn("_FROM:reading_REASON:control character_TEXT:ID:20 TEMP:14", "\n".join(malformed))

        board.do("unplug")
        eventually(lambda: ask(client, "MSG:J_ID:20").get("ERROR") == "offline", "it is offline")
        board.do("plug")
        eventually(lambda: float(ask(client, "MSG:J_ID:20").get("TEMP", 0)) == 149.41, "it answers again")

    def check_lamp(self, daemon: TwistdDaemon, board: EmulatedBoard) -> None:
        """
        The lamp shines when it should; its own line, sent back by a terminal, is no command.
        """
        client, watcher = self.connect(daemon), self.connect(daemon)
        watcher.word("watch 9")
        lamp = 1 << 1  # pin 9 is PB1
        ask(client, "MSG:ON_ID:9")
        self.assertEqual(int(board.do("out B")) & lamp, lamp)
        self.assertEqual(ask(client, "MSG:L_ID:9_LEVEL:50_TAG:z")["LEVEL"], "50")
        ask(client, "MSG:OFF_ID:9")
        self.assertEqual(int(board.do("out B")) & lamp, 0)
        port = os.open(self.folder / "lamp", os.O_WRONLY | os.O_NOCTTY)
        os.write(port, b"ID:9_MSG:ON\n")
        os.close(port)
        self.assertEqual(ask(client, "MSG:J_ID:9")["LEVEL"], "0")
        self.assertEqual([next_reading(watcher)["LEVEL"] for _ in range(2)], ["50", "0"])
        board.do("in D 2 0")
        self.assertEqual(next_reading(watcher)["LEVEL"], "100")
        self.assertEqual(int(board.do("out B")) & lamp, lamp)

    def check_shutter(self, daemon: TwistdDaemon, board: EmulatedBoard) -> None:
        """
        It answers while it moves, and stops at once; it reports where it stands.
        """
        client, watcher = self.connect(daemon), self.connect(daemon)
        watcher.word("watch 12")
        up, down = 1 << 4, 1 << 6  # pin 4 is PD4, pin 5 is PC6
        ask(client, "MSG:UP_ID:12")
        self.assertEqual(int(board.do("out D")) & up, up)
        eventually(lambda: ask(client, "MSG:J_ID:12")["POSITION"] != "0", "it moves")
        ask(client, "MSG:STOP_ID:12")
        self.assertEqual(int(board.do("out D")) & up, 0)
        while "MSG" in (reading := next_reading(watcher)):  # an answer
            pass
        self.assertIn(int(reading["POSITION"]), range(1, 100))
        board.do("seen D")
        ask(client, "MSG:DOWN_ID:12")
        self.assertEqual(next_reading(watcher)["POSITION"], "0")
        self.assertEqual((int(board.do("seen C")) & down, int(board.do("seen D")) & up), (down, 0))
        self.assertEqual(int(board.do("out C")) & down, 0)

    def check_hub(self, daemon: TwistdDaemon, board: EmulatedBoard) -> None:
        """
        Nodes are asked, answer in any order, and report by themselves; what the radio damages is no answer.
        """
        client, watcher = self.connect(daemon), self.connect(daemon)
        watcher.word("watch 31 32 33")
        self.assertIn("UPTIME", ask(client, "MSG:J_ID:hub"))
        radio = self.open(self.folder / "radio")
        os.write(radio, b"noise\n" + summed("ID:33_HUM:48_BAT:OK"))
        self.assertEqual(next_reading(watcher)["HUM"], "48")
        client.say("MSG:J_ID:31_ORIGIN:t_TAG:a", "MSG:W_ID:32_ORIGIN:t_TAG:b")
        first, second = (parse(line.rpartition("*")[0].encode()) for line in read_count(radio, 2))
        self.assertEqual((first["MSG"], first["ID"], second["MSG"], second["ID"]), ("J", "31", "W", "32"))
        os.write(radio, summed(f"ID:31_TEMP:99_MSG:J_TAG:{first['TAG']}").replace(b"99", b"90"))
        os.write(radio, summed(f"ID:32_TEMP:2_MSG:W_TAG:{second['TAG']}"))
        os.write(radio, summed(f"ID:31_TEMP:1_MSG:J_TAG:{first['TAG']}"))
        lines = [line for line in (client.receive() for _ in range(4)) if line.startswith("ID:")]
        found = [parse(line.encode()) for line in lines]
        self.assertEqual([(each["TAG"], each["TEMP"]) for each in found], [("b", "2"), ("a", "1")])

    def check_busy(self, daemon: TwistdDaemon, board: EmulatedBoard) -> None:
        """
        Bytes that the chip's buffer can't hold are lost; a torn request is refused and asked again, and no answer is
        wrong.
        """
        client = self.connect(daemon)

        def refused() -> int:
            found = answers(client, "MSG:J_ID:40_TAG:40", "MSG:J_ID:41_TAG:41", origin=20 * "t")
            named = {each["ID"]: (each["IS"], each["TAG"]) for each in found}
            self.assertEqual(named, {"40": ("40", "40"), "41": ("41", "41")})
            return max(int(each["REFUSED"]) for each in found)

        # Usually the first time, unless usbgate was held up between the two.
        eventually(lambda: refused() > 0, "a request is torn")
