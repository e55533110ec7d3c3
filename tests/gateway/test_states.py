"""
Events of devices' states: at once for what people do, and at a bounded rate for what a broken board does.
"""

from __future__ import annotations

from itertools import pairwise

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.model import DeviceEvent
from usbgate.gateway.states import BURST, StateEvents


class StateEventsTests(SynchronousTestCase):
    """
    Two devices; events are published with their times.
    """

    def setUp(self) -> None:
        """
        Start with both offline.
        """
        self.clock = Clock()
        self.published: list[tuple[float, str, str]] = []
        self.state = {"board": "offline", "other": "offline"}
        self.events = StateEvents(
            self.clock, lambda event: self.published.append((self.clock.seconds(), event.device, event.state))
        )

    def change(self, state: str, device: str = "board") -> None:
        """
        Change the state of a device.
        """
        before, self.state[device] = self.state[device], state
        self.events.changed(device, before, lambda: DeviceEvent(device, self.state[device], 0))

    def test_replug(self) -> None:
        """
        The changes of a replug are published at once, however short it was.
        """
        self.change("online")
        self.clock.advance(60.0)
        self.change("offline")
        self.clock.advance(0.1)
        self.change("online")
        self.assertEqual([state for _, _, state in self.published], ["online", "offline", "online"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_boot_loop(self) -> None:
        """
        Beyond the first ones there is at most one event a second, the last state is always published, and another
        device is not affected.
        """
        for n in range(200):
            self.change("offline" if n % 2 else "online")
            self.clock.advance(0.1)
        self.change("settling")
        self.change("online", "other")
        self.assertEqual(self.published[-1], (self.clock.seconds(), "other", "online"))
        self.clock.advance(1.0)
        of_board = [(at, state) for at, device, state in self.published if device == "board"]
        self.assertLessEqual(len(of_board), BURST + 22)
        self.assertGreater(len(of_board), 10)
        self.assertEqual(of_board[-1][1], "settling")
        for (_, one), (_, two) in pairwise(of_board):
            self.assertNotEqual(one, two, "an event reports a change")
        late = [at for at, _ in of_board[BURST:]]
        for before, after in pairwise(late):
            self.assertGreaterEqual(after - before, 1.0 - 1e-9)

    def test_stop(self) -> None:
        """
        After a stop nothing is published, and no timer is left.
        """
        for n in range(10):
            self.change("offline" if n % 2 else "online")
        self.events.stop()
        self.assertEqual((self.clock.getDelayedCalls(), len(self.published)), ([], BURST))
        self.change("online")
        self.assertEqual((self.clock.getDelayedCalls(), len(self.published)), ([], BURST))
