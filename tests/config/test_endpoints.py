"""
Endpoint strings of the configuration.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.config.endpoints import absolute_socket, local_addresses


class EndpointsTests(SynchronousTestCase):
    """
    What the configuration reads in endpoint strings.
    """

    def test_local_addresses(self) -> None:
        """
        A client gets addresses that it can connect to, in the order of the configuration.
        """
        for text, addresses in [
            ("tcp:1", [("127.0.0.1", 1)]),
            ("tcp:2:interface=0.0.0.0", [("127.0.0.1", 2)]),
            ("tcp:port=3:interface=10.0.0.1", [("10.0.0.1", 3)]),
            (r"tcp:4:interface=\:\:", [("::1", 4)]),
            ("tcp6:5", [("::1", 5)]),
            ("tcp:0", []),
            ("systemd:domain=INET:index=0", []),
            (r"unix:/run/a\:b:mode=660", ["/run/a:b"]),
            ("unix:address=/run/c", ["/run/c"]),
        ]:
            self.assertEqual(local_addresses([text]), addresses, text)
        self.assertEqual(local_addresses(["tcp:1", "tcp:0", "unix:/a"]), [("127.0.0.1", 1), "/a"])

    def test_absolute_socket(self) -> None:
        """
        A relative path of a socket starts from the folder, whose special characters are quoted; nothing else changes.
        """
        for text, absolute in [
            ("unix:a.sock:mode=600", r"unix:/f\:g/a.sock:mode=600"),
            ("unix:address=a.sock", r"unix:address=/f\:g/a.sock"),
            ("unix:/a.sock", "unix:/a.sock"),
            ("tcp:1", "tcp:1"),
        ]:
            self.assertEqual(absolute_socket(text, "/f:g"), absolute, text)
