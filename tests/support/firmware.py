"""
Tests of firmware on emulated boards, and the lines on their ports.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support.arduino import ArduinoModel, EmulatedBoard, needs_tools
from tests.support.daemon import RunningCase
from tests.support.waiting import LIMIT
from usbgate.core.fieldline import checksum


def summed(line: str) -> bytes:
    """
    Return a line with its checksum and its end.
    """
    return line.encode() + checksum(line.encode()) + b"\n"


def text_of(line: bytes) -> str:
    """
    Return a line's text, without its end.
    """
    return line.decode().rstrip("\n")


def read_lines(port: int, is_all: Callable[[list[str]], bool]) -> list[str]:
    """
    Read from a port until the lines are all that are expected.
    """
    data = b""
    while not (data.endswith(b"\n") and is_all(data.decode().splitlines())):
        readable, _, _ = select.select([port], [], [], LIMIT)
        assert readable, f"no more than {data!r}"
        data += os.read(port, 4096)
    return data.decode().splitlines()


def read_count(port: int, count: int) -> list[str]:
    """
    Read this many lines from a port.
    """
    return read_lines(port, lambda lines: len(lines) >= count)


class FirmwareCase(RunningCase):
    """
    Boards that run until the end of the test.
    """

    def setUp(self) -> None:
        """
        Look for the tools.
        """
        if reason := needs_tools():
            raise SkipTest(f"firmware can't be compiled and run: {reason}")
        super().setUp()

    def switch_on(self, model: ArduinoModel, elf: Path, *uarts: str) -> EmulatedBoard:
        """
        Run firmware on a board.
        """
        board = EmulatedBoard(model, elf, *uarts)
        self.addCleanup(board.end)
        return board

    def open(self, path: Path) -> int:
        """
        Open a board's port.
        """
        port = os.open(path, os.O_RDWR | os.O_NOCTTY)
        self.addCleanup(os.close, port)
        return port
