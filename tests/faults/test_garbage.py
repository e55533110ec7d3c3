"""
A device that sends garbage: the real daemon on a pty.
"""

from __future__ import annotations

import random

from tests.faults.ledger import FULL, resident
from tests.faults.misread import SPEEDS, misread
from tests.support.daemon import RunningCase, StoreCase
from tests.support.running import LineClient
from tests.support.waiting import eventually
from usbgate.core.fieldline import parse

MEGABYTES = 100 if FULL else 10  # with no line end

GROWTH = 16.0  # MB: what Python keeps of memory that was used once


class GarbageTests(StoreCase):
    """
    A daemon that receives garbage.
    """

    client: LineClient

    def listen(self, options: str = "") -> None:
        """
        Start a daemon with a device, and let it receive a line.
        """
        self.device = self.plug()
        self.daemon = self.run_daemon("--device", f"{self.device.path}{options}", "--database", self.database)
        self.client = self.online(self.daemon)
        self.said = 0
        self.says_something()

    def says_something(self) -> None:
        """
        A good line is read, whatever came before it.
        """
        self.said += 1
        self.device.pour(b"\nID:1_N:%d\n" % self.said)
        self.deliver(self.said)

    def deliver(self, number: int) -> None:
        """
        Wait until a number was read.
        """
        eventually(lambda: self.client.word("last 1 N")[0].startswith(f"ID:1_N:{number}_"), f"{number} is heard")

    def counted(self) -> dict[str, str]:
        """
        Return the counts of `devices`.
        """
        return parse(self.client.word("devices")[0].encode())

    def stored(self, count: int) -> None:
        """
        Check that all good lines, and nothing else, are stored once and in order, and that nothing unexpected was
        logged.
        """
        numbers = [(float(n),) for n in range(1, count + 1)]
        eventually(lambda: self.rows("select value from reading order by seq") == numbers, "all is stored, once")
        self.assertNotIn("Traceback", self.daemon.log)

    def test_no_line_end(self) -> None:
        """
        Any amount of text without a line end is one line that is too long, and NULs are none; memory stays flat, and
        the good line after them is read.
        """
        self.listen()
        before = resident(self.daemon.process.pid)
        for byte in (b"x", b"\0"):
            for _ in range(MEGABYTES):
                self.device.pour(byte * 1_000_000)
            self.says_something()
        self.assertLess(resident(self.daemon.process.pid) - before, GROWTH)
        self.assertEqual(self.counted()["MALFORMED"], "1")
        self.assertEqual(self.counted()["NOISE"], str(MEGABYTES * 1_000_000))
        self.stored(3)

    def test_noise(self) -> None:
        """
        Of binary noise and half lines each is counted, the last ones are listed, and the log is not filled; all good
        lines between them are read.
        """
        self.listen()
        noise = random.Random(4)
        for n in range(2, 502):
            self.device.pour(noise.randbytes(2000) + b"\xff_\nID:1_N:%d\nID:1_N\nID:1_" % n)
        self.deliver(501)
        self.assertGreater(int(self.counted()["MALFORMED"]), 2500)
        self.assertEqual(len(self.administer(self.daemon).word("malformed")), 100 + 1)
        self.assertLess(len([line for line in self.daemon.log.splitlines() if "malformed" in line]), 5)
        self.stored(501)

    def test_wrong_speed(self) -> None:
        """
        A wrong speed is reported once and soon, whatever it is and should be.
        """
        self.listen()
        reported = 0
        said = b"".join(b"ID:%d_TEMP:%d.%d_HUM:%d\r\n" % (n % 7 + 20, n % 30, n % 10, n * 7 % 100) for n in range(400))
        for sent in SPEEDS:
            for read in SPEEDS:
                if sent != read:
                    received = misread(said, sent, read)
                    for place in range(0, len(received), 100):
                        self.device.pour(received[place : place + 100])
                    reported += 1
                    self.until_reported(reported)
                    # It is set right, and so it may be said again.
                    for _ in range(60):
                        self.said += 1
                        self.device.pour(b"\nID:1_N:%d\n" % self.said)
                    self.deliver(self.said)
        self.assertEqual(self.daemon.log.count("check the baud rate"), reported)

    def test_another_dialect(self) -> None:
        """
        Text of another grammar is no wrong speed.
        """
        self.listen()
        self.device.pour(b"raw:50-03-38 station:0 batt:ok temp:78.6\r\n" * 40)
        eventually(lambda: "malformed: they are text; another dialect?" in self.daemon.log, "it is reported")
        self.assertNotIn("baud", self.daemon.log)

    def until_reported(self, times: int) -> None:
        """
        Wait until the wrong speed was reported so often.
        """
        eventually(lambda: self.daemon.log.count("check the baud rate") == times, f"it is said for the time {times}")

    def test_repeats(self) -> None:
        """
        Of a radio that sends each line three times one is stored, and the others are counted.
        """
        self.listen(",repeats=60s")
        for n in range(2, 52):
            for _ in range(3):
                self.device.pour(b"ID:1_N:%d\n" % n)
        eventually(lambda: self.counted()["REPEATS"] == "100", "all was read")
        self.stored(51)

    def test_spelling(self) -> None:
        """
        What is no plain decimal is stored as it was spelled, beside its number; a changed unit is logged once.
        """
        self.listen()
        self.device.pour("ID:46_CARD:00E1\nID:46_CARD:12E4\nID:47_T:21.5°C\nID:47_T:70°F\nID:47_T:71\n".encode())
        self.says_something()
        rows = [(0.0, "00E1"), (120000.0, "12E4"), (21.5, "21.5°C"), (None, "70°F"), (None, "71")]
        select = "select value, text from reading where sensor in ('46', '47') order by seq"
        eventually(lambda: self.rows(select) == rows, "all is stored")
        self.assertEqual(self.daemon.log.count("it is text from now on"), 1)

    def test_on_change(self) -> None:
        """
        Of a sensor that repeats its value the first and the last of each run are stored; subscribers get all.
        """
        settings = self.folder / "usbgate.toml"
        settings.write_text('[sensor.2]\nstore = "on change, at least every 1h"\n')
        self.device = self.plug()
        self.daemon = self.run_daemon(
            *("--config", str(settings)), *("--device", str(self.device.path), "--database", self.database)
        )
        self.client = self.online(self.daemon)
        watcher = self.connect(self.daemon)
        watcher.word("watch 2")
        values = ["7"] * 50 + ["8"] * 50 + ["9"]
        for value in values:
            self.device.say(b"ID:2_V:%s" % value.encode())
        received = [parse(watcher.receive().encode()) for _ in values]
        self.assertEqual([fields["V"] for fields in received], values)
        stored = [(7.0,), (7.0,), (8.0,), (8.0,), (9.0,)]
        eventually(lambda: self.rows("select value from reading order by seq") == stored, "they are stored")
        self.assertNotIn("Traceback", self.daemon.log)


class FirmwareTests(RunningCase):
    """
    A device that treats requests and lines in its own way.
    """

    def test_echo_and_capitals(self) -> None:
        """
        A line that holds the request is no answer; one with the command in capitals is.
        """
        device = self.plug(lambda fields: [])
        client = self.online(self.run_daemon("--device", str(device.path), "--database", "none"))
        client.say("ask 31 on timeout=20")
        eventually(lambda: device.received == [b"MSG:on_ID:31_ORIGIN:127.0.0.1"], "it is asked")
        device.pour(b"Received: MSG:on_ID:31_ORIGIN:127.0.0.1\r\nID:31_STATE:1_MSG:ON\r\n")
        self.assertTrue(client.receive().startswith("ID:31_STATE:1_MSG:on_AT:"))

    def test_names(self) -> None:
        """
        Names with `_` are read as one name behind numbers, which is logged once; arguments are written as listed.
        """
        device = self.plug(lambda fields: [])
        daemon = self.run_daemon("--device", f"{device.path},names=SET_POINT", "--database", "none")
        client = self.online(daemon)
        device.pour(b"ID:21_VALUE:3_TEMP_IN:21.5_TEMP_OUT:9\nID:22_NOTE:hi_SET_POINT:5\n")
        eventually(lambda: len(client.word("last")) == 5 + 1, "both are read")
        fields = [line.split("_")[1] for line in client.word("last")[:-1]]
        self.assertEqual(fields, ["VALUE:3", "TEMP-IN:21.5", "TEMP-OUT:9", "NOTE:hi", "SET-POINT:5"])
        self.assertEqual(daemon.log.count("is read as one name"), 1)
        client.say("ask 21 L SET-POINT=7")
        eventually(lambda: device.received == [b"MSG:L_ID:21_SET_POINT:7_ORIGIN:127.0.0.1"], "it is written as listed")

    def test_checksum(self) -> None:
        """
        With `checksum`, only lines that end in a right one are read, and requests have one.
        """
        device = self.plug(lambda fields: [])
        daemon = self.run_daemon("--device", f"{device.path},checksum=true", "--database", "none")
        client = self.online(daemon)
        device.pour(b"ID:31_TEMP:2ID:2_SMOKE:1\nID:20_VALUE:456\nID:20_VALUE:457*2C\nID:20_VALUE:456*2C\n")
        eventually(lambda: len(client.word("last")) == 1 + 1, "one is read")
        malformed = self.administer(daemon).word("malformed")[:-1]
        reasons = [parse(line.encode())["REASON"] for line in malformed]
        self.assertEqual(reasons, ["no checksum", "no checksum", "wrong checksum"])


class EdgesTests(RunningCase):
    """
    A device whose lines begin and end in its own way.
    """

    def test_edges(self) -> None:
        """
        Lines that end in CR or LF CR, with stray bytes before and NULs behind, are read.
        """
        device = self.plug()
        client = self.online(self.run_daemon("--device", str(device.path), "--database", "none"))
        device.pour(b"\0\0ID:1_V:1\rID:2_V:2\n\rID:3_V:3\0\0\0\r\n\xf0ID:4_V:4\n")
        eventually(lambda: len(client.word("last")) == 4 + 1, "all four are read")
        self.assertEqual(parse(client.word("devices")[0].encode())["NOISE"], "6")

    def test_gap(self) -> None:
        """
        A board that sends the line end first, and answers in pieces, is read with a gap.
        """
        device = self.plug(lambda fields: [])
        daemon = self.run_daemon("--device", f"{device.path},gap=500ms", "--database", "none")
        client = self.online(daemon)
        client.say("ask 20 J timeout=20")
        for piece in (b"\r\nID:20_VAL", b"UE:45", b"6_MSG:J"):
            device.pour(piece)
        self.assertTrue(client.receive().startswith("ID:20_VALUE:456_MSG:J_AT:"))
        self.assertNotIn("without a line end", daemon.log)

    def test_damaged_fields(self) -> None:
        """
        A damaged field costs only itself, and a line with one answers only by its `MSG`; an RFID reader says `TAG`.
        """
        device = self.plug(lambda fields: [])
        daemon = self.run_daemon("--device", str(device.path), "--database", "none")
        client = self.online(daemon)
        client.say("MSG:J_ID:45_TIMEOUT:20_TAG:mine")
        client.receive()
        device.pour(b"ID:45_TEMP:21.5_HUM:\nID:46_TEMP:21.5_UNIT:\xb0C\nID:45_TEMP:22_TAG:04A3_HUM:_MSG:J\n")
        self.assertTrue(client.receive().startswith("ID:45_TEMP:22_TAG:mine_MSG:J_AT:"))
        newest = [line.partition("_AT:")[0] for line in client.word("last")]
        self.assertEqual(newest[:-1], ["ID:45_TEMP:22_MSG:J", "ID:45_TAG:04A3_MSG:J", "ID:46_TEMP:21.5"])
        counts = parse(client.word("devices")[0].encode())
        self.assertEqual((counts["EMPTY"], counts["NOTUTF8"], counts["MALFORMED"]), ("2", "1", "0"))
        reasons = [parse(line.encode())["REASON"] for line in self.administer(daemon).word("malformed")[:-1]]
        damaged = "field left out, "
        self.assertEqual(reasons, [damaged + reason for reason in ("empty value", "not UTF-8", "empty value")])

    def test_two_lines_in_one(self) -> None:
        """
        Where a board resets in the middle of a line, who asked gets nothing of the next line's sensor.
        """
        device = self.plug(lambda fields: [])
        client = self.online(self.run_daemon("--device", str(device.path), "--database", "none"))
        client.say("ask 31 J timeout=20")
        eventually(lambda: device.received, "the question is written")
        device.pour(b"ID:31_TEMP:2ID:2_SMOKE:1\nID:31_TEMID:2_SMOKE:1\nID:31_TEMP:22\n")
        self.assertTrue(client.receive().startswith("ID:31_TEMP:22_MSG:J_AT:"))
        client.receive()
        self.assertEqual(len(client.word("last")), 1 + 1)
        self.assertIn("MALFORMED:2_REASON:two lines in one", client.word("status"))
