"""
Authenticate the commands of `usbgate` with the token of whoever runs them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from usbgate.cli.connection import CONNECT_LIMIT, AskError, Connection, RequestRefused, send_word

VARIABLE = "USBGATE_TOKEN"


def authenticate(connection: Connection, state: Path | None, environ: Mapping[str, str] = os.environ) -> Connection:
    """
    Send a token, if there is one: that of `USBGATE_TOKEN`, or else the local token of the daemon that listens there, or
    else that of $XDG_CONFIG_HOME/usbgate/token.

    Args:
        connection: A new connection.
        state: The state folder of the daemon of this machine; None on a connection to another machine.
        environ: The environment.

    Returns:
        The connection.

    Raises:
        AskError: The token of the environment, or of the file, is wrong.
    """
    secret, source = environ.get(VARIABLE), VARIABLE
    if not secret and state is not None and (local := _local(connection, state)) is not None:
        with suppress(RequestRefused):  # it has been replaced since
            _send(connection, local)
        return connection
    if not secret:
        file = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "~", ".config"), "usbgate", "token")
        with suppress(OSError, UnicodeDecodeError):
            secret, source = file.read_text("ascii").strip(), str(file)
    if secret:
        try:
            _send(connection, secret)
        except RequestRefused as error:
            raise AskError(f"{error} (from {source})") from None
    return connection


def _local(connection: Connection, state: Path) -> str | None:
    from usbgate.access.localtoken import find_local_token

    peer = connection.peer
    return None if peer is None else find_local_token(state, *peer)


def _send(connection: Connection, secret: str) -> None:
    if secret.split() != [secret]:
        raise AskError("a token has no whitespace")
    list(send_word(connection, f"auth {secret}", CONNECT_LIMIT))
