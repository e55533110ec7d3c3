"""
The dialect of MySensors; what whole recordings become is in `dialects/mysensors.*`.
"""

from __future__ import annotations

import os
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.support.dialects import send
from tests.support.links import LinkCase
from usbgate.core.errors import Malformed
from usbgate.core.model import Reply, Send
from usbgate.device.dialects.mysensors import HELD_LIMIT, NO_IDS_LEFT, Dialect
from usbgate.device.link import Link
from usbgate.testing import check_dialect, report, request


class LinkTests(LinkCase):
    """
    A link to a gateway.
    """

    def connect(self) -> None:
        """
        Open a link with the dialect.
        """
        self.link = Link(self.clock, self.device, "board", "/dev/board", Dialect(), lambda attempt: 1.0)
        self.link.listener = self.listener
        self.open()
        self.assertEqual(self.device.transport.value(), b"0;255;3;0;2;\n")
        self.device.say(b"0;255;3;0;14;Gateway startup complete.\n")
        self.device.transport.clear()

    def test_sleeper(self) -> None:
        """
        A command for a node that has announced its sleep goes out at once when it does so again, not before, and only
        once; its echo answers.
        """
        self.connect()
        self.device.say(b"14;255;3;0;33;5000\n14;255;3;0;32;75\n")
        self.link.send([Send(request("14.1", "UP"), None, 5.0), Send(request("15.1", "UP"), None, 5.0)])
        self.link.send([Send(request("14.1", "UP"), None, 5.0)])
        self.assertEqual(self.device.transport.value(), b"15;1;1;1;29;1\n")
        self.device.say(b"14;255;3;0;33;5000\n")
        self.device.transport.clear()
        self.listener.calls.clear()
        self.device.say(b"14;255;3;0;32;75\n")
        self.assertEqual(self.device.transport.value(), b"14;1;1;1;29;1\n")
        self.device.say(b"14;1;1;1;29;1\n14;255;3;0;33;5000\n14;255;3;0;32;75\n")
        self.assertEqual(self.device.transport.value(), b"14;1;1;1;29;1\n")
        self.assertEqual(self.listener.calls, [("reports", report("14.1", "UP", UP="1"))])
        self.assertEqual(self.link.counts.echoes, 0)

    def test_foreign_lines(self) -> None:
        """
        A banner of foreign lines is text at each opening, and no reason to open the port again.
        """
        self.connect()
        banner = b"NodeManager v1.6\nLIB V=2.2.0-rc.2 R=P E=- T=N A=A S=- B=-\nINT P=3 M=255\n\nROUTER METRIC=1,2\n" * 2
        for _ in range(2):
            self.device.say(b"0;255;3;0;14;Gateway startup complete.\n" + banner + b"14;1;1;0;2;1\n")
            self.assertEqual(self.listener.calls, [("reports", report("14.1", STATUS="1"))])
            self.device.vanish()
            self.assertEqual([call[0] for call in self.listener.calls[1:]], ["down"])
            self.clock.advance(1.0)
            self.listener.calls.clear()
        self.assertEqual((self.link.counts.malformed, self.link.counts.reconnects), (0, 2))


class DialectTests(SynchronousTestCase):
    """
    Messages in, commands and replies out.
    """

    def test_messages(self) -> None:
        """
        What a message becomes; two in one are none.
        """
        check_dialect(
            Dialect(),
            [
                (b"14;1;1;0;2;1", report("14.1", STATUS="1")),
                (b"14;1;1;0;42;04A2", report("14.1", **{"X-ID": "04A2"})),
                (b"14;255;3;0;0;87", report("14", BATTERY="87")),
                (b"14;1;1;0;47;a;b", report("14.1", TEXT="a;b")),
                (b"hello", "hello"),
            ],
            [
                b"33;2550;255;3;0;14;Gateway startup complete.",
                b"14;1;1;0;0;2155;255;3;0;9;TSF",
                b"14;2;1;1;0;16;1",
            ],
        )

    def test_commands(self) -> None:
        """
        What is set is answered by its echo, what is requested by the value; any other command by what comes next.
        """
        dialect = Dialect()
        for asked, message, frame, values in [
            (request("14.1", "on"), b"14;1;1;1;2;1\n", b"14;1;1;1;2;1", {"STATUS": "1"}),
            (request("14.1", "SET", PERCENTAGE="40"), b"14;1;1;1;3;40\n", b"14;1;1;1;3;40", {"PERCENTAGE": "40"}),
            (request("14.1", "STATUS"), b"14;1;2;0;2;\n", b"14;1;1;0;2;0", {"STATUS": "0"}),
            (request("14.1", "J"), b"", b"14;1;1;0;0;21.5", {"TEMP": "21.5"}),
            (request("14", "J"), b"", b"14;255;3;0;0;87", {"BATTERY": "87"}),
        ]:
            sensor, command = asked.question.sensor, asked.question.command
            self.assertEqual(send(dialect, asked), message)
            for other in (b"14;1;1;1;2;9", b"14;2;1;1;2;1", b"14;1;1;0;3;1") if message else ():
                self.assertNotIn(command, dialect.decode(other))
            self.assertEqual(dialect.decode(frame), report(sensor, command, **values))
            self.assertEqual(dialect.decode(frame), report(sensor, None, **values))
        for wrong in (
            request("14", "ON"),
            request("14.255", "ON"),
            request("kitchen", "J"),
            request("14.1", "SET"),
            request("14.1", "SET", SPEED="1"),
            request("14.1", "SET", TEXT="x" * 26),
            request("14.1", "ON", LEVEL="1"),
        ):
            self.assertRaises(Malformed, dialect.encode, wrong, None)

    def test_numbers_of_nodes(self) -> None:
        """
        Each new node gets a number that no other one has or had, also after a restart. One that was given in vain is
        given again when all others are taken.
        """
        kept: dict[str, str] = {}
        dialect = Dialect()
        dialect.kept = kept
        dialect.decode(b"2;255;0;0;17;2.3.2")
        given = []
        for _ in range(255):
            (reply, *_) = dialect.decode(b"255;7;3;0;3;")
            given.append(reply)
            another = Dialect()
            another.kept, dialect = kept, another
        numbers = [1, *range(3, 255), 1, 1]
        self.assertEqual(given, [Reply(b"255;7;3;0;4;%d\n" % number) for number in numbers])
        for number in range(1, 255):
            dialect.decode(b"%d;255;3;0;22;" % number)
        for _ in range(2):
            self.assertEqual(dialect.decode(b"255;255;3;0;3;"), ())
        self.assertEqual(dialect.notices, [NO_IDS_LEFT])

    def test_time_and_units(self) -> None:
        """
        Nodes get the time in seconds of the local clock, and metric units.
        """
        before = os.environ.get("TZ")
        os.environ["TZ"] = "CET-1"
        time.tzset()
        try:
            dialect = Dialect()
            dialect.now = lambda: 1_764_432_000.5
            self.assertEqual(dialect.decode(b"14;255;3;0;1;"), Reply(b"14;255;3;0;1;1764435600\n"))
        finally:
            del os.environ["TZ"]
            if before is not None:
                os.environ["TZ"] = before
            time.tzset()
        self.assertEqual(dialect.decode(b"14;255;3;0;6;0"), Reply(b"14;255;3;0;6;M\n"))

    def test_request_of_a_node(self) -> None:
        """
        A node that requests a value gets what it was set to, or reported, last.
        """
        dialect = Dialect()
        self.assertEqual(dialect.decode(b"14;1;2;0;2;"), ())
        dialect.decode(b"14;1;1;0;2;0")
        self.assertEqual(dialect.decode(b"14;1;2;0;2;"), (Reply(b"14;1;1;0;2;0\n"),))
        send(dialect, request("14.1", "ON"))
        self.assertEqual(dialect.decode(b"14;1;2;0;2;"), (Reply(b"14;1;1;0;2;1\n"),))

    def test_sleepers(self) -> None:
        """
        That a node sleeps is known after a restart, until it starts anew. The newest of equal commands is held, and no
        more than fit; another opening drops them.
        """
        dialect = Dialect()
        dialect.decode(b"14;255;3;0;32;75")
        another = Dialect()
        another.kept = dialect.kept
        self.assertEqual(send(another, request("14.1", "STATUS")), b"")
        self.assertEqual(another.decode(b"14;255;0;0;17;2.3.2"), ["node 14 is there: 2.3.2", Reply(b"14;1;2;0;2;\n")])
        self.assertEqual(send(another, request("14.1", "STATUS")), b"14;1;2;0;2;\n")
        another.decode(b"14;255;3;0;32;75")
        for value in ("1", "2"):
            send(another, request("14.1", "SET", PERCENTAGE=value))
        self.assertEqual(another.decode(b"14;255;3;0;32;75"), [Reply(b"14;1;1;1;3;2\n")])
        for number in range(HELD_LIMIT):
            send(another, request(f"14.{number % 128}", "ON" if number < 128 else "UP"))
        self.assertRaises(Malformed, another.encode, request("14.1", "DOWN"), None)
        another.opened()
        self.assertEqual(another.decode(b"14;255;3;0;32;75"), [])

    def test_old_sleepers(self) -> None:
        """
        Before MySensors 2.2, a heartbeat announces sleep.
        """
        dialect = Dialect()
        dialect.decode(b"14;255;3;0;22;500")
        self.assertEqual(send(dialect, request("14.1", "ON")), b"14;1;1;1;2;1\n")
        dialect.decode(b"0;255;3;0;2;2.1.1")
        dialect.decode(b"14;255;3;0;22;500")
        send(dialect, request("14.1", "ON"))
        self.assertEqual(dialect.decode(b"14;255;3;0;22;500"), [Reply(b"14;1;1;1;2;1\n")])

    def test_options(self) -> None:
        """
        A wrong option is refused by its name.
        """
        wrong: dict[str, object] = {"version": "2.3"}
        for key, value in wrong.items():
            with self.assertRaisesRegex(ValueError, f"^{key}: "):
                Dialect({key: value})
