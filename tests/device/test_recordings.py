"""
What dialects make of recordings of devices: `dialects/NAME.CASE.raw` has the bytes, `dialects/NAME.CASE.txt` beside it
what they must become, as `usbgate.testing.transcript` returns it.

In the second file, a line that begins with `#` is a comment: it names the source of the bytes and its licence. One that
begins with `#:` has an option of the dialect, in TOML, or `checksums = true`: nothing is reported of a frame that was
cut.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from usbgate.device.finddialect import make_dialect
from usbgate.testing import check_recording

FOLDER = Path(__file__).parent / "dialects"


class RecordingsTests(SynchronousTestCase):
    """
    Each recording is read whole, in pieces, byte by byte, and behind noise and parts of itself.
    """

    def check(self, file: Path) -> None:
        """
        Check one recording.
        """
        lines = file.read_text().splitlines()
        options = tomllib.loads("\n".join(line[2:] for line in lines if line.startswith("#:")))
        checksums = options.pop("checksums", False)
        name = file.name.partition(".")[0]
        expected = [line for line in lines if line and not line.startswith("#")]
        check_recording(
            lambda: make_dialect(name, options), file.with_suffix(".raw").read_bytes(), expected, checksums=checksums
        )

    def test_sources(self) -> None:
        """
        Each recording says where it comes from, and has the bytes beside it.
        """
        for file in FOLDER.glob("*.txt"):
            self.assertTrue(file.read_text().startswith("# "), file.name)
        self.assertEqual({file.stem for file in FOLDER.glob("*.txt")}, {file.stem for file in FOLDER.glob("*.raw")})


def _test(file: Path) -> Callable[[RecordingsTests], None]:
    def test(case: RecordingsTests) -> None:
        case.check(file)

    test.__doc__ = f"The recording {file.stem} becomes what is written beside it, however it is cut."
    return test


for _file in sorted(FOLDER.glob("*.txt")):
    setattr(RecordingsTests, "test_" + _file.stem.replace(".", "_").replace("-", "_"), _test(_file))
