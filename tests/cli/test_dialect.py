"""
`usbgate dialect try`: what each frame of a recording becomes.
"""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from usbgate.cli.main import main


def run(data: bytes, *arguments: str) -> Result:
    """
    Run it with a recording as standard input.
    """
    return CliRunner().invoke(main, ["dialect", "try", "-", *arguments], input=data)


class TryTests(SynchronousTestCase):
    """
    A recording is shown.
    """

    def test_frames(self) -> None:
        """
        Each frame is a line, in order; with what is lost, its bytes. Noise is counted near where it was, and what has
        no end.
        """
        data = b"cut=12\nT=1\n# hi\n" + b"\x00\xff" * 20 + b"\nT=2,x\nT=\xff\nid=,T=1\nT=5"
        found = run(data, "--dialect", "keyvalue", "--device", "board")
        self.assertEqual(found.exit_code, 0, found.output)
        self.assertEqual(
            found.output.splitlines(),
            [
                "partial  b'cut=12'",
                "ID:board_T:1",
                "text: hi",
                "noise: 40 bytes",
                "ID:board_T:2 left out: no key  b'T=2,x'",
                "malformed: not UTF-8  b'T=\\xff'",
                "malformed: not a sensor id: ''  b'id=,T=1'",
                "unended: 3 bytes  b'T=5'",
            ],
        )

    def test_recording(self) -> None:
        """
        Of a recording of `usbgate record`, what the device sent counts; a wrong line is named.
        """
        data = b'# usbgate recording\n0 < "\\nT="\n1 > "T=9\\n"\n2 < "2\\n"\n'
        self.assertEqual(run(data, "--dialect", "keyvalue").output, "ID:device_T:2\n")
        file = Path(self.mktemp())
        file.write_bytes(data + b"x")
        found = CliRunner().invoke(main, ["dialect", "try", str(file), "--dialect", "keyvalue"])
        self.assertEqual(found.exit_code, 1)
        self.assertIn(f"{file}: line 5: expected", found.output)

    def test_nothing_but_noise(self) -> None:
        """
        Noise is counted if no frame follows it, too.
        """
        self.assertEqual(run(b"\xb5\x62", "--dialect", "nmea").output, "noise: 2 bytes\n")

    def test_notes(self) -> None:
        """
        What a person should know of the frames follows them.
        """
        found = run(b"\na_b=1\na-b=1\n", "--dialect", "keyvalue")
        self.assertIn("\nnote: sensor device has a_b and a-b", found.output)

    def test_options(self) -> None:
        """
        An option may be a text or, as in the configuration, a list.
        """
        for option in ("columns=a b", 'columns=["a", "b"]'):
            found = run(b"1;2\n3;4\n", "--dialect", "csv", "--option", option, "--option", "separator=semicolon")
            self.assertEqual(found.output, "partial  b'1;2'\nID:device_A:3_B:4\n")

    def test_refused(self) -> None:
        """
        A wrong dialect or option is one line.
        """
        for arguments, error in [
            (["--dialect", "none"], "there is no module"),
            (["--dialect", "csv", "--option", "x=1"], "x: unknown key"),
            (["--dialect", "csv", "--option", "separator"], "expected KEY=VALUE"),
            (["--dialect", "csv", "--option", "columns=[1"], "--option columns: "),
            (["--dialect", "csv", "--option", "baud=9600"], "belongs to the device"),
        ]:
            found = run(b"", *arguments)
            self.assertEqual(found.exit_code, 64, found.output)
            self.assertIn(error, found.output)
            self.assertEqual(len(found.output.splitlines()), 1)
