"""
The tree of services.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from twisted.application.service import Application, Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support import separated
from tests.support.running import environment
from tests.support.usb import MadeUpUsb
from usbgate import __version__, tap
from usbgate.access.authority import Authority
from usbgate.access.doors import LOCAL, Door
from usbgate.access.roles import Role
from usbgate.assembly import daemon as daemon_module
from usbgate.assembly import devices as devices_module
from usbgate.assembly import reload as reload_module
from usbgate.assembly import rules as rules_module
from usbgate.assembly.daemon import build
from usbgate.assembly.reload import Reload
from usbgate.config.settings import DeviceSettings, HttpSettings, Settings
from usbgate.config.types import ConfigError, ListenAddress
from usbgate.core.extras import TLS, install_command
from usbgate.core.model import BoardKind
from usbgate.core.rules import Rules
from usbgate.core.settings import FieldSettings
from usbgate.daemon.clock import SystemClock
from usbgate.daemon.logfile import open_log
from usbgate.daemon.service import Daemon
from usbgate.device.interfaces import IDialect
from usbgate.device.link import Link
from usbgate.device.usb import UsbTree
from usbgate.gateway.gateway import Gateway
from usbgate.net.listeners import Listeners
from usbgate.rules.service import RuleService
from usbgate.rules.settings import MailSettings, RuleSettings

# A dialect, its options, and the error.
WRONG_DIALECTS: list[tuple[str, dict[str, object], str]] = [
    ("klingon", {}, "device.board.dialect: there is no module usbgate.device.dialects.klingon"),
    ("no.module", {}, "device.board.dialect: there is no module no.module"),
    ("tests.test_tap", {}, "device.board.dialect: tests.test_tap has no class Dialect"),
    ("fields", {"bauds": 1}, "device.board.bauds: unknown key, did you mean baud?"),
    ("fields", {"silent": "1m"}, "device.board.silent: unknown key, did you mean silence?"),
    ("fields", {"colour": 1}, "device.board.colour: unknown key, expected checksum or names or join"),
    ("fields", {"checksum": 1}, "device.board.checksum: expected true or false, got 1"),
    ("fields", {"names": ["A B"]}, "device.board.names: expected names such as [\"TEMP_IN\"], got ['A B']"),
    ("fields", {"names": ["TEMP_IN", "temp-in"]}, "device.board.names: two are the same: ['TEMP_IN', 'temp-in']"),
    ("fields", {"names": ["msg"]}, "device.board.names: msg is reserved"),
    ("fields", {"names": 1}, 'device.board.names: expected texts such as ["A", "B"], got 1'),
    ("fields", {"join": "no"}, "device.board.join: expected true or false, got 'no'"),
    ("tests.support.separated", {"separator": 1}, "device.board.separator: expected a text, got 1"),
]


class OptionsTests(SynchronousTestCase):
    """
    The options of `twistd usbgate`.
    """

    def test_version(self) -> None:
        """
        The version is usbgate's own, not Twisted's.
        """
        printed = io.StringIO()
        with redirect_stdout(printed):
            ended = self.assertRaises(SystemExit, tap.Options().parseOptions, ["--version"])
        self.assertEqual((ended.code, printed.getvalue()), (0, f"usbgate {__version__}\n"))

    def test_password(self) -> None:
        """
        A password on the command line, where everybody can read it, is refused with the remedies, and not shown.
        """
        for url in ("postgresql://me:sesame@db/home", "host=db password=sesame", "postgresql://me:ses%ame@db/home"):
            ended = self.assertRaises(SystemExit, tap.Options().parseOptions, ["--database", url])
            self.assertNotIn("ame@", str(ended.code))
            self.assertNotIn("sesame", str(ended.code))
            self.assertIn("%25" if "%" in url else "PGPASSFILE", str(ended.code))

    def test_links(self) -> None:
        """
        A link that another user has put in place of the state folder, the log or the pid file is refused.
        """
        looked_at: list[str] = []

        def refuse(path: Path) -> str | None:
            looked_at.append(path.name)
            return f"{path} is bad" if path.name == "twistd.pid" else None

        self.patch(tap, "foreign_link", refuse)
        options = tap.Options()
        parent: Any = {"pidfile": "twistd.pid", "rundir": "/somewhere"}
        options.parent = parent
        ended = self.assertRaises(SystemExit, options.parseOptions, ["--state", "/state", "--device", "/dev/x"])
        self.assertEqual(str(ended.code), "usbgate: /somewhere/twistd.pid is bad")
        self.assertEqual(looked_at, ["state", "twistd.log", "twistd.pid"])

    def test_pid_file(self) -> None:
        """
        A pid file that twistd could not write, or not read, is one line with the remedy.
        """
        folder = Path(self.mktemp())
        for name in ("missing/twistd.pid", "folder"):
            (folder / "folder").mkdir(parents=True, exist_ok=True)
            options = tap.Options()
            parent: Any = {"pidfile": name, "rundir": str(folder)}
            options.parent = parent
            ended = self.assertRaises(SystemExit, options.parseOptions, ["--state", "/state", "--device", "/dev/x"])
            self.assertRegex(
                str(ended.code),
                rf"\Ausbgate: the pid file /.*/{name} cannot be used: \w[^:]+; run this in another folder, or use "
                r"twistd --pidfile=FILE\Z",
            )

    def test_log(self) -> None:
        """
        A log that cannot be opened is one line with the remedy.
        """
        path = Path(self.mktemp(), "twistd.log")
        daemon = Daemon(open_log=partial(open_log, str(path), MemoryReactorClock()))
        ended = self.assertRaises(SystemExit, daemon.setServiceParent, Application("usbgate"))
        self.assertEqual(
            str(ended.code),
            f"usbgate: the log {path.absolute()} cannot be opened: No such file or directory; run this in another "
            "folder, or use twistd --logfile=FILE",
        )

    def test_exposed(self) -> None:
        """
        An address that other machines can reach ends the start.
        """
        for option in ("--listen", "--http"):
            options = ["--state", self.mktemp(), option, "tcp:1"]
            ended = self.assertRaises(SystemExit, tap.Options().parseOptions, options)
            self.assertRegex(str(ended.code), r"\Ausbgate: [a-z.]*listen: other machines can reach tcp:1\. [^\n]+\Z")


class ReloadTests(SynchronousTestCase):
    """
    SIGHUP.
    """

    def setUp(self) -> None:
        self.patch(reload_module, "deferToThread", maybeDeferred)

    def reload(self, load_again: Callable[[], Settings], take_over: Callable[[Settings], None]) -> None:
        """
        Reload once.
        """
        reload = Reload(load_again, take_over)
        reload.startService()
        reload.request()
        self.successResultOf(maybeDeferred(reload.stopService))

    def test_reload(self) -> None:
        """
        A configuration that is wrong now changes nothing, and is logged in one line; one that is right is taken over.
        """
        file = Path(self.mktemp())
        file.write_text('[sensor.20]\nname = "a"\n')
        options = tap.Options()
        options.parseOptions(["--config", str(file), "--device", "/dev/x", "--state", "/state"])
        taken: list[Settings] = []
        tls = '[[rule]]\nwhen = "sensor 2 SMOKE == 1"\nwebhook = "https://host/"\n'
        for wrong in ("[sensor.20", '[sensor.20]\nname = "b"\nstale = "now"\n', '[[client]]\nrole = "read"\n', tls):
            file.write_text(wrong)
            with capturedLogs() as logs:
                self.reload(options.load_again, taken.append)
            (event,) = logs
            begin = f"the configuration was not reloaded, and nothing has changed: {file.absolute()}: "
            text = formatEvent(event) or ""
            self.assertTrue(text.startswith(begin), text)
            self.assertEqual("restart usbgate" in text, wrong is tls, text)  # which has not loaded it
        self.assertEqual(taken, [])
        file.write_text('[sensor.20]\nname = "b"\n')
        self.reload(options.load_again, taken.append)
        self.assertEqual(taken[0].sensors["20"].name, "b")

    def test_at_once(self) -> None:
        """
        It is read in a thread, once at a time, and once more if it may have changed meanwhile.
        """
        reading: list[Deferred[Settings]] = []

        def begin(load_again: Callable[[], Settings]) -> Deferred[Settings]:
            reading.append(Deferred())
            return reading[-1]

        self.patch(reload_module, "deferToThread", begin)
        first, second = (Settings(state=Path(name)) for name in "ab")
        taken: list[Settings] = []
        reload = Reload(lambda: first, taken.append)
        reload.startService()
        for _ in range(3):
            reload.request()
        self.assertEqual(len(reading), 1)
        reading[0].callback(first)
        self.assertEqual((taken, len(reading)), ([first], 2))
        reading[1].callback(second)
        self.assertEqual((taken, len(reading)), ([first, second], 2))
        reload.request()
        self.successResultOf(maybeDeferred(reload.stopService))
        reading[2].callback(first)  # while it stops
        self.assertEqual(taken, [first, second])

    def test_unexpected(self) -> None:
        """
        An error of ours is logged, and the next reload works.
        """
        for _ in range(2):
            self.reload(lambda: Settings(state=Path("a")), lambda loaded: 1 / 0)  # type: ignore[arg-type]
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_taken_over(self) -> None:
        """
        At SIGHUP, sensors, clients and rules are those of the file: names, alarms, patience, rights, and new sensors.
        """
        file = Path(self.mktemp())
        file.write_text('[sensor.20]\nname = "a"\n')
        options = tap.Options()
        options.parseOptions(["--config", str(file), "--device", "/dev/x", "--database", "none", "--http", "none"])
        settings, reactor = options.settings, MemoryReactorClock()
        reloads: list[Callable[[], None]] = []
        authorities: list[Authority] = []

        class Signalled(Service):
            def __init__(self, reactor: object, reopen: object, reload: Callable[[], None]) -> None:
                reloads.append(reload)

        taken: list[Sequence[RuleSettings]] = []

        class TakingRules(RuleService):
            def configure(self, rules: Sequence[RuleSettings], mail: MailSettings | None) -> None:
                taken.append(rules)

        class Kept(Authority):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                authorities.append(self)

        self.patch(daemon_module, "Signals", Signalled)
        self.patch(daemon_module, "Authority", Kept)
        self.patch(rules_module, "RuleService", TakingRules)
        self.patch(Reload, "running", 1)
        build(reactor, SystemClock(), settings, options.named_devices, load_again=options.load_again)
        file.write_text(
            '[sensor.20]\nname = "b"\n[sensor.21]\npatience = 7\nfield.T.alarm = "> 60"\n'
            '[[client]]\nusers = [7]\nrole = "read"\n[[rule]]\nwhen = "sensor 20 stale"\nalarm = true\n'
        )
        reloads[0]()
        self.assertEqual((settings.sensors["20"].name, settings.sensors["21"].patience), ("b", 7.0))
        self.assertEqual(
            [authorities[0].admit(LOCAL, True, user, "").role for user in (7, 8)], [Role.READ, Role.COMMAND]
        )
        self.assertEqual([rule.when.text for rules in taken for rule in rules], ["sensor 20 stale"])


class BuildTests(SynchronousTestCase):
    """
    What the settings say reaches the parts.
    """

    def test_dialect_options(self) -> None:
        """
        Each device has a dialect of its own, made with the device's options.
        """
        self.patch(separated.Dialect, "separators", [])
        devices = {
            name: DeviceSettings(
                path=f"/dev/{name}", dialect="tests.support.separated", options={"separator": separator}
            )
            for name, separator in [("one", "|"), ("other", ",")]
        }
        settings = Settings(state=Path(self.mktemp()), database="none", http=HttpSettings(listen=ListenAddress("none")))
        build(MemoryReactorClock(), SystemClock(), settings, devices)
        self.assertEqual(separated.Dialect.separators, ["|", ","])

    def test_dialect(self) -> None:
        """
        A dialect knows its device, and what it says of the port holds unless something else is configured; the gateway
        gets what it knows of fields.
        """
        made: list[Any] = []
        added: list[tuple[float, Mapping[str, FieldSettings]]] = []  # how often to store, and what is known of fields

        def link(reactor: Any, endpoint: Any, name: str, path: str, dialect: IDialect, **others: Any) -> Link:
            made.append((repr(endpoint), dialect.device, dialect.tags))
            return Link(reactor, endpoint, name, path, dialect, **others)

        self.patch(devices_module, "Link", link)
        self.patch(Gateway, "add_link", lambda gateway, link, rules, warning, *others: added.append(others))
        devices = {
            "one": DeviceSettings(path="/dev/one", dialect="tests.support.separated", tags=True),
            "other": DeviceSettings(
                path="/dev/other",
                dialect="tests.support.separated",
                baud=9600,
                store=0.0,
                given=frozenset({"baud", "store"}),
            ),
        }
        settings = Settings(state=Path(self.mktemp()), database="none", http=HttpSettings(listen=ListenAddress("none")))
        build(MemoryReactorClock(), SystemClock(), settings, devices)
        self.assertEqual(
            made,
            [
                ("<SerialEndpoint /dev/one at 1200 baud>", "one", True),
                ("<SerialEndpoint /dev/other at 9600 baud>", "other", False),
            ],
        )
        fields = {"TEMP-IN": FieldSettings(kind="temperature", label="Inside", unit="°C", decimals=1, rank=0)}
        self.assertEqual(added, [(inf, fields), (0.0, fields)])

    def test_wrong_dialects(self) -> None:
        """
        What is wrong with a dialect or its options is one line that names the device and the key.
        """
        settings = Settings(state=Path(self.mktemp()), database="none", http=HttpSettings(listen=ListenAddress("none")))
        for dialect, options, text in WRONG_DIALECTS:
            devices = {"board": DeviceSettings(path="/dev/board", dialect=dialect, options=options)}
            error = self.assertRaises(ConfigError, build, MemoryReactorClock(), SystemClock(), settings, devices)
            self.assertEqual(str(error), text)

    def test_window_of_one(self) -> None:
        """
        Where answers do not say what they answer, a window of more than one is refused.
        """
        self.patch(separated.Dialect, "alone", True)
        settings = Settings(state=Path(self.mktemp()), database="none", http=HttpSettings(listen=ListenAddress("none")))
        for window in (1, 2):
            devices = {"one": DeviceSettings(path="/dev/one", dialect="tests.support.separated", window=window)}
            if window == 1:
                build(MemoryReactorClock(), SystemClock(), settings, devices)
            else:
                with self.assertRaisesRegex(ConfigError, r"^device\.one\.window: expected 1, "):
                    build(MemoryReactorClock(), SystemClock(), settings, devices)

    def test_wrong_fields(self) -> None:
        """
        What a dialect says of fields is checked like a configuration; it may say nothing of alarms.
        """
        settings = Settings(state=Path(self.mktemp()), database="none", http=HttpSettings(listen=ListenAddress("none")))
        devices = {"board": DeviceSettings(path="/dev/board", dialect="tests.support.separated")}
        for name, key, value in (
            ("TEMP", "units", "K"),
            ("TEMP", "alarm", "> 1"),
            ("TEMP", "unit", 1),
            ("A B", "", ""),
        ):
            self.patch(separated.Dialect, "fields", {name: {key: value}})
            with self.assertRaisesRegex(
                ConfigError, f"^device.board.dialect.fields.{name}(.{key}: |: expected the name)"
            ):
                build(MemoryReactorClock(), SystemClock(), settings, devices)

    def test_boards(self) -> None:
        """
        Whether the board was reset is told from the device at each opening, unless DTR stays as it is; what the
        settings say of `settle` and `buffer` goes before that.
        """
        usb = MadeUpUsb(Path(self.mktemp()))
        usb.plug("1-2", "2341:0043", None, ttyACM0="1.0")
        self.patch(devices_module, "UsbTree", lambda: UsbTree(str(usb.sysfs), str(usb.dev)))
        boards: list[BoardKind] = []
        rules: list[Rules] = []

        def link(*arguments: Any, describe: Callable[[str | None], BoardKind], **others: Any) -> Link:
            boards.append(describe("/dev/ttyACM0"))
            return Link(*arguments, **others)

        self.patch(devices_module, "Link", link)
        self.patch(Gateway, "add_link", lambda gateway, link, its_rules, *others: rules.append(its_rules))
        devices = {
            "automatic": DeviceSettings(path="/dev/one"),
            "configured": DeviceSettings(path="/dev/two", reset="never", settle=3.0, buffer=127),
        }
        settings = Settings(state=Path(self.mktemp()), database="none", http=HttpSettings(listen=ListenAddress("none")))
        build(MemoryReactorClock(), SystemClock(), settings, devices)
        self.assertEqual(boards, [BoardKind(resets=True), BoardKind()])
        self.assertEqual([(each.settle, each.buffer) for each in rules], [(None, None), (3.0, 127)])

    def test_no_tls(self) -> None:
        """
        `ssl:` without the libraries of TLS is one line with the remedy.
        """
        name = "usbgate.net.tls"
        before = sys.modules.get(name)
        # Not `patch.dict`, which forgets what is imported meanwhile: klein can't be imported twice.
        sys.modules[name] = None  # type: ignore[assignment]
        if before is None:
            self.addCleanup(sys.modules.pop, name)
        else:
            self.addCleanup(sys.modules.update, {name: before})
        for settings in (
            Settings(state=Path("/s"), database="none", listen=(ListenAddress("ssl:1:privateKey=k"),)),
            Settings(state=Path("/s"), database="none", http=HttpSettings(listen=ListenAddress("ssl:1:privateKey=k"))),
        ):
            caught = self.assertRaises(ConfigError, build, MemoryReactorClock(), SystemClock(), settings, {})
            self.assertIn("TLS is not installed", str(caught))
            self.assertIn(install_command(TLS), str(caught))

    def test_tls_not_loaded(self) -> None:
        """
        The libraries of TLS, 12 MiB, are not loaded if nothing speaks TLS, although Twisted loads them if it can.
        """
        code = (
            "import sys; from usbgate import tap; options = tap.Options(); options.parseOptions(sys.argv[1:]);"
            "tap.makeService(options); print(*(name for name, module in sys.modules.items() if module))"
        )
        options = ["--state", self.mktemp(), "--device", "/dev/x", "--database", "none"]
        run = [sys.executable, "-c", code, *options]
        loaded = subprocess.run(run, check=True, capture_output=True, text=True, timeout=60, env=environment())
        modules = loaded.stdout.split()
        self.assertIn("twisted.internet.tcp", modules)
        self.assertEqual({"OpenSSL", "cryptography"}.intersection(modules), set())

    def test_doors(self) -> None:
        """
        Each address for line clients has the role that it is given.
        """
        listen = (
            ListenAddress("tcp:1:interface=127.0.0.1", Door(Role.READ)),
            ListenAddress("tcp:2:interface=127.0.0.1"),
        )
        http = HttpSettings(listen=ListenAddress("none"))
        settings = Settings(state=Path(self.mktemp()), database="none", http=http, listen=listen)
        reactor = MemoryReactorClock()
        daemon = build(reactor, SystemClock(), settings, {"board": DeviceSettings(path="/dev/none")})
        for service in daemon:
            if isinstance(service, Listeners):
                service.privilegedStartService()
        roles = {}
        for port, factory, *_ in reactor.tcpServers:
            client: Any = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4711))
            client.makeConnection(StringTransport())
            roles[port] = client.peer.access.role
        self.assertEqual(roles, {1: Role.READ, 2: Role.COMMAND})
