"""
The transport of a serial port: locked, reset by DTR, and closed even if the device has stopped reading.
"""

from __future__ import annotations

import os
import termios
from contextlib import suppress
from functools import partial
from typing import Any

import serial
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.serialport import SerialPort
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.device.interfaces import IResettable

READ_SIZE = 65536  # bytes; the kernel keeps less than that for a tty, so one read returns everything

# Seconds for which a closing port waits until the written data is sent: 500 bytes at 9600 baud.
LINGER = 0.5

# Seconds for which DTR is low in a reset. A board's capacitor turns the edge into a pulse of 2 ms; an RC filter in a
# cable delays it by a few ms.
RESET_PULSE = 0.1


class LockedSerial(serial.Serial):
    """
    pyserial's port, held under `flock`; TIOCEXCL would outlive a `kill -9`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An inter-byte timeout of 0 makes pyserial set VMIN = 1. With its usual VMIN = 0 a read without data looks like
        # the end of file, and so a spurious wake-up like an unplugged device.
        super().__init__(*args, **{**kwargs, "exclusive": True, "inter_byte_timeout": 0})


@implementer(IResettable)
class SerialTransport(SerialPort):
    """
    Twisted's SerialPort, opened exclusively; a device that has stopped reading can't keep it from closing.
    """

    _serialFactory = LockedSerial

    def __init__(self, path: str, reactor: IReactorTime, baudrate: int, keep_dtr: bool = False) -> None:
        """
        Open the port, without a protocol: `begin` sets it.

        Twisted's own constructor calls the protocol, then starts to read even if the protocol paused it, and leaves
        the port open if the protocol raises.

        Args:
            path: The device.
            reactor: Must also provide `IReactorFDSet`.
            baudrate: Bits per second.
            keep_dtr: Leave DTR as it is when the port is closed. A board resets when DTR rises, and the kernel raises
                it at every opening, so it must not fall at closing. (pyserial's `dtr = False` would lower it just
                after the opening, so that the next opening resets the board again.)

        Raises:
            Exception: OSError, termios.error or ValueError, as pyserial does.
        """
        self._clock = reactor
        self._closing: IDelayedCall | None = None
        self._resetting: IDelayedCall | None = None
        if keep_dtr:  # with dsrdtr pyserial leaves DTR alone at opening; it has no other meaning on Linux
            self._serialFactory = partial(self._serialFactory, dsrdtr=True)  # type: ignore[assignment]  # it makes one
        super().__init__(Protocol(), path, reactor, baudrate=baudrate)
        if keep_dtr:
            self._keep_dtr()

    def _keep_dtr(self) -> None:
        with suppress(OSError, termios.error):
            attributes = termios.tcgetattr(self.fileno())
            attributes[2] &= ~termios.HUPCL
            termios.tcsetattr(self.fileno(), termios.TCSANOW, attributes)

    def reset(self) -> bool:
        """
        Lower DTR, and raise it again `RESET_PULSE` seconds later.
        """
        if not self.connected or self.disconnecting or not self._set_dtr(False):
            return False
        if self._resetting is None:
            self._resetting = self._clock.callLater(RESET_PULSE, self._end_reset)
        return True

    def _end_reset(self) -> None:
        self._resetting = None
        self._set_dtr(True)

    def _set_dtr(self, up: bool) -> bool:
        try:
            self._serial.dtr = up
        except OSError:  # ENOTTY: a pty has no such line; EIO: it was unplugged
            return False
        return True

    def begin(self, protocol: IProtocol) -> None:
        """
        Connect a protocol. If it raises, the port is closed, and the protocol is not called again.
        """
        self.protocol = protocol
        try:
            protocol.makeConnection(self)
        except BaseException:
            self.protocol = Protocol()
            self.connectionLost(connectionDone)
            raise

    def flushInput(self) -> None:
        """
        Keep the input: pyserial has just cleared it, and what arrived since is new.
        """

    def flushOutput(self) -> None:
        """
        Keep the output: it holds nothing of ours, and some ttys can't clear it.
        """

    def fileno(self) -> int:
        """
        Return the file descriptor, or -1 once it is closed.
        """
        return -1 if self._serial.fd is None else self._serial.fd

    def doRead(self) -> Exception | None:
        """
        Read all available data and pass it to the protocol.
        """
        try:
            data = os.read(self.fileno(), READ_SIZE)
        except BlockingIOError:
            return None
        except OSError:  # EIO: it was unplugged
            return ConnectionLost()
        if not data:  # hang-up
            return ConnectionDone()
        self.protocol.dataReceived(data)
        return None

    def loseConnection(self) -> None:
        """
        Close the port when the written data is sent, or after `LINGER` seconds.

        Twisted's own waits until the port is writable, which a stalled device never is.
        """
        if self.connected and not self.disconnecting:
            self.disconnecting = 1
            self.stopReading()
            self._close_after(self._clock.seconds() + LINGER, 0.0)

    def _close_after(self, deadline: float, delay: float = 0.02) -> None:
        self._closing = self._clock.callLater(delay, self._close, deadline)

    def _close(self, deadline: float) -> None:
        self._closing = None
        if self._unwritten() and self._clock.seconds() < deadline:
            self._close_after(deadline)
        else:
            self.connectionLost(connectionDone)

    def _unwritten(self) -> int:
        ours = len(self.dataBuffer) - self.offset + self._tempDataLen
        try:
            return ours + self._serial.out_waiting
        except OSError:  # not supported by every pty; the device may be unplugged
            return ours

    def _postLoseConnection(self) -> None:
        # FileDescriptor calls this when its own buffer is empty. The kernel's may not be, so do not close yet.
        return None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Close the port and release its lock, and call the protocol's `connectionLost`, once.
        """
        if self.disconnected:
            return
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if self._resetting is not None:
            self._resetting.cancel()
            self._end_reset()
        with suppress(OSError, termios.error):
            if self._serial.out_waiting:
                # Linux waits up to 30 s in close(2) for a device that does not read.
                termios.tcflush(self.fileno(), termios.TCOFLUSH)
        super().connectionLost(reason)
