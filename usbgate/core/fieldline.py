"""
Field lines, the format of all lines to and from usbgate (protocol §1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache, reduce
from operator import xor
from time import gmtime

from usbgate.core.errors import Malformed

LINE_LIMIT = 1024  # bytes without the line end, protocol §1

# Keys with a meaning of their own; a client can't use them as arguments, nor a device as measurements.
RESERVED = frozenset(
    [
        *("MSG", "ID", "ORIGIN", "TAG", "MAXAGE", "TIMEOUT", "WHEN", "AT", "DEV", "GW"),
        *("OK", "ERROR", "TEXT", "EVENT", "AUTH"),
    ]
)

# The lists derived from it: the keys that a request may not have; those of a request that are not sent to a device; and
# those that no measurement may have, all but OK, ERROR, TEXT, AUTH, WHEN and, on a device without `tags`, TAG.
NOT_IN_REQUESTS = RESERVED - {"MSG", "ID", "ORIGIN", "TAG", "MAXAGE", "TIMEOUT", "WHEN", "DEV"}
NOT_SENT = frozenset(["MAXAGE", "TIMEOUT", "WHEN", "DEV", "TAG"])
NOT_MEASUREMENTS = RESERVED - {"OK", "ERROR", "TEXT", "AUTH", "WHEN", "TAG"}

# Why a field of a device's line is left out (protocol §2).
EMPTY_VALUE = "empty value"
NOT_UTF8 = "not UTF-8"
CONTROL_CHARACTER = "control character"
NO_KEY = "no key"
NO_VALUE = "not a value"
WRONG_CHECKSUM = "wrong checksum"

# Unicode's category Cc, whole.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# A value with one of these would not read back as itself: a control character, half a surrogate pair (not UTF-8), or a
# `_` that begins a segment with a colon in it.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]|_[^_]*:")

# What a byte that is not UTF-8 becomes by `surrogateescape`.
_ESCAPED = re.compile(r"[\udc80-\udcff]")

KEY_PATTERN = "[A-Za-z][A-Za-z0-9.+-]*"
_KEY = re.compile(KEY_PATTERN)

_CAPITALS = re.compile("[A-Z]+")

# The characters with which a number of protocol §1 begins and ends.
_NUMBER_BEGINS = frozenset("+-.0123456789")
_NUMBER_ENDS = frozenset(".0123456789")

# A number that is spelled otherwise, or with more digits, keeps its spelling beside its value (protocol §5): `0815` and
# `00E1` may be ids, and a double holds 15 decimal digits.
_is_plain_decimal = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?").fullmatch
EXACT_DIGITS = 15

# The units of protocol §1 that may directly follow a number.
_UNITS = """
% %RH ° °C °F ºC ºF C F K V mV kV A mA uA µA W mW kW MW VA kVA Wh kWh MWh Ah mAh Ohm ohm Ω kΩ Hz kHz MHz Pa hPa kPa
mbar bar psi lx lux ppm ppb dB dBm dBA rpm RPM mm cm m km mm/h m/s km/h m3 m³ m3/h m³/h l L ml mL l/h l/min L/min g kg
mg ug/m3 µg/m3 µg/m³ us µs ms s min h uS/cm µS/cm mS/cm W/m2 W/m² J kJ MJ GJ
"""
UNITS = tuple(_UNITS.split())
_WITH_UNIT = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(" + "|".join(map(re.escape, UNITS)) + ")"
)


def parse(line: bytes, limit: int = LINE_LIMIT) -> dict[str, str]:
    """
    Read a field line (protocol §1).

    Args:
        line: One line without its end.
        limit: The most bytes that it may have.

    Returns:
        The fields in their order, keys in upper case.

    Raises:
        Malformed: It is not a field line, or too long.
    """
    if len(line) > limit:
        raise Malformed("line too long")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise Malformed(NOT_UTF8) from None
    if not text.isprintable() and _CONTROL.search(text):
        raise Malformed(CONTROL_CHARACTER)
    segments = text.split("_")
    fields = dict(map(_simple_field, segments))
    if len(fields) == len(segments) and "" not in fields:
        return fields
    return _parse(text)


@lru_cache(maxsize=4096)
def _simple_field(segment: str) -> tuple[str, str]:
    # The key and the value of a segment that is a field as it stands, two empty texts for any other. Most segments come
    # again and again: looking them up here halves what a line costs.
    head, _, value = segment.partition(":")
    key = _upper_key(head)
    if key and value and value[0] > " " and value[-1] > " " and value.isascii():
        return key, value
    return "", ""


def _parse(text: str) -> dict[str, str]:
    # The rule for segments, whole.
    if text.endswith("_"):
        text = text[:-1]
    fields: dict[str, str] = {}
    key = ""
    for segment in text.split("_"):
        head, colon, value = segment.partition(":")
        if colon:
            key = _upper_key(head)
            if not key:
                raise Malformed(NO_KEY, repr(segment))
            if key in fields:
                raise Malformed("key given twice", key)
            fields[key] = value
        elif key:
            fields[key] += "_" + segment
        else:
            raise Malformed(NO_KEY, repr(segment))
    for key, value in fields.items():
        if not value or value[0] <= " " or value[-1] <= " " or not value.isascii():
            fields[key] = value = value.strip()
            if not value:
                raise Malformed(EMPTY_VALUE, key)
    return fields


def parse_whole_fields(line: bytes) -> tuple[dict[str, str], list[str]]:
    """
    Read the fields of a device's line that are whole, and leave out the others (protocol §2).

    Args:
        line: A line that `parse` refuses.

    Returns:
        The whole fields, as `parse` returns them; and for each of the others, the reason why it was left out.

    Raises:
        Malformed: The line does not begin with a field, or is too long, or a key was given twice.
    """
    if len(line) > LINE_LIMIT:
        raise Malformed("line too long")
    found: list[list[str]] = []  # the text before the first colon, and the value
    for segment in line.decode("utf-8", "surrogateescape").removesuffix("_").split("_"):
        head, colon, value = segment.partition(":")
        if colon:
            found.append([head, value])
        elif found:
            found[-1][1] += "_" + segment
        else:
            raise Malformed(NO_KEY, repr(segment))
    keys: set[str] = set()
    fields: dict[str, str] = {}
    left_out: list[str] = []
    for head, value in found:
        key = _upper_key(head)
        if key in keys:
            raise Malformed("key given twice", key)
        if not key:
            left_out.append(NO_KEY)
            continue
        keys.add(key)
        if _ESCAPED.search(value):
            left_out.append(NOT_UTF8)
        elif _CONTROL.search(value):
            left_out.append(CONTROL_CHARACTER)
        elif not value.strip():
            left_out.append(EMPTY_VALUE)
        else:
            fields[key] = value.strip()
    return fields, left_out


def checksum(line: bytes) -> bytes:
    """
    Return the checksum that a line of a device may end in (protocol §2): `*` and the XOR of its bytes in hexadecimal.
    """
    return b"*%02X" % reduce(xor, line, 0)


def without_checksum(line: bytes) -> bytes | None:
    """
    Return a line without its checksum; None if it has none, or a wrong one.
    """
    body = line[:-3]
    return body if line[-3:-2] == b"*" and line[-3:].upper() == checksum(body) else None


@lru_cache(maxsize=1024)
def _upper_key(head: str) -> str:
    return head.upper() if is_key(head) else ""


def reads_back(value: str) -> bool:
    """
    Return whether a value would read back as itself: it is not empty and has no whitespace at its ends, no control
    character, and no part that reads as a field.
    """
    return bool(value) and value == value.strip() and not _UNWRITABLE.search(value)


def check_value(key: str, value: str) -> None:
    """
    Refuse a value that would not read back as itself.

    Raises:
        Malformed: It does not (see `reads_back`).
    """
    if not reads_back(value):
        raise Malformed("value that does not read back", f"{key} {value!r}")


def format_line(fields: Mapping[str, str]) -> str:
    """
    Write a field line, so that `parse` gives the same fields again.

    Args:
        fields: At least one; keys as `parse` returns them.

    Raises:
        Malformed: A value would not read back.
    """
    for key, value in fields.items():
        check_value(key, value)
    return join_fields(fields)


def join_fields(fields: Mapping[str, str]) -> str:
    """
    Write a field line without checking its values: for fields that `parse` returned, and values of our own.

    Checking each again was a tenth of the cost of a request.

    Args:
        fields: At least one; keys as `parse` returns them, values that read back.
    """
    line = "_".join([f"{key}:{value}" for key, value in fields.items()])
    # One `_` at the very end is ignored: a value that ends in one needs another.
    return line + "_" if line.endswith("_") else line


def is_key(text: str) -> bool:
    """
    Whether a text may stand before the colon of a field.
    """
    return _KEY.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def is_sensor_id(text: str) -> bool:
    """
    Whether a text may name a sensor: 1 to 64 characters, no whitespace, no `_`, and it reads back.
    """
    return 0 < len(text) <= 64 and "_" not in text and not any(map(str.isspace, text)) and not _UNWRITABLE.search(text)


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """
    Return a text with its ASCII letters in lower case; no other letter changes.
    """
    return _CAPITALS.sub(lambda capitals: capitals[0].lower(), text)


@lru_cache(maxsize=4096)
def parse_number(text: str) -> float | None:
    """
    Read a number as protocol §1 defines it; None if the text is not one, or not finite as a double.
    """
    # Python's own grammar also allows whitespace around it, `1_000`, other scripts' digits, infinity and nan.
    if text[:1] in _NUMBER_BEGINS and text[-1:] in _NUMBER_ENDS and "_" not in text and text.isascii():
        try:
            number = float(text)
        except ValueError:
            return None
        if number - number == 0.0:  # neither infinite nor nan
            return number
    return None


@lru_cache(maxsize=4096)
def parse_value(text: str) -> tuple[float | None, str | None]:
    """
    Split a measurement as the device spelled it into the columns `value` and `text` of a reading (protocol §5).

    The one place where a value becomes a number.

    Returns:
        The number, or None; and the text, which is kept unless it is a plain decimal that a double holds.
    """
    if _is_plain_decimal(text) and (len(text) <= EXACT_DIGITS or sum(map(str.isdigit, text)) <= EXACT_DIGITS):
        return float(text), None
    spelled = _WITH_UNIT.fullmatch(text)
    return parse_number(spelled[1] if spelled else text), text


def unit_of(text: str) -> str:
    """
    Return the unit that directly follows a number; empty if there is none, or if the text is no number.
    """
    spelled = _WITH_UNIT.fullmatch(text)
    return spelled[2] if spelled and parse_number(spelled[1]) is not None else ""


def format_number(number: float) -> str:
    """
    Write the shortest text that reads back as this double, with no `.0`.
    """
    return repr(number).removesuffix(".0")


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    year, month, day, hour, minute, second = gmtime(seconds)[:6]
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"


@lru_cache(maxsize=16)
def format_time(at: int) -> str:
    """
    Write a time as RFC 3339 in UTC with milliseconds: `2013-03-11T21:02:10.123Z`.

    Args:
        at: Whole milliseconds since 1970, UTC.
    """
    seconds, milliseconds = divmod(at, 1000)
    return f"{_second(seconds)}.{milliseconds:03}Z"


def count_unreadable(data: bytes) -> int:
    """
    Return how many characters some bytes have that no line may contain.
    """
    text = data.decode("utf-8", "replace")
    return text.count("\ufffd") + len(_CONTROL.findall(text))


def plain_text(text: str) -> str:
    """
    Make any text fit to be the value of `TEXT`: replace `_` and control characters by spaces.
    """
    text = _CONTROL.sub(" ", text.replace("_", " ")).encode("utf-8", "replace").decode()
    return text.strip() or "no text"
