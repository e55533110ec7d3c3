"""
The serial endpoint, on real ptys.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, clientFromString
from twisted.internet.error import ConnectionDone, NoProtocol
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial import unittest
from zope.interface.verify import verifyObject

from tests.support.board import Board, open_files
from tests.support.usb import MadeUpUsb
from tests.support.waiting import until
from usbgate.device.endpoint import (
    AmbiguousDevice,
    DeviceBusy,
    DeviceError,
    LockedSerial,
    NoSuchDevice,
    NotPermitted,
    SerialEndpoint,
    SerialTransport,
    UsbEndpoint,
    open_device,
)
from usbgate.device.interfaces import IResettable
from usbgate.device.usb import UsbTree

reactor: Any = global_reactor


class Recorder(Protocol):
    """
    Keeps what happens to it.
    """

    def __init__(self) -> None:
        self.data = b""
        self.lost: list[Failure] = []

    def dataReceived(self, data: bytes) -> None:
        """
        Keep data.
        """
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Keep the reason.
        """
        self.lost.append(reason)


class EndpointCase(unittest.TestCase):
    """
    A board, and an endpoint for it.
    """

    async def setUp(self) -> None:  # type: ignore[override]  # trial's may be asynchronous
        """
        Plug a board in, with the reactor running: it opens descriptors of its own when it starts.
        """
        await deferLater(reactor, 0)
        self.board = Board(self.mktemp())
        self.addCleanup(self.board.unplug)
        self.endpoint = SerialEndpoint(reactor, self.board.path)

    async def open(self) -> tuple[Recorder, SerialTransport]:
        """
        Open the port; it is closed at the end of the test.
        """
        protocol = await self.endpoint.connect(Factory.forProtocol(Recorder))
        assert isinstance(protocol, Recorder)
        assert isinstance(protocol.transport, SerialTransport)
        self.addCleanup(self.close, protocol)
        return protocol, protocol.transport

    def close(self, protocol: Recorder) -> Deferred[None]:
        """
        Close the port, if it still is open.
        """
        assert protocol.transport is not None
        protocol.transport.loseConnection()
        return Deferred.fromCoroutine(until(lambda: protocol.lost))


class OpeningTests(EndpointCase):
    """
    Opening a port, and what can be in the way.
    """

    async def test_interface(self) -> None:
        """
        It is what Twisted calls a client endpoint.
        """
        verifyObject(IStreamClientEndpoint, self.endpoint)

    async def test_bytes_pass_unchanged(self) -> None:
        """
        Every byte goes through as it is, both ways, and nothing is echoed.
        """
        protocol, transport = await self.open()
        every = bytes(range(256))
        self.board.say(every)
        await until(lambda: len(protocol.data) >= 256)
        transport.write(every)
        await until(lambda: len(self.board.listen()) >= 256)
        self.assertEqual((protocol.data, self.board.heard), (every, every))

    async def test_line_settings(self) -> None:
        """
        The port is raw, 8N1, without flow control, and needs no carrier.
        """
        await self.open()
        iflag, oflag, cflag, lflag, ispeed, _, _ = termios.tcgetattr(self.board.master)
        self.assertFalse(iflag & (termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON | termios.ISTRIP))
        self.assertFalse(oflag & termios.OPOST)
        self.assertFalse(lflag & (termios.ICANON | termios.ECHO | termios.ISIG))
        self.assertEqual(cflag & (termios.CSIZE | termios.PARENB | termios.CSTOPB), termios.CS8)
        self.assertTrue(cflag & termios.CLOCAL)
        self.assertEqual(ispeed, termios.B9600)

    async def test_nothing_to_read_is_no_end(self) -> None:
        """
        A wake-up that finds nothing to read does not look like an unplugged device.
        """
        protocol, transport = await self.open()
        self.assertIsNone(transport.doRead())
        self.board.say(b"still here")
        await until(lambda: protocol.data == b"still here")

    async def test_second_open_is_busy(self) -> None:
        """
        The port is ours alone: a second open fails and says what to do, until the first one is closed.
        """
        protocol, _ = await self.open()
        before = open_files()
        error = await self.assertFailure(self.endpoint.connect(Factory.forProtocol(Recorder)), DeviceBusy)
        self.assertIn(f"fuser -v {self.board.path}", str(error))
        self.assertNotIn("\n", str(error))
        self.assertEqual(open_files(), before)
        await self.close(protocol)
        await self.open()

    async def test_held_by_another_program(self) -> None:
        """
        A lock that another process has is respected; it is gone with that process.
        """
        code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print('held', flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", code, self.board.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as holder:
            assert holder.stdout is not None
            self.assertEqual(holder.stdout.readline(), b"held\n")
            await self.assertFailure(self.endpoint.connect(Factory.forProtocol(Recorder)), DeviceBusy)
            holder.send_signal(signal.SIGKILL)
        await self.open()

    async def test_no_such_device(self) -> None:
        """
        A path that is not there is told from everything else, and the path is named.
        """
        self.board.unplug()
        error = await self.assertFailure(self.endpoint.connect(Factory.forProtocol(Recorder)), NoSuchDevice)
        self.assertTrue(str(error).startswith(f"{self.board.path}: no such device"))

    async def test_not_permitted(self) -> None:
        """
        Who may not open the device is told the group to join, or that the mode is wrong.
        """
        self.endpoint = SerialEndpoint(reactor, self.board.tty)  # the symlink is in a folder of root's
        if os.geteuid() == 0:
            group, nobody = grp.getgrall()[-1], pwd.getpwnam("nobody")
            os.chown(self.board.tty, 0, group.gr_gid)
            os.chmod(self.board.tty, 0o660)
            os.seteuid(nobody.pw_uid)
            self.addCleanup(os.seteuid, 0)
            self.assertIn(f"sudo usermod -aG {group.gr_name} nobody", await self.refused())
            os.seteuid(0)
            os.chmod(self.board.tty, 0)
            os.seteuid(nobody.pw_uid)
        else:
            os.chmod(self.board.tty, 0)
        self.assertIn("its mode is 0000", await self.refused())

    async def refused(self) -> str:
        """
        Try to open the port, in vain; tell the error's text.
        """
        connecting: Deferred[object] = self.endpoint.connect(Factory.forProtocol(Recorder))  # type: ignore[assignment]
        return str(await self.assertFailure(connecting, NotPermitted))

    async def test_not_a_serial_port(self) -> None:
        """
        A file, a folder and an impossible baud rate give one line each, and leave nothing open.
        """
        plain = self.mktemp()
        with open(plain, "wb"):
            pass
        before = open_files()
        for endpoint in (
            SerialEndpoint(reactor, plain),
            SerialEndpoint(reactor, "/"),
            SerialEndpoint(reactor, self.board.path, -1),
            SerialEndpoint(reactor, self.board.path, 1 << 40),
        ):
            error = await self.assertFailure(endpoint.connect(Factory.forProtocol(Recorder)), DeviceError)
            self.assertIs(type(error), DeviceError)
            self.assertNotIn("\n", str(error))
        self.assertEqual(open_files(), before)

    async def test_protocol_that_raises(self) -> None:
        """
        Where the protocol raises at its beginning the attempt fails, and the port is free again.
        """

        class Raising(Recorder):
            def connectionMade(self) -> None:
                raise RuntimeError("not today")

        protocol = Raising()
        factory = Factory.forProtocol(lambda: protocol)
        before = open_files()
        await self.assertFailure(self.endpoint.connect(factory), RuntimeError)
        self.assertEqual((protocol.lost, open_files()), ([], before))
        await self.open()

    async def test_no_protocol(self) -> None:
        """
        A factory that wants no connection gets none.
        """

        class Unwilling(Factory):
            def buildProtocol(self, addr: object) -> None:
                return None

        factory: IProtocolFactory = Unwilling()
        await self.assertFailure(self.endpoint.connect(factory), NoProtocol)
        await self.open()

    async def test_cancelled(self) -> None:
        """
        A cancelled attempt opens nothing.
        """
        before = open_files()
        connecting = self.endpoint.connect(Factory.forProtocol(Recorder))
        connecting.cancel()
        await self.assertFailure(connecting, CancelledError)
        self.assertEqual(open_files(), before)

    async def test_closing_while_it_opens(self) -> None:
        """
        A protocol may hang up in its very first call.
        """

        class Shy(Recorder):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.loseConnection()

        protocol = await self.endpoint.connect(Factory.forProtocol(Shy))
        assert isinstance(protocol, Shy)
        await until(lambda: protocol.lost)
        await self.open()

    async def test_pausing_while_it_opens(self) -> None:
        """
        A protocol that pauses in its very first call is not read for.
        """

        class Paused(Recorder):
            def connectionMade(self) -> None:
                assert isinstance(self.transport, SerialTransport)
                self.transport.pauseProducing()

        protocol = await self.endpoint.connect(Factory.forProtocol(Paused))
        assert isinstance(protocol, Paused)
        assert isinstance(protocol.transport, SerialTransport)
        self.addCleanup(self.close, protocol)
        self.assertNotIn(protocol.transport, reactor.getReaders())
        self.board.say(b"later")
        protocol.transport.resumeProducing()
        await until(lambda: protocol.data == b"later")


class ClosingTests(EndpointCase):
    """
    How a port ends.
    """

    async def test_lose_connection(self) -> None:
        """
        Hanging up, twice even, ends the connection once, cleanly, and frees descriptor and lock.
        """
        before = open_files()
        protocol, transport = await self.open()
        transport.write(b"good bye")
        transport.loseConnection()
        transport.loseConnection()
        await until(lambda: protocol.lost)
        transport.connectionLost()
        self.assertEqual([reason.type for reason in protocol.lost], [ConnectionDone])
        self.assertEqual((open_files(), transport.fileno()), (before, -1))
        await until(lambda: self.board.listen() == b"good bye")

    async def test_device_that_takes_nothing(self) -> None:
        """
        A device that reads nothing does not keep its port open.
        """
        protocol, transport = await self.open()
        transport.write(bytes(1 << 20))
        transport.loseConnection()
        await until(lambda: protocol.lost)
        await self.open()

    async def test_slow_device_gets_all(self) -> None:
        """
        What was written before hanging up goes out first, if the device takes it in time.
        """
        protocol, transport = await self.open()
        transport.write(bytes(100_000))
        transport.loseConnection()
        await until(lambda: len(self.board.listen()) == 100_000)
        await until(lambda: protocol.lost)

    async def test_unplugged(self) -> None:
        """
        An unplugged device ends the connection once, though nobody writes, and nothing stays open.
        """
        before = open_files()
        protocol, _ = await self.open()
        self.board.unplug()
        await until(lambda: protocol.lost)
        self.assertEqual(len(protocol.lost), 1)
        self.assertEqual(open_files(), before - 1)  # the board's own

    async def test_unplugged_while_closing(self) -> None:
        """
        A device that goes away while its port is being closed ends it once, too.
        """
        protocol, transport = await self.open()
        transport.write(bytes(1 << 20))
        transport.loseConnection()
        self.board.unplug()
        await until(lambda: protocol.lost)
        self.assertEqual(len(protocol.lost), 1)

    async def test_not_inherited(self) -> None:
        """
        A child process does not hold the port.
        """
        _, transport = await self.open()
        self.assertTrue(fcntl.fcntl(transport.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC)


class FakeSerial(LockedSerial):
    """
    A port with modem lines, on a pty that has none; notes what becomes of them.
    """

    made: ClassVar[list[FakeSerial]] = []
    _dtr_state: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.levels: list[bool] = []
        self.made.append(self)
        super().__init__(*args, **kwargs)

    def _update_dtr_state(self) -> None:
        self.levels.append(self._dtr_state)

    def _update_rts_state(self) -> None:
        """
        Let it be.
        """


class ResetTests(EndpointCase):
    """
    DTR, by which a board is reset.
    """

    async def setUp(self) -> None:  # type: ignore[override]  # trial's may be asynchronous
        """
        Have ports with modem lines.
        """
        await super().setUp()
        attributes = termios.tcgetattr(self.board.master)
        attributes[2] |= termios.HUPCL  # as a serial port has it, and a pty not
        termios.tcsetattr(self.board.master, termios.TCSANOW, attributes)
        self.patch(SerialTransport, "_serialFactory", FakeSerial)
        self.patch(FakeSerial, "made", [])

    async def test_as_the_system_does(self) -> None:
        """
        Unless told otherwise DTR is up while the port is open, and the kernel takes it down when it is closed.
        """
        await self.open()
        self.assertEqual(FakeSerial.made[0].levels, [True])
        self.assertTrue(termios.tcgetattr(self.board.master)[2] & termios.HUPCL)

    async def test_never(self) -> None:
        """
        Where DTR is kept nobody touches it at opening, nor does the kernel when the port is closed.
        """
        self.endpoint = SerialEndpoint(reactor, self.board.path, keep_dtr=True)
        await self.open()
        self.assertEqual(FakeSerial.made[0].levels, [])
        self.assertFalse(termios.tcgetattr(self.board.master)[2] & termios.HUPCL)

    async def test_pulse(self) -> None:
        """
        A reset takes DTR down, and up again later; another one meanwhile is part of it.
        """
        _, transport = await self.open()
        levels = FakeSerial.made[0].levels
        self.assertTrue(transport.reset())
        self.assertEqual(levels, [True, False])
        transport.reset()
        await until(lambda: True in levels[1:])
        self.assertEqual(levels, [True, False, False, True])

    async def test_closed_meanwhile(self) -> None:
        """
        A port that is closed in the middle of a reset has DTR up again, and nothing stays armed.
        """
        protocol, transport = await self.open()
        transport.reset()
        await self.close(protocol)
        self.assertEqual(FakeSerial.made[0].levels, [True, False, True])
        self.assertFalse(transport.reset())

    async def test_no_such_line(self) -> None:
        """
        A pty has no DTR: keeping it and resetting by it do nothing, and the port is as good as ever.
        """
        self.patch(SerialTransport, "_serialFactory", LockedSerial)
        self.endpoint = SerialEndpoint(reactor, self.board.path, keep_dtr=True)
        protocol, transport = await self.open()
        verifyObject(IResettable, transport)
        self.assertFalse(transport.reset())
        self.board.say(b"still here")
        await until(lambda: protocol.data == b"still here")


class SpecTests(EndpointCase):
    """
    Devices as the configuration spells them.
    """

    async def test_endpoint_string(self) -> None:
        """
        `serial:PATH:baudrate=…` is an endpoint string wherever Twisted takes one.
        """
        self.endpoint = clientFromString(reactor, f"serial:{self.board.path}:baudrate=115200")
        await self.open()
        self.assertEqual(termios.tcgetattr(self.board.master)[4], termios.B115200)

    async def test_path_or_string(self) -> None:
        """
        What starts like a path is one; everything else is an endpoint string.
        """
        for spec in ("/dev/serial/by-path/pci-0:1.2:1.0", "./board"):
            self.assertIsInstance(open_device(reactor, spec, 9600), SerialEndpoint)
        self.assertIsInstance(open_device(reactor, "tcp:127.0.0.1:2000"), TCP4ClientEndpoint)
        for spec in ("usb:2341:8036", "usb-port:1-1.3"):
            self.assertIsInstance(open_device(reactor, spec), UsbEndpoint)
        for spec in ("nonsense:1", "usb:1"):
            self.assertRaises(ValueError, open_device, reactor, spec)

    async def test_usb_device(self) -> None:
        """
        A USB device is looked for at each opening: one that is not there is told with what was looked for and what is
        there instead, and of two that could be meant neither is opened.
        """
        usb = MadeUpUsb(Path(self.mktemp()))
        tree = UsbTree(str(usb.sysfs), str(usb.dev))
        endpoint = open_device(reactor, "usb:2341:8036:85", 115200, tree)
        error = await self.assertFailure(endpoint.connect(Factory.forProtocol(Recorder)), NoSuchDevice)
        self.assertEqual(
            str(error), "usb:2341:8036:85: no such device; plug it in; the USB serial devices that are: none"
        )
        usb.plug("1-2", "2341:8036", "86", ttyACM0="1.0")
        error = await self.assertFailure(endpoint.connect(Factory.forProtocol(Recorder)), NoSuchDevice)
        self.assertTrue(str(error).endswith("devices that are: usb-port:1-2 (ttyACM0, 2341:8036)"), str(error))
        usb.plug("1-3", "2341:8036", "85", ttyACM1="1.0")
        (usb.dev / "ttyACM1").symlink_to(self.board.tty)
        protocol = await endpoint.connect(Factory.forProtocol(Recorder))
        assert isinstance(protocol, Recorder)
        self.assertEqual(termios.tcgetattr(self.board.master)[4], termios.B115200)
        busy = await self.assertFailure(endpoint.connect(Factory.forProtocol(Recorder)), DeviceBusy)
        self.assertIn(f"fuser -v {usb.dev}/ttyACM1", str(busy))
        await self.close(protocol)
        usb.plug("1-4", "2341:8036", "85", ttyACM2="1.0")
        doubt = await self.assertFailure(endpoint.connect(Factory.forProtocol(Recorder)), AmbiguousDevice)
        self.assertIn("usb-port:1-3 (ttyACM1, 2341:8036), usb-port:1-4 (ttyACM2,", str(doubt))
