"""
How a word (protocol §3) is declared: its usage, its help, and what it does, in one place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import cleandoc
from typing import TYPE_CHECKING

from usbgate.access.rights import WORD_ROLES
from usbgate.core.errors import Malformed

if TYPE_CHECKING:
    from usbgate.server.console import Console

# Sends the data lines of the reply. Returns the closing line, if that is not simply `OK:` with the word's name.
Run = Callable[["Console", Sequence[str]], Awaitable[str | None]]


class Word:
    """
    A word.

    Attributes:
        name: The word itself, lower case.
        usage: The word and its arguments.
        summary: Its help, in one sentence.
        details: The rest of its help, one text for each paragraph.
        alias: Another name of the word; None for none.
        run: Answers it.
        role: The role that it requires.
    """

    def __init__(self, usage: str, run: Run, alias: str | None) -> None:
        self.name, _, arguments = usage.partition(" ")
        self.usage = usage
        self.takes_arguments = bool(arguments)
        self.summary, *self.details = (" ".join(each.split()) for each in cleandoc(run.__doc__ or "").split("\n\n"))
        self.alias = alias
        self.run = run
        self.role = WORD_ROLES[self.name]

    def usage_error(self, reason: str = "wrong arguments") -> Malformed:
        """
        Return the error for wrong arguments.
        """
        # `TEXT` has no `_` (protocol §1); the option works without it, too.
        return Malformed(reason, "usage: " + self.usage.replace("max_age", "maxage"))


def word(usage: str, alias: str | None = None) -> Callable[[Run], Word]:
    """
    Declare a word; its docstring is its help. `usbgate.access.rights` has the role that it requires.

    Args:
        usage: The word and its arguments, such as `last [ID [FIELD]]`. Without arguments here, none are accepted.
        alias: Another name of the word.
    """
    return lambda run: Word(usage, run, alias)
