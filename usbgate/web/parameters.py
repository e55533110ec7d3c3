"""
What the query string of each call has. The OpenAPI document is made from these types.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from usbgate.web.query import BucketWidth, FieldName, QueryTime, SensorId, ZoneName

MAX_READINGS = 9_999_999_999  # a number that PostgreSQL accepts; they are streamed
MAX_BUCKETS = 10_000
MAX_SELECTIONS = 100  # each is a query or two
MAX_REQUESTS = 1_000
MAX_STATES = 10_000
MAX_ALARMS = 1_000


class NoQuery(Struct, frozen=True, kw_only=True):
    """
    No parameters.
    """


_Raw = Annotated[
    bool,
    Meta(description="Whether to return what the devices sent, without offset, scale, min and max of the fields."),
]


class SensorsQuery(Struct, frozen=True, kw_only=True):
    """
    How the newest readings are shown.
    """

    raw: _Raw = False


class EventsQuery(Struct, frozen=True, kw_only=True):
    """
    Selects events.
    """

    sensor: Annotated[SensorId | None, Meta(description="A sensor's id.")] = None


class RequestsQuery(Struct, frozen=True, kw_only=True):
    """
    Selects requests.
    """

    sensor: Annotated[SensorId | None, Meta(description="A sensor's id.")] = None
    limit: Annotated[int, Meta(ge=1, le=MAX_REQUESTS, description="Only the newest requests; by default 100.")] = 100


class ReadingsQuery(Struct, frozen=True, kw_only=True):
    """
    Selects readings, or buckets of them; a `limit` of 0 is none.
    """

    sensor: Annotated[
        tuple[SensorId, ...],
        Meta(min_length=1, max_length=MAX_SELECTIONS, description="A sensor's id; once for each sensor."),
    ]
    field: Annotated[
        tuple[FieldName, ...],
        Meta(max_length=MAX_SELECTIONS, description="Only this field of each sensor; once for each field."),
    ] = ()
    since: Annotated[
        QueryTime | None,
        Meta(description="Only from this time on: RFC 3339, ms since 1970, or an age such as `7d`."),
    ] = None
    until: Annotated[
        QueryTime | None, Meta(description="Only before this time: RFC 3339, ms since 1970, or an age.")
    ] = None
    limit: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_READINGS,
            description=f"Only the newest readings or buckets of each; at most {MAX_BUCKETS} buckets in all.",
        ),
    ] = 0
    bucket: Annotated[
        BucketWidth | None,
        Meta(
            description="Aggregates by intervals of this length, such as `5m`, instead of readings; from 1 s to 366 d."
        ),
    ] = None
    raw: _Raw = False


class CsvQuery(ReadingsQuery, frozen=True, kw_only=True):
    """
    Selects readings, or buckets of them, and how they are spelled as CSV.
    """

    separator: Annotated[Literal["comma", "semicolon", "tab"], Meta(description="What separates cells.")] = "comma"
    decimal: Annotated[Literal["point", "comma"], Meta(description="What numbers have before their decimals.")] = (
        "point"
    )
    formulas: Annotated[
        Literal["defused", "kept"],
        Meta(description="Whether a `'` is put before texts that spreadsheets take for formulas."),
    ] = "defused"
    zone: Annotated[
        ZoneName | None,
        Meta(description="A time zone such as `Europe/Paris`: times are local, as spreadsheets read them."),
    ] = None


class StatesQuery(Struct, frozen=True, kw_only=True):
    """
    Selects states.
    """

    sensor: Annotated[SensorId, Meta(description="A sensor's id.")]
    field: Annotated[FieldName, Meta(description="The field.")]
    since: Annotated[
        QueryTime | None,
        Meta(
            description="Only those that had not ended at this time: RFC 3339, ms since 1970, or an age such as `7d`."
        ),
    ] = None
    until: Annotated[
        QueryTime | None, Meta(description="Only those that began before this time: RFC 3339, or an age.")
    ] = None
    limit: Annotated[int, Meta(ge=1, le=MAX_STATES, description="Only the newest states; by default 1000.")] = 1_000
    raw: _Raw = False


class PastAlarmsQuery(Struct, frozen=True, kw_only=True):
    """
    Selects alarms.
    """

    sensor: Annotated[SensorId | None, Meta(description="A sensor's id.")] = None
    since: Annotated[
        QueryTime | None,
        Meta(
            description="Only those that had not ended at this time: RFC 3339, ms since 1970, or an age such as `7d`."
        ),
    ] = None
    until: Annotated[QueryTime | None, Meta(description="Only those raised before this time; see `since`.")] = None
    limit: Annotated[int, Meta(ge=1, le=MAX_ALARMS, description="Only the newest alarms; by default 100.")] = 100
