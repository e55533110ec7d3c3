"""
Decides who a client is: by the tokens of the state folder and the rules of the configuration, also if these change
while it is connected.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hmac import compare_digest
from itertools import islice

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from usbgate.access.doors import ClientRules, Door, Rule
from usbgate.access.failures import Failures
from usbgate.access.limited import LimitedQueries
from usbgate.access.roles import Access, Role
from usbgate.access.sessions import Sessions
from usbgate.access.tokens import Token, TokenFile, TokensUnreadable, digest
from usbgate.core.errors import Denied, LimitExceeded, NotHeld, RequestError
from usbgate.core.model import Alarm, Question, Request
from usbgate.gateway.interfaces import HeldRequest, IQueries

CHECK_INTERVAL = 1.0  # seconds until a removed token ends the connections that have it
ENDED_AT_ONCE = 100  # connections ended in one reactor turn: 6 ms

# Why a client is not what it was.
REMOVED = "the token was removed, or has expired"
CHANGED = "the configuration was reloaded, and has changed what this client may do: connect again"

Ended = Callable[[str], None]

_LOCAL = Access(Role.ADMIN, "local")


def _of_token(token: Token) -> Access:
    sensors = None if token.sensors is None else frozenset(token.sensors)
    return Access(token.level, token.name, token, sensors=sensors)


class Authority:
    """
    Who clients are, for all front ends.

    Attributes:
        local: The hash of the local token, with which a program of the daemon's own user may do everything; None for
            none.
        failures: The wrong tokens.
        denied: How often a client was not permitted to do something, or sent a wrong token, since the start.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        wall: Callable[[], int],
        tokens: TokenFile,
        sessions: Sessions,
        failures: Failures,
        reads: Callable[[Question], bool],
        refused: Callable[[Request, RequestError], None],
        rules: Sequence[Rule] = (),
        most_of_token: int | None = None,
    ) -> None:
        """
        Args:
            reactor: For time.
            wall: The wall clock (`IClock.wall`).
            tokens: The tokens.
            sessions: The sessions of browsers.
            failures: See the attribute.
            reads: Returns whether a question only reads, so that the role `ask` is enough.
            refused: Called with a request that its client may not make, to be recorded.
            rules: What some clients may do without a token.
            most_of_token: The most clients with one token that are connected; None for no limit.
        """
        self.local: str | None = None
        self.denied = 0
        self._rules = ClientRules(rules)
        self._reactor = reactor
        self._wall = wall
        self._tokens = tokens
        self._sessions = sessions
        self._reads = reads
        self._refused = refused
        self.failures = failures
        self._most_of_token = sys.maxsize if most_of_token is None else most_of_token
        self._followed: dict[object, tuple[Access, Ended]] = {}  # with a token
        self._admitted: dict[object, tuple[Callable[[], Access], Access, Ended]] = {}  # without
        self._ending: dict[object, tuple[Ended, str]] = {}  # those that are to end, with the reason
        self._end_next: IDelayedCall | None = None
        self._check: IDelayedCall | None = None
        self._clients: Counter[Token | None] = Counter()  # that are followed, by token

    def admit(self, door: Door, is_local: bool, user: int | None, host: str) -> Access:
        """
        Return what a client may do that has sent no token (see `Door.admit`).
        """
        return door.admit(is_local, user, host, self._rules)

    def change_rules(self, rules: Sequence[Rule]) -> None:
        """
        Let these rules count from now on. Clients that are connected, and may do something else now, end in the next
        reactor turns.
        """
        self._rules = ClientRules(rules)
        self._end({key: ended for key, (admit, access, ended) in self._admitted.items() if admit() != access}, CHANGED)

    def authenticate(self, secret: str, host: str, client: str | None = None, command: str = "auth") -> Access:
        """
        Return what a client may do that has sent a token; nothing if there is no such token, or if it has expired (see
        `Failures.delay`).

        Args:
            secret: The token.
            host: Its address.
            client: How a failure is recorded, see `Failures.add`; by default its address.
            command: See there.
        """
        if self.local is not None and compare_digest(self.local, digest(secret)):
            return _LOCAL
        token, why = None, "no such token"
        try:
            token = self._tokens.find(secret, self._wall())
        except TokensUnreadable as error:
            why = str(error)
        if token is None:
            self.denied += 1
            self.failures.add(host, client or host, command, why)
            return Access(Role.NONE, refusal="there is no such token, or it has expired")
        self.failures.forget(host)
        return _of_token(token)

    def log_in(self, secret: str, host: str, client: str | None = None) -> tuple[Access, str]:
        """
        Begin the session of a browser.

        Args:
            secret: A token.
            host: The address of the browser.
            client: See `authenticate`.

        Returns:
            What it may do (as `authenticate`), and the secret of the session; empty if the token is wrong.
        """
        access = self.authenticate(secret, host, client, "login")
        if access.refusal is not None:
            return access, ""
        with suppress(TokensUnreadable):
            self._sessions.keep({str(self.local), *(token.sha256 for token in self._tokens.tokens)})
        return access, self._sessions.begin(digest(secret))

    def resume(self, secret: str) -> Access | None:
        """
        Return what a browser may do that sends the secret of a session; None if there is no such session, or if it has
        ended, or its token has.
        """
        session = self._sessions.find(secret)
        if session is None:
            return None
        if session.token == self.local:
            return replace(_LOCAL, session=session)
        for token in self._valid_tokens():
            if token.sha256 == session.token:
                return replace(_of_token(token), session=session)
        return None

    def log_out(self, secret: str) -> None:
        """
        End the session with this secret, if there is one.
        """
        self._sessions.end(secret)

    def check(self, access: Access, role: Role) -> None:
        """
        Check that a client has a role.

        Raises:
            Denied: It does not; that is counted.
        """
        try:
            access.check(role)
        except Denied:
            if access.refusal is None:  # which has been counted
                self.denied += 1
            raise

    def check_sensor(self, access: Access, sensor: str) -> None:
        """
        Check that a client may use a sensor.

        Raises:
            Denied: It may not; that is counted.
        """
        try:
            access.check_sensor(sensor)
        except Denied:
            self.denied += 1
            raise

    def check_alarm(self, access: Access, alarm: str, alarms: Iterable[Alarm]) -> None:
        """
        Check that a client may acknowledge an alarm.

        Args:
            access: What it may do.
            alarm: The id of the alarm.
            alarms: All alarms that are open.

        Raises:
            Denied: It may not; that is counted.
        """
        if access.sensors is not None:
            for each in alarms:
                if each.alarm == alarm:
                    self.check_sensor(access, each.sensor)

    def queries(self, access: Access, queries: IQueries) -> IQueries:
        """
        Return queries that show a client only what it may see (see `LimitedQueries`).
        """
        if access.sensors is None:
            return queries
        return LimitedQueries(queries, access.sensors, partial(self.check_sensor, access))

    def check_request(self, access: Access, request: Request) -> None:
        """
        Check that a client may ask what it asks. If not, that is recorded, unless it may do nothing at all: the
        database must not grow for just anybody.

        Raises:
            Denied: It may not; that is counted.
        """
        if not access.is_restricted:
            return
        try:
            self._check_question(access, request.question)
        except Denied as error:
            if access.role > Role.NONE:
                self._refused(request, error)
                error.is_recorded = True
            raise

    def find_held(self, access: Access, number: str, held: Iterable[HeldRequest]) -> HeldRequest:
        """
        Return the request that a client wants to cancel, which requires what asking it does.

        Args:
            access: What it may do.
            number: The number of the request.
            held: All requests that are held and that it may see.

        Raises:
            NotHeld: None of them has that number.
            Denied: It may not; that is counted.
        """
        for each in held:
            if str(each.number) == number:
                self._check_question(access, each.request.question)
                return each
        raise NotHeld(number)

    def _check_question(self, access: Access, question: Question) -> None:
        if access.role < Role.COMMAND:
            self.check(access, Role.ASK if self._reads(question) else Role.COMMAND)
        self.check_sensor(access, question.sensor)

    def follow(self, access: Access, admit: Callable[[], Access], ended: Ended) -> Callable[[], None]:
        """
        Call `ended` once, with the reason, if the token of a client is removed, or expires, or its session ends; or, if
        it has none of them, if `change_rules` changes what it may do.

        Args:
            access: What it may do.
            admit: Returns what it may do now without a token.
            ended: See above.

        Returns:
            What to call when the client is gone.

        Raises:
            LimitExceeded: There are too many clients with this token already.
        """
        key = object()
        if access.token is None and access.session is None:
            if access == admit():  # otherwise it has the local token, which never ends
                self._admitted[key] = admit, access, ended
        else:
            if access.token is not None and self._clients[access.token] >= self._most_of_token:
                raise LimitExceeded(f"more than {self._most_of_token} connections with this token")
            self._clients[access.token] += 1
            self._followed[key] = access, ended
            if self._check is None:
                self._check = self._reactor.callLater(CHECK_INTERVAL, self._check_followed)
        return lambda: self._unfollow([key])

    def _unfollow(self, keys: Collection[object]) -> None:
        for key in keys:
            self._admitted.pop(key, None)
            self._ending.pop(key, None)
            if (found := self._followed.pop(key, None)) is not None:
                token = found[0].token
                self._clients[token] -= 1
                if not self._clients[token]:
                    del self._clients[token]
        if not self._followed and self._check is not None:
            self._check.cancel()
            self._check = None
        if not self._ending and self._end_next is not None:
            self._end_next.cancel()
            self._end_next = None

    def _end(self, clients: Mapping[object, Ended], reason: str) -> None:
        self._unfollow(clients)
        self._ending.update({key: (ended, reason) for key, ended in clients.items()})
        if self._ending and self._end_next is None:
            self._end_some()

    def _end_some(self) -> None:
        self._end_next = None
        some = [self._ending.pop(key) for key in list(islice(self._ending, ENDED_AT_ONCE))]
        if self._ending:
            self._end_next = self._reactor.callLater(0, self._end_some)
        for ended, reason in some:
            ended(reason)

    def _check_followed(self) -> None:
        self._check = self._reactor.callLater(CHECK_INTERVAL, self._check_followed)
        valid = self._valid_tokens()
        over = {key: ended for key, (access, ended) in self._followed.items() if not self._holds(access, valid)}
        self._end(over, REMOVED)

    def _holds(self, access: Access, valid: Set[Token]) -> bool:
        if access.session is not None and not self._sessions.is_open(access.session):
            return False
        return access.token is None or access.token in valid

    def _valid_tokens(self) -> Set[Token]:
        now = self._wall()
        try:
            return {token for token in self._tokens.tokens if token.is_valid(now)}
        except TokensUnreadable as error:
            self.failures.log_failure("a connection", str(error))
            return set()
