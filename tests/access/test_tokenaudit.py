"""
The record of who has changed the tokens.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from usbgate.access.tokenaudit import LOOK_INTERVAL, TokenAudit
from usbgate.access.tokens import CHANGES_FILE, Token, TokenFile, digest
from usbgate.core.model import Action
from usbgate.testing import AT


class TokenAuditTests(SynchronousTestCase):
    """
    `TokenAudit`, and `TokenFile.take_changes`.
    """

    def setUp(self) -> None:
        """
        Make a state folder.
        """
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.tokens = TokenFile(self.folder)
        self.clock = Clock()
        self.actions: list[Action] = []
        self.audit = TokenAudit(self.clock, TokenFile(self.folder), self.actions.append)
        self.addCleanup(self.audit.stopService)

    def add(self, name: str, **more: object) -> None:
        """
        Add a token.
        """
        self.tokens.add(Token(**{"name": name, "role": "read", "sha256": digest("secret"), "created": AT, **more}))  # type: ignore[arg-type]

    def changed(self) -> list[tuple[str, dict[str, str]]]:
        """
        Return the changes that were recorded since the last call, without their times.
        """
        actions, self.actions[:] = [*self.actions], []
        for action in actions:
            self.assertEqual(action.client, f"uid{os.getuid()}@local")
            self.assertRegex(action.details["AT"], r"^\d{4}-.*Z$")
        return [(each.command, {k: v for k, v in each.details.items() if k != "AT"}) for each in actions]

    def test_recorded(self) -> None:
        """
        Each change is recorded once, with the user who made it and what the token permits, also one that was made
        before the start; the secret and its hash are not.
        """
        self.add("kids", sensors=("20", "21"), expires=AT)
        self.assertEqual(stat.S_IMODE((self.folder / CHANGES_FILE).stat().st_mode), 0o600)
        self.audit.startService()
        details = {"NAME": "kids", "ROLE": "read", "SENSORS": "20,21", "EXPIRES": "2013-03-11T21:02:10.123Z"}
        self.assertEqual(self.changed(), [("token add", details)])
        self.add("phone")
        self.tokens.remove("kids")
        self.clock.advance(LOOK_INTERVAL)
        changes = [("token add", {"NAME": "phone", "ROLE": "read"}), ("token remove", {"NAME": "kids"})]
        self.assertEqual(self.changed(), changes)
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(self.changed(), [])
        self.tokens.remove("phone")
        self.audit.stopService()
        self.assertEqual(self.changed(), [("token remove", {"NAME": "phone"})])

    def test_refused(self) -> None:
        """
        A change that was refused is none.
        """
        self.assertRaises(KeyError, self.tokens.remove, "nobody")
        self.audit.startService()
        self.assertEqual(self.changed(), [])

    def test_while_changing(self) -> None:
        """
        While a command changes the tokens, the daemon does not wait for it.
        """
        self.add("phone")
        with open(self.folder / "tokens.json.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.audit.startService()
            self.assertEqual(self.changed(), [])
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(len(self.changed()), 1)

    def test_unreadable(self) -> None:
        """
        Changes that can't be read are dropped, which is logged once; later ones are recorded.
        """
        (self.folder / CHANGES_FILE).write_bytes(b"nonsense\n")
        with capturedLogs() as logs:
            self.audit.startService()
        self.assertEqual((len(logs), self.changed()), (1, []))
        self.add("phone")
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(len(self.changed()), 1)
