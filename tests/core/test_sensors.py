"""
Which device owns a sensor, and which sensors are remembered, also in random worlds.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from usbgate.core import sensors as rules
from usbgate.core.sensors import KnownSensors, OwnerChange
from usbgate.testing import reading

DEVICES = ("a", "b", "c")


class Model:
    """
    The rule for one sensor, by what was heard when.
    """

    def __init__(self, devices: set[str], absent: set[str], asked: str | None = None) -> None:
        self.devices = devices
        self.absent = absent
        self.asked = asked
        self.owner: str | None = None
        self.passed = False
        self.failed = False
        self.counts: Counter[str] = Counter()
        self.heard: dict[str, int] = {}
        self.now = 0

    @property
    def may_pass(self) -> bool:
        """
        Whether another device that is heard takes over.
        """
        return self.failed or self.asked in self.absent or self.asked not in self.devices

    def report(self, device: str, answers: bool) -> None:
        """
        A device reports the sensor.
        """
        self.now += 1
        self.asked = self.asked or device
        may_pass = self.may_pass
        self.heard[device] = self.now
        if device == self.asked:
            self.failed = False
        if self.owner is None:
            self.counts[device] += 1
            if answers or self.counts[device] >= 3:
                self.own(device)
            elif device != self.asked and may_pass:
                self.asked, self.failed = device, False
        elif device != self.owner and may_pass:
            self.own(device)

    def own(self, device: str) -> None:
        """
        A device becomes the owner.
        """
        self.passed = self.owner is not None
        if device != self.asked:
            self.failed = False
        self.owner = self.asked = device

    def unanswered(self, device: str) -> None:
        """
        A question to a device ends without an answer.
        """
        if device == self.asked:
            self.failed = True
            self.pass_on()

    def pass_on(self) -> None:
        """
        Pass to the device heard last, if it was heard after the one that is asked.
        """
        later = [each for each in self.heard if self.heard[each] > self.heard.get(self.asked or "", 0)]
        if later and self.may_pass:
            device = max(later, key=self.heard.__getitem__)
            if self.owner is None:
                self.asked, self.failed = device, False
            else:
                self.own(device)


def stored_owners(changes: list[OwnerChange]) -> dict[str, str]:
    """
    Return what the database has after these changes (see `IStore.owners`).
    """
    owners: dict[str, str] = {}
    for each in changes:
        if each.event == "passed":
            owners[each.sensor] = each.device
        else:
            owners.setdefault(each.sensor, each.device)
    return owners


class World:
    """
    One sensor, three devices that all report it, questions, lost links and restarts at random.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.absent: set[str] = set()
        self.stored: list[OwnerChange] = []
        self.newest: str | None = None
        self.begin()

    def begin(self) -> None:
        """
        Start usbgate.
        """
        devices = set(self.random.choice([DEVICES, DEVICES, ("a", "b"), ("b", "c")]))
        self.sensors = KnownSensors()
        self.sensors.devices.update(devices)
        self.sensors.is_absent = self.absent.__contains__
        self.model = Model(devices, self.absent)

    def report(self) -> None:
        """
        Let a device report; seldom it is an answer.
        """
        device = self.random.choice(sorted(self.model.devices))
        answers = self.random.random() < 0.1
        self.sensors.chunks += 1
        self.sensors.reported("9", device, 1, [reading(1.0, sensor="9", device=device)], answers)
        self.model.report(device, answers)
        self.newest = device

    def question(self) -> None:
        """
        Let a client ask; often there is no answer.
        """
        asked = self.sensors.asked("9")
        if self.model.may_pass:
            self.model.pass_on()
        self.check()
        if self.random.random() < 0.5 and asked is not None:
            self.sensors.left_unanswered("9", asked)
            self.model.unanswered(asked)

    def link(self) -> None:
        """
        Let a device go, or come back.
        """
        self.absent ^= {self.random.choice(DEVICES)}

    def restart(self) -> None:
        """
        Restart; devices report before the database is there.
        """
        self.stored += self.sensors.changes
        before, newest = stored_owners(self.stored), self.newest
        owner = self.model.owner
        self.begin()
        for _ in range(self.random.choice([0, 0, 1, 4])):
            self.report()
        model = self.model
        if owner is not None:
            assert before == {"9": owner}, "the owner is stored"
        list(self.sensors.restore(before, [] if newest is None else [reading(1.0, sensor="9", device=newest)]))
        if before:
            if model.owner is None or not model.passed:
                if model.asked != before["9"]:
                    model.failed = False
                model.owner = model.asked = before["9"]
        elif newest is not None and not model.heard:
            model.asked = newest
            model.owner = newest if newest in model.devices else None

    def check(self) -> None:
        """
        Compare who is asked.
        """
        known = self.sensors.get("9")
        assert (None if known is None else known.device) == self.model.asked, "the right device is asked"

    def run(self, steps: int = 60) -> None:
        """
        Live for some steps.
        """
        for _ in range(steps):
            step = self.random.choices([self.report, self.question, self.link, self.restart], [12, 6, 3, 1])[0]
            step()
            self.check()


class OwnerWorlds(SynchronousTestCase):
    """
    The rule, and the same without each of its parts.
    """

    def find(self, worlds: int = 400) -> str | None:
        """
        Return what the first world finds that goes wrong.
        """
        for seed in range(worlds):
            try:
                World(seed).run()
            except AssertionError as error:
                return str(error)
        return None

    def test_worlds(self) -> None:
        """
        In every world the device is asked that the rule says, before and after restarts.
        """
        self.assertIsNone(self.find(1500))

    def test_parts(self) -> None:
        """
        Without any part of the rule, a world goes wrong.
        """
        really = KnownSensors.restore

        def claims_are_kept(self: KnownSensors, owners: dict[str, str], *readings: list[object]) -> Iterator[None]:
            known = self.get("9")
            return really(self, {} if known is not None and known.owned else owners, *readings)  # type: ignore[arg-type]

        parts: list[Callable[[], object]] = [
            lambda: self.patch(rules, "REPORTS_TO_OWN", 2),
            lambda: self.patch(rules, "REPORTS_TO_OWN", 4),
            lambda: self.patch(KnownSensors, "left_unanswered", lambda *_: None),
            lambda: self.patch(KnownSensors, "may_pass", lambda self, known: True),
            lambda: self.patch(KnownSensors, "may_pass", lambda self, known: known.failed),
            lambda: self.patch(KnownSensors, "pass_on", lambda *_: None),
            lambda: self.patch(KnownSensors, "restore", lambda *_: ()),
            lambda: self.patch(KnownSensors, "restore", claims_are_kept),
        ]
        for take_out in parts:
            patched = take_out()
            self.assertIsNotNone(self.find(), take_out)
            patched.restore()  # type: ignore[attr-defined]


class OwnerTests(SynchronousTestCase):
    """
    Two boards with the same ids.
    """

    def setUp(self) -> None:
        """
        Configure two devices.
        """
        self.sensors = self.begin()

    def begin(self, *configured: tuple[str, str]) -> KnownSensors:
        """
        Start with the devices `a` and `b`.
        """
        sensors = KnownSensors(dict(configured))
        sensors.devices.update("ab")
        return sensors

    def report(self, device: str, times: int = 1, sensor: str = "9", **others: bool) -> None:
        """
        Report the sensor some times; the value is the device's name.
        """
        for _ in range(times):
            self.sensors.chunks += 1
            self.sensors.reported(sensor, device, 1, [reading(device, sensor=sensor, device=device)], **others)

    def test_one_line_takes_nothing(self) -> None:
        """
        However often another device reports a sensor that has an owner, the owner is asked.
        """
        self.report("a", 3)
        self.assertEqual(self.sensors.changes, [OwnerChange("9", "a", "claimed", "a")])
        self.report("b", 50)
        self.assertEqual(self.sensors.asked("9"), "a")
        known = self.sensors.get("9")
        assert known is not None
        self.assertEqual([each.text for each in known.readings()], ["a", "b"])
        self.report("b", answers=True)
        self.assertEqual(self.sensors.asked("9"), "a")

    def test_first_until_owned(self) -> None:
        """
        Until there is an owner, the device that reported first is asked; an answer or three reports own it.
        """
        self.report("a")
        self.report("b", 2)
        self.assertEqual((self.sensors.asked("9"), self.sensors.changes), ("a", []))
        self.report("b")
        self.assertEqual(self.sensors.asked("9"), "b")
        self.report("b", sensor="7")
        self.report("a", sensor="7", answers=True)
        self.assertEqual(self.sensors.asked("7"), "a")

    def test_passes(self) -> None:
        """
        It passes when the owner leaves a question unanswered and another device was heard since the owner was.
        """
        self.report("a", 3)
        self.report("b")
        self.report("a")
        self.sensors.left_unanswered("9", "a")
        self.assertEqual(self.sensors.asked("9"), "a")
        self.report("b")
        self.assertEqual(self.sensors.asked("9"), "b")
        self.assertEqual(self.sensors.changes[-1], OwnerChange("9", "b", "passed", "a"))
        self.report("a")
        self.sensors.left_unanswered("9", "a")
        self.assertEqual(self.sensors.asked("9"), "b")
        self.sensors.left_unanswered("9", "b")
        self.assertEqual(self.sensors.asked("9"), "a")

    def test_configured(self) -> None:
        """
        The configured device is asked, whoever reports and whatever it leaves unanswered.
        """
        self.sensors = self.begin(("9", "b"))
        self.report("a", 5, answers=True)
        self.report("b")
        self.report("a")
        self.sensors.left_unanswered("9", "b")
        self.assertEqual((self.sensors.asked("9"), self.sensors.changes), ("b", []))

    def test_single_device(self) -> None:
        """
        With one device there is nothing to store.
        """
        self.sensors.devices.discard("b")
        self.report("a", 5, answers=True)
        self.assertEqual(self.sensors.changes, [])

    def test_stored(self) -> None:
        """
        A stored owner is asked before it is heard again, and whoever reported first meanwhile.
        """
        self.report("b", 5, answers=True)
        list(self.sensors.restore({"9": "a", "7": "a"}, []))
        self.assertEqual((self.sensors.asked("9"), self.sensors.asked("7")), ("a", "a"))
        self.report("b", 5, sensor="7")
        self.assertEqual(self.sensors.asked("7"), "a")


class MemoryTests(SynchronousTestCase):
    """
    More sensors than are remembered; here 20 of each device.
    """

    def setUp(self) -> None:
        """
        Configure two devices; the sensors `k…` are kept.
        """
        self.patch(rules, "SENSORS_REMEMBERED", 20)
        self.patch(rules, "FORGOTTEN_AT_ONCE", 3)
        self.looks = 0
        self.alarmed: set[str] = set()

        def kept() -> set[str]:
            self.looks += 1
            return {"k1", "k2", *self.alarmed}

        self.sensors = KnownSensors(kept=kept)
        self.sensors.devices.update("ab")

    def report(self, device: str, sensor: str, answers: bool = False) -> None:
        """
        Report a sensor.
        """
        self.sensors.chunks += 1
        self.sensors.reported(sensor, device, 1, [], answers)

    def test_oldest_heard(self) -> None:
        """
        In a random world, the sensors of a device that were heard last are known, and those that are kept.
        """
        for seed in range(50):
            self.setUp()
            random = Random(seed)
            expected: dict[str, OrderedDict[str, bool]] = {"a": OrderedDict(), "b": OrderedDict()}
            for _ in range(300):
                device = random.choice("aab")
                sensor = f"{device}{random.randrange(40)}"
                if device == "a" and random.random() < 0.05:
                    sensor = random.choice(["k1", "k2"])
                own = expected[device]
                asked = random.random() < 0.02
                self.report(device, sensor, asked)
                if sensor not in own and len(own) == 20:
                    old = next((each for each, kept in own.items() if not kept), None)
                    if old is None:
                        continue
                    del own[old]
                own[sensor] = own.get(sensor, False) or asked or sensor.startswith("k")
                own.move_to_end(sensor)
            known = {*self.sensors.ids()}
            self.assertEqual(known, {*expected["a"], *expected["b"]}, seed)

    def test_kept_later(self) -> None:
        """
        A sensor that was to be forgotten next is kept if an alarm is raised meanwhile, or it is asked.
        """
        for n in range(21):  # the first one is forgotten
            self.report("a", f"a{n}")
        self.alarmed.add("a1")
        self.sensors.asked("a2")
        self.report("a", "a21")
        expected = {"a1", "a2", *(f"a{n}" for n in range(4, 22))}
        self.assertEqual({*self.sensors.ids()}, expected)

    def test_of_another(self) -> None:
        """
        A device that reports a sensor of another one, which was forgotten, pushes out none of that one's.
        """
        list(self.sensors.restore({"old": "a"}, []))
        for n in range(20):
            self.report("a", f"a{n}")
        self.report("b", "old")
        self.assertEqual({*self.sensors.ids()}, {f"a{n}" for n in range(20)})
        self.report("a", "old")
        self.assertIsNone(self.sensors.get("a0"))
        self.assertIsNotNone(self.sensors.get("old"))

    def test_all_kept(self) -> None:
        """
        Where all sensors are kept, others are not remembered, and they are not looked through for each report.
        """
        for n in range(20):
            self.report("a", f"a{n}", answers=True)
        self.looks = 0
        for n in range(20):
            self.report("a", f"ghost{n}")
        self.assertEqual(len(self.sensors), 20)
        self.assertLessEqual(self.looks, 3)

    def test_restored(self) -> None:
        """
        The newest stored readings are remembered, but in place of none that was heard.
        """
        for n in range(5):
            self.report("a", f"a{n}")
        list(self.sensors.restore({}, [reading(1.0, sensor=f"s{n}", device="a", at=n) for n in range(30)]))
        expected = [*(f"a{n}" for n in range(5)), *(f"s{n}" for n in range(15, 30))]
        self.assertEqual(sorted(self.sensors.ids()), sorted(expected))
