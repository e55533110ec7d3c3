"""
Check discovery messages by Home Assistant's own schema. A program, to be run by Python 3.13 with Home Assistant
2026.11, `probatio` and `jinja2`, but without Home Assistant's many other libraries (docs/mqtt.md, "Tests"):

    python3.13 homeassistant_schema.py < messages

Each line is a discovery message, and makes a line: what Home Assistant says against it, or nothing.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any

import jinja2
import probatio

PLATFORMS = ("binary_sensor", "button", "cover", "event", "light", "number", "select", "sensor", "switch")

# The modules of Home Assistant that are run. All others, and all libraries that are not there, are stand-ins.
REAL = re.compile(
    r"homeassistant\.(const|generated\.\w+|util\.(event_type|hass_dict|signal_type|enum)"
    r"|components\.\w+\.const"
    rf"|components\.mqtt\.(schemas|util|config|light(\.schema|\.schema_basic)?|{'|'.join(PLATFORMS)}))"
)

# Python 3.14 allows `except A, B:`, and evaluates annotations only when they are needed.
UNBRACKETED = re.compile(r"^(\s*except )([\w.]+(?:, [\w.]+)+):", re.MULTILINE)


class StandIn(types.ModuleType):
    """
    A module that has whatever is taken from it: a module below it, what stands in its `const`, or a class that does
    nothing.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        const = f"{self.__name__}.const"
        if PathFinder.find_spec(f"{self.__name__}.{name}", self.__path__) is not None:
            made = importlib.import_module(f"{self.__name__}.{name}")
        elif const != "homeassistant.const" and PathFinder.find_spec(const, self.__path__) is not None:
            made = getattr(importlib.import_module(const), name, _stand_in(name))
        else:
            made = _stand_in(name)
        setattr(self, name, made)
        return made


def _stand_in(name: str) -> Any:
    return type(name, (), {"__init__": lambda *_, **__: None, "__class_getitem__": classmethod(lambda cls, _: cls)})


class Loader(SourceFileLoader):
    """
    Compiles a module of Home Assistant, always anew.
    """

    def path_stats(self, path: str) -> Any:
        raise OSError

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        text = UNBRACKETED.sub(r"\1(\2):", bytes(data).decode())
        return compile(text, path, "exec", annotations.compiler_flag, dont_inherit=True)


class StandInLoader:
    def create_module(self, spec: ModuleSpec) -> StandIn:
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class OfHomeAssistant:
    """
    Finds the modules of Home Assistant, real or not.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] != "homeassistant":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None and REAL.fullmatch(name):
            spec.loader = Loader(name, spec.origin)
            return spec
        stand_in = Others.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            stand_in.submodule_search_locations = spec.submodule_search_locations
        return stand_in


class Others:
    """
    Finds a stand-in for whatever is not there.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec:
        return ModuleSpec(name, StandInLoader(), is_package=True)  # type: ignore[arg-type]


def main() -> None:
    """
    Check the messages.
    """
    sys.meta_path[:] = [OfHomeAssistant(), *sys.meta_path, Others()]
    validation: Any = importlib.import_module("homeassistant.helpers.config_validation")
    jinja = jinja2.Environment()

    def string(value: Any) -> str:
        if value is None or isinstance(value, list | dict):
            raise probatio.Invalid("not a string")
        return str(value)

    def template(value: Any) -> str:
        jinja.parse(string(value))
        return string(value)

    validation.string, validation.template = string, template
    validation.boolean = probatio.Boolean()
    validation.positive_int = probatio.All(int, probatio.Range(min=0))
    validation.removed = lambda *_, **__: lambda value: value
    validation.url = validation.configuration_url = validation.icon = string
    entity: Any = importlib.import_module("homeassistant.helpers.entity")
    entity.ENTITY_CATEGORIES_SCHEMA = probatio.In(["config", "diagnostic"])

    mqtt = "homeassistant.components.mqtt."
    schemas: Any = importlib.import_module(mqtt + "schemas")
    platforms: dict[str, Any] = {}
    for name in PLATFORMS:
        module = importlib.import_module(mqtt + ("light.schema_basic" if name == "light" else name))
        platforms[name] = getattr(module, "DISCOVERY_SCHEMA_BASIC" if name == "light" else "DISCOVERY_SCHEMA")
    sensor: Any = importlib.import_module("homeassistant.components.sensor.const")

    def check(message: dict[str, Any]) -> None:
        schemas.validate_device_discovery_components(schemas.DEVICE_DISCOVERY_SCHEMA(message))
        for component in message["components"].values():
            if component.keys() == {"platform"}:
                continue
            shared = {key: message[key] for key in schemas.SHARED_OPTIONS if key in message}
            found = platforms[component["platform"]]({**shared, **component})
            kind, state = found.get("device_class"), found.get("state_class")
            states = sensor.DEVICE_CLASS_STATE_CLASSES.get(kind) if component["platform"] == "sensor" else None
            if states is not None and state is not None and state not in states:
                raise probatio.Invalid(f"{state} with {kind}")

    for line in sys.stdin:
        try:
            check(json.loads(line))
            print(flush=True)
        except (probatio.Invalid, jinja2.TemplateError) as error:
            print(f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)


if __name__ == "__main__":
    main()
