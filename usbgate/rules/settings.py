"""
The settings of rules: `[[rule]]` and `[mail]`, as this package reads them.

The attributes with a type that has a `Kind` are the keys of a table; one that is a word of Python ends in `_`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from usbgate.core.fieldline import is_sensor_id
from usbgate.core.kinds import Buttons, File, Kind, YesNo, duration, kind_of, matching
from usbgate.rules.conditions import SensorField, Term, fields_of
from usbgate.rules.language import LanguageError, parse_condition
from usbgate.rules.texts import NAMES, JsonTemplate, Template

RULES_LIMIT = 200
COMMANDS_LIMIT = 8
RECIPIENTS_LIMIT = 20

_PLACEHOLDER = re.compile(rf"\{{(?:{'|'.join(NAMES)}|sensor\s[^{{}}]*)\}}")

# Nothing in it ends a header of a mail or a command of SMTP.
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_HOST = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|[0-9a-fA-F:]+"


class When(Struct, frozen=True):
    """
    A condition.

    Attributes:
        text: As the file spells it, in one line.
        term: What it means.
    """

    text: str
    term: Term

    @classmethod
    def parse(cls, text: str) -> When:
        """
        Read a condition.

        Raises:
            LanguageError: It is not one.
        """
        return cls(" ".join(text.split()), parse_condition(text))


class RuleCommand(Struct, frozen=True):
    """
    A command to a sensor: what follows `usbgate ask`.
    """

    sensor: str
    command: str
    arguments: Mapping[str, str] = {}

    @classmethod
    def parse(cls, text: str) -> RuleCommand:
        """
        Read a command such as `9 ON LEVEL=50`.

        Raises:
            LanguageError: It has a placeholder.
            ValueError: It is not one.
            Malformed: A value would not read back.
        """
        _refuse_placeholders(text, "a command")
        sensor, _, rest = text.strip().partition(" ")
        if not is_sensor_id(sensor):
            raise ValueError(f"not a sensor id: {sensor!r}")
        (button,) = _buttons({sensor: rest})
        return cls(sensor, button.command, button.arguments)


_buttons = kind_of(Buttons).parse


def _one_or_more(parse: Callable[[str], Any], most: int) -> Callable[[str | list[str]], tuple[Any, ...]]:
    def parse_all(held: str | list[str]) -> tuple[Any, ...]:
        texts = [held] if isinstance(held, str) else held
        if not 0 < len(texts) <= most:
            raise ValueError(f"not 1 to {most}")
        return tuple(map(parse, texts))

    return parse_all


def _refuse_placeholders(text: str, where: str) -> None:
    if found := _PLACEHOLDER.search(text):
        raise LanguageError(found.start() + 1, f"{found[0]}: {where} has no placeholders")


def _parse_topic(text: str) -> str:
    _refuse_placeholders(text, "a topic")
    return text


def _parse_address(text: str) -> str:
    if not _ADDRESS.fullmatch(text) or len(text) > 254:  # RFC 5321, section 4.5.3.1.3
        raise ValueError(f"not an address: {text!r}")
    return text


def parse_url(text: str) -> str:
    """
    Return the URL of a webhook, with its scheme in lower case.

    Raises:
        ValueError: It is not one.
        LanguageError: It has a placeholder.
    """
    _refuse_placeholders(text, "a URL")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("another scheme, no host, or a user in it")
    if not text.isascii() or not text.isprintable() or " " in text or parts.fragment or parts.port == 0:
        raise ValueError("a fragment, or other characters than those of ASCII")
    return parts.scheme + text[len(parts.scheme) :]


def _parse_body(held: str | dict[str, Any]) -> Template | JsonTemplate:
    return Template.parse(held) if isinstance(held, str) else JsonTemplate.parse(held)


RuleName = Annotated[str, matching("1 to 64 letters, digits, dots and hyphens", r"(?:[^\W_]|[.-]){1,64}")]
Conditional = Annotated[When, Kind('a condition such as "sensor 2 SMOKE == 1"', parse=When.parse)]
For = Annotated[float, duration("0s", "7d", "2m")]
Quiet = Annotated[float, duration("0s", "31d", "10m")]
RuleCommands = Annotated[
    tuple[RuleCommand, ...],
    Kind(
        f'a command such as "9 ON LEVEL=50", or 1 to {COMMANDS_LIMIT} of them',
        str | list[str],
        _one_or_more(RuleCommand.parse, COMMANDS_LIMIT),
    ),
]
Recipients = Annotated[
    tuple[str, ...],
    Kind(
        f'an address such as "anna@example.net", or 1 to {RECIPIENTS_LIMIT} of them',
        str | list[str],
        _one_or_more(_parse_address, RECIPIENTS_LIMIT),
    ),
]
Address = Annotated[str, Kind('an address such as "house@example.net"', parse=_parse_address)]
FilledText = Annotated[Template, Kind("a text", parse=Template.parse)]
Body = Annotated[
    Template | JsonTemplate, Kind("a text, or a table that is sent as JSON", str | dict[str, Any], _parse_body)
]
Url = Annotated[str, Kind("an http:// or https:// URL", parse=parse_url, secret=True)]
Topic = Annotated[
    str,
    Kind(
        "a topic without + and #, and without $ at its beginning",
        Annotated[str, Meta(pattern=r"^[^$+#\x00][^+#\x00]{0,199}\Z")],
        _parse_topic,
    ),
]
Host = Annotated[str, matching("a host name or an address", _HOST)]
Port = Annotated[int, Kind("an integer from 1 to 65535", Annotated[int, Meta(ge=1, le=65535)])]
MailTls = Annotated[
    Literal["starttls", "implicit", "none"],
    Kind('"starttls", "implicit" or "none"', Literal["starttls", "implicit", "none"]),
]
User = Annotated[str, matching("a name without control characters", r"[^\x00-\x1f\x7f]{1,256}")]


class MailTarget(Struct, frozen=True, kw_only=True):
    """
    A mail.

    Attributes:
        to: The addresses.
        subject: The subject; None for one that names the rule.
        text: The text; None for one with the readings.
    """

    to: Recipients
    subject: FilledText | None = None
    text: FilledText | None = None


class WebhookTarget(Struct, frozen=True, kw_only=True):
    """
    An HTTP request.

    Attributes:
        url: Where; None if `url_file` has it.
        url_file: A file with the URL.
        token_file: A file with a token; None for none.
        body: What is sent; None for a JSON object with the readings.
    """

    url: Url | None = None
    url_file: File | None = None
    token_file: File | None = None
    body: Body | None = None


class PublishTarget(Struct, frozen=True, kw_only=True):
    """
    An MQTT message.

    Attributes:
        topic: Its topic.
        payload: What it says.
        retain: Whether the broker keeps it.
    """

    topic: Topic
    payload: Body
    retain: YesNo = False


class RuleSettings(Struct, frozen=True, kw_only=True):
    """
    A rule: `[[rule]]`.

    Attributes:
        name: Its name.
        when: The condition.
        for_: Seconds for which the condition must hold before the rule fires.
        quiet: Seconds after it has fired in which it does not fire again.
        command: Commands.
        mail: A mail.
        webhook: An HTTP request.
        publish: An MQTT message.
        alarm: Whether it raises an alarm.
    """

    name: RuleName
    when: Conditional
    for_: For = 0.0
    quiet: Quiet = 0.0
    command: RuleCommands = ()
    mail: MailTarget | None = None
    webhook: WebhookTarget | None = None
    publish: PublishTarget | None = None
    alarm: YesNo = False

    def fields(self) -> Iterator[SensorField]:
        """
        Yield the fields whose readings it needs; some perhaps twice.
        """
        yield from fields_of(self.when.term)
        texts: list[Template | JsonTemplate | None] = []
        if self.mail is not None:
            texts += [self.mail.subject, self.mail.text]
        if self.webhook is not None:
            texts.append(self.webhook.body)
        if self.publish is not None:
            texts.append(self.publish.payload)
        for text in texts:
            if text is not None:
                yield from text.fields()


class MailSettings(Struct, frozen=True, kw_only=True):
    """
    The mail server: `[mail]`.

    Attributes:
        server: Its host name.
        from_: The sender's address.
        tls: How it speaks TLS.
        port: Its port; None for the usual one.
        user: The login; None for none.
        password_file: A file with the password.
    """

    server: Host
    from_: Address
    tls: MailTls = "starttls"
    port: Port | None = None
    user: User | None = None
    password_file: File | None = None


def read_secret(file: Path) -> str:
    """
    Return what a file with a secret has, without whitespace at its ends.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    return file.read_text("utf-8").strip()
