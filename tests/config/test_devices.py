"""
Devices on the command line.
"""

from __future__ import annotations

import os
import re
from math import inf
from pathlib import Path

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from usbgate.config.devices import only_device, parse_device, parse_devices, with_defaults
from usbgate.config.settings import DEVICE_KEYS, DeviceSettings
from usbgate.config.types import ConfigError

PLACE = (
    "a path that starts with / or ., a USB device such as usb:2341:8036[:SERIAL] or usb-port:1-1.3,"
    " a serial server such as rfc2217:host:port, or a Twisted client endpoint such as tcp:host:port"
)

# What --device says, and the line about it.
WRONG_SPECS = [
    ("", f'--device : expected {PLACE}, got ""'),
    ("ttyACM0", f'--device ttyACM0: expected {PLACE}, got "ttyACM0"'),
    ("/", f'--device /: expected {PLACE}, got "/"'),
    ("usb:2341:80367", f'--device usb:2341:80367: expected {PLACE}, got "usb:2341:80367"'),
    ("usb-port:1", f'--device usb-port:1: expected {PLACE}, got "usb-port:1"'),
    ("/dev/x,baud=fast", '--device /dev/x,baud=fast: baud: expected an integer above 0, got "fast"'),
    ("/dev/x,tags=maybe", '--device /dev/x,tags=maybe: tags: expected true or false, got "maybe"'),
    (
        "/dev/x,reset=silent",
        '--device /dev/x,reset=silent: reset: "silent" requires silence,'
        " the time without a line after which it is reset",
    ),
    ("/dev/x,baud=1,baud=2", "--device /dev/x,baud=1,baud=2: baud: given twice"),
    (
        "/dev/x,buffer=big",
        '--device /dev/x,buffer=big: buffer: expected "auto" or an integer from 0 to 65536, got "big"',
    ),
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
        BY_PATH + ",tags=true,window=1,buffer=127",
        "pci-0000:00:14.0-usb-0:1:1.0",
        DeviceSettings(path=BY_PATH, tags=True, window=1, buffer=127),
    ),
    ("/dev/t,buffer=auto,settle=auto", "t", DeviceSettings(path="/dev/t")),
    ("/dev/t,buffer=0", "t", DeviceSettings(path="/dev/t", buffer=0)),
    ("/dev/t,tap=/run/a", "t", DeviceSettings(path="/dev/t", tap=Path("/run/a"))),
    ("rfc2217:h:1,line=7E1", "rfc2217:h:1", DeviceSettings(path="rfc2217:h:1", line="7E1")),
    ("tcp:host:4000", "tcp:host:4000", DeviceSettings(path="tcp:host:4000")),
    ("tcp:host:4000,baud=115200,name=x", "x", DeviceSettings(path="tcp:host:4000", baud=115200)),
    ("/dev/t,silence=90,reset=silent", "t", DeviceSettings(path="/dev/t", silence=90, reset="silent")),
    ("/dev/t,repeats=200ms", "t", DeviceSettings(path="/dev/t", repeats=0.2)),
    (
        "/dev/usb_serial,settle=2,patience=7.5",
        "usb-serial",
        DeviceSettings(path="/dev/usb_serial", settle=2, patience=7.5),
    ),
    ("/dev/t,checksum=true,baud=1200", "t", DeviceSettings(path="/dev/t", baud=1200, options={"checksum": True})),
    (
        "/dev/t,separator=|,dialect=tests.support.separated",
        "t",
        DeviceSettings(path="/dev/t", dialect="tests.support.separated", options={"separator": "|"}),
    ),
    ("/dev/t,bauds=1,names=A B", "t", DeviceSettings(path="/dev/t", options={"bauds": "1", "names": "A B"})),
    ("/tmp/a,b:c,flow=rts/cts,line=7E1", "a-b:c", DeviceSettings(path="/tmp/a,b:c", flow="rts/cts", line="7E1")),
    ("usb:2341:8036,baud=1200", "usb:2341:8036", DeviceSettings(path="usb:2341:8036", baud=1200)),
    ("usb:303A:1001:7C:DF_1", "usb:303A:1001:7C:DF-1", DeviceSettings(path="usb:303A:1001:7C:DF_1")),
    ("usb-port:1-1.3", "usb-port:1-1.3", DeviceSettings(path="usb-port:1-1.3")),
    ("serial:/dev/ttyS0:baudrate=1200", "serial:-dev-ttyS0:baudrate-1200", None),
]


class DevicesTests(SynchronousTestCase):
    """
    `--device`, and the only device of a machine.
    """

    def test_device_specs(self) -> None:
        """
        Known keys are taken off the end of a SPEC, and the name is made of what is left.
        """
        for spec, name, device in SPECS:
            with self.subTest(spec=spec):
                found, parsed = parse_device(spec)
                self.assertEqual(parsed.given, set(re.findall(",([a-z]+)=", spec)) & DEVICE_KEYS.keys())
                parsed = replace(parsed, given=frozenset())
                self.assertEqual((found, parsed), (name, device or DeviceSettings(path=spec)))

    def test_defaults(self) -> None:
        """
        What a dialect says of its devices holds unless something else is configured; a wrong default is an error.
        """
        defaults = {"baud": 1200, "line": "7E1", "store": "on change", "window": 1}
        _, device = parse_device("/dev/t,baud=9600,window=4")
        completed = with_defaults(device, defaults)
        self.assertEqual((completed.baud, completed.window), (9600, 4))
        self.assertEqual((completed.line, completed.store), ("7E1", inf))
        for wrong, text in [
            ({"line": "7"}, "^line: expected data bits"),
            ({"path": "/dev/x"}, "^path: unknown key"),
            ({"reset": "silent"}, "^reset: .*requires silence"),
        ]:
            self.assertRaisesRegex(ConfigError, text, with_defaults, device, wrong)

    def test_wrong_specs(self) -> None:
        """
        The error for a wrong SPEC is one line that names it.
        """
        for spec, line in WRONG_SPECS:
            with self.subTest(spec=spec):
                self.assertEqual(str(self.assertRaises(ConfigError, parse_device, spec)), line)

    def test_same_name_or_path(self) -> None:
        """
        Two devices have different names and different paths.
        """
        error = self.assertRaises(ConfigError, parse_devices, ["/dev/x", "/y/x"])
        self.assertEqual(str(error), "--device /y/x: name: x is taken by another device; add ,name=ANOTHER")
        error = self.assertRaises(ConfigError, parse_devices, ["/dev/x", "/dev/x,name=y"])
        self.assertEqual(str(error), "--device: device.y.path: /dev/x is already the path of x")
        self.assertEqual(list(parse_devices(["/dev/x", "/y/x,name=y"])), ["x", "y"])

    def test_only_device(self) -> None:
        """
        The only serial device is found; if there is none, or several, the error says what to do.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        error = self.assertRaises(ConfigError, only_device, str(folder))
        self.assertEqual(
            str(error),
            f"no serial device: there is no {folder}/ttyACM* and no {folder}/ttyUSB*;"
            " connect one, or name one: [device.NAME] in the configuration, or `twistd usbgate --device PATH`",
        )
        (folder / "ttyUSB0").touch()
        (folder / "ttyS0").touch()
        path = os.path.abspath(folder / "ttyUSB0")
        self.assertEqual(only_device(os.path.abspath(folder)), ("ttyUSB0", DeviceSettings(path=path)))
        (folder / "ttyACM3").touch()
        error = self.assertRaises(ConfigError, only_device, str(folder))
        self.assertEqual(
            str(error),
            f"several serial devices: {folder}/ttyACM3, {folder}/ttyUSB0;"
            f' choose: [device.NAME] with path = "{folder}/ttyACM3" in the configuration,'
            f" or `twistd usbgate --device {folder}/ttyACM3`",
        )
