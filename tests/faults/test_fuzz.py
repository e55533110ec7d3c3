"""
Any bytes from devices and clients, cut anywhere, as hypothesis draws them.

Coverage-guided and for longer: `tests.faults.test_fuzz_long`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.faults.ledger import FULL
from tests.support.fuzzed_client import DEEDS, SMALL_LIMITS, Step, check_client, check_stranger
from tests.support.fuzzed_http import check_http
from tests.support.reference import check_cuts, check_line, check_said, check_telnet
from usbgate.access.roles import Role
from usbgate.core.fieldline import is_key

_Test = TypeVar("_Test", bound=Callable[..., None])

KEYS = [
    "MSG",
    "ID",
    "ORIGIN",
    "TAG",
    "MAXAGE",
    "TIMEOUT",
    "AT",
    "DEV",
    "OK",
    "ERROR",
    "TEXT",
    "EVENT",
    "id",
    "A1",
    "ıd",
]
VALUES = [
    "J",
    "20",
    "my_site",
    "1_",
    "_",
    " x ",
    "",
    ":",
    "28:FF",
    "é\u2028",
    "1e3",
    "30",
    "\x00",
    "\x85",
    "\ufffd",
    "x" * 990,
]

keys = st.one_of(st.sampled_from(KEYS), st.text("aZ1é ", max_size=3))
values = st.one_of(st.sampled_from(VALUES), st.text(max_size=5))
fields = st.builds("{}:{}".format, keys, values)
spoiled = st.sampled_from([b"\xff", b"\r", b"\xed\xa0\x80", b"_", b":", b"#", b"x" * 1024])
field_lines = st.builds("_".join, st.lists(fields, max_size=5)).map(lambda text: text.encode("utf-8", "surrogatepass"))
device_lines = st.one_of(
    field_lines,
    st.builds(b"ID:20_".__add__, field_lines),
    st.builds(lambda line, spoil, at: line[:at] + spoil + line[at:], field_lines, spoiled, st.integers(0, 30)),
    st.binary(max_size=30),
)

# What a client's lines are made of, so that a chunk is some of one, or one and some of the next.
FRAGMENTS = [
    b"MSG:J_ID:20_ORIGIN:TOTO\n", b"MSG:J_ID:20\n" * 3, b"MSG:J_ID:20_ORIGIN:TOTO", b"msg:L_id:9_LEVEL:50",
    b"MSG:J_ID:21", b"_TAG:t", b"_MARK:M0", b"_TIMEOUT:3", b"_MAXAGE:x", b"_AT:1", b"_", b"A:", b"\n", b"\n", b"\n",
    b"\r\n", b"\r", b" ", b"\xff", b"\xff\xf1", b"\xff\xfb", b"\xff\xfd\n", b"\x00", "é\u00a0".encode(), b"\xc3",
    b"x" * 1000, b"y" * 30, b"ping\n", b"ask 20\n", b"ask", b"ask 20 L tag=t\n", b"ask 20 origin=a_B:1 x\n",
    b"help\n", b"help ask\n", b"status\n", b"last\n", b"history 20 since=1h\n", b"watch\n", b"watch 20\n",
    b"unwatch\n", b"alarms\n", b"alarms 20 since=1h\n", b"requests\n", b"acknowledge x y\n",
    b"sensors\n", b"devices\r\n", b"malformed\n", b"lend leonardo\n", b"QUIT\n", b"quit now\n",
    b"\xef\xbb\xbf", b"\xef", b"POST /", b"GET ", b"ask / HTTP/1.1", b"\r\x00", b"\x16\x03", b"SSH-",
]  # fmt: skip
chunks = st.one_of(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=8).map(b"".join), st.binary(max_size=8))
deeds = st.sampled_from([deed for deed in DEEDS if deed not in ("half-close", "hang up")])
last_deeds = st.sampled_from([[], [], ["half-close"], ["half-close", "answer"], ["hang up"]])
original: list[Step] = [b"MSG:J_ID:20_ORIGIN:TOTO"]
# Behind a first line nothing closes the connection.
beginnings = st.sampled_from(
    [[b"ping\n"], [b"ping\n"], [b"\xef\xbb\xbfping\n"], [], original, [*original, "wait", "wait"]]
)
client_steps: st.SearchStrategy[list[Step]] = st.builds(
    lambda beginning, first, last, later: [*beginning, *first, *last, *later],
    beginnings,
    st.lists(st.one_of(chunks, chunks, deeds), max_size=25),
    last_deeds,
    st.lists(st.one_of(chunks, deeds), max_size=4),
)


# What an HTTP client's requests are made of.
METHODS = ["GET", "GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "PUT", "ask", "G\x00"]
PATHS = [
    *("/", "/app.js", "/vendor/uplot.min.js", "/healthz", "/metrics", "/nix", "*", "http://x/", "//", "/%2e%2e/x"),
    *("/%ff", "/sensors", "/sensors/20", "/sensors/20/ask", "/sensors/a%2Fb/ask", "/sensors/20%00", "/status"),
    *("/devices", "/readings", "/readings?sensor=20", "/readings?sensor=20&bucket=5m"),
    *("/readings.csv?sensor=20&zone=x", "/states", "/readings?sensor=20&since=1h&limit=9", "/readings?sensor=%ff"),
    *("/requests?limit=0", "/events", "/events?sensor=20", "/alarms", "/alarms/a1/acknowledge"),
    *("/alarms/history?since=x", "/session", "/login", "/logout", "/openapi.json"),
]
HEADERS = [
    *("Host: localhost", "Host: localhost", "Host: localhost", "Host: evil.example", "Host: ["),
    *("Origin: http://evil.example", "Origin: http://localhost", "Content-Type: application/json"),
    *("Content-Type: application/json", "Accept: text/csv", "Content-Type: text/plain"),
    *("Content-Type: multipart/form-data", "Connection: close", "Transfer-Encoding: chunked", "Content-Length: 5"),
    *("Content-Length: -1", "Content-Length: 99999", "Authorization: Bearer x", "Cookie: usbgate=x"),
    *("X-Forwarded-For: 1.2.3.4", "Last-Event-ID: 0-0", "If-None-Match: *", "Access-Control-Request-Method: POST"),
    *("Expect: 100-continue", "x", "X\x00: y", "X: \xff", "Upgrade: websocket", "Sec-Fetch-Site: cross-site"),
]
BODIES = [
    *("", "{}", '{"command": "ON"}', '{"by": "x"}', '{"token": "x"}', '{"a', "[]", "\xff"),
    *("5\r\n{}   \r\n0\r\n\r\n", "x" * 70_000),
]


@st.composite
def http_requests(draw: st.DrawFn) -> bytes:
    """
    Draw a request, or something like one.
    """
    method, path, body = (draw(st.sampled_from(each)) for each in (METHODS, PATHS, BODIES))
    if path.startswith("/") and draw(st.integers(0, 4)) < 4:
        path = f"/api/v1{path}"
    # Mostly whole: what is drawn first and most often is 0.
    headers = ["Host: localhost"] if draw(st.integers(0, 5)) < 5 else []
    if body and draw(st.integers(0, 5)) < 5:
        headers += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    if draw(st.booleans()):
        headers += draw(st.lists(st.sampled_from(HEADERS), max_size=3))
    version = "HTTP/1.1" if draw(st.integers(0, 5)) < 5 else draw(st.sampled_from(["HTTP/1.0", "HTTP/2.0", "x"]))
    return "\r\n".join([f"{method} {path} {version}", *headers, "", body]).encode("latin-1")


def cut(parts: list[bytes], cuts: list[int]) -> list[bytes]:
    """
    Join parts, and cut them at these percentages.
    """
    data = b"".join(parts)
    places = [0, *(len(data) * cut // 100 for cut in sorted(cuts)), len(data)]
    return [data[begin:end] for begin, end in pairwise(places) if begin < end]


http_chunks = st.builds(
    cut,
    st.lists(st.one_of(http_requests(), http_requests(), http_requests(), st.binary(max_size=20)), max_size=5),
    st.lists(st.integers(0, 100), max_size=4),
)


def drawn(examples: int) -> Callable[[_Test], _Test]:
    """
    Draw so many examples, and many times more in the long version.
    """
    return settings(
        max_examples=examples * 20 if FULL else examples,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


class FuzzTests(SynchronousTestCase):
    """
    Any bytes.
    """

    timeout = 3600

    def setUp(self) -> None:
        """
        Make the limits of a connection small.
        """
        for module, name, limit in SMALL_LIMITS:
            self.patch(import_module(module), name, limit)

    @drawn(400)
    @given(st.lists(st.text("ab\r\n", max_size=6).map(str.encode), max_size=8), st.integers(1, 6))
    def test_cut_anywhere(self, stream: list[bytes], limit: int) -> None:
        """
        However a stream is cut into chunks, it has the same lines, in bounded memory.
        """
        check_cuts(stream, limit)

    @drawn(300)
    @given(st.lists(st.lists(st.sampled_from(b"a\n\xef\xf0\xf9\xfa\xfb\xfe\xff"), max_size=4).map(bytes), max_size=6))
    def test_telnet(self, stream: list[bytes]) -> None:
        """
        However a stream is cut into chunks, the same Telnet commands are removed.
        """
        check_telnet(stream)

    @drawn(800)
    @given(device_lines)
    def test_line(self, line: bytes) -> None:
        """
        Any line is parsed as the protocol says, or refused as malformed, from devices and from clients.
        """
        check_line(line)

    @drawn(300)
    @given(st.dictionaries(keys.filter(is_key).map(str.upper), values, max_size=4), st.booleans())
    def test_said(self, said: dict[str, str], complete: bool) -> None:
        """
        Fields that did not come as a line reach a device unchanged, or not at all.
        """
        check_said({**said, "MSG": "J", "ID": "20"} if complete else said)

    @drawn(400)
    @given(client_steps)
    def test_client(self, steps: list[Step]) -> None:
        """
        Whatever a client sends, each request has one echo and one end, each word one last line, and nothing is raised.
        """
        check_client(steps)

    @drawn(200)
    @given(client_steps)
    def test_stranger(self, steps: list[Step]) -> None:
        """
        Whatever a client without any role sends, it gets nothing and does nothing, and nothing is raised.
        """
        check_stranger(steps)

    @drawn(150)
    @given(http_chunks, st.sampled_from([Role.NONE, Role.READ, Role.ADMIN]))
    def test_http(self, chunks: list[bytes], role: Role) -> None:
        """
        Whatever a client sends over HTTP, responses are well-formed and no server errors; without a role, it asks and
        sees nothing.
        """
        check_http(chunks, role)
