"""
Request lines (protocol §3): which lines are requests, and what they ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import KEY_PATTERN, join_fields, parse
from usbgate.core.messages import parse_request
from usbgate.core.model import Request

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
