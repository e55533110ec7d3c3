"""
Configuration: what is read, what wins, and the one line that says what is wrong.
"""

from __future__ import annotations

import os
import re
from math import inf
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from usbgate.config.load import (
    CommandSettings,
    ConfigError,
    DeviceSettings,
    FieldSettings,
    SensorSettings,
    Settings,
    find_file,
    listen_port,
    load,
    only_device,
    parse_device,
)
from usbgate.config.settings import (
    COMMAND_KEYS,
    DEVICE_KEYS,
    FIELD_KEYS,
    HTTP_KEYS,
    SENSOR_KEYS,
    TABLES,
    TOP_KEYS,
    HttpSettings,
)

LEONARDO = '[device.leonardo]\npath = "/dev/ttyACM0"\n'
PLACE = (
    "a path that starts with / or ., a USB device such as usb:2341:8036[:SERIAL] or usb-port:1-1.3,"
    " or a Twisted client endpoint such as tcp:host:port"
)
LISTEN = "a Twisted server endpoint such as tcp:50007:interface=127.0.0.1"
HTTP = '"none" or a Twisted server endpoint such as tcp:8080:interface=127.0.0.1'
BUTTONS = 'commands by label such as { "Lamp on" = "ON", "Half" = "L LEVEL=50" }'
FIELDS = 'names of fields such as ["TEMP", "HUM"]'
TEXT = "a non-empty text without `_KEY:`"

# What a file says, and the line about it, behind the file's name.
WRONG = [
    (LEONARDO + 'baud = "fast"', 'device.leonardo.baud: expected an integer above 0, got "fast"'),
    (LEONARDO + "baud = 0", "device.leonardo.baud: expected an integer above 0, got 0"),
    (LEONARDO + "baud = true", "device.leonardo.baud: expected an integer above 0, got true"),
    (LEONARDO + "bauds = 9600", "device.leonardo.bauds: unknown key, did you mean baud?"),
    (
        LEONARDO + "colour = 1",
        "device.leonardo.colour: unknown key, expected one of path, baud, dialect, window, tags, settle, patience,"
        " silence, reset, repeats",
    ),
    (LEONARDO + "window = 65", "device.leonardo.window: expected an integer from 1 to 64, got 65"),
    (LEONARDO + "window = 0", "device.leonardo.window: expected an integer from 1 to 64, got 0"),
    (LEONARDO + "settle = -1", "device.leonardo.settle: expected seconds from 0 to 60, got -1"),
    (LEONARDO + "silence = 0", "device.leonardo.silence: expected seconds from 1 to 604800, got 0"),
    (LEONARDO + 'reset = "often"', 'device.leonardo.reset: expected "never", "open" or "silent", got "often"'),
    (LEONARDO + "settle = nan", "device.leonardo.settle: expected seconds from 0 to 60, got NaN"),
    (LEONARDO + "patience = 0", "device.leonardo.patience: expected seconds from 0.1 to 3600, got 0"),
    (LEONARDO + 'tags = "yes"', 'device.leonardo.tags: expected true or false, got "yes"'),
    (
        LEONARDO + 'dialect = "klingon"',
        'device.leonardo.dialect: expected the name of a dialect such as "fields", got "klingon"',
    ),
    ("[device.leonardo]", f"device.leonardo.path: expected {PLACE}, and there is none"),
    ('[device.x]\npath = "ttyACM0"', f'device.x.path: expected {PLACE}, got "ttyACM0"'),
    ('[device.x]\npath = "tcp:host:ftp"', f'device.x.path: expected {PLACE}, got "tcp:host:ftp"'),
    ('[device.x]\npath = "usb:2341"', f'device.x.path: expected {PLACE}, got "usb:2341"'),
    (
        '[device."a b"]\npath = "/dev/ttyACM0"',
        'device.a b: expected letters, digits, dot, colon and hyphen, got "a b"',
    ),
    (
        LEONARDO + '[device.other]\npath = "/dev/../dev/ttyACM0"',
        "device.other.path: expected another path than that of leonardo, /dev/ttyACM0",
    ),
    ("device = 3", "device: expected tables such as [device.NAME], got 3"),
    ("[device]\nbaud = 1", "device.baud: expected a table such as [device.NAME], got 1"),
    (
        LEONARDO + '[sensor.20]\ndevice = "uno"',
        'sensor.20.device: expected one of the devices leonardo, got "uno"',
    ),
    ("[sensor.20]\ntimeout = 3601", "sensor.20.timeout: expected seconds from 0.1 to 3600, got 3601"),
    ('[sensor.20]\nname = ""', f'sensor.20.name: expected {TEXT}, got ""'),
    ("[sensor.20]\nstale = 5", 'sensor.20.stale: expected a time from 1s to 366d such as "1h", got 5'),
    ('[sensor.20]\ncommands = { "On" = "" }', f'sensor.20.commands: expected {BUTTONS}, got {{"On": ""}}'),
    ('[sensor.20]\ncommands = { " " = "ON" }', f'sensor.20.commands: expected {BUTTONS}, got {{" ": "ON"}}'),
    (
        '[sensor.20]\ncommands = { "On" = "L TAG=5" }',
        f'sensor.20.commands: expected {BUTTONS}, got {{"On": "L TAG=5"}}',
    ),
    (
        '[sensor.20]\ncommands = { "On" = "L LEVEL" }',
        f'sensor.20.commands: expected {BUTTONS}, got {{"On": "L LEVEL"}}',
    ),
    ("[sensor.20]\nfields = {}", "sensor.20.fields: unknown key, did you mean field?"),
    ("[sensor.20]\nfield = 5", "sensor.20.field: expected tables such as [sensor.ID.field.NAME], got 5"),
    ("[sensor.20.field.TEMP]\nunits = 5", "sensor.20.field.TEMP.units: unknown key, did you mean unit?"),
    ('[sensor.20.field."A B"]', 'sensor.20.field.A B: expected the name of a field such as TEMP, got "A B"'),
    (
        '[sensor.20.field.TEMP]\nalarm = "60"',
        'sensor.20.field.TEMP.alarm: expected a condition such as "> 60", "== 1" or "!= OK", got "60"',
    ),
    (
        "[sensor.20.field.TEMP]\ndecimals = -1",
        "sensor.20.field.TEMP.decimals: expected an integer from 0 to 9, got -1",
    ),
    (
        "[sensor.a_b]",
        'sensor.a_b: expected a sensor id, 1 to 64 characters without blank or _, got "a_b"',
    ),
    ("[command.L]\ncoalesce = 1", "command.L.coalesce: expected true or false, got 1"),
    (
        '[command.L]\nfields = ["A B"]',
        'command.L.fields: expected names of fields such as ["TEMP", "HUM"], got ["A B"]',
    ),
    ('[command.L]\nfields = "TEMP"', 'command.L.fields: expected names of fields such as ["TEMP", "HUM"], got "TEMP"'),
    ("listen = []", 'listen: expected a list such as ["tcp:50007:interface=127.0.0.1"], got []'),
    ('listen = ["50007"]', f'listen: expected {LISTEN}, got "50007"'),
    ('listen = ["tcp:50007:interfaces=::"]', f'listen: expected {LISTEN}, got "tcp:50007:interfaces=::"'),
    ('state = ""', 'state: expected a folder, got ""'),
    ('gateway = "a_b:c"', f'gateway: expected {TEXT}, got "a_b:c"'),
    ('http = "80"', f'http: expected {HTTP}, got "80"'),
    ('http.host = "a"', "http.host: unknown key, did you mean hosts?"),
    ('http.listen = "x"', f'http.listen: expected {HTTP}, got "x"'),
    ('http.hosts = ["a b"]', 'http.hosts: expected names of hosts such as ["house.example"], got ["a b"]'),
    ('http.base_path = "usbgate/"', 'http.base_path: expected a path such as "/usbgate", got "usbgate/"'),
    ('durability = "10ms"', 'durability: expected a time from 50ms to 60s such as "5s", got "10ms"'),
    ("durability = 1", 'durability: expected a time from 50ms to 60s such as "5s", got 1'),
    ('durability = "1 fortnight"', 'durability: expected a time from 50ms to 60s such as "5s", got "1 fortnight"'),
    ('journal_limit = "1GB"', 'journal_limit: expected a size from 16MiB to 1TiB such as "1GiB", got "1GB"'),
    ('journal_limit = "1MiB"', 'journal_limit: expected a size from 16MiB to 1TiB such as "1GiB", got "1MiB"'),
    (
        '[device.a]\npath = "/a"\nrepeats = "2m"',
        'device.a.repeats: expected a time from 1ms to 60s such as "200ms", got "2m"',
    ),
    (
        '[sensor.20]\nstore = "on change, at least every now"',
        'sensor.20.store: expected "on change", or "on change, at least every 5m" with a time from 1s to 366d, '
        'got "on change, at least every now"',
    ),
    ("max_connections = 0", "max_connections: expected an integer above 0, got 0"),
    (
        'database = "postgre://me:secret@db/flat"',
        'database: expected "embedded", "none" or "postgresql://user@host/database", got "postgre://me:…@db/flat"',
    ),
    ("devices = 1", "devices: unknown key, did you mean device?"),
    ("stat = 1", "stat: unknown key, did you mean state?"),
    ("a = 1\nb = =", "not TOML: Invalid value (at line 2, column 5)"),
]

# What --device says, and the line about it.
WRONG_SPECS = [
    ("", f'--device : expected {PLACE}, got ""'),
    ("ttyACM0", f'--device ttyACM0: expected {PLACE}, got "ttyACM0"'),
    ("/", f'--device /: expected {PLACE}, got "/"'),
    ("usb:2341:80367", f'--device usb:2341:80367: expected {PLACE}, got "usb:2341:80367"'),
    ("usb-port:1", f'--device usb-port:1: expected {PLACE}, got "usb-port:1"'),
    ("/dev/x,baud=fast", '--device /dev/x,baud=fast: baud: expected an integer above 0, got "fast"'),
    ("/dev/x,tags=maybe", '--device /dev/x,tags=maybe: tags: expected true or false, got "maybe"'),
    ("/dev/x,baud=1,baud=2", "--device /dev/x,baud=1,baud=2: baud: given twice"),
    ("/dev/x,bauds=1", "--device /dev/x,bauds=1: bauds: unknown key, did you mean baud?"),
    (
        "/dev/x,name=a b",
        '--device /dev/x,name=a b: name: expected letters, digits, dot, colon and hyphen, got "a b"',
    ),
]

BY_PATH = "/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.0"

# What --device says, the name and the device.
SPECS = [
    ("/dev/ttyACM0", "ttyACM0", DeviceSettings(path="/dev/ttyACM0")),
    (BY_PATH, "pci-0000:00:14.0-usb-0:1:1.0", DeviceSettings(path=BY_PATH)),
    (
        BY_PATH + ",tags=true,window=1",
        "pci-0000:00:14.0-usb-0:1:1.0",
        DeviceSettings(path=BY_PATH, tags=True, window=1),
    ),
    ("tcp:host:4000", "tcp:host:4000", DeviceSettings(path="tcp:host:4000")),
    ("tcp:host:4000,baud=115200,name=x", "x", DeviceSettings(path="tcp:host:4000", baud=115200)),
    ("/dev/t,silence=90,reset=silent", "t", DeviceSettings(path="/dev/t", silence=90, reset="silent")),
    ("/dev/t,repeats=200ms", "t", DeviceSettings(path="/dev/t", repeats=0.2)),
    (
        "/dev/usb_serial,settle=2,patience=7.5",
        "usb-serial",
        DeviceSettings(path="/dev/usb_serial", settle=2, patience=7.5),
    ),
    ("/tmp/a,b=c", "a-b-c", DeviceSettings(path="/tmp/a,b=c")),
    ("/tmp/a,b=c,dialect=fields", "a-b-c", DeviceSettings(path="/tmp/a,b=c")),
    ("/tmp/a,baud=1,b=c", "a-baud-1-b-c", DeviceSettings(path="/tmp/a,baud=1,b=c")),
    ("usb:2341:8036,baud=1200", "usb:2341:8036", DeviceSettings(path="usb:2341:8036", baud=1200)),
    ("usb:303A:1001:7C:DF_1", "usb:303A:1001:7C:DF-1", DeviceSettings(path="usb:303A:1001:7C:DF_1")),
    ("usb-port:1-1.3", "usb-port:1-1.3", DeviceSettings(path="usb-port:1-1.3")),
    ("serial:/dev/ttyS0:baudrate=1200", "serial:-dev-ttyS0:baudrate-1200", None),
]


class ConfigurationTests(SynchronousTestCase):
    """
    A file and options become settings.
    """

    def setUp(self) -> None:
        self.folder = Path(os.path.abspath(self.mktemp()))
        self.folder.mkdir(parents=True)
        self.file = self.folder / "usbgate.toml"
        self.environ = {"HOME": str(self.folder), "USBGATE_STATE": "/somewhere"}

    def load(self, text: str, *, devices: list[str] | None = None, listen: list[str] | None = None) -> Settings:
        self.file.write_text(text)
        return load(self.file, devices=devices or [], listen=listen or [], environ=self.environ)

    def test_wrong_files(self) -> None:
        """
        Whatever is wrong in a file is told in one line that names file and key, and what was expected.
        """
        for text, line in WRONG:
            with self.subTest(text=text):
                error = self.assertRaises(ConfigError, self.load, text)
                self.assertEqual(str(error), f"{self.file}: {line}")

    def test_unreadable_file(self) -> None:
        """
        A file that was named must be there, and be UTF-8.
        """
        missing = self.folder / "missing.toml"
        error = self.assertRaises(ConfigError, load, missing)
        self.assertEqual(str(error), f"{missing}: No such file or directory")
        self.file.write_bytes(b"a = '\xff'")
        error = self.assertRaises(ConfigError, load, self.file)
        self.assertEqual(str(error), f"{self.file}: expected TOML, which is UTF-8; byte 5 is not")

    def test_everything(self) -> None:
        """
        Every key of a file arrives; relative paths start from the file's folder.
        """
        settings = self.load(
            'state = "state"\ndatabase = "host=/run dbname=x"\ngateway = "g"\nhttp = "tcp:8080"\n'
            'listen = ["tcp:1", "unix:a.sock:mode=600"]\ndefault_command = "T"\nmax_connections = 5\n'
            'durability = "200ms"\njournal_limit = "2 GiB"\n'
            '[device."a:b"]\npath = "./tty"\nbaud = 1200\ndialect = "fields"\nwindow = 1\ntags = true\nsettle = 2\n'
            'patience = 3\nsilence = 60\nreset = "never"\nrepeats = "1.5s"\n[device.net]\npath = "tcp:host:1"\n'
            '[sensor."28:FF"]\nname = "Bedroom"\ndevice = "net"\ndefault_command = "J"\ntimeout = 1\npatience = 2.5\n'
            'store = "on change, at least every 5m"\n[sensor.21]\nstore = "on change"\n'
            '[command.L]\ncoalesce = false\nfields = ["temp"]\n'
        )
        self.assertEqual(
            settings,
            Settings(
                state=self.folder / "state",
                database="host=/run dbname=x",
                gateway="g",
                listen=("tcp:1", f"unix:{self.folder}/a.sock:mode=600"),
                http=HttpSettings(listen="tcp:8080"),
                http_asked_for=True,
                default_command="T",
                max_connections=5,
                durability=0.2,
                journal_limit=2 << 30,
                devices={
                    "a:b": DeviceSettings(
                        path=str(self.folder / "tty"),
                        baud=1200,
                        window=1,
                        tags=True,
                        settle=2.0,
                        patience=3.0,
                        silence=60.0,
                        reset="never",
                        repeats=1.5,
                    ),
                    "net": DeviceSettings(path="tcp:host:1"),
                },
                sensors={
                    "28:FF": SensorSettings(
                        name="Bedroom", device="net", default_command="J", timeout=1.0, patience=2.5, store=300.0
                    ),
                    "21": SensorSettings(store=inf),
                },
                commands={"L": CommandSettings(coalesce=False, fields=("TEMP",))},
                file=self.file,
            ),
        )

    def test_options_win(self) -> None:
        """
        An option replaces what the file says in its place, and leaves the rest.
        """
        self.file.write_text(
            'state = "s"\ndatabase = "none"\ndefault_command = "T"\nlisten = ["tcp:1", "tcp:2"]\n' + LEONARDO
        )
        settings = load(
            self.file,
            devices=["./sim,baud=1200", "tcp:h:1"],
            listen=["tcp:3"],
            database="postgres://db",
            state="here",
            environ=self.environ,
        )
        self.assertEqual(
            settings,
            Settings(
                state=Path.cwd() / "here",
                database="postgres://db",
                listen=("tcp:3",),
                default_command="T",
                devices={
                    "sim": DeviceSettings(path=str(Path.cwd() / "sim"), baud=1200),
                    "tcp:h:1": DeviceSettings(path="tcp:h:1"),
                },
                file=self.file,
            ),
        )

    def test_wrong_options(self) -> None:
        """
        A wrong option is told in one line that names it.
        """
        for spec, line in WRONG_SPECS:
            with self.subTest(spec=spec):
                self.assertEqual(str(self.assertRaises(ConfigError, self.load, "", devices=[spec])), line)
        error = self.assertRaises(ConfigError, self.load, "", devices=["/dev/x", "/y/x"])
        self.assertEqual(str(error), "--device /y/x: name: x is taken by another device; add ,name=ANOTHER")
        error = self.assertRaises(ConfigError, self.load, "", devices=["/dev/x", "/dev/x,name=y"])
        self.assertEqual(str(error), "--device: device.y.path: expected another path than that of x, /dev/x")
        error = self.assertRaises(ConfigError, self.load, "", listen=["tcp"])
        self.assertEqual(str(error), f'--listen: expected {LISTEN}, got "tcp"')
        error = self.assertRaises(ConfigError, load, None, database="postgres", environ=self.environ)
        self.assertIn("--database: expected", str(error))

    def test_device_specs(self) -> None:
        """
        Known keys are taken off the end of a SPEC, and the name is made of what is left.
        """
        for spec, name, device in SPECS:
            with self.subTest(spec=spec):
                self.assertEqual(parse_device(spec), (name, device or DeviceSettings(path=spec)))

    def test_search(self) -> None:
        """
        The user's own file is found, and its absence is no error.
        """
        self.assertEqual(find_file({"HOME": str(self.folder)}), find_file({"XDG_CONFIG_HOME": "/nowhere"}))
        own = self.folder / ".config" / "usbgate" / "usbgate.toml"
        own.parent.mkdir(parents=True)
        own.write_text('gateway = "found"')
        self.assertEqual(find_file({"HOME": str(self.folder)}), own)
        self.assertEqual(find_file({"XDG_CONFIG_HOME": str(self.folder / ".config"), "HOME": "/x"}), own)
        self.assertEqual(load(None, environ={"HOME": str(self.folder)}).gateway, "found")
        self.assertEqual(load(None, environ={"HOME": str(self.folder)}).file, own)

    def test_state_folder(self) -> None:
        """
        The state folder is the option's, else the file's, else USBGATE_STATE's, else systemd's, else the usual one.
        """
        full = {"HOME": "/h", "USBGATE_STATE": "/u", "STATE_DIRECTORY": "/d1:/d2", "XDG_STATE_HOME": "/x"}
        self.file.write_text('state = "/f"')
        empty = self.folder / "empty.toml"
        empty.write_text("")
        self.assertEqual(load(self.file, state="/o", environ=full).state, Path("/o"))
        self.assertEqual(load(self.file, environ=full).state, Path("/f"))
        for uid, usual in ((1000, "/x/usbgate"), (0, "/var/lib/usbgate")):
            self.patch(os, "geteuid", lambda uid=uid: uid)
            environ = dict(full)
            self.assertEqual(load(empty, environ=environ).state, Path("/u"))
            del environ["USBGATE_STATE"]
            self.assertEqual(load(empty, environ=environ).state, Path("/d1"))
            del environ["STATE_DIRECTORY"]
            self.assertEqual(load(empty, environ=environ).state, Path(usual))
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(load(empty, environ={"HOME": "/h"}).state, Path("/h/.local/state/usbgate"))

    def test_only_device(self) -> None:
        """
        The only serial device is taken; none or several are named, with what to say.
        """
        folder = str(self.folder)
        error = self.assertRaises(ConfigError, only_device, folder)
        self.assertEqual(
            str(error),
            f"no serial device: there is no {folder}/ttyACM* and no {folder}/ttyUSB*;"
            " connect one, or say --device PATH or --device tcp:host:port",
        )
        (self.folder / "ttyUSB0").touch()
        (self.folder / "ttyS0").touch()
        self.assertEqual(only_device(folder), ("ttyUSB0", DeviceSettings(path=f"{folder}/ttyUSB0")))
        (self.folder / "ttyACM3").touch()
        error = self.assertRaises(ConfigError, only_device, folder)
        self.assertEqual(
            str(error),
            f"several serial devices: {folder}/ttyACM3, {folder}/ttyUSB0;"
            f" say which one, such as --device {folder}/ttyACM3",
        )

    def test_where_to_connect(self) -> None:
        """
        A client is told an address that it can connect to, in the order of the configuration.
        """
        settings = Settings(
            state=self.folder,
            listen=(
                "tcp:1",
                "tcp:2:interface=0.0.0.0",
                "tcp:port=3:interface=10.0.0.1",
                r"tcp:4:interface=\:\:",
                "tcp6:5",
                "tcp:0",
                "systemd:domain=INET:index=0",
                r"unix:/run/a\:b:mode=660",
                "unix:address=/run/c",
            ),
        )
        expected = [
            ("127.0.0.1", 1),
            ("127.0.0.1", 2),
            ("10.0.0.1", 3),
            ("::1", 4),
            ("::1", 5),
            "/run/a:b",
            "/run/c",
        ]
        self.assertEqual(listen_port(settings), expected)


class ShippedFileTests(SynchronousTestCase):
    """
    The commented file that comes with usbgate.
    """

    text = (Path(__file__).parents[2] / "etc" / "usbgate.toml").read_text()

    def load(self, text: str) -> Settings:
        file = Path(self.mktemp())
        file.write_text(text)
        return load(file, state="/s", environ={})

    def test_as_shipped(self) -> None:
        """
        As it comes it says nothing: all is as without a file.
        """
        settings = self.load(self.text)
        self.assertEqual(settings, Settings(state=Path("/s"), file=settings.file))

    def test_every_key(self) -> None:
        """
        With every comment mark taken off it is right, and every key there is stands in it.
        """
        settings = self.load(re.sub("(?m)^#(?! |$)", "", self.text))
        self.assertEqual(
            settings.devices, {"leonardo": DeviceSettings(path="/dev/ttyACM0", patience=5.0, silence=60.0, repeats=0.2)}
        )
        sensor = settings.sensors["20"]
        self.assertEqual((sensor.device, sensor.stale), ("leonardo", 3600.0))
        self.assertEqual(sensor.commands, {"Lamp on": "ON", "Lamp off": "OFF", "Half": "L LEVEL=50"})
        self.assertEqual(sensor.fields, {"TEMP": FieldSettings(unit="°C", decimals=1, alarm="> 60")})
        self.assertEqual(settings.commands["TOGGLE"], CommandSettings(coalesce=False))
        self.assertEqual(settings.http, HttpSettings(hosts=("house.example",), base_path="/usbgate"))
        named = set(re.findall(r"(?m)^#(\w+) = ", self.text)) | set(re.findall(r"(?m)^#\[(\w+)\.", self.text))
        self.assertEqual(
            named, {*TOP_KEYS, *TABLES, *HTTP_KEYS, *DEVICE_KEYS, *SENSOR_KEYS, *FIELD_KEYS, *COMMAND_KEYS}
        )
