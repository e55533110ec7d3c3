"""
Sessions with the database: what is said of them, and their passwords.
"""

from __future__ import annotations

from pathlib import Path

from psycopg2.extensions import parse_dsn
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from usbgate.store.interfaces import SinkUnavailable
from usbgate.store.postgres.session import DatabaseSession, scrub, with_password
from usbgate.store.postgres.shared_session import SharedSession


class SecretTests(SynchronousTestCase):
    """
    Passwords.
    """

    def test_scrub(self) -> None:
        """
        Whatever libpq says, the password is not in it; of a malformed connection string, nothing that it quotes.
        """
        url = "postgresql://me:ses%20ame@db/x?sslpassword=sim"
        self.assertEqual(scrub('no "ses ame" for sim', url), 'no "…" for …')
        malformed = 'invalid token: "sesame%zz" in "me:sesame%zz'
        self.assertEqual(scrub(malformed, "postgresql://me:sesame%zz@db/x"), "invalid token: …")
        self.assertEqual(scrub('invalid option "colour"', "colour=blue"), 'invalid option "colour"')

    def test_password_file(self) -> None:
        """
        A password is read from a file, whatever characters it has; a file that cannot be read is one clear line.
        """
        file = Path(self.mktemp())
        file.write_text("ses'a me\n")
        for url in ("postgresql://me@db/home", "host=db user=me dbname=home"):
            options = parse_dsn(with_password(url, file))
            self.assertEqual(options, {"host": "db", "user": "me", "dbname": "home", "password": "ses'a me"})
        self.assertEqual(with_password("host=db", None), "host=db")
        missing = Path(self.mktemp())
        error = self.assertRaises(SinkUnavailable, with_password, "host=db", missing)
        self.assertIn(str(missing), str(error))


class SharedTests(SynchronousTestCase):
    """
    `SharedSession`.
    """

    def test_many_fail(self) -> None:
        """
        However many calls wait, each of them fails, and the next one is made, if the database cannot be reached.
        """
        clock, opening = Clock(), Deferred[None]()

        async def open_session(session: DatabaseSession) -> None:
            await opening
            raise SinkUnavailable("away")

        async def work(session: DatabaseSession) -> None:
            """
            Do nothing.
            """

        shared = SharedSession(clock, open_session, turn_limit=10.0)
        calls = [shared.call(work) for _ in range(2000)]
        opening.callback(None)
        clock.advance(0)
        for call in calls:
            self.failureResultOf(call, SinkUnavailable)
        self.failureResultOf(shared.call(work), SinkUnavailable)
        self.assertEqual(clock.getDelayedCalls(), [])
