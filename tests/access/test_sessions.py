"""
The sessions of browsers.
"""

from __future__ import annotations

import stat
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.access import authority
from usbgate.access.authority import Authority
from usbgate.access.roles import Role
from usbgate.access.sessions import SESSION_LIFE, SESSIONS_FILE, SESSIONS_PER_TOKEN, Sessions
from usbgate.access.tokens import Token, TokenFile, digest
from usbgate.testing import AT


class SessionsTests(SynchronousTestCase):
    """
    `Sessions`, and those of an `Authority`.
    """

    def setUp(self) -> None:
        """
        Make a state folder with two tokens.
        """
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.tokens = TokenFile(self.folder)
        for name in ("tablet", "phone"):
            self.tokens.add(Token(name=name, role="command", sha256=digest(f"secret-{name}"), created=AT))
        self.authority = self.start()

    def start(self) -> Authority:
        """
        Return the authority of a daemon that has just started.
        """
        return authority(Clock(), self.folder)

    def log_in(self, secret: str) -> str:
        """
        Begin a session; return its secret.
        """
        return self.authority.log_in(secret, "10.0.0.7")[1]

    def test_restart(self) -> None:
        """
        A session outlives a restart, with the rights of its token, until it ends; the file is for the daemon's user
        only, and holds neither the secret nor the token.
        """
        secret = self.log_in("secret-tablet")
        self.authority = self.start()
        access = self.authority.resume(secret)
        assert access is not None
        self.assertEqual((access.role, access.who), (Role.COMMAND, "tablet"))
        file = self.folder / SESSIONS_FILE
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        for text in (secret, "secret-tablet"):
            self.assertNotIn(text, file.read_text())
        self.authority.log_out(secret)
        for each in (self.authority, self.start()):
            self.assertIsNone(each.resume(secret))

    def test_token_removed(self) -> None:
        """
        A session ends with its token, and no other one does; nothing is left of it.
        """
        tablet, phone = self.log_in("secret-tablet"), self.log_in("secret-phone")
        self.tokens.remove("tablet")
        self.assertIsNone(self.authority.resume(tablet))
        self.assertIsNotNone(self.authority.resume(phone))
        self.log_in("secret-phone")
        self.assertNotIn(digest(tablet), (self.folder / SESSIONS_FILE).read_text())

    def test_local(self) -> None:
        """
        A session of the local token ends with the daemon.
        """
        self.authority.local = digest("local")
        secret = self.log_in("local")
        access = self.authority.resume(secret)
        assert access is not None
        self.assertEqual((access.role, access.who), (Role.ADMIN, "local"))
        self.authority.local = digest("another")
        self.assertIsNone(self.authority.resume(secret))

    def test_bound(self) -> None:
        """
        A token has so many sessions at most; the oldest one ends, and none of another token.
        """
        other = self.log_in("secret-phone")
        first, second, *_ = [self.log_in("secret-tablet") for _ in range(SESSIONS_PER_TOKEN + 1)]
        self.assertIsNone(self.authority.resume(first))
        for secret in (second, other):
            self.assertIsNotNone(self.authority.resume(secret))

    def test_wrong(self) -> None:
        """
        A wrong token begins no session, and neither a token nor a hash is the secret of one.
        """
        self.assertEqual(self.log_in("wrong"), "")
        secret = self.log_in("secret-tablet")
        for wrong in ("", "secret-tablet", digest("secret-tablet"), digest(secret)):
            self.assertIsNone(self.authority.resume(wrong))

    def test_life(self) -> None:
        """
        A session ends by itself.
        """
        now = AT
        sessions = Sessions(self.folder, lambda: now)
        secret = sessions.begin("hash")
        now += SESSION_LIFE * 1000 - 1
        self.assertIsNotNone(sessions.find(secret))
        now += 1
        self.assertIsNone(sessions.find(secret))

    def test_unusable_file(self) -> None:
        """
        Without the file, or if it can't be written, browsers log in again after a restart.
        """
        secret = self.log_in("secret-tablet")
        (self.folder / SESSIONS_FILE).write_bytes(b"[{")
        self.assertIsNone(self.start().resume(secret))
        sessions = Sessions(Path("/nonexistent"), lambda: AT)
        self.assertIsNotNone(sessions.find(sessions.begin("hash")))
