"""
Restores what is known of sensors from the database.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from usbgate.core.model import Selection
from usbgate.core.recorder import Recorder
from usbgate.gateway.queries import Queries
from usbgate.store.interfaces import IStore


async def restore_sensors(recorder: Recorder, store: IStore, queries: Queries, reactor: IReactorTime) -> None:
    """
    Load the newest readings, for `last` and for routing. For each field whose newest reading is not plausible, load
    also the newest one that is.

    Args:
        recorder: Gets them.
        store: Has them.
        queries: Selects what is plausible.
        reactor: Gives others their turn.

    Raises:
        SinkUnavailable: The connection to the database was lost again.
    """
    owners, newest = await store.owners(), await store.latest()
    for _ in recorder.restore(owners, newest):
        await deferLater(reactor, 0)
    calibrations = recorder.calibrations
    for sensor, field in {(each.sensor, each.field) for each in newest if calibrations.reading(each) is None}:
        for reading in await store.history(queries.stored(Selection(sensor, field)), 1):
            calibrations.restore(reading)
