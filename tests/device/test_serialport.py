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
from usbgate.device.endpoint import SerialEndpoint
from usbgate.device.interfaces import IResettable
from usbgate.device.serialport import LockedSerial, SerialTransport

reactor: Any = global_reactor


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
        self.endpoint = SerialEndpoint(reactor, self.board.path, keep_dtr=True)
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
        self.endpoint = SerialEndpoint(reactor, self.board.path, keep_dtr=True)
        protocol, transport = await self.open()
        verifyObject(IResettable, transport)
        self.assertFalse(transport.reset())
        self.board.say(b"still here")
        await until(lambda: protocol.data == b"still here")
