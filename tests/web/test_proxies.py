"""
The reverse proxies whose configuration is in etc/proxy, in front of the demo's home.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from base64 import b64encode
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.folders import new_folder
from tests.support.home import flat
from tests.support.running import ROOT, free_port
from tests.support.waiting import LIMIT, eventually

# The password is sesame; in the form that all of them read, and in that of Caddy.
_SHA1 = "{SHA}CEo1Ae3vaEXy8eQZjsOiuBz1xrw="
_BCRYPT = "$2b$04$abcdefghijklmnopqrstuuinwY/tkBVrn3xrxQI/TgnMHhkvl85RW"
_ALLOWED = {"Authorization": "Basic " + b64encode(b"zoe:sesame").decode(), "Content-Type": "application/json"}


def find(program: str) -> Path:
    """
    Find a program.

    Raises:
        SkipTest: It is not installed.
    """
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        raise SkipTest(f"{program} is not installed")
    return Path(path)


class ProxyFileTests(SynchronousTestCase):
    """
    Each file as it is, except for the address, the certificate, and where the password is.
    """

    def setUp(self) -> None:
        """
        Make a folder with the password.
        """
        self.folder, self.port = new_folder(), free_port()
        self.folder.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.passwords = self.folder / "usbgate.htpasswd"
        self.passwords.write_text(f"zoe:{_SHA1}\n")

    def adapted(self, name: str, changes: dict[str, str]) -> str:
        """
        Return a file with changes, each of which is a pattern that occurs in it.
        """
        text = (ROOT / "etc" / "proxy" / name).read_text()
        for pattern, new in {r"\b127\.0\.0\.1:8080\b": f"127.0.0.1:{flat().http_port}", **changes}.items():
            text, count = re.subn(pattern, new.replace("\\", r"\\"), text)
            self.assertEqual(count, 1, pattern)
        return text

    def run_proxy(self, *command: str | Path) -> None:
        """
        Run a proxy until the end of the test, and check everything that passes through it.
        """
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "USBGATE_PASSWORD": _BCRYPT, "HOME": str(self.folder)},
                start_new_session=True,
            )
        self.addCleanup(process.wait, LIMIT)
        # Apache, asked to stop, waits 10 s for a stream of events, whose client it has not missed yet.
        self.addCleanup(os.killpg, process.pid, signal.SIGKILL)

        def listens() -> bool:
            self.assertIsNone(process.poll(), (self.folder / "log").read_text())
            try:
                return self.call("GET", "/healthz", headers={})[0] == 401
            except OSError:
                return False

        eventually(listens, "the proxy asks for a password")
        self.assertEqual(self.call("GET", "/")[0], 200)
        status, body = self.call("POST", "/api/v1/sensors/20/ask", "{}")
        self.assertEqual((status, json.loads(body)["sensor"]), (200, "20"))
        status, body = self.call("GET", "/api/v1/sensors/garage%2Fdoor%25")
        self.assertEqual((status, json.loads(body)["detail"]), (404, "no such sensor: garage/door%"))
        with closing(self.connect()) as connection:
            connection.request("GET", "/api/v1/events", headers=_ALLOWED)
            stream = connection.getresponse()
            self.assertTrue(stream.readline())  # at once, though the stream goes on

    def connect(self) -> http.client.HTTPConnection:
        """
        Connect to the proxy.
        """
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)

    def call(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] = _ALLOWED
    ) -> tuple[int, bytes]:
        """
        Make a call; return its status and body.
        """
        with closing(self.connect()) as connection:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()

    def test_nginx(self) -> None:
        """
        nginx.
        """
        nginx = find("nginx")
        server = self.adapted(
            "nginx.conf",
            {
                "listen 443 ssl;": f"listen 127.0.0.1:{self.port};",
                "ssl_certificate /.*;": "",
                "ssl_certificate_key .*;": "",
                "/etc/nginx/usbgate.htpasswd;": f"{self.passwords};",
            },
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds)
        config = self.folder / "nginx.conf"
        config.write_text(
            f"daemon off; master_process off; pid {self.folder}/pid; error_log stderr crit; events {{}}\n"
            f"http {{ access_log off; {paths}\n{server}\n}}\n"
        )
        self.run_proxy(nginx, "-c", config, "-e", "stderr")

    def test_caddy(self) -> None:
        """
        Caddy.
        """
        caddy = find("caddy")
        site = self.adapted("Caddyfile", {r"(?m)^house.example \{": f"http://127.0.0.1:{self.port} {{"})
        config = self.folder / "Caddyfile"
        config.write_text(f"{{\n\tadmin off\n}}\n{site}")
        self.run_proxy(caddy, "run", "--config", config, "--adapter", "caddyfile")

    def test_apache(self) -> None:
        """
        Apache.
        """
        apache = find("apache2")
        modules = apache.resolve().parents[1] / "lib" / "apache2" / "modules"
        site = self.adapted(
            "apache.conf",
            {
                r"<VirtualHost \*:443>": f"<VirtualHost *:{self.port}>",
                "SSLEngine on": "",
                "SSLCertificateFile .*": "",
                "SSLCertificateKeyFile .*": "",
                "AuthUserFile .*": f"AuthUserFile {self.passwords}",
            },
        )
        names = "mpm_event authn_core authn_file authz_core authz_user auth_basic proxy proxy_http"
        loads = [f"LoadModule {name}_module {modules}/mod_{name}.so" for name in names.split()]
        config = self.folder / "apache.conf"
        config.write_text(
            "\n".join(
                [
                    *(f"ServerRoot {self.folder}", f"PidFile {self.folder}/pid", f"Listen 127.0.0.1:{self.port}"),
                    *("ServerName localhost", f"ErrorLog {self.folder}/error.log", f"DefaultRuntimeDir {self.folder}"),
                    *(("User nobody", "Group nogroup") if os.getuid() == 0 else ()),
                    *(*loads, site),
                ]
            )
        )
        self.run_proxy(apache, "-f", config, "-D", "FOREGROUND")
