"""
The dialect of MySensors gateways on a serial port (MySensors 2.3, Serial API 2.x): radio nodes and their children.

    14;1;1;0;0;21.5          of child 1 of node 14, V_TEMP is 21.5
    14;255;3;0;1;            node 14 asks for the time
    14;1;1;1;2;1             child 1 of node 14 is set V_STATUS, or says that it is
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping, Sequence
from time import localtime
from typing import ClassVar, NamedTuple

from usbgate.core.containers import BoundedDict
from usbgate.core.errors import Malformed
from usbgate.core.model import Reply, Report, Request
from usbgate.core.spelling import field_name
from usbgate.device.dialect import DialectBase, labelled
from usbgate.device.framing import LineFraming
from usbgate.device.interfaces import Decoded, Part
from usbgate.device.options import DialectOptions

# The commands of messages.
PRESENTATION, SET, REQ, INTERNAL, STREAM = range(5)

# The types of SET and REQ by number, without their `V_`.
_NAMES = """
TEMP HUM STATUS PERCENTAGE PRESSURE FORECAST RAIN RAINRATE WIND GUST DIRECTION UV WEIGHT DISTANCE IMPEDANCE ARMED
TRIPPED WATT KWH SCENE-ON SCENE-OFF HVAC-FLOW-STATE HVAC-SPEED LIGHT-LEVEL VAR1 VAR2 VAR3 VAR4 VAR5 UP DOWN STOP IR-SEND
IR-RECEIVE FLOW VOLUME LOCK-STATUS LEVEL VOLTAGE CURRENT RGB RGBW X-ID UNIT-PREFIX HVAC-SETPOINT-COOL
HVAC-SETPOINT-HEAT HVAC-FLOW-MODE TEXT CUSTOM POSITION IR-RECORD PH ORP EC VAR VA POWER-FACTOR MULTI-MESSAGE
"""
_TYPES = _NAMES.split()
_NUMBERS = {name: number for number, name in enumerate(_TYPES)}

# Commands that set a value: what they set, and to what.
_SETS = {
    "ON": ("STATUS", "1"),
    "OFF": ("STATUS", "0"),
    "UP": ("UP", "1"),
    "DOWN": ("DOWN", "1"),
    "STOP": ("STOP", "1"),
}

# The types of INTERNAL that are more than a passing sign of life.
_BATTERY = 0
_TIME = 1
_VERSION = 2
_ID_REQUEST = 3
_ID_RESPONSE = 4
_CONFIG = 6
_LOG = 9
_SKETCH_NAME = 11
_SKETCH_VERSION = 12
_READY = 14
_HEARTBEAT = 22
_PRE_SLEEP = 32
_LAST_INTERNAL = 36  # a higher one is no type

GATEWAY, NO_NODE, ITSELF = 0, 255, 255  # nodes, and the child that is the node itself
PAYLOAD_LIMIT = 25  # bytes, of a message by radio
HELD_LIMIT = 256  # messages to nodes that sleep; the nodes of a network are 254
REMEMBERED = 1024  # questions that were written, and values that nodes may ask for

_MESSAGE = re.compile(r"([0-9]{1,3});([0-9]{1,3});([0-4]);([01]);([0-9]{1,3});(.*)")
_BEGUN = re.compile(r"[0-9]+;|(?:[^;]*;){5}")  # how a message begins, or what has the separators of one
_ANOTHER = re.compile(r"[0-9];[0-4];[01];[0-9]{1,3};")  # in a payload: another message, as of a gateway that started
_SENSOR = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?")

# Types whose values are texts, which may have a semicolon.
_TEXTS = frozenset(["VAR1", "VAR2", "VAR3", "VAR4", "VAR5", "IR-SEND", "IR-RECEIVE", "IR-RECORD", "TEXT", "CUSTOM"])

NO_IDS_LEFT = "a new node got no number, since all 254 are taken: they are in the device's file in the folder `kept`"


class _Place(NamedTuple):
    # A child of a node, and a type of value.
    node: int
    child: int
    type: int


_FIELDS: Mapping[str, Mapping[str, object]] = {
    "TEMP": {"kind": "temperature"},
    "HUM": {"kind": "humidity"},
    "BATTERY": {"kind": "battery"},
    "PRESSURE": {"kind": "atmospheric_pressure"},
    "WATT": {"kind": "power"},
    "KWH": {"kind": "energy", "never_falls": True},
    "VOLTAGE": {"kind": "voltage"},
    "CURRENT": {"kind": "current"},
    "STATUS": {"kind": "switch"},
    "PERCENTAGE": {"unit": "%"},
    "LIGHT-LEVEL": labelled("Light", "Lumière", unit="%"),
}


class Dialect(DialectBase):
    """
    The sensor of a child is `NODE.CHILD`, and that of the node itself `NODE`. Values are named by their types, without
    `V_`.

    Nodes get what they ask for: a number, which nobody else gets ever after; the time, in seconds of the local clock;
    that units are metric; and what a value was set to last. What is set is
    written with the request of an echo, which answers.

    A node that has announced its sleep gets messages only then: it listens for some milliseconds.
    """

    # What is held for nodes that sleep takes places of the window for as long as somebody waits.
    defaults: ClassVar[Mapping[str, object]] = {"baud": 115200, "window": 32}
    fields = _FIELDS
    echoes = False  # a node says what it was set to in the same words
    named = True

    def configure(self, options: DialectOptions) -> None:
        self._forget()

    def _forget(self) -> None:
        # The commands that were sent: those that set by what they set, those that request by None, and by their sensor
        # those that any report answers.
        self._asked: BoundedDict[tuple[_Place, str | None] | str, str] = BoundedDict(REMEMBERED)
        self._values: BoundedDict[_Place, str] = BoundedDict(REMEMBERED)
        self._held: dict[_Place, bytes] = {}
        self._sleep_types = {_PRE_SLEEP}

    def framing(self) -> LineFraming:
        return LineFraming((b"0;255;3;0;9;", b"0;255;3;0;14;"))

    def opened(self) -> bytes:
        self._forget()
        return _message(GATEWAY, ITSELF, INTERNAL, _VERSION)

    def decode(self, frame: bytes) -> Decoded:
        try:
            text = frame.decode()
        except UnicodeDecodeError:
            raise Malformed("not UTF-8") from None
        match = _MESSAGE.fullmatch(text)
        if match is None:
            if _BEGUN.match(text):
                raise Malformed("not a message")
            return text.strip()
        node, child, kind, echo, type = map(int, match.groups()[:5])
        payload = match[6]
        if max(node, child, type) > 255:
            raise Malformed("number above 255")
        if not (kind == INTERNAL and type == _LOG) and _ANOTHER.search(payload):
            raise Malformed("two messages in one line")
        if kind == INTERNAL:
            return self._internal(node, child, type, payload)
        if node == NO_NODE:
            raise Malformed("not a node")
        self._known(node)
        if kind in (SET, REQ):
            if child == ITSELF or type >= len(_TYPES):
                raise Malformed("unknown type", str(type))
            if ";" in payload and _TYPES[type] not in _TEXTS:  # `14;` and `2;1;1;0;16;1`
                raise Malformed("two messages in one line")
            place = _Place(node, child, type)
            return self._set(place, payload, echo == 1) if kind == SET else self._requested(place)
        if kind == PRESENTATION:
            return self._presented(node, child, payload)
        return ()  # firmware over the air

    def _set(self, place: _Place, value: str, is_echo: bool) -> Report:
        # An echo answers what was set to just this; what is no echo, what was requested.
        sensor = f"{place.node}.{place.child}"
        command = self._asked.pop((place, value if is_echo else None), None) or self._asked.pop(sensor, None)
        report = self.report(sensor, [(_TYPES[place.type], value)], command)
        self._values.remember(place, value)
        return report

    def _requested(self, place: _Place) -> Sequence[Part]:
        value = self._values.get(place)
        return () if value is None else (Reply(_message(place.node, place.child, SET, place.type, value)),)

    def _presented(self, node: int, child: int, payload: str) -> Sequence[Part]:
        name = f"node {node}" if child == ITSELF else f"child {child} of node {node}"
        parts: list[Part] = [f"{name} is there: {payload}"] if payload else []
        if child == ITSELF and self._sleeps(node):  # it has started, perhaps with another program
            del self.kept[f"sleeps {node}"]
            parts += self._release(node)
        return parts

    def _internal(self, node: int, child: int, type: int, payload: str) -> Decoded:
        if type > _LAST_INTERNAL or (type == _READY and node != GATEWAY):
            raise Malformed("unknown type", str(type))
        if type == _ID_REQUEST:
            return self._new_node(child)
        if type == _LOG:
            return payload
        if node == NO_NODE:
            return ()
        self._known(node)
        if type == _TIME:
            return Reply(_message(node, child, INTERNAL, _TIME, str(timegm(localtime(self.now())))))
        if type == _CONFIG:
            return Reply(_message(node, child, INTERNAL, _CONFIG, "M"))
        if type == _BATTERY:
            return self.report(str(node), [("BATTERY", payload)], self._asked.pop(str(node), None))
        if type in self._sleep_types:
            if not self._sleeps(node):
                self.kept[f"sleeps {node}"] = "yes"
            return self._release(node)
        if type == _VERSION and node == GATEWAY and payload.startswith(("2.0", "2.1")):
            self._sleep_types = {_PRE_SLEEP, _HEARTBEAT}  # by which nodes announced it then
        if type in (_VERSION, _SKETCH_NAME, _SKETCH_VERSION, _READY):
            return f"node {node}: {payload}"
        return ()

    def _new_node(self, child: int) -> Sequence[Part]:
        # A number that was given to a node of which nothing came is given again only when no other is left.
        states = {node: self.kept.get(f"node {node}", "") for node in range(1, NO_NODE)}
        for state in ("", "given"):
            for node in states:
                if states[node] == state:
                    self.kept[f"node {node}"] = "given"
                    return (Reply(_message(NO_NODE, child, INTERNAL, _ID_RESPONSE, str(node))), f"a new node is {node}")
        if NO_IDS_LEFT not in self.notices:
            self.notices.append(NO_IDS_LEFT)
        return ()

    def _known(self, node: int) -> None:
        if node != GATEWAY and self.kept.get(f"node {node}") != "taken":
            self.kept[f"node {node}"] = "taken"

    def _sleeps(self, node: int) -> bool:
        return f"sleeps {node}" in self.kept

    def _release(self, node: int) -> list[Reply]:
        return [Reply(self._held.pop(place)) for place in list(self._held) if place.node == node]

    def encode(self, request: Request, tag: str | None) -> bytes:
        place, kind, value = _meaning(request)
        if place is None:
            return b""
        if not self._sleeps(place.node):
            return _message(place.node, place.child, kind, place.type, value, echo=kind == SET)
        if place not in self._held and len(self._held) >= HELD_LIMIT:
            raise Malformed("too much waits for nodes that sleep")
        return b""

    def sent(self, request: Request) -> None:
        place, kind, value = _meaning(request)
        if place is None:
            self._asked.remember(request.question.sensor, request.question.command)
            return
        self._asked.remember((place, value if kind == SET else None), request.question.command)
        if kind == SET:
            self._values.remember(place, value)
        if self._sleeps(place.node):
            self._held.pop(place, None)
            self._held[place] = _message(place.node, place.child, kind, place.type, value, echo=kind == SET)


def _message(node: int, child: int, kind: int, type: int, payload: str = "", echo: bool = False) -> bytes:
    return f"{node};{child};{kind};{echo:d};{type};{payload}\n".encode()


def _meaning(request: Request) -> tuple[_Place | None, int, str]:
    # Where a request goes, whether it sets or requests, and the value. No place means that nothing is written.
    question = request.question
    sensor = _SENSOR.fullmatch(question.sensor)
    command = question.command.upper()
    if sensor is None or int(sensor[1]) >= NO_NODE or int(sensor[2] or 0) >= ITSELF:
        raise Malformed("not a node, such as 14, or a child of one, such as 14.1", question.sensor)
    if command == "SET" and len(question.arguments) == 1:
        ((key, value),) = question.arguments
        name = field_name(key)
    elif question.arguments:
        raise Malformed("only SET takes an argument, and only one", request.line.decode())
    else:
        name, value = _SETS.get(command, (command, ""))
    is_set = value != "" or command == "SET"
    if name not in _NUMBERS:
        if is_set:
            raise Malformed("unknown type", name)
        return None, REQ, ""
    if sensor[2] is None:
        raise Malformed("not a child of a node, such as 14.1", question.sensor)
    if len(value.encode()) > PAYLOAD_LIMIT:
        raise Malformed(f"longer than {PAYLOAD_LIMIT} bytes", value)
    return _Place(int(sensor[1]), int(sensor[2]), _NUMBERS[name]), SET if is_set else REQ, value
