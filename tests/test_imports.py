"""
The house has floors: a module imports from lower floors, or from what stands before it in its own room.
"""

from __future__ import annotations

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import usbgate

# From the cellar up. A room is a list of modules in the order in which they may import each other.
FLOORS = [
    # The core: no sockets, files, reactor or Deferreds; only the doors know of Deferreds.
    [
        "model agenda latencies thinning clockmarks fieldline alarms batch pending sensors ledger clientline"
        " interfaces dialects dialects.fields flat"
    ],
    ["lines", "sendqueue", "keepalive", "watchers"],
    # Parts with I/O; none imports another.
    [
        "clock",
        "finding endpoint",
        "devicelog link",
        "diskwear journalfile journalwriter journalhealth journalshelf journal",
        "detached postmaster account cluster",
        "sinks sinks.pgsession sinks.sharedsession sinks.pgschema sinks.pgquestions sinks.postgres",
        "statefolder",
        "signals",
        "ports",
        "hub",
        "noise",
        "telnet",
    ],
    # The joints.
    ["telling switchboard announcements enquiries gateway", "delivery"],
    # Faces.
    [
        "words server clients",
        "web web.types web.problems web.shapes web.guard web.channel web.events web.outflow web.query web.openapi"
        " web.readings web.metrics web.files web.calls web.api web.site",
    ],
    # The edge.
    ["settings config correction", "client", "simulate", "lending", "boundedlog", "daemon"],
    ["ondemand", "tap"],
    ["demo"],
    ["cli"],
]

PLACES = {
    module: (floor, room, place)
    for floor, rooms in enumerate(FLOORS)
    for room, modules in enumerate(rooms)
    for place, module in enumerate(modules.split())
}

DOORS = {"twisted.internet.defer"}
ABOVE_THE_CORE = ("socket", "sqlite3", "subprocess", "threading", "serial", "psycopg2", "txpostgres", "twisted")


def imports(path: Path) -> set[str]:
    """
    List what a module imports, inside of functions too.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


class FloorTests(SynchronousTestCase):
    """
    Read from the sources.
    """

    def setUp(self) -> None:
        """
        Find all modules.
        """
        folder = Path(usbgate.__file__).parent
        self.modules = {
            ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
            for path in folder.rglob("*.py")
        }
        del self.modules["__init__"]

    def test_every_module_has_its_place(self) -> None:
        """
        The picture above shows all modules, and no others.
        """
        self.assertEqual(sorted(self.modules), sorted(PLACES))

    def test_arrows_point_down(self) -> None:
        """
        No module imports from above, or from the next room.
        """
        for module, path in self.modules.items():
            floor, room, place = PLACES[module]
            for name in imports(path):
                if name.startswith("usbgate."):
                    to_floor, to_room, to_place = PLACES[name.removeprefix("usbgate.")]
                    allowed = to_floor < floor or ((to_floor, to_room) == (floor, room) and to_place < place)
                    self.assertTrue(allowed, f"{module} imports {name}")

    def test_core_does_no_io(self) -> None:
        """
        The core imports nothing that opens, waits, or tells the time; the doors name Deferreds, no more.
        """
        for module, path in self.modules.items():
            if PLACES[module][0] == 0:
                for name in imports(path) - (DOORS if module == "interfaces" else set()):
                    self.assertNotIn(name.partition(".")[0], ABOVE_THE_CORE, f"{module} imports {name}")

    def test_no_reactor(self) -> None:
        """
        Only the edge knows the global reactor, and not when it is imported.
        """
        for module, path in self.modules.items():
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                    names = {alias.name for alias in node.names}
                    self.assertFalse("reactor" in names and (module not in ("tap", "cli") or node.col_offset == 0))
