"""The fields of a scenario as a table, and a scenario file to start from: read from ``Scenario`` itself."""

from __future__ import annotations

import errno
import inspect
import os
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from splitinfer.files import replacing
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.scenario_file import stored_fields

# What the end of a field's name says of its unit; the longest that fits counts.
_UNITS = {
    "_s": "s",
    "_hz": "Hz",
    "_w": "W",
    "distances_m": "m",
    "_bits": "bit",
    "_cycles": "cycles",
    "_w_per_hz": "W/Hz",
    "_power_w": "W",
    "_price_w": "J per second of latency",
    "arrival_rate_hz": "requests/s",
    "cycles_per_mac": "cycles/MAC",
    "energy_coefficient": "W s³",
    "bits_per_element": "bit",
    "reward_energy_weight": "1/J",
}


@dataclass(frozen=True)
class FieldRow:
    """One field.

    Attributes:
        name: as in a file.
        unit: of the number, or empty.
        default: as TOML; empty where the field is absent by default.
        meaning: one sentence.
    """

    name: str
    unit: str
    default: str
    meaning: str


def field_table() -> list[FieldRow]:
    """Return every field of a scenario, in the order of the class."""
    meanings = _meanings()
    return [
        FieldRow(
            name,
            next((_UNITS[end] for end in sorted(_UNITS, key=len, reverse=True) if name.endswith(end)), ""),
            _toml(info.default),
            meanings[name],
        )
        for name, info in Scenario.model_fields.items()
    ]


def write_template(path: Path, start: Scenario | None = None) -> None:
    """Write a scenario file: what the scenario sets, and every other field as a comment with its default.

    Args:
        path: of the file, which must not exist; ``Profile`` objects go beside it.
        start: a scenario to start from; without one, four devices with ResNet-18 each.

    Raises:
        FileExistsError: the file exists.
    """
    start = start or Scenario(num_devices=4, services=("resnet18",))
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        given = stored_fields(start, path)
        lines = ["# A scenario: numbers in SI units. What is commented out shows its default, if it has one.", ""]
        for row in field_table():
            unit = f" [{row.unit}]" if row.unit else ""
            lines += [f"# {line}" for line in textwrap.wrap(f"{row.meaning}{unit}", 110)]
            own = _toml(given[row.name]) if row.name in given else ""
            lines += [f"{row.name} = {own}" if own else f"# {row.name} = {row.default}".rstrip(), ""]
        file.write("\n".join(lines))


def _meanings() -> dict[str, str]:
    text = inspect.getdoc(Scenario) or ""
    _, _, attributes = text.partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", attributes, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(meaning.split()) for name, meaning in entries}


def _toml(value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, BaseModel):
        parts = ", ".join(f"{name} = {_toml(part)}" for name, part in value.model_dump(exclude_none=True).items())
        return f"{{ {parts} }}"
    if isinstance(value, float) and value and not 1e-3 <= abs(value) < 1e5:
        digits = next(d for d in range(17) if float(f"{value:.{d}e}") == value)
        mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(part)}' for name, part in value.items())} }}"
    import tomli_w

    return tomli_w.dumps({"x": value}).strip().removeprefix("x = ")
