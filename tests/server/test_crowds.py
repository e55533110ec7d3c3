"""
An answer for a crowd: told in many reactor turns, to each in order, and nobody else waits for it.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.support.gateway import GatewayCase
from tests.support.turnclock import TurnClock
from usbgate.core.errors import Offline, RequestError, Stopped
from usbgate.core.fieldline import parse
from usbgate.core.messages import parse_request
from usbgate.core.model import Answer, Report
from usbgate.gateway.replies import REPLIES_PER_TURN
from usbgate.server.factory import ClientFactory

MANY = 10_000


class CrowdCase(GatewayCase):
    """
    A gateway that is asked by many.
    """

    new_clock = TurnClock
    clock: TurnClock

    def setUp(self) -> None:
        """
        Take turns; note who is told.
        """
        super().setUp()
        self.link.listener.link_up()
        self.told: list[tuple[str, str, str]] = []  # client, sensor, value or error code

    def ask_as(self, client: str, sensor: str) -> None:
        """
        Ask as a client.
        """
        asked: Deferred[Answer] = self.gateway.ask(
            parse_request(parse(f"MSG:J_ID:{sensor}".encode()), "me", client, parsed=True)
        )

        def answered(answer: Answer) -> None:
            self.events.append(("answer", client, sensor))
            self.told.append((client, sensor, answer.report.values[0][1]))

        def failed(error: RequestError) -> None:
            self.told.append((client, sensor, error.code))

        asked.addCallbacks(answered, lambda failure: failed(failure.value))

    def say(self, *values: tuple[str, str]) -> None:
        """
        Let the device say values of sensors, in one chunk.
        """
        self.link.listener.reports_received(
            [Report(sensor, "J", None, (("VALUE", value),)) for sensor, value in values]
        )

    def take_turns(self) -> int:
        """
        Take turns until nothing is due, each telling no more than it may, and only what is journalled.

        Returns:
            How many it took.
        """
        turns = 0
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.calls):
            before = len(self.told)
            self.clock.turn()
            self.assertLessEqual(len(self.told) - before, REPLIES_PER_TURN)
            self.assertEqual(len(self.journal.requests), len(self.told))
            turns += 1
        return turns


class CrowdTests(CrowdCase):
    """
    Many ask for one sensor.
    """

    def test_turns(self) -> None:
        """
        An answer for 10,000 is told in many turns, to all; who asks another sensor meanwhile does not wait for it.
        """
        for n in range(MANY):
            self.ask_as(f"crowd:{n % 50}", "30")
        self.ask_as("other:1", "20")
        self.say(("30", "1"), ("20", "2"))
        self.assertEqual(self.told, [("other:1", "20", "2")])
        self.clock.turn()
        self.ask_as("other:1", "20")
        self.say(("20", "3"))
        self.assertEqual(self.told[-1], ("other:1", "20", "3"))
        self.assertGreater(self.take_turns(), MANY // REPLIES_PER_TURN // 2)
        self.assertEqual(Counter(self.told)["crowd:7", "30", "1"], MANY // 50)
        self.assertEqual(len(self.told), MANY + 2)
        self.assertEqual(len(self.journal.readings), 3)

    def test_order(self) -> None:
        """
        What one client is told keeps its order, however much it is.
        """
        for _ in range(250):
            self.ask_as("crowd:1", "30")
        self.ask_as("crowd:1", "20")
        self.ask_as("other:1", "20")
        self.say(("30", "1"), ("20", "2"))
        self.assertEqual(self.told, [("other:1", "20", "2")])
        self.clock.turn()
        self.ask_as("crowd:1", "30")
        self.ask_as("crowd:1", "9_DEV:nowhere")
        self.say(("30", "3"))
        self.take_turns()
        mine = [told[1:] for told in self.told if told[0] == "crowd:1"]
        self.assertEqual(mine, [("30", "1")] * 250 + [("20", "2"), ("9_DEV:nowhere", "unknown"), ("30", "3")])

    def test_next_message_first(self) -> None:
        """
        The device has its next message before anybody is told, in one piece with all that are ready.
        """
        for n in range(6):
            self.ask_as("me:1", str(n))
        self.events.clear()
        self.say(("0", "1"), ("1", "1"))
        self.assertEqual(
            [event[0] for event in self.events if isinstance(event, tuple)],
            [*["journal", "send", "send"], *["answer"] * 2],
        )

    def test_failures(self) -> None:
        """
        Where the device goes away all are told so, in as many turns.
        """
        for n in range(250):
            self.ask_as(f"crowd:{n}", "30")
        self.link.listener.link_down("gone")
        self.assertEqual(self.take_turns(), 3)
        self.assertEqual({told[2] for told in self.told}, {Offline.code})
        self.assertEqual(len({told[0] for told in self.told}), 250)

    def test_stop(self) -> None:
        """
        At a stop all are told at once: the answer, where it is there.
        """
        for n in range(250):
            self.ask_as(f"crowd:{n}", "30")
            self.ask_as(f"crowd:{n}", "20")
        self.say(("30", "1"))
        self.clock.turn()
        self.gateway.stopService()
        self.assertEqual(len(self.told), 500)
        self.assertEqual(len(self.journal.requests), 500)
        self.assertEqual({told[1:] for told in self.told}, {("30", "1"), ("20", Stopped.code)})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_asked_again_at_a_stop(self) -> None:
        """
        Who asks again when told at a stop is told, too, and no turn is left.
        """
        again: list[str] = []
        request = parse_request(parse(b"MSG:J_ID:30"), "me", "crowd:1", parsed=True)

        def failed(error: Failure) -> None:
            error.trap(Stopped)
            again.append(Stopped.code)

        def ask_again(answer: Answer) -> None:
            self.gateway.ask(request).addErrback(failed)

        for _ in range(250):
            self.gateway.ask(request).addCallback(ask_again)
        self.say(("30", "1"))
        self.gateway.stopService()
        self.assertEqual(again, [Stopped.code] * 250)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PacketTests(CrowdCase):
    """
    A face on the gateway.
    """

    def test_one_packet(self) -> None:
        """
        All answers for a client that come out of one chunk are one packet, each as its asker marked it.
        """
        factory = ClientFactory(self.clock, self.gateway)
        client, transport = factory.buildProtocol(None), Transport()
        client.makeConnection(transport)
        client.dataReceived(b"MSG:J_ID:20_TAG:a\nMSG:J_ID:20_TAG:b__\nMSG:J_ID:20\nMSG:J_ID:21\nMSG:J_ID:22\n")
        self.assertEqual(len(transport.packets), 1)
        self.say(("20", "1"), ("21", "2"))
        self.clock.turn()
        self.assertEqual(len(transport.packets), 2)
        fields = [parse(line) for line in transport.packets[1].splitlines()]
        told = [(each["ID"], each["VALUE"], each.get("TAG"), list(each)[-1]) for each in fields]
        self.assertEqual(
            told, [("20", "1", "a", "AT"), ("20", "1", "b_", "AT"), ("20", "1", None, "AT"), ("21", "2", None, "AT")]
        )
        client.dataReceived(b"quit\n")
        self.gateway.stopService()


class Transport(StringTransport):
    """
    A transport that takes all, and keeps packets apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []

    def write(self, data: bytes) -> None:
        """
        Take it.
        """
        self.packets.append(data)
