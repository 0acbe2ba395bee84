"""One simulated environment as plain numbers: devices, services, limits, and the work of a task per cut."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitinfer.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class World:
    """Everything the slot loop needs to know about M devices with up to N services each.

    Per-device fields may be given as one number for all devices. Devices with fewer than N services are padded; padded
    services are inactive, are never admitted to, and their tables do not matter.

    Attributes:
        slot_s: tau, seconds per slot.
        slots_per_period: G, slots per partition period.
        bandwidth_hz: b = B_w / M, the bandwidth of each device.
        noise_w_per_hz: N0.
        max_edge_frequency_hz: F^e, shared by all devices, cycles/s.
        local_cycles: (M, N, K_max + 1), local work of one task per cut, ``c^k·C·rho`` cycles.
        transmission_bits: (M, N, K_max + 1), ``d^k·D`` bits.
        edge_cycles: (M, N, K_max + 1), ``(1 - c^k)·C·rho`` cycles.
        cut_count: (M, N), K of each service: its cuts are 0..K.
        max_local_frequency_hz: (M,), F^l, cycles/s.
        max_power_w: (M,), p_max.
        energy_coefficient: (M,), delta, W·s³.
        local_energy_weight: (M,), U^l.
        transmission_energy_weight: (M,), U^t.
        queue_weight: (M, N), v: multiplies the backlog of a service in the objectives of Problems 3 to 5. One (the
            default) is the paper's objective.
        active: (M, N), True for services that exist; all by default.

    Raises:
        InputError: a field has the wrong shape or an impossible value; the message starts with the field's name.
    """

    slot_s: float
    slots_per_period: int
    bandwidth_hz: float
    noise_w_per_hz: float
    max_edge_frequency_hz: float
    local_cycles: Floats
    transmission_bits: Floats
    edge_cycles: Floats
    cut_count: NDArray[np.int64]
    max_local_frequency_hz: Floats
    max_power_w: Floats
    energy_coefficient: Floats
    local_energy_weight: Floats
    transmission_energy_weight: Floats
    queue_weight: Floats = field(default_factory=lambda: np.ones((1, 1)))
    active: NDArray[np.bool_] = field(default_factory=lambda: np.ones((1, 1), dtype=np.bool_))

    def __post_init__(self) -> None:
        for name in ("slot_s", "bandwidth_hz", "noise_w_per_hz"):
            _set(self, name, _number(name, getattr(self, name), allow_zero=False))
        _set(self, "max_edge_frequency_hz", _number("max_edge_frequency_hz", self.max_edge_frequency_hz))
        if int(self.slots_per_period) != self.slots_per_period or self.slots_per_period < 1:
            raise InputError(f"slots_per_period must be a whole number of at least 1, got {self.slots_per_period!r}")

        tables = np.shape(self.local_cycles)
        if len(tables) != 3 or 0 in tables:
            raise InputError(f"local_cycles must have the shape (devices, services, cuts), got {tables}")
        for name in ("local_cycles", "transmission_bits", "edge_cycles"):
            if np.shape(getattr(self, name)) != tables:
                raise InputError(f"{name} must have the shape {tables} of local_cycles")
            _set(self, name, _array(name, getattr(self, name), tables))
        devices, services, cuts = tables
        for name in (
            "max_local_frequency_hz",
            "max_power_w",
            "energy_coefficient",
            "local_energy_weight",
            "transmission_energy_weight",
        ):
            _set(self, name, _array(name, getattr(self, name), (devices,)))
        _set(self, "queue_weight", _array("queue_weight", self.queue_weight, (devices, services)))
        _set(self, "active", _frozen(_broadcast("active", np.asarray(self.active, np.bool_), (devices, services))))

        cut_count = _broadcast("cut_count", np.asarray(self.cut_count), (devices, services))
        if not np.issubdtype(cut_count.dtype, np.integer):
            raise InputError("cut_count must hold whole numbers")
        if np.any((cut_count < 0) | (cut_count >= cuts)):
            raise InputError(f"cut_count must be between 0 and {cuts - 1}, the tables' highest cut")
        _set(self, "cut_count", _frozen(cut_count.astype(np.int64)))

        existing = self.active[..., None] & (np.arange(cuts) <= self.cut_count[..., None])
        idle = (self.local_cycles == 0) & (self.transmission_bits == 0) & (self.edge_cycles == 0)
        if np.any(existing & idle):
            device, service, cut = np.argwhere(existing & idle)[0]
            raise InputError(
                f"local_cycles: a task of device {device}, service {service} at cut {cut} has no work at all"
            )

    @property
    def num_devices(self) -> int:
        """M."""
        return int(self.local_cycles.shape[0])

    @property
    def num_services(self) -> int:
        """N, the padded number of services per device."""
        return int(self.local_cycles.shape[1])

    def replace(self, **changes: Any) -> World:
        """A copy with some fields changed, validated again."""
        return replace(self, **changes)


def _set(world: World, name: str, value: object) -> None:
    object.__setattr__(world, name, value)


def _number(name: str, value: float, *, allow_zero: bool = True) -> float:
    number = float(value)
    if not np.isfinite(number) or number < 0 or (number == 0 and not allow_zero):
        raise InputError(f"{name} must be a finite number {'of at least' if allow_zero else 'above'} 0, got {value!r}")
    return number


def _broadcast(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise InputError(f"{name} must have the shape {shape} or broadcast to it, got {array.shape}") from None


def _array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Floats:
    array = _broadcast(name, np.asarray(value, dtype=np.float64), shape)
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        raise InputError(f"{name} must hold finite numbers of at least 0")
    return _frozen(array)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    own = np.array(array, order="C")
    own.setflags(write=False)
    return own
