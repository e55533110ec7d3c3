"""
The sessions of browsers that have logged in: a cookie has the secret of a session, and not the token.

They outlive a restart, so that a display on a wall stays logged in: the state folder has the hashes of their secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from twisted.logger import Logger

from usbgate.access.tokens import TOKENS_LIMIT, digest, new_secret
from usbgate.daemon.files import replace_file

SESSIONS_FILE = "sessions.json"
SESSION_LIFE = 400 * 86_400  # seconds: browsers keep no cookie longer
SESSIONS_PER_TOKEN = 16  # browsers; with one more, the oldest session of the token ends
SIZE_LIMIT = 256 * SESSIONS_PER_TOKEN * (TOKENS_LIMIT + 1)  # bytes of the file


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """
    A session as it is stored.

    Attributes:
        sha256: The hash of its secret, in hexadecimal digits.
        token: The hash of the token with which it began.
        began: When: whole milliseconds since 1970, UTC.
    """

    sha256: str
    token: str
    began: int


class Sessions:
    """
    The sessions of one daemon.
    """

    log = Logger()

    def __init__(self, folder: Path, wall: Callable[[], int]) -> None:
        """
        Args:
            folder: The state folder; read when a session is wanted for the first time.
            wall: The wall clock (`IClock.wall`).
        """
        self._path = folder / SESSIONS_FILE
        self._wall = wall
        self._loaded: dict[str, Session] | None = None  # by the hash of their secrets, the oldest first

    def begin(self, token: str) -> str:
        """
        Begin a session.

        Args:
            token: The hash of its token.

        Returns:
            The secret of the session.
        """
        sessions = self._sessions
        of_token = [each for each in sessions.values() if each.token == token]
        for each in of_token[: max(0, len(of_token) - SESSIONS_PER_TOKEN + 1)]:
            del sessions[each.sha256]
        secret = new_secret()
        began = Session(sha256=digest(secret), token=token, began=self._wall())
        sessions[began.sha256] = began
        self._write()
        return secret

    def find(self, secret: str) -> Session | None:
        """
        Return the session with this secret; None if there is none, or if it is over.
        """
        found = self._sessions.get(digest(secret))
        return found if found is not None and self.is_open(found) else None

    def is_open(self, session: Session) -> bool:
        """
        Return whether a session has not ended.
        """
        return session.sha256 in self._sessions and self._wall() - session.began < SESSION_LIFE * 1000

    def end(self, secret: str) -> None:
        """
        End the session with this secret, if there is one.
        """
        if self._sessions.pop(digest(secret), None) is not None:
            self._write()

    def keep(self, tokens: set[str]) -> None:
        """
        Forget the sessions of all other tokens than those with these hashes.
        """
        gone = [each.sha256 for each in self._sessions.values() if each.token not in tokens]
        for sha256 in gone:
            del self._sessions[sha256]
        if gone:
            self._write()

    @property
    def _sessions(self) -> dict[str, Session]:
        if self._loaded is None:
            self._loaded = {each.sha256: each for each in self._read()}
        return self._loaded

    def _read(self) -> tuple[Session, ...]:
        try:
            with open(self._path, "rb") as file:
                return msgspec.json.decode(file.read(SIZE_LIMIT), type=tuple[Session, ...])
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self.log.warn(
                "{file} cannot be read, so browsers must log in again: {why}", file=self._path, why=str(error)
            )
            return ()

    def _write(self) -> None:
        try:
            # Not waiting for the disk, which may take long: after a power cut, one has to log in again.
            replace_file(self._path, msgspec.json.encode([*self._sessions.values()]), durable=False)
        except OSError as error:
            self.log.warn("{file} cannot be written: {why}", file=self._path, why=error.strerror)
