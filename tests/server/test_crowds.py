"""
An answer with many askers: delivered in many reactor turns, to each client in order, and nobody else waits for it.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.support.access import OPEN, authority
from tests.support.gateway import GatewayCase
from tests.support.turnclock import TurnClock
from usbgate.core.errors import Offline, RequestError, Stopped
from usbgate.core.fieldline import parse
from usbgate.core.holders import Holder
from usbgate.core.messages import parse_request
from usbgate.core.model import Answer, Report
from usbgate.gateway.replies import REPLIES_PER_TURN
from usbgate.server.factory import ClientFactory

MANY = 10_000


class CrowdCase(GatewayCase):
    """
    A gateway with many askers.
    """

    new_clock = TurnClock
    clock: TurnClock

    def setUp(self) -> None:
        """
        Use a clock whose turns can be taken one by one; record the replies.
        """
        super().setUp()
        self.link.listener.link_up()
        self.replies: list[tuple[str, str, str]] = []  # client, sensor, value or error code

    def ask_as(self, client: str, sensor: str) -> None:
        """
        Ask a sensor as a client.
        """
        asked: Deferred[Answer] = self.gateway.ask(
            parse_request(parse(f"MSG:J_ID:{sensor}".encode()), "me", client, parsed=True), Holder(client)
        )

        def answered(answer: Answer) -> None:
            self.events.append(("answer", client, sensor))
            self.replies.append((client, sensor, answer.report.values[0][1]))

        def failed(error: RequestError) -> None:
            self.replies.append((client, sensor, error.code))

        asked.addCallbacks(answered, lambda failure: failed(failure.value))

    def report(self, *values: tuple[str, str]) -> None:
        """
        Let the device report values of sensors, in one chunk.
        """
        self.link.listener.reports_received(
            [Report(sensor, "J", None, (("VALUE", value),)) for sensor, value in values]
        )

    def take_turns(self) -> int:
        """
        Take turns until nothing is due; check that each delivers no more replies than it may, and only what is in the
        journal.

        Returns:
            How many turns it took.
        """
        turns = 0
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.calls):
            before = len(self.replies)
            self.clock.turn()
            self.assertLessEqual(len(self.replies) - before, REPLIES_PER_TURN)
            self.assertEqual(len(self.journal.requests), len(self.replies))
            turns += 1
        return turns


class CrowdTests(CrowdCase):
    """
    Many ask one sensor.
    """

    def test_turns(self) -> None:
        """
        An answer for 10,000 askers is delivered in many turns; whoever asks another sensor meanwhile does not wait for
        it.
        """
        for n in range(MANY):
            self.ask_as(f"crowd:{n % 50}", "30")
        self.ask_as("other:1", "20")
        self.report(("30", "1"), ("20", "2"))
        self.assertEqual(self.replies, [("other:1", "20", "2")])
        self.clock.turn()
        self.ask_as("other:1", "20")
        self.report(("20", "3"))
        self.assertEqual(self.replies[-1], ("other:1", "20", "3"))
        self.assertGreater(self.take_turns(), MANY // REPLIES_PER_TURN // 2)
        self.assertEqual(Counter(self.replies)["crowd:7", "30", "1"], MANY // 50)
        self.assertEqual(len(self.replies), MANY + 2)
        self.assertEqual(len(self.journal.readings), 3)

    def test_order(self) -> None:
        """
        Replies to one client keep their order, however many there are.
        """
        for _ in range(250):
            self.ask_as("crowd:1", "30")
        self.ask_as("crowd:1", "20")
        self.ask_as("other:1", "20")
        self.report(("30", "1"), ("20", "2"))
        self.assertEqual(self.replies, [("other:1", "20", "2")])
        self.clock.turn()
        self.ask_as("crowd:1", "30")
        self.ask_as("crowd:1", "9_DEV:nowhere")
        self.report(("30", "3"))
        self.take_turns()
        mine = [reply[1:] for reply in self.replies if reply[0] == "crowd:1"]
        self.assertEqual(mine, [("30", "1")] * 250 + [("20", "2"), ("9_DEV:nowhere", "unknown"), ("30", "3")])

    def test_next_message_first(self) -> None:
        """
        The device gets its next messages, all in one write, before replies are delivered.
        """
        for n in range(6):
            self.ask_as("me:1", str(n))
        self.events.clear()
        self.report(("0", "1"), ("1", "1"))
        self.assertEqual(
            [event[0] for event in self.events if isinstance(event, tuple)],
            ["send", "send", "answer", "answer", "journal"],
        )

    def test_failures(self) -> None:
        """
        When the device goes away, all askers get an error, in as many turns.
        """
        for n in range(250):
            self.ask_as(f"crowd:{n}", "30")
        self.link.listener.link_down("gone")
        self.assertEqual(self.take_turns(), 3)
        self.assertEqual({reply[2] for reply in self.replies}, {Offline.code})
        self.assertEqual(len({reply[0] for reply in self.replies}), 250)

    def test_stop(self) -> None:
        """
        At a stop all replies are delivered at once; answers, where they are known.
        """
        for n in range(250):
            self.ask_as(f"crowd:{n}", "30")
            self.ask_as(f"crowd:{n}", "20")
        self.report(("30", "1"))
        self.clock.turn()
        self.gateway.stopService()
        self.assertEqual(len(self.replies), 500)
        self.assertEqual(len(self.journal.requests), 500)
        self.assertEqual({reply[1:] for reply in self.replies}, {("30", "1"), ("20", Stopped.code)})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_asked_again_at_a_stop(self) -> None:
        """
        Whoever asks again from the callback of a reply at a stop gets a reply, too, and no turn is left.
        """
        again: list[str] = []
        request = parse_request(parse(b"MSG:J_ID:30"), "me", "crowd:1", parsed=True)

        def failed(error: Failure) -> None:
            error.trap(Stopped)
            again.append(Stopped.code)

        def ask_again(answer: Answer) -> None:
            self.gateway.ask(request, Holder("crowd")).addErrback(failed)

        for _ in range(250):
            self.gateway.ask(request, Holder("crowd")).addCallback(ask_again)
        self.report(("30", "1"))
        self.gateway.stopService()
        self.assertEqual(again, [Stopped.code] * 250)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PacketTests(CrowdCase):
    """
    The line server on a real gateway.
    """

    def test_one_packet(self) -> None:
        """
        All answers for a client that come from one chunk leave in one packet, each with its asker's tag.
        """
        factory = ClientFactory(self.clock, self.gateway, authority(self.clock), door=OPEN)
        client, transport = factory.buildProtocol(None), Transport()
        client.makeConnection(transport)
        client.dataReceived(b"MSG:J_ID:20_TAG:a\nMSG:J_ID:20_TAG:b__\nMSG:J_ID:20\nMSG:J_ID:21\nMSG:J_ID:22\n")
        self.clock.turn()
        self.assertEqual(len(transport.packets), 1)
        self.report(("20", "1"), ("21", "2"))
        self.clock.turn()
        self.assertEqual(len(transport.packets), 2)
        fields = [parse(line) for line in transport.packets[1].splitlines()]
        answers = [(each["ID"], each["VALUE"], each.get("TAG"), list(each)[-1]) for each in fields]
        self.assertEqual(
            answers, [("20", "1", "a", "AT"), ("20", "1", "b_", "AT"), ("20", "1", None, "AT"), ("21", "2", None, "AT")]
        )
        client.dataReceived(b"quit\n")
        self.gateway.stopService()

    def test_first_at_once(self) -> None:
        """
        The first answer of a reactor turn is sent before rows are made; those of other clients at the end of the turn.
        """
        factory = ClientFactory(self.clock, self.gateway, authority(self.clock), door=OPEN)
        transports: list[Transport] = []
        for sensor in (b"20", b"21"):
            client, transport = factory.buildProtocol(None), Transport()
            transports.append(transport)
            client.makeConnection(transport)
            client.dataReceived(b"MSG:J_ID:%s\n" % sensor)
        self.clock.turn()
        sent: list[list[int]] = []

        def count(*runs: object) -> None:
            sent.append([len(transport.packets) for transport in transports])

        self.patch(self.journal, "append", count)
        self.report(("20", "1"), ("21", "2"))
        self.clock.turn()
        count()
        self.assertEqual(sent, [[2, 1], [2, 2]])
        self.gateway.stopService()


class Transport(StringTransport):
    """
    A transport that keeps packets apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []

    def write(self, data: bytes) -> None:
        """
        Keep a packet.
        """
        self.packets.append(data)
