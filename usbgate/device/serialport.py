"""
The transport of a serial port: locked, reset by DTR, and closed even if the device has stopped reading.

It can tell whether another program changed the port's settings.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import termios
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, NamedTuple
from weakref import WeakSet

import serial
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.serialport import SerialPort
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.device.errors import device_error
from usbgate.device.interfaces import IResettable, ISharedPort
from usbgate.device.openings import Openings
from usbgate.device.portusers import is_pty, is_same_tty

# Seconds for which a closing port waits until the written data is sent: 500 bytes at 9600 baud.
LINGER = 0.5

# Seconds for which DTR is low in a reset. A board's capacitor turns the edge into a pulse of 2 ms; an RC filter in a
# cable delays it by a few ms.
RESET_PULSE = 0.1

SPEEDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if re.fullmatch("B[0-9]+", name)}


class PortSettings(NamedTuple):
    """
    How a port is set.

    Attributes:
        baud: Bits per second.
        line: Data bits, parity (N, E, O, M or S) and stop bits.
        flow: Flow control: `none`, `rts/cts` or `xon/xoff`.
        keep_dtr: Leave DTR as it is when the port is closed. A board resets when DTR rises, and the kernel raises it at
            every opening, so it must not fall at closing. (pyserial's `dtr = False` would lower it just after the
            opening, so that the next opening resets the board again.)
    """

    baud: int = 9600  # of the original firmware
    line: str = "8N1"
    flow: str = "none"
    keep_dtr: bool = False


class LockedSerial(serial.Serial):
    """
    pyserial's port, held under `flock`, and, unless it is a pty, closed to all other programs but root's (TIOCEXCL).

    `flock` keeps out only programs that ask for it. TIOCEXCL ends with the last descriptor of a tty, but on a pty it
    would outlive a `kill -9`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An inter-byte timeout of 0 makes pyserial set VMIN = 1. With its usual VMIN = 0 a read without data looks like
        # the end of file, and so a spurious wake-up like an unplugged device.
        kwargs = {**kwargs, "exclusive": True, "inter_byte_timeout": 0}
        with suppress(OSError):  # opening it fails with the reason
            if is_pty(os.stat(args[0])):
                # A pty has neither parity nor 7 bits, and to set nothing else fails (EINVAL of glibc).
                kwargs |= {"bytesize": 8, "parity": serial.PARITY_NONE}
        super().__init__(*args, **kwargs)
        if not is_pty(os.fstat(self.fileno())):
            self._set_exclusive(termios.TIOCEXCL)

    def read_now(self, size: int) -> bytes:
        """
        Read what has come.

        Raises:
            BlockingIOError: Nothing has.
            OSError: The device was unplugged.
        """
        try:
            data = os.read(self.fileno(), size)
        except BlockingIOError:
            raise
        except OSError:  # EIO
            data = b""
        if not data:
            raise OSError(errno.EIO, "the device was unplugged", self.port)
        return data

    def write_now(self, data: bytes | bytearray) -> int:
        """
        Write what the device takes at once.

        Returns:
            The number of bytes.

        Raises:
            BlockingIOError: It takes none.
            OSError: It was unplugged.
        """
        try:
            return os.write(self.fileno(), data)
        except BlockingIOError:
            raise
        except OSError:  # EIO
            raise OSError(errno.EIO, "the device was unplugged", self.port) from None

    def close(self) -> None:
        """
        Close the port; another program that has it open does not keep it closed to everybody.
        """
        if self.is_open:
            self._set_exclusive(termios.TIOCNXCL)
        super().close()

    def _set_exclusive(self, request: int) -> None:
        with suppress(OSError):  # it was unplugged, or is not quite a tty
            fcntl.ioctl(self.fileno(), request)


def _arguments(settings: PortSettings) -> dict[str, Any]:
    return {
        "baudrate": settings.baud,
        "bytesize": int(settings.line[0]),
        "parity": settings.line[1],
        "stopbits": float(settings.line[2:]),
        "xonxoff": settings.flow == "xon/xoff",
        "rtscts": settings.flow == "rts/cts",
    }


def _keep_dtr(descriptor: int) -> None:
    with suppress(OSError, termios.error):
        attributes = termios.tcgetattr(descriptor)
        attributes[2] &= ~termios.HUPCL
        termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def open_port(path: str, settings: PortSettings) -> LockedSerial:
    """
    Open a port without a reactor, for a command that waits with `select`.

    Raises:
        DeviceError: It cannot be opened.
    """
    try:
        port = LockedSerial(path, dsrdtr=settings.keep_dtr, **_arguments(settings))
    except (OSError, ValueError, OverflowError, termios.error) as error:
        raise device_error(path, error) from error
    if settings.keep_dtr:
        _keep_dtr(port.fileno())
    return port


@implementer(IResettable, ISharedPort)
class SerialTransport(SerialPort):
    """
    Twisted's SerialPort, opened exclusively; a device that has stopped reading can't keep it from closing.
    """

    _serialFactory = LockedSerial
    _open_ports: ClassVar[WeakSet[SerialTransport]] = WeakSet()  # of this process, as locks are

    def __init__(self, path: str, reactor: IReactorTime, settings: PortSettings) -> None:
        """
        Open the port, without a protocol: `begin` sets it.

        Twisted's own constructor calls the protocol, then starts to read even if the protocol paused it, and leaves
        the port open if the protocol raises.

        Args:
            path: The device.
            reactor: Must also provide `IReactorFDSet`.
            settings: How it is set.

        Raises:
            Exception: OSError, termios.error or ValueError, as pyserial does.
        """
        self.path = path
        self.disturbed: Callable[[], None] = lambda: None
        self._clock = reactor
        self._closing: IDelayedCall | None = None
        self._resetting: IDelayedCall | None = None
        if settings.keep_dtr:  # with dsrdtr pyserial leaves DTR alone at opening; it has no other meaning on Linux
            self._serialFactory = partial(self._serialFactory, dsrdtr=True)  # type: ignore[assignment]  # it makes one
        super().__init__(Protocol(), path, reactor, **_arguments(settings))
        if settings.keep_dtr:
            _keep_dtr(self.fileno())
        self._settings = self._read_settings()
        self._open_ports.add(self)
        self._openings = Openings(reactor, path, lambda: self.disturbed())

    @classmethod
    def open_at(cls, path: str) -> SerialTransport | None:
        """
        Return the port of this process that is the same tty, whatever its name.
        """
        with suppress(OSError):
            tty = os.stat(path)
            for port in cls._open_ports:
                if (other := port.tty()) is not None and is_same_tty(other, tty):
                    return port
        return None

    def tty(self) -> os.stat_result | None:
        with suppress(OSError):
            return os.fstat(self.fileno())
        return None

    def _read_settings(self) -> list[Any] | None:
        with suppress(OSError, ValueError, termios.error):  # it was unplugged, or is closed
            return termios.tcgetattr(self.fileno())
        return None

    def restore_settings(self) -> str | None:
        found, wanted = self._read_settings(), self._settings
        if found is None or wanted is None or found == wanted:
            return None
        with suppress(OSError, termios.error, ValueError):
            termios.tcsetattr(self.fileno(), termios.TCSANOW, wanted)
            self._serial.baudrate = self._serial.baudrate  # a speed without a constant of its own
        return f"{SPEEDS.get(found[5], '?')} baud" if found[5] != wanted[5] else "another mode"

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
        Read data, at most `bufferSize` bytes, and pass it to the protocol.
        """
        try:
            data = os.read(self.fileno(), self.bufferSize)
        except BlockingIOError:  # with the settings of the port, only if somebody else was faster
            self.disturbed()
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
        self._openings.stop()
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
