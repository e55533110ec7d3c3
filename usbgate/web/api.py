"""
The calls of the API, one method each, and the page's files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from functools import partial
from http import HTTPStatus
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from klein import Klein
from twisted.internet.interfaces import IReactorTime

from usbgate.access.authority import Authority
from usbgate.access.rights import DEVICE_PATHS
from usbgate.access.roles import Role
from usbgate.core.errors import (
    Busy,
    Cancelled,
    Denied,
    LimitExceeded,
    Malformed,
    NotHeld,
    Offline,
    Stopped,
    StoreUnavailable,
    TimedOut,
    Unknown,
)
from usbgate.core.fieldline import is_sensor_id
from usbgate.core.holders import Holder
from usbgate.core.jsonmessages import ApiAlarm, ApiAnswer, ApiAsk, alarm_json, answer_json, request_of
from usbgate.core.model import Action, Selection
from usbgate.core.replacements import Replacement
from usbgate.gateway.interfaces import IGateway, IQueries
from usbgate.web import parameters, schema
from usbgate.web.calls import HttpCalls
from usbgate.web.channel import client_of, host_of
from usbgate.web.credentials import Credentials
from usbgate.web.csvformat import SEPARATORS, CsvFormat
from usbgate.web.events import EventStreams
from usbgate.web.openapi import document
from usbgate.web.problems import respond
from usbgate.web.query import check_order
from usbgate.web.readings import send_readings, wants_csv
from usbgate.web.schema import CSV, EVENT_STREAM, JSON, PLAIN_TEXT
from usbgate.web.sensors import sensors_json, sensors_pieces
from usbgate.web.serialize import (
    device_json,
    health_json,
    held_json,
    offer_json,
    past_alarm_json,
    replacement_json,
    request_json,
    rule_json,
    session_json,
    state_json,
    status_json,
)
from usbgate.web.static import load_page, send_file
from usbgate.web.streaming import Responses

STATES_PER_TURN = 1000  # 2 ms of the reactor's time


class Api:
    """
    The calls.

    Attributes:
        wall: The wall clock (`IClock.wall`).
        credentials: Finds out who clients are.
        responses: Sends long responses.
    """

    app = Klein()
    app.url_map.merge_slashes = False
    calls = HttpCalls(app)

    def __init__(
        self,
        reactor: IReactorTime,
        gateway: IGateway,
        authority: Authority,
        credentials: Credentials,
        wall: Callable[[], int],
        events: EventStreams,
        clients: Callable[[], Mapping[str, int]],
        metrics_limit: int,
    ) -> None:
        """
        Args:
            reactor: For time limits.
            gateway: The gateway.
            authority: Decides who may ask what.
            credentials: Finds out who clients are.
            wall: The wall clock (`IClock.wall`).
            events: The streams of events.
            clients: Returns the numbers of clients, by kind.
            metrics_limit: The most readings, the most sensors and the most alarms in the metrics.
        """
        self.wall = wall
        self._gateway = gateway
        self._authority = authority
        self.credentials = credentials
        self._queries = gateway.queries
        self._events = events
        self._clients = clients
        self._metrics_limit = metrics_limit
        self.responses = Responses(reactor)
        self._page = load_page()

    def denied(self, request: Any, call: str, error: Denied) -> None:
        """
        Record that a client was not permitted to make a call, unless it may do nothing at all.
        """
        if request.access.role > Role.NONE and not error.is_recorded:
            self._record(request, call, {} if error.sensor is None else {"ID": error.sensor}, outcome=error.code)

    def _record(
        self,
        request: Any,
        command: str,
        details: Mapping[str, str] = {},
        device: str | None = None,
        outcome: str = "done",
    ) -> None:
        # What the client of a request did, or was denied, besides asking.
        self._gateway.record(Action(command, client_of(request), host_of(request), details, device, outcome))

    def _queries_of(self, request: Any) -> IQueries:
        return self._authority.queries(request.access, self._queries)

    # Sensors.

    @calls.get("/api/v1/sensors", content={JSON: [schema.ApiSensors]})
    async def sensors(self, request: Any, query: parameters.SensorsQuery) -> None:
        """
        All sensors with their newest readings.
        """
        now = self.wall()
        pieces = sensors_pieces(self._queries_of(request), now, query.raw)
        await self.responses.stream(request, JSON, pieces, {"Cache-Control": "no-store"})

    @calls.get("/api/v1/sensors/{sensor}", errors=[Unknown])
    async def sensor(self, request: Any, sensor: str, query: parameters.SensorsQuery) -> schema.ApiSensor:
        """
        One sensor.
        """
        for found in sensors_json(self._queries_of(request), self.wall(), sensor, query.raw):
            return found
        raise Unknown(f"no such sensor: {sensor[:80]}", "no such sensor")

    @calls.post("/api/v1/sensors/{sensor}/ask", errors=[Unknown, Busy, Offline, TimedOut, Cancelled])
    async def ask(self, request: Any, sensor: str, body: ApiAsk) -> ApiAnswer:
        """
        Ask a sensor, and wait for its answer.
        """
        default_command = self._queries_of(request).default_command(sensor)
        asked = request_of(body, sensor, default_command, host_of(request), client_of(request))
        self._authority.check_request(request.access, asked)
        holder = Holder(host_of(request))  # a connection of HTTP asks one question at a time
        try:
            return answer_json(await self._gateway.ask(asked, holder))
        finally:
            self._gateway.disconnected(holder)

    @calls.get("/api/v1/held")
    async def held(self, request: Any) -> schema.ApiHeldRequests:
        """
        Questions that are held until their sensors report.
        """
        return schema.ApiHeldRequests(held=[held_json(held) for held in self._queries_of(request).held()])

    @calls.post("/api/v1/held/{number}/cancel", errors=[NotHeld])
    async def cancel(self, request: Any, number: str, body: schema.ApiCancel) -> schema.ApiHeldRequest:
        """
        Cancel a question that is held.
        """
        held = self._authority.find_held(request.access, number, self._queries_of(request).held())
        self._gateway.cancel(held.number)
        sensor, command, _ = held.request.question
        details = {"HELD": number, "ID": sensor, "MSG": command}
        self._record(request, "cancel", details, held.device)
        return held_json(held)

    @calls.get("/api/v1/replacements")
    async def replacements(self, request: Any) -> schema.ApiReplacements:
        """
        Sensors that have a new id, and those that may have one.
        """
        queries = self._queries_of(request)
        return schema.ApiReplacements(
            replacements=[*map(replacement_json, queries.replacements())],
            offers=[*map(offer_json, await queries.offers())],
        )

    @calls.post("/api/v1/sensors/{sensor}/replace", errors=[Unknown, Stopped])
    async def replace(self, request: Any, sensor: str, body: schema.ApiReplace) -> schema.ApiReplacement:
        """
        Say that a sensor has a new id, as after a new battery.
        """
        if not is_sensor_id(body.successor):
            raise Malformed("not a sensor id", repr(body.successor))
        who = request.access.who or host_of(request)
        return self._replaced(request, "replace", await self._gateway.replace(sensor, body.successor, who))

    @calls.post("/api/v1/sensors/{sensor}/undo-replacement", errors=[Unknown, Stopped])
    async def undo_replacement(self, request: Any, sensor: str, body: schema.ApiUndo) -> schema.ApiReplacement:
        """
        Take the last replacement of a sensor back.
        """
        who = request.access.who or host_of(request)
        return self._replaced(request, "replace undo", await self._gateway.undo_replacement(sensor, who))

    def _replaced(self, request: Any, command: str, made: Replacement) -> schema.ApiReplacement:
        details = {"ID": made.sensor, "SUCCESSOR": made.successor}
        self._record(request, command, details, made.device)
        return replacement_json(made)

    # History.

    @calls.get(
        "/api/v1/readings", content={JSON: [schema.ApiReadings, schema.ApiBuckets], CSV: []}, errors=[StoreUnavailable]
    )
    async def readings(self, request: Any, query: parameters.ReadingsQuery) -> None:
        """
        Stored readings, newest last, or aggregates of them.
        """
        csv = CsvFormat() if wants_csv(request.getHeader("Accept") or "") else None
        queries = self._queries_of(request)
        await send_readings(self.responses, queries, request, query, csv, self.wall())

    @calls.get("/api/v1/readings.csv", content={CSV: []}, errors=[StoreUnavailable])
    async def readings_csv(self, request: Any, query: parameters.CsvQuery) -> None:
        """
        The same as CSV, with a header row.
        """
        zone = None if query.zone is None else ZoneInfo(query.zone)
        csv = CsvFormat(SEPARATORS[query.separator], query.decimal == "comma", zone, query.formulas == "kept")
        queries = self._queries_of(request)
        await send_readings(self.responses, queries, request, query, csv, self.wall())

    @calls.get("/api/v1/states", errors=[StoreUnavailable])
    async def states(self, request: Any, query: parameters.StatesQuery) -> schema.ApiStates:
        """
        How long a field had which value.
        """
        check_order(query.since, query.until)
        selection = Selection(str(query.sensor), str(query.field), query.since, query.until, query.raw)

        async def make() -> schema.ApiStates:
            found = await self._queries_of(request).states(selection, query.limit)
            return schema.ApiStates(states=await self.responses.collect(map(state_json, found), STATES_PER_TURN))

        return await self.responses.make(make)

    @calls.get("/api/v1/requests", errors=[StoreUnavailable])
    async def requests(self, request: Any, query: parameters.RequestsQuery) -> schema.ApiRequests:
        """
        Completed requests, newest first.
        """
        sensors = None if query.sensor is None else [str(query.sensor)]
        found = await self._queries_of(request).requests(sensors, query.limit)
        return schema.ApiRequests(requests=[request_json(each) for each in found])

    # Events and alarms.

    @calls.get(
        "/api/v1/events",
        content={
            EVENT_STREAM: [
                schema.ApiReportEvent,
                schema.ApiDeviceEvent,
                schema.ApiStoreEvent,
                ApiAlarm,
                schema.ApiDroppedEvent,
            ]
        },
        errors=[LimitExceeded, Stopped],
    )
    async def events(self, request: Any, query: parameters.EventsQuery) -> None:
        """
        Events as they happen (server-sent events): reading, device, store, alarm, dropped.
        """
        sensors: Set[str] = request.access.sensors or frozenset()
        if query.sensor is not None:
            self._authority.check_sensor(request.access, query.sensor)
            sensors = {str(query.sensor)}
        self._events.admit(host_of(request))
        headers = {"Content-Type": EVENT_STREAM, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        for name, value in headers.items():
            request.setHeader(name, value)
        if request.method == b"HEAD":
            request.finish()
            return
        last_id = request.getHeader("Last-Event-ID")
        channel = request.channel
        unfollow = self._authority.follow(
            request.access,
            partial(self.credentials.without_token, request),
            lambda _: channel.transport.abortConnection(),
        )
        try:
            transport, head = channel.hand_over(request)
            await self._events.open(transport, head, host_of(request), client_of(request), sensors, last_id)
        finally:
            unfollow()

    @calls.get("/api/v1/alarms")
    async def alarms(self, request: Any) -> schema.ApiAlarms:
        """
        Alarms that are active or not acknowledged yet.
        """
        queries = self._queries_of(request)
        configured = queries.sensor_settings()
        return schema.ApiAlarms(alarms=[alarm_json(alarm, configured) for alarm in queries.alarms()])

    @calls.get("/api/v1/alarms/history", errors=[StoreUnavailable])
    async def past_alarms(self, request: Any, query: parameters.PastAlarmsQuery) -> schema.ApiPastAlarms:
        """
        Alarms from the store, open and closed.
        """
        check_order(query.since, query.until)
        sensors = None if query.sensor is None else [str(query.sensor)]
        found = await self._queries_of(request).past_alarms(sensors, query.since, query.until, query.limit)
        configured = self._queries.sensor_settings()
        return schema.ApiPastAlarms(alarms=[past_alarm_json(stored, configured) for stored in found])

    @calls.post("/api/v1/alarms/{alarm}/acknowledge", errors=[Unknown, Stopped])
    async def acknowledge(self, request: Any, alarm: str, body: schema.ApiAcknowledge) -> ApiAlarm:
        """
        Acknowledge an alarm.
        """
        self._authority.check_alarm(request.access, alarm, self._queries.alarms())
        by = request.access.acknowledge_as(body.by or host_of(request))
        acknowledged = await self._gateway.acknowledge(alarm, by)
        details = {"ALARM": alarm, "ID": acknowledged.sensor, "BY": by}
        self._record(request, "acknowledge", details, acknowledged.device)
        return alarm_json(acknowledged, self._queries.sensor_settings())

    # State.

    @calls.get("/api/v1/devices")
    async def devices(self, request: Any) -> schema.ApiDevices:
        """
        All devices.
        """
        with_path = request.access.role >= DEVICE_PATHS
        return schema.ApiDevices(devices=[device_json(device, with_path) for device in self._queries.devices()])

    @calls.get("/api/v1/rules")
    async def rules(self, request: Any) -> schema.ApiRules:
        """
        All rules.
        """
        return schema.ApiRules(rules=[rule_json(rule) for rule in self._queries_of(request).rules()])

    @calls.get("/api/v1/status")
    async def status(self, request: Any) -> schema.ApiStatus:
        """
        The state of usbgate.
        """
        return status_json(self._queries_of(request), self._clients())

    @calls.get("/api/v1/openapi.json", content={JSON: []}, any_query=True)
    async def openapi(self, request: Any) -> None:
        """
        The OpenAPI document.
        """
        body = msgspec.json.encode(document(self.calls.documented))
        respond(request, HTTPStatus.OK, JSON, body, {"Cache-Control": "no-cache"})

    @calls.get("/healthz", any_query=True)
    async def health(self, request: Any) -> schema.ApiHealth:
        """
        Whether the devices and the database are reachable.
        """
        return health_json(self._queries)

    @calls.get("/metrics", content={PLAIN_TEXT: []}, any_query=True)
    async def metrics(self, request: Any) -> None:
        """
        Metrics for Prometheus.
        """
        # Imported only where somebody uses it: it takes half a MB.
        from usbgate.web.metrics import CONTENT_TYPE, metrics_pieces

        pieces = metrics_pieces(self._queries_of(request), self._clients, self.wall, self._metrics_limit)
        text = b"".join(await self.responses.collect(pieces, 1))
        await self.responses.send(request, HTTPStatus.OK, CONTENT_TYPE, text, {"Cache-Control": "no-store"})

    # Who the client is.

    @calls.get("/api/v1/session")
    async def session(self, request: Any) -> schema.ApiSession:
        """
        Who this client is, and its role.
        """
        return session_json(request.access, self.credentials.door.is_open)

    @calls.post("/api/v1/login")
    async def login(self, request: Any, body: schema.ApiLogin) -> schema.ApiSession:
        """
        Log in: a session begins, which the browser keeps in a cookie.
        """
        request.access = await self.credentials.log_in(request, body.token)
        self._record(request, "login")
        return session_json(request.access, self.credentials.door.is_open)

    @calls.post("/api/v1/logout")
    async def logout(self, request: Any, body: schema.ApiLogout) -> schema.ApiSession:
        """
        Log out: the session ends.
        """
        ended = self.credentials.log_out(request)
        if ended is not None:
            request.access = ended
            self._record(request, "logout")
        return session_json(self.credentials.without_token(request), self.credentials.door.is_open)

    # The page.

    @calls.file("/")
    async def page(self, request: Any) -> None:
        """
        Send the page.
        """
        send_file(request, self._page, "index.html")

    @calls.file("/{name}")
    async def file(self, request: Any, name: str) -> None:
        """
        Send a file of the page.
        """
        send_file(request, self._page, name)

    @calls.file("/vendor/{name}")
    async def vendor_file(self, request: Any, name: str) -> None:
        """
        Send a file of a library that the page uses.
        """
        send_file(request, self._page, f"vendor/{name}")
