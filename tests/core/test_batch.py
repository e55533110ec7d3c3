"""
Batches: rows as columns of text.
"""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.batch import (
    KINDS,
    NULL_CELL,
    OVERHEAD,
    PIECE_ROWS,
    Batch,
    Draft,
    columns_of,
    encode,
    halve,
    link,
    merge,
    without,
)
from usbgate.core.model import Reading, RequestRecord

READINGS = [Reading(1000 + n, "leonardo", "20", "VALUE", float(n), None, None, True) for n in range(5)]
REQUESTS = [RequestRecord(2000, "TOTO", "10.0.0.7:1", None, "20", "J", None, "timeout", 10000.125, True)] * 2


class BatchTests(SynchronousTestCase):
    """
    Encoding, serializing, merging, halving.
    """

    def test_columns(self) -> None:
        """
        Every column has its cells in order, readings are numbered first, and None is `NULL_CELL`.
        """
        batch = encode(7, READINGS[:2], REQUESTS[:1])
        self.assertEqual((batch.first, batch.last, batch.rows), (7, 9, 3))
        readings = dict(zip(columns_of(Reading), batch.of(Reading), strict=True))
        self.assertEqual(readings["n"], "7\n8")
        self.assertEqual(readings["value"], "0.0\n1.0")
        self.assertEqual(readings["text"], f"{NULL_CELL}\n{NULL_CELL}")
        requests = dict(zip(columns_of(RequestRecord), batch.of(RequestRecord), strict=True))
        self.assertEqual(requests["n"], "9")
        self.assertEqual(requests["device"], NULL_CELL)
        self.assertEqual(requests["latency_ms"], "10000.125")

    def test_line_end_in_a_cell(self) -> None:
        """
        A text with a line end, which a third-party dialect may let through, shifts no other row.
        """
        rows = [READINGS[0]._replace(value=None, text=text) for text in ("first\nline", "of b", "of c")]
        texts = dict(zip(columns_of(Reading), encode(1, rows).of(Reading), strict=True))["text"]
        self.assertEqual(texts.split("\n"), ["first line", "of b", "of c"])

    def test_packed(self) -> None:
        """
        Serializing and deserializing returns the same batch.
        """
        for batch in [encode(1, READINGS, REQUESTS), encode(1, READINGS, []), encode(1, [], REQUESTS)]:
            self.assertEqual(Batch.from_bytes(batch.to_bytes()), batch)

    def test_not_packed(self) -> None:
        """
        Invalid bytes fail with `MsgspecError`.
        """
        for odd in (b"", b"\xc1", msgspec.msgpack.encode((1, 2)), msgspec.msgpack.encode((1, 2, "3"))):
            with self.assertRaises(msgspec.MsgspecError):
                Batch.from_bytes(odd)

    def test_numbered_by_kind(self) -> None:
        """
        Rows are numbered in the order of `KINDS`, whatever the order of the arguments.
        """
        batch = encode(1, REQUESTS, [], READINGS)
        self.assertEqual(batch, encode(1, READINGS, REQUESTS))
        numbers = [n for part in batch.parts for n in (part[0].split("\n") if part else [])]
        self.assertEqual(numbers, [str(n) for n in range(1, 8)])
        self.assertEqual(len(batch.parts), len(KINDS))

    def test_draft(self) -> None:
        """
        However rows are added to a draft, its batch is the same.
        """
        readings = [READINGS[0]._replace(at=n // 7, value=float(n)) for n in range(5 * PIECE_ROWS)]
        requests = [REQUESTS[0]._replace(sensor=str(n)) for n in range(PIECE_ROWS + 30)]
        whole = encode(7, readings, requests)
        for size in (1, 50, PIECE_ROWS, 2 * PIECE_ROWS + 1):
            draft = Draft()
            for n in range(0, len(readings), size):
                draft.add(requests[n : n + size])
                draft.add(readings[n : n + size])
            self.assertEqual(draft.rows, whole.rows)
            self.assertEqual(draft.finish(7), whole)

    def test_encoded_in_pieces(self) -> None:
        """
        Rows are encoded when there are enough for a piece, so that little is left to do at the end.
        """
        encoded: list[str] = []

        class Text(str):
            def __str__(self) -> str:
                encoded.append(self)
                return self

        draft = Draft()
        for n in range(PIECE_ROWS + 10):
            draft.add([READINGS[0]._replace(value=None, text=Text(n))])
        self.assertEqual(len(encoded), PIECE_ROWS)
        draft.finish(1)
        self.assertEqual(len(encoded), PIECE_ROWS + 10)

    def test_drop_oldest(self) -> None:
        """
        The oldest rows of the kind with the most can be dropped; all others are kept.
        """
        draft = Draft()
        for n in range(0, 4 * PIECE_ROWS):
            draft.add([READINGS[0]._replace(value=float(n))])
        draft.add(REQUESTS)
        self.assertEqual(draft.drop_oldest(), PIECE_ROWS)
        batch = draft.finish(1)
        self.assertEqual(
            batch,
            encode(1, [READINGS[0]._replace(value=float(n)) for n in range(PIECE_ROWS, 4 * PIECE_ROWS)], REQUESTS),
        )
        draft = Draft()
        draft.add(READINGS)
        self.assertEqual((draft.drop_oldest(), draft.rows), (len(READINGS), 0))

    def test_merge(self) -> None:
        """
        A merged batch has all rows under their own numbers, in order.
        """
        merged = merge([encode(1, READINGS[:2], REQUESTS), encode(10, [], REQUESTS), encode(20, READINGS[2:], [])])
        self.assertEqual((merged.first, merged.last, merged.rows), (1, 22, 9))
        self.assertEqual(merged.of(Reading)[0], "1\n2\n20\n21\n22")
        self.assertEqual(merged.of(RequestRecord)[0], "3\n4\n10\n11")
        self.assertEqual(merged.of(Reading)[5], "0.0\n1.0\n2.0\n3.0\n4.0")

    def test_link(self) -> None:
        """
        The chain depends on all rows so far and on nothing else; a merged batch has that of its last part.
        """
        batches = [encode(1, READINGS), encode(6, READINGS), encode(11, [], REQUESTS)]
        linked = link(batches, "")
        self.assertEqual([Batch.from_bytes(packed) for _, packed in linked], batches)
        chains = [batch.chain for batch, _ in linked]
        self.assertEqual(len(set(chains)), 3)
        self.assertEqual([batch.chain for batch, _ in link(batches[1:], chains[0])], chains[1:])
        self.assertEqual(linked[1][0].mark, (10, chains[1]))
        self.assertEqual(merge([batch for batch, _ in linked]).mark, (12, chains[2]))
        other = [encode(1, [READINGS[0]._replace(value=9.0), *READINGS[1:]]), *batches[1:]]
        self.assertFalse({batch.chain for batch, _ in link(other, "")} & set(chains))

    def test_without(self) -> None:
        """
        Rows are left out by number, of any kind, and perhaps all; the rest keeps its numbers, the batch its mark.
        """
        whole = encode(1, READINGS, REQUESTS)._replace(chain="c")
        rest = without(whole, {1, 2, 4, 6})
        self.assertEqual((rest.of(Reading)[0], rest.of(RequestRecord)[0]), ("3\n5", "7"))
        self.assertEqual((rest.first, rest.rows, rest.mark), (3, 3, (7, "c")))
        self.assertEqual(rest.of(Reading)[5], "2.0\n4.0")
        self.assertEqual(without(whole, {6, 7}).of(RequestRecord), ())
        self.assertEqual(without(whole, ()), whole)
        nothing = without(whole, range(1, 8))
        self.assertEqual((nothing.rows, nothing.parts, nothing.mark), (0, ((),) * len(KINDS), (7, "c")))

    def test_memory(self) -> None:
        """
        A batch's memory is that of its characters and of itself, however it was made.
        """
        whole = encode(1, READINGS, REQUESTS)
        characters = sum(len(column) for part in whole.parts for column in part)
        self.assertEqual(whole.memory, OVERHEAD + characters)
        self.assertEqual(Batch.from_bytes(whole.to_bytes()).memory, whole.memory)
        self.assertEqual(sum(half.memory for half in halve(whole)), whole.memory + OVERHEAD)
        self.assertEqual(merge(halve(whole)), whole)

    def test_halve(self) -> None:
        """
        Repeated halving ends in single rows, each once, under its own number.
        """
        waiting, single = [merge([encode(1, READINGS, REQUESTS), encode(30, READINGS, [])])], []
        while waiting:
            batch = waiting.pop()
            if batch.rows == 1:
                single.append(batch)
            else:
                waiting.extend(halve(batch))
        self.assertEqual(sorted(batch.first for batch in single), [1, 2, 3, 4, 5, 6, 7, 30, 31, 32, 33, 34])
        self.assertTrue(all(batch.first == batch.last for batch in single))
