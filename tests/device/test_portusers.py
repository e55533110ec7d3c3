"""
Finding the programs that have a tty open.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial import unittest

from tests.support.board import Board
from usbgate.device.portusers import USERS_LIMIT, find_users, find_users_in_thread, is_same_tty

HOLD = "import os, sys; os.open(sys.argv[1], os.O_RDONLY | os.O_NOCTTY); print('open', flush=True); sys.stdin.read()"


class UsersTests(unittest.TestCase):
    """
    Real programs.
    """

    def setUp(self) -> None:
        """
        Plug two boards in.
        """
        self.board, self.other = Board(self.mktemp()), Board(self.mktemp())
        self.addCleanup(self.board.unplug)
        self.addCleanup(self.other.unplug)

    def hold(self, path: str) -> subprocess.Popen[bytes]:
        """
        Start a program that has a tty open.
        """
        program = subprocess.Popen(
            [sys.executable, "-c", HOLD, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert program.stdout is not None
        self.assertEqual(program.stdout.readline(), b"open\n")
        self.addCleanup(program.communicate)
        return program

    async def test_real(self) -> None:
        """
        A program is found, under its name, while it has the tty open under any name; not one with another tty, and not
        this process.
        """
        tty = os.stat(self.board.tty)
        self.hold(self.other.tty)
        own = os.open(self.board.tty, os.O_RDONLY | os.O_NOCTTY)
        self.addCleanup(os.close, own)
        self.assertEqual(find_users(tty), [])
        program = self.hold(self.board.path)
        name = Path(f"/proc/{program.pid}/comm").read_text().strip()
        self.assertEqual(find_users(tty), [f"{name} (process {program.pid})"])
        self.assertEqual(await find_users_in_thread(tty), [f"{name} (process {program.pid})"])
        program.communicate()
        self.assertEqual(find_users(tty), [])

    def test_the_device_itself(self) -> None:
        """
        A program that has both ends of a pty is the device, and no other program.
        """
        code = "import os; m, s = os.openpty(); print(os.ttyname(s), flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as device:
            assert device.stdout is not None
            path = device.stdout.readline().decode().strip()
            self.assertEqual(find_users(os.stat(path)), [])
            program = self.hold(path)
            self.assertEqual(len(find_users(os.stat(path))), 1)
            program.communicate()


class ProcTests(unittest.SynchronousTestCase):
    """
    A /proc in a folder.
    """

    def setUp(self) -> None:
        """
        Make the folder.
        """
        self.proc = Path(self.mktemp()).absolute()
        self.proc.mkdir()
        self.tty = os.stat("/dev/null")
        self.patch(time, "sleep", lambda seconds: None)

    def add(self, pid: int, *targets: str, name: bytes = b"cat") -> Path:
        """
        Add a process with open files.
        """
        process = self.proc / str(pid)
        (process / "fd").mkdir(parents=True)
        for number, target in enumerate(targets):
            (process / "fd" / str(number)).symlink_to(target)
        (process / "comm").write_bytes(name + b"\n")
        return process

    def find(self) -> list[str]:
        """
        Find the users of /dev/null.
        """
        return list(find_users(self.tty, str(self.proc)))

    def test_odd(self) -> None:
        """
        Processes that are gone or closed to us, and files that are none, hide nothing; names are plain text.
        """
        (self.proc / "self").mkdir()
        (self.proc / "10").mkdir()
        self.add(os.getpid(), "/dev/null")
        self.add(11, "socket:[12]", "/dev/gone (deleted)", "/dev/zero")
        self.add(12, "pipe:[1]", "/dev/null", name=b"a\xffb\x1bc")
        (self.add(13, "/dev/null") / "comm").unlink()
        self.assertEqual(sorted(self.find()), ["? (process 13)", "a?b?c (process 12)"])

    def test_only_devices(self) -> None:
        """
        Files outside of /dev are not looked at: they may be on a file system that does not answer.
        """
        looked: list[str] = []
        stat = os.stat

        def record(path: str) -> os.stat_result:
            looked.append(path)
            return stat(path)

        self.patch(os, "stat", record)
        self.add(12, "/tmp", "/dev/null")
        self.find()
        self.assertEqual(set(looked), {f"{self.proc}/12/fd/1"})

    def test_for_a_moment(self) -> None:
        """
        A process that has the tty open only for a moment is not reported.
        """
        process = self.add(12, "/dev/null")
        self.add(13, "/dev/null")
        self.patch(time, "sleep", lambda seconds: (process / "fd" / "0").unlink())
        self.assertEqual(self.find(), ["cat (process 13)"])

    def test_many(self) -> None:
        """
        The list is bounded.
        """
        for pid in range(100, 150):
            self.add(pid, "/dev/null")
        self.assertEqual(len(self.find()), USERS_LIMIT)

    def test_same(self) -> None:
        """
        A tty is the same in all file systems; a pty is only in its own, since each container numbers them from 0.
        """
        for major, same in ((188, True), (4, True), (166, True), (136, False), (143, False)):
            one, other = (
                os.stat_result((0o020600, 0, dev, 1, 0, 0, 0, 0, 0, 0), {"st_rdev": os.makedev(major, 3)})
                for dev in (5, 6)
            )
            self.assertEqual(is_same_tty(one, other), same, major)
            self.assertTrue(is_same_tty(one, one))
        self.assertFalse(is_same_tty(os.stat("/dev/null"), os.stat("/dev/zero")))
        self.assertFalse(is_same_tty(os.stat("/dev/null"), os.stat("/")))
