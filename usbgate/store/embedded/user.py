"""
The account of the embedded PostgreSQL, which refuses to run as root, and its file permissions.
"""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from pathlib import Path

from twisted.logger import Logger

from usbgate.store.embedded.postmaster import ServerFailed, opened_folder
from usbgate.store.embedded.process import Account, ProgramFailed, Programs

SYSTEM_USER = "usbgate"  # created if usbgate runs as root and there is none
USERADD = ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir=/", "--shell=/usr/sbin/nologin")
USERADD_LIMIT = 10.0  # seconds; it takes 0.02

log = Logger()


async def choose_account(data: Path, programs: Programs) -> Account | None:
    """
    Choose the account the server runs as.

    Args:
        data: The data folder; its owner is used if it exists.
        programs: Runs `useradd`.

    Returns:
        None to run as the current user, who is not root.

    Raises:
        ServerFailed: There is no such user, and none can be created.
    """
    if os.geteuid() != 0:
        return None
    try:
        owner = data.lstat()
        if owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
    except FileNotFoundError:
        pass
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        entry = await _create_user(programs)
    return Account(entry.pw_uid, entry.pw_gid)


async def _create_user(programs: Programs) -> pwd.struct_passwd:
    reason = ""
    try:
        await programs.run([*USERADD, SYSTEM_USER], USERADD_LIMIT)
        log.info("created the system user {user}: PostgreSQL refuses to run as root", user=SYSTEM_USER)
    except ProgramFailed as error:  # also if another usbgate has just created it
        reason = str(error)
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise ServerFailed(f"PostgreSQL refuses to run as root and needs the user {SYSTEM_USER}: {reason}") from None


def make_private(folder: Path, account: Account | None) -> None:
    """
    Create a folder, or restrict an existing one, for the server's user only.

    Raises:
        ServerFailed: The path is a link or a file, or belongs to another user.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    with opened_folder(folder) as descriptor:
        status = os.fstat(descriptor)
        try:
            if account is not None and status.st_uid != account.uid:
                os.fchown(descriptor, *account)
            if stat.S_IMODE(status.st_mode) != 0o700:
                os.fchmod(descriptor, 0o700)
        except OSError as error:
            raise ServerFailed(f"cannot make {folder} private: {error.strerror}") from None


def is_private(folder: Path, account: Account | None) -> bool:
    """
    Whether this is a private folder of the server's user; a folder named by the server may be any other.
    """
    try:
        status = folder.lstat()
    except OSError:
        return False
    owner = os.geteuid() if account is None else account.uid
    return folder.is_absolute() and status.st_uid == owner and status.st_mode == stat.S_IFDIR | 0o700


def make_traversable(account: Account, folder: Path, program: Path) -> None:
    """
    Grant the server's user search permission on the paths to its folder and programs, and nothing more.

    Args:
        account: The server's account.
        folder: Its folder, by its real path.
        program: One of the programs, by its real path.

    Raises:
        ServerFailed: That user may not run the programs.
    """
    for parent in (*reversed(folder.parents), *reversed(program.parents)):
        status = parent.stat()
        if status.st_uid == account.uid:
            continue
        passes = stat.S_IXGRP if status.st_gid == account.gid else stat.S_IXOTH
        if not status.st_mode & passes:
            with opened_folder(parent) as descriptor:
                os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | passes)
            log.warn("made {folder} traversable (chmod o+x) for the database's user", folder=str(parent))
    if not program.stat().st_mode & stat.S_IXOTH:
        package = shlex.quote(str(program.parents[2]))  # its libraries are in a folder beside it
        raise ServerFailed(f"the database's user may not run PostgreSQL: chmod -R o+rX {package}*")
