"""
A real Home Assistant, set up by hand: its MQTT integration, and its HTTP API with a token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from tests.support.running import free_port
from tests.support.waiting import eventually

_OWNER, _TOKEN, _KEY = "a" * 32, "b" * 32, "c" * 128
_SINCE = "2025-01-01T00:00:00+00:00"

# It does not run without its frontend, but is content with an empty one.
_CONFIGURATION = """
homeassistant:
  name: Home
  latitude: 48.1
  longitude: -1.6
  elevation: 30
  unit_system: metric
  time_zone: UTC
http:
  server_host: 127.0.0.1
  server_port: {port}
api:
frontend:
  development_repo: {frontend}
logger:
  default: warning
"""

_ENTRY = {
    "entry_id": "usbgate0000000000000000000000",
    "domain": "mqtt",
    "title": "broker",
    "version": 1,
    "minor_version": 2,
    "source": "user",
    "options": {},
    "subentries": [],
    "unique_id": None,
    "disabled_by": None,
    "discovery_keys": {},
    "pref_disable_new_entities": False,
    "pref_disable_polling": False,
    "created_at": _SINCE,
    "modified_at": _SINCE,
}

_AUTH = {
    "users": [
        {
            "id": _OWNER,
            "group_ids": ["system-admin"],
            "is_owner": True,
            "is_active": True,
            "name": "owner",
            "system_generated": False,
            "local_only": False,
        }
    ],
    "groups": [
        {"id": "system-admin", "name": "Administrators"},
        {"id": "system-users", "name": "Users"},
        {"id": "system-read-only", "name": "Read Only"},
    ],
    "credentials": [],
    "refresh_tokens": [
        {
            "id": _TOKEN,
            "user_id": _OWNER,
            "client_id": None,
            "client_name": "tests",
            "client_icon": None,
            "token_type": "long_lived_access_token",
            "created_at": _SINCE,
            "access_token_expiration": 315360000.0,
            "token": "d" * 128,
            "jwt_key": _KEY,
            "last_used_at": None,
            "last_used_ip": None,
            "expire_at": None,
            "credential_id": None,
            "version": "2025.4.4",
        }
    ],
}


class HomeAssistant:
    """
    Home Assistant as a process.
    """

    def __init__(self, program: str, folder: Path, broker_port: int) -> None:
        """
        Set it up.

        Args:
            program: The path of `hass`.
            folder: An empty folder.
            broker_port: The port of the broker on this machine.
        """
        self._program = program
        self._folder = folder
        self._port = free_port()
        (folder / ".storage").mkdir()
        frontend = folder / "frontend"
        (frontend / "hass_frontend").mkdir(parents=True)
        (folder / "configuration.yaml").write_text(_CONFIGURATION.format(port=self._port, frontend=frontend))
        broker = {"broker": "127.0.0.1", "port": broker_port, "protocol": "5"}
        self._store("core.config_entries", {"entries": [{**_ENTRY, "data": broker}]}, 1, 5)
        self._store("auth", _AUTH, 1, 1)

    def _store(self, key: str, data: object, version: int, minor_version: int) -> None:
        stored = {"version": version, "minor_version": minor_version, "key": key, "data": data}
        (self._folder / ".storage" / key).write_text(json.dumps(stored))

    @property
    def log(self) -> str:
        """
        What it has logged: warnings and errors.
        """
        return (self._folder / "home-assistant.log").read_text()

    def start(self) -> None:
        """
        Start it, and wait until it runs.
        """
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._folder), "--skip-pip"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        eventually(self._runs, "Home Assistant runs", limit=60.0)

    def _runs(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"Home Assistant ended: {(self._folder / 'output').read_text()}")
        with suppress(URLError, ConnectionError):
            return bool(self._call("GET", "config")["state"] == "RUNNING")
        return False

    def stop(self) -> None:
        """
        Stop it.
        """
        self._process.terminate()
        self._process.wait()

    def states(self) -> dict[str, str]:
        """
        Return the states of all entities of usbgate, by entity id.
        """
        return {each["entity_id"]: each["state"] for each in self._call("GET", "states")}

    def attributes(self, entity: str) -> dict[str, Any]:
        """
        Return the attributes of an entity.
        """
        found: dict[str, Any] = self._call("GET", f"states/{entity}")["attributes"]
        return found

    def call(self, service: str, entity: str, **data: object) -> None:
        """
        Call a service such as `switch/turn_on`.
        """
        self._call("POST", f"services/{service}", {"entity_id": entity, **data})

    def render(self, template: str) -> str:
        """
        Return what a template becomes.
        """
        return str(self._call("POST", "template", {"template": template}))

    def _call(self, method: str, path: str, body: object = None) -> Any:
        request = Request(
            f"http://127.0.0.1:{self._port}/api/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {_access_token()}", "Content-Type": "application/json"},
            method=method,
        )
        with urlopen(request, timeout=30) as response:
            text = response.read().decode()
        return text if path == "template" else json.loads(text)


def _access_token() -> str:
    now = int(time.time())
    claims = {"iss": _TOKEN, "iat": now, "exp": now + 86400}
    signed = ".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{_base64(hmac.digest(_KEY.encode(), signed.encode(), hashlib.sha256))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
