"""Scenarios as TOML: files, the shipped presets, and ``field=value`` from a command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from splitinfer.errors import ScenarioError
from splitinfer.files import read_toml, replacing, toml_of
from splitinfer.profiling.profile import Profile
from splitinfer.simulation.scenario import Scenario
from splitinfer.user_code import is_own


def preset_names() -> list[str]:
    """Return the names of the shipped scenarios, sorted."""
    folder = files("splitinfer.simulation").joinpath("presets")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_preset(name: str) -> Scenario:
    """Return the shipped scenario of that name.

    Raises:
        ScenarioError: there is none.
    """
    if name not in preset_names():
        raise ScenarioError(f"scenario: no preset {name!r}; there are {', '.join(preset_names())}")
    text = files("splitinfer.simulation").joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")
    return Scenario(**({"name": name} | toml_of(text)))


def load_scenario(path: str | Path) -> Scenario:
    """Read a scenario from a TOML file; paths of profiles, device cards and traces in it are relative to the file.

    Raises:
        ScenarioError: the file is absent, is not TOML, or a field is wrong.
    """
    path = Path(path)
    try:
        values = read_toml(path)
    except OSError as error:
        raise ScenarioError(f"scenario: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ScenarioError(f"scenario: {path} is not TOML: {error}") from None
    if not values:
        raise ScenarioError(f"scenario: {path} sets no field; write at least one, for example num_devices = 4")
    for field in ("services", "device"):
        if field in values:
            values[field] = _beside(values[field], path.parent)
    for part in ("arrivals", "channel"):
        if isinstance(values.get(part), dict) and "path" in values[part]:
            held = values[part]["path"]
            if isinstance(held, str):
                values[part]["path"] = str(path.parent / held)
            elif isinstance(held, list) and all(isinstance(one, str) for one in held):
                values[part]["path"] = [str(path.parent / one) for one in held]
    return Scenario(**({"name": path.stem} | values))


def find_scenario(name_or_file: str) -> Scenario:
    """Return a preset by its name, or read a TOML file (anything with a suffix or a slash)."""
    if name_or_file.endswith(".toml") or "/" in name_or_file or Path(name_or_file).is_file():
        return load_scenario(name_or_file)
    return load_preset(name_or_file)


def save_scenario(scenario: Scenario, path: str | Path) -> None:
    """Write the fields that were set. ``Profile`` objects go beside the file as ``<stem>.<model>.json``."""
    import tomli_w

    path = Path(path)
    with replacing(path) as part:
        part.write_text(tomli_w.dumps(stored_fields(scenario, path)), encoding="utf-8")


def stored_fields(scenario: Scenario, path: Path) -> dict[str, Any]:
    """Return the fields that were set as a file at that path has them, after writing ``Profile`` objects beside it."""
    return {
        name: _storable(getattr(scenario, name), path)
        for name in type(scenario).model_fields
        if name in scenario.model_fields_set and getattr(scenario, name) is not None
    }


def with_settings(scenario: Scenario, settings: Sequence[str]) -> Scenario:
    """Apply ``field=value`` strings; ``channel.coherence_time_s=0.1`` reaches inside, ``field=`` restores a default.

    A value is written as in TOML; text needs no quotes, and ``a,b`` is a list.

    Raises:
        ScenarioError: a setting has no ``=``, or a field or value is wrong.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals:
            raise ScenarioError(f"{setting}: write field=value, for example max_power_w=0.2")
        *parts, last = field.strip().split(".")
        target = changes
        for part in parts:
            inner = target.get(part, getattr(scenario, part, None))
            if isinstance(inner, BaseModel):
                inner = inner.model_dump()
            elif isinstance(inner, str):
                inner = {"kind": inner}
            if not isinstance(inner, dict):
                raise ScenarioError(f"{field}: {part} has no fields")
            target[part] = target = dict(inner)
        target[last] = _value(text.strip()) if text.strip() else None
    # None is no value of most fields; it stands for the default here.
    defaults = {name for name, value in changes.items() if value is None}
    kept = scenario.model_fields_set - defaults
    base = Scenario(**{name: getattr(scenario, name) for name in kept}) if defaults else scenario
    return base.replace(**{name: value for name, value in changes.items() if name not in defaults})


def _value(text: str) -> Any:
    try:
        return toml_of(f"value = {text}")["value"]
    except ValueError:
        is_list = "," in text and not is_own(text)  # module:Class(k=3, j=4) is a name
        return [_value(part.strip()) for part in text.split(",")] if is_list else text


_FILE = re.compile(r"[^:]*\.(json|toml)(:.*)?")
"""A file, perhaps with a radio or core of the device card in it."""


def _beside(names: Any, folder: Path) -> Any:
    if isinstance(names, list):
        return [_beside(name, folder) for name in names]
    return str(folder / names) if isinstance(names, str) and _FILE.fullmatch(names) else names


def _storable(value: Any, path: Path) -> Any:
    if isinstance(value, Profile):
        name = f"{path.stem}.{re.sub(r'[^A-Za-z0-9_.-]+', '-', value.model)}.json"
        value.save(path.parent / name)
        return name
    if isinstance(value, str) and _FILE.fullmatch(value):
        return str(Path(value).resolve())
    if isinstance(value, tuple):
        return [_storable(item, path) for item in value]
    if isinstance(value, BaseModel):
        record = value.model_dump(exclude_none=True)
        if "path" not in record:
            return record
        held = record["path"]
        resolved = str(Path(held).resolve()) if isinstance(held, str) else [str(Path(one).resolve()) for one in held]
        return record | {"path": resolved}
    return value
