"""
TLS to servers whose certificates are checked.

It needs pyOpenSSL, so import it only for TLS.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from weakref import ref

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

# Errors of OpenSSL's verification, X509_V_ERR_….
_REASONS = {9: "is not valid yet: is the clock right?", 10: "has expired"}


class WrongCertificate(Exception):
    """
    The certificate of a server is not trusted, or not its own.
    """


@implementer(IOpenSSLClientConnectionCreator)
class CheckedTls:
    """
    Twisted's `optionsForClientTLS`, with errors that say what is wrong. Twisted names OpenSSL's routines only, and logs
    a traceback for a certificate without a name.
    """

    def __init__(self, host: str) -> None:
        """
        Args:
            host: The server's name or address.
        """
        is_address = isIPAddress(host) or isIPv6Address(host)
        self._host = host
        self._id = IPAddress_ID(host) if is_address else DNS_ID(host)
        self._options = optionsForClientTLS(host)

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = self._options.clientConnectionForTLS(protocol)
        connection.set_verify(SSL.VERIFY_PEER, partial(self._is_right, ref(protocol)))
        return connection

    def _is_right(
        self, protocol: ref[Any], connection: SSL.Connection, certificate: Any, error: int, depth: int, trusted: int
    ) -> bool:
        reason = None
        if not trusted:
            reason = _REASONS.get(error, "is not signed by a CA that this machine trusts")
        elif depth == 0:
            try:
                verify_service_identity(extract_patterns(certificate), [self._id], [])
            except (CertificateError, VerificationError):
                reason = f"is not one of {self._host}"
        connected = protocol()
        if reason is None or connected is None:
            return reason is None
        connected.failVerification(Failure(WrongCertificate(f"the certificate {reason}")))
        return False
