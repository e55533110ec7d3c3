"""
From the path of a request to the method that answers it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from usbgate.core.errors import Malformed, Unknown
from usbgate.web.problems import HttpProblem, respond_problem


class Routes(Resource):
    """
    Calls the methods that klein routes to, and cancels those whose clients disconnect.

    Klein's own resource does the same, with functions that refer to themselves. So each request would stay in memory,
    with its connection, until the garbage collector comes, and would hold the reactor then.
    """

    isLeaf = True

    def __init__(self, app: Klein) -> None:
        """
        Args:
            app: The routes, of an instance of the class that declares them.
        """
        super().__init__()
        self._app = app
        self._paths = app.url_map.bind("")

    def render(self, request: Any) -> int:
        """
        Respond, also if there is no such path; Twisted calls this.
        """
        try:
            name, segments = self._paths.match(_quoted_path(request), request.method.decode())
        except MethodNotAllowed as error:
            allow = {"Allow": ", ".join(sorted(error.valid_methods or ()))}
            respond_problem(request, HttpProblem(Malformed("no such method here"), error.code, allow))
        except HTTPException:
            respond_problem(request, HttpProblem(Unknown("no such path")))
        else:
            lost = request.notifyFinish()
            arguments = {segment: unquote(value) for segment, value in segments.items()}
            # All methods are coroutines, of which klein makes Deferreds.
            answered: Any = self._app.execute_endpoint(name, request, **arguments)
            answered.addErrback(_failed, request)
            lost.addErrback(lambda _: answered.cancel())
        return NOT_DONE_YET


def _quoted_path(request: Any) -> str:
    # Twisted has cut the path into segments, and unquoted them. A `/` that was quoted is part of an id, so quote it
    # again.
    return "/" + "/".join(part.decode().replace("%", "%25").replace("/", "%2F") for part in request.postpath)


def _failed(failure: Failure, request: Any) -> None:
    if failure.check(CancelledError):
        failure.cleanFailure()  # the frames of its traceback refer to the request, and to itself
    else:
        request.processingFailed(failure)
