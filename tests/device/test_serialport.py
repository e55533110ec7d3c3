"""
The transport of a serial port, on real ptys.
"""

from __future__ import annotations

import fcntl
import termios
from typing import Any, ClassVar

from twisted.internet import reactor as global_reactor
from twisted.internet.error import ConnectionDone
from zope.interface.verify import verifyObject

from tests.support.board import open_files
from tests.support.ports import PortCase
from tests.support.waiting import until
from usbgate.device import serialport
from usbgate.device.endpoint import SerialEndpoint
from usbgate.device.errors import DeviceError
from usbgate.device.interfaces import IResettable, ISharedPort
from usbgate.device.serialport import LockedSerial, PortSettings, SerialTransport, open_port

reactor: Any = global_reactor

TIOCGEXCL = 0x80045440  # of Linux; not in `termios`
TCGETS2 = 0x802C542A


class ClosingTests(PortCase):
    """
    How a connection ends.
    """

    async def test_lose_connection(self) -> None:
        """
        Closing it, even twice, ends the connection once, cleanly, and frees descriptor and lock.
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

    async def test_device_that_does_not_read(self) -> None:
        """
        A device that does not read does not keep its port open.
        """
        protocol, transport = await self.open()
        transport.write(bytes(1 << 20))
        transport.loseConnection()
        await until(lambda: protocol.lost)
        await self.open()

    async def test_slow_device_gets_all(self) -> None:
        """
        What was written before closing is sent first, if the device reads it in time.
        """
        protocol, transport = await self.open()
        transport.write(bytes(100_000))
        transport.loseConnection()
        await until(lambda: len(self.board.listen()) == 100_000)
        await until(lambda: protocol.lost)

    async def test_unplugged(self) -> None:
        """
        Unplugging the device ends the connection once, though nobody writes, and nothing stays open.
        """
        before = open_files()
        protocol, _ = await self.open()
        self.board.unplug()
        await until(lambda: protocol.lost)
        self.assertEqual(len(protocol.lost), 1)
        self.assertEqual(open_files(), before - 1)  # the board's own

    async def test_unplugged_while_closing(self) -> None:
        """
        Unplugging it while the port is being closed ends the connection once, too.
        """
        protocol, transport = await self.open()
        transport.write(bytes(1 << 20))
        transport.loseConnection()
        self.board.unplug()
        await until(lambda: protocol.lost)
        self.assertEqual(len(protocol.lost), 1)

    async def test_not_inherited(self) -> None:
        """
        A child process does not inherit the port.
        """
        _, transport = await self.open()
        self.assertTrue(fcntl.fcntl(transport.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC)


class FakeSerial(LockedSerial):
    """
    A port with modem lines, on a pty that has none; records the levels of DTR.
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
        Do nothing: no test needs RTS.
        """


class ResetTests(PortCase):
    """
    Resetting a board by DTR.
    """

    async def setUp(self) -> None:  # type: ignore[override]  # trial's may be asynchronous
        """
        Open ports that have modem lines.
        """
        await super().setUp()
        attributes = termios.tcgetattr(self.board.master)
        attributes[2] |= termios.HUPCL  # set on a serial port, but not on a pty
        termios.tcsetattr(self.board.master, termios.TCSANOW, attributes)
        self.patch(SerialTransport, "_serialFactory", FakeSerial)
        self.patch(FakeSerial, "made", [])

    async def test_as_the_system_does(self) -> None:
        """
        By default DTR is high while the port is open, and the kernel lowers it when the port is closed.
        """
        await self.open()
        self.assertEqual(FakeSerial.made[0].levels, [True])
        self.assertTrue(termios.tcgetattr(self.board.master)[2] & termios.HUPCL)

    async def test_never(self) -> None:
        """
        With `keep_dtr` DTR does not change at opening, nor does the kernel lower it when the port is closed.
        """
        self.endpoint = SerialEndpoint(reactor, self.board.path, PortSettings(keep_dtr=True))
        await self.open()
        self.assertEqual(FakeSerial.made[0].levels, [])
        self.assertFalse(termios.tcgetattr(self.board.master)[2] & termios.HUPCL)

    async def test_pulse(self) -> None:
        """
        A reset lowers DTR, and raises it later; a second reset meanwhile is part of the first.
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
        A port that is closed during a reset has DTR high again, and no timer is left.
        """
        protocol, transport = await self.open()
        transport.reset()
        await self.close(protocol)
        self.assertEqual(FakeSerial.made[0].levels, [True, False, True])
        self.assertFalse(transport.reset())

    async def test_no_such_line(self) -> None:
        """
        A pty has no DTR: keeping it and resetting by it do nothing, and the port works.
        """
        self.patch(SerialTransport, "_serialFactory", LockedSerial)
        self.endpoint = SerialEndpoint(reactor, self.board.path, PortSettings(keep_dtr=True))
        protocol, transport = await self.open()
        verifyObject(IResettable, transport)
        self.assertFalse(transport.reset())
        self.board.say(b"still here")
        await until(lambda: protocol.data == b"still here")


class SharedTests(PortCase):
    """
    What other programs may do to the port.
    """

    def exclusive(self, transport: SerialTransport) -> bool:
        """
        Return whether the tty is closed to other programs.
        """
        return fcntl.ioctl(transport.fileno(), TIOCGEXCL, bytes(4)) != bytes(4)

    async def test_exclusive(self) -> None:
        """
        A tty is closed to other programs until the port is closed; a pty, on which that would outlive us, is not.
        """
        protocol, transport = await self.open()
        verifyObject(ISharedPort, transport)
        self.assertFalse(self.exclusive(transport))
        await self.close(protocol)
        self.patch(serialport, "is_pty", lambda status: False)
        with open(self.board.tty, "rb", buffering=0) as other:
            protocol, transport = await self.open()
            self.assertTrue(self.exclusive(transport))
            await self.close(protocol)
            self.assertEqual(fcntl.ioctl(other, TIOCGEXCL, bytes(4)), bytes(4))

    async def test_settings(self) -> None:
        """
        Changed settings are set again, and it is reported what they were; nothing is reported if none was changed.
        """
        _, transport = await self.open()
        before = termios.tcgetattr(self.board.master)
        self.assertIsNone(transport.restore_settings())
        for place, value, reported in (
            (5, termios.B115200, "115200 baud"),
            (5, termios.B1200, "1200 baud"),
            (3, before[3] | termios.ICANON | termios.ECHO, "another mode"),
            (0, before[0] | termios.ICRNL, "another mode"),
        ):
            changed = termios.tcgetattr(self.board.master)
            changed[place] = value
            if place == 5:
                changed[4] = value
            termios.tcsetattr(self.board.master, termios.TCSANOW, changed)
            self.assertEqual(transport.restore_settings(), reported)
            self.assertEqual(termios.tcgetattr(self.board.master), before)
            self.assertIsNone(transport.restore_settings())

    async def test_cooked(self) -> None:
        """
        A pty that was left cooked, with ECHO, is raw once it was opened: what the board sends does not come back to it
        as a command, and arrives as it is.
        """
        self.assertTrue(termios.tcgetattr(self.board.master)[3] & termios.ECHO)
        protocol, _ = await self.open()
        sent = b"ID:9_MSG:ON\n\x03\x04\x15ID:9_MSG:OFF\r\n"
        self.board.say(sent)
        await until(lambda: protocol.data == sent)
        await self.close(protocol)
        self.board.say(sent)
        self.assertEqual(self.board.listen(), b"")

    async def test_configured_settings(self) -> None:
        """
        The port is set as configured. (A pty keeps neither parity nor 7 bits: what pyserial is given is looked at.)
        """
        given: dict[str, Any] = {}

        def opened(*arguments: Any, **named: Any) -> LockedSerial:
            given.update(named)
            return LockedSerial(*arguments, **named)

        self.patch(SerialTransport, "_serialFactory", staticmethod(opened))
        for line, flow, bits in [
            ("7E2", "xon/xoff", (7, "E", 2)),
            ("8N1", "rts/cts", (8, "N", 1)),
            ("5M1.5", "none", (5, "M", 1.5)),
        ]:
            self.endpoint = SerialEndpoint(reactor, self.board.path, PortSettings(2400, line, flow))
            protocol, transport = await self.open()
            self.assertEqual((given["bytesize"], given["parity"], given["stopbits"]), bits)
            flags, _, control, _, speed, *_ = termios.tcgetattr(self.board.master)
            self.assertEqual(
                (bool(flags & termios.IXON), bool(control & termios.CRTSCTS), bool(control & termios.CSTOPB), speed),
                (flow == "xon/xoff", flow == "rts/cts", line.endswith(("2", "1.5")), termios.B2400),
            )
            transport.loseConnection()
            await until(lambda protocol=protocol: protocol.lost)  # type: ignore[misc]  # for each its own

    def test_seven_bits_of_a_pty(self) -> None:
        """
        A pty has no parity, so that 7E1 is 8N1 there; it can be opened again and again.
        """
        for _ in range(3):
            open_port(self.board.path, PortSettings(1200, "7E1")).close()
        self.assertRaises(DeviceError, open_port, self.board.path + "0", PortSettings())

    async def test_odd_speed(self) -> None:
        """
        A speed for which there is no constant is set again, too.
        """
        self.endpoint = SerialEndpoint(reactor, self.board.path, PortSettings(12_345))
        _, transport = await self.open()
        before = fcntl.ioctl(self.board.master, TCGETS2, bytes(44))
        attributes = termios.tcgetattr(self.board.master)
        attributes[4] = attributes[5] = termios.B9600
        termios.tcsetattr(self.board.master, termios.TCSANOW, attributes)
        self.assertEqual(transport.restore_settings(), "9600 baud")
        self.assertEqual(fcntl.ioctl(self.board.master, TCGETS2, bytes(44)), before)

    async def test_closed(self) -> None:
        """
        A port that was closed or unplugged has no settings and no tty.
        """
        protocol, transport = await self.open()
        self.board.unplug()
        await until(lambda: protocol.lost)
        self.assertEqual((transport.restore_settings(), transport.tty()), (None, None))

    async def test_disturbed(self) -> None:
        """
        It is noticed when another program opens or closes the port, and when it reads what came for us; not what we
        do ourselves.
        """
        protocol, transport = await self.open()
        calls: list[None] = []
        transport.disturbed = lambda: calls.append(None)
        self.board.say(b"good data")
        transport.write(b"ours")
        await until(lambda: protocol.data == b"good data")
        self.assertEqual(calls, [])
        other = open(self.board.tty, "rb", buffering=0)  # noqa: SIM115  # it is closed below
        await until(lambda: calls)
        calls.clear()
        other.close()
        await until(lambda: calls)
        calls.clear()
        transport.doRead()
        self.assertEqual(calls, [None])
