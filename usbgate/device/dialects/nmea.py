"""
The dialect of GPS receivers, and of instruments on ships: sentences of NMEA 0183 (4.11; also u-blox's, Garmin's and
others' own ones), read by pynmeagps.

    $GNRMC,103607.00,A,5327.03942,N,00214.42462,W,0.046,,060321,,,A,V*3F
    $GNGGA,103607.00,5327.03942,N,00214.42462,W,1,06,5.88,56.0,M,48.5,M,,*64
    $WIMWV,214.8,R,0.1,K,A*28
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any, ClassVar

from usbgate.core.errors import Malformed
from usbgate.core.extras import NMEA, install_command
from usbgate.core.fieldline import LINE_LIMIT, NO_VALUE, WRONG_CHECKSUM, without_checksum
from usbgate.core.model import Report
from usbgate.core.spelling import field_name
from usbgate.device.dialect import DialectBase, labelled
from usbgate.device.framing import FramingBase
from usbgate.device.options import DialectOptions

try:
    from pynmeagps import NMEAReader
    from pynmeagps.nmeatypes_get import NMEA_PAYLOADS_GET
    from pynmeagps.nmeatypes_get_prop import NMEA_PAYLOADS_GET_PROP
except ImportError as error:
    raise ImportError(f"{error}; it needs pynmeagps: {install_command(NMEA)}") from None

# Sentences are printable; what is not belongs to a binary protocol of the receiver, such as UBX.
_PIECES = re.compile(rb"(?P<begin>[$!])|(?P<end>[\r\n]+)|(?P<text>[ \x22#%-~]+)|(?P<binary>[^ -~\r\n]+)")
_HEAD = re.compile(rb"[$!][A-Z][A-Z0-9]{2,}[,*]")

# What satellites there are comes in parts, many fields each second; and the time is never the same.
_WITHOUT = ("GSV", "GSA", "GRS", "TIME", "DATE")

_SIGNS = frozenset({"NS", "EW", "msgId"})  # latitude and longitude have a sign; the message id is in the names

_QUALITIES = {
    "0": {"en": "no position", "fr": "pas de position"},
    "1": {"en": "GPS", "fr": "GPS"},
    "2": {"en": "differential", "fr": "différentiel"},
    "4": {"en": "RTK, fixed", "fr": "RTK fixe"},
    "5": {"en": "RTK, float", "fr": "RTK flottant"},
    "6": {"en": "estimated", "fr": "estimé"},
}
_VALIDITY = {"A": {"en": "valid", "fr": "valide"}, "V": {"en": "not valid", "fr": "non valide"}}

_DEGREES: Mapping[str, object] = {"unit": "°", "decimals": 6}

# Those of the sentences that most receivers and instruments send.
_FIELDS: Mapping[str, Mapping[str, object]] = {
    "GGA.LAT": labelled("Latitude", "Latitude", **_DEGREES),
    "GGA.LON": labelled("Longitude", "Longitude", **_DEGREES),
    "GGA.ALT": labelled("Altitude", "Altitude", unit="m"),
    "GGA.QUALITY": labelled("Position", "Position", values=_QUALITIES),
    "GGA.NUMSV": labelled("Satellites", "Satellites"),
    "GGA.HDOP": labelled("Dilution of precision", "Dilution de précision"),
    "RMC.SPD": labelled("Speed over ground", "Vitesse fond", unit="kn", decimals=1),
    "RMC.COG": labelled("Course over ground", "Route fond", unit="°"),
    "RMC.STATUS": labelled("Status", "État", values=_VALIDITY),
    "HDT.HEADINGT": labelled("Heading, true", "Cap vrai", unit="°"),
    "HDG.HEADINGM": labelled("Heading, magnetic", "Cap magnétique", unit="°"),
    "DPT.DEPTH": labelled("Depth", "Profondeur", unit="m"),
    "MWV.ANGLE": labelled("Wind angle", "Angle du vent", unit="°"),
    "MWV.SPEED": labelled("Wind speed", "Vitesse du vent"),
    "DBT.DEPTHM": labelled("Depth below the transducer", "Profondeur sous la sonde", unit="m"),
    # Others repeat these, and keep their names.
    **{f"{sentence}.{name}": _DEGREES for sentence in ("RMC", "GLL", "GNS") for name in ("LAT", "LON")},
    "VTG.COGT": {"unit": "°"},
    "VTG.SOGN": {"unit": "kn", "decimals": 1},
    "VTG.SOGK": {"unit": "km/h", "decimals": 1},
}


def _has_count(fields: Mapping[str, Any]) -> bool:
    # Whether a group is repeated as often as another field says.
    groups = [field for field in fields.values() if isinstance(field, tuple)]
    return any((isinstance(times, str) and times != "None") or _has_count(group) for times, group in groups)


# pynmeagps would take any such count, and repeat for hours. All of them are lists of satellites and of alerts.
_COUNTED = frozenset(
    name.partition("_")[0]
    for name, fields in [*NMEA_PAYLOADS_GET.items(), *NMEA_PAYLOADS_GET_PROP.items()]
    if _has_count(fields)
)


class Framing(FramingBase):
    """
    Frames are what begins as a sentence, up to the line end, to the next `$` or `!`, or to a byte that is no text.
    Everything else is noise.
    """

    def __init__(self) -> None:
        super().__init__(LINE_LIMIT)

    def feed(self, data: bytes) -> Sequence[bytes]:
        frames: list[bytes] = []
        for piece in _PIECES.finditer(data):
            if piece["text"] is None:
                self._end(frames)
                self.rest = piece["begin"] or b""
                self.noise += len(piece["binary"] or b"")
            elif self.rest:
                self.rest += piece[0]
                if len(self.rest) > self.limit:
                    frames.append(self.rest[: self.limit + 1])
                    self.rest = b""
                    self.discarding = True
            elif not self.discarding:
                self.noise += len(piece[0])
        return frames

    def _end(self, frames: list[bytes]) -> None:
        self.discarding = False
        if _HEAD.match(self.rest):
            frames.append(self.rest)
        elif self.rest:
            self.noise += len(self.rest)
            self.noise_frames += 1


class Dialect(DialectBase):
    """
    Each sentence is a report of one sensor, the device or that of the option `sensor`. The fields have the names of
    pynmeagps behind that of the sentence, such as `GGA.LAT`. Empty fields are no values. The option `without` has
    sentences, fields, or fields of a sentence that are left out.

    The text of `TXT` is text; sentences that begin with `!`, those of AIS, become nothing.
    """

    defaults: ClassVar[Mapping[str, object]] = {"store": "on change, at least every 5m"}
    fields = _FIELDS

    def configure(self, options: DialectOptions) -> None:
        self._sensor = options.sensor("sensor", "")
        self._without = {field_name(name) for name in options.texts("without", _WITHOUT)}

    def framing(self) -> Framing:
        return Framing()

    def decode(self, frame: bytes) -> Report | str | Sequence[Report]:
        body = without_checksum(frame[1:])
        if body is None or frame[:1] not in (b"$", b"!"):
            raise Malformed(WRONG_CHECKSUM)
        head, *fields = body.decode("ascii", "replace").split(",")
        kind = head[1 if head.startswith("P") else 2 :]
        if frame.startswith(b"!") or kind in self._without or _COUNTED & {kind, kind + "".join(fields[:1])}:
            return ()
        if kind == "TXT":
            return ",".join(fields[3:])
        try:
            message = NMEAReader.parse(frame)
        except Exception:  # with a right checksum, a sentence can still have anything in it
            raise Malformed(NO_VALUE, head) from None
        if message is None:
            raise Malformed("not a sentence", head)
        name = message.identity if head.startswith("P") else kind
        values = list(self._values(name, vars(message)))
        return self.report(self._sensor or self.device, values) if values else ()

    def _values(self, sentence: str, fields: Mapping[str, object]) -> Iterator[tuple[str, str]]:
        for field, value in fields.items():
            if value == "" or field.startswith("_") or field in _SIGNS:
                continue
            name = f"{sentence}.{field}"
            if self._without.isdisjoint((field_name(field), field_name(name))):
                yield name, _spell(value)


def _spell(value: object) -> str:
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}"  # without an exponent
    return value.isoformat() if isinstance(value, date | time) else str(value)
