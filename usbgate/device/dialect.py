"""
The base of dialects: all but what makes one dialect differ from another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import ClassVar

from zope.interface import implementer

from usbgate.core.errors import Malformed
from usbgate.core.fieldline import EMPTY_VALUE, NO_KEY, NO_VALUE, is_sensor_id, reads_back
from usbgate.core.model import Report, Request
from usbgate.core.spelling import Spellings, field_name
from usbgate.device.framing import LineFraming
from usbgate.device.interfaces import Decoded, IDialect, IFraming
from usbgate.device.options import DialectOptions


def labelled(en: str, fr: str, **keys: object) -> Mapping[str, object]:
    """
    Return an item of `IDialect.fields` with a label in English and in French.
    """
    return {"label": {"en": en, "fr": fr}, **keys}


def _epoch() -> float:
    return 0.0


@implementer(IDialect)
class DialectBase(ABC):
    """
    A dialect of lines without options, for devices that only send. Override what differs; `decode` always does.
    """

    defaults: ClassVar[Mapping[str, object]] = {}
    fields: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    echo_mark: bytes | None = None
    echoes = True
    named = False
    alone = False
    device = "device"
    tags = False

    def __init__(self, options: Mapping[str, object] = {}) -> None:
        self.now: Callable[[], float] = _epoch
        self.kept: MutableMapping[str, str] = {}
        self.left_out = 0
        self.notices: list[str] = []
        self._spellings = Spellings()
        given = DialectOptions(options)
        self.configure(given)
        given.end()

    def configure(self, options: DialectOptions) -> None:  # noqa: B027  # most dialects have no options
        """
        Take the options of this dialect.

        Raises:
            ValueError: One has a wrong value.
        """

    def framing(self) -> IFraming:
        return LineFraming()

    def opened(self) -> bytes:
        return b""

    @abstractmethod
    def decode(self, frame: bytes) -> Decoded: ...

    def encode(self, request: Request, tag: str | None) -> bytes:
        if request.question.arguments:
            raise Malformed("the device only sends", "it takes no arguments")
        return b""

    def sent(self, request: Request) -> None:  # noqa: B027  # most answers say what they answer
        pass

    def report(
        self,
        sensor: str,
        values: Iterable[tuple[str, str]],
        command: str | None = None,
        left_out: Iterable[str] = (),
    ) -> Report:
        """
        Make a report of names and values as the device spells them (protocol §2, names from elsewhere).

        A value that is empty or that no line could have is left out, and so is a field whose name has no letter and no
        digit.

        Args:
            sensor: The sensor.
            values: The fields in their order.
            command: The command that it answers, if the device says so.
            left_out: Why other fields were left out, each one of `core.counts.DAMAGES`.

        Raises:
            Malformed: The sensor is no sensor id, no line could have the command, nothing is left, or two names are the
                same.
        """
        if not is_sensor_id(sensor):
            raise Malformed("not a sensor id", repr(sensor))
        if command is not None and not reads_back(command):
            raise Malformed("not a command", repr(command))
        kept: dict[str, str] = {}
        damages = list(left_out)
        for spelled, text in values:
            name, value = field_name(spelled), text.strip()
            if not name:
                damages.append(NO_KEY)
            elif not value:
                damages.append(EMPTY_VALUE)
            elif not reads_back(value):
                damages.append(NO_VALUE)
            else:
                self._check_spelling(sensor, name, spelled)
                if name in kept:
                    raise Malformed("key given twice", name)
                kept[name] = value
        if not kept and command is None:
            raise Malformed("no measurement")
        return Report(sensor, command, None, tuple(kept.items()), tuple(damages))

    def _check_spelling(self, sensor: str, name: str, spelled: str) -> None:
        first = self._spellings.conflict is None
        try:
            self._spellings.check(sensor, name, spelled)
        except Malformed:
            if first and self._spellings.conflict is not None:
                self.notices.append(self._spellings.conflict)
            raise
