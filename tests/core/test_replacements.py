"""
Which id takes whose place.
"""

from __future__ import annotations

from hypothesis.strategies import booleans, lists, sampled_from, tuples
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from usbgate.core.errors import Malformed, RequestError, Unknown
from usbgate.core.fieldline import parse
from usbgate.core.replacements import Offer, Replacement, Replacements, offers, swap_report, swap_request
from usbgate.core.reporters import KnownSensor, Reporter
from usbgate.testing import AT, reading, report, request

_IDS = ["1", "2", "3", "4", "28:FF"]


def replacement(sensor: str, successor: str, device: str = "uno") -> Replacement:
    """
    Return a replacement.
    """
    return Replacement(sensor=sensor, successor=successor, device=device, since=AT, at=AT, who="me")


def chain(*pairs: tuple[str, str]) -> Replacements:
    """
    Return replacements that were made one after the other.
    """
    held = Replacements()
    for sensor, successor in pairs:
        sensor = held.name_of(sensor)
        held.check(sensor, successor)
        held = held.with_(replacement(sensor, successor))
    return held


class ReplacementsTests(SynchronousTestCase):
    """
    `Replacements`.
    """

    def test_swaps(self) -> None:
        """
        A sensor and its successor exchange their ids on their device, and on no other.
        """
        held = chain(("1", "2")).with_(replacement("5", "6", "mega"))
        self.assertEqual(held.swaps("uno"), {"1": "2", "2": "1"})
        self.assertEqual(held.swaps("mega"), {"5": "6", "6": "5"})
        self.assertEqual(held.swaps("third"), {})

    def test_chain(self) -> None:
        """
        Of several replacements of a sensor the last one counts, whether it or its successor is named; each is taken
        back, the last one first.
        """
        for second in ("1", "2"):
            held = chain(("1", "2"), (second, "3"))
            self.assertEqual(held.swaps("uno"), {"1": "3", "3": "1"})
            held, last = held.without_last("1")
            self.assertEqual((last.successor, held.swaps("uno")), ("3", {"1": "2", "2": "1"}))
            held, last = held.without_last("1")
            self.assertEqual((last.successor, held.swaps("uno")), ("2", {}))
            self.assertRaises(Unknown, held.without_last, "1")

    def test_refused(self) -> None:
        """
        What contradicts another replacement is refused, and the error names the remedy.
        """
        for pairs, undo in [
            ([("1", "1")], None),
            ([("1", "2"), ("1", "2")], "1"),
            ([("1", "2"), ("2", "1")], "1"),
            ([("1", "2"), ("1", "1")], "1"),
            ([("1", "2"), ("3", "2")], "1"),
            ([("1", "2"), ("3", "1")], "1"),
            ([("1", "2"), ("2", "3"), ("3", "1")], "1"),
        ]:
            error = self.assertRaises(Malformed, chain, *pairs)
            if undo is not None:
                self.assertIn(f"usbgate replace --undo {undo}", error.text)
        held = chain(("1", "2"), ("1", "3"), ("4", "2"))  # 2 was free again
        self.assertIn("--undo 4", self.assertRaises(Malformed, held.without_last, "1").text)

    @given(lists(tuples(booleans(), sampled_from(_IDS), sampled_from(_IDS)), max_size=12))
    def test_one_to_one(self, steps: list[tuple[bool, str, str]]) -> None:
        """
        However sensors are replaced and that is taken back, no two ids on the wire are one sensor; what goes out comes
        back; and each sensor that is replaced gets what its last successor sends.
        """
        held = Replacements()
        for undo, sensor, successor in steps:
            try:
                if undo:
                    held, _ = held.without_last(sensor)
                else:
                    sensor = held.name_of(sensor)
                    held.check(sensor, successor)
                    held = held.with_(replacement(sensor, successor))
            except RequestError:
                continue
            swaps = held.swaps("uno")
            names = {each: swap_report(report(each), swaps).sensor for each in _IDS}
            self.assertEqual(len({*names.values()}), len(_IDS))
            for last in held.current().values():
                self.assertEqual(names[last.successor], last.sensor)
            for each in _IDS:
                asked = request(each, LEVEL="5")
                sent = swap_request(asked, swaps)
                self.assertEqual(swap_report(report(sent.question.sensor), swaps).sensor, each)
                self.assertEqual(swap_request(sent, swaps), asked)
                self.assertEqual(parse(sent.line), dict(sent.fields))
                self.assertEqual(list(sent.fields), list(asked.fields))


class OffersTests(SynchronousTestCase):
    """
    `offers`.
    """

    def setUp(self) -> None:
        """
        Let one sensor fall silent, and another one appear.
        """
        self.known = {"1": self.sensor(AT - 7_200_000), "2": self.sensor(AT - 1000, AT - 60_000)}

    def sensor(self, seen: int, first: int | None = 0, device: str = "uno", fields: str = "AB") -> KnownSensor:
        """
        Return a sensor.
        """
        newest = {field: reading(1.0, field=field) for field in fields}
        return KnownSensor(device, Reporter(newest), seen, first=first)

    def found(self, configured: tuple[str, ...] = (), replaced: tuple[str, ...] = ()) -> list[tuple[str, str]]:
        """
        Return the pairs that are offered.
        """
        made = offers(self.known.items(), lambda sensor: 3600.0, configured, replaced, AT)
        return [(each.sensor, each.successor) for each in made]

    def test_offered(self) -> None:
        """
        A silent sensor and a like one that appeared later are offered; configured ones come first.
        """
        offer = Offer("1", "2", "uno", AT - 7_200_000, AT - 60_000)
        self.assertEqual(offers(self.known.items(), lambda sensor: 3600.0, (), (), AT), [offer])
        self.known["3"] = self.sensor(AT - 9_000_000)
        self.assertEqual(self.found(), [("1", "2"), ("3", "2")])
        self.assertEqual(self.found(configured=("3",)), [("3", "2"), ("1", "2")])

    def test_unlike(self) -> None:
        """
        None is offered that is of another device, has other fields, is older, configured, silent, or has its place.
        """
        for other in (
            self.sensor(AT - 1000, AT - 60_000, device="mega"),
            self.sensor(AT - 1000, AT - 60_000, fields="ABC"),
            self.sensor(AT - 1000, AT - 60_000, fields="A"),
            self.sensor(AT - 1000, AT - 7_300_000),
            self.sensor(AT - 4_000_000, AT - 5_000_000),
        ):
            self.known["2"] = other
            self.assertEqual(self.found(), [])
        self.known["2"] = self.sensor(AT - 1000, None)  # only the database knows
        self.assertEqual(self.found(), [("1", "2")])
        self.assertEqual(self.found(configured=("1", "2")), [])
        self.assertEqual(self.found(replaced=("5", "2")), [])
        self.known["1"] = self.sensor(AT - 3_000_000)
        self.assertEqual(self.found(), [])

    def test_many(self) -> None:
        """
        However many there might be, only some are offered, and few pairs are looked at: those of the sensors that fell
        silent last, and of the ids that appeared last.
        """
        looked: list[int] = []

        class Counted(int):
            """
            A time that counts comparisons.
            """

            def __gt__(self, other: int) -> bool:
                looked.append(other)
                return int(self) > other

        silent = {f"s{n}": self.sensor(AT - 9_000_000 + n) for n in range(300)}
        appeared = {f"a{n}": self.sensor(AT - 1000, Counted(AT - 5000 + n)) for n in range(300)}
        self.known = {**silent, **appeared}
        self.assertEqual(self.found(), [("s299", f"a{n}") for n in range(299, 279, -1)])
        self.assertLessEqual(len(looked), 10_000)
