"""
The file of tokens in the state folder: what `usbgate token` writes and the daemon reads.

A token is 256 random bits, so its SHA-256 gives nothing away and needs no salt. The file holds that; the token itself
is printed once, and stored nowhere.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Literal

import msgspec

from usbgate.access.roles import ROLES, Role
from usbgate.core.fieldline import format_time
from usbgate.daemon.files import replace_file

TOKENS_FILE = "tokens.json"
CHANGES_FILE = "token-changes"
CHANGES_LIMIT = 1 << 20  # bytes; more, and no daemon has run for very long
TOKENS_LIMIT = 256  # each authentication compares with all of them: 0.1 ms
SIZE_LIMIT = 4096 * TOKENS_LIMIT  # bytes of the file; a token without sensors takes 200

# Part of `client` of the table `request`, before an `@`: not that of the local token, of a user, or of MQTT.
NAME = re.compile(r"(?!local\Z|mqtt\Z|uid\d+\Z)[A-Za-z0-9.-]{1,32}")

# A token anywhere in a line: what follows `auth`, and what looks like a token.
_SECRET = re.compile(rb"(?i)(\bauth(?:\s+|\s*[:=]\s*)|_auth\s*:\s*)[^_\s]+|\b[0-9a-f]{64}\b")


class TokensUnreadable(Exception):
    """
    The file of tokens can't be read or written; the text says why, in one line.
    """


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """
    A token as it is stored.

    Attributes:
        name: Its name, which is unique.
        role: Its role, see `ROLES`.
        sha256: The hash of the secret, in hexadecimal digits.
        created: When: whole milliseconds since 1970, UTC.
        expires: When it is no longer valid; None for never.
        sensors: The only sensors that it permits to use; None for all.
    """

    name: str
    role: Literal["read", "ask", "command", "admin"]
    sha256: str
    created: int
    expires: int | None = None
    sensors: tuple[str, ...] | None = None

    @property
    def level(self) -> Role:
        """
        Its role.
        """
        return ROLES[self.role]

    def is_valid(self, now: int) -> bool:
        """
        Return whether it has not expired at a time, in whole milliseconds since 1970, UTC.
        """
        return self.expires is None or now < self.expires


class TokenChange(msgspec.Struct, frozen=True, kw_only=True):
    """
    A change of the tokens, until it is recorded.

    Attributes:
        at: When: whole milliseconds since 1970, UTC.
        user: The number of the user who made it.
        command: `token add` or `token remove`.
        details: The token, as fields.
    """

    at: int
    user: int
    command: str
    details: dict[str, str]


def new_secret() -> str:
    """
    Return a new random secret: hexadecimal digits, which need no quoting in any protocol.
    """
    return secrets.token_hex(32)


def digest(secret: str) -> str:
    """
    Return the hash of a secret that somebody has sent.
    """
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def redact(line: bytes) -> bytes:
    """
    Return a line with an ellipsis in place of each token in it.
    """
    return _SECRET.sub(lambda found: (found[1] or b"") + "…".encode(), line)


def _give_to_owner(file: int, folder: Path) -> None:
    # The daemon must be able to use what root has made.
    if os.geteuid() == 0:
        owner = os.stat(folder)
        os.fchown(file, owner.st_uid, owner.st_gid)


class TokenFile:
    """
    The tokens of a state folder.
    """

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: The state folder.
        """
        self._path = folder / TOKENS_FILE
        self._changes = folder / CHANGES_FILE
        self._seen: tuple[int, int, int] | None = None
        self._tokens: Sequence[Token] = ()

    @property
    def tokens(self) -> Sequence[Token]:
        """
        All tokens, the expired ones included, as they are at this moment.

        Raises:
            TokensUnreadable: The file is there but can't be read. The next call tries again.
        """
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            self._seen, self._tokens = None, ()
            return ()
        except OSError as error:
            raise TokensUnreadable(f"{self._path} cannot be read: {error.strerror}") from None
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)  # the inode, since each change makes a new file
        if seen != self._seen:
            self._seen, self._tokens = None, ()
            self._tokens = self._read()
            self._seen = seen
        return self._tokens

    def find(self, secret: str, now: int) -> Token | None:
        """
        Return the valid token with this secret; None if there is none.

        Args:
            secret: What somebody has sent.
            now: This moment: whole milliseconds since 1970, UTC.

        Raises:
            TokensUnreadable: See `tokens`.
        """
        wanted = digest(secret)
        found = None
        for token in self.tokens:
            if compare_digest(token.sha256, wanted):
                found = token
        return found if found is not None and found.is_valid(now) else None

    def add(self, token: Token) -> None:
        """
        Add a token.

        Raises:
            ValueError: There is one of this name, or there are too many, or they have too many sensors.
            TokensUnreadable: The file can't be read or written.
        """
        with self._changing():
            tokens = self.tokens
            if any(each.name == token.name for each in tokens):
                raise ValueError(f"there is a token {token.name} already; remove it first")
            if len(tokens) >= TOKENS_LIMIT:
                raise ValueError(f"there are {TOKENS_LIMIT} tokens already; remove one first")
            self._write([*tokens, token])
            details = {"NAME": token.name, "ROLE": token.role}
            if token.sensors is not None:
                details["SENSORS"] = ",".join(token.sensors)
            if token.expires is not None:
                details["EXPIRES"] = format_time(token.expires)
            self._note("token add", details)

    def remove(self, name: str) -> None:
        """
        Remove the token of a name.

        Raises:
            KeyError: There is none.
            TokensUnreadable: The file can't be read or written.
        """
        with self._changing():
            tokens = self.tokens
            rest = [each for each in tokens if each.name != name]
            if len(rest) == len(tokens):
                raise KeyError(name)
            self._write(rest)
            self._note("token remove", {"NAME": name})

    def take_changes(self) -> Sequence[TokenChange]:
        """
        Return the changes since the last call, by whichever process; none while a change is being made.

        Raises:
            TokensUnreadable: They can't be read, and are dropped.
        """
        if not os.path.exists(self._changes):
            return ()
        try:
            with self._changing(wait=False), open(self._changes, "rb") as file:
                lines = file.read(CHANGES_LIMIT).splitlines()
                os.unlink(self._changes)
        except BlockingIOError:
            return ()
        except OSError as error:
            raise TokensUnreadable(f"{self._changes} cannot be read: {error.strerror}") from None
        try:
            return [msgspec.json.decode(line, type=TokenChange) for line in lines]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TokensUnreadable(f"{self._changes} cannot be read: {error}") from None

    def _note(self, command: str, details: dict[str, str]) -> None:
        # For the daemon that runs, or for the next one: see `TokenAudit`.
        change = TokenChange(at=int(time.time() * 1000), user=os.getuid(), command=command, details=details)
        with suppress(OSError):
            file = os.open(self._changes, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _give_to_owner(file, self._path.parent)
                if os.fstat(file).st_size < CHANGES_LIMIT // 2:
                    os.write(file, msgspec.json.encode(change) + b"\n")
            finally:
                os.close(file)

    def _read(self) -> Sequence[Token]:
        try:
            with open(self._path, "rb") as file:
                data = file.read(SIZE_LIMIT + 1)
            if len(data) > SIZE_LIMIT:
                raise TokensUnreadable(f"{self._path} cannot be read: it has more than {SIZE_LIMIT} bytes")
            return msgspec.json.decode(data, type=tuple[Token, ...])
        except OSError as error:
            raise TokensUnreadable(f"{self._path} cannot be read: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TokensUnreadable(f"{self._path} cannot be read: {error}") from None

    @contextmanager
    def _changing(self, wait: bool = True) -> Iterator[None]:
        # Two commands at a time must not undo each other's change.
        try:
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            _give_to_owner(lock, self._path.parent)
        except OSError as error:
            raise TokensUnreadable(f"{self._path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(lock)

    def _write(self, tokens: Sequence[Token]) -> None:
        data = msgspec.json.format(msgspec.json.encode(tokens)) + b"\n"
        if len(data) > SIZE_LIMIT:
            raise ValueError("the tokens have too many sensors")
        try:
            replace_file(self._path, data)
        except OSError as error:
            raise TokensUnreadable(f"{self._path} cannot be written: {error.strerror}") from None
