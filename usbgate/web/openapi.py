"""
The API as an OpenAPI 3.1 document, made from the declarations of the calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from usbgate import __version__
from usbgate.web.calls import HttpCall
from usbgate.web.problems import CONTENT_TYPE as PROBLEM
from usbgate.web.problems import STATUSES
from usbgate.web.query import QueryValue, SensorId
from usbgate.web.schema import JSON, ApiProblem

# With what any call can fail: the checks of its head, its client and its query, and an error inside.
_ALWAYS = (400, 401, 403, 405, 421, 500)

# With what any call with a body can fail.
_WITH_BODY = (413, 415)

_REFERENCE = "#/components/schemas/"
_PREFIX = "Api"  # of the types' names in the source

_Schema = Mapping[str, Any]


def document(calls: Sequence[HttpCall]) -> dict[str, Any]:
    """
    Make the document of these calls.
    """
    types: dict[type[msgspec.Struct], None] = {ApiProblem: None}  # in order, each once
    for call in calls:
        for kinds in call.content.values():
            types.update(dict.fromkeys(kinds))
        if call.body is not None:
            types[call.body] = None
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE + "{name}")
    references = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, references)
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "usbgate",
            "version": __version__,
            "description": "The readings of usbgate's serial devices, and a way to ask the devices.",
        },
        "servers": [{"url": "../.."}],
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {name.removeprefix(_PREFIX): schema for name, schema in components.items()},
        },
    }
    named: dict[str, Any] = _without_prefix(whole)
    return named


def _without_prefix(part: Any) -> Any:
    # Takes the prefix off the names of types, which stand in titles and references.
    if isinstance(part, list):
        return [_without_prefix(each) for each in part]
    if not isinstance(part, dict):
        return part
    found = {key: _without_prefix(each) for key, each in part.items()}
    for key, start in (("title", ""), ("$ref", _REFERENCE)):
        if isinstance(found.get(key), str):
            found[key] = start + found[key].removeprefix(start).removeprefix(_PREFIX)
    return found


def _operation(call: HttpCall, references: Mapping[Any, _Schema]) -> dict[str, Any]:
    statuses = {*_ALWAYS, *(STATUSES[error] for error in call.errors)}
    operation: dict[str, Any] = {
        "summary": call.summary,
        "operationId": "_".join([call.method.lower(), *re.findall("[a-z]+", call.path.replace("api/v1", ""))]),
        "parameters": [*_segments(call), *_parameters(call)],
        "responses": {"200": {"description": call.summary, "content": _content(call, references)}},
    }
    if call.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": references[call.body]}}}
        statuses.update(_WITH_BODY)
    problem = {"description": "A problem.", "content": {PROBLEM: {"schema": references[ApiProblem]}}}
    operation["responses"] |= {str(int(status)): problem for status in sorted(statuses)}
    return operation


def _segments(call: HttpCall) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": SensorId.SCHEMA if name == "sensor" else {"type": "string", "minLength": 1},
        }
        for name in re.findall(r"\{(\w+)\}", call.path)
    ]


def _parameters(call: HttpCall) -> list[dict[str, Any]]:
    if call.query is None:
        return []
    _, components = msgspec.json.schema_components([call.query], schema_hook=_value_schema)
    query = components[call.query.__name__]
    return [_parameter(name, schema, name in query["required"]) for name, schema in query.get("properties", {}).items()]


def _value_schema(kind: type) -> Any:
    assert issubclass(kind, QueryValue)  # the types of a query that msgspec does not know itself
    return kind.SCHEMA


def _parameter(name: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    described = {key: each for key, each in schema.items() if key not in ("description", "default")}
    # A parameter that is left out is null to us; no client can send that.
    match [each for each in described.get("anyOf", ()) if each != {"type": "null"}]:
        case [only]:
            described = only
    return {
        "name": name,
        "in": "query",
        "description": schema["description"],
        "required": required,
        "schema": described,
    }


def _content(call: HttpCall, references: Mapping[Any, _Schema]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for content_type, types in call.content.items():
        schema: _Schema = {"type": "string"}
        if content_type == JSON:
            kinds = [references[kind] for kind in types]
            schema = {"anyOf": kinds} if len(kinds) > 1 else kinds[0] if kinds else {"type": "object"}
        content[content_type] = {"schema": schema}
    return content
