"""
The tests. They see no settings of the person who runs them: none of usbgate's, of colours, of a proxy for this machine,
or of PostgreSQL's clients but the password, which tests give to processes of their own.
"""

import os

_SETTINGS = {
    *("USBGATE_STATE", "USBGATE_TOKEN", "USBGATE_MQTT_PASSWORD", "XDG_STATE_HOME"),
    *("NO_COLOR", "FORCE_COLOR"),
    *(name for name in os.environ if name.startswith("PG") and name not in ("PGPASSWORD", "PGPASSFILE")),
}

for _name in _SETTINGS & os.environ.keys():
    del os.environ[_name]
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"
os.environ["no_proxy"] = ",".join(filter(None, [os.environ.get("no_proxy"), "127.0.0.1", "localhost"]))
