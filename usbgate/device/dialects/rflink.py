"""
The dialect of RFLink gateways, for weather sensors and remote controls at 433 and 868 MHz (RFLink Protocol Reference,
release 48).

    20;6B;DKW2012;ID=0004;TEMP=800d;HUM=99;WINSP=0000;
    20;06;NewKaku;ID=008440e6;SWITCH=a;CMD=OFF;
    10;NewKaku;008440e6;a;ON;                            a command, which 20;07;OK; answers
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import NO_VALUE
from usbgate.core.model import Report, Request
from usbgate.device.dialect import DialectBase, labelled
from usbgate.device.framing import LineFraming
from usbgate.device.options import DialectOptions

_PACKET = re.compile(r"20;[0-9A-Fa-f]{2};([^;=]+);((?:[^;=]+=[^;]*;)*)")
_TEXT = re.compile(
    r"20;[0-9A-Fa-f]{2};[^;]*;?|.*(?:RFLink Gateway|Nodo Radio).*|20;[0-9A-Fa-f]{2};(?i:debug|[A-Z]+=).*"
)

_SEPARATORS = re.compile(r"[\s_/]+")
_PART = re.compile(r"[0-9A-Za-z]+")
_HEX = re.compile("[0-9A-Fa-f]{1,8}")
_DECIMAL = re.compile("[0-9]{1,9}")

_COMMAND_WORDS = "ON OFF ALLON ALLOFF UP DOWN STOP PAIR UNPAIR DIM BRIGHT COLOR MODE DISCO+ DISCO- MODE+ MODE- GO"
COMMANDS = _COMMAND_WORDS.split()

PROTOCOLS_KEPT = 64  # whose names sensors cannot have; RFLink has about 20


class _WrongValue(Exception):
    pass


def _decimal(text: str) -> int:
    return int(_checked(_DECIMAL, text))


def _hex(text: str) -> int:
    return int(_checked(_HEX, text), 16)


def _checked(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise _WrongValue
    return text


def _tenths(number: int) -> str:
    return f"{number // 10}.{number % 10}"


def _signed(text: str) -> str:
    number = _hex(text)  # the highest of 16 bits is the sign, not a part of a complement
    return f"-{_tenths(number & 0x7FFF)}" if number & 0x8000 else _tenths(number)


# How the values of keys are spelled; those of others stay as they are.
_VALUES: dict[str, Callable[[str], str]] = {"WINDIR": lambda text: _tenths(_decimal(text) * 225)}
for _spell, _keys in (
    (_signed, "TEMP WINCHL WINTMP"),
    (lambda text: str(_hex(text)), "BARO UV LUX KWATT WATT"),
    (lambda text: _tenths(_hex(text)), "RAIN RAINRATE RAINTOT WINSP AWINSP WINGS"),
    (lambda text: str(_decimal(text)), "HUM HSTATUS BFORECAST CHIME CO2 SOUND DIST METER VOLT"),
    (lambda text: str(_decimal(text)), "CURRENT CURRENT2 CURRENT3"),
):
    _VALUES |= dict.fromkeys(_keys.split(), _spell)


_BATTERY = {"OK": {"en": "good", "fr": "bonne"}, "LOW": {"en": "low", "fr": "faible"}}

_FIELDS = {
    "TEMP": {"kind": "temperature"},
    "HUM": {"kind": "humidity"},
    "BARO": {"kind": "atmospheric_pressure"},
    "CO2": {"kind": "carbon_dioxide"},
    "LUX": {"kind": "illuminance"},
    "WATT": {"kind": "power"},
    "KWATT": {"kind": "power", "unit": "kW"},
    "VOLT": {"kind": "voltage"},
    "CURRENT": {"kind": "current"},
    "WINSP": {"kind": "wind_speed", "unit": "km/h"},
    "AWINSP": labelled("Average wind speed", "Vitesse moyenne du vent", kind="wind_speed", unit="km/h"),
    "WINGS": labelled("Wind gusts", "Rafales", kind="wind_speed", unit="km/h"),
    "WINDIR": {"kind": "wind_direction"},
    "WINCHL": labelled("Wind chill", "Température ressentie", kind="temperature"),
    "WINTMP": {"kind": "temperature"},
    "RAIN": labelled("Rain", "Pluie", kind="precipitation", unit="mm"),
    "RAINRATE": labelled("Rain rate", "Intensité de la pluie", unit="mm/h"),
    "BAT": labelled("Battery", "Pile", values=_BATTERY),
}


class Dialect(DialectBase):
    """
    The sensor is `PROTOCOL.ID`, or `PROTOCOL.ID.SWITCH` for what has one; blanks and the like become `-`. Numbers are
    decimal.

    A command is written if RFLink has it, or the option `commands`; else the next packet of the sensor answers. The
    answer to what was written, `OK`, names no sensor: it belongs to the last message.
    """

    defaults: ClassVar[Mapping[str, object]] = {"baud": 57600, "window": 1}
    fields = _FIELDS
    named = True
    alone = True

    def configure(self, options: DialectOptions) -> None:
        self._commands = {*COMMANDS, *(command.upper() for command in options.texts("commands"))}
        # The last request until it is answered: by `OK`, if a message was written.
        self._sent: Request | None = None
        self._is_written = False

    def framing(self) -> LineFraming:
        return LineFraming((b"20;",))

    def opened(self) -> bytes:
        self._sent = None
        return b""

    def decode(self, frame: bytes) -> Report | str | Sequence[Report]:
        try:
            text = frame.decode().strip()
        except UnicodeDecodeError:
            raise Malformed("not UTF-8") from None
        packet = _PACKET.fullmatch(text)
        if packet is not None and packet[2]:
            return self._packet(packet[1], packet[2])
        if packet is not None and packet[1] == "OK":
            return self._ok()
        if _TEXT.fullmatch(text):
            return text
        raise Malformed("not a packet")

    def _packet(self, protocol: str, pairs: str) -> Report | str:
        parts: dict[str, str] = {}
        values: dict[str, str] = {}
        damages: list[str] = []
        for pair in pairs.split(";")[:-1]:
            key, _, value = pair.partition("=")
            if key in parts or key in values:
                raise Malformed("key given twice", key)
            if key in ("ID", "SWITCH"):
                parts[key] = value
            elif key == "CMD" and value.startswith("SET_LEVEL="):
                values |= {key: "SET_LEVEL", "LEVEL": value.partition("=")[2]}
            else:
                try:
                    values[key] = _VALUES[key](value) if key in _VALUES else value
                except _WrongValue:
                    damages.append(NO_VALUE)
        if "ID" not in parts:
            return f"{protocol}: {pairs}"  # of the gateway itself, such as its status
        if not all(map(_PART.fullmatch, parts.values())):
            raise Malformed("not an id")
        name = _SEPARATORS.sub("-", protocol)
        if name != protocol and self.kept.get(name) != protocol and len(self.kept) < PROTOCOLS_KEPT:
            self.kept[name] = protocol
        sensor = ".".join((name, parts["ID"], *([parts["SWITCH"]] if "SWITCH" in parts else [])))
        command = None
        if self._sent is not None and self._sent.question.sensor == sensor and not self._is_written and values:
            command, self._sent = self._sent.question.command, None
        return self.report(sensor, values.items(), command, damages)

    def _ok(self) -> Sequence[Report]:
        if self._sent is None or not self._is_written:
            return ()
        question, self._sent = self._sent.question, None
        return (Report(question.sensor, question.command, None, ()),)

    def encode(self, request: Request, tag: str | None) -> bytes:
        question = request.question
        command = question.command.upper()
        if command == "L" and [key for key, _ in question.arguments] == ["LEVEL"]:
            ((_, command),) = question.arguments
            if not (_DECIMAL.fullmatch(command) and int(command) < 16):
                raise Malformed("not a level from 0 to 15", command)
        elif question.arguments:
            raise Malformed("only L takes an argument, LEVEL", request.line.decode())
        elif command not in self._commands:
            return b""
        name, *parts = question.sensor.split(".")
        if not (1 <= len(parts) <= 2 and all(map(_PART.fullmatch, parts))):
            raise Malformed("not a sensor of RFLink, such as NewKaku.0cac142.3", question.sensor)
        if name.upper() == "KAKU":  # of whose ids RFLink sends the last digits, and wants all
            parts[0] = parts[0].rjust(6, "0")
        return ";".join(("10", self.kept.get(name, name), *parts, command, "\r\n")).encode()

    def sent(self, request: Request) -> None:
        self._sent = request
        self._is_written = self.encode(request, None) != b""
