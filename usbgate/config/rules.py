"""
Rules and the mail server, as the configuration has them: `[[rule]]` and `[mail]`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from usbgate.config.types import ConfigError, convert, decode, keys, refuse
from usbgate.core.kinds import Kind
from usbgate.rules.conditions import devices_of
from usbgate.rules.settings import (
    RULES_LIMIT,
    MailSettings,
    MailTarget,
    PublishTarget,
    RuleSettings,
    WebhookTarget,
)

RULE_KEYS, MAIL_KEYS = keys(RuleSettings), keys(MailSettings)
_ACTIONS: Mapping[str, type[Struct]] = {"mail": MailTarget, "webhook": WebhookTarget, "publish": PublishTarget}
_ACTION_KEYS = {name: keys(action) for name, action in _ACTIONS.items()}
_EXAMPLES = {
    "mail": 'an address, several, or a table such as { to = "anna@example.net", subject = "Smoke" }',
    "webhook": 'a URL, or a table such as { url = "https://hooks.example.net/smoke", body = "Smoke" }',
    "publish": 'a table such as { topic = "home/siren", payload = "ON" }',
}

_Action = TypeVar("_Action", bound=Struct)


def decode_rules(
    where: str, value: object, folder: str, mail: MailSettings | None, mqtt: bool
) -> tuple[RuleSettings, ...]:
    """
    Parse the tables `[[rule]]`.

    Args:
        where: What an error begins with.
        value: What the file has.
        folder: Where relative paths start.
        mail: The mail server; None if there is none.
        mqtt: Whether there is a broker.

    Raises:
        ConfigError: Something is wrong.
    """
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        refuse(f"{where}rule", "tables [[rule]]", value)
    if len(value) > RULES_LIMIT:
        raise ConfigError(f"{where}rule: expected at most {RULES_LIMIT} tables [[rule]], got {len(value)}")
    rules: dict[str, RuleSettings] = {}
    for number, table in enumerate(value, 1):
        name = convert(f"{where}rule {number}: name", table.get("name", str(number)), RULE_KEYS["name"])
        if name in rules:
            raise ConfigError(f"{where}rule {number}: name: another rule is called {name}, too")
        rules[name] = _rule(f"{where}rule {name}: ", {**table, "name": name}, folder)
        if rules[name].mail is not None and mail is None:
            raise ConfigError(f"{where}rule {name}: mail: there is no table [mail], which names the server")
        if rules[name].publish is not None and not mqtt:
            raise ConfigError(f"{where}rule {name}: publish: there is no table [mqtt], which names the broker")
    return tuple(rules.values())


def _rule(where: str, table: Mapping[str, Any], folder: str) -> RuleSettings:
    plain = {key: value for key, value in table.items() if key not in _ACTIONS}
    settings = decode(where, plain, RULE_KEYS, also=tuple(_ACTIONS))
    settings = {_attribute(key): value for key, value in settings.items()}
    if "when" not in settings:
        raise ConfigError(f"{where}when: missing, expected {RULE_KEYS['when'].expected}")
    mail = table.get("mail")
    if isinstance(mail, str | list):
        mail = {"to": mail}
    webhook = table.get("webhook")
    if isinstance(webhook, str):
        webhook = {"url": webhook}
    for key, value in (("mail", mail), ("webhook", webhook), ("publish", table.get("publish"))):
        if value is not None:
            settings[key] = _action(where, key, value, folder)
    rule = RuleSettings(**settings)
    if not (rule.command or rule.mail or rule.webhook or rule.publish or rule.alarm):
        raise ConfigError(f"{where}what does it do? Expected command, mail, webhook, publish or alarm")
    if rule.webhook is not None and (rule.webhook.url is None) == (rule.webhook.url_file is None):
        raise ConfigError(f"{where}webhook: expected url or url_file")
    return rule


def _action(where: str, key: str, value: object, folder: str) -> Struct:
    if not isinstance(value, dict):
        refuse(f"{where}{key}", _EXAMPLES[key], value)
    return _table(f"{where}{key}.", value, _ACTIONS[key], _ACTION_KEYS[key], folder)


def check_devices(rule: RuleSettings, devices: Iterable[str], where: str) -> None:
    """
    Check that a condition names configured devices only.

    Args:
        rule: The rule.
        devices: The devices; if there are none, a name can't be known yet.
        where: What an error begins with.

    Raises:
        ConfigError: It names another one.
    """
    known = list(devices)
    for device in devices_of(rule.when.term):
        if known and device not in known:
            near = get_close_matches(device, known, 1) or known
            raise ConfigError(f"{where}when: no device is called {device}, did you mean {' or '.join(near)}?")


def decode_mail(where: str, value: object, folder: str) -> MailSettings:
    """
    Parse the table `[mail]`.

    Args:
        where: What an error begins with.
        value: What the file has.
        folder: Where relative paths start.

    Raises:
        ConfigError: Something is wrong.
    """
    if not isinstance(value, dict):
        refuse(f"{where}mail", "a table [mail]", value)
    mail = _table(f"{where}mail.", value, MailSettings, MAIL_KEYS, folder)
    if (mail.user is None) != (mail.password_file is None):
        raise ConfigError(f"{where}mail: expected user and password_file, or neither")
    if mail.user is not None and mail.tls == "none":
        raise ConfigError(f'{where}mail: user with tls = "none": the password would be sent in the clear')
    return mail


def _table(
    where: str, table: Mapping[str, Any], made: type[_Action], kinds: Mapping[str, Kind], folder: str
) -> _Action:
    found = decode(where, table, kinds)
    for key, value in found.items():
        if isinstance(value, Path):
            found[key] = Path(os.path.abspath(os.path.join(folder, value)))
    for field in made.__struct_fields__[: len(made.__struct_fields__) - len(made.__struct_defaults__)]:
        if (key := field.removesuffix("_")) not in found:
            raise ConfigError(f"{where}{key}: missing, expected {kinds[key].expected}")
    return made(**{_attribute(key): value for key, value in found.items()})


def _attribute(key: str) -> str:
    return f"{key}_" if key in ("for", "from") else key
