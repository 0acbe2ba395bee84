"""Fits the energy model to this host: cycles per MAC (rho) from times, and delta from a meter.

rho is what makes the model's ``cycles = rho·MACs`` and ``time = cycles / f`` true here: measured time times the
processor's frequency over MACs. It differs from model to model and with the number of threads. delta follows from
``P = delta·f^3`` (equation 5 over tau), with P what a meter shows above the idle host.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from splitinfer.energy.meter import EnergyMeter
from splitinfer.errors import InputError
from splitinfer.files import read_toml
from splitinfer.records import Record


@dataclass(frozen=True)
class ModelTiming:
    """One model at one number of threads.

    Attributes:
        model: name.
        threads: inside one operation.
        macs: of one inference.
        median_s: time of one inference.
        cycles_per_mac: rho; None where the processor's frequency is unknown.
        energy_coefficient: delta in W·s³; None without a meter or frequency.
    """

    model: str
    threads: int
    macs: int
    median_s: float
    cycles_per_mac: float | None
    energy_coefficient: float | None


@dataclass(frozen=True)
class PowerLaw:
    """``P0 + a f + delta f^3``, fitted.

    Attributes:
        base_w: P0.
        linear_j: a, joules per cycle.
        energy_coefficient: delta, W s^3.
        error: relative rms of the fit.
        cubic_error: the same for the best ``delta f^3``.
    """

    base_w: float
    linear_j: float
    energy_coefficient: float
    error: float
    cubic_error: float


def fit_power_law(frequency_hz: Sequence[float], watts: Sequence[float]) -> PowerLaw:
    """Fit ``P0 + a f + delta f^3`` with coefficients of at least 0, by least squares of relative errors.

    Args:
        frequency_hz: at least three different ones.
        watts: power at each, above the idle device's.

    Raises:
        InputError: too few frequencies, or a value is not finite and above 0.
    """
    import numpy as np
    from scipy.optimize import nnls

    hz, power = np.asarray(frequency_hz, np.float64), np.asarray(watts, np.float64)
    if hz.shape != power.shape or not (np.all(np.isfinite(hz) & np.isfinite(power)) and np.all((hz > 0) & (power > 0))):
        raise InputError("power law: frequencies and watts must be finite, above 0 and equally many")
    if len(set(hz.tolist())) < 3:
        raise InputError("power law: P0, a and delta need at least three frequencies")
    ghz = hz / 1e9
    columns = np.stack([np.ones_like(ghz), ghz, ghz**3], axis=1) / power[:, None]
    (base, linear, cubic), residual = nnls(columns, np.ones_like(ghz))
    share = columns[:, 2]
    only = share.sum() / (share**2).sum()
    return PowerLaw(
        base_w=float(base),
        linear_j=float(linear) * 1e-9,
        energy_coefficient=float(cubic) * 1e-27,
        error=float(residual / np.sqrt(len(hz))),
        cubic_error=float(np.sqrt(np.mean((only * share - 1) ** 2))),
    )


@dataclass(frozen=True)
class Calibration:
    """What was measured on this host.

    Attributes:
        frequency_hz: of the processor while it was busy; None where it cannot be read.
        meter: name of the meter, None without one.
        idle_power_w: of the idle host, None without a meter.
        timings: per model and number of threads.
        power_law: fitted over the frequencies that were seen, where there were enough.
        engine: what computed the models; cycles per MAC, and with them every cut decision, are its own.
    """

    frequency_hz: float | None
    meter: str | None
    idle_power_w: float | None
    timings: tuple[ModelTiming, ...]
    power_law: PowerLaw | None = None
    engine: str = "torch"

    def device_fields(self) -> dict[str, float]:
        """Return the scenario's fields that were measured: medians over all timings."""
        fields: dict[str, float] = {}
        if self.frequency_hz is not None:
            fields["max_local_frequency_hz"] = self.frequency_hz
            fields["cycles_per_mac"] = statistics.median(
                one.cycles_per_mac for one in self.timings if one.cycles_per_mac is not None
            )
        deltas = [one.energy_coefficient for one in self.timings if one.energy_coefficient is not None]
        if deltas:
            fields["energy_coefficient"] = statistics.median(deltas)
        return fields

    def model_cycles_per_mac(self) -> dict[str, float]:
        """Return rho of each model that was timed, at the number of threads that was quickest."""
        found: dict[str, float] = {}
        for one in self.timings:
            if one.cycles_per_mac is not None:
                found[one.model] = min(one.cycles_per_mac, found.get(one.model, math.inf))
        return found

    def macs_per_s(self, model: str) -> float:
        """Return how fast this host computes a model, or, where it was not timed, the middle one of those that were."""
        quickest: dict[str, float] = {}
        for one in self.timings:
            quickest[one.model] = max(one.macs / one.median_s, quickest.get(one.model, 0.0))
        return quickest.get(model) or statistics.median(quickest.values())

    def edge_fields(self, models: Iterable[str]) -> dict[str, float]:
        """Return the scenario's fields of this host as its edge: the middle of those of the models that were timed.

        Raises:
            InputError: the processor's frequency is not known.
        """
        if self.frequency_hz is None:
            raise InputError("--edge: the processor's frequency could not be read on that host")
        timed = {one.model for one in self.timings}
        names = [name for name in models if name in timed] or [""]
        rho = self.frequency_hz / statistics.median(self.macs_per_s(name) for name in names)
        return {"cycles_per_mac": rho, "max_edge_frequency_hz": self.frequency_hz}

    def missing(self) -> list[str]:
        """Return one line for each thing that this host does not tell."""
        lines = []
        if self.frequency_hz is None:
            lines.append("the processor's frequency cannot be read here, so there is no rho, only times")
        if self.meter is None:
            lines.append("no energy can be read here, so delta stays as the scenario has it")
        lines.append("the frequency was not set: all of it holds at the frequency that the host chose")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, without those that were not measured."""
        record: dict[str, Any] = {"engine": self.engine} | self.device_fields()
        if self.power_law is not None:
            record["power_law"] = dict(vars(self.power_law))
        record["measured"] = [
            {name: value for name, value in vars(one).items() if value is not None} for one in self.timings
        ]
        return record


def is_calibration(content: Mapping[str, Any]) -> bool:
    """Whether a TOML file is what ``Calibration.to_dict`` returned."""
    return "measured" in content and "engine" in content


def calibration_of(content: Mapping[str, Any], what: str) -> Calibration:
    """Return what was measured, from what ``Calibration.to_dict`` returned.

    Args:
        content: of the file.
        what: the start of an error's line.

    Raises:
        InputError: it is no such file, or a number in it is none.
    """
    if not is_calibration(content):
        raise InputError(f"{what} is not what 'splitinfer calibrate --out FILE' writes")
    try:
        record = Record(content)
        timings = tuple(
            ModelTiming(
                model=one.text("model"),
                threads=one.whole("threads", least=1),
                macs=one.whole("macs", least=1),
                median_s=_positive(one, "median_s"),
                cycles_per_mac=_positive(one, "cycles_per_mac") if one.has("cycles_per_mac") else None,
                energy_coefficient=_positive(one, "energy_coefficient") if one.has("energy_coefficient") else None,
            )
            for one in record.tables("measured")
        )
        law = record.table("power_law") if record.has("power_law") else None
        found = Calibration(
            frequency_hz=(
                _positive(record, "max_local_frequency_hz") if record.has("max_local_frequency_hz") else None
            ),
            meter=None,
            idle_power_w=None,
            timings=timings,
            power_law=None if law is None else PowerLaw(**{one.name: law.number(one.name) for one in fields(PowerLaw)}),
            engine=record.text("engine"),
        )
    except InputError as error:
        raise InputError(f"{what} is no calibration: {error}") from None
    if not timings:
        raise InputError(f"{what} is no calibration: no model was timed")
    if found.frequency_hz is not None and not found.model_cycles_per_mac():
        raise InputError(f"{what} is no calibration: max_local_frequency_hz is there, but no cycles_per_mac")
    return found


def load_calibration(path: str | Path, option: str) -> Calibration:
    """Read what ``splitinfer calibrate --out`` wrote.

    Args:
        path: of the file.
        option: that named it, for an error's line.

    Raises:
        InputError: the file is absent, no TOML, or another's.
    """
    try:
        content = read_toml(path)
    except OSError as error:
        raise InputError(f"{option}: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{option}: {path} is no TOML file: {error}") from None
    return calibration_of(content, f"{option}: {path}")


def _positive(record: Record, name: str) -> float:
    return record.number(name, is_above=True)


def calibrate(
    models: Iterable[tuple[str, int, int, Callable[[], object]]],
    *,
    repeats: int = 10,
    meter: EnergyMeter | None = None,
    engine: str = "torch",
    idle_s: float = 2.0,
    frequency_hz: Callable[[], float | None] | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> Calibration:
    """Time models, with energy where there is a meter.

    Args:
        models: name, threads, MACs, and a call that runs one inference with that many threads.
        repeats: inferences that are counted; one more is run first.
        meter: of energy.
        engine: that runs them.
        idle_s: how long the idle host is watched first, with a meter.
        frequency_hz: reads the processor's frequency; this host's by default.
        now: reads the clock, seconds.

    Raises:
        InputError: a number is out of range, or a model has no MACs.
    """
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, not {repeats}")
    read_hz = frequency_hz or host_frequency_hz
    idle_w = None
    if meter is not None:
        start, before = now(), meter.joules()
        time.sleep(idle_s)
        idle_w = (meter.joules() - before) / (now() - start)
    timings, seen_hz, seen_w = [], [], []
    for name, threads, macs, run in models:
        if macs < 1:
            raise InputError(f"{name} has no MACs, so nothing can be said per MAC")
        run()
        times = []
        begin, before_j = now(), meter.joules() if meter is not None else 0.0
        for _ in range(repeats):
            start = now()
            run()
            times.append(now() - start)
        power_w = (meter.joules() - before_j) / (now() - begin) if meter is not None else None
        hz = read_hz()
        delta = None
        if hz is not None:
            seen_hz.append(hz)
            if power_w is not None and idle_w is not None and power_w > idle_w:
                delta = (power_w - idle_w) / hz**3
                seen_w.append((hz, power_w - idle_w))
        median_s = statistics.median(times)
        timings.append(ModelTiming(name, threads, macs, median_s, None if hz is None else median_s * hz / macs, delta))
    return Calibration(
        frequency_hz=statistics.median(seen_hz) if seen_hz else None,
        meter=None if meter is None else meter.name,
        idle_power_w=idle_w,
        timings=tuple(timings),
        engine=engine,
        power_law=fit_power_law(*zip(*seen_w, strict=True)) if len({hz for hz, _ in seen_w}) >= 3 else None,
    )


def host_frequency_hz(root: Path = Path("/")) -> float | None:
    """Return the fastest processor's frequency now (Linux), or None where the host does not tell."""
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    try:
        if files:
            return max(float(file.read_text()) for file in files) * 1e3
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return max(float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")) * 1e6
    except (OSError, ValueError):
        return None
