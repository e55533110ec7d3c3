"""
Find a dialect by its name, and give it the options of its device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# How alike an unknown option and a key must be, 0 to 1, for the key to be suggested. An option that a dialect knows,
# but with a value that it refuses, should rarely be so near to a key.
NEAR = 0.75


def find_dialect(name: str) -> str:
    """
    Return the module of a dialect: one of `usbgate.device.dialects`, or any module by its dotted name.

    Modules are found by name, since `twisted.plugin` would import every file and write a cache beside the code.

    Raises:
        ValueError: There is no such module.
    """
    module = name if "." in name else f"usbgate.device.dialects.{name}"
    try:
        found = find_spec(module)
    except ImportError:
        found = None
    if found is None:
        raise ValueError(f"no such module: {module}")
    return module


def option_names(name: str) -> Sequence[str]:
    """
    Return the names of a dialect's options, which `--device` accepts.

    Raises:
        ValueError: See `find_dialect`.
    """
    names: Sequence[str] = getattr(import_module(find_dialect(name)), "OPTIONS", ())
    return names


def make_dialect(name: str, options: Mapping[str, object]) -> Any:
    """
    Return a new dialect, an object that provides `IDialect`.

    Args:
        name: See `find_dialect`.
        options: The keys of `[device.NAME]` that usbgate itself does not know.

    Raises:
        ValueError: The dialect refuses an option; the text begins with its key. Or the module has no dialect.
    """
    module = import_module(find_dialect(name))
    try:
        dialect = module.Dialect
    except AttributeError:
        raise ValueError(f"{module.__name__} has no class Dialect") from None
    return dialect(options)


def check_options(name: str, options: Mapping[str, object], known: Mapping[str, object]) -> None:
    """
    Check that a dialect accepts its options.

    Args:
        name: See `find_dialect`.
        options: See `make_dialect`.
        known: The keys that every device has, one of which may have been meant.

    Raises:
        ValueError: It refuses one; the text begins with its key.
    """
    try:
        make_dialect(name, options)
    except ValueError as error:
        key = str(error).partition(":")[0]
        if key in options and (near := get_close_matches(key, known, 1, NEAR)):
            raise ValueError(f"{key}: unknown key, did you mean {near[0]}?") from None
        raise
