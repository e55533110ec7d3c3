"""
A serial port is an endpoint: what opens a tty, exclusively, and says in one line what to do where it can't.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import termios
from contextlib import suppress
from functools import partial
from typing import Any

import serial
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectionDone, ConnectionLost, NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.serialport import SerialPort
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from usbgate.device.interfaces import IResettable
from usbgate.device.usb import UsbTree, is_usb, parse_usb

DEFAULT_BAUD = 9600  # what the original's firmware speaks

READ_SIZE = 65536  # bytes; the kernel keeps less than that for a tty, so one read takes all there is

# Seconds for which a port that is being closed waits until what was written has gone out: 500 bytes at 9600 baud.
LINGER = 0.5

# Seconds for which DTR is low in a reset: a capacitor makes a pulse of 2 ms of its edge, an RC filter in a cable a few.
RESET_PULSE = 0.1


class DeviceError(Exception):
    """
    A device could not be opened; the text says why and what to do, in one line.
    """

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        super().__init__(f"{path}: {text}")


class NoSuchDevice(DeviceError):
    """
    There is no such device: it is not plugged in, or has another name now.
    """

    def __init__(self, path: str, remedy: str = "plug it in, or look for its name in /dev/serial/by-id") -> None:
        super().__init__(path, f"no such device; {remedy}")


class AmbiguousDevice(DeviceError):
    """
    Several devices that are plugged in could be meant, and none is taken for another.
    """


class DeviceBusy(DeviceError):
    """
    Another program holds the port.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            path,
            f"in use by another program; stop it (ModemManager, brltty, a serial monitor?): `fuser -v {path}` names it",
        )


class NotPermitted(DeviceError):
    """
    The device belongs to a group that this user is not in, or is closed to its group, too.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, f"not permitted; {_permit(path)}")


def _permit(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "this user may not even look there"
    readable = stat.S_IRGRP | stat.S_IWGRP
    if status.st_mode & readable != readable:
        mode = stat.S_IMODE(status.st_mode)
        return f"its mode is {mode:04o}, and 0660 is needed: add a udev rule, or `chmod 660 {path}`"
    group, user = str(status.st_gid), str(os.geteuid())
    with suppress(KeyError):
        group = grp.getgrgid(status.st_gid).gr_name
    with suppress(KeyError):
        user = pwd.getpwuid(os.geteuid()).pw_name
    return f"join its group (often dialout) and log in again: `sudo usermod -aG {group} {user}`"


_BY_ERRNO: dict[int | None, type[NoSuchDevice | DeviceBusy | NotPermitted]] = {
    **dict.fromkeys([errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV], NoSuchDevice),
    # The lock (flock) is taken; another's TIOCEXCL.
    **dict.fromkeys([errno.EAGAIN, errno.EBUSY], DeviceBusy),
    **dict.fromkeys([errno.EACCES, errno.EPERM], NotPermitted),
}


def _typed(path: str, error: Exception) -> DeviceError:
    known = _BY_ERRNO.get(getattr(error, "errno", None))
    if known is not None:
        return known(path)
    reason = " ".join(str(error).split())
    return DeviceError(path, f"can't be opened as a serial port; is it one, and is the baud rate right? ({reason})")


class LockedSerial(serial.Serial):
    """
    pyserial's port, held under `flock`; TIOCEXCL would outlive a `kill -9`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An inter-byte timeout of 0 is pyserial's way to VMIN = 1. With its usual VMIN = 0 a read that finds nothing
        # looks like the end of file, and so a spurious wake-up like an unplugged device.
        super().__init__(*args, **{**kwargs, "exclusive": True, "inter_byte_timeout": 0})


@implementer(IResettable)
class SerialTransport(SerialPort):
    """
    Twisted's SerialPort, opened exclusively, that a device which takes nothing can't keep from closing.
    """

    _serialFactory = LockedSerial

    def __init__(self, path: str, reactor: IReactorTime, baudrate: int, keep_dtr: bool = False) -> None:
        """
        Open the port; the protocol comes by `begin`.

        Stock SerialPort calls the protocol in here, starts to read after that even if it asked for a pause, and
        leaves the port open if it raises.

        Args:
            path: The device.
            reactor: It must also provide `IReactorFDSet`.
            baudrate: Bits a second.
            keep_dtr: Let DTR stay as it is when the port is closed. A board resets when DTR rises, and the kernel
                raises it at every opening: only where it never fell nothing rises. (pyserial's `dtr = False` would
                take it down behind that, and so make sure that the next opening resets.)

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
        Take DTR down, and up again `RESET_PULSE` seconds later (see `IResettable.reset`).
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
        Make this transport a protocol's; if the protocol raises, the port is closed and it hears no more.
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
        Leave the input alone: pyserial has just cleared it, and what came since is the beginning.
        """

    def flushOutput(self) -> None:
        """
        Leave the output alone: nothing of ours is in it, and some ttys don't know how.
        """

    def fileno(self) -> int:
        """
        Return the file descriptor, -1 once it is closed.
        """
        return -1 if self._serial.fd is None else self._serial.fd

    def doRead(self) -> Exception | None:
        """
        Read what is there (the reactor calls this).
        """
        try:
            data = os.read(self.fileno(), READ_SIZE)
        except BlockingIOError:
            return None
        except OSError:  # EIO: it was unplugged
            return ConnectionLost()
        if not data:  # it hung up
            return ConnectionDone()
        self.protocol.dataReceived(data)
        return None

    def loseConnection(self) -> None:
        """
        Close the port, when what was written is out or after `LINGER` seconds.

        Stock FileDescriptor waits until the port can be written to, which for a stalled device is never.
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
        except OSError:  # a pty need not know; an unplugged device doesn't
            return ours

    def _postLoseConnection(self) -> None:
        # FileDescriptor asks this when its buffer is empty: the kernel's may not be.
        return None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Close the port, with its lock, and tell the protocol, once.
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
                # Linux waits up to 30 s in close(2) for a device that takes nothing.
                termios.tcflush(self.fileno(), termios.TCOFLUSH)
        super().connectionLost(reason)


@implementer(IStreamClientEndpoint)
class SerialEndpoint:
    """
    A client endpoint that opens a serial port: raw, 8N1, no flow control, CLOCAL, locked against others.
    """

    def __init__(self, reactor: IReactorTime, path: str, baudrate: int = DEFAULT_BAUD, keep_dtr: bool = False) -> None:
        """
        Remember what to open.

        Args:
            reactor: It must also provide `IReactorFDSet`.
            path: The device, a symlink to it perhaps, looked up at each opening.
            baudrate: Bits a second.
            keep_dtr: See `SerialTransport`.
        """
        self._reactor = reactor
        self._path = path
        self._baudrate = baudrate
        self._keep_dtr = keep_dtr

    def __repr__(self) -> str:
        return f"<SerialEndpoint {self._path} at {self._baudrate} baud>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open the port, a reactor turn later; opening waits for nothing, no carrier either.

        Returns:
            Fires with the protocol; fails with a `DeviceError`, of which `NoSuchDevice`, `DeviceBusy` and
            `NotPermitted` are the kinds with a cure. Cancelling it opens nothing.
        """
        return deferLater(self._reactor, 0, self._open, protocolFactory)

    def _open(self, factory: IProtocolFactory) -> IProtocol:
        path = self._locate()
        try:
            transport = SerialTransport(path, self._reactor, self._baudrate, self._keep_dtr)
        except (OSError, ValueError, OverflowError, termios.error) as error:
            raise _typed(path, error) from error
        protocol = factory.buildProtocol(SerialAddress(path))
        if protocol is None:
            transport.connectionLost(connectionDone)
            raise NoProtocol
        transport.begin(protocol)
        return protocol

    def _locate(self) -> str:
        return self._path


class UsbEndpoint(SerialEndpoint):
    """
    A serial port of a USB device, looked for at each opening: its tty has another name each time, perhaps.
    """

    def __init__(self, reactor: IReactorTime, place: str, baudrate: int, usb: UsbTree, keep_dtr: bool = False) -> None:
        """
        Remember what to look for.

        Args:
            reactor: It must also provide `IReactorFDSet`.
            place: As `parse_usb` reads it.
            baudrate: Bits a second.
            usb: Where to look.
            keep_dtr: See `SerialTransport`.

        Raises:
            ValueError: The place is none.
        """
        super().__init__(reactor, place, baudrate, keep_dtr)
        self._wanted = parse_usb(place)
        self._usb = usb

    def _locate(self) -> str:
        found = self._usb.find(self._wanted)
        if not found:
            others = self._usb.listed(self._usb.ttys()) or "none"
            raise NoSuchDevice(self._path, f"plug it in; the USB serial devices that are: {others}")
        if len(found) > 1:
            raise AmbiguousDevice(self._path, self._usb.told_apart(found))
        return self._usb.path(found[0])


@implementer(IAddress)
class SerialAddress:
    """
    The address of a serial port: its path.
    """

    def __init__(self, path: str) -> None:
        self.path = path


def open_device(
    reactor: IReactorTime,
    spec_path: str,
    baud: int = DEFAULT_BAUD,
    usb: UsbTree | None = None,
    keep_dtr: bool = False,
) -> IStreamClientEndpoint:
    """
    Make the endpoint for a device as the configuration spells it.

    Args:
        reactor: The reactor.
        spec_path: A path (starts with `/` or `.`), a USB device (`usb:…`, `usb-port:…`), or any Twisted client
            endpoint string (`tcp:host:port`).
        baud: Bits a second, for a path and a USB device.
        usb: Where to look for USB devices; None for this machine's.
        keep_dtr: See `SerialTransport`; for a path and a USB device.

    Raises:
        ValueError: There is no such kind of endpoint, or TypeError: it takes other arguments.
    """
    if spec_path.startswith(("/", ".")):
        return SerialEndpoint(reactor, spec_path, baud, keep_dtr)
    if is_usb(spec_path):
        return UsbEndpoint(reactor, spec_path, baud, usb or UsbTree(), keep_dtr)
    endpoint: IStreamClientEndpoint = clientFromString(reactor, spec_path)
    return endpoint
