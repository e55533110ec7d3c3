"""
The dialect of RFLink; what whole recordings become is in `dialects/rflink.*`.
"""

from __future__ import annotations

from pathlib import Path

from rflink.parser import decode_packet, encode_packet
from twisted.trial.unittest import SynchronousTestCase

from tests.support.dialects import send
from tests.support.links import LinkCase
from usbgate.core.errors import Malformed
from usbgate.core.model import Report, Send
from usbgate.device.dialects.rflink import Dialect
from usbgate.device.link import Link
from usbgate.testing import acknowledgement, check_dialect, report, request

RECORDINGS = Path(__file__).parent / "dialects"

LAMP = "NewKaku.0cac142.3"


class LinkTests(LinkCase):
    """
    A link to a gateway.
    """

    def test_banner(self) -> None:
        """
        A banner that is cut and begins again is text, and what follows counts.
        """
        self.link = Link(self.clock, self.device, "board", "/dev/board", Dialect(), lambda attempt: 1.0)
        self.link.listener = self.listener
        self.open()
        self.device.say(b"20;00;Nodo Radio20;00;Nodo RadioFrequency\r\n")
        self.device.say(b"yLink - RFLink Gateway V1.1 - R47;\r\n20;6B;DKW2012;ID=0004;TEMP=800d;HUM=99;WINSP=0000;\r\n")
        self.assertEqual(self.listener.calls, [("reports", report("DKW2012.0004", TEMP="-1.3", HUM="99", WINSP="0.0"))])
        self.link.send([Send(request(LAMP, "ON"), None, 5.0)])
        self.assertEqual(self.device.transport.value(), b"10;NewKaku;0cac142;3;ON;\r\n")
        self.device.say(b"20;6C;OK;\r\n")
        self.assertEqual(self.listener.calls[1:], [("reports", acknowledgement(LAMP, "ON"))])


class DialectTests(SynchronousTestCase):
    """
    Packets in, and commands out.
    """

    def test_packets(self) -> None:
        """
        An odd value costs its field, and a packet that is not whole is none.
        """
        damaged = report("Revolt.3b5c", WATT="254")._replace(left_out=("not a value",))
        check_dialect(
            Dialect(),
            [(b"20;11;Revolt;ID=3b5c;WATT=00fe;METER=7ef36;", damaged), (b"20;01;PONG;", "20;01;PONG;")],
            [b"20;11;Revolt;ID=3b5c;WATT=00", b"20;11;Revolt;ID=3b5c;WATT=0020;12;Revolt;ID=3b5c;WATT=00fe;"],
        )

    def test_oracle(self) -> None:
        """
        rflink reads the same numbers.
        """
        names = {"TEMP": "temperature", "HUM": "humidity", "WINSP": "windspeed", "WINGS": "windgusts"}
        names |= {"WINDIR": "winddirection", "WINTMP": "windtemp", "WINCHL": "windchill", "RAIN": "total_rain"}
        names |= {"BARO": "barometric_pressure", "CHIME": "doorbell_melody", "UV": "uv_intensity"}
        compared = set()
        for line in (RECORDINGS / "rflink.samples.raw").read_text().splitlines():
            found = Dialect().decode(line.encode())
            if isinstance(found, Report) and not found.left_out:
                theirs = decode_packet(line)
                for name, value in found.values:
                    if name in names:
                        self.assertEqual(float(value), theirs[names[name]], line)
                        compared.add(name)
        self.assertEqual(compared, {*names})

    def test_commands(self) -> None:
        """
        RFLink's commands are written, to protocols as RFLink spells them, with ids of their full length.
        """
        dialect = Dialect({"commands": "DISCO"})
        dialect.decode(b"20;01;Ikea Koppla;ID=000080;SWITCH=0;CMD=ON;")
        theirs = encode_packet({"protocol": "Kaku", "id": "000041", "switch": "1", "command": "ON"})
        for asked, message in [
            (request("Kaku.41.1", "on"), theirs.encode() + b"\r\n"),
            (request("MERTIK.64", "UP"), b"10;MERTIK;64;UP;\r\n"),
            (request("Ikea-Koppla.000080.0", "DISCO"), b"10;Ikea Koppla;000080;0;DISCO;\r\n"),
            (request(LAMP, "L", LEVEL="15"), b"10;NewKaku;0cac142;3;15;\r\n"),
            (request(LAMP, "J"), b""),
        ]:
            self.assertEqual(dialect.encode(asked, None), message)
        for wrong in (
            request("lamp", "ON"),
            request("NewKaku.a;b.3", "ON"),
            request(LAMP, "ON", LEVEL="3"),
            request(LAMP, "L", LEVEL="16"),
            request(LAMP, "L", SPEED="1"),
        ):
            self.assertRaises(Malformed, dialect.encode, wrong, None)

    def test_answers(self) -> None:
        """
        `OK` answers the message that was written last, once; where none was written, the sensor's next packet does.
        """
        dialect = Dialect()
        other, packet = b"20;07;NewKaku;ID=0cac142;SWITCH=4;CMD=ON;", b"20;08;NewKaku;ID=0cac142;SWITCH=3;CMD=ON;"
        self.assertEqual(dialect.decode(b"20;06;OK;"), ())
        send(dialect, request(LAMP, "on"))
        self.assertEqual(dialect.decode(packet), report(LAMP, CMD="ON"))
        self.assertEqual(dialect.decode(b"20;06;OK;"), (acknowledgement(LAMP, "on"),))
        self.assertEqual(dialect.decode(b"20;06;OK;"), ())
        send(dialect, request(LAMP, "J"))
        self.assertEqual(dialect.decode(b"20;06;OK;"), ())
        self.assertEqual(dialect.decode(other), report("NewKaku.0cac142.4", CMD="ON"))
        self.assertEqual(dialect.decode(packet), report(LAMP, "J", CMD="ON"))
        self.assertEqual(dialect.decode(packet), report(LAMP, CMD="ON"))
        send(dialect, request(LAMP, "on"))
        dialect.opened()
        self.assertEqual(dialect.decode(b"20;06;OK;"), ())

    def test_options(self) -> None:
        """
        A wrong option is refused by its name.
        """
        wrong: dict[str, object] = {"commands": [1], "version": 48}
        for key, value in wrong.items():
            with self.assertRaisesRegex(ValueError, f"^{key}: "):
                Dialect({key: value})
