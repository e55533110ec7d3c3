"""
The settings: what can be configured, and the defaults.

The attributes with a type of `usbgate.config.types` are the keys of the table; the others come from elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from usbgate.access.doors import Rule
from usbgate.access.roles import Role
from usbgate.config.endpoints import may_encrypt
from usbgate.config.types import (
    BasePath,
    Broker,
    Buffer,
    BytesPerSecond,
    BytesPerTurn,
    ClientRole,
    Count,
    Database,
    DatabaseUrl,
    Dialect,
    Discovery,
    Durability,
    Fields,
    FlowControl,
    Folder,
    Gap,
    Hosts,
    HttpListen,
    JournalLimit,
    Keepalive,
    Language,
    LineFormat,
    ListenAddress,
    Listens,
    MetricsLimit,
    MqttRole,
    MqttVersion,
    Networks,
    Origins,
    Place,
    Rate,
    Repeats,
    Reset,
    Retries,
    SchemaName,
    Sensors,
    Settle,
    Silence,
    TopicPrefix,
    Users,
    ViewName,
    Window,
    keys,
)
from usbgate.core.kinds import CommandName, File, StoreEvery, Text, Wait, YesNo
from usbgate.core.settings import ControlSettings, FieldSettings, SensorSettings
from usbgate.rules.settings import MailSettings, RuleSettings


class DeviceSettings(Struct, frozen=True, kw_only=True):
    """
    A device: `[device.NAME]`.

    Attributes:
        path: An absolute path, a USB device (`usbgate.device.usb`), or a Twisted client endpoint string.
        baud: Bits per second; unused with an endpoint string, as are `line` and `flow`.
        line: Data bits, parity and stop bits, such as `8N1`.
        flow: Flow control.
        dialect: A module of `usbgate.device.dialects`, or a dotted module name.
        options: The options of the dialect: the other keys of the table, with the values of the file.
        window: The maximum number of questions on the wire at a time.
        buffer: The maximum number of bytes that the device may not have read; 0 for no limit, None for automatic.
        tags: Whether the device echoes `TAG`.
        settle: Seconds to wait after opening; None for automatic.
        patience: Seconds to wait for an answer before asking again; None for the defaults of docs/protocol.md §4.
        silence: Seconds without a line after which the device is silent; None for never.
        reset: When DTR may reset the board: `never`, `open` or `silent`.
        gap: Seconds of quiet after which what has come of a line is a line; None if only a line end ends it.
        repeats: Seconds in which an identical line is only counted; None to accept every line.
        store: Seconds after which an unchanged reading is stored as well, infinity for never; 0 stores all readings.
        tap: The path of a pty with a copy of what the device sends, absolute; None for none.
        given: The keys that are configured; the defaults of the dialect do not replace these.
    """

    path: Place
    baud: Count = 9600
    line: LineFormat = "8N1"
    flow: FlowControl = "none"
    dialect: Dialect = "fields"
    options: dict[str, object] = {}
    window: Window = 4
    buffer: Buffer = None
    tags: YesNo = False
    settle: Settle = None
    patience: Wait | None = None
    silence: Silence | None = None
    reset: Reset = "open"
    gap: Gap | None = None
    repeats: Repeats | None = None
    store: StoreEvery = 0.0
    tap: File | None = None
    given: frozenset[str] = frozenset()


class CommandSettings(Struct, frozen=True, kw_only=True):
    """
    A command: `[command.NAME]`.

    Attributes:
        coalesce: Whether one exchange may answer several askers of the same question.
        fields: The fields, in upper case, of which an answer has at least one; empty for any.
        reads: Whether it changes nothing, so that the role `ask` is enough.
        idempotent: Whether it has the same effect if it is carried out twice.
        retries: How often at most it is sent again because no answer came; None for the protocol's default.
    """

    coalesce: YesNo = True
    fields: Fields = frozenset()
    reads: YesNo = False
    idempotent: YesNo = False
    retries: Retries | None = None


class ClientSettings(Struct, frozen=True, kw_only=True):
    """
    What some clients may do without a token: `[[client]]`.

    Attributes:
        addresses: The networks from which they connect.
        users: The numbers of their users, on a Unix socket.
        role: Their role.
        sensors: The only sensors that they may use; None for all.
    """

    addresses: Networks = ()
    users: Users = frozenset()
    role: ClientRole
    sensors: Sensors | None = None

    @property
    def rule(self) -> Rule:
        """
        The same as the front ends read it.
        """
        return Rule(self.role, self.addresses, self.users, self.sensors)


class DatabaseSettings(Struct, frozen=True, kw_only=True):
    """
    A database: `[database]`, if it is more than `database = "…"`.

    Attributes:
        url: A libpq connection string.
        password_file: A file with the password; None if it is elsewhere.
    """

    url: DatabaseUrl
    password_file: File | None = None


class HttpSettings(Struct, frozen=True, kw_only=True):
    """
    The page and the HTTP API: `http = "…"`, or `[http]`.

    Attributes:
        listen: Where it listens; the endpoint may be `none`.
        hosts: Host names that browsers may use besides the machine's own.
        cors: The origins of pages of other sites that may use the API; `*` for all, which then may read only.
        base_path: The path prefix that a reverse proxy leaves on.
        requests_per_second: The most requests in a second, on average, of each address but those of this machine, and
            with each token.
        metrics_limit: The maximum number of readings, of sensors and of alarms in the metrics.
        required: Whether usbgate fails to start if the address is in use. It does if `listen` was configured.
    """

    listen: HttpListen = ListenAddress("tcp:8080:interface=127.0.0.1")
    hosts: Hosts = ()
    cors: Origins = ()
    base_path: BasePath = ""
    requests_per_second: Rate = 50.0
    metrics_limit: MetricsLimit = 1000
    required: bool = False


class MqttSettings(Struct, frozen=True, kw_only=True):
    """
    The MQTT broker: `[mqtt]`.

    Attributes:
        broker: Where it is, as a Twisted client endpoint string.
        version: The version of MQTT.
        user: The user; None for none.
        password_file: A file with the password; None if it is in the environment, or if there is none.
        ca: A file with the certificates of the CAs that may have signed the broker's; None for those of the system.
        keepalive: Seconds of silence after which the connection is tested.
        role: What the broker's other clients may do.
        discovery: Which sensors Home Assistant learns of: `all`, `configured` or `none`.
        discovery_prefix: The levels with which the topics of Home Assistant's discovery begin.
        language: Of the names that Home Assistant learns.
    """

    broker: Broker
    version: MqttVersion = "5"
    user: Text | None = None
    password_file: File | None = None
    ca: File | None = None
    keepalive: Keepalive = 20.0
    role: MqttRole = Role.READ
    discovery: Discovery = "all"
    discovery_prefix: TopicPrefix = "homeassistant"
    language: Language = "en"


class Settings(Struct, frozen=True, kw_only=True):
    """
    All settings of a daemon.

    Attributes:
        state: The state folder, absolute.
        database: `embedded`, `none`, or a libpq connection string.
        password_file: A file with the password of the database; None if it is elsewhere.
        schema: The schema of the database that holds all tables.
        measures: Schema and name of the view `measures`; None for no view.
        gateway: The name under which this daemon stores its rows; None for the one in the state folder, or the host's.
        listen: Where line clients connect.
        http: The page and the HTTP API.
        mqtt: The MQTT broker; None for none.
        default_command: The command of an `ask` without one.
        max_connections: The maximum number of client connections.
        max_connections_per_address: The same for each address but those of this machine, and for each token.
        client_bytes_per_turn: The most bytes that are read of a client connection in a reactor turn.
        client_bytes_per_second: The most bytes that are read in a second, on average, of each address but those of this
            machine, and with each token; and of other connections each.
        client_requests_per_second: The same for requests and words; there is no limit for other connections.
        durability: Seconds that rows may wait for a commit to the journal.
        journal_limit: Bytes of rows that may wait for the database.
        clients: Who may do what without a token; the first that is for a client counts.
        devices: By name, in the order of the configuration; empty if none is configured.
        sensors: By id.
        commands: By name, which is found without case.
        rules: In the order of the configuration.
        mail: The mail server; None if there is none.
        file: The file that was read, absolute; None if there is none.
    """

    state: Folder
    database: Database = "embedded"
    password_file: Path | None = None
    schema: SchemaName = "usbgate"
    measures: ViewName = ("public", "measures")
    gateway: Text | None = None
    # With Twisted's own backlog of 50, a burst of 1,500 connections took 28 s: clients that the kernel has no room for
    # try again after 1 s, then 2, 4, … With 511 it took 1.5 s.
    listen: Listens = (ListenAddress("tcp:50007:interface=127.0.0.1:backlog=511"),)
    http: HttpSettings = HttpSettings()
    mqtt: MqttSettings | None = None
    default_command: CommandName = "J"
    max_connections: Count = 1000
    max_connections_per_address: Count = 250
    client_bytes_per_turn: BytesPerTurn = 4 << 10
    client_bytes_per_second: BytesPerSecond = 1 << 20
    client_requests_per_second: Rate = 100.0
    durability: Durability = 0.05
    journal_limit: JournalLimit = 1 << 30
    clients: tuple[ClientSettings, ...] = ()
    devices: dict[str, DeviceSettings] = {}
    sensors: dict[str, SensorSettings] = {}
    commands: dict[str, CommandSettings] = {}
    rules: tuple[RuleSettings, ...] = ()
    mail: MailSettings | None = None
    file: Path | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """
        Where line clients connect, as Twisted server endpoint strings.
        """
        return tuple(each.endpoint for each in self.listen)

    @property
    def may_encrypt(self) -> bool:
        """
        Whether anything of the daemon's may speak TLS.
        """
        places = [*self.endpoints, self.http.listen.endpoint, *(device.path for device in self.devices.values())]
        if self.mqtt is not None:
            places.append(self.mqtt.broker)
        urls = [rule.webhook.url for rule in self.rules if rule.webhook is not None]
        return (
            any(map(may_encrypt, places))
            or (self.mail is not None and self.mail.tls != "none")
            or any(url is None or url.startswith("https:") for url in urls)
        )


TOP_KEYS, HTTP_KEYS, DATABASE_KEYS = keys(Settings), keys(HttpSettings), keys(DatabaseSettings)
MQTT_KEYS = keys(MqttSettings)
DEVICE_KEYS, COMMAND_KEYS, CLIENT_KEYS = keys(DeviceSettings), keys(CommandSettings), keys(ClientSettings)
SENSOR_KEYS, FIELD_KEYS, CONTROL_KEYS = keys(SensorSettings), keys(FieldSettings), keys(ControlSettings)
