"""
Errors that cross packages: how a request fails, one class for each code (protocol §3), and how a start does.
"""

from __future__ import annotations

from typing import ClassVar


class RequestError(Exception):
    """
    A request failed; `text` is the reason, for a person to read.

    Each subclass is one code of the protocol (§3); its docstring is the default text. `reason`, if it is not None, is
    one of a few fixed phrases that say more than the code, for front ends that have words of their own.
    """

    code: ClassVar[str]

    def __init__(self, text: str = "", reason: str | None = None) -> None:
        self.reason = reason
        self.text = text or " ".join((type(self).__doc__ or "").split()).rstrip(".")
        super().__init__(self.text)


class TimedOut(RequestError):
    """
    The request was sent, and no answer came within its time limit.
    """

    code = "timeout"


class NotHeard(TimedOut):
    """
    The question was held until the sensor reports, and could not be sent within its time limit.
    """


class Cancelled(RequestError):
    """
    The request was cancelled while it was held.
    """

    code = "cancelled"


class Offline(RequestError):
    """
    The device that serves this sensor is not connected.
    """

    code = "offline"


class Busy(RequestError):
    """
    The queue of that device or sensor is full, or the time limit ended before the request could be sent.
    """

    code = "busy"


class Malformed(RequestError):
    """
    The line does not parse, or a field is missing or out of range.

    `reason` is one of a few fixed phrases, by which malformed lines are counted; `detail` describes this one.
    """

    code = "malformed"
    reason: str

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason, reason)


class Unknown(RequestError):
    """
    There is no such word or device, or the device of this sensor is not known.
    """

    code = "unknown"


class NotHeld(Unknown):
    """
    No request with this number is held.
    """

    def __init__(self, number: int | str) -> None:
        super().__init__(f"no request with the number {str(number)[:20]} is held", "not held")


class Denied(RequestError):
    """
    The client is not permitted to do that.

    `role` is the role that it would need; None if no role would help. `sensor` is the sensor that it may not use; None
    if it is about none. `is_recorded` is whether it is recorded already.
    """

    code = "denied"

    def __init__(
        self,
        text: str = "The client is not permitted to do that",
        reason: str | None = None,
        role: str | None = None,
        sensor: str | None = None,
        is_recorded: bool = False,
    ) -> None:
        self.role = role
        self.sensor = sensor
        self.is_recorded = is_recorded
        super().__init__(text, reason)


class Unauthenticated(Denied):
    """
    The client is not permitted to do that, and has sent no valid token.
    """


class LimitExceeded(RequestError):
    """
    The line is too long, or there are too many connections, or requests in flight or in a second.

    `wait` is after how many seconds to try again; None if that is not known.
    """

    code = "limit"

    def __init__(self, text: str = "", reason: str | None = None, wait: int | None = None) -> None:
        self.wait = wait
        super().__init__(text, reason)


class Failed(RequestError):
    """
    Internal error; see the log.
    """

    code = "failed"


class StoreUnavailable(Failed):
    """
    The database cannot be queried.
    """


class Stopped(RequestError):
    """
    usbgate is stopping.
    """

    code = "stopped"


class StartError(Exception):
    """
    The daemon cannot start; the text is one line for a person to read.
    """
