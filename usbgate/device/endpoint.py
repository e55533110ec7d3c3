"""
Client endpoints for serial ports: finding the device and opening it.
"""

from __future__ import annotations

import termios

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from zope.interface import implementer

from usbgate.device.errors import AmbiguousDevice, NoSuchDevice, SecondName, device_error
from usbgate.device.serialport import PortSettings, SerialTransport
from usbgate.device.usb import UsbTree, is_usb, parse_usb

DEFAULT_SETTINGS = PortSettings()


@implementer(IAddress)
class SerialAddress:
    """
    The address of a serial port.

    Attributes:
        path: The path of its tty.
    """

    def __init__(self, path: str) -> None:
        self.path = path


@implementer(IStreamClientEndpoint)
class SerialEndpoint:
    """
    A client endpoint that opens a serial port: raw, CLOCAL, locked against other programs.
    """

    def __init__(self, reactor: IReactorTime, path: str, settings: PortSettings = DEFAULT_SETTINGS) -> None:
        """
        Args:
            reactor: Must also provide `IReactorFDSet`.
            path: The device; may be a symlink, which is resolved at each opening.
            settings: How the port is set.
        """
        self._reactor = reactor
        self._path = path
        self._settings = settings

    def __repr__(self) -> str:
        return f"<SerialEndpoint {self._path} at {self._settings.baud} baud>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open the port in the next reactor turn; opening does not block, not even for a carrier.

        Returns:
            Fires with the protocol; fails with a `DeviceError`, or with `NoProtocol` if the factory builds none.
            Cancelling it opens nothing.
        """
        return deferLater(self._reactor, 0, self._open, protocolFactory)

    def _open(self, factory: IProtocolFactory) -> IProtocol:
        path = self._locate()
        if (other := SerialTransport.open_at(path)) is not None:
            raise SecondName(path, other.path)
        try:
            transport = SerialTransport(path, self._reactor, self._settings)
        except (OSError, ValueError, OverflowError, termios.error) as error:
            raise device_error(path, error) from error
        try:
            protocol = factory.buildProtocol(SerialAddress(path))
            if protocol is None:
                raise NoProtocol
        except BaseException:
            transport.connectionLost(connectionDone)
            raise
        transport.begin(protocol)
        return protocol

    def _locate(self) -> str:
        return self._path


class UsbEndpoint(SerialEndpoint):
    """
    A serial port of a USB device, looked up at each opening: its tty may have another name each time.
    """

    def __init__(self, reactor: IReactorTime, place: str, settings: PortSettings, usb: UsbTree) -> None:
        """
        Args:
            reactor: Must also provide `IReactorFDSet`.
            place: The device, in the form that `parse_usb` reads.
            settings: How the port is set.
            usb: The USB devices of the machine.

        Raises:
            ValueError: The place has another form.
        """
        super().__init__(reactor, place, settings)
        self._wanted = parse_usb(place)
        self._usb = usb

    def _locate(self) -> str:
        found = self._usb.find(self._wanted)
        if not found:
            present = self._usb.describe(self._usb.ttys()) or "none"
            raise NoSuchDevice(self._path, f"plug it in; USB serial devices present: {present}")
        if len(found) > 1:
            raise AmbiguousDevice(self._path, self._usb.describe_ambiguity(found))
        return self._usb.path(found[0])


def open_device(
    reactor: IReactorTime,
    spec_path: str,
    settings: PortSettings = DEFAULT_SETTINGS,
    usb: UsbTree | None = None,
) -> IStreamClientEndpoint:
    """
    Return the endpoint for a device as the configuration spells it.

    Args:
        reactor: The reactor.
        spec_path: A path (starts with `/` or `.`), a USB device (`usb:…`, `usb-port:…`), or any Twisted client
            endpoint string (`tcp:host:port`); `rfc2217:host:port` is one of ours.
        settings: How the port is set; not for other endpoint strings.
        usb: The USB devices; None for those of this machine.

    Raises:
        ValueError: There is no such kind of endpoint.
        TypeError: The endpoint has other arguments.
    """
    if spec_path.startswith(("/", ".")):
        return SerialEndpoint(reactor, spec_path, settings)
    if is_usb(spec_path):
        return UsbEndpoint(reactor, spec_path, settings, usb or UsbTree())
    if spec_path.startswith("rfc2217:"):
        from usbgate.device.rfc2217 import Rfc2217Endpoint  # loading Twisted's Telnet takes 20 ms

        return Rfc2217Endpoint(reactor, spec_path, settings)
    endpoint: IStreamClientEndpoint = clientFromString(reactor, spec_path)
    return endpoint
