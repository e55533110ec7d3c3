"""
The dialect of Modbus RTU; what whole recordings become is in `dialects/modbus.*`.
"""

from __future__ import annotations

import struct
from typing import Any

from pymodbus.framer import FramerRTU
from pymodbus.pdu import DecodePDU, ExceptionResponse
from pymodbus.pdu.bit_message import ReadDiscreteInputsRequest, ReadDiscreteInputsResponse
from pymodbus.pdu.register_message import ReadHoldingRegistersResponse, ReadInputRegistersRequest
from twisted.trial.unittest import SynchronousTestCase

from tests.support.dialects import send
from tests.support.links import LinkCase
from usbgate.core.errors import Malformed
from usbgate.core.model import Reply, Send
from usbgate.device.dialects.modbus import LIMIT, Dialect, Framing, with_crc
from usbgate.device.link import Link
from usbgate.testing import check_dialect, report, request

REQUEST = bytes.fromhex("01 03 00 5e 00 02 a5 d9")

METER = {"unit": {"1": {"VOLTAGE": "holding 0x5e float32"}}}

THREE_READS = {
    "unit": {
        "2": {"T": "input 12 int16 /10", "E": "input 13 uint32 *0.01", "FAR": "input 100", "DOOR": "discrete 7"},
        "3": {"T": "input 12", "sensor": "boiler"},
    }
}


def built(message: Any) -> bytes:
    """
    Return the frame that pymodbus builds.
    """
    frame: bytes = FramerRTU(DecodePDU(False)).buildFrame(message)
    return frame


def floats(*numbers: float) -> list[int]:
    """
    Return the registers of float32 numbers.
    """
    return list(struct.unpack(f">{2 * len(numbers)}H", struct.pack(f">{len(numbers)}f", *numbers)))


ANSWER = built(ReadHoldingRegistersResponse(dev_id=1, registers=floats(230.5)))


class LinkTests(LinkCase):
    """
    A link to a bus.
    """

    def test_own_echo(self) -> None:
        """
        On a half-duplex bus the request comes back before the answer; on another one it does not.
        """
        self.link = Link(self.clock, self.device, "bus", "/dev/bus", Dialect(METER), lambda attempt: 1.0)
        self.link.listener = self.listener
        self.open()
        for echo in (REQUEST, b""):
            self.device.transport.clear()
            self.link.send([Send(request("1"), None, 1.0)])
            self.assertEqual(self.device.transport.value(), REQUEST)
            for byte in echo + ANSWER:
                self.device.say(bytes([byte]))
        self.assertEqual(self.listener.calls, [("reports", report("1", "J", VOLTAGE="230.5"))] * 2)
        self.assertEqual((self.link.counts.echoes, self.link.counts.malformed), (1, 0))


class FramingTests(SynchronousTestCase):
    """
    Frames by function and CRC.
    """

    def test_endless(self) -> None:
        """
        What is no frame is noise, in bounded memory, and a frame behind it counts, at the latest after a silence.
        """
        framing = Framing()
        for _ in range(100):
            self.assertEqual(framing.feed(b"\x01\x03\xfa" * 340), [])
            self.assertLess(len(framing.rest), LIMIT)
        self.assertEqual([*framing.feed(ANSWER), *framing.end()], [ANSWER])
        self.assertEqual((framing.take_noise()[0], framing.rest), (102_000, b""))

    def test_writes(self) -> None:
        """
        What another master writes is whole frames, and no noise.
        """
        write = with_crc(b"\x02\x10\x00\x01\x00\x02\x04\x00\x05\x00\x06")
        written = with_crc(b"\x02\x10\x00\x01\x00\x02")
        framing, dialect = Framing(), Dialect()
        frames = [frame for byte in write + written for frame in framing.feed(bytes([byte]))]
        self.assertEqual((frames, framing.noise), ([write, written], 0))
        self.assertEqual([dialect.decode(frame) for frame in frames], [(), ()])

    def test_function_of_three_bytes(self) -> None:
        """
        A response as long as a request is one if it is the answer to what was read; a request that begins as that
        answer is none.
        """
        master = Dialect(METER)
        send(master, request("1"))
        self.assertEqual(master.decode(with_crc(bytes.fromhex("01 03 04 43 66 80"))), ())
        dialect = Dialect({"unit": {"2": {f"D{at}": f"discrete {at}" for at in range(768, 788)}}})
        message = send(dialect, request("2"))
        answer = built(ReadDiscreteInputsResponse(dev_id=2, bits=[True] * 24))
        self.assertEqual(len(answer), len(message))
        self.assertEqual(dialect.decode(message), ())
        self.assertEqual(dialect.decode(answer), [report("2", "J", **{f"D{at}": "1" for at in range(768, 788)})])


class DialectTests(SynchronousTestCase):
    """
    Questions out, answers in.
    """

    def test_frames(self) -> None:
        """
        A response counts only behind its request.
        """
        check_dialect(
            Dialect(METER),
            [(REQUEST, ()), (ANSWER, [report("1", VOLTAGE="230.5")])],
            [ANSWER, ANSWER[:-1], REQUEST + b"\x00", with_crc(b"\x01\x63\x00\x00\x00\x02")],
        )

    def test_reads(self) -> None:
        """
        What is asked takes as few messages as neighbours allow; an exception costs what it is about.
        """
        for is_refused in (False, True):
            dialect = Dialect(THREE_READS)
            first = send(dialect, request("2"))
            self.assertEqual(first, built(ReadDiscreteInputsRequest(2, 0, 7, 1)))
            (second,) = dialect.decode(built(ReadDiscreteInputsResponse(dev_id=2, bits=[True])))
            self.assertEqual(second, Reply(built(ReadInputRegistersRequest(dev_id=2, address=12, count=3))))
            for other in (b"\x03\x04\x06\xff\xf3\x00\x01\x86\xa0", b"\x02\x04\x02\x00\x07"):
                self.assertRaises(Malformed, dialect.decode, with_crc(other))
            response = with_crc(b"\x02\x04\x06\xff\xf3\x00\x01\x86\xa0")
            if is_refused:
                refused = ExceptionResponse(4, 2)
                refused.dev_id = 2
                response = built(refused)
            *texts, third = dialect.decode(response)
            self.assertEqual(texts, ["unit 2 cannot be read from 12: illegal data address"] * is_refused)
            self.assertEqual(third, Reply(built(ReadInputRegistersRequest(dev_id=2, address=100, count=1))))
            values = {"DOOR": "1"} | ({} if is_refused else {"T": "-1.3", "E": "1000.00"}) | {"FAR": "7"}
            answer = with_crc(b"\x02\x04\x02\x00\x07")
            self.assertEqual(dialect.decode(answer), [report("2", "J", **values)])
            self.assertRaises(Malformed, dialect.decode, answer)

    def test_asked_again(self) -> None:
        """
        A question that is asked again begins anew; another opening forgets it.
        """
        dialect = Dialect(THREE_READS)
        first = send(dialect, request("2"))
        dialect.decode(built(ReadDiscreteInputsResponse(dev_id=2, bits=[True])))
        self.assertEqual(send(dialect, request("2")), first)
        self.assertEqual(send(dialect, request("boiler", "GO")), built(ReadInputRegistersRequest(3, 0, 12, 1)))
        self.assertEqual(dialect.decode(with_crc(b"\x03\x04\x02\x00\x07")), [report("boiler", "GO", T="7")])
        send(dialect, request("boiler"))
        dialect.opened()
        self.assertRaises(Malformed, dialect.decode, with_crc(b"\x03\x04\x02\x00\x07"))
        for wrong in (request("3"), request("4"), request("boiler", "L", LEVEL="1")):
            self.assertRaises(Malformed, dialect.encode, wrong, None)

    def test_another_master(self) -> None:
        """
        What another master reads is reported, and answers nobody.
        """
        dialect = Dialect(THREE_READS)
        send(dialect, request("2"))
        self.assertEqual(dialect.decode(built(ReadInputRegistersRequest(3, 0, 12, 1))), ())
        self.assertEqual(dialect.decode(with_crc(b"\x03\x04\x02\x00\x07")), [report("boiler", T="7")])

    def test_long(self) -> None:
        """
        No message asks for more registers than a response can hold.
        """
        dialect = Dialect({"unit": {"1": {f"R{at}": f"holding {at}" for at in range(130)}}})
        self.assertEqual(send(dialect, request("1"))[2:6], b"\x00\x00\x00\x7d")
        (reply,) = dialect.decode(built(ReadHoldingRegistersResponse(dev_id=1, registers=[1] * 125)))
        self.assertEqual(reply, Reply(with_crc(b"\x01\x03\x00\x7d\x00\x05")))

    def test_options(self) -> None:
        """
        A wrong option is refused by its name.
        """
        wrong: list[object] = [
            "1",
            {"1": "holding 1"},
            {"300": {}},
            {"a": {}},
            {"1": {"T": 7}},
            {"1": {"T": "holding"}},
            {"1": {"T": "holding 1 int8"}},
            {"1": {"T": "holding 65535 int32"}},
            {"1": {"T": "holding 1 /0"}},
            {"1": {"T": "coil 1 int16"}},
            {"1": {"T": "holding 1", "t": "holding 2"}},
            {"1": {"sensor": "a b"}},
            {"1": {}, "2": {"sensor": "1"}},
        ]
        for unit in wrong:
            with self.assertRaisesRegex(ValueError, "^unit: "):
                Dialect({"unit": unit})
        with self.assertRaisesRegex(ValueError, "^units: "):
            Dialect({"units": {}})
