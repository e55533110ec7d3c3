"""
Sessions with the database: what is said of them, and their passwords.
"""

from __future__ import annotations

from pathlib import Path

from psycopg2.extensions import parse_dsn
from twisted.trial.unittest import SynchronousTestCase

from usbgate.store.interfaces import SinkUnavailable
from usbgate.store.postgres.session import scrub, with_password


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
