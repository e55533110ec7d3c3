"""
How much each address and each token may have done in a second.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from usbgate.core.errors import LimitExceeded
from usbgate.net.rates import BURST, PAYERS_LIMIT, Rates, payers


class RatesTests(SynchronousTestCase):
    """
    `Rates` and `payers`.
    """

    def setUp(self) -> None:
        """
        Permit 2 in a second.
        """
        self.clock = Clock()
        self.rates = Rates(self.clock, 2.0)

    def test_average(self) -> None:
        """
        Some may come at once, and then as many as the rate permits; who is refused waits as long as it is told.
        """
        burst = round(2 * BURST)
        self.assertEqual([self.rates.take(["a"]) for _ in range(burst)], [0.0] * burst)
        self.assertEqual(self.rates.take(["a"]), 0.5)
        self.assertEqual(self.rates.take(["a"]), 0.5)  # a refusal costs nothing
        self.clock.advance(0.5)
        self.assertEqual(self.rates.take(["a"]), 0.0)
        self.clock.advance(1000)
        self.assertEqual([self.rates.take(["a"]) for _ in range(burst + 1)], [0.0] * burst + [0.5])

    def test_each(self) -> None:
        """
        Each payer has a bucket; if one of several has not enough, nothing is taken from the others.
        """
        for _ in range(round(2 * BURST)):
            self.rates.take(["a", "token x"])
        error = self.assertRaises(LimitExceeded, self.rates.check, ["b", "token x"])
        self.assertEqual((error.text, error.wait), ("more than 2 requests in a second with this token", 1))
        for _ in range(round(2 * BURST)):
            self.rates.check(["b"])
        self.assertRaises(LimitExceeded, self.rates.check, ["b"])
        self.rates.check([])

    def test_more_than_the_bucket(self) -> None:
        """
        What is more than a bucket holds is taken from a full one.
        """
        self.assertEqual(self.rates.take(["a"], 100.0), 0.0)
        self.assertEqual(self.rates.take(["a"]), 50.5 - BURST)

    def test_payers(self) -> None:
        """
        An address of IPv6 is its network, and this machine is none.
        """
        self.assertEqual(payers("10.0.0.7", "x"), ("10.0.0.7", "token x"))
        self.assertEqual(payers("2001:db8::1", None), payers("2001:db8::2", None))
        for local in ("127.0.0.1", "::1", "local"):
            self.assertEqual(payers(local, None), ())
            self.assertEqual(payers(local, "x"), ("token x",))

    def test_bounded(self) -> None:
        """
        Who came first is forgotten, if there are very many.
        """
        rates = Rates(self.clock, 1.0, 1.0)
        rates.take(["a"])
        self.assertGreater(rates.take(["a"]), 0)
        for number in range(PAYERS_LIMIT):
            rates.take([str(number)])
        self.assertEqual(rates.take(["a"]), 0.0)
