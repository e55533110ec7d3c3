"""
Which report answers which question, and how long to wait for it: what sensors have shown so far (protocol §4.4, §4.5,
§4.6 and §4.8).
"""

from __future__ import annotations

from typing import Any

from usbgate.core.containers import BoundedDict
from usbgate.core.exchanges import Exchange
from usbgate.core.fieldline import fold
from usbgate.core.model import Answer, Priority, Question, Report, Request
from usbgate.core.rules import Rules

SENSORS_REMEMBERED = 10_000  # protocol §3

PATIENCE = 5.0  # seconds, protocol §4.4
PATIENCE_UNSURE = 10.0  # seconds, for a sensor whose late answer could be mistaken


class Matching:
    """
    What is remembered of the questions and answers over one link.
    """

    def __init__(self, rules: Rules) -> None:
        """
        Args:
            rules: The link's configuration.
        """
        self._rules = rules
        self._once = frozenset(map(fold, rules.once))
        self._retries = {fold(command): retries for command, retries in rules.retries.items()}
        self._fields = {fold(command): names for command, names in rules.fields.items()}
        self._shown: BoundedDict[str, None] = BoundedDict(SENSORS_REMEMBERED)  # answered with MSG or TAG
        self._unsure: BoundedDict[str, None] = BoundedDict(SENSORS_REMEMBERED)  # answered with neither
        # How each command was spelled, by sensor and folded command; None if in two ways.
        self._spelled: BoundedDict[tuple[str, str], str | None] = BoundedDict(SENSORS_REMEMBERED)
        self._recent: BoundedDict[tuple[str, str], tuple[float, Answer]] = BoundedDict(SENSORS_REMEMBERED)

    @property
    def unsure(self) -> list[str]:
        """
        The sensors that have answered with neither `MSG` nor `TAG`, to which §4.6 applies.
        """
        return list(self._unsure)

    def recent(self, request: Request, now: float) -> Answer | None:
        """
        Return the answer from memory that a request accepts (`max_age`).
        """
        question = request.question
        if request.max_age is None or question.arguments:
            return None
        recent = self._recent.get((question.sensor, question.command))
        return recent[1]._replace(recent=True) if recent is not None and now - recent[0] <= request.max_age else None

    def asked(self, question: Question) -> bool:
        """
        Remember how the command of a question is spelled.

        Returns:
            Whether it is written exactly as often as it is asked.
        """
        command = question.command
        folded = fold(command)
        key = question.sensor, folded
        self._spelled.remember(key, command if self._spelled.get(key, command) == command else None)
        return folded in self._once

    def answers(self, report: Report, exchange: Exchange[Any]) -> bool:
        """
        Return whether a report of its sensor answers an exchange.
        """
        if not exchange.on_wire:
            return False
        if exchange.tag is not None:
            return report.tag == exchange.tag
        command = exchange.question.command
        if report.command is not None:
            if report.command == command:
                return True
            folded = fold(command)
            return fold(report.command) == folded and self._spelled.get((report.sensor, folded)) is not None
        if (report.left_out and not exchange.unwritten) or report.sensor in self._shown or self._rules.named:
            return False
        fields = self._fields.get(fold(command)) if self._fields else None
        return fields is None or any(name in fields for name, _ in report.values)

    def answered(self, exchange: Exchange[Any], answer: Answer, now: float) -> None:
        """
        Remember an answer, and what its sensor has shown by it.
        """
        question, report = exchange.question, answer.report
        if not exchange.once and not question.arguments:
            self._recent.remember((question.sensor, question.command), (now, answer))
        if exchange.tag is not None or report.command is not None:
            self._shown.remember(report.sensor, None)
            if self._unsure:
                self._unsure.pop(report.sensor, None)
        elif not exchange.unwritten:
            self._unsure.remember(report.sensor, None)

    def asked_again(self, exchange: Exchange[Any]) -> bool:
        """
        Return whether an exchange is written again after it was not answered, if not for a poll alone.
        """
        retries = self._retries.get(fold(exchange.question.command))
        if retries is not None:
            return exchange.unanswered <= retries and bool(exchange.askers)
        return not exchange.once and any(asker.request.priority < Priority.POLL for asker in exchange.askers)

    def patience(self, sensor: str) -> float:
        """
        Return how many seconds to wait for an answer of a sensor.
        """
        rules = self._rules
        patience = rules.sensor_patience.get(sensor, rules.patience) if rules.sensor_patience else rules.patience
        if patience is None:
            return PATIENCE if sensor in self._shown or rules.named else PATIENCE_UNSURE
        return patience
