"""
TLS for server endpoints: `ssl:PORT:privateKey=…`, as Twisted has it, with certificates that can be renewed while the
daemon runs, and with certificates of clients (`clientCA`).

It needs pyOpenSSL, so import it only for an endpoint that begins with `ssl:`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import Error as CryptoError
from twisted.application.internet import TimerService
from twisted.internet.endpoints import SSL4ServerEndpoint, _parse
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLContextFactory, IReactorTime, IStreamServerEndpoint
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, trustRootFromCertificates
from twisted.logger import Logger
from zope.interface import implementer

EXPIRES_SOON = timedelta(days=30)
EXPIRY_INTERVAL = 12 * 3600.0  # seconds between two looks at the ends of certificates

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


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
    (_, port), options = _parse(description)
    interface, backlog = options.pop("interface", ""), int(options.pop("backlog", 50))
    return SSL4ServerEndpoint(reactor, int(port), ServerContexts(options), backlog, interface)


@implementer(IOpenSSLContextFactory)
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

    def getContext(self) -> SSL.Context:
        """
        Return the context for a new connection; Twisted calls this.
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
        files = self._files
        key = files["privateKey"]
        data = b"\n".join(_read(each) for each in dict.fromkeys([files.get("certKey", key), key]))
        try:
            certificates = [Certificate.loadPEM(each) for each in _CERTIFICATE.findall(data)]
            own = PrivateCertificate.loadPEM(data)
            chain = [each.original for each in certificates[1:]]  # as a file of Let's Encrypt has it
            if "extraCertChain" in files:
                chain += [each.original for each in _load_all(files["extraCertChain"])]
            options = CertificateOptions(
                privateKey=own.privateKey.original,
                certificate=own.original,
                extraCertChain=chain or None,
                trustRoot=trustRootFromCertificates(_load_all(files["clientCA"])) if "clientCA" in files else None,
            )
            context: SSL.Context = options.getContext()
        except (SSL.Error, CryptoError, VerifyError):
            raise TlsError(f"{key} is not a private key with its certificate") from None
        return context


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        remedy = "; `usbgate tls init` makes one" if isinstance(error, FileNotFoundError) else ""
        raise TlsError(f"{path}: {error.strerror}{remedy}") from None


def _load_all(path: str) -> list[Certificate]:
    try:
        found = [Certificate.loadPEM(each) for each in _CERTIFICATE.findall(_read(path))]
    except CryptoError:
        found = []
    if not found:
        raise TlsError(f"{path} has no certificate")
    return found


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
