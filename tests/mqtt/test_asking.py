"""
Questions and commands over MQTT, with a gateway and a publisher in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.access import authority
from tests.support.memory_gateway import AT_TEXT, MemoryGateway
from tests.support.publisher import MemoryPublisher, Published
from usbgate.access.roles import Role
from usbgate.core.errors import Offline, TimedOut
from usbgate.core.settings import SensorSettings
from usbgate.mqtt.asking import IN_FLIGHT_LIMIT, REPLY_TOPIC_LIMIT, Asking, is_reply_topic
from usbgate.mqtt.interfaces import Message
from usbgate.mqtt.messages import ASK_LIMIT, MqttFailure
from usbgate.mqtt.topics import Topics

TOPICS = Topics("flat")
CLOSED = ("usbgate", "homeassistant")


class AskingCase(SynchronousTestCase):
    """
    `Asking`, connected.
    """

    role = Role.COMMAND
    per_second = 100.0

    def setUp(self) -> None:
        """
        Connect.
        """
        self.clock = Clock()
        self.gateway = MemoryGateway()
        self.failures: list[MqttFailure] = []
        self.publisher = MemoryPublisher()
        self.authority = authority(self.clock, gateway=self.gateway)
        self.asking = self.make(self.role)

    def make(self, role: Role) -> Asking:
        """
        Make one for clients with this role.
        """
        asking = Asking(
            self.clock,
            self.gateway,
            self.authority,
            role,
            TOPICS,
            CLOSED,
            self.failures.append,
            self.per_second,
        )
        asking.connected(self.publisher)
        return asking

    def ask(self, body: object, **others: object) -> None:
        """
        Let a message come.
        """
        payload = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self.asking.received(Message(TOPICS.ask, payload, **others))  # type: ignore[arg-type]

    def replies(self) -> Sequence[Published]:
        """
        Return the replies since the last call.
        """
        return self.publisher.take()

    def refusal(self, body: object, **others: object) -> dict[str, object]:
        """
        Return the error that a message gets at once.
        """
        self.ask(body, **others)
        (reply,) = self.replies()
        self.assertIn("error", reply.json)
        return reply.json


class AskingTests(AskingCase):
    """
    What is asked, and where the answer goes.
    """

    def test_topic(self) -> None:
        """
        It subscribes to one topic.
        """
        self.assertEqual(self.asking.filters, ("usbgate/flat/ask",))

    def test_version_5(self) -> None:
        """
        The answer goes to the response topic, with the correlation data, as over HTTP.
        """
        self.ask({"sensor": "20"}, response_topic="me/answers", correlation=b"\x00\x01")
        self.gateway.answer(0, ("VALUE", "21.5"), ("BAT", "OK"))
        (reply,) = self.replies()
        self.assertEqual(reply[2:], (False, None, b"\x00\x01"))
        self.assertEqual(reply.topic, "me/answers")
        self.assertEqual(
            reply.json,
            {
                "sensor": "20",
                "command": "J",
                "device": "leonardo",
                "at": AT_TEXT,
                "recent": False,
                "values": {"VALUE": 21.5, "BAT": "OK"},
            },
        )

    def test_version_3(self) -> None:
        """
        Or to the topic in the message, with its `id`, as it is.
        """
        for spelled in (b"7", b'{"a":[1,2.50]}', b"null", b'"x"', b"12345678901234567890"):
            self.ask(b'{"sensor": 20, "reply": "me/answers", "id": ' + spelled + b"}")
            self.gateway.answer(-1)
            (reply,) = self.replies()
            self.assertEqual(reply.topic, "me/answers")
            self.assertIn(b'"id":' + spelled + b"}", reply.payload)

    def test_both(self) -> None:
        """
        The response topic counts more.
        """
        self.ask({"sensor": "20", "reply": "b"}, response_topic="a")
        self.gateway.answer(0)
        self.assertEqual([reply.topic for reply in self.replies()], ["a"])

    def test_request(self) -> None:
        """
        The keys are those of HTTP. The reply topic is recorded as the client.
        """
        self.ask(
            {
                **{"sensor": "9", "command": "L", "arguments": {"level": 50, "Mode": "x"}, "origin": "Zoé"},
                **{"timeout": 2.5, "max_age": 60, "device": "uno", "reply": "me/answers"},
            }
        )
        self.ask({"sensor": "2"})
        first, second = self.gateway.requested
        self.assertEqual(first.line.decode(), "MSG:L_ID:9_ORIGIN:Zoé_LEVEL:50_MODE:x")
        self.assertEqual((first.timeout, first.max_age, first.device), (2.5, 60.0, "uno"))
        self.assertEqual((first.origin, first.client), ("Zoé", "mqtt@me/answers"))
        self.assertEqual(second.line, b"MSG:S_ID:2_ORIGIN:mqtt")
        self.assertEqual((second.timeout, second.origin, second.client), (None, "mqtt", "mqtt"))

    def test_failed(self) -> None:
        """
        An error has its code and what was asked.
        """
        self.ask({"sensor": "20", "command": "J", "id": [1]}, response_topic="a", correlation=b"c")
        self.gateway.fail(0, TimedOut())
        (reply,) = self.replies()
        self.assertEqual((reply.topic, reply.correlation), ("a", b"c"))
        detail = "The request was sent, and no answer came within its time limit"
        self.assertEqual(reply.json, {"error": "timeout", "detail": detail, "sensor": "20", "command": "J", "id": [1]})
        self.assertEqual(self.failures, [])

    def test_unexpected(self) -> None:
        """
        What should not happen is logged, and the asker gets `failed`: an exception, or an answer that is no text.
        """
        self.gateway.broken = ValueError("boo")
        self.assertEqual(self.refusal({"sensor": "20", "reply": "a"})["error"], "failed")
        self.gateway.broken = None
        self.ask({"sensor": "20", "reply": "a"})
        self.gateway.answer(0, ("V", "\ud800"))
        self.assertEqual(self.replies()[0].json["error"], "failed")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)  # UnicodeEncodeError is one

    def test_no_reply(self) -> None:
        """
        Without a reply topic, an answer goes nowhere, and an error is an event.
        """
        for _ in range(2):
            self.ask({"sensor": "9", "command": "ON"})
        self.gateway.answer(0)
        self.gateway.fail(1, Offline())
        self.ask({"sensor": "9", "command": "A_B:C"})
        self.ask(b"ON")
        self.assertEqual(self.replies(), [])
        found = [(each.error, each.reason, each.sensor, each.command) for each in self.failures]
        self.assertEqual(
            found,
            [
                ("offline", None, "9", "ON"),
                ("malformed", "value that does not read back", "9", "A_B:C"),
                ("malformed", "invalid body", None, None),
            ],
        )

    def test_connections(self) -> None:
        """
        What was asked goes on when the broker is gone; its questions then count as those of a gone connection. A new
        connection still brings the answer.
        """
        self.ask({"sensor": "20", "reply": "a"})
        self.asking.disconnected()
        self.assertEqual(self.gateway.gone, [(self.gateway.holders[0], 1)])
        again = MemoryPublisher()
        self.asking.connected(again)
        self.ask({"sensor": "20", "reply": "a"})
        self.assertIsNot(self.gateway.holders[1], self.gateway.holders[0])
        self.gateway.answer(0)
        self.assertEqual((len(self.replies()), len(again.take())), (0, 1))


class MalformedTests(AskingCase):
    """
    What is no question.
    """

    def test_bodies(self) -> None:
        """
        It gets `malformed`, and is not asked.
        """
        for body in (
            *(
                b"20",
                b"{}",
                b"[",
                b'{"sensor": null}',
                b'{"sensor": 1.5}',
                b'{"sensor": -1}',
                b"\xff",
                b'"20"',
                b"null",
            ),
            *(
                b'{"sensor": "20", "unknown": 1}',
                b'{"sensor": "20", "timeout": 0}',
                b'{"sensor": "20", "timeout": "x"}',
            ),
            *(b'{"sensor": "20", "arguments": {"ID": 1}}', b'{"sensor": "20", "arguments": {"a": 1, "A": 2}}'),
            *(
                b'{"sensor": "a b"}',
                b'{"sensor": ""}',
                b'{"sensor": "20", "command": ""}',
                b'{"sensor": "20", "id": "\xff"}',
            ),
            *(b'{"sensor": "20", "id": ' + b"[" * 3000 + b"]" * 3000 + b"}", b'{"sensor": ' + b"9" * 6000 + b"}"),
        ):
            self.assertEqual(self.refusal(body, response_topic="a")["error"], "malformed", body[:40])
        self.assertEqual(self.gateway.asked, [])
        self.assertEqual(self.failures, [])

    def test_reply(self) -> None:
        """
        Its error goes to where the answer should, with its `id`, if it has them.
        """
        for body, response_topic in (
            ({"reply": "a", "id": [7]}, None),
            ({"sensor": "20", "comand": "J", "reply": "a", "id": [7]}, None),
            ({"sensor": "20", "timeout": "5", "reply": "b", "id": [7]}, "a"),
        ):
            self.ask(body, response_topic=response_topic)
            (reply,) = self.replies()
            self.assertEqual((reply.topic, reply.json["error"], reply.json["id"]), ("a", "malformed", [7]))
        for unanswered in ({"reply": 5}, {"reply": "usbgate/flat/ask"}, {"id": "é"}):
            self.ask(unanswered)
        self.assertEqual((self.replies(), [each.error for each in self.failures]), ([], ["malformed"] * 3))

    def test_long(self) -> None:
        """
        A message that is too long gets `limit`.
        """
        body = b'{"sensor": "20"}'
        self.ask(body.ljust(ASK_LIMIT), response_topic="a")
        self.assertEqual(len(self.gateway.asked), 1)
        self.assertEqual(self.refusal(body.ljust(ASK_LIMIT + 1), response_topic="a")["error"], "limit")

    def test_empty(self) -> None:
        """
        An empty message, which removes a retained one, does nothing.
        """
        self.ask(b"")
        self.ask(b"", retained=True, response_topic="a")
        self.assertEqual((self.replies(), self.failures, self.asking.refused), ([], [], 0))


class ReplyTopicTests(AskingCase):
    """
    Where answers may go.
    """

    def test_allowed(self) -> None:
        """
        Any usual topic.
        """
        for topic in (
            "a",
            "/",
            "a/b c/é",
            "usbgates/x",
            "x/usbgate/flat",
            "a$",
            "home/ask",
            "é" * (REPLY_TOPIC_LIMIT // 2),
        ):
            self.assertTrue(is_reply_topic(topic, CLOSED), topic)

    def test_refused(self) -> None:
        """
        No wildcards, no topics of the broker's own, nothing that a broker would disconnect for, and nothing where it
        would be read as a question, a value or a discovery: that is an event, and the question is not asked.
        """
        refused = (
            *("", "+", "a/+/b", "#", "a/#", "a+b", "$SYS/x", "$share/g/a", "a\0b", "a\nb", "a\x7f", "a\ufffe"),
            *("usbgate", TOPICS.ask, TOPICS.events, "usbgate/other/ask", TOPICS.value("uno", "20", "TEMP")),
            *("homeassistant", "homeassistant/status", "homeassistant/device/x/config"),
            *("a" * (REPLY_TOPIC_LIMIT + 1), "é" * (REPLY_TOPIC_LIMIT // 2 + 1), "/" * 1000),
        )
        for topic in refused:
            self.ask({"sensor": "20", "reply": topic})
            self.ask({"sensor": "20", "reply": "fine"}, response_topic=topic)
            self.ask(b"nonsense", response_topic=topic)
        self.assertEqual((self.replies(), self.gateway.asked), ([], []))
        self.assertEqual([each.error for each in self.failures], ["malformed"] * 3 * len(refused))
        self.assertEqual({each.reason for each in self.failures}, {"reply topic not allowed", "invalid body"})
        self.assertFalse(is_reply_topic("a\ud800", CLOSED))


class LateTests(AskingCase):
    """
    Commands come neither late nor again.
    """

    def test_retained(self) -> None:
        """
        A retained message is refused, and recorded, be it a command or a question.
        """
        for command in ("ON", "J"):
            error = self.refusal({"sensor": "9", "command": command, "reply": "a"}, retained=True)
            self.assertEqual((error["error"], error["reason"]), ("denied", "retained message"))
        self.assertEqual([code for _, code in self.gateway.refused], ["denied", "denied"])
        self.assertEqual(self.gateway.asked, [])

    def test_expired(self) -> None:
        """
        So is one that has expired.
        """
        self.clock.advance(5)
        for expires in (4.0, 5.0):
            error = self.refusal({"sensor": "9", "command": "ON", "reply": "a"}, expires=expires)
            self.assertEqual((error["error"], error["detail"]), ("busy", "the message had expired"))
        self.assertEqual([code for _, code in self.gateway.refused], ["busy", "busy"])
        self.assertEqual(self.gateway.asked, [])

    def test_expires(self) -> None:
        """
        One that has not may wait until it does, but not longer than it would have.
        """
        self.gateway.presented = {"9": SensorSettings(timeout=3.0)}
        self.clock.advance(5)
        for sensor, timeout, expires, expected in (
            ("9", None, 7.0, 2.0),
            ("9", None, 1000.0, 3.0),
            ("9", 20.0, 1000.0, 20.0),
            ("9", 20.0, 5.01, 0.01),
            ("20", None, 1000.0, 10.0),
        ):
            self.ask({"sensor": sensor, "timeout": timeout}, expires=expires)
            found = self.gateway.requested[-1].timeout
            assert found is not None
            self.assertAlmostEqual(found, expected)


class LimitTests(AskingCase):
    """
    All clients of the broker together.
    """

    per_second = 128.0

    def test_in_flight(self) -> None:
        """
        So many questions may be in flight, others get `limit`.
        """
        for _ in range(IN_FLIGHT_LIMIT):
            self.ask({"sensor": "20"})
        error = self.refusal({"sensor": "20", "reply": "a"})
        self.assertEqual((error["error"], len(self.gateway.asked)), ("limit", IN_FLIGHT_LIMIT))
        self.gateway.answer(0)
        self.gateway.fail(1, Offline())
        for _ in range(2):
            self.ask({"sensor": "20"})
        self.assertEqual(len(self.gateway.asked), IN_FLIGHT_LIMIT + 2)
        self.assertEqual(self.asking.refused, 1)

    def test_rate(self) -> None:
        """
        So many may come in a second, and 2.5 times as many at once.
        """
        for index in range(320):
            self.ask({"sensor": "20"})
            self.gateway.answer(index)
        self.assertEqual(self.refusal({"sensor": "20", "reply": "a"})["error"], "limit")
        self.clock.advance(1)
        for index in range(320, 448):
            self.ask({"sensor": "20"})
            self.gateway.answer(index)
        self.assertEqual(self.refusal({"sensor": "20", "reply": "a"})["error"], "limit")
        self.assertEqual(self.asking.refused, 2)

    def test_logged(self) -> None:
        """
        What is refused is logged once a minute, with how much it was.
        """
        with capturedLogs() as logged:
            for seconds in (0, 30, 30, 0):
                self.clock.advance(seconds)
                self.ask(b"nonsense")
        self.assertEqual([event["count"] for event in logged], [1, 2])
        self.assertIn("invalid body", formatEvent(logged[0]))

    def test_refusals(self) -> None:
        """
        Only some of what is refused is answered, so that nobody can fill the queue to the broker; all of it is counted.
        """
        for seconds, answered in ((0, 100), (1, 10)):
            self.clock.advance(seconds)
            for _ in range(200):
                self.ask(b"nonsense", response_topic="a")
                self.ask(b"nonsense")
            self.assertEqual(len(self.replies()) + len(self.failures), answered)
            self.failures.clear()
        self.assertEqual(self.asking.refused, 800)


class MatrixTests(AskingCase):
    """
    Every role.
    """

    def test_questions(self) -> None:
        """
        Questions that only read require `ask`, all others `command`. Those that are refused are recorded, unless the
        role is none; the error says what to do.
        """
        for role in (Role.NONE, Role.READ, Role.ASK, Role.COMMAND):
            self.asking = self.make(role)
            for command, required in (("J", Role.ASK), ("ON", Role.COMMAND)):
                asked, refused = len(self.gateway.asked), len(self.gateway.refused)
                self.ask({"sensor": "20", "command": command, "reply": "me"})
                permitted = role >= required
                self.assertEqual(len(self.gateway.asked) - asked, permitted, (role, command))
                if permitted:
                    self.gateway.answer(-1)
                self.assertEqual(len(self.gateway.refused) - refused, role > Role.NONE and not permitted)
                (reply,) = self.replies()
                if not permitted:
                    self.assertEqual((reply.json["error"], reply.json["role"]), ("denied", required.spelled))
                    self.assertEqual(reply.json["detail"], f'this requires role = "{required.spelled}" in [mqtt]')
        self.assertEqual({request.client for request, _ in self.gateway.refused}, {"mqtt@me"})
        self.assertEqual(self.authority.denied, 5)
