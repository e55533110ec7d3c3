"""
What can be called over HTTP: one method a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from werkzeug.exceptions import HTTPException

from usbgate.core.errors import Malformed, Unknown
from usbgate.core.fieldline import format_number, is_key
from usbgate.core.messages import parse_request
from usbgate.gateway.interfaces import IGateway
from usbgate.web import schema
from usbgate.web.events import EventStreams
from usbgate.web.handlers import answers, body_of, client_of, host_of, not_found
from usbgate.web.openapi import JSON, MOST_REQUESTS, document
from usbgate.web.problems import respond
from usbgate.web.query import Query
from usbgate.web.readings import tell_readings, wants_csv
from usbgate.web.serialize import (
    alarm_shape,
    answer_shape,
    device_shape,
    health_shape,
    moment,
    request_shape,
    sensor_shapes,
    status_shape,
)
from usbgate.web.static import load_page

SENSORS_A_TURN = 500  # some ms of the reactor's time
SOME_REQUESTS = 100  # where the client does not say how many


class Api:
    """
    The calls.
    """

    app = Klein()
    app.url_map.merge_slashes = False

    def __init__(
        self,
        reactor: IReactorTime,
        gateway: IGateway,
        wall: Callable[[], int],
        events: EventStreams,
        clients: Callable[[], Mapping[str, int]],
    ) -> None:
        """
        Begin.

        Args:
            reactor: For time limits.
            gateway: Whom to ask.
            wall: The wall clock (`IClock.wall`).
            events: Who gets events.
            clients: Numbers of clients, by name.
        """
        self._reactor = reactor
        self._gateway = gateway
        self._wall = wall
        self._events = events
        self._clients = clients
        self._page = load_page()

    # Sensors.

    @answers(app, "GET", "/api/v1/sensors")
    async def sensors(self, request: Any) -> schema.Sensors:
        """
        Tell of all sensors.
        """
        Query(request.args, ())
        now = self._wall()
        told = []
        for sensor in sensor_shapes(self._gateway, now):
            told.append(sensor)
            if len(told) % SENSORS_A_TURN == 0:
                await deferLater(self._reactor, 0)
        return schema.Sensors(now=moment(now), sensors=told)

    @answers(app, "GET", "/api/v1/sensors/<sensor>")
    async def sensor(self, request: Any, sensor: str) -> schema.Sensor:
        """
        Tell of one sensor.
        """
        Query(request.args, ())
        found = list(sensor_shapes(self._gateway, self._wall(), sensor))
        if not found:
            raise Unknown(f"no such sensor: {sensor[:80]}")
        return found[0]

    @answers(app, "POST", "/api/v1/sensors/<sensor>/ask")
    async def ask(self, request: Any, sensor: str) -> schema.Answer:
        """
        Ask a sensor.
        """
        Query(request.args, ())
        asked = body_of(request, schema.Ask)
        command = asked.command if asked.command is not None else self._gateway.queries.default_command(sensor)
        fields = {"MSG": command, "ID": sensor}
        if asked.origin is not None:
            fields["ORIGIN"] = asked.origin
        for name, value in asked.arguments.items():
            key = name.upper() if is_key(name) else ""
            if not key or key in fields:
                raise Malformed("not a key of its own", repr(name[:80]))
            if key in ("TIMEOUT", "MAXAGE", "DEV", "TAG", "ORIGIN"):
                raise Malformed("key not allowed in a request", key)
            fields[key] = value if isinstance(value, str) else format_number(value)
        for key, number in (("TIMEOUT", asked.timeout), ("MAXAGE", asked.max_age)):
            if number is not None:
                fields[key] = format_number(number)
        if asked.device is not None:
            fields["DEV"] = asked.device
        return answer_shape(await self._gateway.ask(parse_request(fields, host_of(request), client_of(request))))

    # History.

    @answers(app, "GET", "/api/v1/readings")
    async def readings(self, request: Any) -> None:
        """
        Tell stored readings, as the client would like them.
        """
        await tell_readings(
            self._reactor, self._gateway, self._wall(), request, wants_csv(request.getHeader("Accept") or "")
        )

    @answers(app, "GET", "/api/v1/readings.csv")
    async def readings_csv(self, request: Any) -> None:
        """
        Tell stored readings as CSV.
        """
        await tell_readings(self._reactor, self._gateway, self._wall(), request, True)

    @answers(app, "GET", "/api/v1/requests")
    async def requests(self, request: Any) -> schema.Requests:
        """
        Tell who asked what.
        """
        query = Query(request.args, ("sensor", "limit"))
        found = await self._gateway.queries.requests(query.sensor(), query.limit(MOST_REQUESTS) or SOME_REQUESTS)
        return schema.Requests(requests=[request_shape(each) for each in found])

    # What happens.

    @answers(app, "GET", "/api/v1/events")
    async def events(self, request: Any) -> None:
        """
        Tell events as they come.
        """
        sensor = Query(request.args, ("sensor",)).sensor()
        self._events.admit()
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        for name, value in headers.items():
            request.setHeader(name, value)
        if request.method == b"HEAD":
            request.finish()
            return
        transport, head = request.channel.hand_over(request)
        last_id = request.getHeader("Last-Event-ID")
        await self._events.open(transport, head, client_of(request), sensor, last_id)

    @answers(app, "GET", "/api/v1/alarms")
    async def alarms(self, request: Any) -> schema.Alarms:
        """
        Tell the alarms.
        """
        Query(request.args, ())
        presentations = self._gateway.queries.presentations()
        return schema.Alarms(alarms=[alarm_shape(alarm, presentations) for alarm in self._gateway.queries.alarms()])

    @answers(app, "POST", "/api/v1/alarms/<alarm>/acknowledge")
    async def acknowledge(self, request: Any, alarm: str) -> schema.Alarm:
        """
        Take note that somebody has seen an alarm.
        """
        Query(request.args, ())
        by = body_of(request, schema.Acknowledge).by or host_of(request)
        return alarm_shape(await self._gateway.acknowledge(alarm, by), self._gateway.queries.presentations())

    # How it is.

    @answers(app, "GET", "/api/v1/devices")
    async def devices(self, request: Any) -> schema.Devices:
        """
        Tell of all devices.
        """
        Query(request.args, ())
        return schema.Devices(devices=[device_shape(device) for device in self._gateway.queries.devices()])

    @answers(app, "GET", "/api/v1/status")
    async def status(self, request: Any) -> schema.Status:
        """
        Tell how usbgate is.
        """
        Query(request.args, ())
        return status_shape(self._gateway, self._clients())

    @answers(app, "GET", "/healthz")
    async def health(self, request: Any) -> schema.Health:
        """
        Tell whether all is well.
        """
        return health_shape(self._gateway, status_shape(self._gateway, {}).store.state)

    @answers(app, "GET", "/metrics")
    async def metrics(self, request: Any) -> None:
        """
        Tell what was counted.
        """
        # Imported only where somebody counts: what it needs is half a MB.
        from usbgate.web.metrics import CONTENT_TYPE, metrics_text

        text = metrics_text(self._gateway, self._clients, self._wall)
        respond(request, HTTPStatus.OK, CONTENT_TYPE, text, {"Cache-Control": "no-store"})

    @answers(app, "GET", "/api/v1/openapi.json")
    async def openapi(self, request: Any) -> None:
        """
        Tell what can be called.
        """
        respond(request, HTTPStatus.OK, JSON, msgspec.json.encode(document()), {"Cache-Control": "no-cache"})

    # The page.

    @answers(app, "GET", "/")
    async def page(self, request: Any) -> None:
        """
        Give the page.
        """
        self._give_file(request, "index.html")

    @answers(app, "GET", "/<name>")
    async def file(self, request: Any, name: str) -> None:
        """
        Give a file of the page.
        """
        self._give_file(request, name)

    @answers(app, "GET", "/vendor/<name>")
    async def vendor_file(self, request: Any, name: str) -> None:
        """
        Serve a file of others that the page uses.
        """
        self._give_file(request, f"vendor/{name}")

    def _give_file(self, request: Any, name: str) -> None:
        file = self._page.get(name)
        if file is None:
            raise Unknown("there is nothing at this path")
        request.setHeader("Cache-Control", "no-cache")  # asked for again each time, and told if it is the same
        if request.setETag(file.etag) is not None:
            request.finish()
        else:
            respond(request, HTTPStatus.OK, file.content_type, file.content)

    app.handle_errors(HTTPException)(not_found)  # type: ignore[arg-type]  # klein has it narrower than it calls it
