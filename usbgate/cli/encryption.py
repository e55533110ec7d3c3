"""
The options with which commands speak TLS, and whom they trust.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from usbgate.cli.connection import Connection

_Command = TypeVar("_Command", bound=Callable[..., Any])

_META = "usbgate.tls"  # the options given, in the context of click

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value:
        context.meta.setdefault(_META, {})[parameter.name] = value


def tls_options(command: _Command) -> _Command:
    """
    Add `--tls`, `--ca` and `--cert`. They are not passed to the command, but kept for `encrypt`.
    """
    options = (
        click.option(
            "--tls", is_flag=True, expose_value=False, callback=_keep, help="Speak TLS, also implied by the next two."
        ),
        click.option(
            "--ca",
            type=_FILE,
            expose_value=False,
            callback=_keep,
            metavar="FILE",
            help="The CA that must have signed the daemon's certificate.  [default: usbgate's own, or the system's]",
        ),
        click.option(
            "--cert",
            type=_FILE,
            expose_value=False,
            callback=_keep,
            metavar="FILE",
            help="A certificate, and its private key, for daemons that demand one.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def encrypt(
    connection: Connection,
    host: str,
    wanted: bool,
    state: Callable[[], Path],
    environ: Mapping[str, str] = os.environ,
) -> Connection:
    """
    Speak TLS on a connection, if the options say so.

    Args:
        connection: A new connection.
        host: The name or address that the daemon's certificate must have.
        wanted: Whether to speak TLS in any case.
        state: Returns the state folder, which may have a CA.
        environ: The environment.

    Returns:
        The connection.

    Raises:
        AskError: The daemon does not speak TLS, or its certificate can't be verified.
        ClickException: A file can't be used.
    """
    context = click.get_current_context(silent=True)
    options = {} if context is None else context.meta.get(_META, {})
    if not options and not wanted:
        return connection
    import ssl

    ca = options.get("ca") or _find_ca(state, environ)
    try:
        tls = ssl.create_default_context(cafile=ca)
    except (OSError, ValueError):
        raise click.ClickException(f"{ca}: not a certificate in PEM format") from None
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    if "cert" in options:
        try:
            tls.load_cert_chain(options["cert"])
        except (OSError, ValueError):
            raise click.ClickException(f"{options['cert']}: not a certificate with its private key") from None
    try:
        connection.encrypt(tls, host)
    except BaseException:
        connection.close()
        raise
    return connection


def _find_ca(state: Callable[[], Path], environ: Mapping[str, str]) -> Path | None:
    from usbgate.config.home import config_folder

    folder = config_folder(environ)
    if folder is not None and os.access(own := folder / "ca.crt", os.R_OK):
        return own
    file = state() / "tls" / "ca.crt"
    return file if os.access(file, os.R_OK) else None
