"""
The file of tokens, and the local token.
"""

from __future__ import annotations

import stat
from pathlib import Path

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.access import authority
from usbgate.access.localtoken import LOCAL_FILE, RETRY_INTERVAL, LocalToken, find_local_token
from usbgate.access.roles import Role
from usbgate.access.tokens import (
    NAME,
    SIZE_LIMIT,
    TOKENS_FILE,
    TOKENS_LIMIT,
    Token,
    TokenFile,
    TokensUnreadable,
    digest,
    new_secret,
    redact,
)
from usbgate.testing import AT


def token(name: str, secret: str = "s", **more: object) -> Token:
    """
    Return a token with the role `command`.
    """
    return Token(**{"name": name, "role": "command", "sha256": digest(secret), "created": AT, **more})  # type: ignore[arg-type]


class TokenFileTests(SynchronousTestCase):
    """
    `TokenFile`.
    """

    def setUp(self) -> None:
        """
        Make a state folder.
        """
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = TokenFile(self.folder)

    def test_found(self) -> None:
        """
        A token is found by its secret, from when it is added until it is removed, by whoever has the file open.
        """
        self.assertIsNone(self.file.find("s", AT))
        TokenFile(self.folder).add(token("phone"))
        found = self.file.find("s", AT)
        assert found is not None
        self.assertEqual((found.name, found.level), ("phone", Role.COMMAND))
        self.assertIsNone(self.file.find("S", AT))
        TokenFile(self.folder).remove("phone")
        self.assertIsNone(self.file.find("s", AT))

    def test_expiry(self) -> None:
        """
        A token is valid before its end.
        """
        self.file.add(token("phone", expires=AT + 1))
        self.assertIsNotNone(self.file.find("s", AT))
        self.assertIsNone(self.file.find("s", AT + 1))

    def test_names(self) -> None:
        """
        A name has one token, and there are so many at most; an unknown one can't be removed.
        """
        self.file.add(token("phone"))
        self.assertRaises(ValueError, self.file.add, token("phone", "other"))
        self.assertRaises(KeyError, self.file.remove, "tablet")
        for number in range(TOKENS_LIMIT - 1):
            self.file.add(token(str(number)))
        self.assertRaises(ValueError, self.file.add, token("one-more"))
        self.assertLess((self.folder / TOKENS_FILE).stat().st_size, SIZE_LIMIT)

    def test_file(self) -> None:
        """
        Only the owner can read the file, and it does not contain the secret.
        """
        secret = new_secret()
        self.file.add(token("phone", secret))
        file = self.folder / TOKENS_FILE
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertNotIn(secret, file.read_text())

    def test_unreadable(self) -> None:
        """
        No token is valid while the file can't be read, and nothing is written over it.
        """
        self.file.add(token("phone"))
        file = self.folder / TOKENS_FILE
        good = file.read_bytes()
        for bad in (b"", b"{}", b"\xff", good.replace(b"command", b"king"), good + b" " * SIZE_LIMIT):
            file.write_bytes(bad)
            self.assertRaises(TokensUnreadable, self.file.find, "s", AT)
            self.assertRaises(TokensUnreadable, self.file.add, token("tablet"))
            self.assertEqual(file.read_bytes(), bad)
        file.write_bytes(good)
        self.assertIsNotNone(self.file.find("s", AT))

    def test_reserved_names(self) -> None:
        """
        No token has the name of something else that is recorded, nor one that could not be.
        """
        for name in ("local", "mqtt", "uid0", "", "a b", "a@b", "a_b", "x" * 33, "é"):
            self.assertIsNone(NAME.fullmatch(name), name)
        for name in ("phone", "locals", "mqtts", "uid", "wall-tablet.2"):
            self.assertIsNotNone(NAME.fullmatch(name), name)


class RedactTests(SynchronousTestCase):
    """
    `redact`.
    """

    def test_redact(self) -> None:
        """
        A token that somebody sends is taken out of the line, however it is spelled and cut off; other text stays.
        """
        secret = new_secret().encode()
        for line in (
            b"auth " + secret,
            b"AUTH\t" + secret[:20],
            b"MSG:J_AUTH:" + secret + b"_ID:20",
            b"MSG:J_auth: " + secret[:5],
            b"AUTH:" + secret,
            b"\xff auth " + secret,
            b"HELLO " + secret,
            b"auth=" + secret,
        ):
            redacted = redact(line)
            self.assertNotIn(secret[:5], redacted, line)
            self.assertIn("…".encode(), redacted)
        self.assertEqual(redact(b"MSG:J_AUTH:abc_ID:20"), "MSG:J_AUTH:…_ID:20".encode())
        for line in (b"MSG:J_ID:20", b"ID:20_AUTHOR:x", b"authority x", b"\xff\xfe"):
            self.assertEqual(redact(line), line)


class FakePort:
    """
    A port with an address.
    """

    def __init__(self, address: object) -> None:
        self.address = address

    def getHost(self) -> object:
        """
        Return the address.
        """
        return self.address


class LocalTokenTests(SynchronousTestCase):
    """
    `LocalToken`.
    """

    def test_life(self) -> None:
        """
        While the daemon runs, whoever can read the state folder finds a token with which he may do everything; it is
        for the addresses of this daemon only, and another one at each start.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        keeper = authority(Clock())
        ports = [
            FakePort(IPv4Address("TCP", "127.0.0.1", 50007)),
            FakePort(IPv6Address("TCP", "::", 50008)),
            FakePort(UNIXAddress("/run/usbgate.sock")),
        ]
        service = LocalToken(Clock(), folder, keeper, lambda: ports)  # type: ignore[arg-type,return-value]
        before: set[str] = set()
        for _ in range(2):
            service.startService()
            secret = find_local_token(folder, "127.0.0.1", 50007)
            assert secret is not None
            self.assertNotIn(secret, before)
            before.add(secret)
            self.assertEqual(find_local_token(folder, "127.0.0.1", 50008), secret)
            for host, port in (("127.0.0.2", 50007), ("127.0.0.1", 50009), ("::1", 50007)):
                self.assertIsNone(find_local_token(folder, host, port))
            self.assertEqual(stat.S_IMODE((folder / LOCAL_FILE).stat().st_mode), 0o600)
            self.assertEqual(keeper.authenticate(secret, "127.0.0.1").role, Role.ADMIN)
            service.stopService()
            self.assertIsNone(find_local_token(folder, "127.0.0.1", 50007))
            self.assertEqual(keeper.authenticate(secret, "127.0.0.1").role, Role.NONE)

    def test_full_disk(self) -> None:
        """
        Without a file, there is no local token, and the daemon runs; there is one as soon as the file can be written.
        """
        folder, clock = Path(self.mktemp()), Clock()
        keeper = authority(clock)
        ports = [FakePort(IPv4Address("TCP", "127.0.0.1", 50007))]
        service = LocalToken(clock, folder, keeper, lambda: ports)  # type: ignore[arg-type,return-value]
        with capturedLogs() as events:
            service.startService()
            clock.advance(RETRY_INTERVAL)
        self.assertEqual(len(events), 1)
        self.assertIsNone(keeper.local)
        folder.mkdir()
        clock.advance(RETRY_INTERVAL)
        secret = find_local_token(folder, "127.0.0.1", 50007)
        assert secret is not None
        self.assertEqual(keeper.authenticate(secret, "127.0.0.1").role, Role.ADMIN)
        service.stopService()
        folder.rmdir()
        service.startService()
        service.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])
