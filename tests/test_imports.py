"""
Who may import whom, and who may use which library.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

import usbgate

FOLDER = Path(usbgate.__file__).parent

# A package may import itself and what stands beside it: another package whole, or one module of it.
MAY_IMPORT = {
    "core": "",
    "net": "core",
    "device": "core net",
    "store": "core",
    "gateway": "core device.interfaces store.interfaces",
    "access": "core daemon.files gateway.interfaces",
    "server": "core net access gateway.interfaces",
    "web": "core net access gateway.interfaces",
    "mqtt": "core net access gateway.interfaces",
    "rules": "core net gateway.interfaces mqtt.interfaces",
    "config": "core access device.usb rules.settings rules.language rules.conditions",
    "daemon": "core",
    "simulator": "core",
    "cli": "core access config daemon device rules server simulator store",  # of the command itself: see `CliTests`
    "testing": "core device.interfaces device.transcript store.interfaces",
    "assembly": "core net device store gateway access server web mqtt rules config daemon",
    "tap": "assembly core store config daemon",
}

# Within these packages, one part may import another only as said here.
WITHIN = {
    "store.interfaces": "",
    "store.delivery": "store.interfaces store.restoration",
    "store.restoration": "store.interfaces",
    "store.journal": "store.interfaces",
    "store.postgres": "store.interfaces",
    "store.embedded": "",
    "device.dialects": "device.interfaces device.dialect device.framing device.options",
}

# Libraries that only these may import; all others may be used everywhere above the core.
LIBRARY_OWNERS = {
    "serial": "device",
    "psycopg2": "store cli",
    "txpostgres": "store",
    "sqlite3": "store.journal rules.outbox",
    "threading": "store.journal daemon.logfile cli",
    "queue": "store.journal",
    # Reading /proc blocks for milliseconds, under load for longer; so does a disk.
    "twisted.internet.threads": "device.portusers daemon.replacementfile assembly.reload assembly.rules",
    "klein": "web",
    "prometheus_client": "web",
    "paho": "mqtt",
    "cryptography": "access.certificates net.tls",
    "OpenSSL": "net.tls net.tlsclient",
    "click": "cli",
    "rich": "cli",
}

# What the core must not import: it opens nothing, waits for nothing and has no clock.
NOT_IN_CORE = "socket sqlite3 subprocess threading asyncio os twisted serial psycopg2 time.time time.monotonic"

# Private names of Twisted that are used, and why.
PRIVATE_NAMES = {
    ("device.openings", "twisted.python._inotify.INotifyError"): "what the public INotify raises has no public name",
}


class Import(NamedTuple):
    """
    One `import`.

    Attributes:
        module: The module in which it stands, without `usbgate.`.
        name: What is imported, with its module.
        lazy: Whether it stands inside a function or another block.
        typing: Whether it stands in `if TYPE_CHECKING:`, so that it is never run.
    """

    module: str
    name: str
    lazy: bool
    typing: bool


@cache
def imports() -> Sequence[Import]:
    """
    Read all imports from the sources, those inside functions included.
    """
    return tuple(_read_imports())


def _read_imports() -> Iterator[Import]:
    for path in sorted(FOLDER.rglob("*.py")):
        module = ".".join(path.relative_to(FOLDER).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        tree = ast.parse(path.read_text())
        typing = {
            id(node)
            for block in tree.body
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for node in block.body
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(module, alias.name, node not in tree.body, id(node) in typing)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    yield Import(module, name, node not in tree.body, id(node) in typing)


def is_in(module: str, parts: str) -> bool:
    """
    Return whether a module, or a name in it, belongs to one of these packages or modules.
    """
    return any(module == part or module.startswith(f"{part}.") for part in parts.split())


def ours(typing: bool = True) -> Iterator[tuple[str, str]]:
    """
    Return the imports of our own modules: who imports what, both without `usbgate.`.

    Args:
        typing: Whether to include those that are for type checkers only.
    """
    for found in imports():
        if found.typing and not typing:
            continue
        if found.name.startswith("usbgate.") and found.name != "usbgate.__version__":
            yield found.module, found.name.removeprefix("usbgate.")


class ImportTests(SynchronousTestCase):
    """
    Read from the sources.
    """

    def test_packages(self) -> None:
        """
        Each package imports only what its line of the table allows, and each package has a line.
        """
        for module, name in ours():
            package = module.partition(".")[0]
            self.assertIn(package, MAY_IMPORT, "a package that the table does not know")
            self.assertTrue(is_in(name, f"{package} {MAY_IMPORT[package]}"), f"{module} imports {name}")

    def test_parts(self) -> None:
        """
        Nor does one part of a package know more of the others than it may.
        """
        for module, name in ours():
            for part, allowed in WITHIN.items():
                if is_in(module, part) and is_in(name, part.partition(".")[0]):
                    self.assertTrue(is_in(name, f"{part} {allowed}"), f"{module} imports {name}")

    def test_no_circles(self) -> None:
        """
        No module imports itself by way of others, except for type checkers.
        """
        graph: dict[str, set[str]] = {}
        modules = {found.module for found in imports()}
        for module, name in ours(typing=False):
            target = name if name in modules else name.rpartition(".")[0]
            graph.setdefault(module, set()).add(target)
        done: set[str] = set()
        for module in graph:
            self._visit(module, graph, (), done)

    def _visit(self, module: str, graph: Mapping[str, set[str]], path: tuple[str, ...], done: set[str]) -> None:
        self.assertNotIn(module, path, " -> ".join((*path, module)))
        if module not in done:
            for target in graph.get(module, ()):
                self._visit(target, graph, (*path, module), done)
            done.add(module)

    def test_libraries(self) -> None:
        """
        A library has owners, so that it can be replaced in one place.
        """
        for found in imports():
            owners = next((owners for name, owners in LIBRARY_OWNERS.items() if is_in(found.name, name)), None)
            self.assertTrue(owners is None or is_in(found.module, owners), f"{found.module} imports {found.name}")

    def test_core(self) -> None:
        """
        The core imports nothing that does I/O, waits, or tells the time.
        """
        for found in imports():
            if is_in(found.module, "core"):
                self.assertFalse(
                    found.name == "time" or is_in(found.name, NOT_IN_CORE), f"{found.module} imports {found.name}"
                )

    def test_private_names(self) -> None:
        """
        Of Twisted's private names only the listed ones are imported, and all that are listed are.
        """
        private = {
            (found.module, found.name)
            for found in imports()
            if found.name.startswith("twisted.") and any(part.startswith("_") for part in found.name.split("."))
        }
        self.assertEqual(private, set(PRIVATE_NAMES))

    def test_no_reactor(self) -> None:
        """
        Only `makeService` and the command import the global reactor, inside a function.
        """
        for found in imports():
            if found.name == "twisted.internet.reactor":
                self.assertTrue(found.lazy and is_in(found.module, "tap cli"), f"{found.module} imports the reactor")


class CliTests(SynchronousTestCase):
    """
    The command starts fast.
    """

    def test_imports_little(self) -> None:
        """
        Importing the command imports nothing of ours but the core, and not Twisted.
        """
        code = "import sys, usbgate.cli.main; print(*sys.modules)"
        loaded = subprocess.run(
            [sys.executable, "-c", code], cwd=FOLDER.parent, check=True, capture_output=True, text=True, timeout=60
        ).stdout.split()
        self.assertEqual({name for name in loaded if is_in(name, "twisted serial psycopg2")}, set())
        self.assertEqual(
            {name for name in loaded if is_in(name, "usbgate") and not is_in(name, "usbgate.core usbgate.cli")},
            {"usbgate"},
        )
