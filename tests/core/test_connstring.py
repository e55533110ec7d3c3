"""
Connection strings with passwords.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.connstring import check_url, has_password

WITH = [
    "postgresql://me:secret@db/home",
    "postgres://me:sec%ret@[::1/home",
    "postgresql://me:a@b@db/home",
    "postgresql://me:a#b?c@db/home",
    "postgresql://me:a/b@db/home",
    "postgresql://me:1/b@db/home",
    "postgresql://db/home?user=me&password=secret",
    "postgresql://db/home?sslpassword=secret",
    "postgresql://db/home?user=me&p%61ssword=secret",
    "host=db password=secret",
    "host=db PASSWORD = 'secret'",
]
WITHOUT = [
    "postgresql://me@db/home",
    "postgresql://me:@db/home",
    "postgresql://db:5432/home",
    "postgresql://[::1]:5432/home?application_name=a:b@c",
    "postgresql:///home",
    "host=db passfile=/x dbname=home",
    "embedded",
    "",
]


class PasswordTests(SynchronousTestCase):
    """
    `has_password`.
    """

    def test_found(self) -> None:
        """
        A password is found in both forms, and in malformed strings; nothing else is taken for one.
        """
        self.assertEqual([each for each in WITH if not has_password(each)], [])
        self.assertEqual([each for each in WITHOUT if has_password(each)], [])


class CheckTests(SynchronousTestCase):
    """
    `check_url`.
    """

    def test_checked(self) -> None:
        """
        What libpq would quote in an error is an error that quotes nothing.
        """
        for good in (*WITHOUT, "postgresql://me:s%25e%5B@[fe80::1]:5432,[::1]/home", "postgresql://a,b:2/home"):
            check_url(good)
        for bad in (
            *("me:se%cret@db/x", "me:se%00cret@db/x", "me:secret@[::1/x", "me:secret@a]b/x", "me:secret@[::1]:p/x"),
            *("me:se@cret@db/x", "me:se/cret@db/x", "me:1/cret@db/x", "me:secret@a,db:p/x"),
        ):
            error = self.assertRaises(ValueError, check_url, f"postgresql://{bad}")
            self.assertNotIn("cret", str(error))
