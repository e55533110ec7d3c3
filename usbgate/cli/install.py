"""
`usbgate install` and `usbgate uninstall`: make usbgate a service of systemd, and undo that.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from usbgate.cli.connection import AskError
from usbgate.cli.group import pass_config

if TYPE_CHECKING:
    from usbgate.cli.installation import Plan

_Command = TypeVar("_Command", bound=Callable[..., Any])

SYSTEMD = Path("/run/systemd/system")  # exists where systemd runs, see sd_booted(3)


def _options(command: _Command) -> _Command:
    for option in (
        click.option("--root", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
                     help="Change the files of an image, whose root is DIR, and run nothing."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--user", is_flag=True, help="A service of this user, without root."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("install")
@_options
@pass_config
def install_command(config: Path | None, user: bool, yes: bool, root: Path | None) -> None:
    """
    Run usbgate as a service, now and at every start of the machine.

    It shows what it would write and run, and asks first. USB devices that are plugged in get a stable name in
    /dev/usbgate, and ModemManager leaves them alone. Running it again brings all files up to date; what you change with
    `systemctl edit usbgate` stays.
    """
    from usbgate.cli.installation import check_reachable, plan_system, plan_user
    from usbgate.config.types import ConfigError
    from usbgate.device.usb import UsbTree

    if root is None:
        _check_systemd(user)
        if not user:
            prefixes = {sys.prefix, sys.base_prefix, sysconfig.get_path("scripts"), str(Path(__file__).parent)}
            check_reachable([*map(Path, sorted(prefixes)), *([] if config is None else [config])])
    try:
        place = root or Path("/")
        plan = plan_user(config, _user_folder(root)) if user else plan_system(config, place, UsbTree())
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    if root is None:
        _check_not_running(config, user)
    scope = "--user " if user else ""
    _carry_out(plan, yes, root is None)
    if root is None:
        log = f"journalctl {scope}-u usbgate"
        click.echo(f"usbgate is a service: `systemctl {scope}status usbgate` shows it, `{log}` its log")


@click.command("uninstall")
@_options
@pass_config
def uninstall_command(config: Path | None, user: bool, yes: bool, root: Path | None) -> None:
    """
    Stop the service, and remove what `usbgate install` wrote.

    The configuration and all readings are kept.
    """
    from usbgate.cli.installation import plan_removal

    if root is None:
        _check_systemd(user)
    plan = plan_removal(root or Path("/"), _user_folder(root) if user else None)
    _carry_out(plan, yes, root is None)


def _user_folder(root: Path | None) -> Path:
    if root is not None:
        return root / ".config"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _check_systemd(user: bool) -> None:
    if not SYSTEMD.exists():
        raise AskError("systemd does not run here; docs/operating.md says how to run usbgate under another supervisor")
    if not user and os.geteuid() != 0:
        raise AskError("this needs root: use sudo, or --user for a service of your own")


def _check_not_running(config: Path | None, user: bool) -> None:
    # A daemon that was started by hand would keep the service from starting, and has its own options.
    from usbgate.cli.autostart import DaemonStarter
    from usbgate.cli.installation import STATE
    from usbgate.cli.reach import load_settings
    from usbgate.cli.running import find_process

    state = load_settings(config).state if user else STATE
    if DaemonStarter(state, (), {}).is_alive():
        process = find_process(state)
        if not process.is_service:
            stop = f"usbgate stop --state {shlex.quote(str(state))}"
            raise AskError(f"a daemon that is no service runs already, process {process.pid}: end it first with {stop}")


def _carry_out(plan: Plan, yes: bool, runs: bool) -> None:
    verb = "run" if runs else "later"  # on the machine of the image
    for command in plan.before:
        click.echo(f"{verb:8} {shlex.join(command)}")
    changed = {path: text for path, text in plan.files.items() if _show(path, text)}
    for command in plan.after:
        click.echo(f"{verb:8} {shlex.join(command)}")
    for note in plan.notes:
        click.echo(f"note     {note}")
    if not yes and not _confirm():
        raise AskError("nothing was changed")
    os.umask(0o022)  # everybody may read what is written here
    for command in plan.before if runs else ():
        _run(command)
    for path, text in changed.items():
        try:
            _write(path, text)
        except OSError as error:
            raise AskError(f"{path} cannot be written: {error.strerror}") from None
    for command in plan.after if runs else ():
        _run(command)


def _show(path: Path, text: str | None) -> bool:
    # Show what becomes of a file; return whether it changes.
    old = path.read_text("utf-8", "replace") if path.exists() else None
    if old == text:
        click.echo(f"keep     {path}")
        return False
    if text is None:
        click.echo(f"remove   {path}")
        return True
    lines: Iterable[str] = text.splitlines()
    if old is None:
        click.echo(f"write    {path}")
    else:
        click.echo(f"change   {path}")
        lines = list(unified_diff(old.splitlines(), text.splitlines(), n=1, lineterm=""))[2:]
    for line in lines:
        click.secho(f"         {line}".rstrip(), dim=True)
    return True


def _confirm() -> bool:
    try:
        return click.confirm("\nContinue?")
    except click.Abort:  # the end of the input
        click.echo()
        return False


def _write(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, "utf-8")
    new.replace(path)


def _run(command: Iterable[str]) -> None:
    shown = shlex.join(command)
    try:
        done = subprocess.run(list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        raise AskError(f"{shown}: {error.strerror}") from None
    if done.returncode:
        raise AskError(f"{shown}: {done.stderr.strip() or f'exit status {done.returncode}'}")
