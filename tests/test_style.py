"""
Rules for names and docstrings, read from the sources.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import usbgate

TESTS, SOURCES = Path(__file__).parent, Path(usbgate.__file__).parent

# Private names that the tests use, and why.
PRIVATE_NAMES = {
    "_serialFactory": "Twisted's SerialPort has no other way to open something else than a tty",
    "_tempDataLen": "how much a transport of Twisted holds, which nothing else tells",
    "_exit": "os._exit is public",
    "_replace": "a NamedTuple's, which is public by the documentation of Python",
}

# What gets or sets the attribute that its second argument names.
BY_NAME = {"patch", "getattr", "setattr", "delattr", "hasattr"}


def private_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """
    Find the private names of other objects that a module uses: the line, and the name.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if not is_own(node.value):
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            owner, name = node.args[:2]
            if (
                called in BY_NAME
                and not is_own(owner)
                and isinstance(name, ast.Constant)
                and isinstance(name.value, str)
            ):
                yield node.lineno, name.value


def is_own(node: ast.expr) -> bool:
    """
    Whether an expression is `self`, `cls` or `super()`.
    """
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


class PrivateNamesTests(SynchronousTestCase):
    """
    Tests go by public names: what they need to know has one.
    """

    def test_private_names(self) -> None:
        """
        No test uses a private name of another object, but for those that are listed; and all that are listed are used.
        """
        found = set()
        for path in sorted(TESTS.rglob("*.py")):
            for line, name in private_names(ast.parse(path.read_text())):
                if name.startswith("_") and not name.endswith("__"):
                    self.assertIn(name, PRIVATE_NAMES, f"{path}:{line}")
                    found.add(name)
        self.assertEqual(found, set(PRIVATE_NAMES))

    def test_finds_them(self) -> None:
        """
        They are found in each way in which they can be used.
        """
        source = """
            other._a; self.other._b; f()._c; self._mine; cls._mine; super()._mine; getattr(other, "_d")
            hasattr(self, "_mine"); self.patch(other, "_e", 1); from usbgate import _f; setattr(self.other, name, 1)
        """
        lines = [line.strip() for line in source.replace(";", "\n").split("\n")]
        found = {name for _, name in private_names(ast.parse("\n".join(lines))) if name.startswith("_")}
        self.assertEqual(found, {"_a", "_b", "_c", "_d", "_e", "_f"})


class ClassNamesTests(SynchronousTestCase):
    """
    A name says which class is meant.
    """

    def test_unique(self) -> None:
        """
        No two public classes of usbgate have the same name, but for those that each dialect has.
        """
        names = Counter(
            node.name
            for path in sorted(SOURCES.rglob("*.py"))
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        )
        self.assertEqual({name for name, count in names.items() if count > 1}, {"Dialect", "Framing"})


# The section of a docstring, up to the next one, and the names that it describes: `begin, end: Seconds.`
ARGUMENTS = re.compile(r"^Args:\n((?: .*\n?|\n)*)", re.MULTILINE)
DESCRIBED = re.compile(r"^    ([a-zA-Z]\w*(?:, \w+)*): ", re.MULTILINE)


def described(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str] | None:
    """
    Return the arguments that a function's docstring describes; None if it has no such section.
    """
    section = ARGUMENTS.search(ast.get_docstring(function) or "")
    return section and [name for names in DESCRIBED.findall(section[1]) for name in names.split(", ")]


class DocstringsTests(SynchronousTestCase):
    """
    A docstring is true.
    """

    def test_arguments(self) -> None:
        """
        Where a docstring describes arguments, they are those of the function, in their order.
        """
        for path in sorted(SOURCES.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (names := described(node)) is not None:
                    given = node.args
                    arguments = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
                    has = [each.arg for each in arguments if each is not None and each.arg not in ("self", "cls")]
                    self.assertEqual(names, has, f"{path}:{node.lineno} {node.name}")


class DrawsTests(SynchronousTestCase):
    """
    Tests with hypothesis hold on a busy machine.
    """

    def test_no_limits_of_time(self) -> None:
        """
        Whoever imports `given` from hypothesis says what its settings are; all others import it without limits of time.
        """
        for path in sorted(TESTS.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == "hypothesis":
                    names = {alias.name for alias in node.names}
                    self.assertTrue("given" not in names or "settings" in names, path)
