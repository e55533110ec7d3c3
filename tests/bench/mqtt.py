"""
MQTT: what it costs, how long a question takes over it, and that a broker that is away costs nothing.
"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

from tests.bench.database import GATEWAY
from tests.bench.figures import Figure, Measured, Row
from tests.bench.rig import Rig
from tests.bench.roundtrip import Askers, askers, program_of
from tests.bench.throughput import stored
from tests.support.mosquitto import PROGRAM, Mosquitto
from tests.support.running import free_port

LINES = 200_000  # for each broker
CLIENTS = (1, 50)
SLICES = 3  # in a round, of each by turns
RATE = 100_000  # questions a second that the daemon permits: the limit is not what is measured

# Brokers that are away, by name.
AWAY = {"closed": "a closed port", "mute": "a broker that says nothing"}


@contextmanager
def brokers(rig: Rig) -> Iterator[Mapping[str, str | None]]:
    """
    Run a broker, if mosquitto is installed, and one that accepts connections and says nothing; return where they are,
    by name.
    """
    with ExitStack() as stack:
        found: dict[str, str | None] = {"off": None}
        if PROGRAM is None:
            rig.progress("mosquitto is not installed: not measured")
        else:
            found["on"] = stack.enter_context(closing(Mosquitto())).endpoint
        mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        found["mute"] = f"tcp:127.0.0.1:{mute.getsockname()[1]}"
        found["closed"] = f"tcp:127.0.0.1:{free_port()}"
        yield found


def _measure(rig: Rig) -> Measured:
    found: defaultdict[str, list[float]] = defaultdict(list)
    with brokers(rig) as places:
        for name, broker in places.items():
            rig.progress(f"{rig.size(LINES, 5_000):,} readings, MQTT: {name}")
            with rig.database() as database:
                results = stored(rig, database, rig.size(LINES, 5_000), 40, broker=broker)
            for key in ("per_second", "daemon_cpu"):
                found[f"{name}_{key}"].append(results[key])
            found[f"{name}_of_off"].append(results["daemon_cpu"] / found["off_daemon_cpu"][-1])
        for clients in CLIENTS:
            _ask(rig, places, clients, found)
    return found


def _ask(rig: Rig, places: Mapping[str, str | None], clients: int, found: defaultdict[str, list[float]]) -> None:
    # Over TCP and, where there is a broker, over MQTT. A device each, so that they don't influence each other.
    with ExitStack() as stack:
        asking: dict[str, Askers] = {}
        for name, broker in places.items():
            device = stack.enter_context(rig.device())
            daemon = stack.enter_context(rig.daemon(device, broker=broker, client_requests_per_second=RATE))
            asking[name] = stack.enter_context(askers(rig, program_of(daemon), clients))
            if name == "on":
                assert broker is not None
                daemon.wait_until("status", "MQTT:connected")
                port, topic = int(broker.rpartition(":")[2]), f"usbgate/{GATEWAY}/ask"
                load = stack.enter_context(
                    rig.start_load("ask_mqtt_in_slices", port=port, topic=topic, clients=clients)
                )
                load.ready()
                asking["mqtt"] = Askers(program_of(daemon), load)
        for number in range(1 + rig.size(SLICES, 1)):
            results = {}
            for name, those in asking.items():
                rig.progress(f"MQTT: {name}, {clients} at a time, slice {number}")
                results[name] = those.ask(0.2 if rig.quick else 1.0)
            if number:  # the first ones are warm-up
                for name, of in results.items():
                    found[f"{name}_{clients}_p50"].append(of["p50"])
                    found[f"{name}_{clients}_cpu"].append(of["cpu"])
                    found[f"{name}_{clients}_times"].append(of["p50"] / results["off"]["p50"])


def _figures() -> Iterator[Figure]:
    yield Figure("on_per_second", "readings stored", "/s", {"off_per_second": "MQTT off"})
    yield Figure("on_of_off", "CPU time of the daemon per reading, relative to MQTT off", "x")
    for name, what in AWAY.items():
        yield Figure(f"{name}_per_second", f"{what}: readings stored", "/s")
        text = f"{what}: CPU time of the daemon per reading, relative to MQTT off"
        yield Figure(f"{name}_of_off", text, "x", reach="<= 1.05")
    for clients in CLIENTS:
        at_a_time = f"{clients} at a time"
        for key, what, unit in (("p50", "median latency", "ms"), ("cpu", "CPU time of the daemon per answer", "µs")):
            beside = {f"on_{clients}_{key}": "TCP", f"off_{clients}_{key}": "TCP, MQTT off"}
            yield Figure(f"mqtt_{clients}_{key}", f"{at_a_time}: {what} over MQTT", unit, beside)
        for name, what in AWAY.items():
            text = f"{at_a_time}, {what}: median latency over TCP, relative to MQTT off"
            yield Figure(f"{name}_{clients}_times", text, "x", reach="<= 1.05")


MQTT = Row(
    "mqtt",
    f"a broker: {LINES:,} readings of 40 sensors, and questions over MQTT; and a broker that is away",
    list(_figures()),
    _measure,
)
