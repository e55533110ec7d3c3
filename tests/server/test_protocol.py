"""
The line server (protocol §3): request lines, limits, half-close, the original client.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.support.memory_gateway import ANSWER, AT_TEXT, ECHO, ORIGINALS, MemoryGateway, PeerTransport, report_event
from tests.support.turnclock import TurnClock
from usbgate.core.errors import Busy, Denied, Failed, LimitExceeded, Offline, Stopped, TimedOut, Unknown
from usbgate.core.fieldline import LINE_LIMIT, parse
from usbgate.core.model import DeviceEvent
from usbgate.gateway.interfaces import IGateway
from usbgate.net.broadcast import ISubscriber
from usbgate.net.sendqueue import STUCK_AFTER
from usbgate.server.console import SUBSCRIBER_LIMIT
from usbgate.server.factory import STOP_LIMIT, ClientFactory, Clients
from usbgate.server.protocol import (
    FIRST_DATA_PATIENCE,
    IN_FLIGHT_LIMIT,
    LINES_PER_TURN,
    UNSENT_LIMIT,
    ClientProtocol,
)
from usbgate.testing import AT


class ServerCase(SynchronousTestCase):
    """
    A factory with clients in memory.
    """

    new_clock: type[Clock] = Clock

    def setUp(self) -> None:
        """
        Build it, and one client.
        """
        self.clock = self.new_clock()
        self.gateway = MemoryGateway()
        self.factory = ClientFactory(self.clock, self.gateway, max_connections=3)
        self.client, self.transport = self.connect()

    def connect(self) -> tuple[ClientProtocol, PeerTransport]:
        """
        Connect one more client.
        """
        client = self.factory.buildProtocol(IPv4Address("TCP", "10.0.0.7", 4711))
        transport = PeerTransport(self.clock)
        transport.protocol = client
        client.makeConnection(transport)
        return client, transport

    def turn(self) -> None:
        """
        Let the reactor turn until all is quiet.
        """
        self.clock.pump([0.0] * 20)

    def received(self, transport: PeerTransport | None = None) -> list[str]:
        """
        Tell the lines that a client got since the last time.
        """
        self.turn()
        transport = transport or self.transport
        lines: list[str] = transport.value().decode().split("\n")
        transport.clear()
        self.assertEqual(lines.pop(), "")
        return lines

    def say(self, data: bytes) -> list[str]:
        """
        Send data; tell the lines that came.
        """
        self.client.dataReceived(data)
        return self.received()


class RequestTests(ServerCase):
    """
    Request lines.
    """

    def test_interfaces(self) -> None:
        """
        What stands in the doors fits them.
        """
        verifyObject(IGateway, self.gateway)
        verifyObject(IHalfCloseableProtocol, self.client)
        verifyObject(IProtocol, self.client)
        verifyObject(ISubscriber, self.client.console)

    def test_echo_and_answer(self) -> None:
        """
        The echo comes at once and the answer when it is there, however the line was cut, whatever is behind it.
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
        A client that ends its lines in CRLF is answered so.
        """
        self.client.dataReceived(b"MSG:J_ID:20\r\nping\r\nx:\r\n")
        self.gateway.answer(0)
        self.turn()
        lines = self.transport.value().split(b"\r\n")
        self.assertEqual((len(lines), lines[0], lines[1], lines[-1]), (5, b"MSG:J_ID:20", b"OK:ping", b""))
        self.assertEqual(self.transport.value().count(b"\n"), 4)

    def test_origin(self) -> None:
        """
        ORIGIN is the peer's address where the client gave none; the echo has only what the client sent.
        """
        self.assertEqual(self.say(b"msg:L_id:9_level:50_TAG:t_TIMEOUT:3\n"), ["MSG:L_ID:9_LEVEL:50_TAG:t_TIMEOUT:3"])
        (request,) = self.gateway.requested
        self.assertEqual((request.origin, request.client, request.timeout), ("10.0.0.7", "10.0.0.7:4711", 3.0))
        local = self.factory.buildProtocol(UNIXAddress(None))
        self.assertEqual((local.origin, local.client), ("local", "local"))

    def test_tags(self) -> None:
        """
        With TAG many are in flight, and each line about a request carries its own.
        """
        self.say(b"MSG:J_ID:20_TAG:a\nMSG:J_ID:21_TAG:b_c\n")
        self.gateway.answer(1)
        self.gateway.fail(0, Offline("gone"))
        self.assertEqual(
            self.received(),
            [f"ID:21_VALUE:456_MSG:J_TAG:b_c_AT:{AT_TEXT}", "ERROR:offline_MSG:J_ID:20_TAG:a_TEXT:gone"],
        )

    def test_every_code(self) -> None:
        """
        What the gateway fails with is told in the grammar of requests, after the echo.
        """
        for error in [TimedOut, Offline, Busy, Unknown, Denied, LimitExceeded, Failed, Stopped]:
            self.assertEqual(self.say(ORIGINALS + b"\n"), [ECHO])
            self.gateway.fail(-1, error("why_not"))
            self.assertEqual(self.received(), [f"ERROR:{error.code}_{ECHO}_TEXT:why not"])

    def test_bug(self) -> None:
        """
        What goes wrong inside is logged once, told as failed without its traceback, and ends nothing.
        """
        self.gateway.broken = ZeroDivisionError("secret")
        self.assertEqual(
            self.say(ORIGINALS + b"\n"),
            [ECHO, f"ERROR:failed_{ECHO}_TEXT:Something inside went wrong; the log has it"],
        )
        self.gateway.broken = None
        self.say(ORIGINALS + b"\n")
        self.gateway.fail(0, ZeroDivisionError("secret"))
        self.assertNotIn("secret", "".join(self.received()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(self.client.in_flight, 0)

    def test_malformed(self) -> None:
        """
        What is no request gets no echo, but what could be read of it, and is noted.
        """
        for line, told, reason in [
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
            (answer,) = self.say(line + b"\n")
            self.assertTrue(answer.startswith(f"ERROR:malformed_{told}_TEXT:"), answer)
            self.assertTrue(parse(answer.encode())["TEXT"].startswith(reason), answer)
            self.assertEqual(self.gateway.refusals.pop()[::2], ("client 10.0.0.7", reason))
        self.assertEqual(self.gateway.asked, [])

    def test_no_long_reply(self) -> None:
        """
        What is said about a long line is not as long again.
        """
        for line in [b"MSG:J_ID:20_A:1_:" + b"x" * 1000, b"MSG:J_ID:" + b"x" * 960]:
            (answer,) = self.say(line + b"\n")
            self.assertEqual(parse(answer.encode())["ERROR"], "malformed")

    def test_one_packet(self) -> None:
        """
        What is said about the lines of one chunk goes out together.
        """
        self.client.dataReceived((ORIGINALS + b"\nping\n") * 3)
        self.turn()
        self.assertEqual(self.transport.writes, 1)

    def test_empty_lines(self) -> None:
        """
        An empty line is ignored, and one of blanks only, whatever is a blank; what stands behind it is answered.
        """
        self.assertEqual(self.say(b"\n\r\n  \n"), [])
        self.client.dataReceived("\u00a0\n\x1c\n \u2003\t\r\nping\n\u00a0\n".encode())
        self.client.readConnectionLost()
        self.turn()
        self.assertEqual(self.transport.value(), b"OK:ping\n")
        self.assertFalse(self.transport.connected)

    def test_over_long(self) -> None:
        """
        An over-long line is told once, when it is found, with what was whole of it; the line behind it is read.
        """
        begun = b"MSG:J_ID:20_TAG:t_A:" + b"x" * LINE_LIMIT
        expected = "ERROR:limit_MSG:J_ID:20_TAG:t_TEXT:the line is too long"
        self.assertEqual(self.say(begun), [expected])
        self.assertEqual(self.say(b"y" * 100_000), [])
        self.assertEqual(self.say(b"_ID:3\n" + ORIGINALS + b"\n"), [ECHO])
        self.assertEqual(self.say(begun + b"\n" + ORIGINALS + b"\n"), [expected, ECHO])
        self.assertEqual(self.say(b"w" * 2000 + b"\nping\n"), ["ERROR:limit_TEXT:the line is too long", "OK:ping"])
        self.assertEqual(
            self.say(b"MSG:J_ID:20_TAG:" + b"t" * LINE_LIMIT + b"\n"),
            ["ERROR:limit_MSG:J_ID:20_TEXT:the line is too long"],
        )
        self.assertEqual({refusal[2] for refusal in self.gateway.refusals}, {"line too long"})
        self.assertEqual(self.factory.counts()["LIMITED"], 4)

    def test_longest(self) -> None:
        """
        A line of the greatest length is read.
        """
        word = b"ping" + b" " * (LINE_LIMIT - 4)
        self.assertEqual(self.say(word + b"\r\n" + word + b"\n"), ["OK:ping", "OK:ping"])

    def test_telnet(self) -> None:
        """
        Telnet's commands are no part of a line, cut at every byte.
        """
        sent = b"\xff\xfb\x01MSG:J_\xff\xf1ID:20\xff\xfd\x03\n"
        for cut in range(1, len(sent)):
            self.client.dataReceived(sent[:cut])
            self.client.dataReceived(sent[cut:])
            self.assertEqual(self.received(), ["MSG:J_ID:20"], cut)
        self.assertEqual(self.say(b"pi\xff\xffng\n"), ["ERROR:malformed_TEXT:not UTF-8"])
        self.assertEqual(self.gateway.refusals, [("client 10.0.0.7", b"pi\xff\xffng", "not UTF-8")])

    def test_words_wait_requests_do_not(self) -> None:
        """
        Words run one after the other; request lines do not wait for them.
        """
        self.assertEqual(self.say(b"ask 20\nping\n" + ORIGINALS + b"\nw\xff\nping\n"), [ECHO])
        self.gateway.answer(1)
        self.assertEqual(self.received(), [ANSWER])
        self.gateway.answer(0)
        self.assertEqual(self.received(), [ANSWER, "OK:ask", "OK:ping", "ERROR:malformed_TEXT:not UTF-8", "OK:ping"])

    def test_hang_up(self) -> None:
        """
        A client that hangs up loses the answer, and nothing else happens.
        """
        self.client.dataReceived(ORIGINALS + b"\nask 21\nask 22\n")
        self.transport.abortConnection()
        self.gateway.answer(0)
        self.gateway.fail(1, Offline())
        self.turn()
        self.assertEqual(len(self.gateway.asked), 2)
        self.assertEqual(self.factory.counts()["CLIENTS"], 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_long_for_a_device(self) -> None:
        """
        A request that parses is echoed and asked, also if the line for the device may be too long.
        """
        line = "MSG:J_ID:20_TAG:t_A:" + "x" * (LINE_LIMIT - 20)
        self.assertEqual(self.say(line.encode() + b"\n"), [line])
        (request,) = self.gateway.requested
        self.assertEqual(len(request.line), LINE_LIMIT - len("_TAG:t") + len("_ORIGIN:10.0.0.7"))


class OriginalClientTests(ServerCase):
    """
    The client that sends no line end (the same over TCP is below).
    """

    def test_served(self) -> None:
        """
        Its request is taken when nothing followed for a while; its echo has no line end, its answer stands alone.
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
        self.assertEqual(self.say(b"\n"), [ECHO])

    def test_told_before_its_answer(self) -> None:
        """
        What is told between its echo and its answer stands on a line of its own, whatever it is.
        """
        for said, told in [(b"ping\n", "OK:ping"), (b"MSG:K_ID:21_ORIGIN:x\n", "MSG:K_ID:21_ORIGIN:x")]:
            client, transport = self.connect()
            client.dataReceived(ORIGINALS)
            self.clock.advance(FIRST_DATA_PATIENCE)
            client.dataReceived(said)
            self.turn()
            self.assertEqual(transport.value(), ORIGINALS + b"\n" + told.encode() + b"\n")

    def test_event_before_its_answer(self) -> None:
        """
        So does an event.
        """
        self.client.dataReceived(ORIGINALS)
        self.clock.advance(FIRST_DATA_PATIENCE)
        self.client.console.watch([])
        self.gateway.publish(report_event("2", SMOKE="1"))
        self.turn()
        self.assertEqual(self.transport.value(), ORIGINALS + f"\nEVENT:reading_ID:2_SMOKE:1_AT:{AT_TEXT}\n".encode())

    def test_the_half_line_that_must_not_command_sensor_2(self) -> None:
        """
        `MSG:ON_ID:2`, typed so far of `MSG:ON_ID:20…`, is never taken as a line, and nor is any other half line.
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
        At a half-close the first data counts at once, and the connection is closed after its answer.
        """
        self.client.dataReceived(ORIGINALS)
        self.client.readConnectionLost()
        self.assertEqual(self.transport.value(), ORIGINALS)
        self.turn()
        self.assertTrue(self.transport.connected)
        self.gateway.answer(0)
        self.turn()
        self.assertEqual(self.transport.value(), ORIGINALS + b"\n" + ANSWER.encode() + b"\n")
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_malformed(self) -> None:
        """
        First data that parses, and is no request, is told so.
        """
        self.client.dataReceived(ORIGINALS + b"_TIMEOUT:0")
        self.clock.advance(FIRST_DATA_PATIENCE)
        self.assertTrue(self.received()[0].startswith(f"ERROR:malformed_{ECHO}_TEXT:value out of range"))

    def test_hang_up(self) -> None:
        """
        A client that goes meanwhile has asked nothing.
        """
        self.client.dataReceived(ORIGINALS)
        self.transport.abortConnection()
        self.clock.advance(1)
        self.assertEqual(self.gateway.asked, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class HalfCloseTests(ServerCase):
    """
    A client that says no more, and listens.
    """

    def test_all_answers(self) -> None:
        """
        Requests and words are all answered, then the connection is closed; an unfinished line is dropped.
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
        Where nothing is awaited the connection is closed at once.
        """
        self.client.readConnectionLost()
        self.assertFalse(self.transport.connected)

    def test_watch(self) -> None:
        """
        A half-closed watch goes on.
        """
        self.client.dataReceived(b"watch\n")
        self.client.readConnectionLost()
        self.gateway.publish(report_event("20", A="1"))
        self.assertEqual(self.received(), ["OK:watch", f"EVENT:reading_ID:20_A:1_AT:{AT_TEXT}"])
        self.transport.abortConnection()
        self.assertEqual(self.gateway.subscribers, [])


class LimitTests(ServerCase):
    """
    What keeps one client from harming the others.
    """

    def test_connections(self) -> None:
        """
        The connection beyond the limit is told so and closed; one that ends makes room.
        """
        self.connect()
        self.connect()
        _, refused = self.connect()
        self.assertEqual(self.received(refused), ["ERROR:limit_TEXT:more than 3 connections"])
        self.assertFalse(refused.connected)
        self.transport.abortConnection()
        client, transport = self.connect()
        client.dataReceived(b"ping\n")
        self.assertEqual(self.received(transport), ["OK:ping"])
        self.assertEqual(self.factory.counts()["LIMITED"], 1)

    def test_in_flight(self) -> None:
        """
        The request beyond the limit is echoed and refused; one that ends makes room.
        """
        for n in range(IN_FLIGHT_LIMIT):
            self.say(b"MSG:J_ID:20_TAG:%d\n" % n)
        self.assertEqual(len(self.gateway.asked), IN_FLIGHT_LIMIT)
        echo, answer = self.say(b"MSG:J_ID:20_TAG:x\n")
        self.assertEqual(echo, "MSG:J_ID:20_TAG:x")
        self.assertTrue(answer.startswith("ERROR:limit_MSG:J_ID:20_TAG:x_TEXT:"), answer)
        self.assertEqual(len(self.gateway.asked), IN_FLIGHT_LIMIT)
        self.gateway.answer(0)
        self.received()
        self.assertEqual(self.say(b"MSG:J_ID:20_TAG:y\n"), ["MSG:J_ID:20_TAG:y"])
        self.assertEqual(len(self.gateway.asked), IN_FLIGHT_LIMIT + 1)

    def test_words_waiting(self) -> None:
        """
        With 64 words waiting nothing more is read, and what was read waits, in its order.
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
        What was read before the half-close and waits is still answered; the transport is not read again.
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
        A client that does not read is not read from, and goes on in its order when it reads again.
        """
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
        A watcher that does not read loses events past 1 MiB, is told how many, and never loses its own answer.
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
        A peer that takes nothing of what waits for 60 s is dropped, one that takes a little is not.
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
        A client that has taken everything may be silent for ever.
        """
        self.say(b"ping\n")
        self.clock.pump([STUCK_AFTER] * 5)
        self.assertTrue(self.transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TurnTests(ServerCase):
    """
    Many lines of one client at once.
    """

    new_clock = TurnClock
    clock: TurnClock

    def setUp(self) -> None:
        """
        Have turns that can be counted, and lines that can be told apart.
        """
        super().setUp()
        self.lines = b"".join(b"MSG:J_ID:%d\n" % n for n in range(3 * LINES_PER_TURN + 1))

    def sensors(self) -> list[str]:
        """
        Tell what was asked.
        """
        return [request.question.sensor for request in self.gateway.requested]

    def test_neighbour_between(self) -> None:
        """
        So many are taken a turn, in their order, and others between; nothing is read meanwhile.
        """
        self.client.dataReceived(self.lines)
        for turn in range(1, 4):
            self.assertEqual(self.sensors(), [str(n) for n in range(turn * LINES_PER_TURN)])
            self.assertEqual(self.transport.producerState, "paused")
            if turn == 1:
                neighbour, transport = self.connect()
                neighbour.dataReceived(b"ping\n")
                self.assertEqual(transport.value(), b"OK:ping\n")
            self.clock.turn()
        self.assertEqual(self.transport.producerState, "producing")
        echoes = [f"MSG:J_ID:{n}" for n in range(3 * LINES_PER_TURN + 1)]
        self.assertEqual(self.received(), echoes)

    def test_no_more_than_a_turn(self) -> None:
        """
        A client that says just so many lines is read on.
        """
        self.client.dataReceived(b"".join(self.lines.splitlines(True)[:LINES_PER_TURN]))
        self.assertEqual(len(self.sensors()), LINES_PER_TURN)
        self.assertEqual(self.transport.producerState, "producing")

    def test_half_close(self) -> None:
        """
        Lines that wait for their turn when the client half-closes are taken, and it is closed when they are answered,
        at once where there is nothing to answer.
        """
        self.client.dataReceived(self.lines)
        self.client.readConnectionLost()
        self.assertEqual(len(self.received()), 3 * LINES_PER_TURN + 1)
        for n in range(3 * LINES_PER_TURN + 1):
            self.assertTrue(self.transport.connected)
            self.gateway.answer(n)
        self.assertEqual(len(self.received()), 3 * LINES_PER_TURN + 1)
        self.assertFalse(self.transport.connected)
        client, transport = self.connect()
        client.dataReceived(b"x:\n" * (LINES_PER_TURN + 1))
        client.readConnectionLost()
        self.assertEqual(len(self.received(transport)), LINES_PER_TURN + 1)
        self.assertFalse(transport.connected)

    def test_hang_up(self) -> None:
        """
        Requests that wait for their turn when the client hangs up are asked all the same, and nothing is left.
        """
        self.client.dataReceived(self.lines)
        self.transport.abortConnection()
        self.clock.turn()  # the transport's own
        self.assertEqual(self.sensors(), [str(n) for n in range(3 * LINES_PER_TURN + 1)])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for n in range(3 * LINES_PER_TURN + 1):
            self.gateway.answer(n)
        self.assertEqual(self.factory.counts()["CLIENTS"], 0)

    def test_drop(self) -> None:
        """
        Of a client that is dropped nothing more is asked.
        """
        self.client.dataReceived(self.lines)
        self.client.abort()
        self.clock.turn()  # the transport's own
        self.assertEqual(len(self.sensors()), LINES_PER_TURN)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_originals_line_behind(self) -> None:
        """
        An unended line behind many is no line of the original client's: only its first data can be one.
        """
        self.client.dataReceived(self.lines + ORIGINALS)
        self.clock.advance(10 * FIRST_DATA_PATIENCE)
        self.turn()
        self.assertEqual(len(self.sensors()), 3 * LINES_PER_TURN + 1)
        self.client.dataReceived(b"X\n")
        self.assertEqual(self.gateway.requested[-1].origin, "TOTOX")


class WatchTests(ServerCase):
    """
    Events.
    """

    def test_by_sensor(self) -> None:
        """
        A watcher gets readings of its sensors, or of all, and every event of a link.
        """
        other, other_transport = self.connect()
        self.assertEqual(self.gateway.subscriptions, 0)
        self.say(b"watch 2 7\n")
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
        Another watch takes the place of the one before, and no event comes twice.
        """
        self.say(b"watch 2\nwatch 7\nwatch 7\n")
        self.gateway.publish(report_event("2", A="1"))
        self.gateway.publish(report_event("7", A="1"))
        self.assertEqual(self.received(), [f"EVENT:reading_ID:7_A:1_AT:{AT_TEXT}"])
        self.assertEqual(self.gateway.subscriptions, 1)

    def test_unwatch(self) -> None:
        """
        Unwatch ends it, and the gateway is not listened to for nobody; what came before stands before its OK.
        """
        self.say(b"watch\n")
        self.gateway.publish(report_event("2", A="1"))
        self.client.dataReceived(b"unwatch\nunwatch\n")
        self.gateway.publish(report_event("2", A="2"))
        self.assertEqual(self.received(), [f"EVENT:reading_ID:2_A:1_AT:{AT_TEXT}", "OK:unwatch", "OK:unwatch"])
        self.assertEqual(self.gateway.subscribers, [])
        self.say(b"watch\n")
        self.transport.abortConnection()
        self.assertEqual(self.gateway.subscribers, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hang_up_with_events(self) -> None:
        """
        A watcher that goes before its events are sent leaves nothing behind.
        """
        self.say(b"watch\n")
        self.gateway.publish(report_event("2", A="1"))
        self.transport.abortConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StopTests(ServerCase):
    """
    usbgate ends.
    """

    def test_stop(self) -> None:
        """
        Words that wait are told, connections closed, later ones refused.
        """
        self.say(b"ask 20\nping\n")
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
        Without connections it has stopped at once.
        """
        self.transport.abortConnection()
        self.successResultOf(self.factory.stop())

    def test_bounded(self) -> None:
        """
        A client that takes nothing does not hold up the end.
        """
        self.transport.stuck = True
        self.client.dataReceived(b"help\n")
        stopped = self.factory.stop()
        self.turn()
        self.assertNoResult(stopped)
        self.clock.advance(STOP_LIMIT)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
