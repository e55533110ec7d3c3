"""
TLS for server endpoints: `ssl:PORT:privateKey=…`, as Twisted has it, with certificates that can be renewed while the
daemon runs, and with certificates of clients (`clientCA`).

It needs pyOpenSSL, so import it only for an endpoint that begins with `ssl:`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.application.internet import TimerService
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from usbgate.core.endpointstring import split_endpoint

EXPIRES_SOON = timedelta(days=30)
EXPIRY_INTERVAL = 12 * 3600.0  # seconds between two looks at the ends of certificates


class TlsError(ValueError):
    """
    A certificate or a private key can't be used; the text says why, in one line.
    """


def tls_endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """
    Return the endpoint of a string.

    Args:
        reactor: Listens.
        description: `ssl:PORT`, with `privateKey`, and perhaps with `certKey`, `extraCertChain`, `interface`, `backlog`
            as in Twisted. Only clients with a certificate that is signed by one of the file `clientCA` may connect.

    Raises:
        TlsError: A file can't be used.
    """
    (_, port), options = split_endpoint(description)
    interface, backlog = options.pop("interface", ""), int(options.pop("backlog", 50))
    return SSL4ServerEndpoint(reactor, int(port), ServerContexts(options), backlog, interface)


@implementer(IOpenSSLServerConnectionCreator)
class ServerContexts:
    """
    Makes OpenSSL's context of some files, and makes it anew for the next connection once they have changed. If the new
    files can't be used, that is logged, and the old context stays in use.
    """

    log = Logger()

    def __init__(self, files: Mapping[str, str]) -> None:
        """
        Args:
            files: Absolute paths, by the names of the options.

        Raises:
            TlsError: A file can't be used.
        """
        self._files = files
        self._seen = self._look()
        self._context = self._make()

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """
        Return the connection for a protocol; Twisted calls this.
        """
        return SSL.Connection(self.context(), None)

    def context(self) -> SSL.Context:
        """
        Return the context for a new connection.
        """
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._context = self._make()
            except TlsError as error:
                self.log.warn("the certificate from before stays in use: {why}", why=str(error))
            else:
                self.log.info("{file} was loaded again", file=self._files["privateKey"])
        return self._context

    def _look(self) -> list[object]:
        found: list[object] = []
        for path in self._files.values():
            with suppress(OSError):
                status = os.stat(path)
                found.append((path, status.st_mtime_ns, status.st_ino, status.st_size))
        return found

    def _make(self) -> SSL.Context:
        # Not by Twisted's CertificateOptions: its callbacks need memory that can be written and executed, which
        # systemd denies us (MemoryDenyWriteExecute).
        files = self._files
        certificate = files.get("certKey", files["privateKey"])
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        try:
            key = load_pem_private_key(_read(files["privateKey"]), None)
            _read(certificate)  # for an error that names it
            context.use_certificate_chain_file(certificate)
            context.use_privatekey(key)  # type: ignore[arg-type]  # it refuses other kinds
            context.check_privatekey()
        except TlsError:
            raise
        except (SSL.Error, ValueError, TypeError):  # a TypeError if it is encrypted
            raise TlsError(f"{files['privateKey']} is not a private key with its certificate") from None
        for each in _load_all(files["extraCertChain"]) if "extraCertChain" in files else ():
            context.add_extra_chain_cert(each)
        if "clientCA" in files:
            for each in _load_all(files["clientCA"]):
                store = context.get_cert_store()
                assert store is not None
                store.add_cert(X509.from_cryptography(each))
                context.add_client_ca(each)
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
            context.set_session_id(b"usbgate")  # without it, OpenSSL refuses sessions of such clients
        return context


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        remedy = "; `usbgate tls init` makes one" if isinstance(error, FileNotFoundError) else ""
        raise TlsError(f"{path}: {error.strerror}{remedy}") from None


def _load_all(path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except TlsError:
        raise
    except ValueError:
        raise TlsError(f"{path} has no certificate") from None


class ExpiryWatch(TimerService):
    """
    Logs that a certificate will expire soon, and that it has expired, once each.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, wall: Callable[[], int], files: Iterable[str]) -> None:
        """
        Args:
            reactor: For the interval.
            wall: The wall clock (`IClock.wall`).
            files: The files of the certificates.
        """
        super().__init__(EXPIRY_INTERVAL, self._check)
        self.clock = reactor
        self._wall = wall
        self._files = list(files)
        self._logged: set[tuple[str, datetime, bool]] = set()

    def _check(self) -> None:
        now = datetime.fromtimestamp(self._wall() / 1000, UTC)
        for file in self._files:
            try:
                end = x509.load_pem_x509_certificate(_read(file)).not_valid_after_utc
            except ValueError:  # no longer there: the listener has logged it
                continue
            expired = now > end
            if end - now < EXPIRES_SOON and (file, end, expired) not in self._logged:
                self._logged.add((file, end, expired))
                self.log.warn(
                    "the certificate {file} {expires} on {end}; `usbgate tls init` renews its own",
                    file=file,
                    expires="expired" if expired else "expires",
                    end=f"{end:%Y-%m-%d}",
                )
