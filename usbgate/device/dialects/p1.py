"""
The dialect of the P1 port of smart meters (DSMR 2.2 to 5, P1 Companion Standard 5.0.2; also Belgium, Sweden, Hungary
and others): telegrams of OBIS codes.

    /KFM5KAIFA-METER
    1-0:1.8.1(000123.456*kWh)
    !D4C1
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from usbgate.core.crc16 import crc16
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import NO_KEY
from usbgate.core.model import Report
from usbgate.core.spelling import field_name
from usbgate.device.dialect import DialectBase, labelled
from usbgate.device.framing import FramingBase
from usbgate.device.options import DialectOptions

LIMIT = 4096  # bytes of a telegram; those of Belgian meters with two more meters have about 2,500

_BEGIN = re.compile(rb"/|\xdb\x08")  # of a telegram, and of an encrypted one (Luxembourg, Austria)
_MARK = re.compile(rb"(?P<begin>/|\xdb\x08)|(?P<last_line>!)|[\r\n]")
_TELEGRAM = re.compile(rb"(/[A-Za-z]{3}.(?:[^/!]|(?<!\n)!)*!)\s*([0-9A-Fa-f]{4})?", re.DOTALL)
_TAIL = b"\x00 \t\r\n\v\f"  # what may stand behind the CRC
_BLANK = b"\x00\r\n"  # what stands between telegrams
_LINE = re.compile(r"([0-9]+-[0-9]+:[0-9]+\.[0-9]+\.[0-9]+(?:\*[0-9]+)?)((?:\([^()]*\))+)")
_NUMBER = re.compile(r"0*([0-9]+(?:\.[0-9]+)?)(?:\*([A-Za-z0-9]+))?")
_TEXTS = re.compile(r":96\.(1|13)\.")  # identifiers and messages, in hexadecimal digits
_HEX_TEXT = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_TIME = re.compile(r"[0-9]{12}[SW]?")

# The units of values that are plain numbers, where `_FIELDS` has none.
_UNITS = frozenset({"kWh", "kW", "kvarh", "kvar", "kVA", "V", "A", "Hz", "m3", "GJ", "s"})

_ENERGY: Mapping[str, object] = {"kind": "energy", "unit": "kWh", "decimals": 3, "never_falls": True}
_POWER: Mapping[str, object] = {"kind": "power", "unit": "kW", "decimals": 3}

# What is measured of each phase as well.
_POWERS = {
    "POWER-IMPORT": ("Power imported", "Puissance prélevée"),
    "POWER-EXPORT": ("Power exported", "Puissance injectée"),
    "POWER": ("Power", "Puissance"),
}
_TARIFFS = (("", "", ""), ("-T1", ", tariff 1", ", tarif 1"), ("-T2", ", tariff 2", ", tarif 2"))
_BREAKER: Mapping[str, Mapping[str, str]] = {
    "0": {"en": "disconnected", "fr": "coupé"},
    "1": {"en": "connected", "fr": "enclenché"},
    "2": {"en": "ready", "fr": "prêt à enclencher"},
}
_VALVE: Mapping[str, Mapping[str, str]] = {
    "0": {"en": "closed", "fr": "fermée"},
    "1": {"en": "open", "fr": "ouverte"},
    "2": {"en": "ready", "fr": "prête à ouvrir"},
}
_MEDIA: Mapping[str, Mapping[str, str]] = {
    "2": {"en": "electricity", "fr": "électricité"},
    "3": {"en": "gas", "fr": "gaz"},
    "4": {"en": "heat", "fr": "chaleur"},
    "6": {"en": "hot water", "fr": "eau chaude"},
    "7": {"en": "water", "fr": "eau"},
}

_FIELDS: Mapping[str, Mapping[str, object]] = {
    **{name: labelled(en, fr, **_POWER) for name, (en, fr) in _POWERS.items()},
    **{f"IMPORT{t}": labelled(f"Import{en}", f"Prélèvement{fr}", **_ENERGY) for t, en, fr in _TARIFFS},
    **{f"EXPORT{t}": labelled(f"Export{en}", f"Injection{fr}", **_ENERGY) for t, en, fr in _TARIFFS},
    # Which medium the other meters measure differs from house to house.
    **{
        f"MBUS{n}{end}": labelled(f"Meter {n}{en}", f"Compteur {n}{fr}", **keys)
        for n in "1234"
        for end, en, fr, keys in (
            ("", "", "", {"unit": "m³", "decimals": 3, "never_falls": True}),
            ("-AT", ", read at", ", relevé à", {}),
            ("-TYPE", ", medium", ", fluide", {"values": _MEDIA}),
            ("-METER", ", identifier", ", identifiant", {}),
            ("-EAN", ", EAN", ", EAN", {}),
            ("-VALVE", ", valve", ", vanne", {"values": _VALVE}),
        )
    },
    "TARIFF": labelled("Tariff", "Tarif en cours"),
    **{
        f"{name}-L{n}": labelled(f"{en}, phase {n}", f"{fr}, phase {n}", **keys)
        for n in "123"
        for name, en, fr, keys in (
            *((name, *texts, _POWER) for name, texts in _POWERS.items()),
            ("VOLTAGE", "Voltage", "Tension", {"kind": "voltage", "unit": "V"}),
            ("CURRENT", "Current", "Intensité", {"kind": "current", "unit": "A"}),
            ("POWER-FACTOR", "Power factor", "Facteur de puissance", {}),
            ("SAGS", "Voltage sags", "Creux de tension", {}),
            ("SWELLS", "Voltage swells", "Surtensions", {}),
        )
    },
    "POWER-AVERAGE": labelled("Power, mean of 15 min", "Puissance moyenne quart-horaire", **_POWER),
    "POWER-PEAK": labelled("Peak of the month", "Pointe du mois", **_POWER),
    "POWER-PEAK-AT": labelled("Peak of the month, time", "Pointe du mois, date et heure"),
    "POWER-PEAKS": labelled("Peaks of the last 13 months", "Pointes des 13 derniers mois"),
    "POWER-LIMIT": labelled("Power limit", "Limite de puissance", **_POWER),
    "CURRENT-LIMIT": labelled("Current limit", "Limite d’intensité", kind="current", unit="A", decimals=0),
    "REACTIVE-IMPORT": labelled("Reactive energy imported", "Énergie réactive prélevée", unit="kvarh"),
    "REACTIVE-EXPORT": labelled("Reactive energy exported", "Énergie réactive injectée", unit="kvarh"),
    "REACTIVE-POWER-IMPORT": labelled("Reactive power imported", "Puissance réactive prélevée", unit="kvar"),
    "REACTIVE-POWER-EXPORT": labelled("Reactive power exported", "Puissance réactive injectée", unit="kvar"),
    "FREQUENCY": labelled("Frequency", "Fréquence", kind="frequency", unit="Hz", decimals=2),
    "POWER-FACTOR": labelled("Power factor", "Facteur de puissance"),
    "BREAKER": labelled("Breaker", "Disjoncteur", values=_BREAKER),
    "FAILURES": labelled("Power failures", "Coupures"),
    "LONG-FAILURES": labelled("Long power failures", "Coupures longues"),
    "FAILURE-LOG": labelled("List of long power failures", "Journal des coupures longues"),
    "MESSAGE": labelled("Message", "Message"),
    "MESSAGE-CODE": labelled("Code of the message", "Code du message"),
    "VERSION": labelled("Version of the output", "Version du port P1"),
    "TIME": labelled("The meter’s clock", "Horloge du compteur"),
}

# As meters spell them. A value in another one, such as heat in GJ, keeps it.
_UNIT_OF = {name: str(about["unit"]).replace("³", "3") for name, about in _FIELDS.items() if "unit" in about}

_ID = "0-0:96.1.1"
_WITH_CHECK = ("1-3:0.2.8", "0-0:96.1.4")  # since DSMR 4 a telegram says its version, and has a CRC

ENCRYPTED = "the meter encrypts its telegrams, which usbgate can't read"


class Framing(FramingBase):
    """
    A telegram begins with `/` and ends with the line that begins with `!`. A second `/` begins another one.
    """

    def __init__(self) -> None:
        super().__init__(LIMIT)
        self._is_last_line = False

    def feed(self, data: bytes) -> Sequence[bytes]:
        frames: list[bytes] = []
        seen = max(len(self.rest) - 1, 0)  # the last byte may be the first one of a beginning
        data = self.rest + data
        start = 0
        for mark in _MARK.finditer(data, seen):
            if mark["last_line"]:
                self._is_last_line = True
            elif mark["begin"] or self._is_last_line:
                end = mark.start() if mark["begin"] else mark.end()
                self._take(data[start:end], frames)
                start = end
                self._is_last_line = False
        self.rest = data[start:]
        if len(self.rest) > self.limit:
            if not self.discarding:
                frames.append(self.rest[: self.limit + 1])
            self.discarding = True
            self.rest = self.rest[-1:]  # which may be the first byte of a beginning
        return frames

    def _take(self, frame: bytes, frames: list[bytes]) -> None:
        if self.discarding:
            self.discarding = False
        elif b"\n" in frame.strip(_BLANK) or frame[:1] == b"\xdb":
            frames.append(frame[: self.limit + 1])
        elif frame.strip(_BLANK):
            self.noise += len(frame)
            self.noise_frames += 1

    def is_partial(self, frame: bytes) -> bool:
        return _BEGIN.match(frame) is None


class Dialect(DialectBase):
    """
    One report for each telegram. The sensor is the meter's identifier, or that of the option `sensor`. The option
    `without` has the fields that are left out: `TIME` by default, which would be another reading each second.
    """

    fields = _FIELDS
    defaults: ClassVar[Mapping[str, object]] = {"baud": 115200, "store": "on change, at least every 5m"}

    def configure(self, options: DialectOptions) -> None:
        self._sensor = options.sensor("sensor", "")
        self._without = {field_name(name) for name in options.texts("without", ["TIME"])}
        self._meter = ""
        self._encrypted = 0

    def framing(self) -> Framing:
        return Framing()

    def opened(self) -> bytes:
        self._meter = ""
        return b""

    def decode(self, frame: bytes) -> Report:
        if frame[:1] == b"\xdb":
            self._encrypted += 1
            if self._encrypted == 3:  # two more than noise might hold
                self.notices.append(ENCRYPTED)
            raise Malformed("encrypted")
        telegram = _TELEGRAM.fullmatch(frame.rstrip(_TAIL))
        if telegram is None:
            raise Malformed("not a telegram")
        lines = list(_lines(telegram[1].decode("ascii", "replace")))
        if telegram[2] is not None:
            if int(telegram[2], 16) != crc16(telegram[1]):
                raise Malformed("wrong checksum")
        elif any(code in _WITH_CHECK for code, _ in lines):
            raise Malformed("no checksum")
        values: list[tuple[str, str]] = []
        damages: list[str] = []
        for code, groups in lines:
            if code is None:
                damages.append(NO_KEY)
            elif code == _ID:
                meter = _text(groups[0]) or self._meter
                if self._meter not in ("", meter) and telegram[2] is None:
                    # One of the two is damaged, unless the meter was replaced: then the next telegram counts.
                    self._meter = ""
                    raise Malformed("another meter's identifier", meter)
                self._meter = meter
            elif field_name(code) not in self._without:
                values.extend(_values(code, groups))
        return self.report(self._sensor or self._meter or self.device, values, left_out=damages)


def _lines(telegram: str) -> Iterator[tuple[str | None, list[str]]]:
    # The code and the groups of each line behind the first one. A line that begins with a group continues the one
    # before: the value of gas in DSMR 2 and 3.
    code: str | None = None
    groups: list[str] = []
    for line in telegram[:-1].splitlines()[1:]:
        if line.startswith("(") and code is not None:
            groups.append(line.strip("()"))
            continue
        if code is not None:
            yield code, groups
            code = None
        if match := _LINE.fullmatch(line):
            code, groups = match[1], match[2][1:-1].split(")(")
        elif line:
            yield None, []
    if code is not None:
        yield code, groups


def _values(code: str, groups: list[str]) -> Iterator[tuple[str, str]]:
    value = groups[-1]
    if len(groups) > 1 and not _TIME.fullmatch(groups[0]):
        yield code, "".join(f"({group})" for group in groups)  # a list, such as that of failures of the grid
    elif _TEXTS.search(code):
        if value:
            yield code, _text(value)
    elif number := _NUMBER.fullmatch(value):
        yield code, number[1] + ("" if number[2] is None or _is_usual(field_name(code), number[2]) else number[2])
    elif value:
        yield code, value
    if len(groups) > 1 and _TIME.fullmatch(groups[0]):
        yield f"{field_name(code)}-AT", groups[0]


def _is_usual(name: str, unit: str) -> bool:
    return unit == _UNIT_OF[name] if name in _UNIT_OF else unit in _UNITS


def _text(value: str) -> str:
    if _HEX_TEXT.fullmatch(value):
        text = bytes.fromhex(value).decode("latin-1")
        if text.isascii() and text.isprintable():
            return text
    return value
