"""
`usbgate ask`: ask a sensor, and print the answer.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import click

from usbgate.cli.autostart import DaemonStarter, environment, twistd_arguments
from usbgate.cli.connection import Connection, ConnectionLost, ask, ask_word
from usbgate.cli.credentials import token_option
from usbgate.cli.encryption import tls_options
from usbgate.cli.group import EXIT_STATUS, Duration, pass_config
from usbgate.cli.reach import is_this_machine, load_settings, port_option, reach_or_start, reach_remote
from usbgate.core.errors import Malformed
from usbgate.core.fieldline import LINE_LIMIT, format_number, is_key
from usbgate.core.messages import HELD_TIMEOUT_RANGE, parse_request, time_limit
from usbgate.core.model import Request

MARGIN = 5.0  # seconds beyond the time limit in which the daemon's `timeout` arrives


@click.command("ask", epilog=EXIT_STATUS)
@click.option("-s", "command", metavar="COMMAND", help="The command.  [default: the sensor's default command]")
@click.option("-i", "sensor", metavar="ID", help="The sensor.")
@click.option("-o", "origin", metavar="ORIGIN", help="The name of the asker.  [default: this machine's address]")
@port_option
@click.option("--host", metavar="HOST", help="The daemon's host. No daemon is started on another machine.")
@tls_options
@token_option
@click.option(
    "--timeout",
    type=Duration(*HELD_TIMEOUT_RANGE),
    metavar="DURATION",
    help="How long to wait for the answer, such as 30s.  [default: the sensor's setting, or 10s; with --when-heard 1h]",
)
@click.option(
    "--when-heard",
    is_flag=True,
    help="For a node that sleeps: send the question when the sensor reports. `usbgate cancel` takes it back.",
)
@click.option("--max-age", type=Duration(0), metavar="DURATION", help="Accept an answer from memory, at most this old.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON, for programs.")
@click.argument("words", nargs=-1, metavar="[ID] [COMMAND] [KEY=VALUE]...")
@pass_config
def ask_command(
    config: Path | None,
    words: tuple[str, ...],
    sensor: str | None,
    command: str | None,
    origin: str | None,
    port: int | None,
    host: str | None,
    timeout: float | None,
    max_age: float | None,
    when_heard: bool,
    as_json: bool,
) -> None:
    """
    Ask a sensor, and print its answer.

    \b
        usbgate ask -s J -i 20 -o TOTO     (like the original client)
        usbgate ask 20 J
        usbgate ask 9 L LEVEL=50

    Starts a daemon if none runs on this machine. With a COMMAND, the request is printed first, as usbgate received
    it.
    """
    fields = _fields(words, sensor, command)
    if origin is not None:
        fields["ORIGIN"] = origin
    if max_age is not None:
        fields["MAXAGE"] = format_number(max_age)
    if timeout is not None:
        fields["TIMEOUT"] = format_number(timeout)
    if when_heard:
        fields["WHEN"] = "heard"
    request = _request(fields)
    if host is not None and not is_this_machine(host):
        with closing(reach_remote(host, port, config)) as connection:
            _print_answer(connection, fields, time_limit(request, None), as_json)
        return
    settings = load_settings(config)
    about = settings.sensors.get(fields["ID"])
    wait = time_limit(request, None if about is None else about.timeout)
    daemon = DaemonStarter(settings.state, twistd_arguments(settings.state, settings.file), environment(settings.state))
    with closing(reach_or_start(settings, daemon, host, port)) as connection:
        try:
            _print_answer(connection, fields, wait, as_json)
        except ConnectionLost:
            daemon.check_death()
            raise


def _fields(words: tuple[str, ...], sensor: str | None, command: str | None) -> dict[str, str]:
    rest = list(words)
    if sensor is None:
        if not rest:
            raise click.UsageError("missing sensor: use -i ID")
        sensor = rest.pop(0)
    if command is None and rest and "=" not in rest[0]:
        command = rest.pop(0)
    fields = {"ID": sensor} if command is None else {"MSG": command, "ID": sensor}
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals or not is_key(key):
            raise click.UsageError(f"expected KEY=VALUE, got {word!r}")
        if key.upper() in fields:
            raise click.UsageError(f"{key.upper()} is given twice")
        fields[key.upper()] = value
    return fields


def _request(fields: dict[str, str]) -> Request:
    try:
        request = parse_request({"MSG": "-", **fields}, "-", "-")
    except Malformed as error:
        raise click.UsageError(error.text) from None
    if len(request.line) > LINE_LIMIT:
        raise click.UsageError(f"a request has at most {LINE_LIMIT} bytes")
    if "MSG" not in fields and any(map(str.isspace, "".join(fields.values()))):
        raise click.UsageError("a value with whitespace requires a command")
    return request


def _print_answer(connection: Connection, fields: dict[str, str], wait: float, as_json: bool) -> None:
    if "MSG" in fields:
        lines = ask(connection, fields, wait + MARGIN)
        echo = next(lines)
        if not as_json:
            click.echo(f"Received {echo!r}")
        answer = next(lines)
    else:
        sensor, *options = fields.items()
        words = [sensor[1], *[f"{key}={value}" for key, value in options]]
        answer = ask_word(connection, " ".join(words), wait + MARGIN)
    if as_json:
        from usbgate.cli.records import answer_record

        answer = json.dumps(answer_record(answer), ensure_ascii=False)
    click.echo(answer)
