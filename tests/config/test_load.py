"""
Configuration: what is read, what wins, and the one line that says what is wrong.
"""

from __future__ import annotations

import os
import re
from math import inf
from pathlib import Path

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from usbgate.access.roles import Role
from usbgate.config.load import TABLES, find_file, load
from usbgate.config.rules import MAIL_KEYS, RULE_KEYS
from usbgate.config.settings import (
    CLIENT_KEYS,
    COMMAND_KEYS,
    CONTROL_KEYS,
    DEVICE_KEYS,
    FIELD_KEYS,
    HTTP_KEYS,
    MQTT_KEYS,
    SENSOR_KEYS,
    TOP_KEYS,
    CommandSettings,
    DeviceSettings,
    HttpSettings,
    MqttSettings,
    Settings,
)
from usbgate.config.types import ConfigError, ListenAddress
from usbgate.core.condition import Condition
from usbgate.core.kinds import FieldKindName, ValueTexts, kind_of
from usbgate.core.model import Button
from usbgate.core.settings import FieldSettings, SensorSettings

LEONARDO = '[device.leonardo]\npath = "/dev/ttyACM0"\n'
SEPARATED = '[device.board]\npath = "/dev/board"\ndialect = "tests.support.separated"\n'
PLACE = (
    "a path that starts with / or ., a USB device such as usb:2341:8036[:SERIAL] or usb-port:1-1.3,"
    " a serial server such as rfc2217:host:port, or a Twisted client endpoint such as tcp:host:port"
)
LISTEN = (
    "a Twisted server endpoint such as tcp:50007:interface=127.0.0.1,"
    ' or a table such as { endpoint = "unix:/run/usbgate.sock", role = "read" }'
)
CLIENT_ROLES = '"none", "read", "ask", "command" or "admin"'
BROKER = 'a Twisted client endpoint such as "tcp:localhost:1883", "tls:mqtt.example:8883" or "unix:/run/mqtt.sock"'
MQTT = 'mqtt = { broker = "tcp:localhost:1883"'
HTTP = (
    '"none", a Twisted server endpoint such as tcp:8080:interface=127.0.0.1,'
    ' or a table such as { endpoint = "tcp:8080:interface=127.0.0.1", role = "read" }'
)
BUTTONS = 'commands by label such as { "Lamp on" = "ON", "Half" = "L LEVEL=50" }'
FIELDS = 'names of fields such as ["TEMP", "HUM"]'
BUFFER = '"auto" or an integer from 0 to 65536'
SETTLE = '"auto" or a duration from 0s to 60s such as "2s"'
WAIT = 'a duration from 0.1s to 3600s such as "10s"'
SCHEMA = 'the name of a schema such as "usbgate"'
VIEW = '"none" or a schema and a name such as "public.measures"'
TEXT = "a non-empty text without `_KEY:`"

# What a file says, and the line about it, behind the file's name.
WRONG = [
    (LEONARDO + 'baud = "fast"', 'device.leonardo.baud: expected an integer above 0, got "fast"'),
    (LEONARDO + "baud = 0", "device.leonardo.baud: expected an integer above 0, got 0"),
    (LEONARDO + "baud = true", "device.leonardo.baud: expected an integer above 0, got true"),
    ("[sensor.20.field.A_B]\n[sensor.20.field.a-b]", "sensor.20.field.a-b: the same field as another: A-B"),
    (LEONARDO + "window = 65", "device.leonardo.window: expected an integer from 1 to 64, got 65"),
    (LEONARDO + "window = 0", "device.leonardo.window: expected an integer from 1 to 64, got 0"),
    (LEONARDO + "buffer = -1", f"device.leonardo.buffer: expected {BUFFER}, got -1"),
    (LEONARDO + "buffer = 65537", f"device.leonardo.buffer: expected {BUFFER}, got 65537"),
    (LEONARDO + 'buffer = "63"', f'device.leonardo.buffer: expected {BUFFER}, got "63"'),
    (LEONARDO + 'buffer = "big"', f'device.leonardo.buffer: expected {BUFFER}, got "big"'),
    (LEONARDO + "buffer = true", f"device.leonardo.buffer: expected {BUFFER}, got true"),
    (LEONARDO + "settle = -1", f"device.leonardo.settle: expected {SETTLE}, got -1"),
    (LEONARDO + "silence = 0", 'device.leonardo.silence: expected a duration from 1s to 7d such as "1m", got 0'),
    (LEONARDO + 'reset = "often"', 'device.leonardo.reset: expected "never", "open" or "silent", got "often"'),
    (
        LEONARDO + 'reset = "silent"',
        'device.leonardo.reset: "silent" requires silence, the time without a line after which it is reset',
    ),
    ('default_command = "J K"', 'default_command: expected a command, without whitespace, got "J K"'),
    (
        '[sensor.20]\ndefault_command = "J\u00a0K"',
        'sensor.20.default_command: expected a command, without whitespace, got "J\u00a0K"',
    ),
    (LEONARDO + 'settle = "soon"', f'device.leonardo.settle: expected {SETTLE}, got "soon"'),
    (LEONARDO + "settle = nan", f"device.leonardo.settle: expected {SETTLE}, got NaN"),
    (
        LEONARDO + "patience = 0",
        f"device.leonardo.patience: expected {WAIT}, got 0",
    ),
    (LEONARDO + 'tags = "yes"', 'device.leonardo.tags: expected true or false, got "yes"'),
    (
        LEONARDO + 'dialect = "my dialect"',
        'device.leonardo.dialect: expected the name of a dialect such as "fields", or of a module, got "my dialect"',
    ),
    (
        LEONARDO + 'line = "9N1"',
        "device.leonardo.line: expected data bits, parity (N, E, O, M or S) and stop bits such as "
        '"8N1" or "7E1", got "9N1"',
    ),
    (
        LEONARDO + 'flow = "hard"',
        'device.leonardo.flow: expected "none", "rts/cts" or "xon/xoff", got "hard"',
    ),
    ("[device.leonardo]", f"device.leonardo.path: missing, expected {PLACE}"),
    ('[device.x]\npath = "ttyACM0"', f'device.x.path: expected {PLACE}, got "ttyACM0"'),
    ('[device.x]\npath = "rfc2217:host"', f'device.x.path: expected {PLACE}, got "rfc2217:host"'),
    ('[device.x]\npath = "tcp:host:ftp"', f'device.x.path: expected {PLACE}, got "tcp:host:ftp"'),
    ('[device.x]\npath = "usb:2341"', f'device.x.path: expected {PLACE}, got "usb:2341"'),
    ('schema = "a.b"', f'schema: expected {SCHEMA}, got "a.b"'),
    ('schema = ""', f'schema: expected {SCHEMA}, got ""'),
    ("schema = 'a\"b'", f'schema: expected {SCHEMA}, got "a\\"b"'),
    ('schema = "100%"', f'schema: expected {SCHEMA}, got "100%"'),
    ('schema = "a$$"', f'schema: expected {SCHEMA}, got "a$$"'),
    ('schema = "a\\nb"', f'schema: expected {SCHEMA}, got "a\\nb"'),
    ('schema = "pg_mine"', f'schema: expected {SCHEMA}, got "pg_mine"'),
    (f'schema = "{"é" * 32}"', f'schema: expected {SCHEMA}, got "{"é" * 32}"'),
    ('measures = "measures"', f'measures: expected {VIEW}, got "measures"'),
    ('measures = "a.b.c"', f'measures: expected {VIEW}, got "a.b.c"'),
    ('measures = ".x"', f'measures: expected {VIEW}, got ".x"'),
    (
        '[device."a b"]\npath = "/dev/ttyACM0"',
        'device.a b: expected letters, digits, dot, colon and hyphen, got "a b"',
    ),
    (
        LEONARDO + '[device.other]\npath = "/dev/../dev/ttyACM0"',
        "device.other.path: /dev/ttyACM0 is already the path of leonardo",
    ),
    ("device = 3", "device: expected tables such as [device.NAME], got 3"),
    ("[device]\nbaud = 1", "device.baud: expected a table such as [device.NAME], got 1"),
    (
        LEONARDO + '[sensor.20]\ndevice = "uno"',
        'sensor.20.device: expected one of the devices leonardo, got "uno"',
    ),
    (
        "[sensor.20]\ntimeout = 3601",
        f"sensor.20.timeout: expected {WAIT}, got 3601",
    ),
    ('[sensor.20]\nname = ""', f'sensor.20.name: expected {TEXT}, got ""'),
    ("[sensor.20]\npoll = 0.5", 'sensor.20.poll: expected a duration from 1s to 7d such as "5m", got 0.5'),
    ("[sensor.20]\nstale = true", 'sensor.20.stale: expected a duration from 1s to 366d such as "1h", got true'),
    ("[sensor.20]\nstale = 0.5", 'sensor.20.stale: expected a duration from 1s to 366d such as "1h", got 0.5'),
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
    (
        '[sensor.20.field.TEMP]\nkind = "temprature"',
        "sensor.20.field.TEMP.kind: temprature: unknown name, did you mean temperature?",
    ),
    ("[sensor.20.field.TEMP]\nunits = 5", "sensor.20.field.TEMP.units: unknown key, did you mean unit?"),
    ('[sensor.20.field."A B"]', 'sensor.20.field.A B: expected the name of a field such as TEMP, got "A B"'),
    (
        '[sensor.20.field.TEMP]\nalarm = "60"',
        'sensor.20.field.TEMP.alarm: expected a condition such as "> 60", "== 1" or "!= OK", got "60"',
    ),
    (
        '[sensor.20.field.TEMP]\nkind = "blood"',
        f'sensor.20.field.TEMP.kind: expected {kind_of(FieldKindName).expected}, got "blood"',
    ),
    *[
        (
            f"[sensor.20.field.TEMP]\nlabel = {held}",
            'sensor.20.field.TEMP.label: expected a text, or texts by language such as { en = "Door", fr = "Porte" },'
            f" got {got}",
        )
        for held, got in [('{ de = "Tür" }', '{"de": "Tür"}'), ("{}", "{}"), ("5", "5"), ('""', '""')]
    ],
    *[
        (
            f"[sensor.20.field.TEMP]\nvalues = {held}",
            f"sensor.20.field.TEMP.values: expected {kind_of(ValueTexts).expected}, got {got}",
        )
        for held, got in [
            ('{ 1 = "a", "1.0" = "b" }', '{"1": "a", "1.0": "b"}'),
            ('{ 1 = "" }', '{"1": ""}'),
            ('{ 1 = { de = "an" } }', '{"1": {"de": "an"}}'),
            ("true", "true"),
        ]
    ],
    (
        "[sensor.20.field.TEMP]\ndecimals = -1",
        "sensor.20.field.TEMP.decimals: expected an integer from 0 to 9, got -1",
    ),
    (
        "[sensor.20.field.TEMP]\nscale = 0",
        "sensor.20.field.TEMP.scale: expected a number other than 0 such as 0.1, got 0",
    ),
    (
        "[sensor.20.field.TEMP]\noffset = nan",
        "sensor.20.field.TEMP.offset: expected a number such as -0.4, got NaN",
    ),
    (
        '[sensor.20.field.TEMP]\nmax = "60"',
        'sensor.20.field.TEMP.max: expected a number such as -0.4, got "60"',
    ),
    (
        "[sensor.20.field.TEMP]\nmin = 2\nmax = 1",
        "sensor.20.field.TEMP.min: above max, so that no value would be shown",
    ),
    *[
        (
            f"[sensor.20.field.TEMP]\noffset = 1\n{states}",
            "sensor.20.field.TEMP.offset: for numbers, but the values of this field are states: leave it out",
        )
        for states in ('kind = "smoke"', 'values = { "0" = "off" }')
    ],
    (
        "[sensor.a_b]",
        'sensor.a_b: expected a sensor id, 1 to 64 characters without whitespace or _, got "a_b"',
    ),
    ("[command.on]\n[command.L]\n[command.ON]", "command.ON: the same command as command.on"),
    ("[command.L]\ncoalesce = 1", "command.L.coalesce: expected true or false, got 1"),
    (
        "[command.L]\nretries = 2",
        "command.L.retries: requires idempotent = true: the device may carry out each of the messages",
    ),
    ("[command.L]\nidempotent = true\nretries = -1", "command.L.retries: expected an integer from 0 to 20, got -1"),
    (
        '[command.L]\nfields = ["A B"]',
        'command.L.fields: expected names of fields such as ["TEMP", "HUM"], got ["A B"]',
    ),
    ('[command.L]\nfields = "TEMP"', 'command.L.fields: expected names of fields such as ["TEMP", "HUM"], got "TEMP"'),
    ("listen = []", 'listen: expected a list such as ["tcp:50007:interface=127.0.0.1"], got []'),
    ('listen = ["50007"]', f'listen: expected {LISTEN}, got "50007"'),
    (
        'listen = [{ endpoint = "tcp:1", role = "king" }]',
        f'listen: expected {LISTEN}, got {{"endpoint": "tcp:1", "role": "king"}}',
    ),
    (
        'listen = [{ endpoint = "tcp:1", role = "read", proxied = true }]',
        "listen: role with proxied: behind a proxy, nobody has a role without a token",
    ),
    (
        'http.listen = { endpoint = "tcp:1", role = "read", proxied = true }',
        "http.listen: role with proxied: behind a proxy, nobody has a role without a token",
    ),
    ('client = "10.0.0.1"', 'client: expected tables [[client]], got "10.0.0.1"'),
    ('[[client]]\naddresses = ["10.0.0.1"]', f"client 1: role: missing, expected {CLIENT_ROLES}"),
    ('[[client]]\nrole = "read"', "client 1: addresses or users: missing; for whom is it?"),
    ('[[client]]\nusers = [0]\nrole = "king"', f'client 1: role: expected {CLIENT_ROLES}, got "king"'),
    (
        '[[client]]\nusers = [0]\nrole = "none"\n[[client]]\nrol = "read"',
        "client 2: rol: unknown key, did you mean role?",
    ),
    (
        '[[client]]\naddresses = ["10.0.0.1/24"]\nrole = "read"',
        "client 1: addresses: expected addresses and networks such as "
        '["192.168.1.0/24", "10.0.0.7"], got ["10.0.0.1/24"]',
    ),
    (
        '[[client]]\nusers = ["no-such-user"]\nrole = "read"',
        "client 1: users: expected names or numbers of users of this machine such as "
        '["www-data", 1001], got ["no-such-user"]',
    ),
    (
        '[[client]]\nusers = [7]\nrole = "read"\nsensors = []',
        'client 1: sensors: expected sensor ids such as ["20", "21"], got []',
    ),
    (
        '[[client]]\nusers = [7]\nrole = "admin"\nsensors = ["20"]',
        "client 1: sensors: the role admin is for all sensors",
    ),
    ('listen = [{ role = "read" }]', f'listen: expected {LISTEN}, got {{"role": "read"}}'),
    ('listen = ["tcp:50007:interfaces=::"]', f'listen: expected {LISTEN}, got "tcp:50007:interfaces=::"'),
    ('state = ""', 'state: expected a folder, got ""'),
    ('gateway = "a_b:c"', f'gateway: expected {TEXT}, got "a_b:c"'),
    ('http = "80"', f'http: expected {HTTP}, got "80"'),
    ('http.host = "a"', "http.host: unknown key, did you mean hosts?"),
    ('http.listen = "x"', f'http.listen: expected {HTTP}, got "x"'),
    ('http.hosts = ["a b"]', 'http.hosts: expected names of hosts such as ["house.example"], got ["a b"]'),
    *(
        (
            f'http.cors = ["{origin}"]',
            'http.cors: expected origins of pages such as ["https://house.example", "http://10.0.0.2:3000"], in lower '
            f'case and without a path, or "*", got ["{origin}"]',
        )
        for origin in ("house.example", "https://house.example/", "https://House.example", "https://a:443", "null")
    ),
    ("mqtt.version = 5", f"mqtt.broker: missing, expected {BROKER}"),
    *(
        (f'mqtt.broker = "{text}"', f'mqtt.broker: expected {BROKER}, got "{text}"')
        for text in (
            "localhost",
            "mqtt://localhost",
            "tcp:localhost",
            "tls:localhost",
            "tls:a:8883:trustRoots=x",
            "ssl:a:1",
        )
    ),
    (f'{MQTT}, version = "3"' + "}", 'mqtt.version: expected "5" or "3.1.1", got "3"'),
    (f'{MQTT}, password_file = "x"' + "}", "mqtt.user: missing, the password of password_file needs one"),
    (f'{MQTT}, ca = "x"' + "}", 'mqtt.ca: only with TLS, broker = "tls:HOST:PORT"'),
    (f'{MQTT}, role = "admin"' + "}", 'mqtt.role: expected "read", "ask" or "command", got "admin"'),
    (
        f'{MQTT}, discovery_prefix = "a/#"' + "}",
        'mqtt.discovery_prefix: expected levels of a topic such as "homeassistant", got "a/#"',
    ),
    ('mqtt = "tcp:localhost:1883"', 'mqtt: expected a table [mqtt], got "tcp:localhost:1883"'),
    ("http.metrics_limit = -1", "http.metrics_limit: expected an integer from 0 to 10000, got -1"),
    ('http.base_path = "usbgate/"', 'http.base_path: expected a path such as "/usbgate", got "usbgate/"'),
    ('durability = "10ms"', 'durability: expected a duration from 50ms to 60s such as "5s", got "10ms"'),
    ("durability = 61", 'durability: expected a duration from 50ms to 60s such as "5s", got 61'),
    ("journal_limit = 1000000000", 'journal_limit: expected a size from 16MiB to 1TiB such as "1GiB", got 1000000000'),
    ('durability = "1 fortnight"', 'durability: expected a duration from 50ms to 60s such as "5s", got "1 fortnight"'),
    (
        'client_bytes_per_turn = "1MiB"',
        'client_bytes_per_turn: expected a size from 1KiB to 64KiB such as "4KiB", got "1MiB"',
    ),
    (
        'client_bytes_per_second = "4KiB"',
        'client_bytes_per_second: expected a size from 16KiB to 1GiB such as "1MiB", got "4KiB"',
    ),
    ('journal_limit = "1GB"', 'journal_limit: expected a size from 16MiB to 1TiB such as "1GiB", got "1GB"'),
    ('journal_limit = "1MiB"', 'journal_limit: expected a size from 16MiB to 1TiB such as "1GiB", got "1MiB"'),
    (
        '[device.a]\npath = "/a"\ngap = "2m"',
        'device.a.gap: expected a duration from 1ms to 60s such as "250ms", got "2m"',
    ),
    (
        '[device.a]\npath = "/a"\nrepeats = "2m"',
        'device.a.repeats: expected a duration from 1ms to 60s such as "200ms", got "2m"',
    ),
    (
        '[sensor.20]\nstore = "on change, at least every now"',
        'sensor.20.store: expected "all", "on change", or "on change, at least every 5m" with a duration from 1s to '
        '366d, got "on change, at least every now"',
    ),
    ("max_connections = 0", "max_connections: expected an integer above 0, got 0"),
    (
        'database = "postgre://me:secret@db/flat"',
        'database: expected "embedded", "none" or "postgresql://user@host/database", got something else',
    ),
    (
        'database = "postgresql://me:se%cret@db/flat"',
        'database: expected "embedded", "none" or "postgresql://user@host/database", got a % that two '
        "hexadecimal digits do not follow; a % itself is %25",
    ),
    (
        'database = "postgresql://me:secret@[::1/flat"',
        'database: expected "embedded", "none" or "postgresql://user@host/database", got a bracket that is '
        "not around an IPv6 address; one in a password is %5B or %5D",
    ),
    (
        '[database]\npassword_file = "a"',
        'database.url: missing, expected "postgresql://user@host/database"',
    ),
    (
        '[database]\nurl = "none"',
        'database.url: expected "postgresql://user@host/database", got "none"',
    ),
    ("devices = 1", "devices: unknown key, did you mean device?"),
    ("stat = 1", "stat: unknown key, did you mean state?"),
    ("a = 1\nb = =", "not TOML: Invalid value (at line 2, column 5)"),
    ("a = " + "[" * 3000 + "]" * 3000, "too many levels of [ or {"),
    ("a = " + "9" * 5000, "a number has too many digits"),
    (r'state = "\u0000"', r'state: expected a folder, got "\u0000"'),
    ('[device.a]\npath = "/a"\n' r'tap = "/\u0000"', r'device.a.tap: expected a file, got "/\u0000"'),
    (
        "[device.a]\n" r'path = "/\u0000"',
        "device.a.path: expected a path that starts with / or ., a USB device such as usb:2341:8036[:SERIAL] or "
        "usb-port:1-1.3, a serial server such as rfc2217:host:port, or a Twisted client endpoint such as "
        "tcp:host:port, "
        r'got "/\u0000"',
    ),
    (
        '[mqtt]\nbroker = "tls:a:65536"',
        'mqtt.broker: expected a Twisted client endpoint such as "tcp:localhost:1883", "tls:mqtt.example:8883" or '
        '"unix:/run/mqtt.sock", got "tls:a:65536"',
    ),
]


def plain(settings: Settings) -> Settings:
    """
    Return settings that do not say which keys of devices are configured.
    """
    devices = {name: replace(device, given=frozenset()) for name, device in settings.devices.items()}
    return replace(settings, devices=devices)


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
        The error for anything wrong in a file is one line that names the file, the key, and what was expected.
        """
        for text, line in WRONG:
            with self.subTest(text=text):
                error = self.assertRaises(ConfigError, self.load, text)
                self.assertEqual(str(error), f"{self.file}: {line}")

    def test_schema(self) -> None:
        """
        The schema and the view may have any name that PostgreSQL does not cut off or take for its own.
        """
        for name in ("x", "Élan 2", "home's-{0}", "a" * 63):
            settings = self.load(f'schema = "{name}"\nmeasures = "public.{name}"')
            self.assertEqual((settings.schema, settings.measures), (name, ("public", name)))
        self.assertIs(self.load('measures = "none"').measures, None)

    def test_unreadable_file(self) -> None:
        """
        A file that was named must be there, and be UTF-8.
        """
        missing = self.folder / "missing.toml"
        error = self.assertRaises(ConfigError, load, missing)
        self.assertEqual(str(error), f"{missing}: No such file or directory")
        self.file.write_bytes(b"a = '\xff'")
        error = self.assertRaises(ConfigError, load, self.file)
        self.assertEqual(str(error), f"{self.file}: not TOML: byte 5 is not UTF-8")

    def test_byte_order_mark(self) -> None:
        """
        A byte order mark at the beginning, as editors on Windows write it, is skipped; it does not move what is wrong.
        """
        mark = b"\xef\xbb\xbf"
        for text, line_end in ((b'default_command = "K"\n', b"\n"), (b"# c\n" + b'default_command = "K"\n', b"\r\n")):
            self.file.write_bytes(mark + text.replace(b"\n", line_end))
            self.assertEqual(load(self.file, environ=self.environ).default_command, "K")
        self.file.write_bytes(mark)
        self.assertEqual(load(self.file, environ=self.environ), self.load(""))
        for wrong in (b"a = '\xff'", b"a = 1\nb = =", b"a = 1\n" + mark):
            self.file.write_bytes(wrong)
            plain = self.assertRaises(ConfigError, load, self.file)
            self.file.write_bytes(mark + wrong)
            self.assertEqual(str(self.assertRaises(ConfigError, load, self.file)), str(plain))

    def test_everything(self) -> None:
        """
        Every key of a file arrives; relative paths start from the file's folder.
        """
        settings = self.load(
            'state = "state"\ndatabase = "host=/run dbname=x"\ngateway = "g"\nhttp = "tcp:8080"\n'
            'listen = ["tcp:1", "unix:a.sock:mode=600"]\ndefault_command = "T"\nmax_connections = 5\n'
            'durability = "200ms"\njournal_limit = "2 GiB"\n'
            'client_bytes_per_turn = "64KiB"\nclient_bytes_per_second = "16 KiB"\n'
            '[device."a:b"]\npath = "./tty"\nbaud = 1200\ndialect = "fields"\nwindow = 1\nbuffer = 127\ntags = true\n'
            'tap = "t"\nsettle = 2\npatience = 3\nsilence = 60\nreset = "never"\nrepeats = "1.5s"\n'
            '[device.net]\npath = "tcp:host:1"\n'
            '[sensor."28:FF"]\nname = "Bedroom"\ndevice = "net"\ndefault_command = "J"\ntimeout = 1\npatience = 2.5\n'
            'store = "on change, at least every 5m"\n[sensor.21]\nstore = "on change"\n'
            '[command.L]\ncoalesce = false\nfields = ["temp"]\nidempotent = true\nretries = 2\n'
        )
        self.assertEqual(
            plain(settings),
            Settings(
                state=self.folder / "state",
                database="host=/run dbname=x",
                gateway="g",
                listen=(ListenAddress("tcp:1"), ListenAddress(f"unix:{self.folder}/a.sock:mode=600")),
                http=HttpSettings(listen=ListenAddress("tcp:8080"), required=True),
                default_command="T",
                max_connections=5,
                client_bytes_per_turn=64 << 10,
                client_bytes_per_second=16 << 10,
                durability=0.2,
                journal_limit=2 << 30,
                devices={
                    "a:b": DeviceSettings(
                        path=str(self.folder / "tty"),
                        baud=1200,
                        window=1,
                        buffer=127,
                        tags=True,
                        tap=self.folder / "t",
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
                commands={"L": CommandSettings(coalesce=False, fields=frozenset({"TEMP"}), idempotent=True, retries=2)},
                file=self.file,
            ),
        )

    def test_names(self) -> None:
        """
        The names of fields may be spelled with `_`, and are known with `-`.
        """
        settings = self.load(
            '[sensor.20]\ncommands = { "Half" = "L temp_in=50" }\n[sensor.20.field.Temp_In]\nunit = "C"\n'
            '[command.L]\nfields = ["TEMP_IN", "PM2.5"]\n'
        )
        self.assertEqual(settings.sensors["20"].fields, {"TEMP-IN": FieldSettings(unit="C")})
        self.assertEqual(settings.sensors["20"].commands[0].arguments, {"TEMP-IN": "50"})
        self.assertEqual(settings.commands["L"].fields, {"TEMP-IN", "PM2.5"})

    def test_dialect_options(self) -> None:
        """
        The keys that usbgate does not know are the dialect's.
        """
        device = self.load(SEPARATED + 'baud = 1200\nseparator = "|"').devices["board"]
        self.assertEqual(
            (device.baud, device.dialect, device.options), (1200, "tests.support.separated", {"separator": "|"})
        )
        self.assertEqual(self.load(SEPARATED).devices["board"].options, {})

    def test_kind(self) -> None:
        """
        A kind brings a unit and decimals, unless the field has others or is one of states; numbers in `values` are
        found by any spelling.
        """
        settings = self.load(
            '[sensor.1]\nfield.A = { kind = "voltage" }\nfield.B = { kind = "temperature", unit = "°F" }\n'
            'field.C = { kind = "power", values = { "1.0" = "on", OFF = "off" } }\nfield.D = { kind = "door" }\n'
        )
        fields = settings.sensors["1"].fields
        self.assertEqual(
            {key: (field.unit, field.decimals, field.states) for key, field in fields.items()},
            {"A": ("V", 1, False), "B": ("°F", 1, False), "C": (None, None, True), "D": (None, None, True)},
        )
        self.assertEqual(fields["C"].values, {"1": "on", "OFF": "off"})

    def test_durations(self) -> None:
        """
        A duration is a number of seconds, or a text with or without a unit and a blank.
        """
        for spelled, seconds in [("2", 2), ("2.5", 2.5), ('"2"', 2), ('"2 s"', 2), ('"250ms"', 0.25), ('"1m"', 60)]:
            with self.subTest(spelled=spelled):
                self.assertEqual(self.load(LEONARDO + f"settle = {spelled}").devices["leonardo"].settle, seconds)

    def test_automatic(self) -> None:
        """
        What goes by the board is `auto`, as without the key.
        """
        for text in ("", 'buffer = "auto"\nsettle = "auto"'):
            device = self.load(LEONARDO + text).devices["leonardo"]
            self.assertEqual((device.buffer, device.settle), (None, None))
        device = self.load(LEONARDO + "buffer = 0\nsettle = 0").devices["leonardo"]
        self.assertEqual((device.buffer, device.settle), (0, 0.0))

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
            plain(settings),
            Settings(
                state=Path.cwd() / "here",
                database="postgres://db",
                listen=(ListenAddress("tcp:3"),),
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
        The error for a wrong option is one line that names it.
        """
        error = self.assertRaises(ConfigError, self.load, "", devices=["ttyACM0"])
        self.assertEqual(str(error), f'--device ttyACM0: expected {PLACE}, got "ttyACM0"')
        error = self.assertRaises(ConfigError, self.load, "", listen=["tcp"])
        self.assertEqual(str(error), f'--listen: expected {LISTEN}, got "tcp"')
        error = self.assertRaises(ConfigError, load, None, database="postgres", environ=self.environ)
        self.assertIn("--database: expected", str(error))

    def test_same_address(self) -> None:
        """
        An address at which usbgate is to listen twice is named; the system would only say that it is in use.
        """
        for text, listen, line in (
            ('listen = ["tcp:1", "tcp:1:interface=127.0.0.1"]', [], "listen: tcp:1:interface=127.0.0.1"),
            ('listen = ["unix:/a", "unix:/a:mode=600"]', [], "listen: unix:/a:mode=600"),
            ('listen = ["tcp:1"]\n[http]\nlisten = "ssl:1:privateKey=/k"', [], "http.listen: ssl:1:privateKey=/k"),
            ('[http]\nlisten = "tcp:1"', ["tcp:1"], "http.listen: tcp:1"),
        ):
            error = self.assertRaises(ConfigError, self.load, text, listen=listen)
            self.assertEqual(str(error), f"{line}: usbgate is to listen there already")
        for text in ('listen = ["tcp:0", "tcp:0", "tcp:1", "tcp6:1", "tcp:2"]', 'listen = ["tcp:1"]\nhttp = "none"'):
            self.load(text)

    def test_no_folder(self) -> None:
        """
        A current folder that was removed is one line, too.
        """

        def removed() -> str:
            raise FileNotFoundError

        self.patch(os, "getcwd", removed)
        error = self.assertRaises(ConfigError, load, None, environ=self.environ)
        self.assertEqual(str(error), "the current folder was removed: change to another one")

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

    def test_no_home(self) -> None:
        """
        A user without a home folder, as in a container, must say where the state folder is; nothing is looked for, or
        made, in a folder `~`.
        """
        self.patch(os, "geteuid", lambda: 12345)
        self.patch(os.path, "expanduser", lambda path: path)
        error = self.assertRaises(ConfigError, load, None, environ={})
        self.assertEqual(
            str(error), "state: this user has no home folder: set it in the configuration, or HOME or USBGATE_STATE"
        )
        self.assertEqual(load(None, environ={"USBGATE_STATE": "/u"}).state, Path("/u"))
        self.assertEqual(load(None, environ={"XDG_STATE_HOME": "/x"}).state, Path("/x/usbgate"))

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
        text = self.text.replace('"tcp:localhost:1883"', '"tls:localhost:8883"')  # `ca` needs it
        settings = self.load(re.sub("(?m)^#(?! |$)", "", text))
        self.assertEqual(
            plain(settings).devices,
            {
                "leonardo": DeviceSettings(
                    path="/dev/ttyACM0",
                    patience=5.0,
                    silence=60.0,
                    gap=0.25,
                    repeats=0.2,
                    tap=Path("/run/usbgate/leonardo"),
                    options={"checksum": False, "names": ["TEMP_IN"], "join": True},
                )
            },
        )
        sensor = settings.sensors["20"]
        self.assertEqual((sensor.device, sensor.stale, sensor.poll), ("leonardo", 3600.0, 300.0))
        self.assertEqual(
            sensor.commands, (Button("Lamp on", "ON"), Button("Lamp off", "OFF"), Button("Half", "L", {"LEVEL": "50"}))
        )
        self.assertEqual(
            sensor.fields,
            {
                "TEMP": FieldSettings(
                    kind="temperature",
                    label={"en": "Boiler", "fr": "Chaudière"},
                    values={"0": "closed", "1": {"en": "open", "fr": "ouverte"}},
                    unit="°C",
                    decimals=1,
                    alarm=Condition(">", 60.0),
                ),
                "PROBE": FieldSettings(scale=0.1, offset=-0.4, min=-40.0, max=60.0),
            },
        )
        self.assertEqual(
            {name: control.type for name, control in sensor.controls.items()},
            {"Lamp": "light", "Blind": "cover", "Mode": "select", "Setpoint": "number"},
        )
        self.assertEqual(settings.commands["TOGGLE"], CommandSettings(coalesce=False))
        self.assertEqual(settings.commands["ON"], CommandSettings(idempotent=True, retries=2))
        self.assertEqual(
            settings.http,
            HttpSettings(
                listen=ListenAddress("tcp:8080:interface=127.0.0.1"),
                hosts=("house.example",),
                cors=("https://house.example",),
                base_path="/usbgate",
                metrics_limit=1000,
                required=True,
            ),
        )
        self.assertEqual(
            settings.mqtt,
            MqttSettings(
                broker="tls:localhost:8883",
                user="usbgate",
                password_file=Path("/etc/usbgate/mqtt-password"),
                ca=Path("/etc/usbgate/mqtt-ca.pem"),
            ),
        )
        (rule,) = settings.rules
        self.assertEqual((rule.name, rule.quiet, rule.alarm), ("smoke", 600.0, True))
        assert rule.mail is not None
        assert settings.mail is not None
        self.assertEqual((rule.mail.to, settings.mail.from_), (("anna@example.net",), "house@example.net"))
        options = settings.devices["leonardo"].options
        (client,) = settings.clients
        self.assertEqual((client.role, client.users, client.sensors), (Role.READ, {0, 1001}, {"20", "21"}))
        self.assertEqual([*map(str, client.addresses)], ["192.168.1.0/24", "10.0.0.7/32"])
        named = set(re.findall(r"(?m)^#(\w+) = ", self.text)) | set(re.findall(r"(?m)^#\[(\w+)\.", self.text))
        of_tables = {
            *HTTP_KEYS,
            *MQTT_KEYS,
            *DEVICE_KEYS,
            *options,
            *SENSOR_KEYS,
            *FIELD_KEYS,
            *CONTROL_KEYS,
            *COMMAND_KEYS,
            *CLIENT_KEYS,
            *MAIL_KEYS,
            *RULE_KEYS,
            "mail",
            "webhook",
        }
        self.assertEqual(named, {*TOP_KEYS, *TABLES, *of_tables})
