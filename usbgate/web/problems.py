"""
Errors over HTTP: problem documents (RFC 9457), with one status for each error code of the line protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from usbgate.core.errors import (
    Busy,
    Cancelled,
    Denied,
    Failed,
    LimitExceeded,
    Malformed,
    NotHeard,
    NotHeld,
    Offline,
    RequestError,
    Stopped,
    StoreUnavailable,
    TimedOut,
    Unauthenticated,
    Unknown,
)
from usbgate.web.schema import ApiProblem

CONTENT_TYPE = "application/problem+json"

RETRY_AFTER = 10  # seconds, where it is not known when there will be room

STATUSES: Mapping[type[RequestError], HTTPStatus] = {
    TimedOut: HTTPStatus.GATEWAY_TIMEOUT,
    NotHeard: HTTPStatus.GATEWAY_TIMEOUT,
    Cancelled: HTTPStatus.CONFLICT,
    Offline: HTTPStatus.SERVICE_UNAVAILABLE,
    Busy: HTTPStatus.TOO_MANY_REQUESTS,
    LimitExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    Malformed: HTTPStatus.BAD_REQUEST,
    Denied: HTTPStatus.FORBIDDEN,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Unknown: HTTPStatus.NOT_FOUND,
    NotHeld: HTTPStatus.NOT_FOUND,
    Failed: HTTPStatus.INTERNAL_SERVER_ERROR,
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    Stopped: HTTPStatus.SERVICE_UNAVAILABLE,
}


class HttpProblem(Exception):
    """
    A call failed with this error and status.
    """

    def __init__(
        self, error: RequestError, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            error: Why.
            status: An HTTP status that is more exact than the error's own; None for the error's.
            headers: More headers of the response.
        """
        super().__init__(error.text)
        self.error = error
        self.status = HTTPStatus(status or STATUSES[type(error)])
        usual: dict[str, str] = {}
        if isinstance(error, Unauthenticated):
            usual["WWW-Authenticate"] = 'Bearer realm="usbgate"'
        elif self.status is HTTPStatus.TOO_MANY_REQUESTS:
            usual["Retry-After"] = str((error.wait if isinstance(error, LimitExceeded) else None) or RETRY_AFTER)
        self.headers = {**usual, **(headers or {})}

    def body(self) -> bytes:
        """
        Return the problem document.
        """
        return msgspec.json.encode(
            ApiProblem(
                type="about:blank",
                title=self.status.phrase,
                status=self.status,
                detail=self.error.text,
                code=self.error.code,  # type: ignore[arg-type]  # those are the codes
                reason=self.error.reason,
                role=self.error.role if isinstance(self.error, Denied) else None,
            )
        )


def respond(
    request: Any, status: int, content_type: str, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    """
    Send a whole response.

    Args:
        request: A `twisted.web` request whose client is connected; Twisted omits the body of the response to a HEAD.
        status: The status.
        content_type: The type of the body.
        body: The body.
        headers: More headers.
    """
    start_response(request, status, content_type, len(body), headers or {})
    request.write(body)
    request.finish()


def respond_problem(request: Any, problem: HttpProblem) -> None:
    """
    Respond with a problem.
    """
    respond(request, problem.status, CONTENT_TYPE, problem.body(), {"Cache-Control": "no-store", **problem.headers})


def start_response(request: Any, status: int, content_type: str, length: int, headers: Mapping[str, str]) -> None:
    """
    Set the status and the headers of a response whose body has this many bytes.
    """
    request.setResponseCode(status, HTTPStatus(status).phrase.encode())  # Twisted does not know all of them
    for name, value in {"Content-Type": content_type, "Content-Length": str(length), **headers}.items():
        request.setHeader(name, value)
