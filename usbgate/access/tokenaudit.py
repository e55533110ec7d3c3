"""
Records the changes of the tokens, which commands make in the state folder.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from usbgate.access.tokens import TokenFile, TokensUnreadable
from usbgate.core.fieldline import format_time
from usbgate.core.model import Action

LOOK_INTERVAL = 5.0  # seconds


class TokenAudit(Service):
    """
    Looks for changes of the tokens while the daemon runs. Those made while none ran are recorded at its start.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, tokens: TokenFile, record: Callable[[Action], None]) -> None:
        """
        Args:
            reactor: For time.
            tokens: The tokens.
            record: Records a change.
        """
        self._tokens = tokens
        self._record = record
        self._failed = False  # at the last look, which was logged
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor

    def startService(self) -> None:
        """
        Begin.
        """
        super().startService()
        self._looking.start(LOOK_INTERVAL).addErrback(
            lambda failure: self.log.failure("unexpected error while recording changes of tokens", failure=failure)
        )

    def stopService(self) -> None:
        """
        Look once more, and end.
        """
        super().stopService()
        if self._looking.running:
            self._looking.stop()
            self.look()

    def look(self) -> None:
        """
        Record what has changed since the last call.
        """
        try:
            changes = self._tokens.take_changes()
        except TokensUnreadable as error:
            if not self._failed:
                self.log.warn("changes of tokens are not recorded: {why}", why=str(error))
            self._failed = True
            return
        self._failed = False
        for change in changes:
            who, at, name = f"uid{change.user}", format_time(change.at), change.details["NAME"]
            self._record(Action(change.command, f"{who}@local", who, {**change.details, "AT": at}))
            self.log.info("{command} {name}: by {who}, at {at}", command=change.command, name=name, who=who, at=at)
