"""
Request lines (protocol §3): which lines are requests, what they ask, and how they are answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted.internet.defer import fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from usbgate.access.roles import Access
from usbgate.core.errors import Failed, LimitExceeded, Malformed, RequestError
from usbgate.core.fieldline import KEY_PATTERN, join_fields, parse
from usbgate.core.holders import Holder
from usbgate.core.messages import error_line, parse_request, salvage, with_tag
from usbgate.core.model import Answer, Request

if TYPE_CHECKING:
    from usbgate.server.protocol import ClientProtocol

IN_FLIGHT_LIMIT = 256  # requests per connection, protocol §3: more than any window, so that no device waits for them

# Programs send the same lines again and again, so parsed lines are cached: this many, of up to this many bytes each,
# are 10 MB at most.
CACHED_LINES = 2048
CACHED_SIZE = 128

# A line that begins so is a request line, every other line is a word line.
REQUEST_LINE = re.compile(KEY_PATTERN.encode() + b":")

# The fields of a request line, what it asks, and its echo without a line end.
ReadRequest = tuple[Mapping[str, str], Request, bytes]


def is_original_request(data: bytes) -> bool:
    """
    Return whether data without a line end can be a request of the original client.
    """
    try:
        return {"MSG", "ID", "ORIGIN"} <= parse(data).keys()
    except Malformed:
        return False


def take_token(line: bytes) -> tuple[str, bytes] | None:
    """
    Split a request line that has the key `AUTH`, which no request keeps.

    Returns:
        The token, and the line without it; None if the line has no `AUTH`, or does not parse.
    """
    try:
        fields = parse(line)
    except Malformed:
        return None
    secret = fields.pop("AUTH", None)
    return None if secret is None else (secret, join_fields(fields).encode())


def read_request(line: bytes, origin: str, client: str) -> ReadRequest:
    """
    Parse a request line.

    Args:
        line: The line without its end.
        origin: `ORIGIN`, if the line has none.
        client: The client's host and port, for the record.

    Returns:
        The fields of the line, the request, and the echo without a line end.

    Raises:
        Malformed: The line is not a request.
    """
    return _read_cached(line, origin, client) if len(line) <= CACHED_SIZE else _read(line, origin, client)


def _read(line: bytes, origin: str, client: str) -> ReadRequest:
    fields = parse(line)
    request = parse_request(fields, origin, client, parsed=True)
    return fields, request, request.line if request.fields is fields else join_fields(fields).encode()


_read_cached = lru_cache(CACHED_LINES)(_read)


class Requests:
    """
    Asks the requests of one connection, and answers each as soon as its answer is there.

    Attributes:
        holder: The connection, as one that holds places in the queues.
        in_flight: Requests that are not answered yet.
    """

    log = Logger()

    def __init__(self, connection: ClientProtocol) -> None:
        self.holder = Holder(connection.peer.origin)
        self.in_flight = 0
        self._connection = connection
        self._peer = connection.peer
        self._factory = connection.factory
        self._gateway = connection.factory.gateway

    def receive(self, line: bytes, line_end: bytes) -> None:
        """
        Echo a request and ask the gateway; do nothing once the connection is closing.

        Args:
            line: The line without its end.
            line_end: How the client ended it, and how its echo ends.
        """
        connection, peer = self._connection, self._peer
        if connection.closing:
            return
        access = peer.access
        try:
            fields, request, echo = read_request(line, peer.origin, peer.name)
        except Malformed as error:
            found = self._read_with_token(line)
            if found is None:
                connection.record_malformed(line, error)
                connection.send_lines(error_line(error, salvage(line)))
                return
            (fields, request, echo), access = found
        connection.echo(echo, line_end)
        try:
            if self.in_flight >= IN_FLIGHT_LIMIT:
                raise LimitExceeded(f"more than {IN_FLIGHT_LIMIT} requests in flight on this connection")
            if of := peer.payers if access is peer.access else peer.payers_of(access):
                self._factory.rates.check(of)
        except LimitExceeded as error:
            self._factory.limited += 1
            connection.send_lines(error_line(error, fields))
            return
        self.in_flight += 1
        try:
            if access.is_restricted:
                self._factory.authority.check_request(access, request)
            answer = self._gateway.ask(request, self.holder)
        except Exception:
            answer = fail()
        answer.addCallbacks(self._answered, self._failed, (fields,), errbackArgs=(fields,))

    def _read_with_token(self, line: bytes) -> tuple[ReadRequest, Access] | None:
        # A request line with a token, and what that permits; None if the line has none or is no request besides.
        found = take_token(line)
        if found is None:
            return None
        secret, rest = found
        access = self._peer.authenticate(secret)
        with suppress(Malformed):
            return read_request(rest, self._peer.origin, self._peer.sign(access)), access
        return None

    def _answered(self, answer: Answer, fields: Mapping[str, str]) -> None:
        try:
            line = self._factory.encode(answer)
        except Exception:  # a dialect of another package may give anything
            self._failed(Failure(), fields)
        else:
            self._reply(with_tag(line, fields["TAG"]) if "TAG" in fields else line)

    def _failed(self, failure: Failure, fields: Mapping[str, str]) -> None:
        error = failure.value
        if not isinstance(error, RequestError):
            self.log.failure("unexpected error in a request of {client}", failure=failure, client=self._peer.name)
            error = Failed()
        self._reply(error_line(error, fields).encode())

    def _reply(self, line: bytes) -> None:
        self.in_flight -= 1
        self._connection.reply(line)

    def connection_lost(self) -> None:
        """
        The client is gone. Its requests go on; their answers are discarded.
        """
        self._gateway.disconnected(self.holder)
