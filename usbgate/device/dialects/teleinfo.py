"""
The dialect of French electricity meters, the Linky and its forebears: the customer's tele-information output (TIC), in
its historique and standard modes (Enedis-NOI-CPT_54E for the Linky, Enedis-NOI-CPT_02E for the meters before it).

    ADCO 031664601654 >          an address in historique mode: label, blank, data, blank, check
    EAST\t002860327\t1           energy in standard mode, with tabs
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import NO_KEY, NO_VALUE, WRONG_CHECKSUM
from usbgate.core.model import Report
from usbgate.device.dialect import DialectBase, labelled
from usbgate.device.framing import SEVEN_BITS, FramingBase
from usbgate.device.options import DialectOptions

LIMIT = 4096  # bytes of a frame; the longest, of a three-phase Linky in standard mode, has about 1,200

_START = b"\x02"  # STX
_ENDS = re.compile(rb"[\x02\x03\x04]")  # STX, ETX, and EOT, by which a meter breaks off a frame
_ADDRESSES = ("ADCO", "ADSC")
_LABEL = re.compile(r"[A-Z][A-Z0-9+-]{1,8}")
_HORODATE = re.compile(r"[A-Za-z ][0-9]{12}|")  # season and YYMMDDhhmmss; the season may be a blank

_DIGITS = re.compile(r"-?[0-9]+")

# Labels whose data are a measurement, sent with leading zeros. Of others, such as MOTDETAT 000000, each digit counts.
_NUMBERS = re.compile(
    r"ISOUSC|BASE|HC(HC|HP)|EJPH(N|PM)|BBRH[CP]J[BWR]|PEJP|(IINST|IMAX|ADIR)[1-3]?|ADPS|PAPP|PMAX"
    r"|EAST|EASF[0-9]{2}|EASD[0-9]{2}|EAIT|ERQ[1-4]|[IU]RMS[1-3]|UMOY[1-3]|PREF|PCOUP|SINST(S[1-3]?|I)"
    r"|SMAX(SN[1-3]?|IN)(-1)?|CCA[SI]N(-1)?"
)

_ENERGY: Mapping[str, object] = {"kind": "energy", "unit": "Wh", "decimals": 0, "never_falls": True}
_APPARENT: Mapping[str, object] = {"kind": "apparent_power", "unit": "VA"}
_CURRENT: Mapping[str, object] = {"kind": "current", "decimals": 0}
_VOLTAGE: Mapping[str, object] = {"kind": "voltage", "decimals": 0}
_POWER: Mapping[str, object] = {"kind": "power", "unit": "W"}

_PERIODS: Mapping[str, Mapping[str, str]] = {
    "TH..": {"en": "all hours", "fr": "toutes les heures"},
    "HC..": {"en": "off-peak", "fr": "heures creuses"},
    "HP..": {"en": "peak", "fr": "heures pleines"},
    "HN..": {"en": "normal hours", "fr": "heures normales"},
    "PM..": {"en": "mobile peak", "fr": "pointe mobile"},
    **{
        f"{hours}J{day}": {"en": f"{en}, {colour} day", "fr": f"{fr}, jour {couleur}"}
        for hours, en, fr in (("HC", "off-peak", "heures creuses"), ("HP", "peak", "heures pleines"))
        for day, colour, couleur in (("B", "blue", "bleu"), ("W", "white", "blanc"), ("R", "red", "rouge"))
    },
}
_COLOURS = {
    "BLEU": {"en": "blue", "fr": "bleu"},
    "BLAN": {"en": "white", "fr": "blanc"},
    "ROUG": {"en": "red", "fr": "rouge"},
    "----": {"en": "not known yet", "fr": "pas encore connue"},
}

# What has a horodate in standard mode.
_DATED: Mapping[str, Mapping[str, object]] = {
    "SMAXSN": labelled("Highest power imported today", "Puissance max. soutirée du jour", **_APPARENT),
    "SMAXSN-1": labelled("Highest power imported yesterday", "Puissance max. soutirée de la veille", **_APPARENT),
    "SMAXIN": labelled("Highest power exported today", "Puissance max. injectée du jour", **_APPARENT),
    "SMAXIN-1": labelled("Highest power exported yesterday", "Puissance max. injectée de la veille", **_APPARENT),
    "CCASN": labelled("Mean power imported", "Puissance moyenne soutirée", **_POWER),
    "CCASN-1": labelled("Mean power imported, before", "Puissance moyenne soutirée, point précédent", **_POWER),
    "CCAIN": labelled("Mean power exported", "Puissance moyenne injectée", **_POWER),
    "CCAIN-1": labelled("Mean power exported, before", "Puissance moyenne injectée, point précédent", **_POWER),
    **{
        f"SMAXSN{n}{end}": labelled(
            f"Highest power imported {en}, phase {n}", f"Puissance max. soutirée {fr}, phase {n}", **_APPARENT
        )
        for n in "123"
        for end, en, fr in (("", "today", "du jour"), ("-1", "yesterday", "de la veille"))
    },
    **{f"UMOY{n}": labelled(f"Mean voltage, phase {n}", f"Tension moyenne, phase {n}", **_VOLTAGE) for n in "123"},
    **{f"DPM{n}": labelled(f"Start of mobile peak {n}", f"Début de la pointe mobile {n}") for n in "123"},
    **{f"FPM{n}": labelled(f"End of mobile peak {n}", f"Fin de la pointe mobile {n}") for n in "123"},
}

_FIELDS: Mapping[str, Mapping[str, object]] = {
    "PAPP": labelled("Apparent power", "Puissance apparente", **_APPARENT),
    "SINSTS": labelled("Apparent power imported", "Puissance apparente soutirée", **_APPARENT),
    **{
        f"SINSTS{n}": labelled(f"Apparent power imported, phase {n}", f"Puissance apparente, phase {n}", **_APPARENT)
        for n in "123"
    },
    "SINSTI": labelled("Apparent power exported", "Puissance apparente injectée", **_APPARENT),
    "BASE": labelled("All hours", "Base", **_ENERGY),
    "HCHC": labelled("Off-peak", "Heures creuses", **_ENERGY),
    "HCHP": labelled("Peak", "Heures pleines", **_ENERGY),
    "EAST": labelled("Energy imported, total", "Énergie soutirée totale", **_ENERGY),
    "EAIT": labelled("Energy exported, total", "Énergie injectée totale", **_ENERGY),
    "PTEC": labelled("Tariff period", "Période tarifaire en cours", values=_PERIODS),
    "LTARF": labelled("Tariff", "Tarif en cours"),
    "DEMAIN": labelled("Tomorrow’s colour", "Couleur du lendemain", values=_COLOURS),
    **{
        f"BBR{hours}J{day}": labelled(f"{en}, {colour} days", f"{fr}, jours {couleur}", **_ENERGY)
        for hours, en, fr in (("HC", "Off-peak", "Heures creuses"), ("HP", "Peak", "Heures pleines"))
        for day, colour, couleur in (("B", "blue", "bleus"), ("W", "white", "blancs"), ("R", "red", "rouges"))
    },
    "EJPHN": labelled("EJP, normal hours", "EJP, heures normales", **_ENERGY),
    "EJPHPM": labelled("EJP, mobile peak", "EJP, pointe mobile", **_ENERGY),
    "PEJP": labelled("EJP notice", "Préavis EJP", kind="duration", unit="min"),
    **{f"EASF{n:02}": labelled(f"Supplier’s index {n}", f"Index fournisseur {n}", **_ENERGY) for n in range(1, 11)},
    "IINST": labelled("Current", "Intensité instantanée", **_CURRENT),
    **{f"IINST{n}": labelled(f"Current, phase {n}", f"Intensité, phase {n}", **_CURRENT) for n in "123"},
    **{f"IRMS{n}": labelled(f"Current, phase {n}", f"Courant efficace, phase {n}", **_CURRENT) for n in "123"},
    **{f"URMS{n}": labelled(f"Voltage, phase {n}", f"Tension efficace, phase {n}", **_VOLTAGE) for n in "123"},
    "ADPS": labelled("Subscribed power exceeded", "Dépassement de puissance souscrite", **_CURRENT),
    **{
        f"ADIR{n}": labelled(
            f"Subscribed current exceeded, phase {n}", f"Dépassement d’intensité, phase {n}", **_CURRENT
        )
        for n in "123"
    },
    "IMAX": labelled("Highest current", "Intensité maximale", **_CURRENT),
    **{
        f"IMAX{n}": labelled(f"Highest current, phase {n}", f"Intensité maximale, phase {n}", **_CURRENT) for n in "123"
    },
    "PMAX": labelled("Highest power", "Puissance maximale", **_POWER),
    **_DATED,
    # what rarely changes
    "OPTARIF": labelled("Tariff option", "Option tarifaire"),
    "ISOUSC": labelled("Subscribed current", "Intensité souscrite", **_CURRENT),
    "PPOT": labelled("Presence of phases", "Présence des potentiels"),
    "HHPHC": labelled("Group of off-peak hours", "Groupe horaire"),
    "MOTDETAT": labelled("Status word", "Mot d’état"),
    "VTIC": labelled("Version of the output", "Version de la TIC"),
    "DATE": labelled("The meter’s clock", "Horloge du compteur"),
    "NGTF": labelled("Tariff calendar", "Calendrier tarifaire"),
    **{
        f"EASD{n:02}": labelled(f"Grid operator’s index {n}", f"Index distributeur {n}", **_ENERGY) for n in range(1, 5)
    },
    **{f"ERQ{n}": labelled(f"Reactive energy Q{n}", f"Énergie réactive Q{n}", unit="varh") for n in "1234"},
    "PREF": labelled("Reference power", "Puissance de référence", kind="apparent_power", unit="kVA"),
    "PCOUP": labelled("Cut-off power", "Puissance de coupure", kind="apparent_power", unit="kVA"),
    "STGE": labelled("Status register", "Registre de statuts"),
    "MSG1": labelled("Message", "Message"),
    "MSG2": labelled("Short message", "Message ultra-court"),
    "PRM": labelled("Point of delivery (PRM)", "Point de livraison (PRM)"),
    "RELAIS": labelled("Relays", "Relais"),
    "NTARF": labelled("Number of the tariff index", "Numéro de l’index tarifaire"),
    "NJOURF": labelled("Kind of day", "Jour tarifaire en cours"),
    "NJOURF+1": labelled("Kind of the next day", "Prochain jour tarifaire"),
    "PJOURF+1": labelled("Profile of the next day", "Profil du prochain jour"),
    "PPOINTE": labelled("Profile of the next peak day", "Profil du prochain jour de pointe"),
}


def _dated(about: Mapping[str, object]) -> Mapping[str, object]:
    label = about["label"]
    assert isinstance(label, Mapping)
    return labelled(f"{label['en']}, time", f"{label['fr']}, date et heure")


class Framing(FramingBase):
    """
    Frames begin with STX and end before the next STX, ETX or EOT. What came before the first STX is a part of a frame.

    The 8th bit is cleared: it is the parity, which a tty removes, but a pty or a serial server does not.
    """

    def __init__(self) -> None:
        super().__init__(LIMIT)

    def feed(self, data: bytes) -> Sequence[bytes]:
        frames: list[bytes] = []
        data = data.translate(SEVEN_BITS)
        at = 0
        for end in _ENDS.finditer(data):
            self._collect(data[at : end.start()], frames)
            self._end(frames)
            self.rest = _START if end[0] == _START else b""
            at = end.end()
        self._collect(data[at:], frames)
        return frames

    def _collect(self, data: bytes, frames: list[bytes]) -> None:
        if self.discarding:
            return
        self.rest += data
        if len(self.rest) > self.limit:
            frames.append(self.rest[: self.limit + 1])
            self.rest = b""
            self.discarding = True

    def _end(self, frames: list[bytes]) -> None:
        self.discarding = False
        if b"\r" in self.rest:
            frames.append(self.rest)
        elif self.rest.strip(_START):
            self.noise += len(self.rest)
            self.noise_frames += 1

    def is_partial(self, frame: bytes) -> bool:
        return not frame.startswith(_START)


class Dialect(DialectBase):
    """
    One report for each frame. The sensor is the meter's address (`ADCO`, `ADSC`), or that of the option `sensor`, for
    meters that send none. The option `without` has the labels that are left out: `DATE` by default, which would be
    another reading each second.

    The modes differ in their separator, a blank or a tab, and are recognized by that in each group. A damaged group
    costs itself. The report has the others, as far as they have data.
    """

    fields: ClassVar[Mapping[str, Mapping[str, object]]] = {
        **_FIELDS,
        **{f"{name}-AT": _dated(about) for name, about in _DATED.items()},
    }
    defaults: ClassVar[Mapping[str, object]] = {
        "baud": 1200,
        "line": "7E1",
        "store": "on change, at least every 5m",
    }

    def configure(self, options: DialectOptions) -> None:
        self._sensor = options.sensor("sensor", "")
        self._without = {label.upper() for label in options.texts("without", ["DATE"])}
        self._address = ""

    def framing(self) -> Framing:
        return Framing()

    def opened(self) -> bytes:
        self._address = ""
        return b""

    def decode(self, frame: bytes) -> Report:
        values: dict[str, str] = {}  # of two frames in one, whose middle was lost, the second one counts
        damages: list[str] = []
        for group in _groups(frame):
            try:
                label, horodate, data = _parse(group)
            except _DamagedGroup as damage:
                damages.append(damage.reason)
                continue
            if label in _ADDRESSES:
                if self._address and data != self._address:
                    # One of the two is damaged, unless the meter was replaced: then the next frame counts.
                    self._address = ""
                    raise Malformed("another meter's address", data)
                self._address = data
            elif label not in self._without:
                values |= {label: data} if data else {}
                values |= {f"{label}-AT" if data else label: horodate} if horodate else {}
        sensor = self._sensor or self._address
        if not sensor:
            raise Malformed("no address of a meter", "set `sensor` for one that sends neither ADCO nor ADSC")
        return self.report(sensor, values.items(), left_out=damages)


class _DamagedGroup(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _groups(frame: bytes) -> Sequence[bytes]:
    # A group ends at CR. What begins it should be LF, but arrives as SI, SO or VT where a bit is lost.
    *groups, unended = frame.removeprefix(_START).split(b"\r")
    groups = [group.lstrip(b"\n\x0b\x0e\x0f") for group in groups]
    return [group for group in groups if group] + [unended] * (unended.strip(b"\n") != b"")


def _parse(group: bytes) -> tuple[str, str, str]:
    # Returns label, horodate and data. Nothing may be stripped: a check can be a blank, and so can a season be.
    text, check = group[:-1], group[-1:]
    if text.endswith(b"\t"):  # standard mode, where the sum has the last separator
        summed, parts = text, text[:-1].decode().split("\t")
    elif text.endswith(b" "):
        summed, parts = text[:-1], text[:-1].decode().split(" ", 1)
    else:
        raise _DamagedGroup(WRONG_CHECKSUM)
    if check[0] != sum(summed) % 64 + 32:
        raise _DamagedGroup(WRONG_CHECKSUM)
    if not (2 <= len(parts) <= 3 and _LABEL.fullmatch(parts[0])):
        raise _DamagedGroup(NO_KEY)
    label, horodate, data = parts[0], parts[1] if len(parts) == 3 else "", parts[-1]
    # One damage in 64 has the right check.
    if not (_HORODATE.fullmatch(horodate) and data.isprintable() and _may_be(label, data)):
        raise _DamagedGroup(NO_VALUE)
    return label, horodate.lstrip(), str(int(data)) if _NUMBERS.fullmatch(label) else data


def _may_be(label: str, data: str) -> bool:
    if label in _ADDRESSES:
        return len(data) == 12 and data.isalnum()
    return bool(_DIGITS.fullmatch(data)) or not _NUMBERS.fullmatch(label)
