"""
Who may do what with a real daemon: users, tokens and the local token.
"""

from __future__ import annotations

import os
import socket

from click.testing import CliRunner

from tests.support.daemon import RunningCase
from tests.support.running import environment
from tests.support.waiting import LIMIT, eventually
from usbgate.access.tokens import TOKENS_FILE
from usbgate.cli.main import main


class AccessTests(RunningCase):
    """
    A daemon that listens on a port and on a Unix socket.
    """

    def usbgate(self, *arguments: str, status: int = 0, **environ: str) -> str:
        """
        Run `usbgate` in this process; return what it prints.
        """
        done = CliRunner().invoke(main, arguments, env={**environment(), "USBGATE_STATE": str(self.state), **environ})
        self.assertEqual(done.exit_code, status, done.output)
        return done.output.strip()

    def test_access(self) -> None:
        """
        Over TCP a program may command, and administer with a token: of `usbgate token`, from that moment until it is
        removed, or the local one, which the commands find by themselves. On a Unix socket the daemon's user may
        administer. No token is written to the log or to a device.
        """
        device = self.plug()
        path = self.folder / "socket"
        daemon = self.run_daemon("--database", "none", "--device", str(device.path), "--listen", f"unix:{path}")
        client = self.online(daemon)
        self.assertTrue(client.word("malformed")[0].startswith("ERROR:denied_"))
        self.assertNotIn("_PATH:", client.word("devices")[0])
        with socket.socket(socket.AF_UNIX) as local:
            local.settimeout(LIMIT)
            local.connect(str(path))
            local.sendall(b"malformed\n")
            self.assertEqual(local.makefile().readline(), "OK:malformed\n")

        port = ("-p", str(daemon.port))
        self.usbgate("malformed", *port)
        self.assertIn(str(device.path), self.usbgate("devices", *port))
        secret = self.usbgate("token", "add", "phone", "--role", "admin", "--expires", "1d")
        self.assertEqual(client.word(f"auth {secret}"), ["NAME:phone_ROLE:admin", "OK:auth"])
        self.assertEqual(client.word("malformed"), ["OK:malformed"])
        client.say(f"MSG:J_ID:20_AUTH:{secret}")
        self.assertEqual(client.receive(), "MSG:J_ID:20")
        self.assertTrue(client.receive().startswith("ID:20_VALUE:456_"))
        self.assertEqual(device.received, [b"MSG:J_ID:20_ORIGIN:127.0.0.1"])
        self.assertRegex(self.usbgate("token", "list"), r"\ANAME +ROLE +SENSORS +CREATED +EXPIRES\nphone +admin ")
        denied = self.usbgate("malformed", *port, status=1, USBGATE_STATE=self.mktemp())
        self.assertRegex(
            denied,
            r"\Ausbgate: denied: .*; run this as root or as the daemon's user, or send a token: --token-file, ",
        )
        self.assertIn("no such token", self.usbgate("ping", *port, status=1, USBGATE_TOKEN="wrong"))
        self.assertEqual(self.usbgate("ping", *port, USBGATE_TOKEN=secret), "usbgate replies")
        elsewhere = {"USBGATE_STATE": self.mktemp()}
        file = self.folder / "token"
        wrong = ("wrong", "no such token.*from .*/token"), ("", "/token has no token")
        for text, printed in ((f"{secret}\n", "no line was malformed"), *wrong):
            file.write_text(text)
            given = ("malformed", *port, "--token-file", str(file))
            status = int((text, printed) in wrong)
            self.assertRegex(self.usbgate(*given, status=status, USBGATE_TOKEN="wrong", **elsewhere), printed)
        own = self.folder / "usbgate"
        own.mkdir()
        (own / "token").write_text(secret)
        self.usbgate("malformed", *port, XDG_CONFIG_HOME=str(self.folder), **elsewhere)

        self.assertEqual(self.usbgate("token", "remove", "phone"), "phone is removed")
        eventually(lambda: client.receive().startswith("ERROR:denied_TEXT:the token was removed"), "it gets an error")
        self.assertEqual(client.receive(), "")
        self.assertEqual(self.usbgate("token", "list"), "there are no tokens; `usbgate token add` makes one")
        local_token = daemon.local_token()
        daemon.stop()
        for text in (secret, local_token):
            self.assertNotIn(text, daemon.log)
        left = [name for name in os.listdir(self.state) if "token" in name]
        self.assertEqual(sorted(left), [TOKENS_FILE, f"{TOKENS_FILE}.lock"])
