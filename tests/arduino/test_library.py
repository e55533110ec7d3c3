"""
`arduino/UsbGate`: compiled for real boards, and run on emulated ones, with the real daemon at the other end.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import usbgate
from tests.support.arduino import (
    LEONARDO,
    LIBRARY,
    MEGA,
    SKETCHES,
    UNO,
    EmulatedBoard,
    Model,
    needs_tools,
    size,
    workshop,
)
from tests.support.daemon import RunningCase
from tests.support.running import ROOT, LineClient, TwistdDaemon
from tests.support.waiting import LIMIT, eventually
from usbgate.core.fieldline import checksum, parse

EXAMPLES = ("Reading", "Lamp", "Shutter", "Hub")

# What an example may take of an Uno's 32,256 bytes of flash and 2,048 of RAM, with what the core takes (1,450 and 184).
# The rest is for the drivers of a radio and sensors, and for the stack.
FLASH, RAM = 8192, 768

# The device that serves each sensor.
SENSORS = {
    **{"20": "reading", "21": "reading", "9": "lamp", "12": "shutter", "31": "hub", "32": "hub", "hub": "hub"},
    **{f"4{n}": "busy" for n in range(4)},
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
window = 8
patience = "1s"
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


def summed(line: str) -> bytes:
    """
    Return a line with its checksum and its end.
    """
    return line.encode() + checksum(line.encode()) + b"\n"


def text_of(line: bytes) -> str:
    """
    Return a line's text, without its end.
    """
    return line.decode().rstrip("\n")


def read_lines(port: int, is_all: Callable[[list[str]], bool]) -> list[str]:
    """
    Read from a port until the lines are all that are expected.
    """
    data = b""
    while not (data.endswith(b"\n") and is_all(data.decode().splitlines())):
        readable, _, _ = select.select([port], [], [], LIMIT)
        assert readable, f"no more than {data!r}"
        data += os.read(port, 4096)
    return data.decode().splitlines()


def read_count(port: int, count: int) -> list[str]:
    """
    Read this many lines from a port.
    """
    return read_lines(port, lambda lines: len(lines) >= count)


class FirmwareCase(RunningCase):
    """
    Boards that run until the end of the test.
    """

    def setUp(self) -> None:
        """
        Look for the tools.
        """
        if reason := needs_tools():
            raise SkipTest(f"firmware can't be compiled and run: {reason}")
        super().setUp()

    def switch_on(self, model: Model, elf: Path, *uarts: str) -> EmulatedBoard:
        """
        Run firmware on a board.
        """
        board = EmulatedBoard(model, elf, *uarts)
        self.addCleanup(board.end)
        return board

    def open(self, path: Path) -> int:
        """
        Open a board's port.
        """
        port = os.open(path, os.O_RDWR | os.O_NOCTTY)
        self.addCleanup(os.close, port)
        return port


class FilesTests(SynchronousTestCase):
    """
    What the IDE reads.
    """

    def test_properties(self) -> None:
        """
        The version is usbgate's.
        """
        self.assertIn(f"version={usbgate.__version__}", (LIBRARY / "library.properties").read_text().splitlines())

    def test_keywords(self) -> None:
        """
        Every word that it shows in colour is in the header.
        """
        keywords = [line.split("\t")[0] for line in (LIBRARY / "keywords.txt").read_text().splitlines()]
        self.assertGreater(len(keywords), 15)
        self.assertLessEqual(set(keywords), set(re.findall(r"\w+", (LIBRARY / "src" / "UsbGate.h").read_text())))


class LinesTests(FirmwareCase):
    """
    What the library makes of single lines.
    """

    def test_lines(self) -> None:
        """
        It answers what is a request, whatever its spelling, and nothing else; no line that it sends is torn.
        """
        workshop().build_runner()
        elf = workshop().build(UNO, SKETCHES / "Probe" / "Probe.ino")
        board = self.switch_on(UNO, elf, f"0={self.folder}/probe")
        port = self.open(self.folder / "probe")

        def send(data: bytes, count: int = 1) -> list[str]:
            # An acknowledgement of the last line shows what it and the lines before it have led to.
            os.write(port, data)
            return read_count(port, count)

        # It starts with an end for the line that a reset may have cut off. (It was started when nobody listened yet.)
        board.do("reset")
        read_lines(port, lambda lines: "\n".join(lines).endswith("\x18\n# UsbGate started"))
        end = b"MSG:J_ID:0_ORIGIN:t\n"
        for line, *expected in (
            # ORIGIN may stand anywhere, and be as long as it likes.
            ("ORIGIN:my_site_ID:9_MSG:J", "ID:9_MSG:J"),
            (f"MSG:J_ORIGIN:{300 * 'o'}_{300 * 'x'}_ID:9_TAG:5f0e3a1c", "ID:9_MSG:J_TAG:5f0e3a1c"),
            ("MSG:J_ID:kitchen_ORIGIN:t\r\n", "ID:kitchen_MSG:J"),
            ("\xff\0MSG:J_ID:28:FF:4C_ORIGIN:t", "ID:28:FF:4C_MSG:J"),
            # Arguments.
            ("MSG:L_ID:9_LEVEL:-5_NAME:a_b_ORIGIN:t", "ID:9_LEVEL:-5_NAME:a_b_OWN:1_MSG:L"),
            ("MSG:L_ID:09_LEVEL:5%_ORIGIN:t", "ID:09_LEVEL:-1_NAME:none_OWN:0_MSG:L"),
            ("MSG:L_ID:19_XLEVEL:5_ORIGIN:t", "ID:19_LEVEL:-1_NAME:none_OWN:0_MSG:L"),
            # What is no request: its own line, too long, damaged, without command or sensor.
            ("ID:9_MSG:J",),
            (f"MSG:J_ORIGIN:t_ID:9_A:{64 * '9'}",),
            (f"MSG:J_ID:9_ORIGIN:t_{64 * 'K'}:1",),
            ("MSG:J_ID:9\x07_ORIGIN:t",),
            ("ID:9_ORIGIN:t",),
            ("MSG:J_ORIGIN:t",),
            # Any other command: passed on, with a checksum.
            ("MSG:X_ORIGIN:t_ID:9_A:1_TAG:a1", text_of(summed("MSG:X_ID:9_A:1_TAG:a1_ORIGIN:hub"))),
            # Answers that overtake each other, each with its own tag; one whose texts are too long for that.
            ("MSG:TWO_ID:1_ORIGIN:t_TAG:a",),
            ("MSG:TWO_ID:2_ORIGIN:t_TAG:b", "ID:2_TURN:2_MSG:TWO_TAG:b", "ID:1_TURN:1_MSG:TWO_TAG:a"),
            (f"MSG:TWO_ID:{32 * '1'}_ORIGIN:t", f"ID:{32 * '1'}_LONG:1_MSG:TWO"),
        ):
            got = send(line.encode("latin-1") + b"\n" + end, len(expected) + 1)
            self.assertEqual(got, [*expected, "ID:0_MSG:J"], line)

        # Of more lines than there is room for, some are left out as a whole, and the caller learns it. The next request
        # waits until there is room for its answer.
        os.write(port, b"MSG:MANY_ID:1_ORIGIN:t\n" + end)
        *many, last, _ = read_lines(port, lambda lines: lines[-1] == "ID:0_MSG:J")
        readings = [line for line in many if line.startswith("ID:28:FF_TEMP:21.537_N:")]
        self.assertEqual(readings, many)
        self.assertEqual(parse(last.encode())["TAKEN"], str(len(readings)))
        self.assertIn(len(readings), range(2, 20))
        self.assertEqual(readings, sorted(readings, key=lambda line: int(line.rpartition(":")[2])))

        # Checksums.
        got = send(b"MSG:CHECK_ID:1_ORIGIN:t\n", 2)
        self.assertEqual(got, ["# two lines", text_of(summed("ID:1_REFUSED:6_MSG:CHECK"))])
        torn = summed("MSG:J_ID:12_ORIGIN:t").replace(b"12", b"1")
        for wrong in (b"MSG:J_ID:9_ORIGIN:t\n", torn, b"MSG:J_ID:9_ORIGIN:t*\n", b"*00\n"):
            got = send(wrong + summed("ORIGIN:t_MSG:J_ID:9_TAG:b"))
            self.assertEqual(got, [text_of(summed("ID:9_MSG:J_TAG:b"))], wrong)


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
        firmware: dict[tuple[Model, str], Path] = {}
        daemons: list[TwistdDaemon] = []

        def build(model: Model) -> None:
            for name in EXAMPLES:
                firmware[model, name] = workshop().build(model, example(name))

        (documented,) = re.findall(r"(?s)```cpp\n(#include <UsbGate.h>.*?)```", (ROOT / "docs/devices.md").read_text())
        five_lines = self.folder / "Five.ino"
        five_lines.write_text(documented)

        def build_others() -> None:
            workshop().build_runner()
            firmware[UNO, "Reading, by the IDE"] = workshop().build_as_ide(example("Reading"))

        def start() -> None:
            daemons.append(self.run_daemon("--config", str(config), "--database", "none"))

        in_parallel([start, build_others, *(partial(build, model) for model in (UNO, LEONARDO, MEGA))])
        for (model, name), elf in firmware.items():
            flash, ram = size(elf)
            print(f"{name} on {model.name}: {flash} bytes of flash, {ram} of RAM")
            if model is UNO:
                self.assertLess(flash, FLASH, name)
                self.assertLess(ram, RAM, name)

        # A Leonardo's `Serial` is USB, which is not emulated; and a shutter need not take 20 s.
        shutter = workshop().build(LEONARDO, example("Shutter"), Serial="Serial1", **{"20000": "5000"})
        workshop().build(UNO, five_lines)
        workshop().build(UNO, ROOT / "arduino/usbgate_example/usbgate_example.ino")
        busy = workshop().build(UNO, SKETCHES / "Busy" / "Busy.ino")
        boards = {
            self.check_reading: self.switch_on(UNO, firmware[UNO, "Reading"], f"0={self.folder}/reading"),
            self.check_lamp: self.switch_on(UNO, firmware[UNO, "Lamp"], f"0={self.folder}/lamp"),
            self.check_shutter: self.switch_on(LEONARDO, shutter, f"1={self.folder}/shutter"),
            self.check_hub: self.switch_on(
                MEGA, firmware[MEGA, "Hub"], f"0={self.folder}/hub", f"1={self.folder}/radio"
            ),
            self.check_busy: self.switch_on(UNO, busy, f"0={self.folder}/busy"),
        }
        (daemon,) = daemons
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
        Bytes that the chip's buffer can't hold are lost; torn requests are refused and asked again, and no answer is
        wrong.
        """
        client = self.connect(daemon)
        sensors = [sensor for sensor, device in SENSORS.items() if device == "busy"]
        found = answers(client, *(f"MSG:J_ID:{sensor}_TAG:{sensor}" for sensor in sensors), origin=20 * "t")
        self.assertEqual({each["ID"]: (each["IS"], each["TAG"]) for each in found}, {s: (s, s) for s in sensors})
        self.assertGreater(int(ask(client, f"MSG:J_ID:{sensors[0]}")["REFUSED"]), 0)
