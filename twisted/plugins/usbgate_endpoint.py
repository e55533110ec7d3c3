"""
The endpoint string `serial:PATH:baudrate=9600`, for whatever takes a Twisted client endpoint.
"""

from twisted.internet.interfaces import (
    IReactorTime,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class SerialParser:
    """
    Makes a `SerialEndpoint` of `serial:PATH` or `serial:PATH:baudrate=115200`.
    """

    prefix = "serial"

    @staticmethod
    def parseStreamClient(  # type: ignore[override]  # Twisted says (*args, **kwargs) and means these
        reactor: IReactorTime, path: str, baudrate: str = "9600"
    ) -> IStreamClientEndpoint:
        """
        Make the endpoint; Twisted calls this with the parts of the string.
        """
        # Every `twistd` reads this file; only who asks for a serial port pays for loading pyserial.
        from usbgate.device.endpoint import SerialEndpoint
        from usbgate.device.serialport import PortSettings

        return SerialEndpoint(reactor, path, PortSettings(int(baudrate)))


serial_parser = SerialParser()
