"""
Endpoint strings of the configuration.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.config.endpoints import absolute_paths, certificate_files, local_addresses, parse_server, tls_addresses


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
            (r"ssl:6:privateKey=/a\=b.pem", [("127.0.0.1", 6)]),
            (r"ssl:7:interface=\:\:", [("::1", 7)]),
            ("systemd:domain=INET:index=0", []),
            (r"unix:/run/a\:b:mode=660", ["/run/a:b"]),
            ("unix:address=/run/c", ["/run/c"]),
        ]:
            self.assertEqual(local_addresses([text]), addresses, text)
        self.assertEqual(local_addresses(["tcp:1", "tcp:0", "unix:/a"]), [("127.0.0.1", 1), "/a"])

    def test_absolute_paths(self) -> None:
        """
        A relative path starts from the folder, whose special characters are quoted; nothing else changes.
        """
        for text, absolute in [
            ("unix:a.sock:mode=600", r"unix:/f\:g/a.sock:mode=600"),
            ("unix:address=a.sock", r"unix:address=/f\:g/a.sock"),
            ("unix:/a.sock", "unix:/a.sock"),
            ("tcp:1", "tcp:1"),
            ("ssl:1:privateKey=a.pem:clientCA=/b.pem", r"ssl:1:privateKey=/f\:g/a.pem:clientCA=/b.pem"),
        ]:
            self.assertEqual(absolute_paths(text, "/f:g", "/c.pem"), absolute, text)

    def test_unfinished(self) -> None:
        """
        A backslash at the end is an error like any other.
        """
        for wrong in ("tcp:1:interface=\\", "ssl:1\\", "unix:a\\", "other:a\\"):
            self.assertRaises(ValueError, parse_server, wrong)

    def test_tls(self) -> None:
        """
        `ssl:` takes the certificate of the state folder unless it names another; what it does not know is refused.
        """
        own = absolute_paths(parse_server(r"ssl:1:interface=\:\:"), "/f", "/s=t/server.pem")
        other = absolute_paths(parse_server("ssl:2:privateKey=k:certKey=c"), "/f", "/s/server.pem")
        self.assertEqual(certificate_files([own, "tcp:3", other, own]), ["/s=t/server.pem", "/f/c"])
        self.assertEqual(tls_addresses(["tcp:3", own, other]), [("::1", 1), ("127.0.0.1", 2)])
        for wrong in (
            "ssl:x",
            "ssl:1:2",
            "ssl:1:sslmethod=SSLv3_METHOD",
            "ssl:privateKey=a",
            "ssl:1:backlog=x",
            "ssl:1\\",
        ):
            self.assertRaises(ValueError, parse_server, wrong)
