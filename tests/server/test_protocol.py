"""
The line server (protocol §3): request lines, limits, half-close, the original client.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.support.access import OPEN, authority
from tests.support.memory_gateway import ANSWER, AT_TEXT, ECHO, ORIGINALS, MemoryGateway, PeerTransport, report_event
from tests.support.turnclock import TurnClock
from usbgate.core.errors import Busy, Denied, Failed, LimitExceeded, Offline, Stopped, TimedOut, Unknown
from usbgate.core.fieldline import LINE_LIMIT, parse
from usbgate.core.holders import Holder
from usbgate.core.model import Answer, DeviceEvent, ReportEvent, Request
from usbgate.gateway.interfaces import IGateway
from usbgate.net.broadcast import ISubscriber
from usbgate.net.rates import Rates
from usbgate.net.sendqueue import STUCK_AFTER
from usbgate.server.console import SUBSCRIBER_LIMIT
from usbgate.server.factory import IDLE_AFTER, STOP_LIMIT, ClientFactory, Clients
from usbgate.server.intake import LINES_AT_ONCE, LONE_TURN_TIME, TURN_TIME
from usbgate.server.opening import FIRST_DATA_PATIENCE
from usbgate.server.protocol import (
    LINES_PER_SLICE,
    OVER_LONG_LIMIT,
    UNSENT_LIMIT,
    ClientProtocol,
)
from usbgate.server.requests import IN_FLIGHT_LIMIT
from usbgate.testing import AT


class ServerCase(SynchronousTestCase):
    """
    A factory with clients in memory.
    """

    new_clock: type[Clock] = Clock

    def setUp(self) -> None:
        """
        Make the factory, and connect one client.
        """
        self.clock = self.new_clock()
        self.gateway = MemoryGateway()
        self.factory = ClientFactory(self.clock, self.gateway, authority(self.clock), max_connections=3, door=OPEN)
        self.client, self.transport = self.connect()

    def connect(self, host: str = "10.0.0.7") -> tuple[ClientProtocol, PeerTransport]:
        """
        Connect one more client.
        """
        client = self.factory.buildProtocol(IPv4Address("TCP", host, 4711))
        transport = PeerTransport(self.clock)
        transport.protocol = client
        client.makeConnection(transport)
        return client, transport

    def turn(self) -> None:
        """
        Let the reactor turn until nothing is left to do.
        """
        self.clock.pump([0.0] * 20)

    def received(self, transport: PeerTransport | None = None) -> list[str]:
        """
        Return the lines that a client received since the last time.
        """
        self.turn()
        transport = transport or self.transport
        lines: list[str] = transport.value().decode().split("\n")
        transport.clear()
        self.assertEqual(lines.pop(), "")
        return lines

    def send(self, data: bytes) -> list[str]:
        """
        Send data; return the lines received.
        """
        self.client.dataReceived(data)
        return self.received()


class RequestTests(ServerCase):
    """
    Request lines.
    """

    def test_interfaces(self) -> None:
        """
        The classes provide the interfaces that they declare.
        """
        verifyObject(IGateway, self.gateway)
        verifyObject(IHalfCloseableProtocol, self.client)
        verifyObject(IProtocol, self.client)
        verifyObject(ISubscriber, self.client.console)

    def test_echo_and_answer(self) -> None:
        """
        The echo is sent at once and the answer when it is known, however the line was cut and whatever follows it.
        """
        whole: list[list[bytes]] = [[ORIGINALS + b"\n"], [bytes([byte]) for byte in ORIGINALS + b"\n"]]
        for chunks in [*whole, [ORIGINALS + b"\nMSG:J_I"]]:
            client, transport = self.connect()
            for chunk in chunks:
                client.dataReceived(chunk)
            self.assertEqual(self.received(transport), [ECHO])
            self.gateway.answer(-1)
            self.assertEqual(self.received(transport), [ANSWER])
            transport.abortConnection()
        self.assertEqual(len(self.gateway.asked), 3)

    def test_line_ends(self) -> None:
        """
        A client that ends its lines in CRLF gets CRLF.
        """
        self.client.dataReceived(b"MSG:J_ID:20\r\nping\r\nx:\r\n")
        self.gateway.answer(0)
        self.turn()
        lines = self.transport.value().split(b"\r\n")
        self.assertEqual((len(lines), lines[0], lines[1], lines[-1]), (5, b"MSG:J_ID:20", b"OK:ping", b""))
        self.assertEqual(self.transport.value().count(b"\n"), 4)

    def test_origin(self) -> None:
        """
        ORIGIN defaults to the peer's address; the echo has only the fields that the client sent.
        """
        self.assertEqual(self.send(b"msg:L_id:9_level:50_TAG:t_TIMEOUT:3\n"), ["MSG:L_ID:9_LEVEL:50_TAG:t_TIMEOUT:3"])
        (request,) = self.gateway.requested
        self.assertEqual((request.origin, request.client, request.timeout), ("10.0.0.7", "10.0.0.7:4711", 3.0))
        local = self.factory.buildProtocol(UNIXAddress(None))
        self.assertEqual((local.peer.origin, local.peer.name), ("local", "local"))

    def test_tags(self) -> None:
        """
        With TAG, many requests can be in flight, and each line about a request has its tag.
        """
        self.send(b"MSG:J_ID:20_TAG:a\nMSG:J_ID:21_TAG:b_c\n")
        self.gateway.answer(1)
        self.gateway.fail(0, Offline("gone"))
        self.assertEqual(
            self.received(),
            [f"ID:21_VALUE:456_MSG:J_TAG:b_c_AT:{AT_TEXT}", "ERROR:offline_MSG:J_ID:20_TAG:a_TEXT:gone"],
        )

    def test_every_code(self) -> None:
        """
        Errors of the gateway are sent as field lines, after the echo.
        """
        for error in [TimedOut, Offline, Busy, Unknown, Denied, LimitExceeded, Failed, Stopped]:
            self.assertEqual(self.send(ORIGINALS + b"\n"), [ECHO])
            self.gateway.fail(-1, error("why_not"))
            self.assertEqual(self.received(), [f"ERROR:{error.code}_{ECHO}_TEXT:why not"])

    def test_bug(self) -> None:
        """
        An exception is logged once, sent as `failed` without its traceback, and ends nothing.
        """
        self.gateway.broken = ZeroDivisionError("secret")
        self.assertEqual(
            self.send(ORIGINALS + b"\n"),
            [ECHO, f"ERROR:failed_{ECHO}_TEXT:Internal error; see the log"],
        )
        self.gateway.broken = None
        self.send(ORIGINALS + b"\n")
        self.gateway.fail(0, ZeroDivisionError("secret"))
        self.assertNotIn("secret", "".join(self.received()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(self.client.requests.in_flight, 0)

    def test_malformed(self) -> None:
        """
        A malformed request line gets no echo but an error with the fields that could be read, and is recorded.
        """
        for line, fields, reason in [
            (b"MSG:J", "MSG:J", "no ID"),
            (b"ID:20_TAG:x", "ID:20_TAG:x", "no MSG"),
            (b"MSG:J_ID:20_NOTE:12_30:45", "MSG:J_ID:20", "no key"),
            (b"MSG:J_ID:20_HU%:4_ORIGIN:my_site", "MSG:J_ID:20_ORIGIN:my_site", "no key"),
            (b"MSG:J_ID:20_MSG:K", "MSG:J_ID:20", "key given twice"),
            (b"MSG:J_ID:20_TIMEOUT:9999", "MSG:J_ID:20", "value out of range"),
            (b"MSG:J_ID:20_AT:x", "MSG:J_ID:20", "key not allowed in a request"),
            (b"MSG:J_ID:2 0", "MSG:J_ID:2 0", "not a sensor id"),
            (b"MSG:J_ID:20_ORIGIN:\xff", "MSG:J_ID:20", "not UTF-8"),
            (b"MSG:J_ID:20_A:\x00", "MSG:J_ID:20", "control character"),
            (b"MSG:J_ID:20_A:\xff\xfa\x18\xff\xf0", "MSG:J_ID:20", "not UTF-8"),
            (b"MSG:J_ID:", "MSG:J", "empty value"),
        ]:
            (answer,) = self.send(line + b"\n")
            self.assertTrue(answer.startswith(f"ERROR:malformed_{fields}_TEXT:"), answer)
            self.assertTrue(parse(answer.encode())["TEXT"].startswith(reason), answer)
            self.assertEqual(self.gateway.refusals.pop()[::2], ("client 10.0.0.7", reason))
        self.assertEqual(self.gateway.asked, [])

    def test_no_long_reply(self) -> None:
        """
        The error about a long line is short.
        """
        for line in [b"MSG:J_ID:20_A:1_:" + b"x" * 1000, b"MSG:J_ID:" + b"x" * 960]:
            (answer,) = self.send(line + b"\n")
            self.assertEqual(parse(answer.encode())["ERROR"], "malformed")

    def test_one_packet(self) -> None:
        """
        Replies to the lines of one chunk leave in one packet.
        """
        self.client.dataReceived((ORIGINALS + b"\nping\n") * 3)
        self.turn()
        self.assertEqual(self.transport.writes, 1)

    def test_empty_lines(self) -> None:
        """
        A line that is empty or has only blanks, Unicode's included, is ignored; the line behind it is answered.
        """
        self.assertEqual(self.send(b"\n\r\n  \n"), [])
        self.client.dataReceived("\u00a0\n\x1c\n \u2003\t\r\nping\n\u00a0\n".encode())
        self.client.readConnectionLost()
        self.turn()
        self.assertEqual(self.transport.value(), b"OK:ping\n")
        self.assertFalse(self.transport.connected)

    def test_over_long(self) -> None:
        """
        A line that is too long gets one error, as soon as it is too long, with its whole fields; the next line is read.
        Only the first line of a connection must not be too long (`tests.server.test_opening`).
        """
        self.send(b"ping\n")
        begun = b"MSG:J_ID:20_TAG:t_A:" + b"x" * LINE_LIMIT
        expected = "ERROR:limit_MSG:J_ID:20_TAG:t_TEXT:the line is too long"
        self.assertEqual(self.send(begun), [expected])
        self.assertEqual(self.send(b"y" * (OVER_LONG_LIMIT // 2)), [])
        self.assertEqual(self.send(b"_ID:3\n" + ORIGINALS + b"\n"), [ECHO])
        self.assertEqual(self.send(begun + b"\n" + ORIGINALS + b"\n"), [expected, ECHO])
        self.assertEqual(self.send(b"w" * 2000 + b"\nping\n"), ["ERROR:limit_TEXT:the line is too long", "OK:ping"])
        self.assertEqual(
            self.send(b"MSG:J_ID:20_TAG:" + b"t" * LINE_LIMIT + b"\n"),
            ["ERROR:limit_MSG:J_ID:20_TEXT:the line is too long"],
        )
        self.assertEqual({refusal[2] for refusal in self.gateway.refusals}, {"line too long"})
        self.assertEqual(self.factory.counts()["LIMITED"], 4)

    def test_never_ends(self) -> None:
        """
        A line that goes on for more than 64 KiB ends the connection, however it is cut; many over-long lines do not.
        """
        self.send(b"ping\n")
        for _ in range(100):
            self.send(b"y" * 2000 + b"\n" + b"y" * 2000)
        self.assertTrue(self.transport.connected)
        self.send(b"\n" + b"y" * LINE_LIMIT)
        for _ in range(OVER_LONG_LIMIT // 1000):
            self.send(b"y" * 1000)
            self.assertTrue(self.transport.connected)
        self.client.dataReceived(b"y" * 1000)
        self.turn()
        self.assertFalse(self.transport.connected)

    def test_longest(self) -> None:
        """
        A line of exactly the greatest length is read.
        """
        word = b"ping" + b" " * (LINE_LIMIT - 4)
        self.assertEqual(self.send(word + b"\r\n" + word + b"\n"), ["OK:ping", "OK:ping"])

    def test_telnet(self) -> None:
        """
        Telnet commands are removed from lines, wherever the chunks are cut.
        """
        sent = b"\xff\xfb\x01MSG:J_\xff\xf1ID:20\xff\xfd\x03\n"
        for cut in range(1, len(sent)):
            self.client.dataReceived(sent[:cut])
            self.client.dataReceived(sent[cut:])
            self.assertEqual(self.received(), ["MSG:J_ID:20"], cut)
        self.assertEqual(self.send(b"pi\xff\xffng\n"), ["ERROR:malformed_TEXT:not UTF-8"])
        self.assertEqual(self.gateway.refusals, [("client 10.0.0.7", b"pi\xff\xffng", "not UTF-8")])

    def test_words_wait_requests_do_not(self) -> None:
        """
        Words are answered one after the other; request lines do not wait for them.
        """
        self.assertEqual(self.send(b"ask 20\nping\n" + ORIGINALS + b"\nw\xff\nping\n"), [ECHO])
        self.gateway.answer(1)
        self.assertEqual(self.received(), [ANSWER])
        self.gateway.answer(0)
        self.assertEqual(self.received(), [ANSWER, "OK:ask", "OK:ping", "ERROR:malformed_TEXT:not UTF-8", "OK:ping"])

    def test_hang_up(self) -> None:
        """
        A client that disconnects loses the answer, and nothing else happens.
        """
        self.client.dataReceived(ORIGINALS + b"\nask 21\nask 22\n")
        holder = self.client.requests.holder
        self.transport.abortConnection()
        self.gateway.answer(0)
        self.gateway.fail(1, Offline())
        self.turn()
        self.assertEqual(len(self.gateway.asked), 2)
        self.assertEqual(self.gateway.holders, [holder] * 2)
        self.assertEqual(self.gateway.gone, [(holder, 2)])
        self.assertEqual(holder.host, "10.0.0.7")
        self.assertEqual(self.factory.counts()["CLIENTS"], 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_long_for_a_device(self) -> None:
        """
        A request that parses is echoed and asked, even if the line for the device may be too long.
        """
        line = "MSG:J_ID:20_TAG:t_A:" + "x" * (LINE_LIMIT - 20)
        self.assertEqual(self.send(line.encode() + b"\n"), [line])
        (request,) = self.gateway.requested
        self.assertEqual(len(request.line), LINE_LIMIT - len("_TAG:t") + len("_ORIGIN:10.0.0.7"))


class OriginalClientTests(ServerCase):
    """
    The original client, which sends no line end (`test_tcp` has the same over TCP).
    """

    def test_served(self) -> None:
        """
        Its request is served when nothing followed for a while; the echo has no line end, and the answer is on a line
        of its own.
        """
        self.client.dataReceived(ORIGINALS)
        self.clock.advance(FIRST_DATA_PATIENCE * 0.9)
        self.assertEqual(self.transport.value(), b"")
        self.clock.advance(FIRST_DATA_PATIENCE * 0.2)
        self.assertEqual(self.transport.value(), ORIGINALS)
        self.gateway.answer(0)
        self.turn()
        self.assertEqual(self.transport.value(), ORIGINALS + b"\n" + ANSWER.encode() + b"\n")
        self.transport.clear()
        self.client.dataReceived(ORIGINALS)
        self.clock.advance(1)
        self.assertEqual(self.transport.value(), b"", "only the first data can be such a line")
        self.assertEqual(self.send(b"\n"), [ECHO])

    def test_line_before_its_answer(self) -> None:
        """
        Any line between its echo and its answer is on a line of its own.
        """
        for sent, expected in [(b"ping\n", "OK:ping"), (b"MSG:K_ID:21_ORIGIN:x\n", "MSG:K_ID:21_ORIGIN:x")]:
            client, transport = self.connect()
            client.dataReceived(ORIGINALS)
            self.clock.advance(FIRST_DATA_PATIENCE)
            client.dataReceived(sent)
            self.turn()
            self.assertEqual(transport.value(), ORIGINALS + b"\n" + expected.encode() + b"\n")

    def test_event_before_its_answer(self) -> None:
        """
        So is an event.
        """
        self.client.dataReceived(ORIGINALS)
        self.clock.advance(FIRST_DATA_PATIENCE)
        self.client.console.watch([])
        self.gateway.publish(report_event("2", SMOKE="1"))
        self.turn()
        self.assertEqual(self.transport.value(), ORIGINALS + f"\nEVENT:reading_ID:2_SMOKE:1_AT:{AT_TEXT}\n".encode())

    def test_the_half_line_that_must_not_command_sensor_2(self) -> None:
        """
        `MSG:ON_ID:2`, typed so far of `MSG:ON_ID:20…`, is never served, and nor is any other unfinished line.
        """
        for chunks in [
            [b"MSG:ON_ID:2"],
            [b"MSG:ON_ORIGIN:me_I", b"D:2"],
            [b"MSG:ON_ORIGIN:me_ID:2", b"0"],
            [bytes([byte]) for byte in b"MSG:ON_ORIGIN:me_ID:2"],
            [b"\n", b"MSG:ON_ORIGIN:me_ID:2"],
            [b"ping\nMSG:ON_ORIGIN:me_ID:2"],
            [b"\xff\xf1MSG:ON_ORIGIN:me_ID:2"],
            [b"\xff\xf1", b"MSG:ON_ORIGIN:me_ID:2"],
            [b"MSG:ON_ORIGIN:me_NOTE:1:2_3:4_ID:2"],
            [b"MSG:ON_ORIGIN:me_ID:2\xff"],
        ]:
            for half_close in (False, True):
                client, transport = self.connect()
                for chunk in chunks:
                    client.dataReceived(chunk)
                    if not half_close:
                        self.clock.advance(FIRST_DATA_PATIENCE * 0.9)
                if half_close:
                    client.readConnectionLost()
                self.clock.advance(10)
                self.assertEqual(self.gateway.asked, [], chunks)
                self.assertEqual(transport.connected, not half_close)
                transport.abortConnection()
        self.transport.abortConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_half_close(self) -> None:
        """
        At a half-close the first data is served at once, and the connection is closed after the answer.
        """
        self.client.dataReceived(ORIGINALS)
        self.client.readConnectionLost()
        self.turn()
        self.assertEqual(self.transport.value(), ORIGINALS)
        self.assertTrue(self.transport.connected)
        self.gateway.answer(0)
        self.turn()
        self.assertEqual(self.transport.value(), ORIGINALS + b"\n" + ANSWER.encode() + b"\n")
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_malformed(self) -> None:
        """
        First data that parses but is not a valid request gets an error.
        """
        self.client.dataReceived(ORIGINALS + b"_TIMEOUT:0")
        self.clock.advance(FIRST_DATA_PATIENCE)
        self.assertTrue(self.received()[0].startswith(f"ERROR:malformed_{ECHO}_TEXT:value out of range"))

    def test_hang_up(self) -> None:
        """
        A client that disconnects meanwhile has asked nothing.
        """
        self.client.dataReceived(ORIGINALS)
        self.transport.abortConnection()
        self.clock.advance(1)
        self.assertEqual(self.gateway.asked, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class HalfCloseTests(ServerCase):
    """
    A client that half-closes: it sends no more, and still reads.
    """

    def test_all_answers(self) -> None:
        """
        All requests and words are answered, then the connection is closed; an unfinished line is discarded.
        """
        self.client.dataReceived(ORIGINALS + b"\nask 21\nping\nping")
        self.client.readConnectionLost()
        self.assertEqual(self.received(), [ECHO])
        self.gateway.answer(1)
        self.assertEqual(self.received()[1:], ["OK:ask", "OK:ping"])
        self.assertTrue(self.transport.connected)
        self.gateway.answer(0)
        self.assertEqual(self.received(), [ANSWER])
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_to_answer(self) -> None:
        """
        With nothing left to answer, the connection is closed at once.
        """
        self.client.readConnectionLost()
        self.assertFalse(self.transport.connected)

    def test_watch(self) -> None:
        """
        A half-closed subscription goes on.
        """
        self.client.dataReceived(b"watch\n")
        self.client.readConnectionLost()
        self.gateway.publish(report_event("20", A="1"))
        self.assertEqual(self.received(), ["OK:watch", f"EVENT:reading_ID:20_A:1_AT:{AT_TEXT}"])
        self.transport.abortConnection()
        self.assertEqual(self.gateway.subscribers, [])


class LimitTests(ServerCase):
    """
    What keeps one client from harming others.
    """

    def served(self, host: str = "10.0.0.7") -> tuple[ClientProtocol, PeerTransport]:
        """
        Connect one more client, and have it send a word.
        """
        client, transport = self.connect(host)
        client.dataReceived(b"ping\n")
        self.assertEqual(self.received(transport), ["OK:ping"])
        return client, transport

    def has_place(self, host: str = "10.0.0.7") -> bool:
        """
        Connect one more client; return whether it stays connected.
        """
        _, transport = self.connect(host)
        self.turn()
        return transport.connected

    def test_connections(self) -> None:
        """
        A connection beyond the limit gets an error and is closed; a connection that ends makes room.
        """
        self.send(b"ping\n")
        self.served()
        self.served()
        _, refused = self.connect()
        self.assertEqual(self.received(refused), ["ERROR:limit_TEXT:more than 3 connections"])
        self.assertFalse(refused.connected)
        self.transport.abortConnection()
        self.served()
        self.assertEqual(self.factory.counts()["LIMITED"], 1)

    def test_silent_makes_room(self) -> None:
        """
        If all places are taken, the oldest connection that has sent no line makes room at once.
        """
        self.send(b"pin")
        _, silent = self.connect()
        self.served()
        self.served()
        self.assertEqual(self.received(), ["ERROR:limit_TEXT:closed while idle, to make room"])
        self.assertFalse(self.transport.connected)
        self.assertTrue(silent.connected)

    def test_idle_makes_room(self) -> None:
        """
        A client that has sent nothing for a minute makes room, unless it waits for something.
        """
        self.send(b"ping\n")
        waiting, _ = self.served()
        waiting.dataReceived(b"MSG:J_ID:20\n")
        watching, _ = self.served()
        watching.dataReceived(b"watch\n")
        self.assertFalse(self.has_place(), "nobody has been idle for a minute")
        self.clock.advance(IDLE_AFTER)
        self.send(b"ping\n")
        self.assertFalse(self.has_place(), "it has sent something within the last minute")
        self.clock.advance(IDLE_AFTER)
        self.served()
        self.assertEqual(self.received(), ["ERROR:limit_TEXT:closed while idle, to make room"])
        self.assertFalse(self.has_place(), "all others wait for something")

    def test_one_address(self) -> None:
        """
        One address cannot take all places, while this machine can; nor can it take the place of a client of this
        machine.
        """
        self.factory = ClientFactory(
            self.clock, self.gateway, authority(self.clock), max_connections=3, max_of_address=1
        )
        self.connect()
        _, refused = self.connect()
        self.assertEqual(self.received(refused), ["ERROR:limit_TEXT:more than 1 connections of one address"])
        self.connect("127.0.0.1")
        self.connect("127.0.0.1")
        self.assertTrue(self.has_place("10.0.0.8"), "another network client has made room")
        self.assertTrue(self.has_place("127.0.0.1"))
        self.assertFalse(self.has_place("10.0.0.9"), "only clients of this machine are left")

    def test_in_flight(self) -> None:
        """
        A request beyond the limit is echoed and refused; a request that ends makes room.
        """
        for n in range(IN_FLIGHT_LIMIT):
            self.send(b"MSG:J_ID:20_TAG:%d\n" % n)
        self.assertEqual(len(self.gateway.asked), IN_FLIGHT_LIMIT)
        echo, answer = self.send(b"MSG:J_ID:20_TAG:x\n")
        self.assertEqual(echo, "MSG:J_ID:20_TAG:x")
        self.assertTrue(answer.startswith("ERROR:limit_MSG:J_ID:20_TAG:x_TEXT:"), answer)
        self.assertEqual(len(self.gateway.asked), IN_FLIGHT_LIMIT)
        self.gateway.answer(0)
        self.received()
        self.assertEqual(self.send(b"MSG:J_ID:20_TAG:y\n"), ["MSG:J_ID:20_TAG:y"])
        self.assertEqual(len(self.gateway.asked), IN_FLIGHT_LIMIT + 1)

    def test_words_waiting(self) -> None:
        """
        With 64 words waiting, no more is read, and what was read waits, in order.
        """
        self.client.dataReceived(b"ask 20\n" + b"ping\n" * 100 + ORIGINALS + b"\n")
        self.turn()
        self.assertEqual(self.transport.producerState, "paused")
        self.assertEqual(len(self.gateway.asked), 1)
        self.gateway.answer(0)
        self.assertEqual(self.received(), [ANSWER, "OK:ask", *["OK:ping"] * 100, ECHO])
        self.assertEqual(self.transport.producerState, "producing")

    def test_half_closed_while_waiting(self) -> None:
        """
        Lines that were read before the half-close are answered; the transport is not read again.
        """
        self.client.dataReceived(b"ask 20\n" + b"ping\n" * 100)
        self.turn()
        self.client.readConnectionLost()
        self.gateway.answer(0)
        self.assertEqual(self.received(), [ANSWER, "OK:ask", *["OK:ping"] * 100])
        self.assertEqual(self.transport.producerState, "paused")
        self.assertFalse(self.transport.connected)

    def test_slow_reader(self) -> None:
        """
        A client that does not read is not read from; when it reads again, its lines are served in order.
        """
        self.factory.rates = Rates(self.clock, 1000.0)
        self.transport.stuck = True
        self.client.dataReceived(b"help\n" * 2000 + ORIGINALS + b"\n")
        self.turn()
        self.assertEqual(self.transport.producerState, "paused")
        self.assertLess(self.client.unsent, UNSENT_LIMIT + 4096)
        self.assertEqual(self.gateway.asked, [])
        self.transport.stuck = False
        self.transport.take()
        for _ in range(100):
            self.turn()
        received = self.received()
        self.assertEqual((received.count("OK:help"), received[-1]), (2000, ECHO))
        self.assertEqual(self.transport.producerState, "producing")

    def test_slow_watcher(self) -> None:
        """
        A subscriber that does not read loses events beyond 1 MiB, is sent their count, and never loses an answer.
        """
        self.client.dataReceived(b"watch\n")
        self.client.dataReceived(ORIGINALS + b"\n")
        self.received()
        self.transport.stuck = True
        event = "EVENT:reading_ID:20_A:" + "x" * 1000 + "_AT:" + AT_TEXT
        for _ in range(2000):
            self.gateway.publish(report_event("20", A="x" * 1000))
            self.clock.advance(0)
        self.assertLess(self.client.unsent, SUBSCRIBER_LIMIT + 2048)
        assert self.transport.producer is not None
        self.transport.producer.resumeProducing()
        self.gateway.publish(report_event("20", A="too early"))  # it has not caught up
        self.gateway.answer(0)
        self.transport.stuck = False
        self.transport.take()
        for _ in range(100):
            self.turn()
        received = self.received()
        kept = received.count(event)
        self.assertGreater(kept, 990)
        self.assertEqual([line for line in received if line != event], [ANSWER, f"EVENT:dropped_COUNT:{2001 - kept}"])
        self.gateway.publish(report_event("20", A="x" * 1000))
        self.assertEqual(self.received(), [event])

    def test_stuck(self) -> None:
        """
        A client that reads nothing of what is unsent for 60 s is disconnected; one that reads a little is not.
        """
        self.transport.stuck = True
        self.client.dataReceived(b"help\n" * 100)
        for _ in range(4):
            self.clock.advance(STUCK_AFTER * 0.9)
            assert self.transport.producer is not None
            self.transport.producer.resumeProducing()
        self.assertTrue(self.transport.connected)
        self.clock.advance(STUCK_AFTER * 0.9)
        self.assertTrue(self.transport.connected)
        self.clock.advance(STUCK_AFTER * 0.2)
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_quiet_is_not_stuck(self) -> None:
        """
        A client that has read everything may be idle for ever.
        """
        self.send(b"ping\n")
        self.clock.pump([STUCK_AFTER] * 5)
        self.assertTrue(self.transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])


LINES = LINES_AT_ONCE + 2 * LINES_PER_SLICE + 1


class TurnTests(ServerCase):
    """
    Many lines of one client at once.
    """

    new_clock = TurnClock
    clock: TurnClock

    def setUp(self) -> None:
        """
        Use a clock whose turns can be taken one by one, a gateway that takes its time, and lines that differ.
        """
        super().setUp()
        self.gateway.asking = lambda: self.clock.spend(TURN_TIME / LINES_PER_SLICE)
        self.lines = b"".join(b"MSG:J_ID:%d\n" % n for n in range(LINES))

    def sensors(self) -> list[str]:
        """
        Return the sensors asked, in order.
        """
        return [request.question.sensor for request in self.gateway.requested]

    def test_neighbour_between(self) -> None:
        """
        A limited number of lines is served per turn, in order, and other clients in between, whose replies are sent
        first; meanwhile nothing is read.
        """
        neighbour, transport = self.connect()
        before: list[bytes] = []  # what the neighbour had received at each request

        def asking() -> None:
            before.append(transport.value())
            self.clock.spend(LONE_TURN_TIME / LINES_PER_SLICE)

        self.gateway.asking = asking
        self.client.dataReceived(self.lines)
        for turn in range(3):
            self.assertEqual(self.sensors(), [str(n) for n in range(LINES_AT_ONCE + turn * LINES_PER_SLICE)])
            self.assertEqual(self.transport.producerState, "paused")
            neighbour.dataReceived(b"ping\n")
            before.clear()
            self.clock.turn()
            self.assertEqual(transport.value(), b"OK:ping\n" * (turn + 1))
            self.assertEqual(before[0], transport.value())
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(self.received(), [f"MSG:J_ID:{n}" for n in range(LINES)])

    def test_hang_up_waiting(self) -> None:
        """
        Requests that wait for their turn when the client hangs up are asked, and nothing is left, also if they fail at
        once.
        """
        ask = self.gateway.ask
        refused: list[Request] = []

        def refuse(request: Request, holder: Holder) -> Deferred[Answer]:
            if request.question.sensor != "lost":
                return ask(request, holder)
            refused.append(request)
            raise Busy

        self.patch(self.gateway, "ask", refuse)
        neighbour, _ = self.connect()
        neighbour.dataReceived(self.lines)
        self.client.dataReceived(b"MSG:J_ID:lost\n" * 10)
        self.clock.turn()
        self.transport.abortConnection()
        self.turn()
        self.assertEqual(len(refused), 10)

    def test_neighbours_together(self) -> None:
        """
        Of the chunks of many clients in one turn, only the first line of each is served at once when a number of lines
        has been served; the others are served in rotation. A client whose lines wait alone has more time.
        """
        self.client.dataReceived(self.lines)
        neighbour, _ = self.connect()
        neighbour.dataReceived(b"MSG:J_ID:a\n" * (LINES_PER_SLICE + 1))
        self.assertEqual(len(self.sensors()), LINES_AT_ONCE + 1)
        served = []
        for _ in range(3):
            self.clock.turn()
            served.append(self.sensors()[-1])
        self.assertEqual(served, [str(LINES_AT_ONCE + LINES_PER_SLICE - 1), "a", str(LINES - 1)])

    def test_events_now(self) -> None:
        """
        An event is sent within the round of events, which measures how long that takes, and not at the end of the turn.
        """
        self.client.dataReceived(b"watch\n")
        self.received()
        self.gateway.publish(report_event("20", A="1"))
        self.clock.turn()
        self.assertEqual(self.transport.value(), b"EVENT:reading_ID:20_A:1_AT:" + AT_TEXT.encode() + b"\n")

    def test_no_more_than_a_turn(self) -> None:
        """
        Reading goes on after exactly as many lines as one turn serves, and as many are served in the next one.
        """
        lines = b"".join(self.lines.splitlines(True)[:LINES_AT_ONCE])
        for turn in (1, 2):
            self.client.dataReceived(lines)
            self.assertEqual(len(self.sensors()), turn * LINES_AT_ONCE)
            self.assertEqual(self.transport.producerState, "producing")
            self.clock.turn()

    def test_empty_lines(self) -> None:
        """
        A turn is over even if nothing was sent in it.
        """
        self.client.dataReceived(b"\n" * (LINES_AT_ONCE + 1))
        self.clock.turn()
        self.client.dataReceived(self.lines)
        self.assertEqual(len(self.sensors()), LINES_AT_ONCE)

    def test_half_close(self) -> None:
        """
        Lines that wait for their turn at a half-close are served; the connection is closed once they are answered, at
        once if there is nothing to answer.
        """
        self.client.dataReceived(self.lines)
        self.client.readConnectionLost()
        self.assertEqual(len(self.received()), LINES)
        for n in range(LINES):
            self.assertTrue(self.transport.connected)
            self.gateway.answer(n)
        self.assertEqual(len(self.received()), LINES)
        self.assertFalse(self.transport.connected)
        client, transport = self.connect()
        client.dataReceived(b"x:\n" * (LINES_AT_ONCE + 1))
        client.readConnectionLost()
        self.assertEqual(len(self.received(transport)), LINES_AT_ONCE + 1)
        self.assertFalse(transport.connected)

    def test_hang_up(self) -> None:
        """
        Requests that wait for their turn when the client disconnects are asked all the same, and nothing is left.
        """
        self.client.dataReceived(self.lines)
        holder = self.client.requests.holder
        self.transport.abortConnection()
        self.clock.turn()  # the transport's own
        self.assertEqual(self.sensors(), [str(n) for n in range(LINES)])
        self.assertEqual(self.gateway.gone, [(holder, len(self.gateway.asked))])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for n in range(LINES):
            self.gateway.answer(n)
        self.assertEqual(self.factory.counts()["CLIENTS"], 0)

    def test_drop(self) -> None:
        """
        Nothing more is asked for a client that was disconnected by usbgate.
        """
        self.client.dataReceived(self.lines)
        self.client.abort()
        self.clock.turn()  # the transport's own
        self.assertEqual(len(self.sensors()), LINES_AT_ONCE)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_originals_line_behind(self) -> None:
        """
        An unfinished line behind many others is not the original client's: only first data can be.
        """
        self.client.dataReceived(self.lines + ORIGINALS)
        self.clock.advance(10 * FIRST_DATA_PATIENCE)
        self.turn()
        self.assertEqual(len(self.sensors()), LINES)
        self.client.dataReceived(b"X\n")
        self.assertEqual(self.gateway.requested[-1].origin, "TOTOX")


class BudgetTests(ServerCase):
    """
    How much is read of a client in a second.
    """

    def setUp(self) -> None:
        """
        Read 100 bytes a second.
        """
        super().setUp()
        self.clock.advance(7.25)
        self.factory.intake.bytes_per_second = 100
        self.client, self.transport = self.connect("127.0.0.1")

    def test_rest_waits(self) -> None:
        """
        A client that has sent its budget is not read from until the second is over; others are.
        """
        other, transport = self.connect("127.0.0.1")
        self.assertEqual(self.send(b"ping\n" * 19), ["OK:ping"] * 19)
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(self.send(b"ping\n"), ["OK:ping"])
        other.dataReceived(b"ping\n")
        self.assertEqual(self.received(transport), ["OK:ping"])
        self.clock.advance(0.7)
        self.assertEqual((self.transport.producerState, transport.producerState), ("paused", "producing"))
        self.clock.advance(0.05)
        self.turn()
        self.assertEqual(self.transport.producerState, "producing")

    def test_one_timer(self) -> None:
        """
        One timer serves all that have used their budgets.
        """
        other, transport = self.connect("127.0.0.1")
        for client in (self.client, other):
            client.dataReceived(b"x" * 99 + b"\n")
        self.turn()
        self.assertEqual([call.getTime() for call in self.clock.getDelayedCalls()].count(8.0), 1)
        self.clock.advance(0.75)
        self.turn()
        self.assertEqual((self.transport.producerState, transport.producerState), ("producing",) * 2)

    def test_slowly(self) -> None:
        """
        A client that sends less than its budget in each second is always read from.
        """
        for _ in range(20):
            self.assertEqual(self.send(b"ping\n" * 8), ["OK:ping"] * 8)
            self.assertEqual(self.transport.producerState, "producing")
            self.clock.advance(0.7)

    def test_hang_up(self) -> None:
        """
        Requests that were read before the client hangs up are asked, and nothing is left.
        """
        self.client.dataReceived(b"MSG:J_ID:20\n" * (LINES_AT_ONCE + 1))
        self.assertEqual(len(self.gateway.asked), LINES_AT_ONCE)
        self.transport.abortConnection()
        self.turn()
        self.assertEqual(len(self.gateway.asked), LINES_AT_ONCE + 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shared(self) -> None:
        """
        Of another machine, all connections share a budget, and none with another address.
        """
        self.factory = ClientFactory(self.clock, self.gateway, authority(self.clock))
        self.factory.intake.bytes = Rates(self.clock, 100, 1.0)
        self.factory.intake.bytes_per_turn = 50
        (first, paused), (second, other), (_, elsewhere) = map(self.connect, ("10.0.0.7", "10.0.0.7", "10.0.0.8"))
        first.dataReceived(b"ping\n" * 15)
        second.dataReceived(b"ping\n" * 15)
        self.turn()
        states = [each.producerState for each in (paused, other, elsewhere)]
        self.assertEqual(states, ["producing", "paused", "producing"])
        first.dataReceived(b"ping\n" * 15)
        self.assertEqual(paused.producerState, "paused")
        for _ in range(6):
            self.clock.advance(0.75)
            self.turn()
        self.assertEqual({each.producerState for each in (paused, other)}, {"producing"})
        self.assertEqual([each.value().count(b"OK:ping") for each in (paused, other)], [30, 15])
        for each in (paused, other, elsewhere):
            each.abortConnection()


class RateTests(ServerCase):
    """
    How many requests and words one address may send in a second.
    """

    def setUp(self) -> None:
        """
        Let each have ten at once, and one a second.
        """
        super().setUp()
        self.factory.rates = Rates(self.clock, 1.0)

    def test_address(self) -> None:
        """
        Beyond the limit, there is an error, a request's behind its echo, and nothing is done; later, there is room.
        """
        self.send(b"ping\n" * 5 + b"MSG:J_ID:20\n" * 5)
        other, transport = self.connect()
        other.dataReceived(b"MSG:J_ID:20_TAG:7\nping\n")
        text = "TEXT:more than 1 requests in a second of this address"
        echo = "MSG:J_ID:20_TAG:7"
        self.assertEqual(self.received(transport), [echo, f"ERROR:limit_{echo}_{text}", f"ERROR:limit_{text}"])
        self.assertEqual((len(self.gateway.asked), self.factory.counts()["LIMITED"]), (5, 2))
        self.clock.advance(1)
        self.assertEqual(self.send(b"ping\n" * 2), ["OK:ping", f"ERROR:limit_{text}"])

    def test_others(self) -> None:
        """
        Other addresses have limits of their own, and this machine, which all its users share, has none.
        """
        self.send(b"ping\n" * 10)
        for host, count in (("10.0.0.8", 10), ("127.0.0.1", 50)):
            client, transport = self.connect(host)
            client.dataReceived(b"ping\n" * 50)
            self.assertEqual(self.received(transport).count("OK:ping"), count)


class WatchTests(ServerCase):
    """
    Subscriptions to events.
    """

    def test_by_sensor(self) -> None:
        """
        A subscriber gets the readings of its sensors, or of all, and all events of devices.
        """
        other, other_transport = self.connect()
        self.assertEqual(self.gateway.subscriptions, 0)
        self.send(b"watch 2 7\n")
        other.dataReceived(b"watch\r\n")
        self.turn()
        other_transport.clear()
        self.gateway.publish(report_event("2", A="1"))
        self.gateway.publish(report_event("3", A="1"))
        self.gateway.publish(DeviceEvent("uno", "online", AT))
        self.gateway.publish(report_event("7", A="1"))
        self.assertEqual(
            self.received(),
            [
                f"EVENT:reading_ID:2_A:1_AT:{AT_TEXT}",
                "EVENT:device_DEV:uno_STATE:online",
                f"EVENT:reading_ID:7_A:1_AT:{AT_TEXT}",
            ],
        )
        self.assertEqual(other_transport.value().count(b"\r\n"), 4)
        self.assertEqual(self.gateway.subscriptions, 1)

    def test_again(self) -> None:
        """
        Another `watch` replaces the one before, and no event is sent twice.
        """
        self.send(b"watch 2\nwatch 7\nwatch 7\n")
        self.gateway.publish(report_event("2", A="1"))
        self.gateway.publish(report_event("7", A="1"))
        self.assertEqual(self.received(), [f"EVENT:reading_ID:7_A:1_AT:{AT_TEXT}"])
        self.assertEqual(self.gateway.subscriptions, 1)

    def test_unwatch(self) -> None:
        """
        `unwatch` ends the subscription, and the gateway's with the last one; earlier events are sent before its OK.
        """
        self.send(b"watch\n")
        self.gateway.publish(report_event("2", A="1"))
        self.client.dataReceived(b"unwatch\nunwatch\n")
        self.gateway.publish(report_event("2", A="2"))
        self.assertEqual(self.received(), [f"EVENT:reading_ID:2_A:1_AT:{AT_TEXT}", "OK:unwatch", "OK:unwatch"])
        self.assertEqual(self.gateway.subscribers, [])
        self.send(b"watch\n")
        self.transport.abortConnection()
        self.assertEqual(self.gateway.subscribers, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_raw(self) -> None:
        """
        With `raw=yes`, readings are as the device sent them, also those of which nothing is shown; another watch ends
        that.
        """
        shown = ReportEvent("2", "leonardo", None, AT, (("A", "2"),), (("A", "1"),))
        nothing = shown._replace(values=())
        self.send(b"watch raw=yes 2\n")
        for event in (shown, nothing, report_event("7")):
            self.gateway.publish(event)
        raw = f"EVENT:reading_ID:2_A:1_AT:{AT_TEXT}"
        self.assertEqual(self.received(), [raw, raw])
        self.send(b"watch 2\n")
        for event in (shown, nothing):
            self.gateway.publish(event)
        self.assertEqual(self.received(), [f"EVENT:reading_ID:2_A:2_AT:{AT_TEXT}"])

    def test_hang_up_with_events(self) -> None:
        """
        A subscriber that disconnects before its events are sent leaves nothing behind.
        """
        self.send(b"watch\n")
        self.gateway.publish(report_event("2", A="1"))
        self.transport.abortConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StopTests(ServerCase):
    """
    usbgate stops.
    """

    def test_stop(self) -> None:
        """
        Words that wait get an error, connections are closed, and new ones refused.
        """
        self.send(b"ask 20\nping\n")
        clients = Clients(self.factory)
        clients.startService()
        stopped = clients.stopService()
        self.assertEqual(self.received(), ["ERROR:stopped_TEXT:usbgate is stopping"] * 2)
        self.successResultOf(stopped)
        self.gateway.fail(0, Stopped())
        _, late = self.connect()
        self.assertEqual(self.received(late), ["ERROR:stopped_TEXT:usbgate is stopping"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody(self) -> None:
        """
        Without connections, the stop is complete at once.
        """
        self.transport.abortConnection()
        self.successResultOf(self.factory.stop())

    def test_bounded(self) -> None:
        """
        A client that does not read does not delay the stop.
        """
        self.transport.stuck = True
        self.client.dataReceived(b"help\n")
        stopped = self.factory.stop()
        self.turn()
        self.assertNoResult(stopped)
        self.clock.advance(STOP_LIMIT)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
