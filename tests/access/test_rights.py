"""
The table of rights, and what docs/security.md prints of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_network
from typing import get_args

from twisted.trial.unittest import SynchronousTestCase

from tests.support.access import EVENTS
from tests.support.running import ROOT
from usbgate.access.doors import LOCAL, ClientRules, Door, Rule
from usbgate.access.rights import RIGHTS, WORD_ROLES
from usbgate.access.roles import Role
from usbgate.core.errors import Unauthenticated
from usbgate.core.model import Event
from usbgate.mqtt.topics import Topics
from usbgate.server.commands import WORDS
from usbgate.web.api import Api
from usbgate.web.serialize import event_json

SECURITY = (ROOT / "docs" / "security.md").read_text()


class RightsTests(SynchronousTestCase):
    """
    `RIGHTS`.
    """

    def test_complete(self) -> None:
        """
        The table has every word, every call and every topic, once, and every kind of event.
        """
        self.assertEqual(sorted(word for right in RIGHTS for word in right.words), sorted(WORDS))
        self.assertEqual({name: word.role for name, word in WORDS.items()}, WORD_ROLES)
        calls = [f"{call.method} {call.path}" for call in Api.calls.documented]
        self.assertEqual(sorted(call for right in RIGHTS for call in right.calls), sorted(calls))
        topics = {event_json(event, {})[0] for event in EVENTS}
        self.assertEqual({topic for right in RIGHTS for topic in right.topics}, topics)
        self.assertEqual(len(EVENTS), len(get_args(Event)))
        names = Topics("GATEWAY")
        device, sensor = "DEVICE", "SENSOR"
        mqtt = [names.availability, names.ask, names.events, names.device_availability(device)]
        mqtt += [
            names.sensor(device, sensor),
            names.sensor_events(device, sensor),
            names.value(device, sensor, "FIELD"),
        ]
        listed = [f"{names.base}/{topic}" for right in RIGHTS for topic in right.mqtt]
        self.assertEqual(sorted(listed), sorted(mqtt))

    def test_page(self) -> None:
        """
        docs/security.md prints the table.
        """
        for right in RIGHTS:
            words = ", ".join(f"`{word}`" for word in right.words)
            role = "none" if right.role is Role.NONE else f"`{right.role.spelled}`"
            calls = ", ".join(f"`{call.replace('/api/v1/', '')}`" for call in right.calls)
            topics = ": " + ", ".join(f"`{topic}`" for topic in right.topics) if right.topics else ""
            mqtt = ", ".join(f"`{topic}`" for topic in right.mqtt)
            self.assertIn(f"| {role} | {right.does}{topics} | {words} | {calls} | {mqtt} |\n", SECURITY)


# Who connects where without a token, as docs/security.md has it, and what role that gives.
OWN, OTHER = os.geteuid(), 4711
LAN = Rule(Role.READ, [ip_network("192.168.1.0/24"), ip_network("127.0.0.1")])
USER = Rule(Role.ASK, users=frozenset([OTHER, 0]))
DOORS: Sequence[tuple[str, Door, tuple[bool, int | None, str], Sequence[Rule], Role]] = (
    ("any, with `proxied`", Door(proxied=True), (True, 0, "local"), [USER], Role.NONE),
    ("any, with `proxied`", Door(proxied=True), (False, None, "192.168.1.2"), [LAN], Role.NONE),
    ("a Unix socket, as the daemon's user or root", LOCAL, (True, OWN, "local"), [USER], Role.ADMIN),
    ("a Unix socket, as the daemon's user or root", Door(Role.READ), (True, 0, "local"), [USER], Role.ADMIN),
    ("any, as a `[[client]]`", LOCAL, (False, None, "192.168.1.2"), [LAN, USER], Role.READ),
    ("any, as a `[[client]]`", LOCAL, (False, None, "::ffff:192.168.1.2"), [LAN], Role.READ),
    ("any, as a `[[client]]`", Door(Role.ADMIN), (True, None, "127.0.0.1"), [USER, LAN], Role.READ),
    ("any, as a `[[client]]`", LOCAL, (True, OTHER, "local"), [LAN, USER], Role.ASK),
    ("any, as a `[[client]]`", Door(insecure=True), (False, None, "192.168.1.2"), [LAN], Role.READ),
    ("any, with `role`", Door(Role.ASK), (False, None, "192.168.2.2"), [LAN], Role.ASK),
    ("any, with `role`", Door(Role.ASK), (True, OTHER, "local"), [], Role.ASK),
    ("on this machine", LOCAL, (True, None, "127.0.0.2"), [LAN], Role.COMMAND),
    ("on this machine", LOCAL, (True, OTHER, "local"), [LAN], Role.COMMAND),
    ("elsewhere, with `insecure`", Door(insecure=True), (False, None, "192.168.2.2"), [LAN], Role.COMMAND),
    ("elsewhere", LOCAL, (False, None, "192.168.2.2"), [LAN], Role.NONE),
    ("elsewhere", LOCAL, (False, None, "fe80::1%eth0"), [LAN], Role.NONE),
)


class DoorTests(SynchronousTestCase):
    """
    `Door`: who has which role without a token.
    """

    def test_roles(self) -> None:
        """
        Who connects where; the user of a Unix socket is recorded, except a proxy's.
        """
        for where, door, (is_local, user, host), rules, role in DOORS:
            access = door.admit(is_local, user, host, ClientRules(rules))
            who = None if user is None or door.proxied else f"uid{user}"
            self.assertEqual((access.role, access.who), (role, who), (where, door, host))
            self.assertEqual(door.is_open, door.insecure)

    def test_page(self) -> None:
        """
        docs/security.md prints it, in the order in which it counts.
        """
        rows = dict.fromkeys(
            (where, "that of the table" if "client" in where else "that one" if "`role`" in where else role.spelled)
            for where, _, _, _, role in DOORS
        )
        table = "".join(
            f"| {where} | {role if ' ' in role or role == 'none' else f'`{role}`'} |\n" for where, role in rows
        )
        mqtt = (
            "| over MQTT | `role` of `[mqtt]`, for all clients of the broker"
            " ([mqtt.md](mqtt.md#what-the-brokers-clients-may-do)) |\n"
        )
        self.assertIn(f"| where | role |\n| --- | --- |\n{mqtt}{table}", SECURITY)

    def test_first(self) -> None:
        """
        Of several rules for a client, the first one counts, however its network is written.
        """
        everybody = [ip_network("0.0.0.0/0"), ip_network("::/0")]
        house, host = ip_network("10.0.0.0/8"), ip_network("10.0.0.7")
        for networks, role in [
            ([[house], [host]], Role.READ),
            ([[host], [house]], Role.READ),
            ([everybody, [house]], Role.READ),
            ([[ip_network("10.0.0.8")], [ip_network("fd00::/8"), house], everybody], Role.ASK),
            ([[ip_network("10.0.0.8/29")], [ip_network("10.0.1.0/24")], everybody], Role.COMMAND),
        ]:
            rules = map(Rule, (Role.READ, Role.ASK, Role.COMMAND), networks)
            self.assertEqual(Door(Role.NONE).admit(False, None, "10.0.0.7", ClientRules(rules)).role, role, networks)

    def test_sensors(self) -> None:
        """
        A rule may limit the sensors.
        """
        rule = Rule(Role.COMMAND, [ip_network("::1")], sensors=frozenset(["20"]))
        access = LOCAL.admit(True, None, "::1", ClientRules([rule]))
        access.check_sensor("20")
        self.assertRaises(Unauthenticated, access.check_sensor, "99")
        self.assertTrue(access.is_restricted)
