"""
The commands that show something: the daemon is a stand-in with fixed replies, and the output is a pipe unless a test
says that it is a terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from tests.support.running import environment
from tests.support.standin import replying
from tests.support.waiting import LIMIT
from usbgate.cli.main import main
from usbgate.cli.tables import plain, spell_duration, spell_size, spell_time_briefly, styled
from usbgate.core.counts import LinkCounts
from usbgate.core.fieldline import format_time

AT = "2013-03-11T21:02:10.123Z"
RECENT = format_time(int((time.time() - 3 * 86_400 - 4 * 3600 - 600) * 1000))  # 3 d 4 h ago

SENSORS = [
    f"ID:22_DEV:uno_FIELDS:BAT,TEMP_SEEN:{RECENT}_REPORTS:1204_NAME:climate_PLACE:Bathroom_POLL:300_UNITS:TEMP=°C",
    "ID:31_REPORTS:0",
]
TEMP = f"ID:22_TEMP:21.5_MSG:J_AT:{RECENT}_DEV:uno"
BAT = f"ID:22_BAT:OK_AT:{RECENT}_DEV:uno"
ALARM = f"ALARM:a1_ID:22_FIELD:TEMP_VALUE:21.5_CONDITION:> 20_SINCE:{AT}_DEV:uno"
OLD_ALARM = ALARM.replace("a1", "a0").replace("_DEV", f"_ENDED:{RECENT}_ACKNOWLEDGED:{RECENT}_BY:Zoé_DEV") + "_PEAK:75"
COUNTS = "".join(f"_{each.key}:{5 if each.key == 'IN' else 0}" for each in LinkCounts())
DEVICE = f"DEV:uno_PATH:/dev/ttyACM0_STATE:online_SINCE:{RECENT}{COUNTS}_TEXT:another program has it open"
REQUEST = (
    f"AT:{AT}_MSG:L_ID:22_ARGUMENTS:LEVEL:50_ORIGIN:TOTO_CLIENT:phone@10.0.0.7:1_DEV:uno_OUTCOME:answered_TOOK:0.0446"
)
STATUS = [
    "VERSION:0.1.0_UPTIME:90061_CLOCK:untrusted_SENSORS:7_INFLIGHT:1_HELD:2",
    f"STORE:away_GW:pi_BACKLOG:12_REJECTED:1_OLDEST:{RECENT}_TEXT:no route",
    "JOURNAL:ok_COMMITS:41_SLOWEST:0.0237_WRITTEN:561152_DAILY:808058880_LOST:3",
    "REQUESTS:9_OUTCOME:answered",
    "REQUESTS:2_OUTCOME:timeout",
    "MALFORMED:1_REASON:no key",
    "DEV:uno_UNSURE:2_SENSORS:5,6_TEXT:x",
    "DEV:uno_UNSURE:1_SENSORS:7_TEXT:x",
    "DEV:uno_ID:22_FIELD:TEMP_UNCOMPARED:25_TEXT:the last one is nan, and the alarm condition > 60",
    "CLIENTS:3_WATCHERS:2_WAITING:1_ACCEPTED:27_LIMITED:1",
]

ACTION = f"AT:{AT}_MSG:token add_ARGUMENTS:NAME:phone_ORIGIN:uid0_CLIENT:uid0@local_OUTCOME:done_TOOK:0.0000"

REPLIES = {
    "sensors": SENSORS,
    "last": [TEMP, BAT],
    "alarms": [ALARM],
    "devices": [DEVICE],
    "status": STATUS,
    "requests": [ACTION, REQUEST],
    "malformed": [f"AT:{AT}_FROM:uno_REASON:no key_TEXT:x y"],
    "history 22": [TEMP, BAT],
    "history 31": [f"ID:31_X:1_AT:{AT}_DEV:uno"],
}


HELD = f"HELD:7_AT:{RECENT}_UNTIL:{RECENT}_MSG:SET_ID:22_ARGUMENTS:LEVEL:5_ORIGIN:TOTO_CLIENT:10.0.0.7:1_DEV:uno"


class ShowCase(SynchronousTestCase):
    """
    Runs commands.
    """

    def run_command(self, *arguments: str, **replies: Sequence[str]) -> tuple[int, str, str]:
        """
        Run a command; return its exit status, its output and its errors. The words that it sent are in `sent`.
        """
        with replying({**REPLIES, **replies}) as (port, self.sent):
            result = CliRunner().invoke(main, [*arguments, "--host", "127.0.0.1", "-p", str(port)])
        return result.exit_code, result.stdout, result.stderr

    def show(self, *arguments: str, **replies: Sequence[str]) -> str:
        """
        Run a command that succeeds; return its output.
        """
        status, output, errors = self.run_command(*arguments, **replies)
        self.assertEqual((status, errors), (0, ""))
        return output

    def json(self, *arguments: str) -> Any:
        """
        Run a command with `--json`; return what it printed, parsed.
        """
        return json.loads(self.show(*arguments, "--json"))


class TableTests(ShowCase):
    """
    What people see in a pipe: aligned columns, ages and units.
    """

    def test_sensors(self) -> None:
        """
        A sensor that has sent nothing yet is there, too.
        """
        titles, climate, silent = self.show("sensors").splitlines()
        self.assertEqual(titles, "ID  NAME     PLACE     FIELDS     REPORTED     REPORTS  POLL   DEVICE")
        self.assertRegex(climate, r"^22  climate  Bathroom  BAT, TEMP  3 d 4 h ago    1,204  5 min  uno$")
        self.assertRegex(silent, r"^31 +never +0$")

    def test_devices(self) -> None:
        """
        Counts that are 0 are left out, and a warning stands below.
        """
        _, device, warning = self.show("devices").splitlines()
        self.assertRegex(device, r"^uno     online  3 d 4 h  /dev/ttyACM0  in 5$")
        self.assertEqual(warning, "uno: another program has it open")

    def test_last(self) -> None:
        """
        A number has its unit, a text has none.
        """
        _, temp, bat = self.show("last").splitlines()
        self.assertRegex(temp, r"^22  climate  TEMP   21.5 °C  3 d 4 h  J         uno$")
        self.assertRegex(bat, r"^22  climate  BAT         OK  3 d 4 h            uno$")
        self.show("last", "22", "TEMP", **{"last 22 TEMP": [TEMP]})
        self.assertEqual(self.sent, ["sensors", "last 22 TEMP", "alarms 22"])
        self.show("last", "--raw", **{"last raw=yes": [TEMP]})
        self.assertEqual(self.sent, ["sensors", "last raw=yes", "alarms"])

    def test_replace(self) -> None:
        """
        Without ids, the replacements and what may be some are listed.
        """
        made = f"ID:22_SUCCESSOR:31_STATE:replaced_SINCE:{AT}_AT:{AT}_BY:me_DEV:uno"
        offer = f"ID:20_SUCCESSOR:33_STATE:offered_SINCE:{AT}_AT:{AT}_DEV:uno"
        _, first, second = self.show("replace", replacements=[made, offer]).splitlines()
        self.assertRegex(first, r"^22 climate  31      uno     20\d\d-[^ ]+ [0-9:]{8} by me$")
        self.assertRegex(second, r"^20          33      uno     silent since .*: usbgate replace 20 33\?$")
        output = self.show("replace", "22", "31", **{"replace 22 31": [made]})
        self.assertEqual(output, "31 is sensor 22 climate from now on\n")
        output = self.show("replace", "--undo", "22", **{"replace 22 undo=yes": [made]})
        self.assertEqual(output, "31 is no longer sensor 22 climate\n")
        for arguments in (["22"], ["--undo"], ["--undo", "22", "31"]):
            self.assertEqual(self.run_command("replace", *arguments)[0], 64, arguments)
        self.assertEqual(self.run_command("replace", replacements=[])[1:], ("", "no sensor was replaced\n"))

    def test_history(self) -> None:
        """
        The options are those of the word; without a number, all readings since a time are asked for.
        """
        _, temp, _ = self.show("history", "22").splitlines()
        self.assertRegex(temp, r"^20\d\d-[^ ]+ [0-9:]{8}  TEMP   21.5 °C  J         uno$")
        for arguments, word in [
            ("history 22 TEMP --since 1d", "history 22 TEMP since=1d limit=10000"),
            ("history 22 --limit 7", "history 22 limit=7"),
            ("history 22 --since 2h --limit 7", "history 22 since=2h limit=7"),
            ("history 22 --raw", "history 22 raw=yes"),
        ]:
            self.show(*arguments.split(), **{word: [TEMP]})
            self.assertEqual(self.sent, ["sensors", word])
        self.run_command("history", "22", "--since", "2026-01-31 12:00")
        self.assertEqual(self.sent[1], "history 22 since=2026-01-31T12:00 limit=10000")

    def test_history_cut(self) -> None:
        """
        If there are more readings since a time than the daemon sends at once, that is said.
        """
        status, output, errors = self.run_command(
            "history", "22", "--since", "1d", **{"history 22 since=1d limit=10000": [TEMP] * 10_000}
        )
        self.assertEqual((status, output.count("\n")), (0, 10_001))
        self.assertEqual(errors, "only the newest 10,000 readings are shown\n")

    def test_csv(self) -> None:
        """
        CSV has a header, and texts and numbers in columns of their own.
        """
        self.assertEqual(
            self.show("history", "22", "--csv").splitlines(),
            [
                "at,sensor,field,device,value,text,command",
                f"{RECENT},22,TEMP,uno,21.5,,J",
                f"{RECENT},22,BAT,uno,,OK,",
            ],
        )

    def test_alarms(self) -> None:
        """
        An alarm that is over says since when, and who has seen it.
        """
        _, alarm = self.show("alarms").splitlines()
        self.assertRegex(alarm, r"^a1 +22 climate  TEMP   21.5 °C  > 20 +20.* active  nobody$")
        stored = {"alarms 22 since=7d limit=1000": [OLD_ALARM, ALARM]}
        _, old, _ = self.show("alarms", "22", "--since", "7d", **stored).splitlines()
        self.assertRegex(old, r" ended 3 d ago  Zoé 3 d ago$")

    def test_requests(self) -> None:
        """
        A request is there with who asked it, by which token, and how long it took; what is no question has no sensor.
        """
        _, action, request = self.show("requests").splitlines()
        self.assertRegex(action, r" {6}token add  NAME:phone  uid0          done       0.0 ms$")
        self.assertRegex(request, r"  22  L          LEVEL:50    TOTO \(phone\)  answered  44.6 ms  uno$")

    def test_malformed(self) -> None:
        """
        The older name of the command works, too.
        """
        _, line = self.show("malformed").splitlines()
        self.assertRegex(line, r"  uno   no key  x y$")
        self.assertEqual(self.show("noise").splitlines()[1], line)

    def test_status(self) -> None:
        """
        Devices and alarms are part of the status; what a person should know has its reason.
        """
        rows = {line[:9].strip(): line[11:] for line in self.show("status").splitlines()}
        self.assertEqual(rows["usbgate"], "0.1.0, running for 1 d 1 h; the clock is not trusted")
        self.assertRegex(rows["device"], r"^uno is online for 3 d 4 h: another program has it open$")
        self.assertRegex(rows["database"], "^away, 12 rows waiting, 1 rejected, the oldest for 3 d 4 h: no route$")
        self.assertEqual(
            rows["journal"], "ok, 41 commits, the slowest took 0.024 s, 808 MB written per day, 3 rows lost"
        )
        self.assertEqual(rows["alarms"], "1 active, 1 open")
        self.assertEqual(rows["requests"], "9 answered, 2 timeout; 1 not answered yet, 2 held until a sensor reports")
        self.assertEqual(rows["unsure"], "uno: the answers of 5, 6, 7 have neither MSG nor TAG")
        self.assertIn("the last one is nan", rows["alarm"])
        self.assertEqual(rows["clients"], "3 connected, of which 2 watch; 27 since the start")

    def test_status_without_database(self) -> None:
        """
        Where nothing is stored, there is no journal.
        """
        output = self.show("status", status=[STATUS[0], "STORE:none", STATUS[-1]])
        self.assertIn("none: nothing is stored", output)
        self.assertNotIn("journal", output)

    def test_nothing(self) -> None:
        """
        Where there is nothing to show, a pipe stays empty, and a person is told.
        """
        nothing = dict.fromkeys(REPLIES, ())
        for command in ("sensors", "last", "alarms", "requests", "malformed"):
            status, output, errors = self.run_command(command, **nothing)
            self.assertEqual((status, output, errors.count("\n")), (0, "", 1), command)
            self.assertEqual(self.run_command(command, "--json", **nothing), (0, "[]\n", ""))

    def test_unknown(self) -> None:
        """
        A sensor or a field that is not known is one line and status 1; a known one that has sent nothing is no error.
        """
        for arguments in ("last 404", "history 404", "alarms 404", "requests 404", "last 22 HUM", "watch 404"):
            status, output, errors = self.run_command(*arguments.split())
            self.assertEqual((status, output), (1, ""), arguments)
            self.assertRegex(errors, r"^usbgate: unknown (sensor: 404|field of sensor 22: HUM); .*\n$")
        for arguments in ("last 31", "history 31", "alarms 31", "requests 31"):
            self.assertEqual(self.run_command(*arguments.split())[0], 0, arguments)

    def test_completion(self) -> None:
        """
        A shell completes the ids of sensors, with their names; without a daemon, none.
        """
        for words, completed in [("", "plain,22\nplain,31"), ("3", "plain,31"), ("4", "")]:
            with replying(REPLIES) as (port, _):
                result = self.complete(f"usbgate last --host 127.0.0.1 -p {port} {words}")
            self.assertEqual(result, completed)
        self.assertEqual(self.complete("usbgate last --host 127.0.0.1 -p 1 "), "")

    def complete(self, line: str) -> str:
        """
        Return what bash gets for a command line.
        """
        environ = {"_USBGATE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        return CliRunner().invoke(main, prog_name="usbgate", env=environ).stdout.strip()

    def test_error(self) -> None:
        """
        An error of the daemon is one line, and so is a closing line that never comes.
        """
        status, _, errors = self.run_command("status", status=["ERROR:failed_TEXT:so it is"])
        self.assertEqual((status, errors), (1, "usbgate: failed: so it is\n"))

    def test_held(self) -> None:
        """
        What is held is a table; it is cancelled by its number.
        """
        titles, held = self.show("held", held=[HELD]).splitlines()
        self.assertRegex(titles, r"^NUMBER +ID +COMMAND +ARGUMENTS +ASKED BY +SINCE +UNTIL +DEVICE$")
        self.assertRegex(held, r"^ +7  22  SET      LEVEL:5    TOTO .* uno$")
        self.assertEqual(self.run_command("held", held=[]), (0, "", "no question is held\n"))
        self.assertEqual(self.show("cancel", "7", **{"cancel 7": [HELD]}), "cancelled: SET to sensor 22\n")
        status, _, errors = self.run_command("cancel", "8", **{"cancel 8": ["ERROR:unknown_TEXT:not held"]})
        self.assertEqual((status, errors), (1, "usbgate: unknown: not held\n"))

    def test_acknowledge(self) -> None:
        """
        An alarm is named by its id or its sensor's; who has seen it is the user, unless another name is given.
        """
        seen = f"{ALARM}_ACKNOWLEDGED:{RECENT}_BY:Zoé Martin"
        for alarm in ("a1", "22"):
            output = self.show("acknowledge", alarm, "--by", "Zoé Martin", **{"acknowledge a1 Zoé Martin": [seen]})
            self.assertEqual(output, "climate: TEMP > 20 acknowledged by Zoé Martin\n")
        with self.assertRaises(AssertionError):
            self.show("acknowledge", "a9")
        self.assertEqual(self.sent, ["sensors", "alarms"])


class JsonTests(ShowCase):
    """
    What programs get: the names of the HTTP API, times as they are, numbers as numbers.
    """

    def test_lists(self) -> None:
        """
        A list is an array of objects.
        """
        climate, silent = self.json("sensors")
        self.assertEqual(
            climate,
            {
                **{
                    "id": "22",
                    "name": "climate",
                    "place": "Bathroom",
                    "device": "uno",
                    "seen": RECENT,
                    "reports": 1204,
                    "poll": 300.0,
                },
                **{"fields": ["BAT", "TEMP"], "units": {"TEMP": "°C"}},
            },
        )
        self.assertEqual((silent["seen"], silent["fields"], silent["units"]), (None, [], {}))
        temp, bat = self.json("last")
        self.assertEqual(temp["value"], 21.5)
        self.assertEqual((bat["value"], bat["text"], bat["at"]), (None, "OK", RECENT))
        self.assertEqual(self.json("history", "22"), [temp, bat])
        (device,) = self.json("devices")
        self.assertEqual((device["counts"]["in"], device["warning"]), (5, "another program has it open"))
        (alarm,) = self.json("alarms")
        self.assertEqual((alarm["value"], alarm["ended"], alarm["acknowledged"]), (21.5, None, None))
        action, request = self.json("requests")
        self.assertIsNone(action["sensor"])
        self.assertEqual((request["latency_ms"], request["arguments"]), (44.6, "LEVEL:50"))
        self.assertEqual(self.json("malformed"), [{"at": AT, "source": "uno", "reason": "no key", "text": "x y"}])

    def test_status(self) -> None:
        """
        The status is one object.
        """
        status = self.json("status")
        self.assertEqual((status["uptime"], status["clock"], status["gateway"]), (90061, "untrusted", "pi"))
        self.assertEqual(status["store"]["oldest"], RECENT)
        self.assertEqual((status["journal"]["slowest"], status["journal"]["lost"]), (0.0237, 3))
        self.assertEqual(status["requests"], {"answered": 9, "timeout": 2})
        self.assertEqual(status["unsure"], {"uno": ["5", "6", "7"]})
        self.assertEqual(status["clients"]["watchers"], 2)

    def test_watch(self) -> None:
        """
        Each event is a line of its own; the end of the connection is an error.
        """
        events = [
            *("OK:watch", f"EVENT:reading_ID:22_TEMP:21.5_BAT:OK_MSG:J_AT:{AT}", "EVENT:device_DEV:uno_STATE:offline"),
            *(f"EVENT:alarm_CHANGE:raised_{ALARM}_AT:{AT}", "EVENT:dropped_COUNT:3", "EVENT:new_KEY:a"),
        ]
        with replying({**REPLIES, "watch 22": events}, hangs_up=True) as (port, _):
            result = CliRunner().invoke(main, ["watch", "22", "--json", "-p", str(port)])
        self.assertEqual(result.exit_code, 1)
        self.assertIn("closed the connection", result.stderr)
        reading, device, alarm, dropped, new = map(json.loads, result.stdout.splitlines())
        self.assertEqual(
            reading,
            {"event": "reading", "sensor": "22", "command": "J", "at": AT, "values": {"TEMP": 21.5, "BAT": "OK"}},
        )
        self.assertEqual(device, {"event": "device", "device": "uno", "state": "offline"})
        self.assertEqual((alarm["change"], alarm["id"], alarm["sensor"], alarm["at"]), ("raised", "a1", "22", AT))
        self.assertEqual((dropped, new), ({"event": "dropped", "count": 3}, {"event": "new", "key": "a"}))


class TerminalTests(SynchronousTestCase):
    """
    On a terminal.
    """

    def on_terminal(self, *arguments: str, columns: int = 80, until: str = "", **environ: str) -> str:
        """
        Run a command on a terminal until it ends, or until it has shown a text; return what it shows.
        """
        with replying({**REPLIES, "watch": [f"EVENT:alarm_CHANGE:raised_{ALARM}_AT:{AT}"]}, hangs_up=True) as (port, _):
            terminal, slave = pty.openpty()
            process = subprocess.Popen(
                [sys.executable, "-m", "usbgate.cli", *arguments, "--host", "127.0.0.1", "-p", str(port)],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env={**environment(), **environ, "TERM": "xterm-256color", "COLUMNS": str(columns)},
                start_new_session=True,
            )
            os.close(slave)
            shown = b""
            with contextlib.suppress(OSError):  # EIO: the other end is closed
                while data := os.read(terminal, 65536):
                    shown += data
                    if until and until.encode() in shown:
                        process.send_signal(signal.SIGINT)
            os.close(terminal)
            process.wait(LIMIT)
        return shown.decode()

    def test_colours(self) -> None:
        """
        Alarms are red.
        """
        self.assertIn("\x1b[31m21.5 °C\x1b[0m", self.on_terminal("last"))
        alarm = "\x1b[1;37;41mALARM raised: TEMP > 20\x1b[0m"
        self.assertIn(alarm, self.on_terminal("watch", until=alarm))

    def test_widths(self) -> None:
        """
        Columns are wrapped at blanks; if words would have to be split, the cells stand one below the other.
        """
        for columns, line in [
            (120, "a1     22 climate  TEMP   21.5 °C  > 20   20"),
            (66, "       climate             °C         "),
            (40, "SENSOR   22 climate"),
        ]:
            shown = re.sub(r"\x1b\[[0-9;]*m", "", self.on_terminal("alarms", columns=columns))
            lines = shown.splitlines()
            self.assertTrue([each for each in lines if each.startswith(line)], shown)
            self.assertLessEqual(max(map(len, lines)), columns)
            for word in ("ALARM", "climate", "LIMIT", "nobody"):
                self.assertIn(word, shown)

    def test_empty_column(self) -> None:
        """
        A column that is empty in all rows is left out.
        """
        shown = self.on_terminal("history", "31")
        self.assertIn("VALUE", shown)
        self.assertNotIn("ANSWERED", shown)

    def test_without_utf8(self) -> None:
        """
        A terminal that has no degree sign shows something else in its place.
        """
        self.assertIn("21.5 ?C", self.on_terminal("last", PYTHONIOENCODING="ascii"))


class SpellingTests(SynchronousTestCase):
    """
    Durations and sizes.
    """

    def test_durations(self) -> None:
        """
        The two largest units are shown.
        """
        for seconds, text in [
            *((0, "0 s"), (-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h")),
            *((3661, "1 h 1 min"), (86_400, "1 d"), (90_000, "1 d 1 h"), (86_460, "1 d"), (864_000, "10 d")),
        ]:
            self.assertEqual(spell_duration(seconds), text)

    def test_time(self) -> None:
        """
        A time of today is shown without the day.
        """
        now = datetime.now().astimezone()
        self.assertEqual(spell_time_briefly(now.isoformat()), f"{now:%H:%M:%S}")
        self.assertRegex(spell_time_briefly(AT), r"^2013-03-1\d \d\d:\d\d:10$")

    def test_sizes(self) -> None:
        """
        Sizes have three digits.
        """
        for size, text in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (561_152, "561 kB"),
            (808_058_880, "808 MB"),
            (2e9, "2 GB"),
        ]:
            self.assertEqual(spell_size(size), text)


class UnseenTests(SynchronousTestCase):
    """
    Texts with characters that are not seen.
    """

    def test_escaped(self) -> None:
        """
        A table shows them escaped, on a terminal and elsewhere.
        """
        for cell in ("a\u202eb", ("a\u202eb", "bold")):
            self.assertEqual(plain(cell), r"a\u202eb")
            self.assertEqual(styled(cell).plain, r"a\u202eb")
