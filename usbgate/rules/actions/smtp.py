"""
Sending by SMTP, with Twisted's client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IAddress, IHandshakeListener
from twisted.internet.protocol import connectionDone
from twisted.mail.smtp import (
    SUCCESS,
    AUTHRequiredError,
    EHLORequiredError,
    ESMTPSender,
    ESMTPSenderFactory,
    SMTPClientError,
    TLSRequiredError,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.core.extras import TLS, install_command
from usbgate.net.tlserrors import TlsFailed, spell_tls_error
from usbgate.rules.actions.interfaces import ActionFailed, TryAgain
from usbgate.rules.settings import MailSettings

TIMEOUT = 30.0  # seconds of silence
WHOLE_TIMEOUT = 120.0  # seconds for a mail, however slowly the server replies
GOODBYE = 2.0  # seconds for the server to close the connection
PORTS: Mapping[str, int] = {"starttls": 587, "implicit": 465, "none": 25}


@implementer(IHandshakeListener)
class _Sender(ESMTPSender):
    """
    Reports a lost connection, which a connector would do for it (endpoints have none), the server's own reply to the
    greeting, and what the server does not offer, which is no reply that gives a mail up: somebody may correct it.
    """

    def sendError(self, exc: SMTPClientError) -> None:
        if self.factory.sendFinished:  # Twisted would report it a second time, and fail
            assert self.transport is not None
            self.transport.loseConnection()
        else:
            super().sendError(exc)

    def esmtpEHLORequired(self, code: int = -1, resp: bytes = b"") -> None:
        self.sendError(EHLORequiredError(code, resp))

    def esmtpTLSRequired(self, code: int = -1, resp: bytes = b"") -> None:
        self.sendError(TLSRequiredError(-1, b"it does not offer STARTTLS: see tls in [mail]"))

    def esmtpAUTHRequired(self, code: int = -1, resp: bytes = b"") -> None:
        self.sendError(AUTHRequiredError(-1, b"it offers no login that is known"))

    def handshakeCompleted(self) -> None:
        """
        Send nothing to another server than the one that was meant.
        """
        from usbgate.net.tlsclient import wrong_host

        wrong = wrong_host(self.transport, self.factory.server)
        if wrong is not None:
            self.factory.not_connected(Failure(TlsFailed(wrong)))
            self.factory.abandon()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        error: Any = reason.value
        if (text := spell_tls_error(error, "a CA that this machine trusts")) is not None:
            reason = Failure(TlsFailed(text))
        super().connectionLost(reason)
        self.factory.clientConnectionLost(None, reason)
        self.factory.ended.callback(None)


class _SenderFactory(ESMTPSenderFactory):
    protocol = _Sender
    noisy = False
    sender: _Sender | None = None

    def __init__(self, server: str, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.server = server
        self.ended: Deferred[None] = Deferred()

    def buildProtocol(self, addr: IAddress | None) -> _Sender:
        self.sender = super().buildProtocol(addr)
        return self.sender

    def not_connected(self, failure: Failure) -> None:
        """
        Report that no connection could be made, unless nobody waits for one any more.
        """
        if not self.sendFinished:
            self.clientConnectionFailed(None, failure)

    async def end(self, reactor: Any) -> None:
        """
        Let the server close the connection, and close it if it does not.
        """
        if self.sender is not None:
            with suppress(DeferredTimeout, CancelledError):  # what was sent is sent
                await self.ended.addTimeout(GOODBYE, reactor)
            self.abandon()

    def abandon(self) -> None:
        """
        Close the connection at once; what its end would report changes nothing.
        """
        self.sendFinished = True
        if self.sender is not None:
            transport: Any = self.sender.transport
            transport.abortConnection()


async def send(
    reactor: Any, mail: MailSettings, password: bytes, to: Sequence[str], message: bytes, host: bytes
) -> Sequence[str]:
    """
    Send a mail.

    Args:
        reactor: The reactor.
        mail: The server, and the sender.
        password: The password of the login, if there is one.
        to: The addresses.
        message: The mail; its lines end in LF.
        host: The name of this host.

    Returns:
        The addresses that the server refuses, each with the code, if it takes the mail for others.

    Raises:
        TryAgain: The server cannot be reached, or has no time.
        ActionFailed: The server refuses the mail.
    """
    context: Any = _verified(mail.server) if mail.tls != "none" else None
    sent: Deferred[tuple[int, list[tuple[bytes, int, bytes]]]] = Deferred()
    factory = _SenderFactory(
        mail.server,
        (mail.user or "").encode(),
        password,
        mail.from_,
        to,
        BytesIO(message),
        sent,
        retries=0,
        timeout=TIMEOUT,
        contextFactory=context if mail.tls == "starttls" else None,
        requireAuthentication=mail.user is not None,
        requireTransportSecurity=mail.tls == "starttls",
    )
    factory.domain = host
    endpoint = HostnameEndpoint(reactor, mail.server, mail.port or PORTS[mail.tls], timeout=TIMEOUT)
    connecting = (wrapClientTLS(context, endpoint) if mail.tls == "implicit" else endpoint).connect(factory)
    connecting.addErrback(factory.not_connected)
    try:
        _, replies = await sent.addTimeout(WHOLE_TIMEOUT, reactor)
    except CancelledError:
        factory.abandon()
        raise
    except DeferredTimeout:
        factory.abandon()
        raise TryAgain(f"{mail.server} has not taken the mail within {WHOLE_TIMEOUT:g} s") from None
    except SMTPClientError as error:
        # Its own text has the whole session, with the password.
        code = f"{error.code} " if error.code > 0 else ""
        reason = code + " ".join(error.resp.decode("utf-8", "replace").split())
        kind = ActionFailed if 500 <= error.code < 600 else TryAgain
        raise kind(f"{mail.server}: {reason}") from None
    except Exception as error:  # of many kinds: names that do not resolve, refused connections, …
        raise TryAgain(f"{mail.server}: {' '.join(str(error).split()) or type(error).__name__}") from None
    finally:
        connecting.cancel()
        await factory.end(reactor)
    return [f"{address.decode()} ({code})" for address, code, _ in replies if code not in SUCCESS]


def _verified(server: str) -> Any:
    # The certificate must be of a CA that is trusted; `handshakeCompleted` checks whose it is.
    try:
        from usbgate.net.tlsclient import ClientContexts
    except ImportError:
        raise TryAgain(f"TLS is not installed: {install_command(TLS)}") from None
    return ClientContexts(server)
