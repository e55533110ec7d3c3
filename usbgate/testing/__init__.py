"""
In-memory doubles and builders for tests of dialects and sinks.

For a dialect: `check_dialect`, `check_recording`, `transcript`, the builders `report` and `request`, and
`RecordingListener` for a `Link` that uses it. For a sink: `MemoryJournal`, from which a `Delivery` takes what is to be
stored. `MemorySink` is an example of a sink.
"""

from usbgate.testing.builders import (
    AT,
    acknowledgement,
    reading,
    readings,
    report,
    request,
    request_record,
)
from usbgate.testing.dialects import check_dialect, check_recording, transcript
from usbgate.testing.journal import MemoryJournal
from usbgate.testing.listener import RecordingListener
from usbgate.testing.sink import MemorySink, rows_of

__all__ = [
    "AT",
    "MemoryJournal",
    "MemorySink",
    "RecordingListener",
    "acknowledgement",
    "check_dialect",
    "check_recording",
    "reading",
    "readings",
    "report",
    "request",
    "request_record",
    "rows_of",
    "transcript",
]
