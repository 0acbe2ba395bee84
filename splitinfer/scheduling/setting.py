"""One world as plain numbers: what the engine, the policies, learning and live runs share."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitinfer.energy.processor import CUBIC, FIRST, widen_row
from splitinfer.energy.transmitter import RADIATED_ROW
from splitinfer.errors import InputError

Floats = NDArray[np.float64]
# A number of a setting says its axes: m devices, n services, k cuts, r numbers of its own; none for the whole world.
PerWorld = Annotated[float, ""]
PerDevice = Annotated[Floats, "m"]
PerService = Annotated[Floats, "mn"]
PerCut = Annotated[Floats, "mnk"]
Rows = Annotated[Floats, "mr"]

FADING_QUANTILES = 128
SERVICE_ORDERS = ("shortest", "oldest")


def rayleigh_quantiles(count: int = FADING_QUANTILES) -> Floats:
    """Return equally likely values of Exp(1), the fading of a Rayleigh channel around a mean gain of 1, (count,)."""
    levels = -np.log1p(-(np.arange(count) + 0.5) / count)
    return np.asarray(levels / levels.mean())


@dataclass(frozen=True, eq=False)
class Setting:
    """Everything that is known of a world before a run: M devices with up to N services each, and their limits.

    Per-device fields may be given as one number for all devices. Devices with fewer than N services are padded; padded
    services are inactive, are never admitted to, and their tables do not matter. Beyond a service's K the tables are
    not looked at.

    Attributes:
        slot_s: tau, seconds per slot.
        slots_per_period: G, slots per partition period.
        device_bandwidth_hz: b = B_w / M, the bandwidth of each device.
        noise_w_per_hz: N0.
        max_edge_frequency_hz: F^e, shared by all devices, cycles/s.
        local_cycles: (M, N, K_max + 1), local work of one task per cut, ``c^k·C·rho`` cycles.
        transmission_bits: (M, N, K_max + 1), ``d^k·D`` bits.
        edge_cycles: (M, N, K_max + 1), ``(1 - c^k)·C·rho`` cycles.
        num_cuts: (M, N), K of each service: its cuts are 0..K.
        max_local_frequency_hz: (M,), F^l, cycles/s.
        max_power_w: (M,), p_max, radiated.
        energy_coefficient: (M,), delta, W·s³.
        local_energy_weight: (M,), U^l.
        transmission_energy_weight: (M,), U^t.
        queue_weight: (M, N), v: multiplies the backlog of a service in the objectives of Problems 3 to 5. One (the
            default) is the paper's objective.
        active: (M, N), True for services that exist; all by default.
        arrival_rate_hz: (M, N), nominal requests per second; the world may drift from it.
        answer_s: (M, N), seconds that the answer of a task that was sent takes on its way back.
        queue_weights: beta of local, transmission and edge queue.
        queue_scale_cycles: scale of cycles in Qbar.
        queue_scale_bits: scale of bits in Qbar.
        reward_energy_weight: w1 of (34), per joule.
        reward_queue_weight: w2 of (34).
        latency_price_w: (M,), w: joules that a second of one task's latency is worth, under the price of time.
        price_growth_s: under the price of time, w is paid once more for each so many seconds that the oldest task of a
            station has waited; 0: w stays.
        service_order: whom a station serves first under the price of time: ``"shortest"`` or ``"oldest"``.
        processor: (M, R), how power follows frequency, see ``energy.processor``; by default ``delta f^3``.
        radio: (M, 3), how power follows what is sent, see ``energy.transmitter``; by default what is radiated.
        mean_gain: (M,), mean channel gain where it is known and stays; 0 where it has to be learned.
        fading: (M, Q), equally likely values of the gain over its mean; Rayleigh fading by default.

    Raises:
        InputError: a field has the wrong shape or an impossible value; the message starts with the field's name.
    """

    slot_s: PerWorld
    slots_per_period: Annotated[int, ""]
    device_bandwidth_hz: PerWorld
    noise_w_per_hz: PerWorld
    max_edge_frequency_hz: PerWorld
    local_cycles: PerCut
    transmission_bits: PerCut
    edge_cycles: PerCut
    num_cuts: Annotated[NDArray[np.int64], "mn"]
    max_local_frequency_hz: PerDevice
    max_power_w: PerDevice
    energy_coefficient: PerDevice
    local_energy_weight: PerDevice
    transmission_energy_weight: PerDevice
    queue_weight: PerService = field(default_factory=lambda: np.ones((1, 1)))
    active: Annotated[NDArray[np.bool_], "mn"] = field(default_factory=lambda: np.ones((1, 1), dtype=np.bool_))
    arrival_rate_hz: PerService = field(default_factory=lambda: np.zeros((1, 1)))
    answer_s: PerService = field(default_factory=lambda: np.zeros((1, 1)))
    queue_weights: Annotated[tuple[float, float, float], "3"] = (0.6, 0.2, 0.2)
    queue_scale_cycles: PerWorld = 1e9
    queue_scale_bits: PerWorld = 1e6
    reward_energy_weight: PerWorld = 1e3
    reward_queue_weight: PerWorld = 1.0
    latency_price_w: PerDevice = field(default_factory=lambda: np.array([0.01]))
    price_growth_s: PerWorld = 0.0
    service_order: str = "shortest"
    processor: Rows = field(default_factory=lambda: np.empty((1, 0)))
    radio: Rows = field(default_factory=lambda: RADIATED_ROW[None])
    mean_gain: PerDevice = field(default_factory=lambda: np.zeros(1))
    fading: Rows = field(default_factory=lambda: rayleigh_quantiles()[None])

    def __post_init__(self) -> None:
        for name in ("slot_s", "device_bandwidth_hz", "noise_w_per_hz"):
            _set(self, name, _number(name, getattr(self, name), allow_zero=False))
        for name in ("max_edge_frequency_hz", "price_growth_s"):
            _set(self, name, _number(name, getattr(self, name)))
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
        for name, axes in AXES.items():
            if axes in ("m", "mn") and name not in ("active", "num_cuts"):
                _set(self, name, _array(name, getattr(self, name), (devices, services)[: len(axes)]))
        self._check_stations(devices)
        _set(self, "active", _frozen(_broadcast("active", np.asarray(self.active, np.bool_), (devices, services))))

        num_cuts = _broadcast("num_cuts", np.asarray(self.num_cuts), (devices, services))
        if not np.issubdtype(num_cuts.dtype, np.integer):
            raise InputError("num_cuts must hold whole numbers")
        if np.any((num_cuts < 0) | (num_cuts >= cuts)):
            raise InputError(f"num_cuts must be between 0 and {cuts - 1}, the tables' highest cut")
        _set(self, "num_cuts", _frozen(num_cuts.astype(np.int64)))

        existing = self.active[..., None] & (np.arange(cuts) <= self.num_cuts[..., None])
        idle = (self.local_cycles == 0) & (self.transmission_bits == 0) & (self.edge_cycles == 0)
        if np.any(existing & idle):
            device, service, cut = np.argwhere(existing & idle)[0]
            raise InputError(
                f"local_cycles: a task of device {device}, service {service} at cut {cut} has no work at all"
            )

    def _check_stations(self, devices: int) -> None:
        if self.service_order not in SERVICE_ORDERS:
            raise InputError(f"service_order must be 'shortest' or 'oldest', got {self.service_order!r}")
        processor = self.processor
        if np.shape(processor)[-1] == 0:
            processor = np.zeros((devices, FIRST))
            processor[:, CUBIC] = self.energy_coefficient
        _set(self, "processor", _array("processor", processor, (devices, np.shape(processor)[-1])))
        _set(self, "radio", _array("radio", self.radio, (devices, 3)))
        _set(self, "fading", _array("fading", self.fading, (devices, np.shape(self.fading)[-1])))

    @property
    def num_devices(self) -> int:
        """M."""
        return int(self.local_cycles.shape[0])

    @property
    def num_services(self) -> int:
        """N, the padded number of services per device."""
        return int(self.local_cycles.shape[1])

    @property
    def period_s(self) -> float:
        """Length of a partition period."""
        return self.slot_s * self.slots_per_period

    @property
    def task_cycles(self) -> Floats:
        """Cycles of one whole task, ``C rho``, shape (M, N)."""
        return self.edge_cycles[..., 0]

    @property
    def input_bits(self) -> Floats:
        """D, shape (M, N)."""
        return self.transmission_bits[..., 0]

    def replace(self, **changes: Any) -> Setting:
        """A copy with some fields changed, validated again."""
        return replace(self, **changes)


AXES: dict[str, str] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Setting, include_extras=True).items()
    if hasattr(hint, "__metadata__")
}
"""Axes of every number of a setting."""

_TABLES = tuple(name for name, axes in AXES.items() if axes == "mnk")
STACKED = (
    "num_devices",
    "num_services",
    "work",
    "shortest_first",
    *(name for name in AXES if name not in _TABLES),
)
"""What a stack of settings holds: the numbers of ``Setting`` under their names with a leading axis E, and

num_devices, num_services: (E,), of each setting; M and N are those of the largest.
work: (E, 3, M, N, K + 1), local cycles, bits and edge cycles of a task per cut.
shortest_first: (E,), whether ``service_order`` is that.
"""


def named_tuple(name: str, names: Sequence[str], module: str) -> Any:
    """Return a class of tuples whose names are computed; compiled code is cached under its module and name."""
    return namedtuple(name, names, module=module)


Stack = named_tuple("Stack", STACKED, __name__)
"""Settings side by side as plain arrays. A tuple with names, since compiled code takes no other."""


def stack(settings: Sequence[Setting]) -> Any:
    """Return a ``Stack`` of settings, padded to the largest. What is padded is never looked at, or divides by one."""
    count = len(settings)
    m, n, k = (max(setting.local_cycles.shape[axis] for setting in settings) for axis in range(3))
    arrays = {}
    for name in STACKED:
        if name == "work":
            arrays[name] = np.zeros((count, 3, m, n, k))
        elif name in AXES:
            values = [np.asarray(getattr(setting, name)) for setting in settings]
            inner = {"": (), "3": (3,), "m": (m,), "mn": (m, n)}.get(AXES[name])
            shape = inner if inner is not None else (m, max(value.shape[-1] for value in values))
            arrays[name] = np.full((count, *shape), AXES[name] == "m", values[0].dtype)
        else:
            arrays[name] = np.zeros(count, np.bool_ if name == "shortest_first" else np.int64)
    stacked = Stack(**arrays)
    for index, setting in enumerate(settings):
        put(stacked, index, setting)
    return stacked


def put(stacked: Any, index: int, setting: Setting) -> None:
    """Copy a setting into row ``index`` of a stack.

    Raises:
        InputError: it is larger than the stack's arrays.
    """
    shape, room = setting.local_cycles.shape, stacked.work.shape[2:]
    if any(own > most for own, most in zip(shape, room, strict=True)):
        raise InputError(f"worlds: (devices, services, cuts) {shape} do not fit into {room}")
    devices, services, cuts = shape
    stacked.num_devices[index], stacked.num_services[index] = devices, services
    stacked.shortest_first[index] = setting.service_order == "shortest"
    stacked.work[index] = 0.0
    for stage, name in enumerate(_TABLES):
        stacked.work[index, stage, :devices, :services, :cuts] = getattr(setting, name)
    for name, axes in AXES.items():
        if axes == "mnk":
            continue
        array, value = getattr(stacked, name), getattr(setting, name)
        if axes in ("", "3"):
            array[index] = value
            continue
        array[index] = axes == "m"
        if name == "processor":
            for row, out in zip(value, array[index], strict=False):
                widen_row(row, out)
        elif axes == "mn":
            array[index, :devices, :services] = value
        else:
            array[index, :devices] = value


def _set(setting: Setting, name: str, value: object) -> None:
    object.__setattr__(setting, name, value)


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
