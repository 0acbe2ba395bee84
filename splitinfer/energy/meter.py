"""Meters: joules that this host really spends, where it can say. RAPL and NVML are read through zeus (an extra).

A meter counts whole packages, so what else runs on the host counts too. Most virtual machines have none.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from splitinfer.errors import InputError, MissingExtraError

METERS = ("auto", "rapl", "nvml", "none")


class EnergyMeter(Protocol):
    """A counter of energy.

    Attributes:
        name: ``"rapl"`` or ``"nvml"``.
    """

    name: str

    def joules(self) -> float:
        """Return joules since some fixed moment; only differences mean something."""


class RaplMeter:
    """All CPU packages of this host (Linux powercap; reading it usually needs root, or zeus' daemon).

    Raises:
        MissingExtraError: zeus is not installed.
        InputError: this host has no such counter, or it may not be read.
    """

    name = "rapl"

    def __init__(self) -> None:
        device = _zeus("zeus.device.cpu")
        try:
            self._cpus: Any = device.get_cpus().cpus
            self.joules()
        except Exception as error:  # noqa: BLE001 - zeus has several families of errors, all of which mean the same here
            raise InputError(
                f"meter: this host's CPUs have no energy counter that can be read (RAPL): {error}"
            ) from None

    def joules(self) -> float:
        return float(sum(cpu.get_total_energy_consumption().cpu_mj for cpu in self._cpus) / 1e3)


class NvmlMeter:
    """All NVIDIA GPUs of this host.

    Raises:
        MissingExtraError: zeus is not installed.
        InputError: there is no GPU with an energy counter.
    """

    name = "nvml"

    def __init__(self) -> None:
        device = _zeus("zeus.device.gpu")
        try:
            self._gpus: Any = device.get_gpus().gpus
            self.joules()
        except Exception as error:  # noqa: BLE001 - as above
            raise InputError(f"meter: this host has no GPU with an energy counter (NVML): {error}") from None

    def joules(self) -> float:
        return float(sum(gpu.get_total_energy_consumption() for gpu in self._gpus) / 1e3)


def find_meter(name: str = "auto") -> tuple[EnergyMeter | None, str]:
    """Return a meter and what to say about it.

    Args:
        name: ``"rapl"``, ``"nvml"``, ``"none"``; or ``"auto"``: RAPL if the host has it, else none.

    Returns:
        The meter, or None; and one line that says which it is, or why there is none.

    Raises:
        InputError: there is no meter of that name, or the host does not have the one asked for.
        MissingExtraError: it was asked for by name and zeus is not installed.
    """
    if name not in METERS:
        raise InputError(f"meter: must be {', '.join(METERS[:-1])} or {METERS[-1]}, not {name!r}")
    if name == "none":
        return None, "no meter was asked for; energy comes from the model"
    if name == "nvml":
        return NvmlMeter(), "energy of all GPUs of this host, from NVML"
    try:
        return RaplMeter(), "energy of all CPU packages of this host, from RAPL"
    except (InputError, MissingExtraError) as error:
        if name == "rapl":
            raise
        return None, f"no meter: {str(error).removeprefix('meter: ')}; energy comes from the model"


def _zeus(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError("zeus", "energy") from error
