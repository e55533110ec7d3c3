"""
TLS to servers, whose certificates are checked.

It needs pyOpenSSL, so import it only for TLS.
"""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from service_identity.exceptions import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.net.tls import TlsError
from usbgate.net.tlserrors import TlsFailed


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
    endpoint: IStreamClientEndpoint = wrapClientTLS(ClientContexts(host, ca), HostnameEndpoint(reactor, host, port))
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
    except (CertificateError, VerificationError):
        return f"TLS: the certificate is not one of {host}"
    return None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@implementer(IStreamClientEndpoint)
class CheckedEndpoint:
    """
    TLS over another endpoint: nothing is sent before it is known that the certificate is the server's. A connection
    whose certificate is another one fails with `TlsFailed`.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, host: str) -> None:
        """
        Args:
            endpoint: The other one.
            host: The server's name or address.
        """
        self._endpoint: Any = wrapClientTLS(ClientContexts(host), endpoint)
        self._host = host

    def connect(self, protocolFactory: Any) -> Any:
        checking: Any = WrappingFactory(protocolFactory)
        checking.noisy = False
        checking.protocol = partial(_Checking, self._host)
        return self._endpoint.connect(checking).addCallback(lambda wrapper: wrapper.wrappedProtocol)


@implementer(IHandshakeListener)
class _Checking(ProtocolWrapper):
    def __init__(self, host: str, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._host = host

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        wrong = wrong_host(transport, self._host)
        if wrong is not None:
            transport.failVerification(Failure(TlsFailed(wrong)))


@implementer(IOpenSSLClientConnectionCreator)
class ClientContexts:
    """
    OpenSSL's settings of connections to one server, which must have a certificate of a CA (see `tls_client_endpoint`).

    Not Twisted's `optionsForClientTLS`, nor a callback that checks the host: see `ServerContexts`.
    """

    def __init__(self, host: str, ca: Path | None = None) -> None:
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
