"""
Firmware of Arduinos: compiled as the IDE does it, and run in real time on an emulated board whose UARTs are ptys.
"""

from __future__ import annotations

import select
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.support.folders import new_folder
from tests.support.running import ROOT
from tests.support.waiting import LIMIT

HARDWARE = Path("/usr/share/arduino/hardware")  # of Debian's arduino-core-avr
AVR = HARDWARE / "arduino" / "avr"
LIBRARY = ROOT / "arduino" / "UsbGate"
SKETCHES = ROOT / "tests" / "arduino"

# The compiler's options in the IDE's platform.txt; the last one lets Debian's avr-gcc compile the core.
COMMON = ("-g", "-Os", "-ffunction-sections", "-fdata-sections", "-flto", "-DF_CPU=16000000L", "-DARDUINO=10819")
CPP = ("-std=gnu++11", "-fpermissive", "-fno-exceptions", "-fno-threadsafe-statics", "-DDECIMAL_DIG=__DECIMAL_DIG__")
STRICT = ("-Wall", "-Wextra", "-Werror")  # for what is ours


class ArduinoModel(NamedTuple):
    """
    A kind of Arduino: its name in boards.txt, its chip, and how its core is compiled.
    """

    name: str
    chip: str
    options: tuple[str, ...]
    variant: str


UNO = ArduinoModel("uno", "atmega328p", ("-DARDUINO_AVR_UNO",), "standard")
MEGA = ArduinoModel("mega", "atmega2560", ("-DARDUINO_AVR_MEGA2560",), "mega")
LEONARDO = ArduinoModel(
    *("leonardo", "atmega32u4"),
    (
        *("-DARDUINO_AVR_LEONARDO", "-DUSB_VID=0x2341", "-DUSB_PID=0x8036"),
        *('-DUSB_MANUFACTURER="Unknown"', '-DUSB_PRODUCT="Arduino Leonardo"'),
    ),
    "leonardo",
)


@cache
def needs_tools() -> str | None:
    """
    Return why firmware can't be compiled and run; None if it can.
    """
    for program in ("avr-g++", "arduino-builder", "gcc", "pkg-config"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    if not AVR.is_dir():
        return f"there is no {AVR} (arduino-core-avr)"
    if subprocess.run(["pkg-config", "simavr"], check=False).returncode:
        return "there is no libsimavr-dev"
    return None


def run(*command: str | Path) -> str:
    """
    Run a compiler; return its output.

    Raises:
        AssertionError: It failed.
    """
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=2 * LIMIT)
    if ran.returncode:
        raise AssertionError(f"{command}: {ran.stdout}{ran.stderr}")
    return ran.stdout


def size(elf: Path) -> tuple[int, int]:
    """
    Return the bytes of flash and of RAM that firmware takes, without the stack.
    """
    text, data, bss = map(int, run("avr-size", elf).splitlines()[1].split()[:3])
    return text + data, data + bss


class Workshop:
    """
    A folder in which firmware is compiled. What all sketches of a model share is compiled once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.board = folder / "board"

    def build_runner(self) -> None:
        """
        Compile `board`, the emulated board, unless it is there.
        """
        if not self.board.exists():
            flags = run("pkg-config", "--cflags", "--libs", "simavr").split()
            run("gcc", "-O2", *STRICT, "-o", self.board, SKETCHES / "board.c", *flags, "-lelf")

    def build_as_ide(self, sketch: Path) -> Path:
        """
        Compile a sketch for the Uno as the IDE does, which finds the library by itself; return the firmware.
        """
        libraries, build = self.folder / "libraries", self.folder / "ide"
        shutil.copytree(LIBRARY, libraries / LIBRARY.name)
        build.mkdir()
        run(
            *("arduino-builder", "-fqbn", "arduino:avr:uno", "-hardware", HARDWARE),
            *("-hardware", "/usr/share/arduino-builder", "-tools", "/usr/bin", "-libraries", libraries),
            *("-build-path", build, "-prefs=compiler.cpp.extra_flags=-DDECIMAL_DIG=__DECIMAL_DIG__", sketch),
        )
        return build / f"{sketch.name}.elf"

    def build(self, model: ArduinoModel, sketch: Path, **replaced: str) -> Path:
        """
        Compile a sketch; return the firmware.

        Args:
            model: The kind of Arduino.
            sketch: The .ino file, which declares everything before it uses it.
            replaced: Words in the sketch, and what stands in their place.
        """
        shared = self._build_shared(model)
        text = sketch.read_text()
        for word, other in replaced.items():
            assert word in text
            text = text.replace(word, other)
        source = shared / f"{sketch.stem}.cpp"
        source.write_text(f'#include <Arduino.h>\n#line 1 "{sketch.name}"\n{text}')
        objects = [self._compile(model, source, *STRICT), shared / "UsbGate.o"]
        if "SoftwareSerial.h" in text:
            objects.append(self._compile(model, AVR / "libraries/SoftwareSerial/src/SoftwareSerial.cpp", "-w"))
        elf = source.with_suffix(".elf")
        linking = ("-Wl,--gc-sections", "-fuse-linker-plugin", "-o", elf)
        run("avr-gcc", *self._options(model), *linking, *objects, shared / "core.a", "-lm")
        return elf

    def _build_shared(self, model: ArduinoModel) -> Path:
        # Compile the core and the library, unless they are there; return their folder.
        shared = self.folder / model.name
        if shared.exists():
            return shared
        core = AVR / "cores" / "arduino"
        objects = shared / "core"
        objects.mkdir(parents=True)
        for compiler, standard, sources in (
            ("avr-g++", CPP, core.glob("*.cpp")),
            ("avr-gcc", ("-std=gnu11",), core.glob("*.c")),
        ):
            # In the folder, since several sources are compiled at once.
            command = [compiler, *self._options(model), "-w", *standard, "-c", *map(str, sources)]
            subprocess.run(command, check=True, cwd=objects, timeout=2 * LIMIT)
        run("avr-gcc-ar", "rcs", shared / "core.a", *sorted(objects.glob("*.o")))
        self._compile(model, LIBRARY / "src" / "UsbGate.cpp", *STRICT)
        return shared

    def _compile(self, model: ArduinoModel, source: Path, *more: str) -> Path:
        target = self.folder / model.name / f"{source.stem}.o"
        run("avr-g++", *self._options(model), *CPP, *more, "-c", "-o", target, source)
        return target

    def _options(self, model: ArduinoModel) -> tuple[str, ...]:
        headers = (AVR / "cores" / "arduino", AVR / "variants" / model.variant, AVR / "libraries/SoftwareSerial/src")
        includes = (f"-I{path}" for path in (*headers, LIBRARY / "src"))
        return (*COMMON, f"-mmcu={model.chip}", *model.options, "-DARDUINO_ARCH_AVR", *includes)


@cache
def workshop() -> Workshop:
    """
    Make this process's workshop.
    """
    return Workshop(new_folder())


class EmulatedBoard:
    """
    A board that runs firmware (see `tests/arduino/board.c`), as a process in a session of its own.
    """

    def __init__(self, model: ArduinoModel, elf: Path, *uarts: str) -> None:
        """
        Switch it on.

        Args:
            model: The kind of Arduino.
            elf: Its firmware.
            uarts: The number of each UART to connect and the path of its pty, as `0=/dev/pty`; the first one's is the
                cable to the computer.
        """
        self._process = subprocess.Popen(
            [workshop().board, elf, model.chip, *uarts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._read()

    def do(self, command: str) -> str:
        """
        Have it carry a command out; return what it says.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], LIMIT)
        line = self._process.stdout.readline() if readable else ""
        assert line, "the board has ended, or hangs"
        return line.strip()

    def end(self) -> int:
        """
        End it as the end of the tests does, by the end of its input; return its exit status.
        """
        if self._process.returncode is None:
            self._process.communicate(timeout=LIMIT)
        return self._process.returncode
