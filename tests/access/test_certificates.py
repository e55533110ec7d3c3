"""
Certificates of a CA of our own; OpenSSL, not we, says which are valid.
"""

from __future__ import annotations

import os
import shutil
import ssl
import stat
import subprocess
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import new_folder
from usbgate.access import certificates
from usbgate.access.certificates import (
    CertificateError,
    check_name,
    load_authority,
    make_authority,
    make_client,
    make_server,
    may_sign,
    names_of,
    own_names,
    prepare_folder,
    utc_now,
)
from usbgate.cli.main import main
from usbgate.core.extras import TLS, install_command

NOW = utc_now(1.8e9)


class CertificateTests(SynchronousTestCase):
    """
    A folder with a CA.
    """

    def setUp(self) -> None:
        """
        Make the CA.
        """
        around = new_folder()
        self.addCleanup(shutil.rmtree, around)
        self.folder = around / "tls"
        prepare_folder(self.folder)
        self.authority = make_authority(self.folder, ["pi", "house.example", "203.0.113.7"], NOW)

    def verify(self, file: str, *options: str) -> bool:
        """
        Return whether OpenSSL accepts a certificate of the CA.
        """
        arguments = ["-CAfile", str(self.folder / "ca.crt"), "-attime", str(int(NOW.timestamp())), "-x509_strict"]
        done = subprocess.run(["openssl", "verify", *arguments, *options, str(self.folder / file)], capture_output=True)
        return done.returncode == 0

    def test_modes(self) -> None:
        """
        Only the owner can read private keys, and enter the folder.
        """
        make_server(self.folder, self.authority, ["pi"], NOW)
        make_client(self.folder, self.authority, "phone", NOW)
        modes = {name: stat.S_IMODE(os.stat(self.folder / name).st_mode) for name in os.listdir(self.folder)}
        self.assertEqual({name for name, mode in modes.items() if mode != 0o600}, {"ca.crt"})
        self.assertEqual(stat.S_IMODE(os.stat(self.folder).st_mode), 0o700)

    def test_server(self) -> None:
        """
        The host's certificate is for its names, as a server.
        """
        names = ["pi", "x.house.example", "192.168.1.2", "203.0.113.7", "fd00::1"]
        make_server(self.folder, self.authority, names, NOW)
        self.assertEqual(names_of(self.folder), names)
        for name in names:
            kind = "-verify_ip" if ("." in name and name[0].isdigit()) or ":" in name else "-verify_hostname"
            self.assertTrue(self.verify("server.pem", "-purpose", "sslserver", kind, name), name)
        self.assertFalse(self.verify("server.pem", "-purpose", "sslserver", "-verify_hostname", "house.example"))
        self.assertFalse(self.verify("server.pem", "-purpose", "sslclient"))
        self.assertFalse(self.verify("server.pem", "-attime", str(int((NOW + timedelta(days=826)).timestamp()))))

    def test_client(self) -> None:
        """
        A client's certificate is for a client.
        """
        self.assertEqual(make_client(self.folder, self.authority, "phone", NOW), self.folder / "client-phone.pem")
        self.assertTrue(self.verify("client-phone.pem", "-purpose", "sslclient"))
        self.assertFalse(self.verify("client-phone.pem", "-purpose", "sslserver"))

    def test_limits(self) -> None:
        """
        The CA may sign nothing but what it was made for and what is local, and OpenSSL believes it nothing else.
        """
        for name, may in [
            ("pi", True),
            ("www.house.example", True),
            ("house.example.com", False),
            ("otherhouse.example", False),
            ("other.local", True),
            ("10.1.2.3", True),
            ("203.0.113.8", False),
            ("2001:db8::1", False),
        ]:
            self.assertEqual(may_sign(self.authority, name), may, name)
            if not may:
                caught = self.assertRaises(CertificateError, make_server, self.folder, self.authority, [name], NOW)
                self.assertIn(f"may not sign {name}", str(caught))
            with patch.object(certificates, "may_sign", return_value=True):
                make_server(self.folder, self.authority, [name], NOW)
            self.assertEqual(self.verify("server.pem"), may, name)

    def test_old_authority(self) -> None:
        """
        A certificate does not outlive its CA, and a CA that ends soon signs nothing.
        """
        late = NOW + certificates.CA_LIFE - timedelta(days=40)
        made = make_server(self.folder, self.authority, ["pi"], late)
        self.assertEqual(made.not_valid_after_utc, self.authority.certificate.not_valid_after_utc)
        later = late + timedelta(days=20)
        caught = self.assertRaises(CertificateError, make_server, self.folder, self.authority, ["pi"], later)
        self.assertIn("the CA ends on 2037-01-15", str(caught))

    def test_load(self) -> None:
        """
        A CA is loaded as it was made; a part of one, or parts of two, are an error.
        """
        loaded = load_authority(self.folder)
        assert loaded is not None
        self.assertEqual(loaded.fingerprint, self.authority.fingerprint)
        key = self.folder / "ca.key"
        kept = key.read_bytes()
        key.unlink()
        self.assertIn("ca.key is missing", str(self.assertRaises(CertificateError, load_authority, self.folder)))
        key.write_bytes(b"x")
        self.assertIn("cannot be read", str(self.assertRaises(CertificateError, load_authority, self.folder)))
        certificate = (self.folder / "ca.crt").read_bytes()
        make_authority(self.folder, [], NOW)
        (self.folder / "ca.crt").write_bytes(certificate)
        self.assertIn("is not the key", str(self.assertRaises(CertificateError, load_authority, self.folder)))
        key.write_bytes(kept)
        self.assertIsNotNone(load_authority(self.folder))
        self.assertIsNone(load_authority(self.folder.parent))

    def test_names(self) -> None:
        """
        What is neither the name of a host nor an address is refused; the host's own are neither.
        """
        for name in ("Pi.Local", "::1", "a_b"):
            self.assertEqual(check_name(name), name.lower())
        for name in ("", "a b", "-a", "a..b", "ü", "*.local", "x" * 64, "http://a"):
            self.assertRaises(ValueError, check_name, name)
        self.assertLessEqual({"localhost", "127.0.0.1", "::1"}, set(own_names()))


class CommandTests(SynchronousTestCase):
    """
    `usbgate tls`, in this process.
    """

    def setUp(self) -> None:
        """
        Begin without a state folder.
        """
        folder = new_folder()
        self.addCleanup(shutil.rmtree, folder)
        self.state = folder / "state"

    def run_command(self, *arguments: str, status: int = 0) -> str:
        """
        Run it; return what it prints.
        """
        done = CliRunner().invoke(main, ["tls", *arguments], env={"USBGATE_STATE": str(self.state)})
        self.assertEqual(done.exit_code, status, done.output)
        return done.output

    def test_renewal(self) -> None:
        """
        The names that were given stay, until others are given; own names that the CA may not sign are left out.
        """
        folder = self.state / "tls"
        self.assertIn("valid until", self.run_command("init", "--name", "House.example"))
        with patch.object(certificates, "own_names", return_value=["new.example", "new.local"]):
            self.run_command("init")
            self.assertEqual((names_of(folder)[0], names_of(folder)[-1]), ("new.local", "house.example"))
            self.run_command("init", "--name", "x.house.example")
            self.assertEqual(names_of(folder), ["new.local", "x.house.example"])
        self.assertIn("may not sign other.example", self.run_command("init", "--name", "other.example", status=1))
        context = ssl.create_default_context(cafile=folder / "ca.crt")
        self.assertEqual(len(context.get_ca_certs()), 1)

    def test_errors(self) -> None:
        """
        What is wrong is one line.
        """
        self.assertIn("neither a name", self.run_command("init", "--name", "a b", status=64))
        self.assertIn("there is no CA", self.run_command("client", "phone", status=1))
        self.assertIn("a name has 1 to 32", self.run_command("client", "a.b", status=64))
        with patch("time.time", return_value=1e6):
            self.assertIn("the clock is wrong", self.run_command("init", status=1))
        with patch("usbgate.cli.tls.find_spec", return_value=None):
            self.assertIn(install_command(TLS), self.run_command("init", status=1))
        self.assertFalse(Path(self.state).exists())
