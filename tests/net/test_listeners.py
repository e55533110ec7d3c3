"""
Ports: those that can't accept connections (real ones, on a clock that is moved by hand), and Unix sockets.
"""

from __future__ import annotations

import errno
import grp
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.tcp import Port
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from usbgate.core.extras import TLS, install_command
from usbgate.core.loglimit import LOG_INTERVAL
from usbgate.core.unixsocket import split_group
from usbgate.net import listeners as listeners_module
from usbgate.net.listeners import ACCEPT_PAUSE, ListenError, Listeners


class FewReactor(Clock):
    """
    Records which ports it would poll, and polls none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        """
        Open a port.
        """
        listening = Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def addReader(self, reader: Any) -> None:
        """
        Poll it.
        """
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        """
        Poll it no more.
        """
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        """
        Nothing is written.
        """


class FullSocket:
    """
    A listening socket of a system that has no file descriptor left.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def accept(self) -> tuple[socket.socket, object]:
        """
        Fail.
        """
        raise OSError(self._number, "")


class AcceptErrorTests(SynchronousTestCase):
    """
    There is no file descriptor left to accept a connection with.
    """

    def setUp(self) -> None:
        """
        Open a port.
        """
        self.reactor = FewReactor()
        self.ports = Listeners(self.reactor, ["tcp:0:interface=127.0.0.1"], Factory.forProtocol(Protocol))
        self.ports.privilegedStartService()
        [self.port] = self.reactor.readers
        self.socket = self.port.socket

    def tearDown(self) -> None:
        """
        Once stopped, no timer and no open port is left.
        """
        self.port.socket = self.socket
        stopped = self.ports.stopService()
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual((self.reactor.getDelayedCalls(), self.reactor.readers), ([], set()))

    def test_pauses(self) -> None:
        """
        The port pauses instead of trying again at once, for ever; then it tries again.
        """
        self.port.socket = FullSocket(errno.ENFILE)
        for _ in range(3):
            self.assertIn(self.port, self.reactor.readers)
            self.port.doRead()
            self.assertNotIn(self.port, self.reactor.readers)
            self.reactor.advance(ACCEPT_PAUSE)
        self.port.doRead()  # and is stopped during the pause

    def test_logged_at_intervals(self) -> None:
        """
        However many connections are not accepted, one line a minute is logged, with their number.
        """
        self.port.socket = FullSocket(errno.ENFILE)
        with capturedLogs() as logged:
            self.port.doRead()
            self.assertEqual([*map(formatEvent, logged)], ["1 connections could not be accepted: ENFILE"])
            for _ in range(59):
                self.reactor.advance(ACCEPT_PAUSE)
                self.port.doRead()
            self.assertEqual(len(logged), 1)
            self.reactor.advance(LOG_INTERVAL)
            self.port.doRead()
        self.assertEqual([*map(formatEvent, logged[1:])], ["60 connections could not be accepted: ENFILE"])


class SocketTests(TestCase):
    """
    Unix sockets.
    """

    def test_modes(self) -> None:
        """
        The mode is 0660 unless the endpoint names one; the group is the named one.
        """
        for endpoint, expected in {
            "unix:/s": ("unix:/s:mode=660", None),
            "unix:address=/s": ("unix:address=/s:mode=660", None),
            "unix:/s:mode=600": ("unix:/s:mode=600", None),
            "unix:/s:600": ("unix:/s:600", None),
            "unix:/s:group=www-data:backlog=5": ("unix:/s:backlog=5:mode=660", "www-data"),
            r"unix:/a\:b:group=a\:b": (r"unix:/a\:b:mode=660", "a:b"),
            "tcp:1:group=x": ("tcp:1:group=x", None),
        }.items():
            self.assertEqual(split_group(endpoint), expected)

    def listen(self, *options: str) -> os.stat_result:
        """
        Listen on a Unix socket until the end of the test; return what it is like.
        """
        folder = tempfile.mkdtemp()  # short enough for the path of a socket
        self.addCleanup(shutil.rmtree, folder)
        listeners = Listeners(reactor, [":".join(["unix", f"{folder}/s", *options])], Factory.forProtocol(Protocol))
        listeners.privilegedStartService()
        self.addCleanup(listeners.stopService)
        return os.stat(f"{folder}/s")

    async def test_listening(self) -> None:
        """
        A socket has its mode and its group; an unknown group is one clear line.
        """
        own = grp.getgrgid(os.getgid()).gr_name
        self.assertEqual(self.listen().st_mode & 0o777, 0o660)
        found = self.listen("mode=600", f"group={own}")
        self.assertEqual((found.st_mode & 0o777, found.st_gid), (0o600, os.getgid()))
        error = self.assertRaises(ListenError, self.listen, "group=no-such-group")
        self.assertIn("the group no-such-group: there is none", str(error))
        await deferLater(reactor, 0)  # the socket is closed

    def test_errors(self) -> None:
        """
        An error names the endpoint and says what is wrong there.
        """
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "file").touch()
            for path, why in (
                (f"{folder}/none/s", "No such file or directory: its folder must exist"),
                (f"{folder}/file", "Address already in use"),
                (f"{folder}/{'x' * 200}", "AF_UNIX path too long"),
            ):
                listeners = Listeners(reactor, [f"unix:{path}"], Factory.forProtocol(Protocol))
                error = self.assertRaises(ListenError, listeners.privilegedStartService)
                self.assertEqual(str(error), f"cannot listen on unix:{path}: {why}")

    async def test_left_behind(self) -> None:
        """
        What a power cut has left of a socket does not keep usbgate from listening, whatever process has its number now;
        a socket where somebody listens is left alone.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "s")
            lock = Path(folder, "s.lock")
            for process in (1, os.getpid(), os.getppid()):
                with socket.socket(socket.AF_UNIX) as gone:
                    gone.bind(str(path))
                lock.symlink_to(str(process))
                listeners = Listeners(reactor, [f"unix:{path}"], Factory.forProtocol(Protocol))
                listeners.privilegedStartService()
                self.assertEqual(os.readlink(lock), str(os.getpid()))
                other = Listeners(reactor, [f"unix:{path}"], Factory.forProtocol(Protocol))
                error = self.assertRaises(ListenError, other.privilegedStartService)
                self.assertEqual(str(error), f"cannot listen on unix:{path}: another program listens there")
                await listeners.stopService()
                self.assertEqual(os.listdir(folder), [])

    def test_not_a_socket(self) -> None:
        """
        A file in place of the socket is not removed.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "s")
            path.write_text("mine")
            Path(folder, "s.lock").symlink_to("1")
            listeners = Listeners(reactor, [f"unix:{path}"], Factory.forProtocol(Protocol))
            self.assertRaises(ListenError, listeners.privilegedStartService)
            self.assertEqual(path.read_text(), "mine")


class EverywhereTests(SynchronousTestCase):
    """
    What the log says of a port, and errors.
    """

    def test_log(self) -> None:
        """
        Only of a port that listens on all addresses does the log say so.
        """
        for interface, expected in (("", True), ("127.0.0.1", False)):
            listeners = Listeners(FewReactor(), [f"tcp:0:interface={interface}"], Factory.forProtocol(Protocol))
            with capturedLogs() as events:
                listeners.privilegedStartService()
            texts = [formatEvent(event) for event in events]
            self.assertEqual(any("on all addresses" in text for text in texts), expected, texts)
            listeners.stopService()

    def test_no_tls(self) -> None:
        """
        TLS without pyOpenSSL is one line with the remedy, whatever Twisted raises.
        """

        def fail(of: object, text: str) -> None:
            raise NameError("name 'SNIConnectionCreator' is not defined")

        self.patch(listeners_module, "serverFromString", fail)
        self.patch(listeners_module, "find_spec", lambda name: None)
        for kind in ("ssl", "tls"):
            listeners = Listeners(FewReactor(), [f"{kind}:8443"], Factory.forProtocol(Protocol))
            error = self.assertRaises(ListenError, listeners.privilegedStartService)
            self.assertEqual(
                str(error),
                f"cannot listen on {kind}:8443: TLS needs pyOpenSSL, which is not installed: " + install_command(TLS),
            )


class LocalOnlyTests(SynchronousTestCase):
    """
    `local_only`.
    """

    def test_refused(self) -> None:
        """
        A port that turns out to be one that other machines can reach ends the start, and is closed.
        """
        for interface, refused in (("127.0.0.1", False), ("0.0.0.0", True)):
            reactor = FewReactor()
            endpoint = f"tcp:0:interface={interface}"
            ports = Listeners(reactor, [endpoint], Factory.forProtocol(Protocol), local_only=True)
            if refused:
                error = self.assertRaises(ListenError, ports.privilegedStartService)
                self.assertIn("other machines can reach it", str(error))
            else:
                ports.privilegedStartService()
            stopped = ports.stopService()
            reactor.advance(0)
            self.successResultOf(stopped)
            self.assertEqual(reactor.readers, set())
