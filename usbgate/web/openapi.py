"""
The API as an OpenAPI 3.1 document, made from the types that go in and out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from usbgate import __version__
from usbgate.web import schema
from usbgate.web.problems import CONTENT_TYPE as PROBLEM

JSON = "application/json"
CSV = "text/csv"

MOST_READINGS = 9_999_999_999  # a number that PostgreSQL takes; they are streamed
MOST_REQUESTS = 1_000

_TEXT: Mapping[str, Any] = {"type": "string"}

_SENSOR: Mapping[str, Any] = {"type": "string", "pattern": r"^[^\s_\u0000-\u001f\u007f-\u009f]{1,64}$"}
_TIME: Mapping[str, Any] = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "pattern": "^[0-9]{1,9}[smhdw]$"}]
}

# What stands behind the question mark: what it means, and its schema.
PARAMETERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sensor": ("A sensor's id.", _SENSOR),
    "field": ("Only this field.", {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9]*$"}),
    "since": ("Only from this time on: RFC 3339, or an age such as `1h` or `7d`.", _TIME),
    "until": ("Only before this time: RFC 3339, or an age.", _TIME),
    "limit": ("Only the newest so many; of sums at most 10000.", {"type": "integer", "minimum": 1}),
    "bucket": (
        "Sums by intervals of this length, such as `5m`, instead of readings; at most a year.",
        {"type": "string", "pattern": "^([1-9][0-9]{0,6}s|[1-9][0-9]{0,4}m|[1-9][0-9]{0,2}h|[1-9][0-9]?d|[1-9]w)$"},
    ),
}

# What stands within a path.
_SEGMENTS: Mapping[str, Mapping[str, Any]] = {"sensor": _SENSOR, "alarm": {"type": "string", "minLength": 1}}


class Operation(NamedTuple):
    """
    One call.

    Attributes:
        method: In lower case.
        path: With `{name}` for what varies.
        summary: One line.
        gives: The type of the answer, or of each content type; None for one of text.
        takes: The type of the body.
        query: Which of `PARAMETERS` it knows.
        required: Which of those must be given.
        problems: With which statuses it may fail.
        content_type: Of the answer.
        most: The most that `limit` may be.
    """

    method: str
    path: str
    summary: str
    gives: type[msgspec.Struct] | tuple[type[msgspec.Struct], ...] | None
    takes: type[msgspec.Struct] | None = None
    query: Sequence[str] = ()
    required: Sequence[str] = ()
    problems: Sequence[int] = ()
    content_type: Sequence[str] = (JSON,)
    most: int = 0


_HISTORY = ("sensor", "field", "since", "until", "limit", "bucket")

# What the guard may say of any call, and what may go wrong inside.
_ALWAYS = (400, 403, 405, 421, 500)

OPERATIONS = [
    Operation("get", "/api/v1/sensors", "All sensors with their newest readings.", schema.Sensors),
    Operation("get", "/api/v1/sensors/{sensor}", "One sensor.", schema.Sensor, problems=(404,)),
    Operation(
        "post",
        "/api/v1/sensors/{sensor}/ask",
        "Ask a sensor, and wait for its answer.",
        schema.Answer,
        takes=schema.Ask,
        problems=(404, 413, 415, 429, 503, 504),
    ),
    Operation(
        "get",
        "/api/v1/readings",
        "Stored readings, newest last, or sums of them.",
        (schema.Readings, schema.Buckets),
        query=_HISTORY,
        required=("sensor",),
        content_type=(JSON, CSV),
        most=MOST_READINGS,
    ),
    Operation(
        "get",
        "/api/v1/readings.csv",
        "The same as CSV, names first.",
        None,
        query=_HISTORY,
        required=("sensor",),
        content_type=(CSV,),
        most=MOST_READINGS,
    ),
    Operation(
        "get",
        "/api/v1/requests",
        "Requests that ended, newest first.",
        schema.Requests,
        query=("sensor", "limit"),
        most=MOST_REQUESTS,
    ),
    Operation(
        "get",
        "/api/v1/events",
        "Events as they come (server-sent events): reading, device, store, alarm, dropped.",
        None,
        query=("sensor",),
        problems=(429, 503),
        content_type=("text/event-stream",),
    ),
    Operation("get", "/api/v1/alarms", "Alarms that are active or not acknowledged yet.", schema.Alarms),
    Operation(
        "post",
        "/api/v1/alarms/{alarm}/acknowledge",
        "Say that somebody has seen an alarm.",
        schema.Alarm,
        takes=schema.Acknowledge,
        problems=(404, 413, 415, 503),
    ),
    Operation("get", "/api/v1/devices", "All devices.", schema.Devices),
    Operation("get", "/api/v1/status", "How usbgate is.", schema.Status),
    Operation("get", "/api/v1/openapi.json", "This document.", None),
    Operation("get", "/healthz", "Whether all is well.", schema.Health),
    Operation("get", "/metrics", "Numbers for Prometheus.", None, content_type=("text/plain",)),
]

_EVENTS = (schema.ReportEvent, schema.DeviceEvent, schema.StoreEvent, schema.DroppedEvent)


def document() -> dict[str, Any]:
    """
    Make the document.
    """
    kinds: list[Any] = [schema.Problem, *_EVENTS]
    for operation in OPERATIONS:
        gives = operation.gives if isinstance(operation.gives, tuple) else (operation.gives,)
        kinds += [kind for kind in (*gives, operation.takes) if kind is not None and kind not in kinds]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    references = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "usbgate",
            "version": __version__,
            "description": "What usbgate's serial devices say, and a way to ask them.",
        },
        "servers": [{"url": "../.."}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(operation: Operation, references: Mapping[Any, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _name(operation),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _SEGMENTS[name]}
            for name in re.findall(r"\{(\w+)\}", operation.path)
        ],
        "responses": {"200": {"description": operation.summary, "content": _content(operation, references)}},
    }
    for name in operation.query:
        what, shape = PARAMETERS[name]
        required = name in operation.required
        if name == "limit":
            shape = {**shape, "maximum": operation.most}
        told["parameters"].append(
            {"name": name, "in": "query", "description": what, "required": required, "schema": shape}
        )
    if operation.takes is not None:
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": references[operation.takes]}}}
    problem = {"description": "A problem.", "content": {PROBLEM: {"schema": references[schema.Problem]}}}
    for status in sorted({*_ALWAYS, *operation.problems}):
        told["responses"][str(status)] = problem
    return told


def _content(operation: Operation, references: Mapping[Any, Any]) -> dict[str, Any]:
    shape: Any = _TEXT
    if isinstance(operation.gives, tuple):
        shape = {"anyOf": [references[kind] for kind in operation.gives]}
    elif operation.gives is not None:
        shape = references[operation.gives]
    elif operation.content_type == (JSON,):
        shape = {"type": "object"}
    return {kind: {"schema": shape if kind == JSON else _TEXT} for kind in operation.content_type}


def _name(operation: Operation) -> str:
    words = re.findall("[a-z]+", operation.path.replace("api/v1", ""))
    return "_".join([operation.method, *words])
