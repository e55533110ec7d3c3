"""
The one rule by which names from elsewhere (keys of JSON, labels, OBIS codes) become names of fields (protocol §2).
"""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import normalize

from usbgate.core.containers import BoundedDict
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import NOT_MEASUREMENTS

# What a meter of electricity says, by C.D.E of its OBIS code (IEC 62056-61, the DSMR companion standard).
_ELECTRICITY = {
    "1.8.0": "IMPORT",
    "1.8.1": "IMPORT-T1",
    "1.8.2": "IMPORT-T2",
    "2.8.0": "EXPORT",
    "2.8.1": "EXPORT-T1",
    "2.8.2": "EXPORT-T2",
    "3.8.0": "REACTIVE-IMPORT",
    "4.8.0": "REACTIVE-EXPORT",
    "1.7.0": "POWER-IMPORT",
    "2.7.0": "POWER-EXPORT",
    "3.7.0": "REACTIVE-POWER-IMPORT",
    "4.7.0": "REACTIVE-POWER-EXPORT",
    "16.7.0": "POWER",
    "13.7.0": "POWER-FACTOR",
    "14.7.0": "FREQUENCY",
    "17.0.0": "POWER-LIMIT",
    "31.4.0": "CURRENT-LIMIT",
    "96.14.0": "TARIFF",
    "96.1.0": "METER",
    "96.1.1": "METER",
    "96.1.4": "VERSION",
    "0.2.8": "VERSION",
    "1.0.0": "TIME",
    "96.3.10": "BREAKER",
    "96.7.21": "FAILURES",
    "96.7.9": "LONG-FAILURES",
    "99.97.0": "FAILURE-LOG",
    "96.13.0": "MESSAGE",
    "96.13.1": "MESSAGE-CODE",
    "1.4.0": "POWER-AVERAGE",
    "1.6.0": "POWER-PEAK",
    "98.1.0": "POWER-PEAKS",
}

# The same for each phase; 20 is added to C for the second one, 40 for the third.
_PHASES = {
    (21, "7.0"): "POWER-IMPORT",
    (22, "7.0"): "POWER-EXPORT",
    (36, "7.0"): "POWER",
    (31, "7.0"): "CURRENT",
    (32, "7.0"): "VOLTAGE",
    (33, "7.0"): "POWER-FACTOR",
    (32, "32.0"): "SAGS",
    (32, "36.0"): "SWELLS",
}
_ELECTRICITY.update(
    {
        f"{place + 20 * phase}.{rest}": f"{name}-L{phase + 1}"
        for (place, rest), name in _PHASES.items()
        for phase in range(3)
    }
)

# The same for another meter (gas, water, heat) that is read by this one over M-Bus.
_MBUS = {
    "24.1.0": "TYPE",
    "24.2.1": "VALUE",
    "24.2.3": "VALUE",
    "24.3.0": "VALUE",
    "24.4.0": "VALVE",
    "96.1.0": "METER",
    "96.1.1": "METER",
    "96.1.2": "EAN",
}

# Media of OBIS codes: 0 is abstract and 1 is electricity.
_OBIS = re.compile(r"([0-9]{1,3})-([0-9]{1,3}):([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})(?:[*.][0-9]{1,3})?")

_NOT_IN_NAMES = re.compile(r"[^A-Z0-9.+-]+")
_DASHES = re.compile(r"-{2,}")

# Spellings remembered; two spellings of one name of which the first was forgotten are not noticed.
SPELLINGS_REMEMBERED = 4096


@lru_cache(maxsize=4096)
def field_name(text: str) -> str:
    """
    Return the name of a field for a name from elsewhere: `temperature_C` is `TEMPERATURE-C`, `1-0:1.8.1` is
    `IMPORT-T1`.

    Args:
        text: Any text; the parts of a nested name are joined by `.`.

    Returns:
        A name that lines may have, in upper case: an accent is taken off its letter, and what names cannot have becomes
        `-`. One that begins with no letter, or that usbgate reserves, begins with `X-`. It is empty if nothing is left.
    """
    if obis := _OBIS.fullmatch(text):
        return _obis_name(obis[1], obis[2], obis[3])
    letters = normalize("NFKD", text).encode("ascii", "ignore") if not text.isascii() else text.encode()
    name = _DASHES.sub("-", _NOT_IN_NAMES.sub("-", letters.decode().upper())).strip("-.")
    if not name:
        return ""
    return name if name[0].isalpha() and name not in NOT_MEASUREMENTS | {"TAG"} else f"X-{name}"


def _obis_name(medium: str, channel: str, rest: str) -> str:
    if rest in _MBUS and channel != "0":
        name = _MBUS[rest]
        return f"MBUS{channel}" if name == "VALUE" else f"MBUS{channel}-{name}"
    if medium in ("0", "1") and rest in _ELECTRICITY:
        return _ELECTRICITY[rest]
    return f"OBIS-{rest}" if medium in ("0", "1") and channel == "0" else f"OBIS-{medium}-{channel}-{rest}"


class Spellings:
    """
    How the names of fields were spelled: two names of one sensor that become the same are refused.

    Attributes:
        conflict: The first such conflict, in words; None if there was none.
    """

    def __init__(self) -> None:
        self.conflict: str | None = None
        self._spelled: BoundedDict[tuple[str, str], str] = BoundedDict(SPELLINGS_REMEMBERED)

    def check(self, sensor: str, name: str, spelled: str) -> None:
        """
        Remember how a name is spelled.

        Raises:
            Malformed: The name of this sensor was spelled otherwise before.
        """
        before = self._spelled.get((sensor, name), spelled)
        if before != spelled:
            if self.conflict is None:
                self.conflict = f"sensor {sensor} has {before} and {spelled}, which are the same name: refused"
            raise Malformed("two names that are the same", f"{before} {spelled}")
        self._spelled.remember((sensor, name), spelled)
