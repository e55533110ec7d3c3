"""
How a call over HTTP comes in and ends: with its answer, with a problem, or with a client that is gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import MethodNotAllowed

from usbgate.core.errors import Failed, Malformed, RequestError, Unknown
from usbgate.web.openapi import JSON
from usbgate.web.problems import HttpProblem, begin_problem, respond, respond_problem
from usbgate.web.security import check_type

_Body = TypeVar("_Body", bound=msgspec.Struct)
_Handler = Callable[..., Awaitable[msgspec.Struct | None]]

_log = Logger()


def answers(app: Klein, method: str, path: str) -> Callable[[_Handler], Callable[..., Awaitable[None]]]:
    """
    Make a method answer the calls of one path: with what it gives, or by itself, where that is None.

    What it raises becomes a problem. It is cancelled when its client is gone. What varies in the path is one segment,
    as `Front` has quoted it.
    """

    def decorate(handler: _Handler) -> Callable[..., Awaitable[None]]:
        @wraps(handler)
        async def call(self: object, request: Any, **values: str) -> None:
            try:
                if method == "POST":
                    check_type(request)
                answer = await handler(self, request, **{name: unquote(value) for name, value in values.items()})
            except CancelledError:
                raise  # the client is gone, and klein knows
            except Exception as error:
                if request.channel is None:  # gone, and that was the error
                    raise CancelledError from None
                await _fail(request, error)
            else:
                if answer is not None:
                    respond(request, HTTPStatus.OK, JSON, msgspec.json.encode(answer), {"Cache-Control": "no-store"})

        app.route(path, methods=[method])(call)
        return call

    return decorate


async def _fail(request: Any, error: Exception) -> None:
    if not isinstance(error, RequestError | HttpProblem):
        _log.failure("unexpected, while answering over HTTP")
        error = Failed()
    if request.startedWriting:
        # A client must not take half an answer for a whole one.
        _log.warn("an answer to {client} broke off: {why}", client=client_of(request), why=str(error))
        request.channel.transport.abortConnection()
        await Deferred()  # cancelled when the connection is lost
    respond_problem(request, error if isinstance(error, HttpProblem) else HttpProblem(error))


def not_found(api: object, request: Any, failure: Failure) -> bytes:
    """
    Say that there is no such path, or that it can't be called so; klein calls this, and finishes.
    """
    error = failure.value
    if isinstance(error, MethodNotAllowed):
        allow = {"Allow": ", ".join(sorted(error.valid_methods or ()))}
        return begin_problem(request, HttpProblem(Malformed("no such method here"), error.code, allow))
    return begin_problem(request, HttpProblem(Unknown("there is nothing at this path")))


def body_of(request: Any, kind: type[_Body]) -> _Body:
    """
    Read a body; none at all says nothing, as an empty object does.

    Raises:
        Malformed: It is something else.
    """
    try:
        return msgspec.json.decode(request.content.read() or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed("not the body that is expected", str(error)) from None


def client_of(request: Any) -> str:
    """
    Tell who asks: the peer's address, which may be a proxy's.
    """
    port = getattr(request.getClientAddress(), "port", None)
    return host_of(request) if port is None else f"{host_of(request)}:{port}"


def host_of(request: Any) -> str:
    """
    Return where the asker is; a unix socket's peer has no address.
    """
    return str(getattr(request.getClientAddress(), "host", "local"))
