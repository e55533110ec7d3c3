"""
Endpoint strings of the configuration.
"""

from __future__ import annotations

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.trial.unittest import SynchronousTestCase

from usbgate.config.endpoints import (
    absolute_paths,
    certificate_files,
    local_addresses,
    may_encrypt,
    parse_client,
    parse_server,
    tls_addresses,
)


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
            ("unix:a.sock:mode=600", r"unix:/f\:g\=h/a.sock:mode=600"),
            ("unix:address=a.sock", r"unix:address=/f\:g\=h/a.sock"),
            ("unix:/a.sock", "unix:/a.sock"),
            ("tcp:1", "tcp:1"),
            ("ssl:1:privateKey=a.pem:clientCA=/b.pem", r"ssl:1:privateKey=/f\:g\=h/a.pem:clientCA=/b.pem"),
        ]:
            self.assertEqual(absolute_paths(text, "/f:g=h", "/c.pem"), absolute, text)

    def test_arguments(self) -> None:
        """
        The arguments of `tcp` and `unix` are those that Twisted accepts.
        """
        servers = ["tcp:1", "tcp:1:::1", "tcp:1::2", "tcp:port=1:interface=a:backlog=2", "tcp:x", "tcp:1:backlog=x"]
        servers += ["tcp:interface=a", "tcp:1:a=b", "tcp:1:2:3:4", "tcp:1:port=2"]
        servers += ["tcp6:1", "tcp6:1:2:a", "tcp6:1:a", "tcp6:x", "tcp6:1:backlog=x", "tcp6:1:a=b", "tcp6:1:2:3:4"]
        servers += ["unix:a", "unix:a:660:1:0", "unix:address=a:mode=660:backlog=1:lockfile=0", "unix:mode=660"]
        servers += ["unix:a:mode=9", "unix:a:backlog=x", "unix:a:lockfile=x", "unix:a:b=c"]
        clients = ["tcp:a:1", "tcp:host=a:port=1", "tcp:a:port=1", "tcp:a:1:timeout=1:bindAddress=b"]
        clients += ["tcp:a", "tcp:port=1", "tcp:a:x", "tcp:a:1:timeout=x", "tcp:a:1:b=c"]
        clients += ["unix:a", "unix:path=a", "unix:a:timeout=1:lockfile=1", "unix:timeout=1", "unix:a:timeout=x"]
        clients += ["unix:a:lockfile=x", "unix:a:b=c"]
        for ours, its, texts in ((parse_server, serverFromString, servers), (parse_client, clientFromString, clients)):
            for text in texts:
                try:
                    its(object(), text)
                except (TypeError, ValueError):
                    self.assertRaises(ValueError, ours, text)
                else:
                    self.assertEqual(ours(text), text)
        self.assertRaises(ValueError, parse_client, "rfc2217:a:1:b=c")

    def test_impossible(self) -> None:
        """
        What Twisted would accept, and the system never would, is refused.
        """
        for text in ("tcp:65536", "tcp:-1", "ssl:70000", "tcp:1:backlog=-1", "tcp:1:backlog=2147483648", "unix:a\0b"):
            self.assertRaises(ValueError, parse_server, text)
        for text in ("unix:address=", "unix::mode=600"):
            self.assertRaises(ValueError, parse_server, text)
        for text in ("tcp:a:65536", "rfc2217:a:-1", "unix:a\0b", "tcp::1", "rfc2217:a..b:1", f"tcp:{'a' * 64}:1"):
            self.assertRaises(ValueError, parse_client, text)
        self.assertEqual(parse_server("tcp:65535:backlog=0"), "tcp:65535:backlog=0")

    def test_may_encrypt(self) -> None:
        """
        What speaks no TLS for sure is known.
        """
        for text in ("none", "tcp:1", "unix:/ssl:1", "/dev/by-id/usb:ssl:1", "usb:1:2", "usb-port:1-2", "rfc2217:a:1"):
            self.assertFalse(may_encrypt(text), text)
        for text in ("ssl:1", "tls:host:1", "plugin:a"):
            self.assertTrue(may_encrypt(text), text)

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
