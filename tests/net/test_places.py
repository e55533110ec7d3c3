"""
Places for connections.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from usbgate.net.places import NoPlace, Places, is_local


class PlacesTests(SynchronousTestCase):
    """
    Who gets a place.
    """

    def test_of_address(self) -> None:
        """
        One address gets so many, all addresses of an IPv6 network count as one, and whoever leaves makes room.
        """
        places = Places[int](100, 2)
        for n, host in enumerate(["10.0.0.7", "10.0.0.7", "2001:db8::1", "2001:db8::2"]):
            self.assertIsNone(places.take(n, host))
        self.assertIs(places.take(4, "::ffff:10.0.0.7"), NoPlace.OF_ADDRESS)
        self.assertIs(places.take(5, "2001:db8::3"), NoPlace.OF_ADDRESS)
        self.assertIsNone(places.take(6, "2001:db8:0:1::1"))
        self.assertEqual((len(places), 5 in places, 6 in places), (5, False, True))
        places.leave(0)
        places.leave(0)
        self.assertIsNone(places.take(7, "10.0.0.7"))
        self.assertIs(places.take(8, "10.0.0.7"), NoPlace.OF_ADDRESS)

    def test_reserve(self) -> None:
        """
        A tenth of the places is for this machine, which has no limit of its own.
        """
        places = Places[int](20, 5)
        refused = [places.take(n, f"10.0.0.{n}") for n in range(20)]
        self.assertEqual(refused, [None] * 18 + [NoPlace.IN_ALL] * 2)
        self.assertEqual([places.take(n, "127.0.0.1") for n in (20, 21, 22)], [None, None, NoPlace.IN_ALL])

    def test_local(self) -> None:
        """
        Loopback addresses are this machine's, and so are peers without an address.
        """
        for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "local"):
            self.assertTrue(is_local(host), host)
        for host in ("10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "2001:db8::1"):
            self.assertFalse(is_local(host), host)
