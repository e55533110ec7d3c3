"""
A second, plain implementation of protocol §1 and of what §3 says about lines; and what must hold for any bytes.

Each `check_…` function gets what a fuzzer drew and raises an AssertionError that contains it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from usbgate.core.errors import LimitExceeded, Malformed
from usbgate.core.fieldline import LINE_LIMIT, format_line, join_fields, parse
from usbgate.core.linebuffer import LineBuffer
from usbgate.core.messages import error_line, event_line, parse_request, salvage
from usbgate.core.model import Report, ReportEvent, Request
from usbgate.device.dialects.fields import Dialect
from usbgate.server.commands import WORDS
from usbgate.server.telnet import TelnetFilter

# Words that take no arguments and can't fail: exactly these are answered, in their order.
SURE_WORDS = [word.name for word in WORDS.values() if not word.takes_arguments and word.name != "quit"]

ANY_LENGTH = 1 << 20  # lines that usbgate writes can be longer than those that it reads; the limit is not tested here


def fields_of(line: bytes) -> dict[str, str] | None:
    """
    Parse a field line; None if it is malformed.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    if len(line) > LINE_LIMIT or any(unicodedata.category(character) == "Cc" for character in text):
        return None
    found: list[list[str]] = []
    for segment in (text[:-1] if text.endswith("_") else text).split("_"):
        if re.match("[A-Za-z][A-Za-z0-9.+-]*:", segment):
            key, _, value = segment.partition(":")
            found.append([key.upper(), value])
        elif ":" not in segment and found:
            found[-1][1] += "_" + segment
        else:
            return None
    fields = {key: value.strip() for key, value in found}
    return fields if len(fields) == len(found) and all(fields.values()) else None


def without_telnet(stream: bytes) -> bytes:
    """
    Remove Telnet commands, and an unfinished one at the end.
    """
    kept = bytearray()
    place = 0
    while place < len(stream):
        command = stream[place + 1 : place + 2]
        if stream[place] != 0xFF or (command and command[0] < 240) or command in (b"\xfa", b"\xff"):
            kept.append(stream[place])
            place += 1
        else:
            place += 2 if command and command[0] < 250 else 3
    return bytes(kept)


def lines_of(stream: bytes, limit: int = LINE_LIMIT) -> tuple[list[bytes], bytes]:
    """
    Return the lines of a stream, over-long ones cut, and the unfinished line at its end unless it is too long already.
    """
    *ended, rest = stream.split(b"\n")
    lines = [line.removesuffix(b"\r")[: limit + 1] for line in ended]
    if len(rest) > limit + rest.endswith(b"\r"):
        return [*lines, rest[: limit + 1]], b""
    return lines, rest


def is_refused(stream: bytes) -> bool:
    """
    Return whether the first line of a stream, which may be unfinished, is no line client's (protocol §3).
    """
    first = re.sub(rb"\A(\r?\n)*", b"", stream).split(b"\n")[0]
    printed = first.replace(b"\r\x00", b"")
    return (
        re.match(rb"\r*([A-Z]+ (/|\*|http:|https:)|[!-~]+ (/|\*|https?:)\S* HTTP/[0-9]|SSH-)", first) is not None
        or any(byte == 127 or (byte < 32 and not 7 <= byte <= 13) for byte in printed)
        or len(first.removesuffix(b"\r")) > LINE_LIMIT
    )


def check_cuts(chunks: Sequence[bytes], limit: int) -> None:
    """
    However a stream is cut into chunks, its lines and its rest are the same, and at most one line is kept.
    """
    stream = b"".join(chunks)
    buffer = LineBuffer(limit)
    lines: list[bytes] = []
    for chunk in chunks:
        lines += buffer.feed(chunk)
        assert len(buffer.rest) <= limit + 1, (len(buffer.rest), chunk)
    assert (lines, buffer.rest) == lines_of(stream, limit), (lines, buffer.rest, chunks)
    if lines and max(map(len, lines)) <= limit:
        assert buffer.crlf == stream[: stream.rindex(b"\n")].endswith(b"\r"), chunks
    # A good line is read, whatever came before it.
    assert buffer.feed(b"\ng\n")[-1:] == [b"g"], chunks


def check_telnet(chunks: Sequence[bytes]) -> None:
    """
    However a stream is cut into chunks, the same commands are removed, and at most one is held back.
    """
    telnet = TelnetFilter()
    kept = b""
    for chunk in chunks:
        kept += telnet.feed(chunk)
        assert len(telnet.unfinished) <= 2, chunks
    assert kept == without_telnet(b"".join(chunks)), (kept, chunks)


def check_line(line: bytes) -> None:
    """
    A line is parsed as the protocol says or refused, and parsed fields can be written again.
    """
    fields = fields_of(line)
    try:
        read = parse(line)
    except Malformed:
        read = None
    assert read == fields, (line, read, fields)
    if fields is not None:
        assert parse(format_line(fields).encode(), ANY_LENGTH) == fields, line
        assert list(parse(join_fields(fields).encode(), ANY_LENGTH).items()) == list(fields.items()), line
    check_device_line(line)
    check_client_line(line[: LINE_LIMIT + 1], fields)  # the rest of a longer one is discarded


def check_device_line(line: bytes) -> None:
    """
    A device's line is a report, log text, or malformed; a report can be published.
    """
    try:
        report = Dialect().decode(line)
    except Malformed:
        return
    if isinstance(report, Report):
        assert report.values or report.command is not None, line
        event = event_line(ReportEvent(report.sensor, "", report.command, 0, report.values))
        if not report.values:
            assert event is None, line
            return
        assert event is not None
        written = parse(event[1].encode(), ANY_LENGTH)
        del written["EVENT"], written["AT"]
        expected = {"ID": report.sensor, **dict(report.values)}
        assert written == expected | ({} if report.command is None else {"MSG": report.command}), (line, written)
    else:
        assert line.startswith(b"#"), line
        assert isinstance(report, str), line


def check_client_line(line: bytes, fields: Mapping[str, str] | None) -> None:
    """
    An error reply repeats the fields that can be parsed; a request is written to the device as it was received.
    """
    read = salvage(line)
    written = parse(error_line(LimitExceeded(repr(line)), read).encode(), LINE_LIMIT + len("ERROR:limit__TEXT:") + 20)
    assert written.pop("ERROR") == "limit", line
    assert written.pop("TEXT"), line
    assert written == read, (line, written, read)
    for key in read:
        assert re.search(rb"(\A|_)%s:" % key.encode(), line, re.IGNORECASE), (line, read)
    if fields is None:
        return
    if "\ufffd" not in line.decode():  # else it looks like undecodable bytes
        assert read == {key: fields[key] for key in ("MSG", "ID", "ORIGIN", "TAG") if key in fields}, (line, read)
    try:
        request = parse_request(fields, "10.0.0.7", "10.0.0.7:4711", parsed=True)
    except Malformed:
        return
    check_request(request)
    sent = {key: fields[key] for key in fields if key not in ("TAG", "DEV", "MAXAGE", "TIMEOUT", "WHEN")}
    assert dict(request.fields) == {**sent, "ORIGIN": fields.get("ORIGIN", "10.0.0.7")}, (line, request)


def check_request(request: Request) -> None:
    """
    A request becomes one line for the device, which reads back, without the fields that are usbgate's own.
    """
    encoded = Dialect().encode(request, None)
    written = encoded.removesuffix(b"\n")
    assert encoded == request.line + b"\n", request
    assert b"\n" not in written, request
    assert list(parse(written, ANY_LENGTH).items()) == list(request.fields.items()), request
    assert not {"TAG", "DEV", "MAXAGE", "TIMEOUT", "WHEN"} & request.fields.keys(), request
    assert {"MSG", "ID", "ORIGIN"} <= request.fields.keys(), request
    assert parse(Dialect().encode(request, "3f").removesuffix(b"\n"), ANY_LENGTH) == {**request.fields, "TAG": "3f"}


def check_said(fields: Mapping[str, str]) -> None:
    """
    Fields that did not come as a line make a request that reads back, or none.
    """
    try:
        request = parse_request(fields, fields.get("ORIGIN", "x"), "x")
    except Malformed:
        return
    check_request(request)


class Expected:
    """
    The replies that lines must get.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.lines = list(lines)
        self.echoes: list[str] = []
        self.refused = 0  # request lines without an echo
        self.words = 0
        self.sure: list[str] = []
        self.quits = False
        for line in self.lines:
            if re.match(b"[A-Za-z][A-Za-z0-9.+-]*:", line):
                self._expect_request(line)
            else:
                self._expect_word(line)

    def _expect_request(self, line: bytes) -> None:
        fields = fields_of(line)
        try:
            parse_request(fields or {}, "x", "x", parsed=True)
        except Malformed:
            self.refused += 1
        else:
            self.echoes.append(join_fields(fields or {}))

    def _expect_word(self, line: bytes) -> None:
        try:
            words = line.decode().lower().split()
        except UnicodeDecodeError:
            words = ["?"]
        if len(line) > LINE_LIMIT:
            words = ["?"]
        self.words += bool(words)
        if len(words) == 1 and words[0] in SURE_WORDS:
            self.sure += words
        self.quits = self.quits or words == ["quit"]
