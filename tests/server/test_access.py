"""
Who may do what over the line protocol (protocol §3): every word and every kind of request, with every role.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.access import ALARMS, EVENTS, authority, limit_to_20
from tests.support.memory_gateway import MemoryGateway, PeerTransport, report_event
from usbgate.access.authority import CHANGED, CHECK_INTERVAL
from usbgate.access.doors import Door, Rule
from usbgate.access.failures import FIRST_DELAY, LONGEST_DELAY
from usbgate.access.rights import RIGHTS, WORD_ROLES
from usbgate.access.roles import ROLES, Role
from usbgate.access.tokens import Token, TokenFile, digest
from usbgate.core.fieldline import parse
from usbgate.core.model import Action, AlarmEvent, DeviceEvent
from usbgate.gateway.interfaces import DeviceSummary, HeldRequest, Lease
from usbgate.net.rates import Rates
from usbgate.server.factory import ClientFactory
from usbgate.server.intake import LINES_AT_ONCE
from usbgate.server.protocol import ClientProtocol
from usbgate.server.requests import REQUEST_LINE
from usbgate.testing import AT, request

# Each word with arguments that it accepts.
LINES = {
    **{word: word for word in WORD_ROLES},
    "ask": "ask 20 J",
    "history": "history 20",
    "acknowledge": "acknowledge 1",
    "cancel": "cancel 1",
    "lend": "lend leonardo",
}

READING, COMMANDING = "MSG:J_ID:20", "MSG:ON_ID:9"


class AccessCase(SynchronousTestCase):
    """
    A state folder with a token of each role, named for it, whose secret is `secret-ROLE`.
    """

    rules: Sequence[Rule] = ()
    most_of_token: int | None = None

    def setUp(self) -> None:
        """
        Make both.
        """
        self.clock = Clock()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.tokens = TokenFile(self.folder)
        for role in ROLES:
            token = Token(name=role, role=role, sha256=digest(f"secret-{role}"), created=AT)  # type: ignore[arg-type]
            self.tokens.add(token)
        self.gateway = MemoryGateway()
        self.gateway.known_devices = [DeviceSummary("leonardo", "/dev/ttyACM0", "online", AT)]

    def connect(self, role: Role, host: str = "10.0.0.7") -> None:
        """
        Connect a client at a door that gives a role.
        """
        keeper = authority(self.clock, self.folder, self.gateway, self.rules, self.most_of_token)
        factory = ClientFactory(self.clock, self.gateway, keeper, wall=lambda: AT, door=Door(role))
        self.client: ClientProtocol = factory.buildProtocol(IPv4Address("TCP", host, 4711))
        self.transport = PeerTransport(self.clock)
        self.transport.protocol = self.client
        self.client.makeConnection(self.transport)
        self.addCleanup(self.transport.abortConnection)

    def send(self, *lines: str) -> list[str]:
        """
        Send lines; return what is received until all is quiet.
        """
        self.client.dataReceived("".join(line + "\n" for line in lines).encode())
        self.clock.pump([0.0] * 20)
        received: list[str] = self.transport.value().decode().splitlines()
        self.transport.clear()
        return received


class MatrixTests(AccessCase):
    """
    Every word, every kind of request and every kind of event x every role x a door that gives it, a `[[client]]` table,
    and a token.
    """

    def connect_as(self, role: Role) -> Iterator[str]:
        """
        Connect a client with a role, in each way, and yield how.
        """
        self.connect(role)
        yield "door"
        self.rules = [Rule(role, [ip_network("10.0.0.0/8")])]
        self.connect(Role.NONE if role is Role.ADMIN else Role.ADMIN)
        yield "table"
        self.rules = ()
        if role is not Role.NONE:
            for door in (Role.NONE, Role.ADMIN):
                self.connect(door)
                self.send(f"auth secret-{role.spelled}")
                yield f"token, at a door of {door.spelled}"

    def check(self, line: str, role: Role, required: Role, replies: int) -> None:
        """
        Check that a line is denied exactly if the role is too low, and that the error names the role.
        """
        for way in self.connect_as(role):
            self.check_denied(line, role, required, replies, way)
        if REQUEST_LINE.match(line.encode()) and role is not Role.NONE:
            self.connect(Role.NONE)
            self.check_denied(f"{line}_AUTH:secret-{role.spelled}", role, required, replies, "token in the line")

    def check_denied(self, line: str, role: Role, required: Role, replies: int, way: str) -> None:
        """
        Check it on the present connection.
        """
        asked = len(self.gateway.asked) + len(self.gateway.lendings)
        received = self.send(line)
        denied = [each for each in received if each.startswith("ERROR:denied_")]
        self.assertEqual(len(denied), int(role < required), (line, role, way, received))
        if denied:
            self.assertIn(f"this requires the role {required.spelled}", denied[0])
            self.assertEqual(len(received), replies)
            self.assertEqual(len(self.gateway.asked) + len(self.gateway.lendings), asked)

    def test_events(self) -> None:
        """
        Every kind of event that line clients get.
        """
        topics = {topic for right in RIGHTS for topic in right.topics} - {"store"}  # only over HTTP
        for role in Role:
            for way in self.connect_as(role):
                self.send("watch")
                self.gateway.publish(*EVENTS)
                self.clock.advance(1)
                received = {parse(line.encode()).get("EVENT") for line in self.send()}
                self.assertEqual(received, topics if role >= WORD_ROLES["watch"] else set(), (role, way))

    def test_words(self) -> None:
        """
        Every word.
        """
        for word, required in WORD_ROLES.items():
            for role in Role:
                self.check(LINES[word], role, required, 1)

    def test_requests(self) -> None:
        """
        Questions that only read, and all others, as request lines and by `ask`.
        """
        for role in Role:
            self.check(READING, role, Role.ASK, 2)
            self.check(COMMANDING, role, Role.COMMAND, 2)
            if role >= Role.ASK:  # otherwise the word itself is denied
                self.gateway.held_requests = [
                    HeldRequest(1, request("9", "ON"), "leonardo", AT, AT),
                    HeldRequest(2, request("2", "J"), "leonardo", AT, AT),
                ]
                self.check("cancel 1", role, Role.COMMAND, 1)
                self.check("cancel 2", role, Role.ASK, 1)
                self.check("ask 9 ON", role, Role.COMMAND, 1)
                self.check("ask 2 J", role, Role.ASK, 1)

    def test_paths(self) -> None:
        """
        Only `admin` sees where devices are.
        """
        for role in Role:
            self.connect(role)
            self.assertEqual("/dev/ttyACM0" in "".join(self.send("devices")), role is Role.ADMIN)


# Whatever names a sensor that the token does not permit.
OUTSIDE = (
    *("last 99", "history 99", "history 99 limit=5000", "watch 20 99", "alarms 99", "alarms 99 limit=5", "requests 99"),
    *("ask 99", "ask 99 J", "acknowledge a99", "MSG:J_ID:99", "MSG:ON_ID:99"),
)


class SensorsTests(AccessCase):
    """
    A token, or an address, that may use the sensor 20 only; there is another one, 99.
    """

    def setUp(self) -> None:
        """
        Make both sensors known.
        """
        super().setUp()
        limit_to_20(self.gateway, self.tokens)

    def check_limited(self) -> None:
        """
        Check that nothing is shown of the other sensor, and that it is denied when it is named.
        """
        for line in ("sensors", "last", "alarms", "status", "held"):
            received = self.send(line)
            self.assertTrue(any("ID:20" in each or "SENSORS:20_" in each for each in received), received)
            self.assertNotIn("99", "".join(received))
        self.assertEqual([line for line in self.send("status") if line.startswith("DEV:leonardo_UNSURE")], [])
        for line in OUTSIDE:
            answer = self.send(line)[-1]
            self.assertTrue(answer.startswith("ERROR:denied_"), (line, answer))
        self.assertEqual((self.gateway.asked, self.gateway.acknowledged, self.gateway.history_calls), ([], [], []))
        self.assertNotIn("MSG:S", "".join(self.send("ask 99")))  # its default command
        self.send("requests", "alarms limit=7")
        self.assertEqual(
            (self.gateway.request_calls, self.gateway.alarm_calls), ([("20", 100)], [("20", None, None, 7)])
        )
        self.assertEqual(self.send("acknowledge a20")[-1], "OK:acknowledge")
        self.send("MSG:ON_ID:20")
        self.assertEqual(len(self.gateway.asked), 1)
        self.assertEqual(self.send("watch"), ["OK:watch"])
        changes = [AlarmEvent(alarm, "raised", AT) for alarm in ALARMS]
        self.gateway.publish(report_event("99"), report_event("20"), *changes, DeviceEvent("leonardo", "offline", AT))
        self.clock.advance(1)
        events = [parse(line.encode()) for line in self.send()]
        self.assertEqual(
            [(each["EVENT"], each.get("ID")) for each in events], [("reading", "20"), ("alarm", "20"), ("device", None)]
        )

    def test_token(self) -> None:
        """
        The token of a connection.
        """
        self.connect(Role.ADMIN)
        self.assertEqual(self.send("auth secret-kids"), ["NAME:kids_ROLE:command_SENSORS:20", "OK:auth"])
        self.check_limited()

    def test_address(self) -> None:
        """
        The address of a client, by a `[[client]]` table.
        """
        self.rules = [Rule(Role.COMMAND, [ip_network("10.0.0.0/8")], sensors=frozenset(["20"]))]
        self.connect(Role.ADMIN)
        self.check_limited()

    def test_request_line(self) -> None:
        """
        The token of a request line limits that line only.
        """
        self.connect(Role.ADMIN)
        self.assertTrue(self.send("MSG:J_ID:99_AUTH:secret-kids")[-1].startswith("ERROR:denied_MSG:J_ID:99_"))
        self.send("MSG:J_ID:99")
        self.assertEqual(len(self.gateway.asked), 1)

    def test_ended(self) -> None:
        """
        `auth` ends what the connection had begun by other rights: its subscription, and its leases.
        """
        self.connect(Role.ADMIN)
        self.send("watch", "lend leonardo")
        ended: list[int] = []
        self.gateway.lendings[0][2].callback(Lease("leonardo", "/dev/ttyACM0", lambda: ended.append(1)))
        self.send("auth secret-kids")
        self.assertEqual((ended, self.gateway.subscribers), ([1], []))


class TokenTests(AccessCase):
    """
    Tokens.
    """

    def test_word(self) -> None:
        """
        `auth` replies with name and role, and the name is recorded with each request from then on; another token
        replaces it, and a wrong one changes nothing.
        """
        self.connect(Role.NONE)
        self.assertEqual(self.send("auth secret-command"), ["NAME:command_ROLE:command", "OK:auth"])
        self.send(COMMANDING)
        self.assertEqual(self.gateway.requested[-1].client, "command@10.0.0.7:4711")
        self.assertEqual(self.send("AUTH wrong"), ["ERROR:denied_TEXT:there is no such token, or it has expired"])
        self.clock.advance(LONGEST_DELAY)
        self.send("ask 9 ON")
        self.assertEqual(len(self.gateway.requested), 2)
        self.assertEqual(self.send("auth secret-read"), [])  # `ask` is not answered yet
        self.gateway.answer(1)
        self.assertEqual(self.send(COMMANDING)[-1][:13], "ERROR:denied_")
        for wrong in ("auth", "auth a b"):
            self.assertEqual(self.send(wrong), ["ERROR:malformed_TEXT:wrong arguments: usage: auth TOKEN"])

    def test_request_line(self) -> None:
        """
        A request line may have a token of its own: it counts for this line only, and goes neither into the echo nor to
        the device.
        """
        self.connect(Role.NONE)
        echo, *more = self.send(f"AUTH:secret-command_{COMMANDING}_TAG:7")
        self.assertEqual((echo, more), (f"{COMMANDING}_TAG:7", []))
        (request,) = self.gateway.requested
        self.assertEqual(request.line, f"{COMMANDING}_ORIGIN:10.0.0.7".encode())
        self.assertEqual(request.client, "command@10.0.0.7:4711")
        self.assertEqual(parse(self.send(COMMANDING)[1].encode())["ERROR"], "denied")
        self.connect(Role.ADMIN)
        self.assertEqual(parse(self.send(f"{COMMANDING}_auth:secret-read")[1].encode())["ERROR"], "denied")

    def test_wrong_in_request_line(self) -> None:
        """
        A wrong token in a request line is an error behind the echo, and the client has to wait for all that follows.
        """
        self.connect(Role.ADMIN)
        received = self.send(f"{COMMANDING}_AUTH:wrong", "ping")
        self.assertEqual(received[0], COMMANDING)
        self.assertEqual(received[1:], ["ERROR:denied_MSG:ON_ID:9_TEXT:there is no such token, or it has expired"])
        self.assertEqual(self.gateway.requested, [])
        self.clock.advance(LONGEST_DELAY)
        self.assertEqual(self.send(), ["OK:ping"])

    def test_nowhere(self) -> None:
        """
        A token stands in no reply, and in no line that is kept as malformed.
        """
        self.connect(Role.ADMIN)
        secret = digest("any")
        lines = [
            f"AUTH:{secret}",
            f"AUTH:{secret}_MSG:J",
            f"MSG:J_ID:20_AUTH:{secret}_NOTE:12_30:45",
            f"MSG:J_ID:20_AUTH:{secret}_X:" + 1100 * "x",
            f"auth {secret} {secret}",
            f"auth {secret} " + 1100 * "x",
            f"ask 20 J AUTH={secret}",
        ]
        for line in lines:
            self.assertNotIn(secret, "\n".join(self.send(line)))
            self.clock.advance(LONGEST_DELAY)
        self.client.dataReceived(b"auth " + secret.encode() + b"\xff\n")
        self.assertGreaterEqual(len(self.gateway.refusals), 5)
        for _, kept, _ in self.gateway.refusals:
            self.assertNotIn(secret.encode()[:40], kept)

    def test_hang_up(self) -> None:
        """
        Of many wrong tokens that wait for their turn when a client hangs up, one is tried.
        """
        self.connect(Role.NONE)
        guesses = [f"{COMMANDING}_AUTH:wrong-{n}" for n in range(5)]
        self.client.dataReceived("".join(line + "\n" for line in [READING] * LINES_AT_ONCE + guesses).encode())
        self.assertEqual(self.client.factory.authority.failures.delay("10.0.0.7"), 0.0)
        self.transport.abortConnection()
        self.clock.advance(0)
        self.assertEqual(self.client.factory.authority.failures.delay("10.0.0.7"), FIRST_DELAY)

    def test_original_client(self) -> None:
        """
        The original client may send a token, too.
        """
        self.connect(Role.NONE)
        self.client.dataReceived(f"{COMMANDING}_ORIGIN:TOTO_AUTH:secret-command".encode())
        self.clock.advance(0.25)
        self.assertEqual(self.transport.value(), f"{COMMANDING}_ORIGIN:TOTO".encode())
        self.assertEqual(len(self.gateway.requested), 1)

    def test_limits(self) -> None:
        """
        All with one token share a limit of requests, and of connections; the local token has none.
        """
        self.connect(Role.ADMIN, "127.0.0.1")
        self.client.factory.rates = Rates(self.clock, 1.0)
        self.send("auth secret-command")
        token = f"{COMMANDING}_AUTH:secret-command"
        self.send(*[COMMANDING] * 5, "auth secret-admin")
        received = self.send(*[token] * 6)
        self.assertEqual(len([line for line in received if line.startswith("ERROR:limit_")]), 2)
        self.assertEqual(len(self.gateway.asked), 9)
        self.most_of_token = 2
        self.connect(Role.READ)
        first = self.client
        for number in range(3):
            client = first.factory.buildProtocol(IPv4Address("TCP", "10.0.0.7", 4712 + number))
            self.client, self.transport = client, PeerTransport(self.clock)
            client.makeConnection(self.transport)
            limited = ["ERROR:limit_TEXT:more than 2 connections with this token"]
            self.assertEqual(self.send("auth secret-command")[-1:], limited if number == 2 else ["OK:auth"])
            self.addCleanup(self.client.connectionLost)
        self.assertTrue(self.send("MSG:ON_ID:9")[-1].startswith("ERROR:denied_"))  # the role is as before

    def test_removed(self) -> None:
        """
        A connection whose token is removed gets an error, and is closed.
        """
        self.connect(Role.ADMIN)
        self.send("auth secret-command", "watch")
        self.tokens.remove("command")
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(self.send(), ["ERROR:denied_TEXT:the token was removed, or has expired"])
        self.assertFalse(self.transport.connected)

    def test_reloaded(self) -> None:
        """
        A connection without a token gets an error, and is closed, if a reload changes what it may do.
        """
        self.rules = [Rule(Role.READ, [ip_network("10.0.0.0/8")])]
        self.connect(Role.NONE)
        self.send("watch")
        keeper = self.client.factory.authority
        keeper.change_rules([*self.rules])
        self.assertEqual(self.send("ping"), ["OK:ping"])
        keeper.change_rules([Rule(Role.COMMAND, [ip_network("10.0.0.0/8")])])
        self.assertEqual(self.send(), [f"ERROR:denied_TEXT:{CHANGED}"])
        self.assertEqual((self.transport.connected, self.gateway.subscribers), (False, []))

    def test_wrong_recorded(self) -> None:
        """
        A wrong token is recorded with who sent it, also if the client may do nothing, and only then by itself.
        """
        for role, line in ((Role.NONE, f"{COMMANDING}_AUTH:wrong"), (Role.READ, "auth wrong")):
            self.connect(role)
            self.send(line)
            self.assertEqual(self.gateway.actions, [Action("auth", "10.0.0.7:4711", "10.0.0.7", {}, None, "denied")])
            self.gateway.actions.clear()

    def test_recorded(self) -> None:
        """
        What is denied is counted, and recorded if the client may do anything.
        """
        self.connect(Role.NONE)
        self.send(COMMANDING, "ask 9 ON")
        self.assertEqual(self.gateway.refused, [])
        self.send("auth secret-ask", COMMANDING, "ask 9 OFF")
        self.assertEqual(self.gateway.actions, [])
        recorded = [(request.client, request.question.command, code) for request, code in self.gateway.refused]
        self.assertEqual(recorded, [("ask@10.0.0.7:4711", "ON", "denied"), ("ask@10.0.0.7:4711", "OFF", "denied")])
        self.assertIn("_DENIED:4", self.send("status")[-2])
        self.send("lend leonardo", "Noise", "auth wrong")
        actions = [(action.command, action.client, action.outcome, action.details) for action in self.gateway.actions]
        client = "ask@10.0.0.7:4711"
        self.assertEqual(actions, [(command, client, "denied", {}) for command in ("lend", "malformed", "auth")])

    def test_actions(self) -> None:
        """
        What somebody does besides asking is recorded, with who it is; and which sensor was denied.
        """
        self.gateway.raised = ALARMS
        self.tokens.add(Token(name="kids", role="command", sha256=digest("secret-kids"), created=AT, sensors=("20",)))
        self.connect(Role.ADMIN)
        self.send("acknowledge a20 Zoé", "acknowledge a7", "lend leonardo")
        self.gateway.lendings[0][2].callback(Lease("leonardo", "/dev/ttyACM0", lambda: None))
        self.send("auth secret-kids", "acknowledge a20 Zoé", "last 99")
        here, kids = "10.0.0.7:4711", "kids@10.0.0.7:4711"
        acknowledged = {"ALARM": "a20", "ID": "20", "BY": "Zoé"}
        self.assertEqual(
            self.gateway.actions,
            [
                Action("acknowledge", here, "10.0.0.7", acknowledged, "leonardo"),
                Action("lend", here, "10.0.0.7", {}, "leonardo"),
                Action("acknowledge", kids, "10.0.0.7", {**acknowledged, "BY": "Zoé (kids)"}, "leonardo"),
                Action("last", kids, "10.0.0.7", {"ID": "99"}, None, "denied"),
            ],
        )
