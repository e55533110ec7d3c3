"""
The configuration of asking over one link, as the rules of protocol §4 read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rules:
    """
    The configuration of asking over one link.

    Attributes:
        window: The most exchanges that may be on the wire at a time.
        buffer: The most bytes that may be on the wire and unread; 0 for no limit, None to go by the board.
        tags: Whether the device echoes a `TAG`; then nothing else identifies the question that it answers.
        named: Whether each answer has its command, so that a report without `MSG` answers nothing.
        settle: Seconds after opening during which nothing is written; None to go by the board.
        patience: Seconds to wait for an answer; None for the protocol's defaults.
        sensor_patience: The same for single sensors; takes precedence.
        once: Commands that are written exactly as often as they are asked (`coalesce = false`), in any case.
        retries: By command, in any case, how often at most it is written again because no answer came; those that are
            not here are written again for as long as somebody waits, but not those of `once`.
        fields: By command, in any case, the fields of which an answer without `MSG` has at least one.
    """

    window: int = 4
    buffer: int | None = 0
    tags: bool = False
    named: bool = False
    settle: float | None = 0.0
    patience: float | None = None
    sensor_patience: Mapping[str, float] = field(default_factory=dict)
    once: frozenset[str] = frozenset()
    retries: Mapping[str, int] = field(default_factory=dict)
    fields: Mapping[str, frozenset[str]] = field(default_factory=dict)
