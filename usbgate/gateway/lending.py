"""
Devices that are lent to other programs (protocol §3, `lend`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from usbgate.core.errors import Busy, Unknown
from usbgate.gateway.interfaces import Lease
from usbgate.gateway.routing import Route


class Lending:
    """
    Releases devices, and takes them back.
    """

    log = Logger()

    def __init__(self, routes: Mapping[str, Route], update_state: Callable[[Route], None]) -> None:
        """
        Args:
            routes: The devices, by name.
            update_state: Called after a device was lent, or taken back.
        """
        self._routes = routes
        self._update_state = update_state
        self._stopped = False

    def lend(self, device: str, client: str) -> Deferred[Lease]:
        """
        Lend a device (see `IGateway.lend`).
        """
        route = self._routes.get(device)
        if route is None:
            return fail(Unknown(f"no such device: {device}", "no such device"))
        if route.lease is not None:
            return fail(Busy(f"{device} is lent already"))
        route.lease = lease = object()
        route.lent_to = client
        self.log.info("{device} is lent to {client}", device=device, client=client)
        released = route.link.release()
        route.link.listener.link_down("lent")  # `release` does not call it
        self._update_state(route)
        return released.addCallback(lambda port: Lease(device, port, partial(self._end, route, lease)))

    def stop(self) -> None:
        """
        Take nothing back any more.
        """
        self._stopped = True

    def _end(self, route: Route, lease: object) -> None:
        if route.lease is lease and not self._stopped:
            route.lease = route.lent_to = None
            self.log.info("{device} is no longer lent", device=route.link.name)
            self._update_state(route)
            route.link.take_back()
