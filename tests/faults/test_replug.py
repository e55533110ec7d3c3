"""
A device goes away and comes back, under the same name or another: the real daemon, real ptys, a simulated sysfs.
"""

from __future__ import annotations

import json
import socket

from click.testing import CliRunner

from tests.faults.ledger import measured, processor_time
from tests.support.daemon import RunningCase
from tests.support.running import RUN, LineClient, PtyDevice, TwistdDaemon, environment
from tests.support.usb import MadeUpUsb
from tests.support.waiting import LIMIT, eventually
from usbgate.cli.main import main
from usbgate.core.fieldline import parse
from usbgate.device.reconnect import reopen_policy

LEONARDO = ("2341:8036", "85432")
CLONE = ("1a86:7523", None)

# Seconds that a daemon whose devices are away is looked at, and the seconds of a CPU that it may use in that time: it
# uses 0.02, one that spins all of them.
LOOKED_AT = 0.75
MAY_USE = 0.2


class ReplugCase(RunningCase):
    """
    A machine into which devices are plugged.
    """

    def setUp(self) -> None:
        """
        Start with nothing plugged in.
        """
        super().setUp()
        self.usb = MadeUpUsb(self.folder)
        self.devices: dict[str, PtyDevice] = {}

    def plug_in(self, port: str, kind: tuple[str, str | None], tty: str, value: str = "0") -> None:
        """
        Plug in a device that answers everything but `QUIET` with its own value.
        """

        def answer(fields: dict[str, str]) -> list[bytes]:
            if fields["MSG"] == "QUIET":
                return []
            return [f"ID:{fields['ID']}_VALUE:{value}_MSG:{fields['MSG']}".encode()]

        device = self.devices.get(port)
        if device is None:
            self.devices[port] = PtyDevice(self.usb.dev / tty, answer)
            self.addCleanup(self.pull_out, port)
        else:
            device.path = self.usb.dev / tty
            device.plug()
        self.usb.plug(port, *kind, **{tty: "1.0"})

    def pull_out(self, port: str) -> None:
        """
        Unplug the device at a port.
        """
        if self.usb.device(port).exists():
            self.usb.unplug(port)
            self.devices[port].unplug()

    def daemon(self, *devices: str) -> TwistdDaemon:
        """
        Run a daemon on this machine.
        """
        options = [option for device in devices for option in ("--device", device)]
        daemon = TwistdDaemon(self.state, "--database", "none", *options, program=self.usb.program())
        self.addCleanup(daemon.stop)
        return daemon.ready()

    def states(self, client: LineClient) -> dict[str, str]:
        """
        Return the states of the devices by name.
        """
        lines = [parse(line.encode()) for line in client.word("devices")[:-1]]
        return {fields["DEV"]: fields["STATE"] for fields in lines}


class ReplugTests(ReplugCase):
    """
    A device goes away and comes back.
    """

    def test_every_way_to_name_it(self) -> None:
        """
        By path, by its name in by-id, by its ids and by its port, a device is found again when its name and the names
        of others have changed, and no answer goes to the wrong request. Waiting requests and subscribers get `offline`.
        """
        by_id = self.usb.name_by_id("usb-Arduino_LLC_Arduino_Leonardo_85433-if00", "ttyACM1")
        places = {
            "path": str(self.usb.dev / "ttyACM0"),
            "byid": str(by_id),
            "ids": "usb:2341:8036:85432",
            "port": "usb-port:1-1.4",
        }
        first = ("ttyACM0", "ttyACM1", "ttyACM2", "ttyUSB0")
        second = ("ttyACM0", "ttyACM7", "ttyACM1", "ttyUSB1")
        # The fifth is what the port must not be taken for: another clone, without a serial number, too.
        plugs = [("1-2", LEONARDO[0], "1"), ("1-3", LEONARDO[0], "85433"), ("1-4", *LEONARDO), ("1-1.4", *CLONE)]
        self.plug_in("1-1.3", CLONE, "ttyUSB5")
        for number, ((port, ids, serial), tty) in enumerate(zip(plugs, first, strict=True)):
            self.plug_in(port, (ids, serial), tty, str(number))
        daemon = self.daemon(*[f"{place},name={name}" for name, place in places.items()])
        client = self.online(daemon)
        watcher = self.connect(daemon)
        watcher.word("watch")
        for name in places:
            client.say(f"MSG:QUIET_ID:{name}_DEV:{name}_ORIGIN:t_TIMEOUT:3600")
            client.receive()
        eventually(lambda: all(self.devices[port].received for port, *_ in plugs), "all are asked")

        for port, *_ in plugs:
            self.pull_out(port)
        self.usb.name_by_id(by_id.name, None)
        for lines in sorted(client.receive() for _ in places):
            self.assertRegex(lines, "^ERROR:offline_MSG:QUIET")
        self.assertEqual(
            sorted(watcher.receive() for _ in places),
            sorted(f"EVENT:device_DEV:{name}_STATE:offline" for name in places),
        )
        self.assertEqual(set(self.states(client).values()), {"offline"})

        for (port, ids, serial), tty in reversed(list(zip(plugs, second, strict=True))):
            self.plug_in(port, (ids, serial), tty)
        self.usb.name_by_id(by_id.name, "ttyACM7")
        self.assertEqual(
            sorted(watcher.receive() for _ in places),
            sorted(f"EVENT:device_DEV:{name}_STATE:online" for name in places),
        )
        for number, name in enumerate(places):
            self.assertRegex(client.word(f"ask {number} dev={name}")[0], f"^ID:{number}_VALUE:{number}_MSG:J_AT:")

    def test_away(self) -> None:
        """
        While devices are away the daemon uses almost no CPU and logs that once for each; then they are found.
        """
        self.plug_in("1-2", LEONARDO, "ttyACM0")
        path = self.usb.dev / "ttyUSB0"
        daemon = self.daemon("usb:2341:8036,name=ids", "usb-port:1-1.4,name=port", f"{path},name=path")
        client = self.connect(daemon)
        eventually(
            lambda: self.states(client) == {"ids": "online", "port": "offline", "path": "offline"},
            "one is open, the others have been looked for",
        )
        self.pull_out("1-2")
        eventually(lambda: set(self.states(client).values()) == {"offline"}, "all are away")
        self.assertLess(measured(lambda: processor_time(daemon.process.pid), LOOKED_AT), MAY_USE)
        refusals = [line for line in daemon.log.splitlines() if "cannot be opened" in line]
        self.assertEqual(len(refusals), 3, refusals)
        self.assertIn("ids cannot be opened: usb:2341:8036: no such device; plug it in", refusals[2])
        self.plug_in("1-4", LEONARDO, "ttyACM3")
        self.plug_in("1-1.4", CLONE, "ttyUSB0")
        eventually(lambda: self.states(client)["ids"] == "online", "it is found in another port")
        # Two names for one device: one of them has it, and the other reports that it is in use.
        eventually(lambda: sorted(self.states(client).values()) == ["offline", "online", "online"], "one has it")

    def test_back_within_a_second(self) -> None:
        """
        However often it was looked for in vain, a device is looked for again within 0.8 s, after varying times, and
        never at once.
        """
        for attempt in (1, 2, 5, 1000, 10**9):
            waits = {reopen_policy(attempt) for _ in range(100)}
            self.assertTrue(all(0.2 <= wait <= 0.8 for wait in waits), waits)
            self.assertGreater(len(waits), 1)


class CloneTests(ReplugCase):
    """
    Two devices with the same ids and serial number.
    """

    def command(self, daemon: TwistdDaemon, *arguments: str) -> tuple[int, str, str]:
        """
        Run `usbgate` with all rights; return its exit status and its output.
        """
        token, *_ = (daemon.state / "local-token").read_text().splitlines()
        options = ["-p", str(daemon.port)]
        run = CliRunner().invoke(main, [*arguments, *options], env={**environment(), "USBGATE_TOKEN": token})
        return run.exit_code, run.stdout, run.stderr

    def test_clones(self) -> None:
        """
        Of two identical devices neither is opened by its ids, and `usbgate devices` says how to name each; by its port
        each is served. When one of them is unplugged the other is opened.
        """
        self.plug_in("1-1.3", CLONE, "ttyUSB0", "3")
        self.plug_in("1-1.4", CLONE, "ttyUSB1", "4")
        by_id = self.usb.name_by_id("usb-1a86_USB_Serial-if00-port0", "ttyUSB1")
        daemon = self.daemon(f"{by_id},name=byid", "usb-port:1-1.3,name=port", "usb:1a86:7523,name=ids")
        client = self.connect(daemon)
        eventually(
            lambda: self.states(client) == {"byid": "online", "port": "online", "ids": "offline"}, "two are open"
        )
        eventually(lambda: "ids cannot be opened" in daemon.log, "the third was looked for")
        status, said, complained = self.command(daemon, "devices", "--json")
        self.assertEqual((status, complained), (0, ""))
        doubt = (
            "2 devices match this name; use the port of one instead:"
            " usb-port:1-1.3 (ttyUSB0, 1a86:7523), usb-port:1-1.4 (ttyUSB1, 1a86:7523)"
        )
        self.assertEqual(
            [(device["name"], device["path"], device["warning"]) for device in json.loads(said)],
            [("byid", str(by_id), doubt), ("port", "usb-port:1-1.3", None), ("ids", "usb:1a86:7523", doubt)],
        )
        self.assertIn(f"ids cannot be opened: usb:1a86:7523: {doubt}", daemon.log)
        self.assertRegex(client.word("ask 1 dev=port")[0], "^ID:1_VALUE:3_")
        self.assertRegex(client.word("ask 2 dev=byid")[0], "^ID:2_VALUE:4_")

        self.pull_out("1-1.3")
        eventually(lambda: self.states(client)["port"] == "offline", "one is unplugged")
        eventually(lambda: "2 devices match" not in self.command(daemon, "devices")[1], "it is no more in doubt")
        # The other two names mean one port now.
        eventually(lambda: "usbgate itself has it open" in self.command(daemon, "devices")[1], "it is open once")
        self.pull_out("1-1.4")
        eventually(lambda: set(self.states(client).values()) == {"offline"}, "both are unplugged")
        self.usb.name_by_id(by_id.name, None)
        self.plug_in("1-1.4", CLONE, "ttyUSB0", "4")
        eventually(lambda: self.states(client)["ids"] == "online", "the only one is taken")
        self.assertRegex(client.word("ask 2 dev=ids")[0], "^ID:2_VALUE:4_")


class BriefConnectionTests(RunningCase):
    """
    A serial server that is in use.
    """

    def test_in_use(self) -> None:
        """
        The log tells of it once, not at every attempt.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(LIMIT)
            daemon = TwistdDaemon(
                self.state,
                *("--database", "none", "--device", f"tcp:127.0.0.1:{server.getsockname()[1]}"),
                program=RUN,
            )
            self.addCleanup(daemon.stop)
            daemon.ready()
            for _ in range(3):  # the end of the second is logged before the third
                connection, _ = server.accept()
                connection.sendall(b"Port already in use\r\n")
                connection.close()
        log = daemon.log
        self.assertEqual(log.count("only briefly again and again: is another client connected"), 1, log)
        self.assertEqual(log.count("was disconnected"), 1, log)
