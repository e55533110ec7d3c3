"""
What other machines can reach.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from usbgate.access.doors import LOCAL, Door
from usbgate.access.roles import Role
from usbgate.access.tokens import TOKENS_FILE, Token, TokenFile, digest
from usbgate.config.endpoints import is_exposed
from usbgate.config.exposure import check_exposure
from usbgate.config.settings import ClientSettings, HttpSettings, Settings
from usbgate.config.types import ConfigError, ListenAddress
from usbgate.testing import AT


class ExposureTests(SynchronousTestCase):
    """
    `check_exposure`.
    """

    def setUp(self) -> None:
        """
        Make a state folder.
        """
        self.state = Path(self.mktemp())
        self.state.mkdir()
        self.warnings: list[str] = []

    def check(
        self, endpoint: str, door: Door = LOCAL, http: bool = False, clients: tuple[ClientSettings, ...] = ()
    ) -> None:
        """
        Check a configuration with one address.
        """
        address = ListenAddress(endpoint, door)
        settings = Settings(state=self.state)
        settings = Settings(
            state=self.state,
            clients=clients,
            listen=settings.listen if http else (address,),
            http=HttpSettings(listen=address if http else ListenAddress("none")),
        )
        check_exposure(settings, self.warnings.append)

    def test_refused(self) -> None:
        """
        What other machines can reach is refused, in one line with the three ways out, whatever role it gives, behind a
        proxy, too.
        """
        for door in (LOCAL, Door(Role.READ), Door(proxied=True)):
            for http in (False, True):
                error = self.assertRaises(ConfigError, self.check, "tcp:50007", door, http)
                self.assertRegex(str(error), r"^(http\.)?listen: other machines can reach tcp:50007\. ")
                for way in ("proxied = true", "`usbgate token add`", "insecure = true"):
                    self.assertIn(way, str(error))
                self.assertNotIn("\n", str(error))

    def test_encrypted(self) -> None:
        """
        With TLS and a token, or a table about addresses, other machines may connect; with one of both they may not.
        """
        encrypted = "ssl:443:privateKey=key.pem:certKey=cert.pem"
        self.assertRaises(ConfigError, self.check, encrypted)
        TokenFile(self.state).add(Token(name="phone", role="read", sha256=digest("s"), created=AT))
        self.check(encrypted)
        self.assertRaises(ConfigError, self.check, "tcp:50007")
        TokenFile(self.state).remove("phone")
        here = ClientSettings(role=Role.READ, addresses=(ip_network("10.0.0.0/8"),))
        self.check(encrypted, clients=(here,))
        for clients in ((), (ClientSettings(role=Role.READ, users=frozenset([7])),)):
            self.assertRaises(ConfigError, self.check, encrypted, clients=clients)
        self.assertRaises(ConfigError, self.check, "tcp:50007", clients=(here,))
        (self.state / TOKENS_FILE).write_bytes(b"nonsense")
        self.assertRaises(ConfigError, self.check, encrypted)

    def test_insecure(self) -> None:
        """
        Who accepts the risk is reminded of it.
        """
        self.check("tcp:50007", Door(insecure=True))
        self.check("tcp:50007", Door(Role.READ, insecure=True))
        self.assertEqual(len(self.warnings), 2)
        self.assertIn("everybody there can command", self.warnings[0])
        self.assertNotIn("command", self.warnings[1])

    def test_local(self) -> None:
        """
        On this machine all is well, and there is nothing to warn of.
        """
        for endpoint in ("tcp:1:interface=127.0.0.1", r"tcp6:1:interface=\:\:1", "unix:/run/x", "none"):
            self.check(endpoint, http=True)
            self.check(endpoint, Door(insecure=True), http=True)
        self.assertEqual(self.warnings, [])

    def test_endpoints(self) -> None:
        """
        It goes by the interface; of what only Twisted knows, it is not known before it listens.
        """
        for endpoint, exposed in (
            ("tcp:1", True),
            ("tcp:1:127.0.0.1", False),
            ("tcp:port=1:interface=localhost", False),
            ("tcp:1:interface=0.0.0.0", True),
            ("tcp:1:interface=192.168.1.2", True),
            ("tcp6:1", True),
            ("ssl:1:key.pem:cert.pem", True),
            ("ssl:1:interface=127.0.0.1", False),
            ("unix:/run/x", False),
            ("systemd:domain=INET:index=0", None),
        ):
            self.assertIs(is_exposed(endpoint), exposed, endpoint)
