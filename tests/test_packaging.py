"""
What is installed: the wheel, and what twistd finds in it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import usbgate
from tests.support.folders import new_folder
from tests.support.running import ROOT, TWISTD, environment
from usbgate.core.extras import NMEA, REGEX, TLS
from usbgate.store.embedded.postmaster import PACKAGE
from usbgate.web.static import TYPES


def build() -> Path:
    """
    Build a wheel of a copy of the sources, so that nothing is left beside them; return its folder.
    """
    folder = new_folder()
    left_out = shutil.ignore_patterns(".*", "*.egg-info", "build", "_trial_temp*", "__pycache__", "dropin.cache")
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--wheel-dir", str(folder), str(folder / "source")),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return folder


class WheelTests(SynchronousTestCase):
    """
    The wheel, unpacked into a folder of its own.
    """

    def test_wheel(self) -> None:
        """
        It has the version, and what twistd needs; one test, so that one process builds it.
        """
        folder = Path(tempfile.mkdtemp(prefix="usbgate-wheel-"))
        self.addCleanup(shutil.rmtree, folder)
        [wheel] = build().glob("*.whl")
        self.assertIn(f"-{usbgate.__version__}-", wheel.name)
        self.site = folder / "site"
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(self.site)
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self.check_contents()
        self.check_listed()

    def check_contents(self) -> None:
        """
        It has all modules, the data files and the plug-ins, and no module that would hide Twisted's own folder.
        """
        names = {str(path.relative_to(self.site)) for path in self.site.rglob("*") if path.is_file()}
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / "usbgate").rglob("*.py")}
        self.assertEqual({name for name in names if name.startswith("usbgate/") and name.endswith(".py")}, modules)
        self.assertLessEqual(
            {
                "usbgate/py.typed",
                "usbgate/store/postgres/schema/0001.sql",
                "usbgate/cli/demo.toml",
                "usbgate/cli/demohistory.sql",
                "usbgate/cli/systemd/usbgate.service",
                "usbgate/cli/systemd/user.service",
                *(f"usbgate/web/page/{name}" for name in TYPES),
                "twisted/plugins/usbgate_plugin.py",
                "twisted/plugins/usbgate_endpoint.py",
            },
            names,
        )
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / "usbgate").rglob("*.py")}
        self.assertLessEqual(modules, names)
        manual = f"usbgate-{usbgate.__version__}.data/data/share/man/man1"
        self.assertLessEqual({f"{manual}/usbgate.1", f"{manual}/twistd-usbgate.1"}, names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
        self.assertEqual([name for name in names if name.startswith("tests")], [])

    def check_listed(self) -> None:
        """
        The twistd of any folder lists usbgate, though nothing can be written beside it.
        """
        self.addCleanup(self._chmod, 0o755, 0o644)
        self._chmod(0o555, 0o444)
        said = subprocess.run(
            [*TWISTD, "--help"],
            capture_output=True,
            text=True,
            cwd=self.elsewhere,
            env={**environment(), "PYTHONPATH": str(self.site)},
            timeout=60,
        )
        self.assertIn("usbgate", said.stdout)
        self.assertEqual(said.stderr, "")

    def _chmod(self, folders: int, files: int) -> None:
        for path in [self.site, *self.site.rglob("*")]:
            path.chmod(folders if path.is_dir() else files)


class DeclaredTests(SynchronousTestCase):
    """
    What setup.cfg declares.
    """

    def test_remedy(self) -> None:
        """
        What a person is told to install is what the extra requires.
        """
        setup = ConfigParser()
        setup.read(ROOT / "setup.cfg")
        extras = setup["options.extras_require"]
        self.assertIn(PACKAGE, extras["embedded"].splitlines())
        for name, packages in (("tls", TLS), ("nmea", NMEA), ("regex", REGEX)):
            self.assertEqual([line for line in extras[name].splitlines() if line], [*packages])

    def test_one_version(self) -> None:
        """
        The version is that of the installed package.
        """
        self.assertEqual(version("usbgate"), usbgate.__version__)
