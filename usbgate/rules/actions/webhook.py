"""
An HTTP request to another program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from usbgate import __version__
from usbgate.core.extras import TLS, install_command
from usbgate.net.tlserrors import spell_tls_error
from usbgate.rules.actions.interfaces import ActionFailed, IAction, TryAgain
from usbgate.rules.outbox import WaitingAction
from usbgate.rules.settings import RuleSettings, WebhookTarget, parse_url, read_secret

TIMEOUT = 30.0  # seconds until the status has come
_LATER = frozenset([408, 425, 429])  # statuses below 500 that do not blame the request


class _Quiet:
    """
    An endpoint that logs no start and end of each connection.
    """

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, factory: ClientFactory) -> Deferred[Any]:
        factory.noisy = False
        return self._endpoint.connect(factory)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """
    Connects by name, with TLS if the URL says so; certificates are checked.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def endpointForURI(self, uri: URI) -> _Quiet:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=TIMEOUT)
        if uri.scheme == b"https":
            try:
                from usbgate.net.tlsclient import CheckedEndpoint
            except ImportError:
                raise TryAgain(f"TLS is not installed: {install_command(TLS)}") from None
            endpoint = CheckedEndpoint(endpoint, uri.host.decode())
        return _Quiet(endpoint)


class _Discard(Protocol):
    """
    Reads nothing of a body: the status says it all.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@implementer(IAction)
class WebhookAction:
    """
    Sends POST, and goes by the status. Errors and records name the host only: the rest of a URL may be secret.
    """

    patience = 86_400.0
    at_most_once = False

    def __init__(self, reactor: Any) -> None:
        """
        Args:
            reactor: The reactor.
        """
        self._reactor = reactor
        self._agent = Agent.usingEndpointFactory(reactor, _Endpoints(reactor))

    def destination(self, action: WaitingAction) -> str:
        return action.rule

    def details(self, rule: RuleSettings, action: WaitingAction) -> Mapping[str, str]:
        try:
            return {"HOST": urlsplit(self._url(rule)).hostname or ""}
        except ActionFailed:
            return {}

    async def perform(self, rule: RuleSettings, action: WaitingAction) -> None:
        url = self._url(rule)
        headers = {
            "User-Agent": f"usbgate/{__version__}",
            "Content-Type": action.payload["type"],
            "Idempotency-Key": action.id,
        }
        token_file = _webhook(rule).token_file
        if token_file is not None:
            try:
                headers["Authorization"] = f"Bearer {read_secret(token_file)}"
            except (OSError, ValueError) as error:
                raise TryAgain(f"{token_file} cannot be read: {_reason(error)}") from None
        host = urlsplit(url).netloc
        body = FileBodyProducer(BytesIO(action.payload["body"].encode()))
        try:
            request = self._agent.request(
                b"POST", url.encode(), Headers({name: [value] for name, value in headers.items()}), body
            )
            # When it is cancelled, the agent fails with an error of its own.
            response = await request.addTimeout(TIMEOUT, self._reactor, lambda *_: Failure(DeferredTimeout()))
        except (CancelledError, TryAgain):
            raise
        except DeferredTimeout:
            raise TryAgain(f"{host} has not replied within {TIMEOUT:g} s") from None
        except Exception as error:  # of many kinds: names that do not resolve, refused connections, certificates, …
            raise TryAgain(f"{host}: {'; '.join(map(_reason, _causes(error)))}") from None
        response.deliverBody(_Discard())
        status = response.code
        if not 200 <= status < 300:
            kind = TryAgain if status >= 500 or status in _LATER else ActionFailed
            raise kind(f"{host} replied {status}")

    def _url(self, rule: RuleSettings) -> str:
        webhook = _webhook(rule)
        if webhook.url_file is None:
            return webhook.url or ""
        try:
            return parse_url(read_secret(webhook.url_file))
        except (OSError, UnicodeDecodeError) as error:
            raise TryAgain(f"{webhook.url_file} cannot be read: {_reason(error)}") from None
        except ValueError as error:
            raise TryAgain(f"{webhook.url_file}: no URL that can be used: {error}") from None


def _webhook(rule: RuleSettings) -> WebhookTarget:
    if rule.webhook is None:
        raise ActionFailed("the rule has no webhook any more")
    return rule.webhook


def _causes(error: Exception) -> Iterator[Exception]:
    # The agent wraps some errors, perhaps twice.
    for each in getattr(error, "reasons", ()):
        yield from _causes(each.value)
    if not hasattr(error, "reasons"):
        yield error


def _reason(error: BaseException) -> str:
    tls = spell_tls_error(error, "a CA that this machine trusts")
    return tls or getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
