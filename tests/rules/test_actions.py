"""
Actions, with a real mail server and a real HTTP server on this machine.
"""

from __future__ import annotations

import email
import email.policy
import os
import shutil
import time
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.mail.imap4 import LOGINCredentials, PLAINCredentials
from twisted.mail.smtp import ESMTP, IMessage, IMessageDelivery, SMTPBadRcpt
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from tests.support.folders import new_folder
from tests.support.memory_gateway import MemoryGateway
from tests.support.publisher import MemoryPublisher
from tests.support.rules import at_once, rule
from tests.support.waiting import until
from usbgate.access.certificates import load_authority, make_authority, make_client, make_server, utc_now
from usbgate.core.errors import Busy, Malformed, Offline, TimedOut, Unknown
from usbgate.core.model import Priority
from usbgate.rules.actions import smtp, webhook
from usbgate.rules.actions.command import CommandAction
from usbgate.rules.actions.interfaces import ActionFailed, TryAgain
from usbgate.rules.actions.mail import MailAction, compose
from usbgate.rules.actions.publish import PublishAction
from usbgate.rules.actions.webhook import WebhookAction
from usbgate.rules.outbox import WaitingAction
from usbgate.rules.settings import MailSettings, WebhookTarget

PASSWORD = "correct horse"


@implementer(IMessage)
class Received:
    """
    A mail while it comes in.
    """

    def __init__(self, server: MailServer, to: str) -> None:
        self._server = server
        self._to = to
        self._lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        self._server.mails.append((self._to, b"\n".join(self._lines)))
        return succeed(None)

    def connectionLost(self) -> None:
        pass


@implementer(IMessageDelivery, IRealm)
class MailServer(Factory):
    """
    Twisted's own server.

    Attributes:
        mails: What came, each with its recipient.
        context: Its certificate; None for no TLS.
        login: Whether it wants one.
    """

    noisy = False

    def __init__(self) -> None:
        self.mails: list[tuple[str, bytes]] = []
        self.context: Any = None
        self.login = False
        self.portal = Portal(self, [InMemoryUsernamePasswordDatabaseDontUse(house=PASSWORD.encode())])

    def buildProtocol(self, addr: object) -> ESMTP:
        challengers = {b"LOGIN": LOGINCredentials, b"PLAIN": PLAINCredentials} if self.login else None
        server = ESMTP(challengers, self.context)
        server.portal = self.portal  # type: ignore[assignment]  # Twisted's has None as its type
        server.factory = self
        if not self.login:
            server.delivery = self
        return server

    def requestAvatar(self, *arguments: Any) -> Any:
        return IMessageDelivery, self, lambda: None

    def receivedHeader(self, *arguments: object) -> bytes:
        return b"Received: here"

    def validateFrom(self, helo: object, origin: object) -> object:
        return origin

    def validateTo(self, user: Any) -> Callable[[], Received]:
        if user.dest.local == b"nobody":
            raise SMTPBadRcpt(user)
        return lambda: Received(self, str(user))


def trust(test: TestCase, authority: Path) -> None:
    """
    Trust a CA instead of those of the system, until a test has ended.
    """
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(authority)
    test.addCleanup(
        lambda: os.environ.pop("SSL_CERT_FILE") if before is None else os.environ.update(SSL_CERT_FILE=before)
    )


class Scripted(LineReceiver):
    """
    A server of SMTP that replies as it is told.
    """

    replies: Mapping[bytes, int] = {}  # set by the test
    verbs: list[bytes] = []  # noqa: RUF012  # set by the test, too: what it is sent

    def connectionMade(self) -> None:
        self.data = False
        self.reply(b"")

    def lineReceived(self, line: bytes) -> None:
        if self.data and line != b".":
            return
        verb = line[:4]
        self.verbs.append(verb)
        self.reply(verb)
        self.data = verb == b"DATA"
        if verb == b"QUIT":
            assert self.transport is not None
            self.transport.loseConnection()

    def reply(self, verb: bytes) -> None:
        """
        Reply to a line.
        """
        self.sendLine(b"%d what?" % self.replies.get(verb, 250))


class Nonsense(Scripted):
    """
    A server that replies no code once a mail is taken or refused.
    """

    def reply(self, verb: bytes) -> None:
        """
        Reply to a line.
        """
        if verb in (b"RSET", b"QUIT"):
            self.sendLine(b"bye")
        else:
            super().reply(verb)


class Mute(Protocol):
    """
    Accepts connections, and says nothing, or only something.
    """

    says = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.says)


def mail(text: str = "Smoke!", to: tuple[str, ...] = ("anna@example.net",), subject: str = "Smoke") -> WaitingAction:
    """
    Return a mail to send.
    """
    return WaitingAction("abc", "smoke", "mail", 1_363_035_730_000, {"to": to, "subject": subject, "text": text})


class MailTests(TestCase):
    """
    Mails.
    """

    def setUp(self) -> None:
        self.server = MailServer()
        self.folder = new_folder()
        self.addCleanup(shutil.rmtree, self.folder)
        self.listen(self.server)
        self.settings: dict[str, Any] = {"tls": "none"}
        self.action = MailAction(reactor, self.make_settings, "piß", at_once)

    def listen(self, factory: Any) -> None:
        """
        Let another server listen.
        """
        port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    def make_settings(self) -> MailSettings:
        """
        Return the settings as they are now.
        """
        return MailSettings(server="localhost", from_="house@example.net", port=self.port, **self.settings)

    def certify(self, name: str = "localhost") -> None:
        """
        Give the server a certificate, of a CA that is trusted.
        """
        now = utc_now(time.time())
        authority = make_authority(self.folder, [name], now)
        make_server(self.folder, authority, [name], now)
        self.server.context = PrivateCertificate.loadPEM((self.folder / "server.pem").read_bytes()).options()
        trust(self, self.folder / "ca.crt")

    def login(self, password: str = PASSWORD) -> None:
        """
        Let the server want a login.
        """
        self.server.login = True
        file = self.folder / "password"
        file.write_text(password + "\n")
        self.settings |= {"user": "house", "password_file": file}

    async def send(self, action: WaitingAction | None = None) -> str:
        """
        Send a mail.

        Returns:
            The kind and the text of the error; empty if it was sent.
        """
        try:
            await Deferred.fromCoroutine(self.action.perform(rule("day mon"), action or mail()))
        except ActionFailed as error:
            self.assertNotIn(PASSWORD, str(error))
            return f"{type(error).__name__}: {error}"
        return ""

    def received(self) -> EmailMessage:
        """
        Return the only mail that came.
        """
        ((_, data),) = self.server.mails
        message = email.message_from_bytes(data, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        return message

    async def test_sent(self) -> None:
        """
        A mail arrives as it was written, also with dots at the beginning of lines and a text of some length.
        """
        text = "Rauch in der Küche\n.\n..x\n" + "lang " * 5000
        self.assertEqual(await self.send(mail(text, subject="Küche")), "")
        message = self.received()
        self.assertEqual(message.get_content(), text + "\n")
        self.assertEqual(
            [message[name] for name in ("From", "To", "Subject", "Message-ID", "Auto-Submitted")],
            ["house@example.net", "anna@example.net", "Küche", "<abc@example.net>", "auto-generated"],
        )

    async def test_recipients(self) -> None:
        """
        All get it that the server accepts; if it accepts none, the mail is given up.
        """
        self.assertEqual(await self.send(mail(to=("anna@x.y", "nobody@x.y", "ben@x.y"))), "")
        self.assertEqual([to for to, _ in self.server.mails], ["anna@x.y", "ben@x.y"])
        self.assertRegex(await self.send(mail(to=("nobody@x.y",))), "^ActionFailed: localhost: 550 ")

    async def test_refused(self) -> None:
        """
        A mail that the server refuses, wherever it does so, is given up; one for which it has no time is tried again.
        """
        for code, kind in ((451, "TryAgain"), (554, "ActionFailed")):
            for refused in (b"", b"EHLO", b"MAIL", b"RCPT", b"."):
                verbs: list[bytes] = []
                replies = {b"": 220, b"DATA": 354, b"QUIT": 221, refused: code}
                self.listen(Factory.forProtocol(type("Scripted", (Scripted,), {"replies": replies, "verbs": verbs})))
                self.assertRegex(await self.send(), f"^{kind}: localhost: {code} ")
                self.assertEqual(verbs[-1:], [b"QUIT"] if refused else [])

    async def test_nonsense_afterwards(self) -> None:
        """
        What a server says after it has taken or refused the mail changes nothing, and is no error of usbgate.
        """
        for refused, error in ((b"", ""), (b"MAIL", "ActionFailed: localhost: 554 what?")):
            replies = {b"": 220, b"DATA": 354, **({refused: 554} if refused else {})}
            self.listen(Factory.forProtocol(type("Odd", (Nonsense,), {"replies": replies, "verbs": []})))
            self.assertEqual(await self.send(), error)

    async def test_away(self) -> None:
        """
        Nobody listens; somebody accepts and is mute; somebody closes; somebody speaks something else: try again.
        """
        for timeout in (smtp.TIMEOUT, 0.05):
            self.patch(smtp, "TIMEOUT", timeout)
            if timeout < 1:
                self.listen(Factory.forProtocol(Mute))
                self.assertEqual(await self.send(), "TryAgain: localhost: Timeout waiting for SMTP server response")
            else:
                port, self.port = self.port, 1
                self.assertRegex(await self.send(), "^TryAgain: localhost: .*refused")
                self.port = port
        self.patch(smtp, "TIMEOUT", 30.0)
        self.patch(smtp, "WHOLE_TIMEOUT", 0.05)
        self.assertEqual(await self.send(), "TryAgain: localhost has not taken the mail within 0.05 s")
        self.patch(smtp, "WHOLE_TIMEOUT", 30.0)
        self.listen(Factory.forProtocol(Closing))
        self.assertRegex(await self.send(), "^TryAgain: localhost: Unable to connect to SMTP server: ")
        self.listen(Factory.forProtocol(type("Web", (Mute,), {"says": b"HTTP/1.1 400 Bad Request\r\n\r\n"})))
        self.assertRegex(await self.send(), "^TryAgain: localhost: Invalid response from SMTP server")

    async def test_cancelled(self) -> None:
        """
        At the end, a mail that is being sent is abandoned, and its connection closed.
        """
        self.listen(Factory.forProtocol(Mute))
        sending = Deferred.fromCoroutine(self.action.perform(rule("day mon"), mail()))
        reactor.callLater(0.05, sending.cancel)
        with self.assertRaises(CancelledError):
            await sending

    async def test_starttls(self) -> None:
        """
        With STARTTLS, the certificate is checked, and then the login is sent.
        """
        self.settings["tls"] = "starttls"
        self.assertRegex(await self.send(), "^TryAgain: localhost: it does not offer STARTTLS")
        self.certify()
        self.login()
        self.assertEqual(await self.send(), "")
        self.assertEqual(self.received()["Subject"], "Smoke")

    async def test_login(self) -> None:
        """
        A wrong password is given up, and not shown; a file that cannot be read is tried again.
        """
        self.settings["tls"] = "starttls"
        self.certify()
        self.login("wrong")
        self.assertRegex(await self.send(), "^ActionFailed: localhost: 535 ")
        self.settings["password_file"] = Path("/nowhere")
        self.assertEqual(await self.send(), "TryAgain: /nowhere cannot be read: No such file or directory")

    async def test_wrong_certificate(self) -> None:
        """
        A certificate of another host is refused: nothing is sent.
        """
        self.certify("other.example")
        self.settings["tls"] = "starttls"
        self.assertRegex(await self.send(), "^TryAgain: localhost: .*the certificate is not one of localhost$")
        self.assertEqual(self.server.mails, [])

    async def test_no_tls(self) -> None:
        """
        Where a server has no TLS, nothing is sent without it.
        """
        self.listen(Factory.forProtocol(type("Mail", (Mute,), {"says": b"220 mail.example\r\n"})))
        self.settings["tls"] = "implicit"
        self.assertRegex(await self.send(), "^TryAgain: localhost: .*wrong version number")

    async def test_untrusted_certificate(self) -> None:
        """
        A certificate of an unknown CA is refused, too.
        """
        self.certify()
        os.environ["SSL_CERT_FILE"] = os.devnull
        self.settings["tls"] = "starttls"
        self.assertRegex(
            await self.send(),
            "^TryAgain: localhost: .*is it signed by a CA that this machine trusts, and valid now[?]$",
        )

    async def test_nameless_certificate(self) -> None:
        """
        A certificate that names no host is refused, without a traceback in the log.
        """
        self.certify()
        authority = load_authority(self.folder)
        assert authority is not None
        file = make_client(self.folder, authority, "me", utc_now(time.time()))
        self.server.context = PrivateCertificate.loadPEM(file.read_bytes()).options()
        self.settings["tls"] = "starttls"
        self.assertRegex(await self.send(), "^TryAgain: localhost: .*TLS: certificate verify failed")

    async def test_no_settings(self) -> None:
        """
        A reload may have removed the server.
        """
        self.action = MailAction(reactor, lambda: None, "pi", at_once)
        self.assertEqual(await self.send(), "ActionFailed: there is no [mail] any more")


class Closing(Protocol):
    """
    Closes each connection.
    """

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class ComposeTests(SynchronousTestCase):
    """
    The headers of a mail.
    """

    def test_injection(self) -> None:
        """
        No subject and no text adds a header.
        """
        settings = MailSettings(server="x", from_="house@example.net")
        before = {*email.message_from_bytes(compose(settings, mail())).keys()}
        for evil in ("a\r\nBcc: x@y.z", "a\nBcc: x@y.z\n\nbody", "a\x0bBcc: x", "a\u2028Bcc: x", "é" * 500, ""):
            message = email.message_from_bytes(compose(settings, mail(evil, subject=evil)))
            self.assertEqual({*message.keys()}, before, evil)


class Hook(Resource):
    """
    Receives requests.

    Attributes:
        requests: Their headers and bodies.
        status: What it replies.
        mute: Whether it does not reply.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self.mute = False

    def render_POST(self, request: Request) -> bytes | int:
        headers = {key.decode().lower(): value[0].decode() for key, value in request.requestHeaders.getAllRawHeaders()}
        self.requests.append((headers | {"path": request.uri.decode()}, request.content.read()))  # type: ignore[union-attr]
        if self.mute:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        request.setHeader("Location", "/elsewhere")
        return b"x" * 1_000_000


class WebhookTests(TestCase):
    """
    HTTP requests.
    """

    def setUp(self) -> None:
        self.hook = Hook()
        self.port = self.listen(Site(self.hook))
        self.target: dict[str, Any] = {"url": f"http://localhost:{self.port}/hook?key=secret"}

    def listen(self, factory: Any) -> int:
        """
        Let a server listen, and return its port.
        """
        factory.noisy = False
        port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def send(self) -> str:
        """
        Send a request; see `MailTests.send`.
        """
        sender = WebhookAction(reactor)
        action = WaitingAction("abc", "smoke", "webhook", 0, {"type": "application/json", "body": '{"é": 1}'})
        try:
            await Deferred.fromCoroutine(sender.perform(self.rule, action))
        except ActionFailed as error:
            self.assertNotIn("secret", str(error))
            return f"{type(error).__name__}: {error}".replace(str(self.port), "PORT")
        return ""

    @property
    def rule(self) -> Any:
        """
        The rule whose webhook it is.
        """
        return rule("day mon", webhook=WebhookTarget(**self.target))

    async def test_sent(self) -> None:
        """
        The body arrives as JSON, with an id that is always the same, and the token.
        """
        folder = new_folder()
        self.addCleanup(shutil.rmtree, folder)
        (folder / "token").write_text("s3cret\n")
        self.target["token_file"] = folder / "token"
        self.assertEqual(await self.send(), "")
        ((headers, body),) = self.hook.requests
        self.assertEqual(body, '{"é": 1}'.encode())
        self.assertEqual(headers["path"], "/hook?key=secret")
        self.assertEqual(
            (headers["content-type"], headers["idempotency-key"], headers["authorization"]),
            ("application/json", "abc", "Bearer s3cret"),
        )
        self.assertEqual(WebhookAction(reactor).details(self.rule, mail()), {"HOST": "localhost"})

    async def test_url_file(self) -> None:
        """
        The URL may stand in a file, which is read at each try.
        """
        folder = new_folder()
        self.addCleanup(shutil.rmtree, folder)
        file = folder / "url"
        url, self.target = self.target["url"], {"url_file": file}
        self.assertEqual(await self.send(), f"TryAgain: {file} cannot be read: No such file or directory")
        self.assertEqual(WebhookAction(reactor).details(self.rule, mail()), {})
        file.write_text("nonsense secret")
        reason = "no URL that can be used: another scheme, no host, or a user in it"
        self.assertEqual(await self.send(), f"TryAgain: {file}: {reason}")
        file.write_text(url + "\n")
        self.assertEqual(await self.send(), "")

    async def test_statuses(self) -> None:
        """
        What blames the request is given up, what does not is tried again; redirects are not followed.
        """
        for status, error in (
            (204, ""),
            (404, "ActionFailed: localhost:PORT replied 404"),
            (302, "ActionFailed: localhost:PORT replied 302"),
            (429, "TryAgain: localhost:PORT replied 429"),
            (503, "TryAgain: localhost:PORT replied 503"),
        ):
            self.hook.status = status
            self.assertEqual(await self.send(), error)

    async def test_away(self) -> None:
        """
        A server that refuses, is mute, closes, or speaks something else is tried again.
        """
        self.target["url"] = "http://localhost:1/secret"
        self.assertRegex(await self.send(), "^TryAgain: localhost:1: .*refused")
        for protocol in (Closing, type("Mail", (Mute,), {"says": b"220 mail.example\r\n"})):
            self.target["url"] = f"http://localhost:{self.listen(Factory.forProtocol(protocol))}/secret"
            self.assertRegex(await self.send(), "^TryAgain: localhost:")
        self.patch(webhook, "TIMEOUT", 0.05)
        for port in (self.listen(Factory.forProtocol(Mute)), self.port):
            self.hook.mute = True
            self.target["url"] = f"http://localhost:{port}/secret"
            self.assertRegex(await self.send(), r"^TryAgain: localhost:\w+ has not replied within 0.05 s$")

    async def test_wrong_certificate(self) -> None:
        """
        A server that speaks no TLS, or has a certificate of nobody who is trusted, gets nothing.
        """
        folder = new_folder()
        self.addCleanup(shutil.rmtree, folder)
        now = utc_now(time.time())
        make_server(folder, make_authority(folder, ["localhost"], now), ["localhost"], now)
        context = PrivateCertificate.loadPEM((folder / "server.pem").read_bytes()).options()
        mail = Factory.forProtocol(type("Mail", (Mute,), {"says": b"220 mail.example\r\n"}))
        for factory, reason in [
            (mail, "TLS: wrong version number"),
            (TLSMemoryBIOFactory(context, False, Site(self.hook)), "TLS: certificate verify failed: is it .*"),
        ]:
            self.target["url"] = f"https://localhost:{self.listen(factory)}/secret"
            self.assertRegex(await self.send(), rf"^TryAgain: localhost:\d+: {reason}$")
        self.assertEqual(self.hook.requests, [])

    async def test_certificate(self) -> None:
        """
        A server with a certificate of its own, of a CA that is trusted, gets the request; one with that of another host
        gets nothing.
        """
        folder = new_folder()
        self.addCleanup(shutil.rmtree, folder)
        now = utc_now(time.time())
        authority = make_authority(folder, ["localhost", "other.example"], now)
        trust(self, folder / "ca.crt")
        for name, outcome, requests in [
            ("other.example", r"TryAgain: localhost:\d+: TLS: the certificate is not one of localhost", 0),
            ("localhost", "", 1),
        ]:
            make_server(folder, authority, [name], now)
            context = PrivateCertificate.loadPEM((folder / "server.pem").read_bytes()).options()
            connections = WrappingFactory(TLSMemoryBIOFactory(context, False, Site(self.hook)))
            self.target["url"] = f"https://localhost:{self.listen(connections)}/secret"
            self.assertRegex(await self.send(), f"^{outcome}$")
            self.assertEqual(len(self.hook.requests), requests)
            await until(lambda: not connections.protocols, "no connection")  # noqa: B023  # called in this turn


class CommandTests(SynchronousTestCase):
    """
    Commands.
    """

    def setUp(self) -> None:
        self.gateway = MemoryGateway()
        payload = {"sensor": "9", "command": "L", "arguments": {"LEVEL": "50"}}
        performed = CommandAction(self.gateway).perform(
            rule("day mon"), WaitingAction("a", "smoke", "command", 0, payload)
        )
        self.done = Deferred.fromCoroutine(performed)

    def test_asked(self) -> None:
        """
        It is asked like any other, behind people, in the name of the rule.
        """
        (request,) = self.gateway.requested
        self.assertEqual((request.origin, request.client), ("rule smoke", "rule smoke"))
        self.assertEqual((request.question.command, request.priority), ("L", Priority.RULE))
        self.assertEqual(request.line, b"MSG:L_ID:9_LEVEL:50_ORIGIN:rule smoke")
        self.gateway.answer(0, ("LEVEL", "50"))
        self.successResultOf(self.done)

    def test_failed(self) -> None:
        """
        Only what was not sent is tried again.
        """
        for error, kind in (
            (Offline(), TryAgain),
            (Busy(), TryAgain),
            (Unknown(), TryAgain),
            (TimedOut(), ActionFailed),
            (Malformed("no ID"), ActionFailed),
        ):
            self.setUp()
            self.gateway.fail(0, error)
            failure = self.failureResultOf(self.done)
            self.assertIs(failure.type, kind)
            self.assertEqual(failure.getErrorMessage(), f"sensor 9: {error.text}")


class PublishTests(SynchronousTestCase):
    """
    MQTT messages.
    """

    def test_published(self) -> None:
        """
        A message is published, or tried again while the broker is away.
        """
        publisher = MemoryPublisher()
        sender = PublishAction(publisher)
        action = WaitingAction("a", "smoke", "publish", 0, {"topic": "siren", "payload": "é", "retain": True})
        self.successResultOf(Deferred.fromCoroutine(sender.perform(rule("day mon"), action)))
        (message,) = publisher.published
        self.assertEqual((message.topic, message.payload, message.retain), ("siren", "é".encode(), True))
        publisher.connected = False
        self.failureResultOf(Deferred.fromCoroutine(sender.perform(rule("day mon"), action)), TryAgain)

    def test_not_permitted(self) -> None:
        """
        What the broker does not permit is not tried again.
        """
        publisher = MemoryPublisher()
        publisher.permitted = False
        action = WaitingAction("a", "smoke", "publish", 0, {"topic": "siren", "payload": "ON", "retain": False})
        performed = Deferred.fromCoroutine(PublishAction(publisher).perform(rule("day mon"), action))
        self.assertIs(self.failureResultOf(performed).type, ActionFailed)
