"""
What `usbgate doctor` looks at, and what it finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from usbgate.cli.records import Record
from usbgate.device.usb import UsbTree

OK, WARNING, PROBLEM = "ok", "warning", "problem"


class Finding(NamedTuple):
    """
    What one check has found.

    Attributes:
        check: What was looked at.
        state: `OK`, `WARNING` or `PROBLEM`.
        text: What was found, in one line.
        remedy: What to do about it; None if nothing is to be done.
    """

    check: str
    state: str
    text: str
    remedy: str | None = None


@dataclass(frozen=True)
class FoundDaemon:
    """
    The daemon, if it runs.

    Attributes:
        pid: Its process id; None if it does not run, or cannot be seen.
        status: Its status; None if it cannot be asked.
        devices: Its devices.
        sensors: The sensors that it knows, by id; those that have not reported have no fields.
        trouble: Why it cannot be asked.
    """

    pid: int | None = None
    status: Record | None = None
    devices: Sequence[Record] = ()
    sensors: Mapping[str, Record] = field(default_factory=dict)
    trouble: str | None = None


@dataclass(frozen=True)
class Machine:
    """
    Where the kernel and udev show the machine.
    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    udev: Path = Path("/run/udev/data")
    usb: UsbTree = field(default_factory=UsbTree)


def split_remedy(text: str) -> tuple[str, str | None]:
    """
    Return the text and the remedy of an error of ours, which has it behind a semicolon.
    """
    what, _, remedy = text.partition("; ")
    return what, remedy or None
