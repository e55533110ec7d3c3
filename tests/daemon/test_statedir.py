"""
The state folder keeps the gateway's name.
"""

from __future__ import annotations

import os
import socket

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import new_folder
from usbgate.daemon.statedir import StateDirectory, StateDirectoryError, gateway_name


class NameTests(SynchronousTestCase):
    """
    The name under which rows are stored, over several starts.
    """

    def setUp(self) -> None:
        """
        Let the folder be missing, and the host be named `first`.
        """
        self.folder = new_folder() / "state"
        self.file = self.folder / "gateway"
        self.rename_host("first")

    def rename_host(self, name: str) -> None:
        """
        Give the host another name.
        """
        self.patch(socket, "gethostname", lambda: name)

    def start(self, configured: str | None = None) -> tuple[str, list[str]]:
        """
        Start and stop the service.

        Returns:
            The gateway's name, and what was logged.
        """
        name = gateway_name(self.folder, configured)
        umask = os.umask(0o022)  # which starting changes, for the tests that follow, too
        self.addCleanup(os.umask, umask)
        service = StateDirectory(self.folder, name)
        with capturedLogs() as logged:
            service.privilegedStartService()
            service.startService()
        service.stopService()
        return name, [formatEvent(event) for event in logged]

    def test_host_renamed(self) -> None:
        """
        The first start decides; a new host name changes nothing, and is logged.
        """
        self.assertEqual(self.start(), ("first", []))
        self.rename_host("second")
        said = ["this gateway is first, as before; the host is second"]
        self.assertEqual([self.start(), self.start()], [("first", said)] * 2)
        self.assertEqual(self.file.read_text(), "first\n")
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["gateway", "lock"])

    def test_configured(self) -> None:
        """
        A configured name wins, is logged if it is another one, and is kept.
        """
        self.start()
        name, logged = self.start("Zoé's attic")
        self.assertEqual(name, "Zoé's attic")
        self.assertEqual(
            logged,
            [
                "this gateway is Zoé's attic from now on, as configured; it was first: "
                'gateway = "first" continues what was stored before'
            ],
        )
        self.assertEqual(self.start("Zoé's attic")[0], "Zoé's attic")
        self.assertEqual(self.start()[0], "Zoé's attic")

    def test_configured_at_first(self) -> None:
        """
        A name that is configured at the first start is kept, too.
        """
        self.assertEqual(self.start("home"), ("home", []))
        self.assertEqual(self.start()[0], "home")

    def test_damaged(self) -> None:
        """
        A file without a name that could be stored does not end the start: the host's name is used, logged and kept.
        """
        for content in (b"", b"\n", b"a\0b\n", b"\xff\n", b"a\nb\n", b"a_B:1\n"):
            self.folder.mkdir(exist_ok=True)
            self.file.write_bytes(content)
            self.assertEqual(self.start(), ("first", [f"{self.file} has no name: this gateway is first"]), content)
            self.assertEqual(self.file.read_text(), "first\n")

    def test_not_written(self) -> None:
        """
        A name that cannot be written does not end the start.
        """
        self.file.mkdir(parents=True)
        (self.file / "x").touch()
        name, logged = self.start()
        self.assertEqual(name, "first")
        self.assertTrue(any("cannot be kept" in line for line in logged), logged)

    def test_of_another_user(self) -> None:
        """
        If the folder belongs to root, and the daemon to another user since it has taken the lock, the start ends with
        one line that says what to do.
        """
        service = StateDirectory(self.folder, "first")
        self.addCleanup(os.umask, os.umask(0o022))
        service.privilegedStartService()
        self.addCleanup(service.stopService)
        self.patch(os, "access", lambda path, mode, **options: False)
        error = self.assertRaises(StateDirectoryError, service.startService)
        self.assertRegex(
            str(error), r"\Athe state folder .* must belong to the user of twistd --uid: chown -R [^\n]*\Z"
        )
