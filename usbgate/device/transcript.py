"""
What a dialect makes of a recording: a line for each frame, and for what is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import format_line
from usbgate.core.model import Reply, Report
from usbgate.device.interfaces import Decoded, IDialect, IFraming, Part


class Made(NamedTuple):
    """
    What was made of a frame, or of what is none.

    Attributes:
        line: `ID:20_TEMP:21.5` for a report, with the reasons behind it if fields are left out; `text: …`;
            `reply: b'…'`; `malformed: …` with the reason; `partial` for a first frame that does not count.
        frame: The frame, where a part of it is lost: it is malformed or partial, or fields are left out.
        detail: More about the reason why it is malformed.
        is_frame: False for `noise: …`, bytes that belong to no frame; `note: …`, what a person should know of the
            frames before; and `unended: …`, what has come of a frame that has not ended.
    """

    line: str
    frame: bytes = b""
    detail: str = ""
    is_frame: bool = True


def transcribe(dialect: IDialect, chunks: Iterable[bytes]) -> Iterator[Made]:
    """
    Decode all that a device sends, as a link does after opening the port.

    Args:
        dialect: A new instance.
        chunks: What is sent, in pieces of any size; behind it, the device is silent. What is noise is known up to the
            piece.
    """
    framing = dialect.framing()
    is_first = True
    noise = 0
    for frames in _feed(framing, chunks):
        noise += framing.take_noise()[0]
        if frames and noise:
            yield Made(f"noise: {_bytes(noise)}", is_frame=False)
            noise = 0
        for frame in frames:
            was_first, is_first = is_first, False
            if not frame:
                continue
            if was_first and framing.is_partial(frame):
                yield Made("partial", frame)
            elif len(frame) > framing.limit:
                yield Made(f"malformed: {'line' if framing.ends else 'frame'} too long", frame)
            else:
                yield from _decode(dialect, frame)
    if noise:
        yield Made(f"noise: {_bytes(noise)}", is_frame=False)
    if framing.rest:
        yield Made(f"unended: {_bytes(len(framing.rest))}", framing.rest, is_frame=False)


def _feed(framing: IFraming, chunks: Iterable[bytes]) -> Iterator[Sequence[bytes]]:
    for chunk in chunks:
        yield framing.feed(chunk)
    if framing.gap is not None:
        yield framing.end()


def _bytes(count: int) -> str:
    return "1 byte" if count == 1 else f"{count} bytes"


def _decode(dialect: IDialect, frame: bytes) -> Iterator[Made]:
    try:
        decoded = dialect.decode(frame)
    except Malformed as error:
        yield Made(f"malformed: {error.reason}", frame, error.text.removeprefix(error.reason).removeprefix(": "))
    else:
        for found in parts_of(decoded):
            yield Made(_spell(found), frame if isinstance(found, Report) and found.left_out else b"")
    for notice in dialect.notices:
        yield Made(f"note: {notice}", is_frame=False)
    dialect.notices.clear()


def parts_of(decoded: Decoded) -> Sequence[Part]:
    """
    Return the parts of what a frame has become.
    """
    return (decoded,) if isinstance(decoded, Part) else decoded


def _spell(found: Part) -> str:
    if isinstance(found, str):
        return f"text: {found}"
    if isinstance(found, Reply):
        return f"reply: {found.data!r}"
    fields = {"ID": found.sensor, **dict(found.values)}
    for key, value in (("MSG", found.command), ("TAG", found.tag)):
        if value is not None:
            fields[key] = value
    return format_line(fields) + (f" left out: {', '.join(found.left_out)}" if found.left_out else "")
