"""Device cards: what a device's processor and radios really draw, with the source of every number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from splitinfer.data import data_folder
from splitinfer.energy.calibration import Calibration, calibration_of, is_calibration
from splitinfer.energy.processor import CUBIC, cubic_row, processor_power_w, table_row
from splitinfer.energy.transmitter import radio_row
from splitinfer.errors import InputError
from splitinfer.files import read_toml
from splitinfer.records import in_reach, wrong_field

Floats = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(in_reach)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(in_reach)]
Hertz = Annotated[float, Field(ge=1e3, le=1e13)]
"""A processor's frequency; what was written in GHz or MHz is not within."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]


class Core(_Part):
    """A core, or the cores that a device computes on together.

    Attributes:
        name: of the core.
        frequency_hz, watts: the table, busy; or none, and the law ``P0 + a f + delta f^3`` up to ``max_frequency_hz``.
        base_w: P0.
        linear_j: a, joules per cycle.
        energy_coefficient: delta, W s^3.
        max_frequency_hz: F^l; the table's highest row by default.
        cycles_per_mac: rho on this core.
        model_cycles_per_mac: rho of models that were timed on it, by name.
        source, licence: of the numbers.
    """

    name: str
    frequency_hz: tuple[Hertz, ...] = ()
    watts: tuple[Positive, ...] = ()
    base_w: NonNegative = 0.0
    linear_j: NonNegative = 0.0
    energy_coefficient: NonNegative = 0.0
    max_frequency_hz: Hertz | None = None
    cycles_per_mac: Positive
    model_cycles_per_mac: dict[str, Positive] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.frequency_hz) != len(self.watts):
            raise ValueError(f"frequency_hz has {len(self.frequency_hz)} values, watts {len(self.watts)}")
        law = self.base_w + self.linear_j + self.energy_coefficient
        if bool(self.watts) == bool(law):
            raise ValueError("give either frequency_hz and watts, or base_w, linear_j and energy_coefficient")
        if not self.watts and self.max_frequency_hz is None:
            raise ValueError("max_frequency_hz is missing")
        return self

    @property
    def limit_hz(self) -> float:
        """F^l."""
        return max(self.frequency_hz) if self.max_frequency_hz is None else self.max_frequency_hz

    def rho(self, model: str) -> float:
        """Cycles per MAC of a model: its own where it was timed, else the core's."""
        return self.model_cycles_per_mac.get(model, self.cycles_per_mac)

    def row(self) -> Floats:
        """The core as a row of ``splitinfer.energy.processor``."""
        if self.watts:
            return table_row(self.frequency_hz, self.watts, max_frequency_hz=self.limit_hz)
        law = {"base_w": self.base_w, "linear_j": self.linear_j, "max_frequency_hz": self.limit_hz}
        return cubic_row(self.energy_coefficient, **law)

    def power_w(self, frequency_hz: float) -> float:
        """P at an average frequency, watts."""
        return processor_power_w(self.row()[None], 0, frequency_hz)

    def cubic_fit(self) -> tuple[float, float]:
        """The paper's ``delta f^3`` fitted to the core, W s^3, and its relative rms error: least squares of relative
        errors over the table's rows, or over twenty frequencies of the law."""
        if not self.watts and self.base_w == self.linear_j == 0:
            return self.energy_coefficient, 0.0
        at = np.array(self.frequency_hz or np.linspace(0.2, 1.0, 20) * self.limit_hz)
        rows = self.row()[None]
        watts = np.array(self.watts or [processor_power_w(rows, 0, float(f)) for f in at])
        share = at**3 / watts
        delta = float(share.sum() / (share**2).sum())
        return delta, float(np.sqrt(np.mean((delta * share - 1) ** 2)))


class Radio(_Part):
    """A radio: ``P_c + p / eta + e r`` while it sends at rate r with a radiated power p.

    Attributes:
        circuit_w: P_c.
        amplifier_efficiency: eta; left out where the radiated power is part of the rest.
        bit_j: e, joules per bit sent.
        max_power_w: most that it radiates, p_max.
        source, licence: of the numbers.
    """

    circuit_w: NonNegative = 0.0
    amplifier_efficiency: Positive | None = None
    bit_j: NonNegative = 0.0
    max_power_w: Positive

    def row(self) -> Floats:
        """The radio as a row of ``splitinfer.energy.transmitter``."""
        efficiency = np.inf if self.amplifier_efficiency is None else self.amplifier_efficiency
        return radio_row(circuit_w=self.circuit_w, amplifier_efficiency=efficiency, bit_j=self.bit_j)


class DeviceCard(BaseModel):
    """One device.

    Attributes:
        name: of the card.
        description: in a line.
        core: name of the core that computes.
        cores: all that are known.
        radio: name of the radio that sends.
        radios: all that are known, by name.
        memory_bytes: what a head may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    core: str
    cores: tuple[Core, ...]
    radio: str
    radios: dict[str, Radio]
    memory_bytes: Positive | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.core not in [core.name for core in self.cores]:
            raise ValueError(f"core: no {self.core!r}; there are {', '.join(core.name for core in self.cores)}")
        if self.radio not in self.radios:
            raise ValueError(f"radio: no {self.radio!r}; there are {', '.join(self.radios)}")
        return self

    @property
    def used_core(self) -> Core:
        """The core that computes."""
        return next(core for core in self.cores if core.name == self.core)

    @property
    def used_radio(self) -> Radio:
        """The radio that sends."""
        return self.radios[self.radio]

    @property
    def effective_cubic(self) -> float:
        """The delta of ``delta f^3`` that draws the same at F^l: what closed forms of the paper's law go by."""
        core = self.used_core
        row = core.row()
        if not core.watts and core.base_w == core.linear_j == 0:
            return float(row[CUBIC])
        return core.power_w(core.limit_hz) / core.limit_hz**3


def device_names() -> list[str]:
    """Return the names of the cards that are shipped."""
    return sorted(path.stem for path in data_folder("devices").glob("*.toml"))


def load_device(name: str) -> DeviceCard:
    """Return a device card.

    Args:
        name: a shipped card's, or the path of a TOML file: of a card, or of what ``splitinfer calibrate`` found of a
            host, which takes from the paper's card what was not measured. ``NAME:RADIO`` or ``NAME:CORE`` or both takes
            another radio or core of the card.

    Raises:
        InputError: there is no such card, or it is not one; the line names the field.
    """
    base, *choices = name.split(":") if not Path(name).is_file() else [name]
    path = Path(base) if base.endswith(".toml") else data_folder("devices") / f"{base}.toml"
    try:
        content = read_toml(path)
    except FileNotFoundError:
        raise InputError(
            f"device: no {base!r}; there are {', '.join(device_names())}, or a card's .toml file"
        ) from None
    except OSError as error:
        raise InputError(f"device: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"device: {path.name} is no TOML file: {error}") from None
    if is_calibration(content):
        content = _measured_fields(calibration_of(content, f"device: {path.name}"), path.name)
    try:
        card = DeviceCard(**{"name": path.stem, **content})
    except ValidationError as error:
        raise InputError(f"device: {path.name}: {wrong_field(error, DeviceCard, content)}") from None
    for choice in choices:
        if choice in card.radios:
            card = card.model_copy(update={"radio": choice})
        elif choice in [core.name for core in card.cores]:
            card = card.model_copy(update={"core": choice})
        else:
            raise InputError(
                f"device: {base} has no {choice!r}; radios {', '.join(card.radios)}, cores "
                f"{', '.join(core.name for core in card.cores)}"
            )
    return card


def _measured_fields(found: Calibration, name: str) -> dict[str, Any]:
    """The fields of the card of a host that was calibrated."""
    measured = found.device_fields()
    if "cycles_per_mac" not in measured:
        raise InputError(f"device: {name} tells no cycles: the processor's frequency could not be read on that host")
    paper = load_device("paper")
    source = f"splitinfer calibrate, {found.engine}"
    law: Mapping[str, float]
    if found.power_law is not None:
        fitted = found.power_law
        law = {
            "base_w": fitted.base_w,
            "linear_j": fitted.linear_j,
            "energy_coefficient": fitted.energy_coefficient,
        }
    else:
        law = {"energy_coefficient": measured.get("energy_coefficient", paper.used_core.energy_coefficient)}
        source += "" if "energy_coefficient" in measured else "; without a meter, so that delta is the paper's"
    core = {
        "name": "cpu",
        **law,
        "max_frequency_hz": measured["max_local_frequency_hz"],
        "cycles_per_mac": measured["cycles_per_mac"],
        "model_cycles_per_mac": found.model_cycles_per_mac(),
        "source": source,
        "licence": "measured",
    }
    return {
        "description": "A host that was calibrated, with the paper's radio",
        "core": "cpu",
        "cores": [core],
        "radio": paper.radio,
        "radios": {name: radio.model_dump(exclude_none=True) for name, radio in paper.radios.items()},
    }
