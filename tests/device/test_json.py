"""
The dialect of JSON; what whole recordings become is in `dialects/json.*`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.errors import Malformed
from usbgate.device.dialects.json import DEPTH, LIMIT, NAME_LIMIT, Dialect
from usbgate.testing import acknowledgement, check_dialect, report, request


class DialectTests(SynchronousTestCase):
    """
    Objects in, and commands out.
    """

    def test_sensor(self) -> None:
        """
        The sensor is made of the values that the option `id` names, as far as an object has them; a number and its
        text are the same sensor.
        """
        dialect = Dialect({"id": ["model", "id"], "sensor": "base"})
        check_dialect(
            dialect,
            [
                (b'{"model":"A_1 x","id":7,"t":1}', [report("A-1-x-7", T="1")]),
                (b'{"t":1,"id":"7"}', [report("7", T="1")]),
                (b'{"t":1}', [report("base", T="1")]),
            ],
            [b'{"id":"","t":1}', b'{"id":null}', b'{"id":7}', b'{"id":7,"t":1,"ID":8}'],
        )

    def test_depth(self) -> None:
        """
        Objects may be nested, and names be long, within bounds; no frame costs more than a message.
        """
        for depth in (DEPTH, DEPTH + 1):
            frame = b'{"a":' * depth + b"1" + b"}" * depth
            if depth <= DEPTH:
                self.assertEqual(Dialect().decode(frame), [report("device", **{".".join("A" * depth): "1"})])
            else:
                self.assertRaises(Malformed, Dialect().decode, frame)
        found = Dialect().decode(b'{"t":1,"%b":[1,2]}' % (b"a" * NAME_LIMIT))
        self.assertEqual(found, [report("device", T="1")._replace(left_out=("no key",) * 2)])
        for frame in (b"[" * LIMIT, b'{"a":' * (LIMIT // 5), b'{"a":"' + b"\\" * (LIMIT - 6)):
            self.assertRaises(Malformed, Dialect().decode, frame)

    def test_commands(self) -> None:
        """
        With the option `command`, a board is written objects, and an object with the command answers; without it, the
        board can be asked, and told nothing.
        """
        asked = request("20", "ON", LEVEL="64", ORIGIN="me")
        board = Dialect({"command": "cmd", "id": "node"})
        self.assertEqual(board.encode(asked, None), b'{"cmd":"ON","node":"20","level":"64"}\n')
        self.assertEqual(board.decode(b'{"node":20,"cmd":"ON","level":64}'), [report("20", "ON", LEVEL="64")])
        self.assertEqual(board.decode(b'{"node":20,"cmd":"ON"}'), [acknowledgement("20", "ON")])
        for command in (b"", b" ON", b"ON\\nID:9_T:1", b"ON_T:1", b"\\ud800"):
            self.assertRaises(Malformed, board.decode, b'{"node":20,"cmd":"%b"}' % command)
        self.assertEqual(Dialect().encode(request("20", "J"), None), b"")
        self.assertRaises(Malformed, Dialect().encode, asked, None)

    def test_options(self) -> None:
        """
        A wrong option is refused by its name.
        """
        wrong: dict[str, object] = {"sensor": "a b", "id": 7, "without": True, "command": 1, "ids": "id"}
        for key, value in wrong.items():
            with self.assertRaisesRegex(ValueError, f"^{key}: "):
                Dialect({key: value})
