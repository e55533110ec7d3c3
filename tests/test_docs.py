"""
What the documentation says of the tests is true.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from click import Context
from twisted.trial.unittest import SynchronousTestCase

from tests.support.running import ROOT
from usbgate.cli.installation import CONFIG, RULES_FILE, UNIT_FILE
from usbgate.cli.main import main
from usbgate.cli.udev import Board, udev_rules
from usbgate.config.load import load
from usbgate.core.fieldline import UNITS
from usbgate.device.usb import UsbIds, UsbTty
from usbgate.server.commands import WORDS

FAULTS = (ROOT / "docs" / "faults.md").read_text()
OPERATING = (ROOT / "docs" / "operating.md").read_text()
SECURITY = (ROOT / "docs" / "security.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()


class PagesTests(SynchronousTestCase):
    """
    README.md and all pages of docs.
    """

    def test_links(self) -> None:
        """
        Every link to a file of ours leads to one, and to a heading that it has.
        """
        links = 0
        for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
            for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
                linked = page.parent / target if target else page
                self.assertTrue(linked.exists(), f"{page.name}: {target}")
                if anchor:
                    headings = re.findall(r"(?m)^#+ (.*)$", linked.read_text())
                    names = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
                    self.assertIn(anchor, names, f"{page.name}: {target}")
                links += 1
        self.assertGreater(links, 20)

    def test_configuration(self) -> None:
        """
        The configuration of the README, all pieces together, is accepted.
        """
        pieces = re.findall(r"(?s)```toml\n(.*?)```", (ROOT / "README.md").read_text())
        path = Path(self.mktemp())
        path.write_text("".join(pieces))
        settings = load(path, environ={})
        self.assertEqual(settings.sensors["20"].fields["VALUE"].unit, "°C")
        assert settings.mqtt is not None
        self.assertEqual(settings.mqtt.broker, "tcp:localhost:1883")


def check_tests(case: SynchronousTestCase, page: str) -> int:
    """
    Check that every test that a page names exists, and that a class that it names has tests; return their number.
    """
    names = re.findall(r"`((?:\w+\.)*test_\w+)\.(\w+)(?:\.(\w+))?`", page)
    for module, owner, test in names:
        found = getattr(import_module(f"tests.{module}"), owner, None)
        tests = [name for name in dir(found) if name.startswith("test_")]
        case.assertTrue(test in tests if test else tests, f"there is no {module}.{owner} {test}")
    return len(names)


class ProtocolPageTests(SynchronousTestCase):
    """
    docs/protocol.md.
    """

    def test_words(self) -> None:
        """
        Every word is documented with the arguments that it takes.
        """
        words = PROTOCOL.partition("\n### Words\n")[2].partition("\n### ")[0]
        for word in WORDS.values():
            self.assertIn(f"`{word.usage.replace('...', '…')}`", words)

    def test_units(self) -> None:
        """
        The units are those that follow a number.
        """
        listed = PROTOCOL.partition("These are the units, spelled exactly so: ")[2].partition("\n\n")[0]
        self.assertEqual(tuple(re.findall("`([^`]+)`", listed)), UNITS)

    def test_help(self) -> None:
        """
        The example of `help` is what it sends.
        """
        example = PROTOCOL.partition("    C: help watch\n")[2].partition("    C: ")[0]
        watch = WORDS["watch"]
        texts = [f"USAGE:{watch.usage}", *(f"TEXT:{text}" for text in (watch.summary, *watch.details)), "OK:help"]
        self.assertEqual(example.splitlines(), [f"    S: {text}" for text in texts])


class OperatingPageTests(SynchronousTestCase):
    """
    docs/operating.md.
    """

    def test_commands(self) -> None:
        """
        Every command of usbgate that is named exists.
        """
        names = set(re.findall(r"(?:`|bin/)usbgate ([a-z-]+)", OPERATING))
        self.assertLessEqual({"install", "uninstall", "status"}, names)
        self.assertLessEqual(names, {*main.list_commands(Context(main))})

    def test_files(self) -> None:
        """
        The files are those that `usbgate install` writes, and so is the example of a rule.
        """
        for name in (UNIT_FILE, RULES_FILE, CONFIG):
            self.assertIn(f"`/{name}`", OPERATING)
        tty = UsbTty("ttyACM0", "1-1.3", "1.0", True, "")
        board = Board("leonardo", tty, UsbIds("2341", "8036", None), by_port=False, several=False)
        self.assertIn(udev_rules([board]).partition("# leonardo\n")[2].strip(), OPERATING)
        self.assertIn('KERNELS=="1-1.3"', udev_rules([board._replace(by_port=True)]))


class FaultsPageTests(SynchronousTestCase):
    """
    docs/faults.md and docs/security.md.
    """

    def test_names(self) -> None:
        """
        Every test that is named exists; a class that is named has tests.
        """
        self.assertGreater(check_tests(self, FAULTS), 70)

    def test_variables(self) -> None:
        """
        Every variable of the environment that a test asks for is named, and no other.
        """
        asked = {
            name
            for path in ROOT.glob("tests/**/*.py")
            for name in re.findall(r'environ\.get\("(USBGATE_\w+)"', path.read_text())
        }
        self.assertEqual(set(re.findall(r"USBGATE_\w+", FAULTS)), asked)


class SecurityPageTests(SynchronousTestCase):
    """
    docs/security.md.
    """

    def test_names(self) -> None:
        """
        Every row of a table of harm names tests, and they exist; a class that is named has tests.
        """
        harm = SECURITY.partition("\n## Who could do harm\n")[2]
        rows = [line for line in harm.splitlines() if line.startswith("| ")]
        rows = [row for row in rows if not row.startswith(("| who |", "| --- |"))]
        for row in rows:
            self.assertGreater(check_tests(self, row), 0, row)
        self.assertGreater(len(rows), 2)
