"""
One declaration for each call over HTTP: it makes the route, reads query and body, spells the response, and is what the
OpenAPI document is made from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from http import HTTPStatus
from inspect import cleandoc
from typing import Any, NamedTuple, TypeVar, get_type_hints

import msgspec
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from werkzeug.routing import BaseConverter

from usbgate.access.rights import CALL_ROLES
from usbgate.access.roles import Role
from usbgate.core.errors import Denied, Failed, Malformed, RequestError
from usbgate.web.channel import client_of
from usbgate.web.parameters import NoQuery
from usbgate.web.problems import HttpProblem, respond_problem
from usbgate.web.query import read_query
from usbgate.web.schema import JSON
from usbgate.web.security import check_type

_Body = TypeVar("_Body", bound=msgspec.Struct)
_Method = Callable[..., Awaitable[msgspec.Struct | None]]

# The types in the document of what a response, or each event of a stream, can be.
Content = Mapping[str, Sequence[type[msgspec.Struct]]]

_log = Logger()


class _SensorSegments(BaseConverter):
    # A sensor's id in a path, which is several segments if a proxy has decoded the `/` in it, as nginx does. The end of
    # another call is no part of it.
    regex = ".+?(?<!/ask)(?<!/replace)(?<!/undo-replacement)"
    part_isolating = False


class HttpCall(NamedTuple):
    """
    One call.

    Attributes:
        method: `GET` or `POST`.
        path: The path, with `{name}` for each part that varies.
        summary: One line.
        query: The type of the query string; None if any is accepted and none is read.
        body: The type of the body; None for no body.
        content: The types of a response, by content type.
        errors: The errors with which it can fail, besides those of any call.
    """

    method: str
    path: str
    summary: str
    query: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None
    content: Content
    errors: Sequence[type[RequestError]]


class HttpCalls:
    """
    Declares the methods of a class as calls. The signature of such a method is part of the declaration:

    - an argument for each part of the path that varies: a segment, or, if it is `sensor`, one or more;
    - `query`, if it has parameters: a Struct of `schema`; without it, a query with any parameter is refused;
    - `body`, if it has a body: a Struct of `schema`;
    - it returns the Struct to send as JSON, or None if it has responded itself.

    The first line of its docstring is the summary in the document. What it raises becomes a problem. It is cancelled
    when its client disconnects. `usbgate.access.rights` has the role that it requires. Its class has a `wall`, the wall
    clock (`IClock.wall`), `credentials`, and `denied`, which records what was denied.

    Attributes:
        documented: The calls of the OpenAPI document, in the order of their declarations.
    """

    def __init__(self, app: Klein) -> None:
        """
        Args:
            app: Where to add routes.
        """
        self.documented: list[HttpCall] = []
        self._app = app
        app.url_map.converters["id"] = _SensorSegments

    def get(
        self,
        path: str,
        *,
        content: Content | None = None,
        errors: Sequence[type[RequestError]] = (),
        any_query: bool = False,
    ) -> Callable[[_Method], _Method]:
        """
        Declare a `GET`.

        Args:
            path: As in `HttpCall`.
            content: As in `HttpCall`; by default JSON of the type that the method returns.
            errors: As in `HttpCall`.
            any_query: Whether to accept any query string.
        """
        return lambda method: self._document("GET", path, method, content, errors, any_query)

    def post(self, path: str, *, errors: Sequence[type[RequestError]] = ()) -> Callable[[_Method], _Method]:
        """
        Declare a `POST`, whose body is JSON (arguments as for `get`).
        """
        return lambda method: self._document("POST", path, method, None, errors, False)

    def file(self, path: str) -> Callable[[_Method], _Method]:
        """
        Declare a `GET` of files: any query string is accepted, and the document has no entry for it.
        """
        return lambda method: self._route("GET", path, method, None, None, is_file=True)

    def _document(
        self,
        verb: str,
        path: str,
        method: _Method,
        content: Content | None,
        errors: Sequence[type[RequestError]],
        any_query: bool,
    ) -> _Method:
        hints = get_type_hints(method)
        query = None if any_query else hints.get("query", NoQuery)
        body = hints.get("body")
        summary = cleandoc(method.__doc__ or "").partition("\n")[0]
        call = HttpCall(verb, path, summary, query, body, content or {JSON: (hints["return"],)}, errors)
        self.documented.append(call)
        return self._route(verb, path, method, call.query, call.body)

    def _route(
        self,
        verb: str,
        path: str,
        method: _Method,
        query: type[msgspec.Struct] | None,
        body: type[msgspec.Struct] | None,
        is_file: bool = False,
    ) -> _Method:
        reads_query = query not in (None, NoQuery)
        role = Role.NONE if is_file else CALL_ROLES[f"{verb} {path}"]

        @wraps(method)
        async def call(api: Any, request: Any, **segments: str) -> None:
            try:
                if verb == "POST":
                    check_type(request)
                if is_file:
                    api.credentials.count(request)
                else:
                    await api.credentials.admit(request, role)
                arguments: dict[str, Any] = {**segments}
                if query is not None:
                    parameters = read_query(query, request.args, api.wall())
                    if reads_query:
                        arguments["query"] = parameters
                if body is not None:
                    arguments["body"] = _read_body(request, body)
                answer = await method(api, request, **arguments)
                if answer is not None:
                    encoded = msgspec.json.encode(answer)
                    del answer  # larger than its encoding, which alone waits for the client
                    await api.responses.send(request, HTTPStatus.OK, JSON, encoded, {"Cache-Control": "no-store"})
            except CancelledError:
                raise  # the client has disconnected
            except Exception as error:
                if request.channel is None:  # disconnected, and that was the error
                    raise CancelledError from None
                if isinstance(error, Denied):
                    api.denied(request, f"{verb} {path}", error)
                await _fail(request, error)

        rule = path.replace("{sensor}", "<id:sensor>").replace("{", "<").replace("}", ">")
        self._app.route(rule, methods=[verb])(call)
        return call


async def _fail(request: Any, error: Exception) -> None:
    if not isinstance(error, RequestError | HttpProblem):
        _log.failure("unexpected error while responding over HTTP")
        error = Failed()
    if request.startedWriting:
        # A client must not take half a response for a whole one.
        _log.warn("a response to {client} was cut off: {reason}", client=client_of(request), reason=str(error))
        request.channel.transport.abortConnection()
        await Deferred()  # cancelled when the connection is lost
    respond_problem(request, error if isinstance(error, HttpProblem) else HttpProblem(error))


def _read_body(request: Any, kind: type[_Body]) -> _Body:
    # An empty body counts as an empty object.
    try:
        return msgspec.json.decode(request.content.read() or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed("invalid body", str(error)) from None
