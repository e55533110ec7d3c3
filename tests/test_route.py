"""
The way through usbgate is straight: a module that has done its part is seldom needed again.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.route import Call, Route, trace

# How often each may return to a module that it had left: half of what it was before the source lay in folders, and four
# times more for a request, whose rules (queue, turn, matching) are a module each.
MOST_RETURNS = {"reading": 7, "row": 17, "request": 19, "answer": 12}


class RouteTests(SynchronousTestCase):
    """
    One reading, its row, one request and its answer, through the real parts.
    """

    def setUp(self) -> None:
        """
        Trace them.
        """
        self.routes = {route.name: route for route in trace()}

    def check(self, name: str) -> None:
        """
        Compare the returns of one route with what is allowed; show the route where they are more.
        """
        route = self.routes[name]
        self.assertGreater(route.modules, 5, "the trace is broken")
        if route.returns > MOST_RETURNS[name]:
            self.fail(f"at most {MOST_RETURNS[name]} returns are wanted\n{route}")

    def test_counts(self) -> None:
        """
        Entering a module counts as a return if it was left; a call within it, or a first entry, does not.
        """
        route = Route("detour", [Call(module, "f") for module in "aabbacca"])
        self.assertEqual((route.modules, route.returns), (3, 2))

    def test_reading(self) -> None:
        """
        From a chunk of the device into the journal.
        """
        self.check("reading")

    def test_row(self) -> None:
        """
        From the journal onto the disk, to the store, and out of the journal.
        """
        self.check("row")

    def test_request(self) -> None:
        """
        From a client's line to the device.
        """
        self.check("request")

    def test_answer(self) -> None:
        """
        From a chunk of the device into the journal and to the client who asked.
        """
        self.check("answer")
