"""
Serial servers on the network whose port usbgate sets itself (RFC 2217), beside plain `tcp:`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.conch.telnet import IAC, SGA, Telnet
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from usbgate.device.interfaces import IResettable
from usbgate.device.serialport import RESET_PULSE, PortSettings

PREFIX = "rfc2217:"

# Seconds that the server has to take the settings over; a plain server never replies to them.
REPLY_LIMIT = 3.0

BINARY = b"\x00"  # telnet's option of RFC 856: no line ends are changed
COM_PORT = b"\x2c"

# Commands of the option COM_PORT. The server replies with the command plus 100, and what it has set.
SET_BAUD, SET_DATA_BITS, SET_PARITY, SET_STOP_BITS, SET_CONTROL = 1, 2, 3, 4, 5
_REPLY = 100

_PARITIES = {"N": 1, "O": 2, "E": 3, "M": 4, "S": 5}
_STOP_BITS = {"1": 1, "2": 2, "1.5": 3}
_FLOW = {"none": 1, "xon/xoff": 2, "rts/cts": 3}
_DTR_ON, _DTR_OFF = 8, 9

_NAMES = {
    SET_BAUD: "baud",
    SET_DATA_BITS: "data bits",
    SET_PARITY: "parity",
    SET_STOP_BITS: "stop bits",
    SET_CONTROL: "flow control",
}


def commands(settings: PortSettings) -> Mapping[int, bytes]:
    """
    Return the commands that set a port so, with their values.
    """
    return {
        SET_BAUD: struct.pack("!I", settings.baud),
        SET_DATA_BITS: bytes([int(settings.line[0])]),
        SET_PARITY: bytes([_PARITIES[settings.line[1]]]),
        SET_STOP_BITS: bytes([_STOP_BITS[settings.line[2:]]]),
        SET_CONTROL: bytes([_FLOW[settings.flow]]),
    }


def _spell(command: int, value: bytes) -> str:
    # As the configuration does.
    number = int.from_bytes(value)
    spelled = {SET_PARITY: _PARITIES, SET_STOP_BITS: _STOP_BITS, SET_CONTROL: _FLOW}.get(command, {})
    return next((text for text, each in spelled.items() if each == number), str(number))


class _Telnet(Telnet):
    """
    Telnet's commands in what a serial server sends, and ours to it.
    """

    def __init__(self, transport: Any, replied: Any) -> None:
        """
        Args:
            transport: That of the connection.
            replied: Called with a command of COM_PORT to which the server replied, and the value that holds now.
        """
        super().__init__()
        self.transport = transport
        self.data: list[bytes] = []
        self.negotiationMap[COM_PORT] = self._com_port
        self._replied = replied

    def enableLocal(self, option: bytes) -> bool:
        """
        Agree to what is needed.
        """
        return option in (BINARY, SGA, COM_PORT)

    enableRemote = enableLocal  # Twisted's name

    def disableLocal(self, option: bytes) -> None:
        """
        Let the server withdraw an option.
        """

    disableRemote = disableLocal

    def negotiate(self, data: Sequence[bytes]) -> None:
        """
        Ignore an empty subnegotiation, too.
        """
        if data:
            super().negotiate(data)

    def applicationDataReceived(self, data: bytes) -> None:
        """
        Keep the device's own bytes.
        """
        self.data.append(data)

    def take(self, data: bytes) -> bytes:
        """
        Read what the server sent, and return the device's own bytes.

        Raises:
            ValueError: It is no telnet.
        """
        if self.state == "data" and IAC not in data:
            return data
        # Twisted's Telnet has lines, in which CR NUL is a CR; in a device's bytes CR is a byte like any other.
        self.dataReceived(data.replace(b"\r", b"\r\0"))
        taken = b"".join(self.data)
        self.data.clear()
        return taken

    def _com_port(self, data: Sequence[bytes]) -> None:
        found = b"".join(data).replace(b"\r\0", b"\r")
        if found:
            self._replied(found[0] - _REPLY, found[1:])


@implementer(IResettable)
class Rfc2217Transport(ProtocolWrapper):
    """
    The transport of a device behind a serial server. Its protocol is connected when the port is set.

    Attributes:
        ready: Fires with the protocol then; fails if the connection is lost before.
    """

    log = Logger()

    def __init__(self, factory: _Factory, wrappedProtocol: IProtocol) -> None:
        super().__init__(factory, wrappedProtocol)
        self.ready: Deferred[IProtocol] = Deferred(lambda ready: self.abortConnection())
        self._reactor = factory.reactor
        self._path = factory.path
        self._wanted = dict(commands(factory.settings))
        self._open = False
        self._agreed = False
        self._timer: IDelayedCall | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """
        Negotiate; the protocol is connected later.
        """
        directlyProvides(self, providedBy(transport))
        self.factory.registerProtocol(self)
        Protocol.makeConnection(self, transport)
        self._telnet = _Telnet(self.transport, self._replied)
        self._timer = self._reactor.callLater(REPLY_LIMIT, self._give_up)
        for asked in (self._telnet.will(BINARY), self._telnet.do(BINARY), self._telnet.do(SGA)):
            asked.addErrback(lambda refused: None)
        self._telnet.will(COM_PORT).addCallbacks(self._set, self._refused)

    def _set(self, agreed: bool) -> None:
        self._agreed = True
        for command, value in self._wanted.items():
            self._command(command, value)

    def _command(self, command: int, value: bytes) -> None:
        self._telnet.requestNegotiation(COM_PORT, bytes([command]) + value)

    def _refused(self, failure: Failure) -> None:
        if not self._open and self._timer is not None:
            self._connect("does not let usbgate set its port")

    def _replied(self, command: int, value: bytes) -> None:
        wanted = self._wanted.pop(command, None)
        if wanted is not None and wanted != value:
            self._warn(f"has set {_NAMES[command]} to {_spell(command, value)}")
        if not self._wanted and not self._open:
            self._connect()

    def _give_up(self) -> None:
        self._timer = None
        missing = "the settings of its port" if not self._agreed else ", ".join(_NAMES[each] for each in self._wanted)
        self._connect(f"does not reply to {missing}")

    def _connect(self, trouble: str = "") -> None:
        self._stop_timer()
        self._wanted.clear()
        self._open = True
        if trouble:
            self._warn(trouble)
        self.wrappedProtocol.makeConnection(self)  # type: ignore[arg-type]  # it forwards what it has not
        self.ready.callback(self.wrappedProtocol)

    def _warn(self, trouble: str) -> None:
        self.log.warn("{path}: the serial server {trouble}; set it there", path=self._path, trouble=trouble)

    def dataReceived(self, data: bytes) -> None:
        """
        Pass the device's own bytes on. What came before the port was set is dropped.
        """
        try:
            taken = self._telnet.take(data)
        except ValueError:
            self.log.warn("{path} is no RFC 2217 server: use tcp: instead", path=self._path)
            self.abortConnection()
            return
        if taken and self._open:
            self.wrappedProtocol.dataReceived(taken)

    def write(self, data: bytes) -> None:
        """
        Send bytes to the device.
        """
        super().write(data.replace(IAC, IAC * 2))

    def writeSequence(self, data: Sequence[bytes]) -> None:
        """
        Send bytes to the device.
        """
        self.write(b"".join(data))

    def reset(self) -> bool:
        if not self._agreed or self._timer is not None or self.disconnecting:
            return False
        self._command(SET_CONTROL, bytes([_DTR_OFF]))
        self._timer = self._reactor.callLater(RESET_PULSE, self._end_reset)
        return True

    def _end_reset(self) -> None:
        self._timer = None
        self._command(SET_CONTROL, bytes([_DTR_ON]))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Report that the connection was lost.
        """
        self._stop_timer()
        self._telnet.connectionLost(reason)
        if self._open:
            super().connectionLost(reason)
        else:
            self.factory.unregisterProtocol(self)
            if not self.ready.called:  # nor was the opening cancelled
                self.ready.errback(ConnectionLost("the serial server closed the connection"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Factory(WrappingFactory[Rfc2217Transport]):
    protocol = Rfc2217Transport
    noisy = False

    def __init__(self, wrapped: IProtocolFactory, reactor: IReactorTime, path: str, settings: PortSettings) -> None:
        super().__init__(wrapped)
        self.reactor = reactor
        self.path = path
        self.settings = settings


@implementer(IStreamClientEndpoint)
class Rfc2217Endpoint:
    """
    A client endpoint that opens a port of a serial server, and sets it.
    """

    def __init__(self, reactor: Any, path: str, settings: PortSettings) -> None:
        """
        Args:
            reactor: Must provide `IReactorTime` and `IReactorTCP`.
            path: `rfc2217:HOST:PORT`, with the same arguments as `tcp:`.
            settings: How the port is set.

        Raises:
            ValueError: The path has other arguments.
        """
        self._reactor = reactor
        self._path = path
        self._settings = settings
        self._endpoint: IStreamClientEndpoint = clientFromString(reactor, "tcp:" + path.removeprefix(PREFIX))

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect to the server, and set the port.

        Returns:
            Fires with the protocol when the server has replied to all settings, has refused them, or has not replied
            for `REPLY_LIMIT` seconds. Fails if there is no connection.
        """
        factory = _Factory(protocolFactory, self._reactor, self._path, self._settings)
        connected: Deferred[Any] = self._endpoint.connect(factory)
        return connected.addCallback(lambda transport: transport.ready)
