"""
`usbgate stop` and `usbgate restart`: end or renew the daemon of a state folder, whoever started it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from usbgate.cli.autostart import POLL, DaemonStarter
from usbgate.cli.connection import Address, AskError, NoDaemon
from usbgate.cli.group import pass_config
from usbgate.cli.reach import load_settings

if TYPE_CHECKING:
    from usbgate.config.settings import Settings

STOP_LIMIT = 30.0  # seconds for the daemon to end, of which its database may take 6
PID_LIMIT = 1.0  # seconds in which a daemon that has taken the lock writes its process id

state_option = click.option(
    "--state", metavar="DIR", help="The daemon's state folder.  [default: the one in the configuration]"
)


class Process(NamedTuple):
    """
    A daemon that runs.

    Attributes:
        pid: Its process id.
        arguments: Its command line.
        environ: The environment in which it was started.
        folder: Its working folder.
    """

    pid: int
    arguments: Sequence[str]
    environ: Mapping[str, str]
    folder: str

    @property
    def is_service(self) -> bool:
        """
        Whether systemd started it.
        """
        return self.environ.get("SYSTEMD_EXEC_PID") == str(self.pid)

    @property
    def is_running(self) -> bool:
        """
        Whether it has not ended yet; one that its parent has not waited for has.
        """
        try:
            state = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state not in (b"Z", b"X")


@click.command("stop")
@state_option
@pass_config
def stop_command(config: Path | None, state: str | None) -> None:
    """
    Stop the daemon that runs on this machine.

    It stores what it has received before it ends, and stops its database.
    """
    settings = load_settings(config, state=state)
    process = find_process(settings.state)
    _refuse_systemd(process, "stop")
    stop(settings.state, process)
    click.echo(f"usbgate has stopped (process {process.pid})")


@click.command("restart")
@state_option
@pass_config
def restart_command(config: Path | None, state: str | None) -> None:
    """
    Stop the daemon that runs on this machine, and start it again, with the same options but a new configuration.

    It runs in the background afterwards.
    """
    settings = load_settings(config, state=state)
    process = find_process(settings.state)
    _refuse_systemd(process, "restart")
    address = _find_address(settings, process)
    stop(settings.state, process)
    # Created only now: the last lines of the log are about its start.
    DaemonStarter(settings.state, process.arguments, process.environ, process.folder).reach(address).close()
    click.echo(f"usbgate runs again (process {find_process(settings.state).pid})")


def find_process(state: Path) -> Process:
    """
    Find the daemon of a state folder.

    Raises:
        NoDaemon: None runs.
        AskError: It belongs to another user, or runs in another container.
    """
    lock = state / "lock"
    if not DaemonStarter(state, (), {}).is_alive():
        raise NoDaemon(f"no daemon runs with the state folder {state}")
    try:
        pid = _read_pid(lock)
        proc = Path(f"/proc/{pid}")
        if not any(_is_same(file, lock) for file in (proc / "fd").iterdir()):
            raise FileNotFoundError
        return Process(
            pid,
            _split(proc / "cmdline"),
            dict(each.split("=", 1) for each in _split(proc / "environ") if "=" in each),
            os.readlink(proc / "cwd"),
        )
    except PermissionError:
        raise AskError(f"the daemon with the state folder {state} belongs to another user; use sudo") from None
    except (FileNotFoundError, ValueError):
        raise AskError(f"the daemon with the state folder {state} is not a process that can be seen here") from None


def _read_pid(lock: Path) -> int:
    deadline = time.monotonic() + PID_LIMIT
    while not (text := lock.read_text("ascii")) and time.monotonic() < deadline:
        time.sleep(POLL)
    return int(text)


def _is_same(file: Path, lock: Path) -> bool:
    with suppress(FileNotFoundError):  # closed meanwhile
        return file.samefile(lock)
    return False


def _split(path: Path) -> list[str]:
    return os.fsdecode(path.read_bytes()).removesuffix("\0").split("\0")


def _refuse_systemd(process: Process, verb: str) -> None:
    if not process.is_service:
        return
    # It would count as a failure, or systemd would start a second one: `0::/system.slice/usbgate.service`.
    path = Path(f"/proc/{process.pid}/cgroup").read_text().strip().rpartition("\n")[2].split(":")[-1]
    command = f"systemctl {'--user ' if '/user@' in path else ''}{verb} {path.rpartition('/')[2] or 'usbgate'}"
    raise AskError(f"systemd runs this daemon; use: {command}")


def stop(state: Path, process: Process) -> None:
    """
    Stop a daemon, and wait until it has ended. Releasing its lock is not the last thing that it does: its pid file, if
    it has one, would keep another one from starting.

    Raises:
        AskError: It has not ended in time.
    """
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    daemon = DaemonStarter(state, (), {})
    deadline = time.monotonic() + STOP_LIMIT
    while process.is_running or daemon.is_alive():
        if time.monotonic() > deadline:
            raise AskError(f"the daemon (process {process.pid}) has not ended in {STOP_LIMIT:.0f} s")
        time.sleep(POLL)


def _find_address(settings: Settings, process: Process) -> Address:
    # Where the daemon will listen: as its own options say, or else the configuration.
    from usbgate.config.endpoints import local_addresses

    options = [each.partition("=")[2] for each in process.arguments if each.startswith("--listen=")]
    options += [value for option, value in pairwise(process.arguments) if option == "--listen"]
    addresses = local_addresses(options or settings.endpoints)
    if not addresses:
        raise AskError("the daemon was not restarted: which port it will listen on is not known")
    return addresses[0]
