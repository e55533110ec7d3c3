"""
The dialect of radio sticks; what whole recordings become is in `dialects/jeelink.*`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.errors import Malformed
from usbgate.device.dialects.jeelink import Dialect
from usbgate.testing import check_dialect, report


class DialectTests(SynchronousTestCase):
    """
    Packets in.
    """

    def test_packets(self) -> None:
        """
        Anything but bytes is refused, and so is a packet that the radio has found damaged.
        """
        check_dialect(
            Dialect(),
            [
                (b"OK 3 1 (-40)", report("3", B1="1", RSSI="-40")),
                (b"[RF12demo.14]", "[RF12demo.14]"),
                (b" -> ack", "-> ack"),
            ],
            [
                *(
                    b"OK",
                    b"OK 3",
                    b"OK 3 256",
                    b"OK 256 3",
                    b"OK 3 x",
                    b"OK 3 -1",
                    b"OK WS 1 2",
                    b"OK 9 56 1 4 156",
                    b"? 3 1",
                ),
                b"OK 3" + b" 0" * 67,
            ],
        )

    def test_node_of_lacrosse(self) -> None:
        """
        With a table, number 9 is a node like others; without one, a packet that was cut makes no node 9.
        """
        dialect = Dialect({"nodes": {"9": ["A H", "- B", "B h 2.5"]}})
        self.assertEqual(dialect.decode(b"OK 9 56 1 4 156 255"), report("9", A="312", B="-250.0"))

    def test_codes(self) -> None:
        """
        Numbers have the digits that they were sent with, and none of an inexact product.
        """
        dialect = Dialect({"nodes": {"1": ["F f", "D d", "Q Q 0.001"]}})
        data = "205 204 172 65 154 153 153 153 153 153 53 64 255 255 255 255 255 255 255 255"
        self.assertEqual(
            dialect.decode(f"OK 1 {data}".encode()), report("1", F="21.6", D="21.6", Q="18446744073709551.615")
        )
        self.assertRaisesRegex(Malformed, "3 instead of 20", dialect.decode, b"OK 1 1 2 3")

    def test_options(self) -> None:
        """
        A table that can't be is refused, with what is wrong.
        """
        for nodes, error in [
            ("x", "a table such as"),
            ({"1": 5}, "a table such as"),
            ({"0": ["A h"]}, "number of a node"),
            ({"32": ["A h"]}, "number of a node"),
            ({"x": ["A h"]}, "number of a node"),
            ({"1": ["A"]}, "a name and a code"),
            ({"1": ["A s"]}, "a name and a code"),
            ({"1": ["% h"]}, "a name and a code"),
            ({"1": ["A h 1 2"]}, "a name and a code"),
            ({"1": ["A h x"]}, "a factor"),
            ({"1": []}, "1 to 66 bytes"),
            ({"1": ["A q"] * 9}, "1 to 66 bytes"),
        ]:
            self.assertRaisesRegex(ValueError, f"^nodes: expected .*{error}", Dialect, {"nodes": nodes})
        self.assertEqual(Dialect({"nodes": {"1": "A b"}}).decode(b"OK 1 255"), report("1", A="-1"))
