"""
Checks of dialects: what single frames become, and what a recording of a device does, however it is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

from zope.interface.verify import verifyObject

from usbgate.core.counts import DAMAGES
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import NOT_MEASUREMENTS, is_key, is_sensor_id, reads_back
from usbgate.core.model import Reply, Report
from usbgate.device.interfaces import Decoded, IDialect, IFraming
from usbgate.device.transcript import parts_of, transcribe
from usbgate.testing.builders import request

# Frames that no dialect may fail on in any other way than by `Malformed`.
_GARBAGE = (b"\x00", b"\xff\xfe", b":", b"_", b"ID:", b"\xc3\xa9", b"1" * 1024, b"\r", b"ID:20_VALUE:\xff")

# At how many places a recording is cut: fewer for a long one, which takes this many bytes in all.
CUT_BYTES = 30_000
CUTS_LEAST, CUTS_MOST = 6, 40

FRAME_LIMIT = 4096  # bytes that a framing may allow: more than any telegram has
ENDLESS = 20_000  # bytes of a frame without end


def check_dialect(dialect: IDialect, frames: Iterable[tuple[bytes, Decoded]], malformed: Iterable[bytes] = ()) -> None:
    """
    Check a dialect against frames of its device, and against what `IDialect` demands of any.

    Args:
        dialect: A new instance.
        frames: Frames (lines without their ends), each with what it must become.
        malformed: Frames that must raise `Malformed`.

    Raises:
        AssertionError: The dialect is wrong; the message has the frame.
        zope.interface.Invalid: It does not provide `IDialect`.
    """
    verifyObject(IDialect, dialect)
    verifyObject(IFraming, dialect.framing())
    limit = dialect.framing().limit
    assert 0 < limit <= FRAME_LIMIT, f"a frame may have {limit} bytes, more than {FRAME_LIMIT}"
    for frame, expected in frames:
        found = dialect.decode(frame)
        assert found == expected, f"{frame!r} became {found!r}, not {expected!r}"
        _check_decoded(frame, found)
    for frame in malformed:
        assert _decode(dialect, frame) is None, f"{frame!r} is not refused"
    for frame in _GARBAGE:
        _check_decoded(frame, _decode(dialect, frame))
    assert isinstance(dialect.opened(), bytes), "opened: not bytes"
    ends = dialect.framing().ends
    for each in (request(), request("9", "L", LEVEL="50")):
        for tag in (None, "3f"):
            try:
                written = dialect.encode(each, tag)
            except Malformed:
                continue
            assert isinstance(written, bytes), f"{each!r} becomes {written!r}"
            line = written.rstrip(ends)
            assert not set(ends) & set(line), f"{each!r} becomes more than one line: {written!r}"
            assert not ends or not written or line != written, f"{each!r} has no line end: {written!r}"


def _decode(dialect: IDialect, frame: bytes) -> Decoded | None:
    try:
        return dialect.decode(frame)
    except Malformed:
        return None


def _check_decoded(frame: bytes, decoded: Decoded | None) -> None:
    for found in () if decoded is None else parts_of(decoded):
        if not isinstance(found, Report):
            assert isinstance(found, str | Reply), f"{frame!r} became {found!r}"
            continue
        assert is_sensor_id(found.sensor), f"{frame!r}: not a sensor id: {found.sensor!r}"
        assert found.values or found.command is not None, f"{frame!r}: neither values nor a command"
        assert found.command is None or reads_back(found.command), f"{frame!r}: not a command: {found.command!r}"
        for key, value in found.values:
            assert is_key(key), f"{frame!r}: not a key: {key!r}"
            assert key == key.upper(), f"{frame!r}: not in upper case: {key!r}"
            assert key not in NOT_MEASUREMENTS, f"{frame!r}: usbgate uses this key itself: {key!r}"
            assert reads_back(value), f"{frame!r}: not a value: {value!r}"
        for reason in found.left_out:
            assert reason in DAMAGES, f"{frame!r}: not a reason to leave a field out: {reason!r}"


def transcript(dialect: IDialect, data: bytes, size: int = 0) -> list[str]:
    """
    Return what a dialect makes of all that a device sends, as usbgate reads it after opening the port.

    Args:
        dialect: A new instance.
        data: What is sent; behind it, the device is silent.
        size: Bytes that are read at a time; 0 for all at once.

    Returns:
        The lines of `usbgate.device.transcript.Made`, those of frames.
    """
    size = size or len(data) or 1
    chunks = (data[start : start + size] for start in range(0, len(data), size))
    return [made.line for made in transcribe(dialect, chunks) if made.is_frame]


def check_recording(
    make: Callable[[], IDialect], data: bytes, expected: Sequence[str], *, checksums: bool = False
) -> None:
    """
    Check what a dialect makes of a recording: read whole, in pieces of any size and byte by byte; behind noise; and
    behind a part of itself, as if the device had been unplugged, or its port opened, at any byte. A frame without end
    must not be kept.

    Args:
        make: Makes a new dialect.
        data: What the device has sent, at least one whole frame, from the beginning of one to the end of one.
        expected: What `transcript` must return.
        checksums: Whether the frames have checksums: then nothing may be reported of one that was cut.

    Raises:
        AssertionError: The dialect is wrong; the message says where.
    """
    for size in (0, 1, 2, 7, 64):
        found = transcript(make(), data, size)
        assert found == list(expected), f"read by {size or 'all'}: {_difference(found, expected)}"
    for byte in {data[:1], b"x", b"\0", b"\xff"}:
        _check_endless(make().framing, data, byte)
    twice = transcript(make(), data * 2)
    again = twice[len(expected) :]
    assert again, "nothing is reported when the recording is read a second time"
    known = set(expected) | set(twice)
    random = Random(0)
    cuts = min(max(CUT_BYTES // len(data), CUTS_LEAST), CUTS_MOST)
    for place in sorted({random.randrange(len(data)) for _ in range(cuts)}):
        for start in (data[place:], data[:place], random.randbytes(place % 300)):
            found = transcript(make(), start + data * 2, 1 + place % 50)
            assert found[-len(again) :] == again, f"behind {start[-40:]!r}: {_difference(found[-len(again) :], again)}"
            invented = [line for line in found if line.startswith("ID:") and line not in known]
            assert not (checksums and invented), f"behind {start[-40:]!r}: {invented[0]}"


def _check_endless(new_framing: Callable[[], IFraming], data: bytes, byte: bytes) -> None:
    beginning, framing = data[: len(data) // 2], new_framing()
    frames = [*framing.feed(beginning)]
    for _ in range(ENDLESS // 100):
        frames += framing.feed(byte * 100)
        assert len(framing.rest) <= framing.limit + 1, f"{byte!r} again and again: {len(framing.rest)} bytes are kept"
    frames += new_framing().feed(beginning + byte * ENDLESS + data)
    longest = max(map(len, frames), default=0)
    assert longest <= framing.limit + 1, f"{byte!r} again and again: a frame has {longest} bytes"


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    for number, (one, other) in enumerate(zip(found, expected, strict=False)):
        if one != other:
            return f"line {number + 1} is {one!r}, not {other!r}"
    return f"{len(found)} lines, not {len(expected)}: {(found or expected)[-1] if found or expected else ''!r}"
