"""
What `usbgate install` writes and runs: units of systemd, rules for udev, a first configuration.
"""

from __future__ import annotations

import grp
import pwd
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Literal

from usbgate.cli.connection import AskError
from usbgate.cli.udev import Board, configured_boards, plugged_boards, udev_rules
from usbgate.config.load import load
from usbgate.config.settings import Settings
from usbgate.device.usb import UsbTree
from usbgate.store.embedded.user import SYSTEM_USER, USERADD

UNIT = "usbgate.service"
CONFIG = "etc/usbgate/usbgate.toml"
UNIT_FILE = f"etc/systemd/system/{UNIT}"
RULES_FILE = "etc/udev/rules.d/70-usbgate.rules"
STATE = Path("/var/lib/usbgate")

UDEV_CONTROL = Path("/run/udev/control")  # of udev, if it runs

# What the sandbox of the unit hides.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")

# Groups that own serial ports: Debian's and Fedora's, then Arch's.
PORT_GROUPS = ("dialout", "uucp")

_RELOAD_UDEV = (
    ("udevadm", "control", "--reload"),
    ("udevadm", "trigger", "--subsystem-match=tty", "--subsystem-match=usb"),
    ("udevadm", "settle", "--timeout=10"),
)


class NotInstallable(AskError):
    """
    The service would not run; the text says why, and what to do.
    """


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What to do, in this order.

    Attributes:
        before: Commands to run first.
        files: The text of each file to write; None removes the file.
        after: Commands to run then.
        notes: What the user should know.
    """

    before: Sequence[Sequence[str]] = ()
    files: dict[Path, str | None] = field(default_factory=dict)
    after: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()


def plan_system(config: Path | None, root: Path, tree: UsbTree) -> Plan:
    """
    Plan a service of the machine.

    Args:
        config: The configuration file for the service; None for /etc/usbgate/usbgate.toml.
        root: The folder that is, or will be, the root of that machine.
        tree: The USB devices.

    Raises:
        ConfigError: The configuration is wrong.
        NotInstallable: usbgate is not installed where the service could run it.
    """
    usual = root / CONFIG
    file = config or (usual if usual.exists() else None)
    settings = Settings(state=STATE)
    if file is not None:
        settings = load(file, environ={"STATE_DIRECTORY": str(STATE)})
    boards = configured_boards(tree, settings.devices) if settings.devices else plugged_boards(tree)
    twistd = _on_that_machine(_twistd(), root)
    command = _command(twistd, config and _on_that_machine(config, root))
    texts: dict[Path, str | None] = {root / UNIT_FILE: system_unit(command, settings, _port_group(root))}
    named = {board.name for board in boards}
    notes = [f"{name} is no USB device that is plugged in: no name for it" for name in settings.devices.keys() - named]
    if not (root / twistd.relative_to("/")).exists():
        notes.append(f"there is no {twistd} in {root} yet: install usbgate there")
    reload_udev: Sequence[Sequence[str]] = ()
    if boards:
        if _has_udev(root):
            reload_udev = _RELOAD_UDEV
        else:
            notes.append("udev does not run here, as in a container: its host needs the rule")
        texts[root / RULES_FILE] = udev_rules(boards)
        if file is None:
            texts[usual] = first_configuration(boards)
    elif not settings.devices:
        notes.append("no USB serial device is plugged in: plug it in, and run this again to give it a stable name")
        notes.append("until then, systemd starts usbgate every 10 s")
    user = [] if SYSTEM_USER in _names(root, "passwd") else [[*USERADD, SYSTEM_USER]]
    waits = not boards and not settings.devices  # systemd would report a failure
    restart = f"{'--no-block ' if waits else ''}restart {UNIT}"
    return Plan(
        # twistd keeps a list of its plugins beside them, where the service may not write.
        before=[*user, [str(twistd), "--help"]],
        files=texts,
        after=[*reload_udev, *_systemctl("daemon-reload", f"enable {UNIT}", restart)],
        notes=notes,
    )


def plan_user(config: Path | None, folder: Path) -> Plan:
    """
    Plan a service of this user.

    Args:
        config: The configuration file for the service; None for the usual one.
        folder: The folder of the user's configuration, `~/.config`.

    Raises:
        ConfigError: The configuration is wrong.
        NotInstallable: usbgate is not installed.
    """
    load(config)
    return Plan(
        files={folder / "systemd" / "user" / UNIT: _with_command(_unit("user.service"), _command(_twistd(), config))},
        after=[
            *_systemctl("--user daemon-reload", f"--user enable {UNIT}", f"--user restart {UNIT}"),
            ["loginctl", "enable-linger"],  # starts it with the machine, not with the user's first login
        ],
        notes=["the udev rule, which keeps ModemManager off the port, needs root: docs/operating.md has it"],
    )


def plan_removal(root: Path, folder: Path | None) -> Plan:
    """
    Plan the end of a service.

    Args:
        root: As for `plan_system`.
        folder: As for `plan_user`; None for the service of the machine.

    Raises:
        NotInstallable: There is no such service.
    """
    user = [] if folder is None else ["--user"]
    places = [root / UNIT_FILE, root / RULES_FILE] if folder is None else [folder / "systemd" / "user" / UNIT]
    present: dict[Path, str | None] = {path: None for path in places if path.exists()}
    if not present:
        raise NotInstallable(f"nothing to remove: there is no {places[0]}")
    notes = ["the configuration and the state folder, with all readings, are kept"]
    if folder is None:
        notes.append(f"to remove them, too: rm -r /etc/usbgate {STATE} && userdel {SYSTEM_USER}")
    return Plan(
        before=[["systemctl", *user, "disable", "--now", UNIT]],
        files=present,
        after=[
            ["systemctl", *user, "daemon-reload"],
            *([_RELOAD_UDEV[0]] if root / RULES_FILE in present and _has_udev(root) else []),
        ],
        notes=notes,
    )


def check_reachable(paths: Iterable[Path]) -> None:
    """
    Check that the service of the machine can read some paths.

    Raises:
        NotInstallable: The sandbox of its unit hides one of them.
    """
    for path in paths:
        for hidden in HIDDEN:
            if path.resolve().is_relative_to(hidden):
                raise NotInstallable(
                    f"the service could not read {path}: its user has no access to {hidden}; "
                    "install usbgate in /opt/usbgate, with its configuration in /etc/usbgate, or use --user"
                )


def system_unit(command: str, settings: Settings, group: str | None) -> str:
    """
    Return the unit of the machine's service.

    Args:
        command: The command that runs the daemon.
        settings: Its configuration.
        group: The group of serial ports; None if there is none.
    """
    text = _with_command(_unit(UNIT), command)
    groups = "" if group is None else f"SupplementaryGroups={group}\n"
    text = re.sub(r"SupplementaryGroups=.*\n", groups, text)
    devices = "".join(f"DeviceAllow=char-{driver} rw\n" for driver in sorted(set(_drivers(settings))))
    text = re.sub(r"(DeviceAllow=char-ttyUSB rw\n)", rf"\g<1>{devices}", text)
    if settings.state != STATE:
        text = text.replace("StateDirectory=usbgate\nStateDirectoryMode=0700\n", f"ReadWritePaths={settings.state}\n")
    return text


def first_configuration(boards: Iterable[Board]) -> str:
    """
    Return a configuration that has only the devices.
    """
    tables = [f'\n[device.{board.name}]\npath = "{board.path}"\n' for board in boards]
    return "".join(["# The configuration of usbgate, which documents every key in etc/usbgate.toml.\n", *tables])


def _unit(name: str) -> str:
    return (files("usbgate.cli") / "systemd" / name).read_text("utf-8")


def _with_command(unit: str, command: str) -> str:
    return re.sub(r"(?m)^ExecStart=.*$", lambda _: f"ExecStart={command}", unit)


def _twistd() -> Path:
    twistd = Path(sysconfig.get_path("scripts"), "twistd")
    if not twistd.exists():
        raise NotInstallable(f"usbgate is not installed: there is no {twistd}; use pip install")
    return twistd


def _on_that_machine(path: Path, root: Path) -> Path:
    # How the machine whose root is that folder calls a path.
    path, root = path.absolute(), root.absolute()
    return Path("/", path.relative_to(root)) if path.is_relative_to(root) else path


def _command(twistd: Path, config: Path | None) -> str:
    options = [] if config is None else ["--config", _quoted(config.absolute())]
    return " ".join([_quoted(twistd), "-n", "--pidfile=", "usbgate", *options])


def _quoted(path: Path) -> str:
    # As systemd.service(5) reads a command line: % begins a specifier, $ a variable.
    text = str(path).replace("%", "%%").replace("$", "$$")
    return text if re.fullmatch(r"[\w/.+:-]+", text) else '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _drivers(settings: Settings) -> Iterator[str]:
    # A port that is not on USB: `ttyAMA0` is one of the driver ttyAMA.
    for device in settings.devices.values():
        found = re.fullmatch(r"/dev/(tty(?!ACM|USB)[A-Z]+|rfcomm)\d+", str(Path(device.path).resolve()))
        if found:
            yield found[1]


def _port_group(root: Path) -> str | None:
    names = _names(root, "group")
    return next((name for name in PORT_GROUPS if name in names), None)


def _names(root: Path, database: Literal["passwd", "group"]) -> set[str]:
    # The users or groups of the machine whose root is that folder; of this machine, wherever it has them from.
    if root == Path("/"):
        return {entry[0] for entry in (pwd.getpwall() if database == "passwd" else grp.getgrall())}
    try:
        lines = (root / "etc" / database).read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:  # an image of a system that keeps them elsewhere
        return {PORT_GROUPS[0]} if database == "group" else set()
    return {line.partition(":")[0] for line in lines}


def _has_udev(root: Path) -> bool:
    # It can reload its rules; that of an image reads them at its start.
    return root != Path("/") or UDEV_CONTROL.exists()


def _systemctl(*lines: str) -> list[list[str]]:
    return [["systemctl", *line.split()] for line in lines]
