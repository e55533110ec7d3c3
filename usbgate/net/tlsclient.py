"""
TLS for client endpoints: `tls:HOST:PORT`, with the server's certificate checked.

It needs pyOpenSSL, so import it only for an endpoint that begins with `tls:`.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from service_identity.exceptions import VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from zope.interface import implementer

from usbgate.net.tls import TlsError


def tls_client_endpoint(reactor: Any, host: str, port: int, ca: Path | None) -> IStreamClientEndpoint:
    """
    Return an endpoint whose server must have a certificate of a CA. Whether that certificate is the host's is to be
    checked by `wrong_host`, once TLS is established and before anything is sent.

    Args:
        reactor: Connects.
        host: A name or an address.
        port: A port.
        ca: A file with certificates of CAs; None for those of the system.

    Raises:
        TlsError: The file can't be used.
    """
    endpoint: IStreamClientEndpoint = wrapClientTLS(_Contexts(host, ca), HostnameEndpoint(reactor, host, port))
    return endpoint


def wrong_host(transport: Any, host: str) -> str | None:
    """
    Return what is wrong with the certificate of a server; None if it is the host's.

    Args:
        transport: The transport, once TLS is established.
        host: As for `tls_client_endpoint`.
    """
    try:
        if _is_address(host):
            verify_ip_address(transport.getHandle(), host)
        else:
            verify_hostname(transport.getHandle(), host)
    except VerificationError:
        return f"TLS: the certificate is not one of {host}"
    return None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@implementer(IOpenSSLClientConnectionCreator)
class _Contexts:
    # Not Twisted's `optionsForClientTLS`: see `ServerContexts`.

    def __init__(self, host: str, ca: Path | None) -> None:
        self._host = host
        self._context = context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_verify(SSL.VERIFY_PEER)
        try:
            if ca is None:
                context.set_default_verify_paths()
            else:
                ca.read_bytes()  # for an error that says why
                context.load_verify_locations(str(ca))
        except OSError as error:
            raise TlsError(f"{ca}: {error.strerror}") from None
        except SSL.Error:
            raise TlsError(f"{ca} has no certificate") from None

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if not _is_address(self._host):
            connection.set_tlsext_host_name(self._host.encode("idna"))
        return connection
