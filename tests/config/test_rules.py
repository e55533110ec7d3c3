"""
Rules in the configuration.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from usbgate.config.load import load
from usbgate.config.settings import Settings
from usbgate.config.types import ConfigError
from usbgate.rules.settings import MailSettings, RuleCommand
from usbgate.rules.texts import JsonTemplate, Template

MAIL = '[mail]\nserver = "localhost"\nfrom = "a@b.c"\n'
WHEN = '[[rule]]\nwhen = "sensor 2 SMOKE == 1"\n'
ADDRESS = 'an address such as "anna@example.net", or 1 to 20 of them'
COMMAND = 'a command such as "9 ON LEVEL=50", or 1 to 8 of them'

WRONG = [
    ("rule = 1", "rule: expected tables [[rule]], got 1"),
    ("[rule]\nwhen = 1", 'rule: expected tables [[rule]], got {"when": 1}'),
    ("[[rule]]\nalarm = true", 'rule 1: when: missing, expected a condition such as "sensor 2 SMOKE == 1"'),
    (WHEN, "rule 1: what does it do? Expected command, mail, webhook, publish or alarm"),
    (WHEN + "alarm = 1", "rule 1: alarm: expected true or false, got 1"),
    (WHEN + "alarms = true", "rule 1: alarms: unknown key, did you mean alarm?"),
    (WHEN + "webhok = 'x'", "rule 1: webhok: unknown key, did you mean webhook?"),
    (
        WHEN + 'name = "a b"\nalarm = true',
        'rule 1: name: expected 1 to 64 letters, digits, dots and hyphens, got "a b"',
    ),
    (WHEN + 'name = "2"\nalarm = true\n' + WHEN + "alarm = true", "rule 2: name: another rule is called 2, too"),
    (
        '[[rule]]\nname = "smoke"\nwhen = "sensor 2 SMOKE = 1"\nalarm = true',
        "rule smoke: when, column 16: expected a comparison such as == 1, or stale, got =: did you mean ==?",
    ),
    (WHEN + 'for = "8d"\nalarm = true', 'rule 1: for: expected a duration from 0s to 7d such as "2m", got "8d"'),
    (WHEN + 'quiet = "x"\nalarm = true', 'rule 1: quiet: expected a duration from 0s to 31d such as "10m", got "x"'),
    (WHEN + 'command = "9"', f'rule 1: command: expected {COMMAND}, got "9"'),
    (WHEN + 'command = "9 ON X"', f'rule 1: command: expected {COMMAND}, got "9 ON X"'),
    (WHEN + 'command = "9 L LEVEL={value}"', "rule 1: command, column 11: {value}: a command has no placeholders"),
    (WHEN + 'webhook = "http://x/{name}"', "rule 1: webhook.url, column 10: {name}: a URL has no placeholders"),
    (WHEN + "command = []", f"rule 1: command: expected {COMMAND}, got []"),
    (WHEN + 'mail = "a@b.c"', "rule 1: mail: there is no table [mail], which names the server"),
    (MAIL + WHEN + 'mail = "a"', f'rule 1: mail.to: expected {ADDRESS}, got "a"'),
    (MAIL + WHEN + 'mail = "a@b.c\\nBcc: x@y.z"', f'rule 1: mail.to: expected {ADDRESS}, got "a@b.c\\nBcc: x@y.z"'),
    (MAIL + WHEN + "mail = { subject = 'x' }", f"rule 1: mail.to: missing, expected {ADDRESS}"),
    (
        MAIL + WHEN + "mail = { to = 'a@b.c', subject = 'x {vale}' }",
        "rule 1: mail.subject, column 3: {vale}: unknown placeholder, did you mean {value}?",
    ),
    (
        MAIL + WHEN + "mail = 1",
        "rule 1: mail: expected an address, several, or a table such as "
        '{ to = "anna@example.net", subject = "Smoke" }, got 1',
    ),
    (WHEN + "webhook = { body = 'x' }", "rule 1: webhook: expected url or url_file"),
    (WHEN + "webhook = { url = 'http://x', url_file = 'x' }", "rule 1: webhook: expected url or url_file"),
    (
        WHEN + "webhook = 'ftp://secret'",
        "rule 1: webhook.url: expected an http:// or https:// URL, got another scheme, no host, or a user in it",
    ),
    (
        WHEN + "publish = { topic = 'a/{sensor 1 T}', payload = 'x' }",
        "rule 1: publish.topic, column 3: {sensor 1 T}: a topic has no placeholders",
    ),
    (
        WHEN + "publish = { topic = 'a', payload = 'x' }",
        "rule 1: publish: there is no table [mqtt], which names the broker",
    ),
    (
        WHEN + "publish = { topic = 'a/#', payload = 'x' }",
        'rule 1: publish.topic: expected a topic without + and #, and without $ at its beginning, got "a/#"',
    ),
    ("[mail]\nserver = 'x'", 'mail.from: missing, expected an address such as "house@example.net"'),
    ("mail = 'x'", 'mail: expected a table [mail], got "x"'),
    (MAIL + "user = 'x'", "mail: expected user and password_file, or neither"),
    (
        MAIL + "user = 'x'\npassword_file = 'p'\ntls = 'none'",
        'mail: user with tls = "none": the password would be sent in the clear',
    ),
    (MAIL + "tls = 'ssl'", 'mail.tls: expected "starttls", "implicit" or "none", got "ssl"'),
    (
        "[device.leonardo]\npath = '/dev/x'\n[[rule]]\nwhen = 'device leonrdo offline'\nalarm = true",
        "rule 1: when: no device is called leonrdo, did you mean leonardo?",
    ),
    ((WHEN + "alarm = true\n") * 201, "rule: expected at most 200 tables [[rule]], got 201"),
]


class RuleSettingsTests(SynchronousTestCase):
    """
    `[[rule]]` and `[mail]`.
    """

    def setUp(self) -> None:
        self.folder = Path(os.path.abspath(self.mktemp()))
        self.folder.mkdir()
        self.file = self.folder / "usbgate.toml"

    def load(self, text: str) -> Settings:
        """
        Load a configuration.
        """
        self.file.write_text(text)
        return load(self.file, environ={})

    def test_wrong(self) -> None:
        """
        The error for anything wrong names the rule, the key and, in texts, the column.
        """
        for text, line in WRONG:
            with self.subTest(text=text[:100]):
                error = self.assertRaises(ConfigError, self.load, text)
                self.assertEqual(str(error), f"{self.file}: {line}")

    def test_may_encrypt(self) -> None:
        """
        It is known whether TLS may be needed: for mail unless it is switched off, for https, and for a URL in a file.
        """
        for text, needed in [
            (MAIL, True),
            (MAIL + 'tls = "none"\n', False),
            (WHEN + "alarm = true", False),
            (WHEN + 'webhook = "http://a/"', False),
            (WHEN + 'webhook = "https://a/"', True),
            (WHEN + 'webhook = { url_file = "a" }', True),
            ('[mqtt]\nbroker = "tcp:a:1883"', False),
            ('[mqtt]\nbroker = "tls:a:8883"', True),
            ('listen = ["ssl:1"]', True),
            ('http = "ssl:1"', True),
            ('[device.a]\npath = "tls:a:1"', True),
            ('[device.a]\npath = "/dev/a"', False),
        ]:
            self.assertEqual(self.load(text).may_encrypt, needed, text)

    def test_everything(self) -> None:
        """
        Each action has a short form and a table; paths are relative to the file.
        """
        settings = self.load(
            MAIL
            + WHEN
            + 'name = "fumée.1"\nfor = 90\nquiet = "1h"\n'
            + 'command = ["9 ON", "10 L level=50"]\nmail = ["a@b.c", "d@e.f"]\n'
            + 'webhook = { url_file = "hook", token_file = "/token", body = { a = "{value}" } }\nalarm = true\n'
            + WHEN
            + 'webhook = "HTTPS://x.y/z?a=b"\nmail = { to = "a@b.c", text = "x" }\n'
            + 'publish = { topic = "t", payload = "ON" }\n'
            + '[mqtt]\nbroker = "tcp:localhost:1883"\n'
        )
        first, second = settings.rules
        self.assertEqual((first.name, first.for_, first.quiet, second.name), ("fumée.1", 90.0, 3600.0, "2"))
        self.assertEqual(first.command, (RuleCommand("9", "ON"), RuleCommand("10", "L", {"LEVEL": "50"})))
        assert first.mail is not None
        self.assertEqual((first.mail.to, first.mail.text), (("a@b.c", "d@e.f"), None))
        assert first.webhook is not None
        self.assertEqual((first.webhook.url_file, first.webhook.token_file), (self.folder / "hook", Path("/token")))
        self.assertIsInstance(first.webhook.body, JsonTemplate)
        assert second.webhook is not None
        self.assertEqual(second.webhook.url, "https://x.y/z?a=b")
        assert second.publish is not None
        self.assertEqual((second.publish.payload, second.publish.retain), (Template(("ON",)), False))
        self.assertEqual(settings.mail, MailSettings(server="localhost", from_="a@b.c"))
