"""
The public doubles and builders of `usbgate.testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from tests.support import separated
from usbgate.core.batch import encode, merge
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import parse
from usbgate.core.messages import parse_request
from usbgate.core.model import Bucket, Reply, Report, Request, Selection, StoredReading, StoredRequest
from usbgate.device.dialect import DialectBase
from usbgate.device.framing import FramingBase
from usbgate.device.interfaces import Decoded, IFraming
from usbgate.store.interfaces import IJournal, IOutbox, ISink, IStore, Refusal, SinkUnavailable
from usbgate.testing import (
    AT,
    MemoryJournal,
    MemorySink,
    acknowledgement,
    check_dialect,
    check_recording,
    reading,
    readings,
    report,
    request,
    request_record,
    rows_of,
    transcript,
)


class BuilderTests(SynchronousTestCase):
    """
    What the builders make is what usbgate makes.
    """

    def test_request(self) -> None:
        """
        A request is the one that its line would make.
        """
        line = b"MSG:L_ID:9_ORIGIN:TOTO_LEVEL:50"
        self.assertEqual(request("9", "L", LEVEL="50"), parse_request(parse(line), "TOTO", "test", parsed=True))

    def test_rows(self) -> None:
        """
        The rows of a batch come back as they went in, with their numbers.
        """
        stored = [reading(-0.0), reading("é 漢"), reading(1e22, text="1e22", clock=False), reading(None, command="J")]
        records = [request_record(), request_record("timeout", device=None, arguments="A:1")]
        joined = merge([encode(3, stored, records), encode(12, readings(5, 1))])
        self.assertEqual(rows_of(joined), dict(enumerate([*stored, *records], 3)) | {12: reading(5.0, at=AT + 5)})


class OneReport(DialectBase):
    """
    A dialect that reads the same in every line.
    """

    def __init__(self, meaning: Decoded, written: bytes = b"?\n") -> None:
        super().__init__()
        self.meaning = meaning
        self.written = written

    def decode(self, frame: bytes) -> Decoded:
        """
        Read nothing of it.
        """
        return self.meaning

    def encode(self, request: Request, tag: str | None) -> bytes:
        """
        Write always the same.
        """
        return self.written


class Failing(OneReport):
    """
    A dialect that fails on bytes that are no text.
    """

    def decode(self, frame: bytes) -> Decoded:
        """
        Fail.
        """
        return frame.decode()


class Chunks(OneReport):
    """
    A dialect that takes each chunk for a frame.
    """

    def __init__(self) -> None:
        super().__init__("")

    def framing(self) -> IFraming:
        """
        Do not cut.
        """
        return Uncut(10_000)

    def decode(self, frame: bytes) -> Decoded:
        """
        Report the length.
        """
        return report(LENGTH=str(len(frame)))


class Uncut(FramingBase):
    """
    A framing whose frames are what was read.
    """

    def feed(self, data: bytes) -> Sequence[bytes]:
        """
        Take the chunk for a frame.
        """
        return [data]


class Endless(FramingBase):
    """
    A framing of lines that has no bound.
    """

    def feed(self, data: bytes) -> Sequence[bytes]:
        """
        Cut at line ends.
        """
        *frames, self.rest = (self.rest + data).split(b"\n")
        return frames


class CheckDialectTests(SynchronousTestCase):
    """
    What a dialect must not do is found.
    """

    def test_good(self) -> None:
        """
        A dialect that keeps the promises passes.
        """
        meanings: list[Decoded] = [report(VALUE="1", STATE="on"), acknowledgement(), "log text", Reply(b"!"), ()]
        meanings.append([report(), "text"])
        for meaning in meanings:
            check_dialect(OneReport(meaning), [(b"any", meaning)])

    def test_example(self) -> None:
        """
        A dialect that somebody else wrote is checked against a few lines of its device.
        """
        lines = [(b"20;VALUE;456", report()), (b"7;temp;21.5", report("7", TEMP="21.5"))]
        check_dialect(separated.Dialect(), lines, [b"20;VALUE", b"20;VALUE;456;789", b"2 0;VALUE;456"])

    def test_no_dialect(self) -> None:
        """
        What does not provide the interface is refused.
        """
        self.assertRaises(Invalid, check_dialect, object(), [])

    def test_meaning(self) -> None:
        """
        A line that becomes something else than said is found, and so is one that is not refused.
        """
        self.assertRaises(AssertionError, check_dialect, OneReport("a"), [(b"any", "b")])
        self.assertRaises(AssertionError, check_dialect, OneReport("a"), [], [b"any"])

    def test_reports(self) -> None:
        """
        A report that usbgate could not pass on is found.
        """
        for meaning in [
            report("my sensor"),
            Report("20", None, None, ()),
            Report("20", None, None, (("A", "1"),), ("whim",)),
            report(value="1"),
            report(**{"A B": "1"}),
            report(ORIGIN="me"),
            report(VALUE=""),
            report(VALUE="1\n2"),
            report(VALUE="1_STATE:on"),
        ]:
            self.assertRaises(AssertionError, check_dialect, OneReport(meaning), [])

    def test_garbage(self) -> None:
        """
        A dialect that fails on garbage, other than by `Malformed`, is found.
        """
        self.assertRaises(UnicodeDecodeError, check_dialect, Failing("a"), [])

    def test_encode(self) -> None:
        """
        A request that becomes more than one line, or one without an end, is found.
        """
        for written in (b"a\nb\n", b"a"):
            self.assertRaises(AssertionError, check_dialect, OneReport("a", written), [])

    def test_refused(self) -> None:
        """
        A line may be refused where that is said.
        """
        dialect = OneReport("a")
        dialect.decode = self.refuse  # type: ignore[method-assign]
        check_dialect(dialect, [], [b"any"])
        self.assertRaises(Malformed, check_dialect, dialect, [(b"any", "a")])

    def test_recordings(self) -> None:
        """
        A recording must become the same however it is cut; with checksums, nothing may be made of a cut frame.
        """
        data = b"20;VALUE;456\n7;TEMP;21.5\n7;TEMP;22\n"
        right = ["partial", "ID:7_TEMP:21.5", "ID:7_TEMP:22"]
        check_recording(separated.Dialect, data, right)
        self.assertRaises(AssertionError, check_recording, separated.Dialect, data, right[1:])
        self.assertRaises(AssertionError, check_recording, separated.Dialect, data, right, checksums=True)
        self.assertRaises(AssertionError, check_recording, Chunks, data, transcript(Chunks(), data))

    def test_endless(self) -> None:
        """
        A framing that keeps a frame without end, or returns it whole, is found; so is one with too high a limit.
        """
        data = b"20;VALUE;456\n7;TEMP;21.5\n"
        self.patch(separated.Dialect, "framing", lambda dialect: Endless(64))
        with self.assertRaisesRegex(AssertionError, "again and again: .* bytes are kept"):
            check_recording(separated.Dialect, data, transcript(separated.Dialect(), data))
        self.patch(separated.Dialect, "framing", lambda dialect: Endless(5000))
        with self.assertRaisesRegex(AssertionError, "a frame may have 5000 bytes"):
            check_dialect(separated.Dialect(), [])

    def test_transcript(self) -> None:
        """
        All that a frame can become is spelled.
        """
        meanings: list[tuple[Decoded, list[str]]] = [
            (report("7", "J", T="1")._replace(left_out=("empty value",)), ["ID:7_T:1_MSG:J left out: empty value"]),
            (report("7", None, "3f", TEMP="1"), ["ID:7_TEMP:1_TAG:3f"]),
            (["hi", Reply(b"\x00")], ["text: hi", "reply: b'\\x00'"]),
            ((), []),
        ]
        for meaning, lines in meanings:
            self.assertEqual(transcript(OneReport(meaning), b"x\n\ny\n"), ["partial", *lines])
        self.assertEqual(
            transcript(OneReport(()), b"x\n" + b"y" * 2000 + b"\n"), ["partial", "malformed: line too long"]
        )

    def refuse(self, frame: bytes) -> Decoded:
        """
        Refuse any line.
        """
        raise Malformed("no key")


class MemoryJournalTests(SynchronousTestCase):
    """
    A journal without a disk.
    """

    def setUp(self) -> None:
        """
        Make an empty journal.
        """
        self.journal = MemoryJournal()

    def test_interfaces(self) -> None:
        """
        It is a journal.
        """
        verifyObject(IJournal, self.journal)
        verifyObject(IOutbox, self.journal)

    def test_oldest(self) -> None:
        """
        The oldest batch is the same until it is confirmed; then the next one is, as soon as there is one.
        """
        self.journal.append(readings(0, 2), [], [request_record()])
        self.journal.append([])
        self.journal.append(readings(2, 1))
        batch = self.successResultOf(self.journal.oldest())
        self.assertIs(self.successResultOf(self.journal.oldest()), batch)
        self.assertEqual((batch.first, batch.last, self.journal.backlog), (1, 3, 4))
        self.journal.confirm(batch)
        self.journal.confirm(self.successResultOf(self.journal.oldest()))
        waiting = self.journal.oldest()
        self.assertNoResult(waiting)
        self.assertEqual((self.journal.backlog, self.journal.awaited), (0, True))
        self.journal.append(readings(3, 1))
        self.assertEqual(list(rows_of(self.successResultOf(waiting)).values()), readings(3, 1))
        self.assertEqual(self.journal.events, ["confirm 1-3", "confirm 4-4"])
        self.assertEqual((self.journal.readings, self.journal.requests), (readings(0, 4), [request_record()]))

    def test_withdrawn(self) -> None:
        """
        Who no longer waits gets nothing.
        """
        waiting = self.journal.oldest()
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
        self.assertFalse(self.journal.awaited)
        self.journal.append(readings(0, 1))
        self.assertEqual(self.journal.backlog, 1)

    def test_rejected(self) -> None:
        """
        One row at a time is rejected, and only the oldest batch can be confirmed.
        """
        self.journal.append(readings(0, 2))
        batch = self.successResultOf(self.journal.oldest())
        self.assertRaises(AssertionError, self.journal.reject, [Refusal(batch, "bad")])
        self.successResultOf(self.journal.reject([Refusal(encode(2, readings(1, 1)), "bad")]))
        self.assertEqual((self.journal.rejected, self.journal.events), (1, ["reject 2 bad"]))
        self.assertRaises(AssertionError, self.journal.confirm, encode(1, readings(0, 2)))

    def test_discarded(self) -> None:
        """
        A batch that is lost does not come.
        """
        self.journal.append(readings(0, 2))
        self.journal.append(readings(2, 1))
        self.journal.discard(0)
        self.assertEqual(self.successResultOf(self.journal.oldest()).first, 3)


class MemorySinkTests(SynchronousTestCase):
    """
    A store without a database; `tests.store.test_queries` compares its answers with those of PostgreSQL.
    """

    def setUp(self) -> None:
        """
        Make an empty store.
        """
        self.sink = MemorySink()
        self.batch = encode(1, readings(0, 2), [request_record()])
        self.rejected: list[Refusal] = []
        self.on_disk: Deferred[None] = Deferred()

    def reject(self, rows: Sequence[Refusal]) -> Deferred[None]:
        """
        Record it.
        """
        self.rejected += rows
        return self.on_disk

    def test_interfaces(self) -> None:
        """
        It is a store.
        """
        for interface in (ISink, IStore, IStore):
            verifyObject(interface, self.sink)

    def test_stores(self) -> None:
        """
        What is stored can be read; what is stored twice is read once.
        """
        self.successResultOf(self.sink.connect())
        self.successResultOf(self.sink.store(self.batch, self.reject))
        self.successResultOf(self.sink.store(self.batch, self.reject))
        self.sink.add([reading("off")])
        self.assertEqual(self.sink.numbers(), [1, 2, 3, 1, 2, 3, 4])
        self.assertEqual(self.sink.calls, ["connect", "store 1-3", "store 1-3"])
        everything = Selection("20")
        found = [*readings(0, 2), reading("off")]
        self.assertEqual(self.successResultOf(self.sink.latest()), found[-1:])
        self.assertEqual(self.successResultOf(self.sink.history(Selection("20", "VALUE", AT), 2)), found[-2:])
        self.assertEqual(self.successResultOf(self.sink.extent(everything, None)), (1, 4))
        self.assertEqual(self.successResultOf(self.sink.extent(Selection("7"), None)), None)
        self.assertEqual(
            self.successResultOf(self.sink.page(everything, 2, 4, 1)), [StoredReading(2, reading(1.0, at=AT + 1))]
        )
        self.assertEqual(
            self.successResultOf(self.sink.buckets(everything, 1000, 9)),
            [Bucket(AT // 1000 * 1000, "leonardo", "VALUE", 0.0, 0.5, 1.0, 2)],
        )
        self.assertEqual(self.successResultOf(self.sink.requests(["20"], 9)), [StoredRequest(3, request_record())])

    def test_unavailable(self) -> None:
        """
        Everything fails while it is unavailable, and nothing is stored.
        """
        self.sink.unavailable = "disk full"
        calls: list[Callable[[], object]] = [
            self.sink.connect,
            lambda: self.sink.store(self.batch, self.reject),
            self.sink.latest,
            self.sink.alarms,
            lambda: self.sink.extent(Selection("20"), 1),
            lambda: self.sink.requests(None, 1),
        ]
        for call in calls:
            error = self.failureResultOf(call(), SinkUnavailable)
            self.assertEqual(error.getErrorMessage(), "disk full")
        self.assertEqual(self.sink.numbers(), [])

    def test_refused(self) -> None:
        """
        A row that is refused is rejected, and the others are stored when that is done.
        """
        self.sink.refuses = lambda number, row: number == 2 and row == readings(1, 1)[0]
        storing = self.sink.store(self.batch, self.reject)
        self.assertEqual([(refusal.row.first, refusal.row.rows) for refusal in self.rejected], [(2, 1)])
        self.assertEqual(self.sink.numbers(), [])
        self.on_disk.callback(None)
        self.successResultOf(storing)
        self.assertEqual(self.sink.numbers(), [1, 3])

    def test_hanging(self) -> None:
        """
        A call that hangs ends when it is released, or when the store is closed.
        """
        self.sink.hanging = True
        first = self.sink.store(self.batch, self.reject)
        self.assertNoResult(first)
        self.sink.release()
        self.successResultOf(first)
        self.sink.hanging = True
        second = self.sink.store(self.batch, self.reject)
        self.successResultOf(self.sink.close())
        self.failureResultOf(second, SinkUnavailable)
        self.assertEqual(self.sink.numbers(), [1, 2, 3])
