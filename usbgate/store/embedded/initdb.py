"""
Creation of the data folder.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from twisted.logger import Logger

from usbgate.store.embedded.postmaster import ServerFailed, opened_folder
from usbgate.store.embedded.process import ProgramFailed, Programs

_PREFIX = "initdb-"

log = Logger()


async def create_data_folder(data: Path, binaries: Path, user: str, programs: Programs) -> None:
    """
    Create a data folder under a temporary name, and rename it when it is complete and on disk.

    Args:
        data: The data folder; an existing one is kept.
        binaries: The folder of `initdb`.
        user: The superuser's name.
        programs: Runs `initdb`.

    Raises:
        ServerFailed: The folder exists and holds something else.
        ProgramFailed: `initdb` failed.
    """
    await _remove_unfinished(data.parent, programs)
    if (data / "PG_VERSION").exists():
        return
    if data.exists():
        raise ServerFailed(f"{data} is not a PostgreSQL data folder")
    # A new name for each attempt: the initdb of a killed usbgate may still be writing.
    new = data.parent / f"{_PREFIX}{secrets.token_hex(8)}"
    initdb = [str(binaries / "initdb"), "-D", str(new), "-U", user, "-E", "UTF8", "--no-locale", "-k"]
    # initdb's own fsync of each file took 5 s on a busy disk; syncing the file system once takes 1.3 to 3.
    await programs.run([*initdb, "--auth-local=trust", "--auth-host=reject", "--no-sync"])
    try:
        await programs.run(["sync", "-f", str(new)])
    except ProgramFailed:  # not every sync can be limited to one file system
        await programs.run(["sync"])
    new.rename(data)
    with opened_folder(data.parent) as descriptor:
        os.fsync(descriptor)  # so that the name is on disk before any reading


async def _remove_unfinished(folder: Path, programs: Programs) -> None:
    unfinished = list(map(str, folder.glob(f"{_PREFIX}*")))
    if unfinished:
        log.info("removing an unfinished database")
        try:
            await programs.run(["rm", "-rf", "--", *unfinished])
        except ProgramFailed as error:  # its initdb is still writing, but not for long; the next start removes the rest
            log.debug("could not remove all of it: {error}", error=str(error))
