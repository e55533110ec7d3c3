"""
Query strings, read into the Structs that `parameters` declares.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from functools import cache
from typing import Any, ClassVar, Self, TypeVar, get_args, get_origin
from zoneinfo import ZoneInfo

import msgspec

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import KEY_PATTERN, is_key, is_sensor_id
from usbgate.core.units import parse_duration, parse_moment

_Query = TypeVar("_Query", bound=msgspec.Struct)

_AGE = r"^[0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d|w)?$"

_INVALID = "invalid query"
_REASON_LIMIT = 200  # characters of a reason, which may quote what the client sent


class QueryValue(ABC):
    """
    A parameter whose grammar is ours, not JSON's.

    Attributes:
        SCHEMA: Its JSON schema.
    """

    SCHEMA: ClassVar[Mapping[str, Any]]

    @classmethod
    @abstractmethod
    def parse(cls, text: str, now: int) -> Self:
        """
        Read the parameter's text.

        Args:
            text: The text, unquoted.
            now: Milliseconds since 1970, UTC.

        Raises:
            ValueError: The text is not such a value.
        """


class SensorId(str, QueryValue):
    """
    A sensor's id.
    """

    SCHEMA: ClassVar[Mapping[str, Any]] = {
        "type": "string",
        "pattern": r"^[^\s_\u0000-\u001f\u007f-\u009f]{1,64}$",
    }

    @classmethod
    def parse(cls, text: str, now: int) -> Self:
        if not is_sensor_id(text):
            raise ValueError(f"not a sensor id: {text!r}")
        return cls(text)


class FieldName(str, QueryValue):
    """
    The name of a field, in upper case.
    """

    SCHEMA: ClassVar[Mapping[str, Any]] = {"type": "string", "pattern": f"^{KEY_PATTERN}$"}

    @classmethod
    def parse(cls, text: str, now: int) -> Self:
        if not is_key(text):
            raise ValueError(f"not a field: {text!r}")
        return cls(text.upper())


class QueryTime(int, QueryValue):
    """
    A time, in milliseconds since 1970, UTC.
    """

    SCHEMA: ClassVar[Mapping[str, Any]] = {
        "anyOf": [
            {"type": "string", "format": "date-time"},
            {"type": "string", "pattern": _AGE},
            {"type": "string", "pattern": "^[1-9][0-9]{11,13}$"},
        ]
    }

    @classmethod
    def parse(cls, text: str, now: int) -> Self:
        # A `+` in a query means a space, and few people know that they must write %2B.
        return cls(parse_moment(re.sub(r" (?=[0-9]{2}:?[0-9]{2}$)", "+", text), now))


class BucketWidth(float, QueryValue):
    """
    The seconds of a bucket, from the rate of a fast sensor to a year.
    """

    SCHEMA: ClassVar[Mapping[str, Any]] = {
        "type": "string",
        "pattern": "^([1-9][0-9]{0,6}s|[1-9][0-9]{0,4}m|[1-9][0-9]{0,2}h|[1-9][0-9]?d|[1-9]w)$",
    }

    @classmethod
    def parse(cls, text: str, now: int) -> Self:
        seconds = parse_duration(text)
        if not 1.0 <= seconds <= 366 * 86_400.0:
            raise ValueError(f"not a duration from 1s to 366d: {text!r}")
        return cls(seconds)


class ZoneName(str, QueryValue):
    """
    The name of a time zone, such as `Europe/Paris`.
    """

    SCHEMA: ClassVar[Mapping[str, Any]] = {"type": "string", "pattern": "^[A-Za-z0-9_+/-]{1,64}$"}

    @classmethod
    def parse(cls, text: str, now: int) -> Self:
        try:
            ZoneInfo(text)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"not a time zone of this machine: {text!r}") from None
        return cls(text)


def check_order(since: int | None, until: int | None) -> None:
    """
    Check the times of a query.

    Raises:
        Malformed: `since` is later than `until`.
    """
    if since is not None and until is not None and since > until:
        raise Malformed("value out of range", "since is later than until")


def read_query(kind: type[_Query], arguments: Mapping[bytes, list[bytes]], now: int) -> _Query:
    """
    Read a query string.

    Args:
        kind: The parameters of this call.
        arguments: The arguments of the request.
        now: Milliseconds since 1970, UTC.

    Raises:
        Malformed: The query is not UTF-8, or a parameter is unknown, missing, given twice where it has no list of
            values, or has no valid value.
    """
    known, lists = _parameters(kind)
    texts: dict[str, str | list[str]] = {}
    for name_bytes, values in arguments.items():
        try:
            name, *spelled = [each.decode() for each in (name_bytes, *values)]
        except UnicodeDecodeError:
            raise Malformed("not UTF-8", "the query") from None
        if name not in known:
            raise Malformed(_INVALID, f"{name[:40]}: unknown parameter (known: {', '.join(sorted(known)) or 'none'})")
        if name in lists:
            texts[name] = spelled
        elif len(spelled) == 1:
            texts[name] = spelled[0]
        else:
            raise Malformed(_INVALID, f"{name}: given twice")
    for name, required in known.items():
        if required and name not in texts:
            raise Malformed(_INVALID, f"{name}: required")
    try:
        return msgspec.convert(texts, kind, strict=False, dec_hook=lambda value, text: value.parse(text, now))
    except msgspec.ValidationError as error:
        reason, _, name = str(error).removesuffix("`").rpartition(" - at `$.")
        name = name.partition("[")[0]  # of a list, the value that is wrong is in the reason
        reason = reason.partition(", got ")[0]
        raise Malformed(_INVALID, f"{name}: {reason[:1].lower()}{reason[1:_REASON_LIMIT]}") from None


@cache
def _parameters(kind: type[msgspec.Struct]) -> tuple[Mapping[str, bool], Set[str]]:
    # The names of all, with whether each is required, and of those with a list of values.
    fields = msgspec.structs.fields(kind)
    return {field.name: field.required for field in fields}, {field.name for field in fields if _is_list(field.type)}


def _is_list(annotation: Any) -> bool:
    # Annotated[tuple[…], …]
    return get_origin((get_args(annotation) or (None,))[0]) is tuple
