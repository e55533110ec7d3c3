"""
Who clients are: tokens, failures, and the end of a token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.access import authority
from usbgate.access.authority import CHANGED, CHECK_INTERVAL, ENDED_AT_ONCE, REMOVED
from usbgate.access.doors import Door, Rule
from usbgate.access.failures import ADDRESSES_LIMIT, FIRST_DELAY, FORGET_AFTER, LONGEST_DELAY
from usbgate.access.roles import Access, Role
from usbgate.access.tokens import TOKENS_FILE, Token, TokenFile, digest
from usbgate.core.errors import Denied, Unauthenticated
from usbgate.testing import AT, request


class AuthorityCase(SynchronousTestCase):
    """
    A state folder with a token.
    """

    def setUp(self) -> None:
        """
        Make both.
        """
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = TokenFile(self.folder)
        self.file.add(Token(name="phone", role="command", sha256=digest("good"), created=AT, expires=AT + 100))
        self.clock = Clock()
        self.authority = authority(self.clock, self.folder)

    def fail(self, host: str = "10.0.0.1") -> float:  # type: ignore[override]
        """
        Send a wrong token; return for how long the client waits.
        """
        self.assertEqual(self.authority.authenticate("wrong", host).role, Role.NONE)
        return self.authority.failures.delay(host)


class AuthenticationTests(AuthorityCase):
    """
    `authenticate`.
    """

    def test_token(self) -> None:
        """
        A token gives its role, and its name is recorded; a wrong one gives no role, and the reason.
        """
        access = self.authority.authenticate("good", "10.0.0.1")
        self.assertEqual((access.role, access.sign("10.0.0.1:4")), (Role.COMMAND, "phone@10.0.0.1:4"))
        access.check(Role.COMMAND)
        self.assertEqual(self.assertRaises(Denied, access.check, Role.ADMIN).role, "admin")
        refused = self.authority.authenticate("bad", "10.0.0.1")
        self.assertEqual(self.assertRaises(Unauthenticated, refused.check, Role.NONE).role, "none")
        self.assertEqual(refused.sign("10.0.0.1:4"), "10.0.0.1:4")
        self.assertEqual(self.authority.denied, 1)

    def test_slower(self) -> None:
        """
        Each wrong token makes its address wait twice as long, up to a limit; a valid one waits for nothing and ends
        that, as time does.
        """
        self.assertEqual(self.authority.failures.delay("10.0.0.1"), 0)
        waits = [self.fail() for _ in range(30)]
        self.assertEqual(waits[:4], [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY, 8 * FIRST_DELAY])
        self.assertEqual(waits[-1], LONGEST_DELAY)
        self.assertEqual(self.fail("10.0.0.2"), FIRST_DELAY)
        self.assertEqual(self.authority.authenticate("good", "10.0.0.1").role, Role.COMMAND)
        self.assertEqual(self.fail(), FIRST_DELAY)
        self.fail()
        self.clock.advance(FORGET_AFTER)
        self.assertEqual(self.fail(), FIRST_DELAY)

    def test_many_addresses(self) -> None:
        """
        So many addresses are remembered, the last ones.
        """
        for number in range(ADDRESSES_LIMIT + 1):
            self.fail(str(number))
        self.assertEqual(self.authority.failures.delay("0"), 0)
        self.assertGreater(self.authority.failures.delay("1"), 0)

    def test_questions(self) -> None:
        """
        The role `ask` is enough for a question that only reads; what is denied is counted.
        """
        asker = Access(Role.ASK)
        reading, switching = request("20", "J"), request("20", "ON")
        self.authority.check_request(asker, reading)
        self.authority.check_request(Access(Role.COMMAND), switching)
        self.assertRaises(Denied, self.authority.check_request, asker, switching)
        self.assertRaises(Denied, self.authority.check_request, Access(Role.READ), reading)
        self.assertEqual(self.authority.denied, 2)

    def test_acknowledged_by(self) -> None:
        """
        Who has a token acknowledges an alarm in its name, unless it may do everything.
        """
        access = self.authority.authenticate("good", "10.0.0.1")
        self.assertEqual(access.acknowledge_as("Zoé"), "Zoé (phone)")
        self.assertEqual(Access(Role.COMMAND).acknowledge_as("Zoé"), "Zoé")
        self.assertEqual(Access(Role.ADMIN, "root", access.token).acknowledge_as("Zoé"), "Zoé")


class FollowTests(AuthorityCase):
    """
    `follow`.
    """

    def setUp(self) -> None:
        """
        Follow two clients with the token, one of which goes.
        """
        super().setUp()
        self.ended: list[tuple[str, str]] = []
        access = self.authority.authenticate("good", "10.0.0.1")
        self.unfollow = self.follow(access, "10.0.0.1")
        self.follow(access, "10.0.0.2")()
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(self.ended, [])

    def follow(self, access: Access, host: str) -> Callable[[], None]:
        """
        Follow a client from elsewhere.
        """
        admit = partial(self.authority.admit, Door(), False, None, host)
        return self.authority.follow(access, admit, lambda reason: self.ended.append((host, reason)))

    def test_rules(self) -> None:
        """
        A client without a token ends when the rules change what it may do, and only then; one with a token, the local
        one included, does not.
        """
        read, command = (Rule(role, [ip_network("10.0.0.8/29")]) for role in (Role.READ, Role.COMMAND))
        for host in ("10.0.0.7", "10.0.0.8", "10.0.0.9"):
            gone = self.follow(Access(Role.NONE), host)
        gone()
        self.authority.local = digest("local")
        self.follow(self.authority.authenticate("local", "10.0.0.10"), "10.0.0.10")
        self.authority.change_rules([read])
        self.assertEqual(self.ended, [("10.0.0.8", CHANGED)])
        self.follow(Access(Role.READ), "10.0.0.8")
        self.authority.change_rules([read])
        self.assertEqual(len(self.ended), 1)
        self.authority.change_rules([command, read])
        self.authority.change_rules([])
        self.assertEqual(self.ended, 2 * [("10.0.0.8", CHANGED)])

    def test_many(self) -> None:
        """
        Of many clients, some end in each reactor turn; one that goes meanwhile does not, and then nothing is left.
        """
        for first, leave in [(0, False), (1000, True)]:
            hosts = [f"fd00::{number}" for number in range(first, first + 2 * ENDED_AT_ONCE + 1)]
            gone = [self.follow(Access(Role.NONE), host) for host in hosts]
            self.authority.change_rules([Rule(Role.READ, [ip_network("fd00::/8")])])
            self.assertEqual([host for host, _ in self.ended], hosts[:ENDED_AT_ONCE])
            for each in gone if leave else gone[-1:]:
                each()
            self.clock.pump([0, 0])
            left = hosts[:ENDED_AT_ONCE] if leave else hosts[:-1]
            self.assertEqual(self.ended, [(host, CHANGED) for host in left])
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)  # of the token
            self.authority.change_rules([])
            self.ended.clear()

    def test_removed(self) -> None:
        """
        A client whose token is removed ends within a second, once; then nothing is checked any more.
        """
        self.file.remove("phone")
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual((self.ended, self.clock.getDelayedCalls()), ([("10.0.0.1", REMOVED)], []))
        self.unfollow()

    def test_replaced(self) -> None:
        """
        Another token of the same name is another token.
        """
        self.file.remove("phone")
        self.file.add(Token(name="phone", role="command", sha256=digest("new"), created=AT))
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(self.ended, [("10.0.0.1", REMOVED)])

    def test_unreadable(self) -> None:
        """
        If the file can't be read, no token is valid.
        """
        (self.folder / TOKENS_FILE).write_bytes(b"nonsense")
        self.clock.advance(CHECK_INTERVAL)
        self.assertEqual(self.ended, [("10.0.0.1", REMOVED)])

    def test_nobody(self) -> None:
        """
        Nothing is checked when all clients are gone.
        """
        self.unfollow()
        self.assertEqual(self.clock.getDelayedCalls(), [])
