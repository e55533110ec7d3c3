"""
The names of topics.
"""

from __future__ import annotations

from hypothesis.strategies import text
from twisted.trial.unittest import SynchronousTestCase

from tests.support.draws import given
from usbgate.mqtt.topics import Topics, escape, unescape

NAMES = text(min_size=1).filter(lambda name: name.isprintable())


class EscapeTests(SynchronousTestCase):
    """
    Names as levels of topics.
    """

    def test_spelling(self) -> None:
        """
        All but letters, digits and hyphens is escaped, by the bytes of its UTF-8.
        """
        for name, level in [
            ("20", "20"),
            ("node-7", "node-7"),
            ("TEMP_IN", "TEMP_5FIN"),
            ("a/b+c#", "a_2Fb_2Bc_23"),
            ("$SYS", "_24SYS"),
            ("salle à", "salle_20_C3_A0"),
        ]:
            self.assertEqual(escape(name), level)
            self.assertEqual(unescape(level), name)

    @given(NAMES)
    def test_one_to_one(self, name: str) -> None:
        """
        Each name can be read back.
        """
        self.assertEqual(unescape(escape(name)), name)

    def test_other_levels(self) -> None:
        """
        What is no escaped name, is an error.
        """
        for level in ["_availability", "a b", "_2f", "_41", "a_", "_C3", "é"]:
            self.assertRaises(ValueError, unescape, level)


class TopicsTests(SynchronousTestCase):
    """
    The topics of a gateway.
    """

    def test_topics(self) -> None:
        """
        They are those that docs/mqtt.md lists.
        """
        topics = Topics("home.1")
        self.assertEqual(topics.availability, "usbgate/home_2E1/availability")
        self.assertEqual(topics.ask, "usbgate/home_2E1/ask")
        self.assertEqual(topics.events, "usbgate/home_2E1/events")
        self.assertEqual(topics.device_availability("leonardo"), "usbgate/home_2E1/leonardo/_availability")
        self.assertEqual(topics.sensor("leonardo", "20"), "usbgate/home_2E1/leonardo/20")
        self.assertEqual(topics.value("leonardo", "20", "TEMP"), "usbgate/home_2E1/leonardo/20/TEMP")
        self.assertEqual(topics.sensor_events("leonardo", "20"), "usbgate/home_2E1/leonardo/20/_events")
