"""
Contexts of OpenSSL for a server, of files that change.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import timedelta

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.folders import new_folder
from tests.support.running import ROOT
from tests.support.waiting import LIMIT
from usbgate.access.certificates import LIFE, make_authority, make_server, utc_now
from usbgate.net.tls import EXPIRY_INTERVAL, ExpiryWatch, ServerContexts, TlsError

NOW = utc_now(1.8e9)


class FilesCase(SynchronousTestCase):
    """
    A folder with certificates.
    """

    def setUp(self) -> None:
        """
        Make a CA and a certificate.
        """
        self.folder = new_folder()
        self.addCleanup(shutil.rmtree, self.folder)
        self.authority = make_authority(self.folder, [], NOW)
        self.file = self.folder / "server.pem"
        self.renew()

    def renew(self, days: int = 0) -> None:
        """
        Make another certificate, some days later.
        """
        make_server(self.folder, self.authority, ["pi.local"], NOW + timedelta(days=days))


class ContextTests(FilesCase):
    """
    The files of an endpoint.
    """

    def test_renewed(self) -> None:
        """
        A context is made once for many connections, and anew when the file has changed. If that fails, the old one
        stays, and the failure is logged once.
        """
        contexts = ServerContexts({"privateKey": str(self.file)})
        first = contexts.context()
        self.assertIs(contexts.context(), first)
        self.renew()
        second = contexts.context()
        self.assertIsNot(second, first)
        whole = self.file.read_bytes()
        for broken in (whole[:-200], whole.replace(b"PRIVATE", b"PUBLIC"), b""):
            self.file.write_bytes(broken)
            with capturedLogs() as logged:
                self.assertIs(contexts.context(), second)
                self.assertIs(contexts.context(), second)
            self.assertEqual(len(logged), 1, logged)
            self.assertIn("the certificate from before stays in use: ", formatEvent(logged[0]))
        self.file.unlink()
        self.assertIs(contexts.context(), second)
        self.renew()
        self.assertIsNot(contexts.context(), second)

    def test_errors(self) -> None:
        """
        What can't be used is one line that names the file.
        """
        authority = self.folder / "ca.crt"
        empty = self.folder / "empty"
        empty.touch()
        own = {"privateKey": str(self.file)}
        for files, text in [
            (
                {"privateKey": str(self.folder / "none")},
                "none: No such file or directory; `usbgate tls init`",
            ),
            ({"privateKey": str(empty)}, "empty is not a private key with its certificate"),
            ({"privateKey": str(authority)}, "ca.crt is not a private key with its certificate"),
            ({**own, "certKey": str(authority)}, "server.pem is not a private key with its certificate"),
            ({**own, "clientCA": str(empty)}, "empty has no certificate"),
            ({**own, "extraCertChain": str(empty)}, "empty has no certificate"),
        ]:
            self.assertIn(text, str(self.assertRaises(TlsError, ServerContexts, files)))
        key = {"privateKey": str(self.folder / "ca.key"), "certKey": str(authority), "clientCA": str(authority)}
        ServerContexts(key).context()

    def test_executable_memory(self) -> None:
        """
        No memory is needed that can be both written and executed, which systemd's MemoryDenyWriteExecute denies.
        """
        files = {"privateKey": str(self.file), "clientCA": str(self.folder / "ca.crt")}
        code = f"""
import ctypes, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, from Linux 6.3 on
    sys.exit("skip")
from usbgate.net.tls import ServerContexts
from usbgate.net.tlsclient import ClientContexts
ServerContexts({files}).serverConnectionForTLS(None)
ClientContexts("localhost").clientConnectionForTLS(None)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=LIMIT)
        if done.stderr == "skip\n":
            raise SkipTest("the kernel cannot deny it")
        self.assertEqual(done.stderr, "")


class ExpiryTests(FilesCase):
    """
    A clock that is moved by hand.
    """

    def test_logged_once(self) -> None:
        """
        That a certificate expires is logged once within the last 30 days, and once when it has; a new one is another.
        """
        clock = Clock()
        start = NOW + LIFE - timedelta(days=31)
        watch = ExpiryWatch(clock, lambda: round((start.timestamp() + clock.seconds()) * 1000), [str(self.file)])
        with capturedLogs() as logged:
            watch.startService()
            for _ in range(2 * 40):
                clock.advance(EXPIRY_INTERVAL)
            self.assertEqual(
                [formatEvent(event) for event in logged],
                [
                    f"the certificate {self.file} {what} on 2029-04-19; `usbgate tls init` renews its own"
                    for what in ("expires", "expired")
                ],
            )
            self.renew(810)
            clock.advance(EXPIRY_INTERVAL)
            self.file.unlink()
            clock.advance(EXPIRY_INTERVAL)
            self.assertEqual(len(logged), 2)
            watch.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])
