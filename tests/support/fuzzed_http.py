"""
A client that sends any bytes to the HTTP port, and what must hold whatever it sends (docs/http.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.support.access import authority
from tests.support.fuzzed_client import nothing_fails
from tests.support.memory_gateway import MemoryGateway
from usbgate.access.doors import Door
from usbgate.access.roles import Role
from usbgate.core.model import Alarm
from usbgate.testing import AT, reading
from usbgate.web.site import Web

# A reading, in each response that shows one.
VALUE = 8712.25

_HEAD = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
_STATUSES = {100, 200, 304, 308, 400, 401, 403, 404, 405, 413, 415, 421, 429, 503}


class _Transport(StringTransport):
    """
    A transport that can be aborted, whose peer reads everything at once.
    """

    def abortConnection(self) -> None:
        """
        Close at once.
        """
        self.disconnecting = True


def check_http(chunks: Sequence[bytes], role: Role) -> None:
    """
    Whatever a client with a role sends, each response is well-formed and none is a server error; nothing is raised, and
    nothing is left when it is gone. Without a role, it asks and sees nothing.

    Args:
        chunks: What it sends.
        role: What everybody may do.
    """
    with nothing_fails(chunks):
        clock = Clock()
        gateway = MemoryGateway()
        gateway.readings = [reading(VALUE, sensor="20", field="TEMP")]
        gateway.raised = [Alarm("a1", "leonardo", "20", "TEMP", "> 60", VALUE, None, AT)]
        keeper = authority(clock)
        web = Web(clock, gateway, keeper, lambda: AT, door=Door(role), requests_per_second=1000.0)
        channel: Any = web.site.buildProtocol(IPv4Address("TCP", "10.0.0.7", 4711))
        transport = _Transport(peerAddress=IPv4Address("TCP", "10.0.0.7", 4711))
        channel.makeConnection(transport)
        answered = 0
        for chunk in chunks:
            if not transport.disconnecting:
                channel.dataReceived(chunk)
                clock.pump([0.0] * 3)
            while answered < len(gateway.asked):
                gateway.answer(answered)
                answered += 1
        clock.pump([0.0] * 20)
        sent = transport.value()
        channel.connectionLost(Failure(ConnectionDone()))
        clock.pump([0.0] * 20)
        web.stopService()
    _check_responses(sent, chunks)
    if role is Role.NONE:
        assert (gateway.asked, gateway.acknowledged, gateway.subscribers) == ([], [], []), chunks
        assert str(VALUE).encode() not in sent, (sent, chunks)
    keeper.failures.stopService()
    assert not web.site.channels, chunks
    assert not len(web.events), chunks
    assert [call for call in clock.getDelayedCalls() if call.active()] == [], (clock.getDelayedCalls(), chunks)


def _check_responses(sent: bytes, chunks: Sequence[bytes]) -> None:
    # One after the other; the last one may be a stream without end.
    while sent:
        head = _HEAD.match(sent)
        assert head is not None, (sent[:200], chunks)
        assert int(head[1]) in _STATUSES, (sent[:200], chunks)
        lines = (line.partition(b":") for line in head[2].split(b"\r\n"))
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        sent = sent[head.end() :]
        if b"content-length" in headers:
            sent = sent[int(headers[b"content-length"]) :] if not sent.startswith(b"HTTP/1.") else sent  # HEAD
        elif headers.get(b"transfer-encoding") == b"chunked":
            while not sent.startswith((b"0\r\n\r\n", b"HTTP/1.")) and sent:
                size, _, sent = sent.partition(b"\r\n")
                sent = sent[int(size, 16) + 2 :]
            sent = sent.removeprefix(b"0\r\n\r\n")
        elif int(head[1]) not in (100, 304):
            return  # up to the end of the connection
