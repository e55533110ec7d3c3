"""
Questions and answers: how long one takes, how many there are per second, and whether each answer belongs to its
question.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench import child
from tests.bench.device import Device
from tests.bench.figures import Figure, Measured, Row
from tests.bench.rig import Rig
from tests.bench.running import Daemon, Load
from tests.support.running import ROOT, environment, free_port
from tests.support.waiting import eventually

CLIENTS = (1, 50, 200)
SLICES = 2  # of each gateway in a round, by turns, over the same connections
FLOW = 20_000  # unasked readings a second
FLOW_SLICES = 1  # in a round, with and without them, by turns
KEPT = ("per_second", "p50", "p99", "most", "share", "cpu", "load_share")  # keys of the results of a slice

_SER2NET = """\
connection: &bench
  accepter: tcp,127.0.0.1,{port}
  connector: serialdev,{path},115200n81,local
  options:
    chardelay: false
"""


def check(results: Mapping[str, Any]) -> None:
    """
    Fail unless every question got its answer.
    """
    if results["wrong"] or results["errors"] or results["unanswered"]:
        raise AssertionError(f"not every answer was right: {results}")


class Program(NamedTuple):
    """
    A program between clients and a device.
    """

    port: int
    pid: int


class Askers:
    """
    Clients of a program, which connect once.
    """

    def __init__(self, program: Program, load: Load) -> None:
        self._program = program
        self._load = load

    def ask(self, seconds: float, rate: float = 0.0) -> dict[str, Any]:
        """
        Let them ask for a while.

        Args:
            seconds: How long.
            rate: The most questions per second, of all together; 0 for no limit.

        Returns:
            Times in milliseconds; microseconds of `cpu` that the program used per answer, and its `share` of a core in
            percent; that of the clients, `load_share`.

        Raises:
            AssertionError: An answer was none to its question, or an error, or none came.
        """
        cpu = child.threads_cpu(self._program.pid)
        results = self._load.slice(seconds, rate)
        cpu = child.threads_cpu(self._program.pid) - cpu
        check(results)
        return {
            **results,
            "cpu": cpu / results["all_answers"] * 1e6,
            "share": cpu / results["lasted"] * 100,
            "load_share": results["cpu"] / results["lasted"] * 100,
        }


@contextmanager
def askers(rig: Rig, program: Program, clients: int, echo: bool = True) -> Iterator[Askers]:
    """
    Connect clients to a program.

    Args:
        rig: The rig.
        program: The program.
        clients: How many.
        echo: Whether it echoes questions.
    """
    with rig.start_load("ask_in_slices", port=program.port, clients=clients, echo=echo) as load:
        load.ready()
        yield Askers(program, load)


def program_of(daemon: Daemon) -> Program:
    """
    Return a daemon as a program.
    """
    return Program(daemon.port, daemon.pid)


@contextmanager
def ser2net(rig: Rig, device: Device) -> Iterator[Program | None]:
    """
    Run ser2net for a device; None if it is not installed.
    """
    program = shutil.which("ser2net", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        rig.progress("ser2net is not installed: not measured")
        yield None
        return
    port = free_port()
    config = rig.new_path("ser2net").with_suffix(".yaml")  # else it is parsed as the old format
    config.write_text(_SER2NET.format(port=port, path=os.path.realpath(device.path)))
    with _run(rig, port, program, "-n", "-c", str(config)) as gateway:
        yield gateway


@contextmanager
def least(rig: Rig, device: Device) -> Iterator[Program]:
    """
    Run the least gateway for a device.
    """
    port = free_port()
    with _run(rig, port, sys.executable, "-m", "tests.bench.least", str(device.path), str(port)) as gateway:
        yield gateway


@contextmanager
def _run(rig: Rig, port: int, *command: str) -> Iterator[Program]:
    with rig.new_path("log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env=environment(),
            start_new_session=True,
        )
    try:
        eventually(lambda: process.poll() is not None or _listens(port), f"{command[0]} listens")
        yield Program(port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _listens(port: int) -> bool:
    # Not by connecting: it would open the device for that connection.
    listening = f":{port:04X} 00000000:0000 0A "
    return listening in Path("/proc/net/tcp").read_text()


def sliced(
    rig: Rig, gateways: Mapping[str, Program], clients: int, seconds: float, without_echo: Sequence[str] = ()
) -> Iterator[dict[str, dict[str, float]]]:
    """
    Let clients ask several gateways by turns, each over the same connections; the first slice of each is not counted.

    Args:
        rig: The rig.
        gateways: The gateways by name.
        clients: The connections to each.
        seconds: The length of a slice.
        without_echo: Those that echo nothing.

    Yields:
        One slice of each: the results of `Askers.ask` by gateway.
    """
    with ExitStack() as stack:
        asking = {
            name: stack.enter_context(askers(rig, gateway, clients, echo=name not in without_echo))
            for name, gateway in gateways.items()
        }
        for number in range(1 + rig.size(SLICES, 1)):
            found = {}
            for name, those in asking.items():
                rig.progress(f"{name}, {clients} at a time, slice {number}")
                found[name] = those.ask(seconds)
            if number:
                yield found


def _measure(rig: Rig) -> Measured:
    seconds = 0.2 if rig.quick else 1.0
    found: defaultdict[str, list[float]] = defaultdict(list)

    def record(name: str, results: Mapping[str, Any]) -> None:
        for key in KEPT:
            if key in results:
                found[f"{name}_{key}"].append(results[key])

    for clients in CLIENTS:
        with ExitStack() as stack:
            # A device each, so that they don't influence each other.
            devices = [stack.enter_context(rig.device()) for _ in range(4)]
            database = stack.enter_context(rig.database())
            daemon = stack.enter_context(rig.daemon(devices[0], database.url))
            gateways = {
                "usbgate": program_of(daemon),
                "least": stack.enter_context(least(rig, devices[1])),
            }
            if clients == 1 and (gateway := stack.enter_context(ser2net(rig, devices[2]))) is not None:
                gateways["ser2net"] = gateway
            for results in sliced(rig, gateways, clients, seconds, ["ser2net"]):
                for name, of in results.items():
                    record(f"{name}_{clients}", of)
                    if name != "usbgate":
                        for key in ("cpu", "p50"):
                            found[f"{key}_of_{name}_{clients}"].append(results["usbgate"][key] / of[key])
                direct = rig.load("direct", path=str(devices[3].path), clients=clients, seconds=seconds)
                check(direct)
                record(f"direct_{clients}", direct)
    return found


def _figures() -> Iterator[Figure]:
    for clients in CLIENTS:
        name = f"{clients} clients" if clients > 1 else "1 client"
        gateways = {f"least_{clients}": "least gateway"} | ({"ser2net_1": "ser2net"} if clients == 1 else {})
        beside = {f"direct_{clients}": "the tty alone"} | gateways

        def of(key: str, beside: Mapping[str, str] = beside) -> dict[str, str]:
            return {f"{other}_{key}": what for other, what in beside.items()}

        yield Figure(f"usbgate_{clients}_p50", f"{name}: median latency", "ms", of("p50"))
        if clients == 1:
            yield Figure("p50_of_ser2net_1", "relative to ser2net", "x", reach="<= 2")
        yield Figure(f"usbgate_{clients}_p99", f"{name}: 99th percentile", "ms", of("p99"))
        yield Figure(f"usbgate_{clients}_per_second", f"{name}: answers", "/s", of("per_second"))
        yield Figure(f"usbgate_{clients}_cpu", f"{name}: CPU time of the daemon per answer", "µs", of("cpu", gateways))
        reach = "<= 2.5" if clients == 200 else ""
        yield Figure(f"cpu_of_least_{clients}", "relative to the least gateway", "x", reach=reach)
        yield Figure(f"usbgate_{clients}_load_share", f"{name}: CPU usage of the clients, of one core", "%")


ROUND_TRIP = Row(
    "roundtrip",
    "a question from a client to the device and its answer back; distinct sensors, window = 64; every answer right",
    list(_figures()),
    _measure,
)


def _measure_under_flow(rig: Rig) -> Measured:
    clients, seconds = 50, rig.size(2, 1)
    flow = rig.size(FLOW, 2_000)
    found: defaultdict[str, list[float]] = defaultdict(list)
    with (
        rig.device() as device,
        rig.database() as database,
        rig.daemon(device, database.url) as daemon,
        askers(rig, program_of(daemon), clients) as those,
    ):
        those.ask(seconds / 2)  # warm, and not counted
        for _ in range(rig.size(FLOW_SLICES, 1)):
            for name, rate in (("quiet", 0), ("flow", flow)):
                rig.progress(f"{clients} clients, {rate:,} unsolicited readings a second")
                device.speak(rate)
                time.sleep(0.5)  # until it runs evenly
                # At a rate that both reach: as fast as possible measures the cost of a flow, not how long one waits.
                for kind, questions in (("", rig.size(1_000, 200)), ("_full", 0)):
                    results = those.ask(seconds, questions)
                    for key in KEPT:
                        found[f"{name}{kind}_{key}"].append(results[key])
            device.speak(0)
            for kind, times in (("", "times"), ("_full", "full_times")):
                found[times].append(found[f"flow{kind}_p99"][-1] / found[f"quiet{kind}_p99"][-1])
    return found


UNDER_FLOW = Row(
    "flow",
    "the same with 50 clients, while 20,000 unsolicited readings a second arrive",
    [
        Figure("flow_p50", "1,000 questions/s: median latency", "ms", {"quiet_p50": "no flow"}),
        Figure("flow_p99", "1,000 questions/s: 99th percentile", "ms", {"quiet_p99": "no flow"}),
        Figure("times", "relative to no flow", "x", reach="<= 2"),
        Figure("flow_full_per_second", "maximum rate: answers", "/s", {"quiet_full_per_second": "no flow"}),
        Figure("flow_full_p99", "maximum rate: 99th percentile", "ms", {"quiet_full_p99": "no flow"}),
        Figure("full_times", "relative to no flow", "x", reach="<= 2"),
        Figure(
            "flow_full_cpu",
            "maximum rate: CPU time of the daemon per answer, the readings included",
            "µs",
            {"quiet_full_cpu": "no flow"},
        ),
        Figure(
            "flow_share",
            "1,000 questions/s: CPU usage of the daemon, of one core",
            "%",
            {"quiet_share": "no flow"},
        ),
    ],
    _measure_under_flow,
)


def _measure_together(rig: Rig) -> Mapping[str, float]:
    clients = rig.size(500, 50)
    with rig.device() as device, rig.daemon(device) as daemon:
        rig.progress(f"{clients} clients ask one sensor at once")
        device.answer_after(1.0)  # until all have asked: a question after the answer is a new one
        answers = rig.load("together", port=daemon.port, clients=clients)["answers"]
        received = device.counts()["received"]
    if sum(answers.values()) != clients or any(not answer.startswith("ID:1_VALUE:") for answer in answers):
        raise AssertionError(f"not every answer was right: {answers}")
    return {"clients": sum(answers.values()), "messages": received}


COALESCING = Row(
    "coalescing",
    "500 clients ask one sensor the same question at the same time",
    [
        Figure("messages", "exchanges with the device", reach="<= 1"),
        Figure("clients", "clients answered"),
    ],
    _measure_together,
    once=True,
)
