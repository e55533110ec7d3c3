"""
The journal, the database, and the delivery from one to the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService

from usbgate.config.moved import moved_database
from usbgate.config.settings import Settings
from usbgate.core.status import JournalStatus, StoreStatus
from usbgate.gateway.gateway import Gateway
from usbgate.store.delivery import Delivery
from usbgate.store.embedded.postmaster import ClusterError
from usbgate.store.interfaces import SinkUnavailable
from usbgate.store.journal.journal import Journal
from usbgate.store.postgres.session import with_password
from usbgate.store.postgres.sink import PostgresSink

if TYPE_CHECKING:
    from usbgate.store.embedded.cluster import Cluster


def make_store(reactor: Any, settings: Settings, gateway: Gateway, name: str) -> tuple[MultiService, Delivery]:
    """
    Make what stores, and let the gateway store there.

    Args:
        reactor: The reactor.
        settings: The configuration.
        gateway: The gateway.
        name: The name under which it stores its rows.

    Returns:
        The services of the journal and the embedded database, and the delivery, which stops before them.
    """
    keepers = MultiService()  # they do not depend on each other
    journal = Journal(
        reactor,
        settings.state / "journal.sqlite",
        gateway.hold_devices,
        durability=settings.durability,
        limit=settings.journal_limit,
    )
    journal.setServiceParent(keepers)
    where: Callable[[], Awaitable[str]] = partial(_configured, settings.database, settings.password_file)
    cluster: Cluster | None = None
    if settings.database == "embedded":
        from usbgate.store.embedded.cluster import Cluster  # only here, since it takes memory

        cluster = Cluster(reactor, settings.state / "postgres")
        cluster.setServiceParent(keepers)
        where = partial(_embedded, cluster, settings.state)
    sink = PostgresSink(
        reactor,
        partial(_once_open, journal, where),
        name,
        journal,
        schema=settings.schema,
        measures=settings.measures,
        explain=str if cluster is None else cluster.explain,
    )
    delivery = Delivery(reactor, journal, sink, gateway.restore)
    if cluster is not None:
        cluster.came_up = delivery.try_now

    def status() -> tuple[StoreStatus, JournalStatus]:
        return replace(delivery.status(), gateway=name), journal.status()

    gateway.store_in(journal, sink, status)
    delivery.state_changed = lambda: gateway.store_changed(delivery.state, journal.backlog)
    return keepers, delivery


async def _once_open(journal: Journal, where: Callable[[], Awaitable[str]]) -> str:
    # The journal's id is part of the key of all rows.
    if not journal.next_number:
        raise SinkUnavailable("the journal cannot be opened yet")
    return await where()


async def _configured(url: str, password_file: Path | None) -> str:
    # Read at each connection: a password that is changed needs no restart.
    return with_password(url, password_file)


async def _embedded(cluster: Cluster, state: Path) -> str:
    # `usbgate database move` may have moved it while this daemon runs.
    if (moved := moved_database(state)) is not None:
        return moved
    try:
        return await cluster.ready()
    except ClusterError as error:
        raise SinkUnavailable(str(error)) from None
