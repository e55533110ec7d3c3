"""
`usbgate tls`: make certificates, so that clients can verify and encrypt.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import click

from usbgate.cli.group import PlainGroup, pass_config
from usbgate.cli.reach import load_settings
from usbgate.cli.running import state_option
from usbgate.core.extras import TLS, install_command

folder_option = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the files are.  [default: tls in the state folder]",
)

HOW_TO = """
Make a token for each who may connect: usbgate token add NAME --role command
Let usbgate listen with the certificate (usbgate.toml), then restart it:
    listen = ["tcp:50007:interface=127.0.0.1", "ssl:50008{key}"]
    [http]
    listen = "ssl:8443{key}"

Other machines have no right without a token: usbgate token add NAME --role command

Let others trust it: copy {ca} there, and compare the fingerprint:
    openssl x509 -in ca.crt -noout -fingerprint -sha256
    usbgate    usbgate status --host {host} -p 50008 --ca ca.crt, or as ~/.config/usbgate/ca.crt with --tls
    curl       curl --cacert ca.crt https://{host}:8443/
    Python     ssl.create_default_context(cafile="ca.crt")
    browsers   Settings, Certificates, Authorities, Import; on phones, install it as a CA certificate
"""


@click.group("tls", cls=PlainGroup)
def tls_command() -> None:
    """
    Make certificates for TLS, of a certificate authority (CA) of your own.
    """


@tls_command.command("init")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Another name or IP address of this host.")
@folder_option
@state_option
@pass_config
def init_command(config: Path | None, names: tuple[str, ...], folder: Path | None, state: str | None) -> None:
    """
    Make a CA, and a certificate for this host; say how to use them.

    If there is a CA, only the certificate is made anew: nothing changes for clients, and a running daemon takes it for
    the next connection. It lasts 825 days, and has the names that it had; with --name (repeatable), those that are
    given instead; and those of the host in any case.
    """
    _check_installed()
    from usbgate.access import certificates

    folder, state_folder = _folders(config, folder, state)
    now = certificates.utc_now(_now())
    try:
        given = [certificates.check_name(name) for name in names]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        certificates.prepare_folder(folder)
        own, given = certificates.own_names(), given or certificates.names_of(folder)
        authority = certificates.load_authority(folder)
        if authority is None:
            authority = certificates.make_authority(folder, [*own, *given], now)
            end = authority.certificate.not_valid_after_utc
            click.echo(f"made {folder / certificates.CA_CERTIFICATE}, the CA, valid until {end:%Y-%m-%d}")
        else:
            click.echo(f"kept {folder / certificates.CA_CERTIFICATE}, the CA")
        # The host may have another name by now; what was asked for is an error instead.
        own = [name for name in own if certificates.may_sign(authority, name)]
        wanted = list(dict.fromkeys([*own, *given]))
        made = certificates.make_server(folder, authority, wanted, now)
    except certificates.CertificateError as error:
        raise click.ClickException(str(error)) from None
    end = made.not_valid_after_utc
    click.echo(f"made {folder / certificates.SERVER}, valid until {end:%Y-%m-%d}, for {', '.join(wanted)}")
    click.echo(f"SHA-256 fingerprint of the CA: {authority.fingerprint}")
    key = "" if folder == state_folder / "tls" else f":privateKey={folder / certificates.SERVER}"
    click.echo(HOW_TO.format(key=key, ca=folder / certificates.CA_CERTIFICATE, host=wanted[0]), nl=False)


@tls_command.command("client")
@click.argument("name")
@folder_option
@state_option
@pass_config
def client_command(config: Path | None, name: str, folder: Path | None, state: str | None) -> None:
    """
    Make a certificate for a client, where the daemon demands one.

    It does so where the endpoint has `clientCA`, such as `ssl:50008:clientCA=/var/lib/usbgate/tls/ca.crt`. The file has
    the private key, too: move it to the client. It lasts 825 days.
    """
    _check_installed()
    from usbgate.access import certificates

    if not certificates.CLIENT_NAME.fullmatch(name):
        raise click.UsageError("a name has 1 to 32 letters, digits and hyphens")
    folder, _ = _folders(config, folder, state)
    try:
        authority = certificates.load_authority(folder)
        if authority is None:
            raise click.ClickException(f"there is no CA in {folder}; `usbgate tls init` makes one")
        path = certificates.make_client(folder, authority, name, certificates.utc_now(_now()))
    except certificates.CertificateError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"made {path}: usbgate status --host HOST -p 50008 --cert {path.name}")


def _check_installed() -> None:
    if find_spec("cryptography") is None:
        raise click.ClickException(f"TLS is not installed: {install_command(TLS)}")


def _folders(config: Path | None, folder: Path | None, state: str | None) -> tuple[Path, Path]:
    state_folder = load_settings(config, state=state).state
    return (state_folder / "tls" if folder is None else folder.absolute()), state_folder


def _now() -> float:
    from usbgate.daemon.clock import RELEASED

    now = time.time()
    if now * 1000 < RELEASED:
        raise click.ClickException("the clock is wrong: a certificate made now would have expired once it is right")
    return now
