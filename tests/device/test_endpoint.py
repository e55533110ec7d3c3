"""
The serial endpoints, on real ptys.
"""

from __future__ import annotations

import grp
import os
import pwd
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, clientFromString
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from zope.interface.verify import verifyObject

from tests.support.board import open_files
from tests.support.ports import PortCase, RecordingProtocol
from tests.support.usb import MadeUpUsb
from tests.support.waiting import until
from usbgate.device.endpoint import SerialEndpoint, UsbEndpoint, open_device
from usbgate.device.errors import AmbiguousDevice, DeviceBusy, DeviceError, NoSuchDevice, NotPermitted, SecondName
from usbgate.device.serialport import PortSettings, SerialTransport
from usbgate.device.usb import UsbTree

reactor: Any = global_reactor


class OpeningTests(PortCase):
    """
    Opening a port, and what can prevent it.
    """

    async def test_interface(self) -> None:
        """
        It is a client endpoint of Twisted's.
        """
        verifyObject(IStreamClientEndpoint, self.endpoint)

    async def test_bytes_pass_unchanged(self) -> None:
        """
        Every byte passes unchanged, both ways, and nothing is echoed.
        """
        protocol, transport = await self.open()
        every = bytes(range(256))
        self.board.say(every)
        await until(lambda: len(protocol.data) >= 256)
        transport.write(every)
        await until(lambda: len(self.board.listen()) >= 256)
        self.assertEqual((protocol.data, self.board.received), (every, every))

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
        A second opening by usbgate, under this or another name, fails and names the first, until that is closed.
        """
        protocol, _ = await self.open()
        before = open_files()
        error = await self.assertFailure(self.endpoint.connect(Factory.forProtocol(RecordingProtocol)), SecondName)
        other = SerialEndpoint(reactor, self.board.tty)
        error = await self.assertFailure(other.connect(Factory.forProtocol(RecordingProtocol)), SecondName)
        self.assertEqual(
            str(error),
            f"{self.board.tty}: usbgate itself has it open, as {self.board.path}; "
            "remove one of the two devices from the configuration",
        )
        self.assertNotIn("\n", str(error))
        self.assertEqual(open_files(), before)
        await self.close(protocol)
        await self.open()

    async def test_held_by_another_program(self) -> None:
        """
        A lock of another process is respected; it ends with that process.
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
            error = await self.assertFailure(self.endpoint.connect(Factory.forProtocol(RecordingProtocol)), DeviceBusy)
            self.assertIn(f"fuser -v {self.board.path}", str(error))
            self.assertNotIn("\n", str(error))
            holder.send_signal(signal.SIGKILL)
        await self.open()

    async def test_no_such_device(self) -> None:
        """
        A path that does not exist has an error of its own, which names it.
        """
        self.board.unplug()
        error = await self.assertFailure(self.endpoint.connect(Factory.forProtocol(RecordingProtocol)), NoSuchDevice)
        self.assertTrue(str(error).startswith(f"{self.board.path}: no such device"))

    async def test_not_permitted(self) -> None:
        """
        A user who may not open the device learns which group to join, or that the mode is wrong.
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
        Try to open the port, and return the error's message.
        """
        connecting: Deferred[object] = self.endpoint.connect(Factory.forProtocol(RecordingProtocol))  # type: ignore[assignment]
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
            SerialEndpoint(reactor, self.board.path, PortSettings(-1)),
            SerialEndpoint(reactor, self.board.path, PortSettings(1 << 40)),
        ):
            error = await self.assertFailure(endpoint.connect(Factory.forProtocol(RecordingProtocol)), DeviceError)
            self.assertIs(type(error), DeviceError)
            self.assertNotIn("\n", str(error))
        self.assertEqual(open_files(), before)

    async def test_protocol_that_raises(self) -> None:
        """
        If the protocol raises in `connectionMade`, the attempt fails, and the port is free again.
        """

        class Raising(RecordingProtocol):
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
        A factory may refuse a connection; the port is then closed.
        """

        class RefusingFactory(Factory):
            def buildProtocol(self, addr: object) -> None:
                return None

        factory: IProtocolFactory = RefusingFactory()
        await self.assertFailure(self.endpoint.connect(factory), NoProtocol)
        await self.open()

    async def test_factory_that_raises(self) -> None:
        """
        If the factory raises, the attempt fails, and the port is free again.
        """

        class RaisingFactory(Factory):
            def buildProtocol(self, addr: object) -> None:
                raise RuntimeError("no protocol")

        before = open_files()
        factory: IProtocolFactory = RaisingFactory()
        await self.assertFailure(self.endpoint.connect(factory), RuntimeError)
        self.assertEqual(open_files(), before)
        await self.open()

    async def test_cancelled(self) -> None:
        """
        A cancelled attempt opens nothing.
        """
        before = open_files()
        connecting = self.endpoint.connect(Factory.forProtocol(RecordingProtocol))
        connecting.cancel()
        await self.assertFailure(connecting, CancelledError)
        self.assertEqual(open_files(), before)

    async def test_closing_while_it_opens(self) -> None:
        """
        A protocol may close the connection in `connectionMade`.
        """

        class Shy(RecordingProtocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.loseConnection()

        protocol = await self.endpoint.connect(Factory.forProtocol(Shy))
        assert isinstance(protocol, Shy)
        await until(lambda: protocol.lost)
        await self.open()

    async def test_pausing_while_it_opens(self) -> None:
        """
        A protocol that pauses in `connectionMade` gets no data.
        """

        class Paused(RecordingProtocol):
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


class SpecTests(PortCase):
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
        A text that starts like a path is one; everything else is an endpoint string.
        """
        for spec in ("/dev/serial/by-path/pci-0:1.2:1.0", "./board"):
            self.assertIsInstance(open_device(reactor, spec, PortSettings(9600)), SerialEndpoint)
        self.assertIsInstance(open_device(reactor, "tcp:127.0.0.1:2000"), TCP4ClientEndpoint)
        for spec in ("usb:2341:8036", "usb-port:1-1.3"):
            self.assertIsInstance(open_device(reactor, spec), UsbEndpoint)
        for spec in ("nonsense:1", "usb:1"):
            self.assertRaises(ValueError, open_device, reactor, spec)

    async def test_usb_device(self) -> None:
        """
        A USB device is searched at each opening. If there is none, the error names the devices that are present; if two
        devices match, neither is opened.
        """
        usb = MadeUpUsb(Path(self.mktemp()))
        tree = UsbTree(str(usb.sysfs), str(usb.dev))
        endpoint = open_device(reactor, "usb:2341:8036:85", PortSettings(115200), tree)
        error = await self.assertFailure(endpoint.connect(Factory.forProtocol(RecordingProtocol)), NoSuchDevice)
        self.assertEqual(str(error), "usb:2341:8036:85: no such device; plug it in; USB serial devices present: none")
        usb.plug("1-2", "2341:8036", "86", ttyACM0="1.0")
        error = await self.assertFailure(endpoint.connect(Factory.forProtocol(RecordingProtocol)), NoSuchDevice)
        self.assertTrue(str(error).endswith("devices present: usb-port:1-2 (ttyACM0, 2341:8036)"), str(error))
        usb.plug("1-3", "2341:8036", "85", ttyACM1="1.0")
        (usb.dev / "ttyACM1").symlink_to(self.board.tty)
        protocol = await endpoint.connect(Factory.forProtocol(RecordingProtocol))
        assert isinstance(protocol, RecordingProtocol)
        self.assertEqual(termios.tcgetattr(self.board.master)[4], termios.B115200)
        busy = await self.assertFailure(endpoint.connect(Factory.forProtocol(RecordingProtocol)), SecondName)
        self.assertTrue(str(busy).startswith(f"{usb.dev}/ttyACM1: "), str(busy))
        await self.close(protocol)
        usb.plug("1-4", "2341:8036", "85", ttyACM2="1.0")
        doubt = await self.assertFailure(endpoint.connect(Factory.forProtocol(RecordingProtocol)), AmbiguousDevice)
        self.assertIn("usb-port:1-3 (ttyACM1, 2341:8036), usb-port:1-4 (ttyACM2,", str(doubt))
