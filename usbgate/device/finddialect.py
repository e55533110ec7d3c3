"""
Find a dialect by its name, and make one with the options of its device.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec

from usbgate.device.interfaces import IDialect

# How alike an unknown option and a key must be, 0 to 1, for the key to be suggested. An option that a dialect knows,
# but with a value that it refuses, should rarely be so near to a key.
NEAR = 0.75


def find_dialect(name: str) -> str:
    """
    Return the module of a dialect: one of `usbgate.device.dialects`, or any module by its dotted name.

    Modules are found by name, since `twisted.plugin` would import every file and write a cache beside the code.

    Raises:
        ValueError: There is no such module; the text begins with `dialect`.
    """
    module = name if "." in name else f"usbgate.device.dialects.{name}"
    try:
        found = find_spec(module)
    except ImportError:
        found = None
    if found is None:
        raise ValueError(f"dialect: there is no module {module}")
    return module


def make_dialect(name: str, options: Mapping[str, object], known: Collection[str] = ()) -> IDialect:
    """
    Return a new dialect.

    Args:
        name: See `find_dialect`.
        options: The keys of `[device.NAME]` that usbgate itself does not know.
        known: The keys that every device has, one of which may have been meant.

    Raises:
        ValueError: There is no such dialect, or it refuses an option; the text begins with the key.
    """
    path = find_dialect(name)
    try:
        module = import_module(path)
    except ImportError as error:
        raise ValueError(f"dialect: {path} cannot be imported: {error}") from None
    if not hasattr(module, "Dialect"):
        raise ValueError(f"dialect: {path} has no class Dialect")
    try:
        dialect: IDialect = module.Dialect(options)
    except ValueError as error:
        key = str(error).partition(":")[0]
        if key in options and (near := get_close_matches(key, known, 1, NEAR)):
            raise ValueError(f"{key}: unknown key, did you mean {near[0]}?") from None
        raise
    return dialect
