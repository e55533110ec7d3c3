"""
The errors with which opening a serial port fails.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from contextlib import suppress
from typing import ClassVar


class DeviceError(Exception):
    """
    A device could not be opened; the message gives the reason and the remedy, in one line.
    """

    def __init__(self, path: str, text: str) -> None:
        """
        Args:
            path: The device, as the configuration spells it.
            text: The reason and the remedy.
        """
        self.path = path
        super().__init__(f"{path}: {text}")


class NoSuchDevice(DeviceError):
    """
    There is no such device: it is not plugged in, or has another name now.
    """

    def __init__(self, path: str, remedy: str = "plug it in, or look for its name in /dev/serial/by-id") -> None:
        super().__init__(path, f"no such device; {remedy}")


class AmbiguousDevice(DeviceError):
    """
    Two devices match; neither is opened.
    """


class DeviceBusy(DeviceError):
    """
    Another program holds the port.

    Attributes:
        reason, about: As in `DeviceWarning`.
    """

    reason: ClassVar[str] = "port in use"

    def __init__(self, path: str) -> None:
        self.about = path
        super().__init__(
            path,
            f"in use by another program; stop it (ModemManager, brltty, a serial monitor?): `fuser -v {path}` names it",
        )


class SecondName(DeviceBusy):
    """
    usbgate itself has the port open, under another name.
    """

    reason = "port open under another name"

    def __init__(self, path: str, other: str) -> None:
        """
        Args:
            path: The device, as the configuration spells it.
            other: The name under which it is open.
        """
        self.about = other
        DeviceError.__init__(
            self, path, f"usbgate itself has it open, as {other}; remove one of the two devices from the configuration"
        )


class NotPermitted(DeviceError):
    """
    The device belongs to a group that this user is not in, or its mode denies access even to its group.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, f"not permitted; {_permission_remedy(path)}")


def _permission_remedy(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "this user has no access to its folder"
    group_access = stat.S_IRGRP | stat.S_IWGRP
    if status.st_mode & group_access != group_access:
        mode = stat.S_IMODE(status.st_mode)
        return f"its mode is {mode:04o}, and 0660 is needed: add a udev rule, or `chmod 660 {path}`"
    group, user = str(status.st_gid), str(os.geteuid())
    with suppress(KeyError):
        group = grp.getgrgid(status.st_gid).gr_name
    with suppress(KeyError):
        user = pwd.getpwuid(os.geteuid()).pw_name
    return f"join its group (often dialout) and log in again: `sudo usermod -aG {group} {user}`"


_BY_ERRNO: dict[int | None, type[NoSuchDevice | DeviceBusy | NotPermitted]] = {
    **dict.fromkeys([errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV], NoSuchDevice),
    # The lock (flock) is taken; another program's TIOCEXCL.
    **dict.fromkeys([errno.EAGAIN, errno.EBUSY], DeviceBusy),
    **dict.fromkeys([errno.EACCES, errno.EPERM], NotPermitted),
}


def device_error(path: str, error: Exception) -> DeviceError:
    """
    Return the `DeviceError` for an exception that pyserial raised at opening.

    Args:
        path: The device.
        error: The exception; its `errno`, if it has one, determines the class.
    """
    error_class = _BY_ERRNO.get(getattr(error, "errno", None))
    if error_class is not None:
        return error_class(path)
    reason = " ".join(str(error).split())
    return DeviceError(path, f"cannot be opened as a serial port; is it one, and is the baud rate right? ({reason})")
