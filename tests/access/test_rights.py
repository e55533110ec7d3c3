"""
The table of rights, and what docs/security.md prints of it.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.support.running import ROOT
from usbgate.access.doors import LOCAL, Door
from usbgate.access.rights import RIGHTS, WORD_ROLES
from usbgate.access.roles import Access, Role
from usbgate.server.commands import WORDS
from usbgate.web.api import Api

SECURITY = (ROOT / "docs" / "security.md").read_text()


class RightsTests(SynchronousTestCase):
    """
    `RIGHTS`.
    """

    def test_complete(self) -> None:
        """
        The table has every word and every call, once.
        """
        self.assertEqual(sorted(word for right in RIGHTS for word in right.words), sorted(WORDS))
        self.assertEqual({name: word.role for name, word in WORDS.items()}, WORD_ROLES)
        calls = [f"{call.method} {call.path}" for call in Api.calls.documented]
        self.assertEqual(sorted(call for right in RIGHTS for call in right.calls), sorted(calls))

    def test_page(self) -> None:
        """
        docs/security.md prints the table.
        """
        for right in RIGHTS:
            words = ", ".join(f"`{word}`" for word in right.words)
            role = "none" if right.role is Role.NONE else f"`{right.role.spelled}`"
            calls = ", ".join(f"`{call.replace('/api/v1/', '')}`" for call in right.calls)
            self.assertIn(f"| {role} | {right.does} | {words} | {calls} |\n", SECURITY)


class DoorTests(SynchronousTestCase):
    """
    `Door`: who has which role without a token.
    """

    def test_roles(self) -> None:
        """
        Clients on this machine may command, and all may at an insecure door; behind a proxy, none may do anything. A
        configured role is that of all.
        """
        cases = [
            (Door(), Role.COMMAND, Role.NONE),
            (Door(insecure=True), Role.COMMAND, Role.COMMAND),
            (Door(proxied=True), Role.NONE, Role.NONE),
            (Door(proxied=True, insecure=True), Role.NONE, Role.NONE),
            (Door(Role.READ), Role.READ, Role.READ),
            (Door(Role.READ, proxied=True), Role.READ, Role.READ),
        ]
        for door, here, elsewhere in cases:
            for is_local, role in ((True, here), (False, elsewhere)):
                access = door.admit(is_local, None)
                self.assertEqual((access.role, access.sign("10.0.0.1:5")), (role, "10.0.0.1:5"), door)
            self.assertEqual(door.is_open, door.insecure and elsewhere >= Role.COMMAND)

    def test_users(self) -> None:
        """
        On a Unix socket, the daemon's own user and root may do everything, others have the role of the door; all are
        recorded. But a proxy's user is not the client's.
        """
        for door in (LOCAL, Door(Role.READ)):
            for user in (os.geteuid(), 0):
                access = door.admit(True, user)
                self.assertEqual((access.role, access.sign("local")), (Role.ADMIN, f"uid{user}@local"))
            access = door.admit(True, 4711)
            self.assertEqual((access.role, access.sign("local")), (door.admit(True, None).role, "uid4711@local"))
        self.assertEqual(Door(proxied=True).admit(True, 0), Access(Role.NONE))
