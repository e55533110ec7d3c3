"""
Make certificates for TLS: of a certificate authority (CA) of our own, and those that it signs.

The folder holds `ca.key` and `ca.crt`, the CA, and `server.pem`, private key and certificate of this host in one file,
so that a new one takes its place at once. All are PEM. Keys are P-256, which a Raspberry Pi computes in a millisecond.

Whoever trusts the CA must not have to fear for other sites, should its key be stolen: it can only sign names of local
networks, private addresses, and what it was made for (name constraints, RFC 5280 §4.2.1.10).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from usbgate.daemon.files import replace_file

CA_KEY, CA_CERTIFICATE, SERVER = "ca.key", "ca.crt", "server.pem"

CA_LIFE = timedelta(days=3653)
LIFE = timedelta(days=825)  # the longest that Apple's systems accept
LEAST_LIFE = timedelta(days=30)  # a certificate that ends sooner is not worth making
BACKDATED = timedelta(days=1)  # a client's clock may be behind

CLIENT_NAME = re.compile(r"[A-Za-z0-9-]{1,32}")  # without a dot, OpenSSL does not take it for the name of a host

_DOMAINS = ("local", "lan", "home.arpa", "internal", "localhost")
_NETWORKS = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8", "100.64.0.0/10"),
    *("fc00::/7", "fe80::/10", "::1/128"),
)

# RFC 1034 §3.5, and `_`, which some hosts have.
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")


class CertificateError(Exception):
    """
    A certificate can't be made or read; the text says why, in one line.
    """


class CertificateAuthority(NamedTuple):
    """
    A CA.

    Attributes:
        key: Its private key.
        certificate: Its certificate.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def fingerprint(self) -> str:
        """
        The SHA-256 of its certificate, as `openssl x509 -fingerprint` and browsers show it.
        """
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def own_names() -> list[str]:
    """
    Return the names and addresses by which clients may call this host.
    """
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    names = [name, short, f"{short}.local", "localhost", "127.0.0.1", "::1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            sender.connect(("192.0.2.1", 9))  # sends nothing; the kernel chooses the address from which it would
            names.append(sender.getsockname()[0])
        except OSError:  # there is no network
            pass
    return [each for each in dict.fromkeys(names) if _is_name(each)]


def prepare_folder(folder: Path) -> None:
    """
    Create a folder that only its owner can enter, unless it is there; root does it for the owner of the folder around.

    Raises:
        CertificateError: It can't be created.
    """
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return
        if os.geteuid() == 0:
            owner = os.stat(folder.parent)
            os.chown(folder, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise CertificateError(f"the folder {folder} cannot be made: {error.strerror}") from None


def load_authority(folder: Path) -> CertificateAuthority | None:
    """
    Load the CA of a folder; None if there is none.

    Raises:
        CertificateError: It can't be read, or only a part of it is there.
    """
    files = [folder / CA_CERTIFICATE, folder / CA_KEY]
    try:
        missing = [file for file in files if not file.exists()]
        if len(missing) == 2:
            return None
        if missing:
            raise CertificateError(f"{missing[0]} is missing: put it back, or remove what is left of the CA")
        certificate = x509.load_pem_x509_certificate(files[0].read_bytes())
        key = serialization.load_pem_private_key(files[1].read_bytes(), None)
    except OSError as error:
        raise CertificateError(f"{error.filename} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise CertificateError(f"the CA in {folder} cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CertificateError(f"{files[1]} is not the key of {files[0]}")
    return CertificateAuthority(key, certificate)


def make_authority(folder: Path, names: Iterable[str], now: datetime) -> CertificateAuthority:
    """
    Make a CA, and write it.

    Args:
        folder: Where to.
        names: The names and addresses that it may sign, besides those of local networks.
        now: This moment.

    Raises:
        CertificateError: It can't be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    title = f"usbgate CA of {socket.gethostname()}"[:64]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    permitted: list[x509.GeneralName] = [x509.DNSName(each) for each in _DOMAINS]
    permitted += [x509.IPAddress(ip_network(each)) for each in _NETWORKS]
    for each in map(_general_name, names):
        if not _is_within(each, permitted):
            permitted.append(each if isinstance(each, x509.DNSName) else x509.IPAddress(ip_network(each.value)))
    certificate = (
        _builder(name, name, key, now, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder / CA_KEY, _private(key), 0o600)
    _write(folder / CA_CERTIFICATE, _public(certificate), 0o644)
    return CertificateAuthority(key, certificate)


def may_sign(authority: CertificateAuthority, name: str) -> bool:
    """
    Return whether a CA may sign a name or an address.
    """
    try:
        limits = authority.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:  # a CA of somebody's own
        return True
    return _is_within(_general_name(name), limits.permitted_subtrees or ())


def make_server(folder: Path, authority: CertificateAuthority, names: Sequence[str], now: datetime) -> x509.Certificate:
    """
    Make a key and a certificate for this host, and write them.

    Args:
        folder: Where to.
        authority: The CA that signs it.
        names: The names and addresses of the host.
        now: This moment.

    Raises:
        CertificateError: The CA may not sign one of the names, or ends soon, or the file can't be written.
    """
    for each in names:
        if not may_sign(authority, each):
            raise CertificateError(
                f"the CA may not sign {each}, which it was not made for: remove {folder / CA_CERTIFICATE} and "
                f"{folder / CA_KEY} for a new one, which all clients must trust anew"
            )
    alternatives = x509.SubjectAlternativeName([_general_name(each) for each in names])
    title = f"usbgate on {names[0]}"  # has a blank: OpenSSL takes it for no name of a host, which has limits, too
    return _issue(folder / SERVER, authority, title, ExtendedKeyUsageOID.SERVER_AUTH, now, folder, alternatives)


def make_client(folder: Path, authority: CertificateAuthority, name: str, now: datetime) -> Path:
    """
    Make a key and a certificate for a client, and write them into one file.

    Args:
        folder: Where to.
        authority: The CA that signs it.
        name: The client, see `CLIENT_NAME`.
        now: This moment.

    Returns:
        The file.

    Raises:
        CertificateError: The CA ends soon, or the file can't be written.
    """
    path = folder / f"client-{name}.pem"
    _issue(path, authority, name, ExtendedKeyUsageOID.CLIENT_AUTH, now, folder)
    return path


def names_of(folder: Path) -> list[str]:
    """
    Return the names and addresses in the host's certificate; none if there is none that can be read.
    """
    try:
        certificate = x509.load_pem_x509_certificate((folder / SERVER).read_bytes())
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return []
    return [str(each.value) for each in alternatives]


def check_name(name: str) -> str:
    """
    Return a name of a host or an IP address as a certificate has it.

    Raises:
        ValueError: It is neither.
    """
    name = name.lower()
    if not _is_name(name):
        raise ValueError(f"neither a name of a host nor an IP address: {name!r}")
    return name


def _is_name(text: str) -> bool:
    return _HOST.fullmatch(text) is not None or isinstance(_general_name(text), x509.IPAddress)


def _general_name(text: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _is_within(name: x509.DNSName | x509.IPAddress, permitted: Iterable[x509.GeneralName]) -> bool:
    value = name.value
    for each in permitted:
        if isinstance(value, IPv4Address | IPv6Address):
            if isinstance(each, x509.IPAddress) and value in each.value:  # type: ignore[operator]  # a network
                return True
        elif isinstance(each, x509.DNSName) and f".{value}".endswith(f".{each.value}"):
            return True
    return False


def _issue(
    path: Path,
    authority: CertificateAuthority,
    subject: str,
    usage: x509.ObjectIdentifier,
    now: datetime,
    folder: Path,
    alternatives: x509.SubjectAlternativeName | None = None,
) -> x509.Certificate:
    ca = authority.certificate
    if ca.not_valid_after_utc - now < LEAST_LIFE:
        raise CertificateError(
            f"the CA ends on {ca.not_valid_after_utc:%Y-%m-%d}: remove {folder / CA_CERTIFICATE} and "
            f"{folder / CA_KEY} for a new one, which all clients must trust anew"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])])
    builder = (
        _builder(name, ca.subject, key, now, min(now + LIFE, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    _write(path, _private(key) + _public(certificate), 0o600)
    return certificate


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        replace_file(path, data, mode)
    except OSError as error:
        raise CertificateError(f"{path} cannot be written: {error.strerror}") from None


def end_of(path: Path) -> datetime:
    """
    Return when the first certificate of a file ends.

    Raises:
        CertificateError: The file can't be read, or has none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise CertificateError(f"{path} has no certificate") from None


def utc_now(seconds: float) -> datetime:
    """
    Return a time in seconds since 1970 as certificates have it: in UTC, whole seconds.
    """
    return datetime.fromtimestamp(int(seconds), UTC)
