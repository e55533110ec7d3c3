"""
A mail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.message import EmailMessage
from email.utils import formatdate
from types import ModuleType
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from usbgate.rules.actions.interfaces import ActionFailed, IAction, TryAgain
from usbgate.rules.outbox import InThread, WaitingAction
from usbgate.rules.settings import MailSettings, RuleSettings, read_secret

_SUBJECT_LIMIT = 300  # characters


def compose(mail: MailSettings, action: WaitingAction) -> bytes:
    """
    Return a mail with its headers. Lines end in LF, as Twisted wants it.

    Args:
        mail: Who sends it.
        action: What is sent, and to whom.
    """
    message = EmailMessage()
    message["From"] = mail.from_
    message["To"] = ", ".join(action.payload["to"])
    # One line: what comes from a device can't begin another header.
    message["Subject"] = " ".join(action.payload["subject"].split())[:_SUBJECT_LIMIT]
    message["Date"] = formatdate(action.at / 1000, localtime=True)
    message["Message-ID"] = f"<{action.id}@{mail.from_.partition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody answers that they are away
    message.set_content(action.payload["text"], cte="quoted-printable")
    if b"\n." in message.as_bytes():  # Twisted does not double such a dot at the beginning of a chunk
        message.set_content(action.payload["text"], cte="base64")
    return message.as_bytes()


@implementer(IAction)
class MailAction:
    """
    Sends mails by one server, each over a connection of its own.
    """

    log = Logger()

    patience = 86_400.0
    at_most_once = False

    def __init__(
        self, reactor: Any, settings: Callable[[], MailSettings | None], host: str, in_thread: InThread
    ) -> None:
        """
        Args:
            reactor: The reactor.
            settings: Returns the settings of the server as they are now.
            host: The name of this host, with which it greets the server.
            in_thread: Where to load what blocks while it is loaded.
        """
        self._reactor = reactor
        self._settings = settings
        self._host = host.encode("ascii", "replace").replace(b"?", b"-") or b"localhost"
        self._in_thread = in_thread

    def destination(self, action: WaitingAction) -> str:
        return action.rule

    def details(self, rule: RuleSettings, action: WaitingAction) -> Mapping[str, str]:
        return {"TO": ",".join(action.payload["to"])}

    async def perform(self, rule: RuleSettings, action: WaitingAction) -> None:
        mail = self._settings()
        if mail is None:
            raise ActionFailed("there is no [mail] any more")
        password = b""
        if mail.password_file is not None:
            try:
                password = read_secret(mail.password_file).encode()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "not UTF-8"
                raise TryAgain(f"{mail.password_file} cannot be read: {reason}") from None
        smtp = await self._in_thread(_load_smtp)
        to = action.payload["to"]
        refused = await smtp.send(self._reactor, mail, password, to, compose(mail, action), self._host)
        if refused:
            self.log.warn(
                "rule {rule}: {server} takes the mail, but not for {refused}",
                rule=action.rule,
                server=mail.server,
                refused=", ".join(refused),
            )


def _load_smtp() -> ModuleType:
    # `twisted.mail.smtp` asks the name server for the name of this host, which can take many seconds.
    from usbgate.rules.actions import smtp

    return smtp
