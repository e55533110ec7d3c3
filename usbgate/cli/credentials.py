"""
Authenticate the commands of `usbgate` with the token of whoever runs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from usbgate.cli.connection import CONNECT_LIMIT, AskError, Connection, RequestRefused, send_word

VARIABLE = "USBGATE_TOKEN"


_META = "usbgate.token-file"  # the option given, in the context of click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _keep(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.meta[_META] = value


def token_option(command: _Command) -> _Command:
    """
    Add `--token-file`. It is not passed to the command, but kept for `authenticate`.
    """
    return click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_keep,
        metavar="FILE",
        help="Send the token in this file, `-` for the standard input.  [default: see docs/security.md]",
    )(command)


def authenticate(connection: Connection, state: Path | None, environ: Mapping[str, str] = os.environ) -> Connection:
    """
    Send a token, if there is one: that of `--token-file`, or of `USBGATE_TOKEN`, or else the local token of the daemon
    that listens there, or else that of $XDG_CONFIG_HOME/usbgate/token.

    Args:
        connection: A new connection.
        state: The state folder of the daemon of this machine; None on a connection to another machine.
        environ: The environment.

    Returns:
        The connection.

    Raises:
        AskError: The token of the option, of the environment, or of the file, is wrong, or the option's can't be read.
    """
    context = click.get_current_context(silent=True)
    file = None if context is None else context.meta.get(_META)
    secret, source = environ.get(VARIABLE), VARIABLE
    if file is not None:
        secret, source = _read(file), str(file)
    if not secret and state is not None and (local := _local(connection, state)) is not None:
        with suppress(RequestRefused):  # it has been replaced since
            _send(connection, local)
        return connection
    if not secret:
        from usbgate.config.home import config_folder

        if (folder := config_folder(environ)) is not None:
            file = folder / "token"
            with suppress(OSError, UnicodeDecodeError):
                secret, source = file.read_text("ascii").strip(), str(file)
    if secret:
        try:
            _send(connection, secret)
        except RequestRefused as error:
            raise AskError(f"{error} (from {source})") from None
    return connection


def _read(file: Path) -> str:
    try:
        with click.open_file(str(file), encoding="ascii") as opened:
            secret: str = opened.read(1024).strip()
    except OSError as error:
        raise AskError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        secret = ""
    if not secret:
        raise AskError(f"{file} has no token")
    return secret


def _local(connection: Connection, state: Path) -> str | None:
    from usbgate.access.localtoken import find_local_token

    peer = connection.peer
    return None if peer is None else find_local_token(state, *peer)


def _send(connection: Connection, secret: str) -> None:
    if secret.split() != [secret]:
        raise AskError("a token has no whitespace")
    list(send_word(connection, f"auth {secret}", CONNECT_LIMIT))
