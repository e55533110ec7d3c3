"""
TLS with a real daemon, with the CA and the certificates of `usbgate tls`.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.request import Request, urlopen

from click.testing import CliRunner

from tests.support.daemon import RunningCase
from tests.support.running import RUN, TwistdDaemon, free_port
from tests.support.waiting import LIMIT
from usbgate.cli.main import main


class TlsTests(RunningCase):
    """
    A daemon that listens on four ports: with and without TLS, for clients with certificates, and for HTTPS.
    """

    def usbgate(self, *arguments: str, status: int = 0) -> str:
        """
        Run `usbgate`; return what it prints.
        """
        environ = {"USBGATE_STATE": str(self.state), "XDG_CONFIG_HOME": "/nonexistent"}
        done = CliRunner().invoke(main, arguments, env=environ)
        self.assertEqual(done.exit_code, status, done.output)
        return done.output.strip()

    def connect_tls(self, port: int) -> ssl.SSLSocket:
        """
        Connect, and verify the daemon's certificate.
        """
        context = ssl.create_default_context(cafile=self.ca)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        raw = socket.create_connection(("127.0.0.1", port), LIMIT)
        client = context.wrap_socket(raw, server_hostname="127.0.0.1")
        self.addCleanup(client.close)
        return client

    def test_tls(self) -> None:
        """
        Clients that trust the CA get in, and nobody else is believed; a new certificate needs no restart.
        """
        printed = self.usbgate("tls", "init")
        self.ca = self.state / "tls" / "ca.crt"
        port, strict, https = free_port(), free_port(), free_port()
        device = self.plug()
        daemon = TwistdDaemon(
            self.state,
            *("--database", "none", "--device", str(device.path)),
            *("--listen", f"ssl:{port}:interface=127.0.0.1"),
            *("--listen", f"ssl:{strict}:interface=127.0.0.1:clientCA={self.ca}"),
            http=f"ssl:{https}:interface=127.0.0.1",  # not forked: all of these have loaded pyOpenSSL
        )
        self.addCleanup(daemon.stop)
        self.online(daemon.ready())

        client = self.connect_tls(port)
        self.flood(client)
        self.https(https)
        self.commands(daemon.port, port)
        self.certificates(strict)
        self.renewal(port, client)
        shown = subprocess.run(
            ["openssl", "x509", "-in", str(self.ca), "-noout", "-fingerprint", "-sha256"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertIn(shown.stdout.strip().partition("=")[2], printed)
        with socket.create_connection(("127.0.0.1", port), LIMIT) as stranger:  # not even TLS
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while stranger.recv(4096):
                pass
        client.close()  # the stop waits for its close_notify
        daemon.stop()
        self.assertIn(f"the page is at https://127.0.0.1:{https}/", daemon.log)
        self.assertNotRegex(daemon.log, "Traceback|Unhandled")

    def flood(self, client: ssl.SSLSocket) -> None:
        """
        All of many requests in one write are answered, and long replies arrive whole.
        """
        client.sendall(b"MSG:J_ID:20\n" + b"help\n" * 500 + b"ping\n")
        received = b""
        while not received.endswith(b"OK:ping\n") or b"VALUE:456" not in received:
            received += client.recv(65536)
        self.assertEqual(received.count(b"OK:help\n"), 500)

    def https(self, port: int) -> None:
        """
        The HTTP API speaks TLS, and the cookie of a login is never sent without it.
        """
        context = ssl.create_default_context(cafile=self.ca)
        with urlopen(f"https://localhost:{port}/healthz", timeout=LIMIT, context=context) as response:
            self.assertIn("status", json.load(response))
        token = self.usbgate("token", "add", "browser", "--role", "read")
        body = json.dumps({"token": token}).encode()
        login = Request(f"https://localhost:{port}/api/v1/login", body, {"Content-Type": "application/json"})
        with urlopen(login, timeout=LIMIT, context=context) as response:
            self.assertIn("; Secure", response.headers["Set-Cookie"])

    def commands(self, plain: int, encrypted: int) -> None:
        """
        The commands verify; on this machine they know the CA and, from the configuration, where TLS is spoken.
        """
        at = ("--host", "127.0.0.1", "-p", str(encrypted))
        self.assertEqual(self.usbgate("ping", *at, "--tls"), "usbgate replies")
        self.usbgate("malformed", *at, "--tls")  # with the local token
        self.assertIn("VALUE:456", self.usbgate("ask", "20", *at, "--ca", str(self.ca)))
        config = self.folder / "usbgate.toml"
        config.write_text(f'state = "state"\nlisten = ["ssl:{encrypted}:interface=127.0.0.1"]\n')
        self.assertIn("VALUE:456", self.usbgate("--config", str(config), "ask", "20"))

        self.usbgate("tls", "init", "--folder", str(self.folder / "other"))
        other = ("--ca", str(self.folder / "other" / "ca.crt"))
        self.assertIn("cannot be verified", self.usbgate("ping", *at, *other, status=1))
        self.assertIn("if it expects TLS, use --tls", self.usbgate("ping", *at, status=1))
        self.assertIn("does not speak TLS", self.usbgate("ping", "-p", str(plain), "--tls", status=1))
        self.assertIn("not a certificate", self.usbgate("ping", *at, "--ca", str(config), status=1))
        # Spelled so, a host counts as another machine.
        self.assertEqual(self.usbgate("ping", "--host", "LOCALHOST", *at[2:], "--ca", str(self.ca)), "usbgate replies")
        self.assertIn("mismatch", self.usbgate("ping", "--host", "127.1", *at[2:], "--ca", str(self.ca), status=1))

    def certificates(self, port: int) -> None:
        """
        Where the daemon demands certificates, only a client that has one of its CA gets in.
        """
        at = ("--host", "127.0.0.1", "-p", str(port), "--tls")
        self.assertIn("it demands a certificate: use --cert", self.usbgate("ping", *at, status=1))
        self.usbgate("tls", "client", "phone")
        mine = self.state / "tls" / "client-phone.pem"
        self.assertEqual(self.usbgate("ping", *at, "--cert", str(mine)), "usbgate replies")
        self.usbgate("tls", "client", "phone", "--folder", str(self.folder / "other"))
        foreign = self.folder / "other" / "client-phone.pem"
        self.assertIn("refused: ", self.usbgate("ping", *at, "--cert", str(foreign), status=1))

    def renewal(self, port: int, client: ssl.SSLSocket) -> None:
        """
        `tls init` keeps the CA; the next connection gets the new certificate, and those that are there go on.
        """
        ca = self.ca.read_bytes()
        before = client.getpeercert(binary_form=True)
        self.assertIn("kept ", self.usbgate("tls", "init"))
        self.assertEqual(self.ca.read_bytes(), ca)
        with closing(self.connect_tls(port)) as renewed:
            self.assertNotEqual(renewed.getpeercert(binary_form=True), before)
        client.sendall(b"ping\n")
        self.assertEqual(client.recv(4096), b"OK:ping\n")

    def test_missing(self) -> None:
        """
        A daemon that has no certificate does not start, and says what to do.
        """
        listen = ("--device", "/dev/null", "--listen", f"ssl:{free_port()}:interface=127.0.0.1")
        daemon = TwistdDaemon(self.state, "--database", "none", *listen, program=RUN)
        self.addCleanup(daemon.stop)
        self.assertEqual(daemon.process.wait(LIMIT), 1)
        found = re.findall(r"cannot listen on ssl:.*", daemon.log)
        self.assertIn("No such file or directory; `usbgate tls init` makes one", found[0])
        self.assertFalse(Path(self.state / "tls").exists())
