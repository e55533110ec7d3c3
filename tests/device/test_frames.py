"""
What a dialect can do beyond one report a line: framing of its own, several results of a frame, replies, an opening.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.logger import capturedLogs

from tests.support.links import REPORT, LinkCase, texts
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import NO_VALUE, WRONG_CHECKSUM
from usbgate.core.model import BoardKind, Reply, Request, Send
from usbgate.core.pending import SETTLE
from usbgate.device.dialect import DialectBase
from usbgate.device.framing import FramingBase, LineFraming, SilenceFraming
from usbgate.device.interfaces import Decoded, IFraming
from usbgate.device.link import REPLY_LIMIT, Link
from usbgate.testing import report, request

GAP = 0.25
OTHER = report("21", TEMP="3")


class Brackets(FramingBase):
    """
    Frames between `<` and `>`; what stands between two is noise.
    """

    def feed(self, data: bytes) -> Sequence[bytes]:
        """
        Cut at brackets.
        """
        *frames, self.rest = (self.rest + data).split(b">")
        self.noise += sum(frame.find(b"<") for frame in frames)
        return [frame.partition(b"<")[2] for frame in frames]

    def is_partial(self, frame: bytes) -> bool:
        """
        Let no frame begin with a digit.
        """
        return frame[:1].isdigit()


class Tails(SilenceFraming):
    """
    Frames of which the first is always partial.
    """

    def is_partial(self, frame: bytes) -> bool:
        """
        Take none for whole.
        """
        return True


class Wide(DialectBase):
    """
    A dialect that does all that a dialect may.
    """

    def __init__(self, framing: IFraming) -> None:
        super().__init__()
        self.framing_now = framing
        self.greeting = b""
        self.meanings: dict[bytes, Decoded] = {
            b"report": REPORT,
            b"several": [REPORT, "text", Reply(b"now!\r\n"), OTHER],
            b"none": (),
            b"time?": Reply(b"12:00\n"),
        }

    def framing(self) -> IFraming:
        """
        Return always the same.
        """
        return self.framing_now

    def opened(self) -> bytes:
        """
        Greet.
        """
        return self.greeting

    def decode(self, frame: bytes) -> Decoded:
        """
        Look the frame up.
        """
        try:
            return self.meanings[frame]
        except KeyError:
            raise Malformed("unknown word") from None


class FramesTests(LinkCase):
    """
    A link with such a dialect.
    """

    def connect(self, framing: IFraming, **others: Any) -> Wide:
        """
        Open a link with a dialect.
        """
        dialect = Wide(framing)
        self.link = Link(self.clock, self.device, "board", "/dev/board", dialect, lambda attempt: 1.0, **others)
        self.link.listener = self.listener
        return dialect

    def test_several(self) -> None:
        """
        A frame may become several things, or nothing yet; replies are written at once, reports delivered together.
        """
        self.connect(LineFraming((b"",)))
        self.open()
        self.device.say(b"none\nseveral\nreport\n")
        self.assertEqual(self.listener.calls, [("reports", REPORT, OTHER, REPORT)])
        self.assertEqual(self.device.transport.value(), b"now!\r\n")
        self.device.say(b"time?\n")
        self.assertEqual(self.device.transport.value(), b"now!\r\n12:00\n")
        counts = self.link.counts
        self.assertEqual((counts.lines_in, counts.lines_out, counts.malformed), (4, 2, 0))
        self.device.say(b"12:00\r\nnow!\r\n")
        self.assertEqual(counts.echoes, 2)

    def test_several_of_a_frame(self) -> None:
        """
        What is left out of each report of a frame is counted; a repeat of the frame is recognized.
        """
        dialect = self.connect(LineFraming((b"",)), repeats=1.0)
        meaning = [REPORT._replace(left_out=(NO_VALUE,)), OTHER._replace(left_out=(WRONG_CHECKSUM,))]
        dialect.meanings[b"damaged"] = meaning
        self.open()
        self.device.say(b"damaged\ndamaged\n")
        counts = self.link.counts
        self.assertEqual((counts.fields_no_value, counts.fields_checksum, counts.repeats), (1, 1, 1))
        listed = [("malformed", b"damaged", f"field left out, {reason}") for reason in (NO_VALUE, WRONG_CHECKSUM)]
        self.assertEqual(self.listener.calls[:2], listed)

    def test_reply_to_who_does_not_read(self) -> None:
        """
        A device that asks and does not read gets no more replies than fit into some kB.
        """
        dialect = self.connect(LineFraming((b"",)))
        dialect.meanings[b"?"] = Reply(b"x" * 100)
        self.open()
        for _ in range(100):
            self.device.say(b"?\n" * 10)
        while (producer := self.device.transport.producer) is not None:
            producer.resumeProducing()
        self.assertLess(len(self.device.transport.value()), REPLY_LIMIT + 200)

    def test_framing(self) -> None:
        """
        The dialect cuts frames: whatever the chunks, what is between them is noise, the first one may be partial, and
        none of it is taken for a line without an end.
        """
        said = b"<7port>..<report>\n<report><nonsense>  <report"
        for size in (1, 3, len(said)):
            self.setUp()
            self.connect(Brackets(64))
            self.open()
            for start in range(0, len(said), size):
                self.device.say(said[start : start + size])
            self.clock.advance(100.0)
            reports = [each for call in self.listener.calls if call[0] == "reports" for each in call[1:]]
            self.assertEqual(reports, [REPORT, REPORT])
            self.assertIn(("malformed", b"nonsense", "unknown word"), self.listener.calls)
            counts = self.link.counts
            self.assertEqual((counts.lines_in, counts.malformed, counts.noise_bytes), (4, 1, 3))
            self.device.say(b">")
            self.assertEqual(self.listener.calls[-1], ("reports", REPORT))

    def test_silence(self) -> None:
        """
        Silence ends a frame whose framing says so; one without end is dropped, and memory does not grow.
        """
        self.connect(SilenceFraming(GAP, 400))
        self.open()
        for data, calls in [
            (b"report", [("reports", REPORT)]),
            (b"x" * 5000, [("malformed", b"x" * 401, "frame too long")]),
            (b"report", [("reports", REPORT)]),
            (b"\xff" * 300, [("malformed", b"\xff" * 300, "unknown word")]),
        ]:
            self.listener.calls.clear()
            for start in range(0, len(data), 5):
                self.device.say(data[start : start + 5])
                self.clock.advance(GAP / 2)
            self.clock.advance(GAP)
            self.clock.advance(0.1)
            self.assertEqual(self.listener.calls, calls)

    def test_no_lines(self) -> None:
        """
        Frames that are no lines need no line end, and may be no text: of neither is anything said in the log.
        """
        for data in (b"x" * 250, b"x" * 1000, b"\xff" * 300):
            for framing in (SilenceFraming(GAP, 400), Tails(GAP, 400), Brackets(4096)):
                self.setUp()
                self.connect(framing)
                self.open()
                with capturedLogs() as logs:
                    self.device.say(data)
                    self.assertEqual(texts(logs), [])
                    self.clock.advance(100.0)
                self.assertNotIn("line end", "".join(texts(logs)))

    def test_configured_gap(self) -> None:
        """
        The configured gap goes before that of the framing.
        """
        self.connect(SilenceFraming(GAP, 16), gap=2 * GAP)
        self.open()
        self.device.say(b"report")
        self.clock.advance(1.5 * GAP)
        self.assertEqual(self.listener.calls, [])
        self.clock.advance(GAP)
        self.clock.advance(0.1)
        self.assertEqual(self.listener.calls, [("reports", REPORT)])

    def test_push_only(self) -> None:
        """
        A message of no bytes is not written and not counted.
        """
        self.connect(LineFraming((b"",)))
        self.open()
        self.assertTrue(self.link.send([Send(request(), None, 5.0)]))
        self.assertEqual((self.device.transport.value(), self.link.counts.lines_out), (b"", 0))
        self.assertEqual(self.listener.calls, [("unwritten", request())])
        self.assertEqual(self.link.size(request(), None), 0)

    def test_refused_request(self) -> None:
        """
        A request that the device can't be sent is refused at once, and costs no other request.
        """
        dialect = self.connect(LineFraming((b"",)))

        def encode(asked: Request, tag: str | None) -> bytes:
            if asked.question.arguments:
                raise Malformed("the device only sends")
            return b"go\r\n"

        self.patch(dialect, "encode", encode)
        self.open()
        asked = request("9", "L", LEVEL="50")
        self.link.send([Send(asked, None, 5.0), Send(request(), None, 5.0)])
        self.assertEqual((self.device.transport.value(), self.link.counts.lines_out), (b"go\r\n", 1))
        self.assertEqual(self.listener.calls, [("refused", asked, "malformed", "the device only sends")])

    def test_failing_dialect(self) -> None:
        """
        A dialect that raises something else costs its request only, and that is logged once.
        """
        for method in ("encode", "sent"):
            self.setUp()
            dialect = self.connect(LineFraming((b"",)))
            self.patch(dialect, method, lambda *arguments: 1 / 0)
            self.open()
            self.link.send([Send(request(), None, 5.0), Send(request("21"), None, 5.0)])
            self.assertEqual([call[2] for call in self.listener.calls], ["failed"] * 2, method)
            self.assertEqual(self.device.transport.value(), b"")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failing_to_greet(self) -> None:
        """
        A dialect that raises at an opening costs nothing else: the device is read and written to.
        """
        dialect = self.connect(LineFraming((b"",)))
        self.patch(dialect, "opened", lambda: 1 / 0)
        self.link.startService()
        self.addCleanup(self.close)
        self.device.vanish()
        self.clock.advance(1.0)
        self.device.say(b"report\n")
        self.assertEqual([call[0] for call in self.listener.calls], ["up", "down", "up", "reports"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failing_to_decode(self) -> None:
        """
        A frame for which a dialect raises something else is malformed, and costs neither the others nor the opening;
        the exception is logged once.
        """
        dialect = self.connect(LineFraming((b"",)))
        self.patch(dialect, "decode", lambda frame: report(VALUE=str(100 // int(frame))))
        self.open()
        for _ in range(2):
            self.listener.calls.clear()
            self.device.say(b"0\n50\n")
            self.assertEqual(
                self.listener.calls,
                [("malformed", b"0", "the dialect failed"), ("reports", report(VALUE="2"))],
            )
        self.assertEqual(self.link.counts.malformed, 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_opened(self) -> None:
        """
        What a dialect has to say at an opening is written at once, or where opening resets the board, when it has
        started: with its first frame, or after some seconds; at each opening, and not to a device that is gone.
        """
        for resets, steps in [(False, []), (True, [(b"report\n", 0.0)]), (True, [(b"nonsense\n", SETTLE)])]:
            self.setUp()
            dialect = self.connect(LineFraming((b"",)), describe=lambda path, resets=resets: BoardKind(resets))
            dialect.greeting = b"hello\r\n"
            self.open()
            for _ in range(2):
                for said, wait in steps:
                    self.assertEqual(self.device.transport.value(), b"")
                    self.device.say(said)
                    self.clock.advance(wait)
                self.clock.advance(0)
                self.assertEqual(self.device.transport.value(), b"hello\r\n")
                self.device.say(b"hello\n")
                self.assertNotIn(("malformed", b"hello", "unknown word"), self.listener.calls)
                self.device.vanish()
                self.clock.advance(1.0)
            self.device.vanish()
            self.clock.advance(0.5)
