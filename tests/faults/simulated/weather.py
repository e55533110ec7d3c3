"""
Everything that can go wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.faults.simulated.database import CALL_LIMIT
from tests.faults.simulated.life import demand
from tests.faults.simulated.peer import LATE, Peer

if TYPE_CHECKING:
    from tests.faults.simulation import World

FAULTS = (
    "flaps", "garbage", "late", "lost", "repeated", "stuck device", "database away", "database hangs",
    "confirmation lost", "database slow", "no readers", "poison", "disk refuses", "disk slow", "crash", "stop",
    "clock steps", "late timers", "hang up", "half-close", "never reads", "reads slowly", "junk", "cut chunks",
)  # fmt: skip


def _flap(world: World) -> None:
    device = world.random.choice(world.devices)
    if device.plugged:
        device.unplug()
    else:
        device.plugged = True


def _stick_device(world: World) -> None:
    device = world.random.choice(world.devices)
    device.stick(not device.stuck)


def _database_away(world: World) -> None:
    database = world.database
    if database.away is None:
        database.away = world.random.choice(["refused", "read-only", "no such table"])
        world.sink.drop("terminated")
        world.run(0)
        state = world.delivery.state
        demand(not world.running or state == "away", "a lost connection is noticed at once", state)
    else:
        database.away = None


def _database_hangs(world: World) -> None:
    world.database.hangs = not world.database.hangs


def _lose_confirmation(world: World) -> None:
    world.database.loses_confirmation = 1


def _database_slow(world: World) -> None:
    world.database.latency = world.random.choice([0.0, 0.01, 1.0, CALL_LIMIT + 1])


def _no_readers(world: World) -> None:
    world.database.readers = not world.database.readers


def _disk_refuses(world: World) -> None:
    world.disk.refuses = not world.disk.refuses


def _disk_slow(world: World) -> None:
    world.disk.latency = world.random.choice([0.0, 0.01, 0.5, 3.0])


def _crash(world: World) -> None:
    world.life.fuse = world.random.choice([0, 1, 2, 3, 5, 8, 13, 21])


def _stop(world: World) -> None:
    if world.stop():
        world.clock.callLater(world.random.choice([0.0, 5.0]), world.start)


def _step_clock(world: World) -> None:
    year = 365 * 86_400_000
    world.time.offset = world.random.choice([0, 10 * year, 57 * year, 60 * year, 200 * year])
    world.time.right = world.random.random() < 0.5


def _late_timers(world: World) -> None:
    world.clock.advance(world.random.uniform(0, LATE))


def _some_peer(world: World) -> Peer | None:
    here = [peer for peer in world.peers.values() if peer.transport.open]
    return world.random.choice(here) if here else None


def _hang_up(world: World) -> None:
    if peer := _some_peer(world):
        peer.hang_up()


def _half_close(world: World) -> None:
    if peer := _some_peer(world):
        peer.half_closed = True
        peer.flush()


def _never_read(world: World) -> None:
    if peer := _some_peer(world):
        peer.stick(not peer.transport.stuck)


# Faults that are things that happen; the others are in how things are said and done.
DEEDS: dict[str, Callable[[World], None]] = {
    "flaps": _flap,
    "stuck device": _stick_device,
    "database away": _database_away,
    "database hangs": _database_hangs,
    "confirmation lost": _lose_confirmation,
    "database slow": _database_slow,
    "no readers": _no_readers,
    "disk refuses": _disk_refuses,
    "disk slow": _disk_slow,
    "crash": _crash,
    "stop": _stop,
    "clock steps": _step_clock,
    "late timers": _late_timers,
    "hang up": _hang_up,
    "half-close": _half_close,
    "never reads": _never_read,
}
