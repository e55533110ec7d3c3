"""
How a call over HTTP fails: RFC 9457, for each code of the protocol one status.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from usbgate.core.errors import (
    Busy,
    Denied,
    Failed,
    LimitExceeded,
    Malformed,
    Offline,
    RequestError,
    Stopped,
    TimedOut,
    Unknown,
)
from usbgate.web.schema import Problem

CONTENT_TYPE = "application/problem+json"

STATUSES: Mapping[type[RequestError], HTTPStatus] = {
    TimedOut: HTTPStatus.GATEWAY_TIMEOUT,
    Offline: HTTPStatus.SERVICE_UNAVAILABLE,
    Busy: HTTPStatus.TOO_MANY_REQUESTS,
    LimitExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    Malformed: HTTPStatus.BAD_REQUEST,
    Denied: HTTPStatus.FORBIDDEN,
    Unknown: HTTPStatus.NOT_FOUND,
    Failed: HTTPStatus.INTERNAL_SERVER_ERROR,
    Stopped: HTTPStatus.SERVICE_UNAVAILABLE,
}


class HttpProblem(Exception):
    """
    A call failed; knows with what status.
    """

    def __init__(
        self, error: RequestError, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """
        Say how.

        Args:
            error: Why.
            status: Where HTTP has one that says more than the error's own.
            headers: What HTTP wants to have said with it.
        """
        super().__init__(error.text)
        self.error = error
        self.status = HTTPStatus(status or STATUSES[type(error)])
        self.headers = headers or {}

    def body(self) -> bytes:
        """
        Spell it.
        """
        return msgspec.json.encode(
            Problem(
                type="about:blank",
                title=self.status.phrase,
                status=self.status,
                detail=self.error.text,
                code=self.error.code,  # type: ignore[arg-type]  # those are the codes
            )
        )


def respond(
    request: Any, status: int, content_type: str, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    """
    Answer a request whole, once.

    Args:
        request: A `twisted.web` request whose client is there.
        status: The status.
        content_type: What the body is.
        body: The body; left out where the request is a HEAD.
        headers: What else to say.
    """
    request.write(_begin(request, status, content_type, body, headers or {}))
    request.finish()


def respond_problem(request: Any, problem: HttpProblem) -> None:
    """
    Answer with a problem.
    """
    request.write(begin_problem(request, problem))
    request.finish()


def begin_problem(request: Any, problem: HttpProblem) -> bytes:
    """
    Prepare to answer with a problem; give the body, to be written by who finishes the request.
    """
    headers = {"Cache-Control": "no-store", **problem.headers}
    return _begin(request, problem.status, CONTENT_TYPE, problem.body(), headers)


def _begin(request: Any, status: int, content_type: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    request.setResponseCode(status)
    for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
        request.setHeader(name, value)
    return body
