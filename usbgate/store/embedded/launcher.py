"""
Runs a program in a session of its own, as another user if one is given, without the Python of this process.

    python -I -S launcher.py UID GID LOG PROGRAM [ARGUMENT]...

UID and GID are empty for the current user. LOG is the file to which the output is appended; empty keeps stdout and
stderr.

Privileges are dropped here, not by `spawnProcess(uid=)`: that user may have no access to the Python interpreter, nor
to anything that would be imported afterwards (as by `os.execvp`). The log is opened as that user, so that root follows
none of its links. `-I -S` keeps it at 15 ms.
"""

import os
import sys


def launch(uid: str, gid: str, log: str, *command: str) -> None:
    """
    Become the program.

    Raises:
        OSError: It can't be run.
    """
    os.setsid()
    if uid:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    os.umask(0o077)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if log:
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
    os.chdir("/")
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        launch(*sys.argv[1:])
    except OSError as error:
        sys.exit(f"{sys.argv[4]}: {error.strerror}")
