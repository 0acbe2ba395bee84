"""Problems 3, 4 and 5: the exact per-slot allocation of frequency and power (the paper's Theorem 1).

Pure functions over numpy arrays with any leading batch dimensions. ``docs/allocation.md`` proves from the KKT
conditions that the greedy rules are optimal, and says where they differ from the paper's Theorem 1. The rules
themselves are in ``kernels.py``, compiled once and shared with the simulator.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitinfer.energy.processor import CUBIC, FIRST
from splitinfer.energy.transmitter import RADIATED_ROW
from splitinfer.errors import InputError

Floats = NDArray[np.float64]


class SlotAllocator(Protocol):
    """Solves the three problems of one slot; ``ClosedForm`` and ``CvxpyAllocator`` are two of them."""

    def allocate_local(
        self,
        queue_cycles: ArrayLike,
        *,
        slot_s: ArrayLike,
        energy_weight: ArrayLike,
        energy_coefficient: ArrayLike,
        max_frequency_hz: ArrayLike,
        queue_weight: ArrayLike = 1.0,
    ) -> Floats: ...

    def allocate_transmission(
        self,
        queue_bits: ArrayLike,
        *,
        slot_s: ArrayLike,
        energy_weight: ArrayLike,
        bandwidth_hz: ArrayLike,
        noise_w_per_hz: ArrayLike,
        channel_gain: ArrayLike,
        max_power_w: ArrayLike,
        queue_weight: ArrayLike = 1.0,
    ) -> tuple[Floats, Floats]: ...

    def allocate_edge(
        self,
        queue_cycles: ArrayLike,
        *,
        slot_s: ArrayLike,
        max_frequency_hz: ArrayLike,
        queue_weight: ArrayLike = 1.0,
    ) -> Floats: ...


def allocate_local(
    queue_cycles: ArrayLike,
    *,
    slot_s: ArrayLike,
    energy_weight: ArrayLike,
    energy_coefficient: ArrayLike | None = None,
    max_frequency_hz: ArrayLike,
    queue_weight: ArrayLike = 1.0,
    processor: ArrayLike | None = None,
) -> Floats:
    """Problem 3: the local frequency of each service of a device.

    Minimises ``-tau·sum_n f_n v_n Q_n + U^l·tau·P(sum_n f_n)`` subject to ``sum_n f_n <= F^l`` and
    ``0 <= f_n <= Q_n/tau``, with the paper's ``P(f) = delta f^3`` or another processor's power. The remaining
    parameters have the batch shape ``(...)`` or broadcast to it.

    Args:
        queue_cycles: (..., N), backlog Q^l in cycles.
        slot_s: tau in seconds.
        energy_weight: U^l.
        energy_coefficient: delta in W·s³, where no processor is given.
        max_frequency_hz: F^l in cycles/s.
        queue_weight: v, (..., N) or broadcast to it; 1 is the paper's problem.
        processor: (..., R), rows of ``splitinfer.energy.processor``.

    Returns:
        (..., N), f^l in cycles/s.

    Raises:
        InputError: a value is negative or not finite, ``slot_s`` is not above 0, or shapes do not fit.
    """
    from splitinfer.scheduling.kernels import local_rows

    batch = Batch("queue_cycles", queue_cycles, queue_weight)
    slot = batch.parameter("slot_s", slot_s, positive=True)
    energy = batch.parameter("energy_weight", energy_weight)
    limit = batch.parameter("max_frequency_hz", max_frequency_hz)
    if processor is None:
        if energy_coefficient is None:
            raise InputError("energy_coefficient must be given where no processor is")
        rows = np.zeros((len(batch.queue), FIRST))
        rows[:, CUBIC] = batch.parameter("energy_coefficient", energy_coefficient)
    else:
        rows = batch.rows("processor", processor)
    out = np.empty_like(batch.queue)
    local_rows(batch.queue, batch.weight, slot, energy, rows, limit, out)
    return out.reshape(batch.shape)


def allocate_transmission(
    queue_bits: ArrayLike,
    *,
    slot_s: ArrayLike,
    energy_weight: ArrayLike,
    bandwidth_hz: ArrayLike,
    noise_w_per_hz: ArrayLike,
    channel_gain: ArrayLike,
    max_power_w: ArrayLike,
    queue_weight: ArrayLike = 1.0,
    radio: ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """Problem 4: the transmission rate of each service of a device, and the transmit power.

    Minimises ``-tau·sum_n r_n v_n Q_n + U^t·tau·P`` subject to ``sum_n r_n <= R(p)``, ``0 <= p <= p_max`` and
    ``0 <= r_n <= Q_n/tau``, where P is the paper's radiated power p or what another radio draws. The
    remaining parameters have the batch shape ``(...)`` or broadcast to it.

    Args:
        queue_bits: (..., N), backlog Q^t in bits.
        slot_s: tau in seconds.
        energy_weight: U^t.
        bandwidth_hz: b, the device's share of the band.
        noise_w_per_hz: N0.
        channel_gain: h of this slot; 0 is a deep fade, in which nothing is sent.
        max_power_w: p_max in watts.
        queue_weight: v, (..., N) or broadcast to it; 1 is the paper's problem.
        radio: (..., 3), rows of ``splitinfer.energy.transmitter``.

    Returns:
        r (..., N) in bit/s and p (...) in watts, radiated. p is the least power that carries ``sum_n r_n``.

    Raises:
        InputError: a value is negative or not finite, ``slot_s``, ``bandwidth_hz`` or ``noise_w_per_hz`` is not above
            0, or shapes do not fit.
    """
    from splitinfer.scheduling.kernels import transmission_rows

    batch = Batch("queue_bits", queue_bits, queue_weight)
    slot = batch.parameter("slot_s", slot_s, positive=True)
    energy = batch.parameter("energy_weight", energy_weight)
    bandwidth = batch.parameter("bandwidth_hz", bandwidth_hz, positive=True)
    noise = batch.parameter("noise_w_per_hz", noise_w_per_hz, positive=True)
    gain = batch.parameter("channel_gain", channel_gain)
    limit = batch.parameter("max_power_w", max_power_w)
    rows = batch.rows("radio", RADIATED_ROW if radio is None else radio)
    out, power = np.empty_like(batch.queue), np.empty(len(batch.queue))
    transmission_rows(batch.queue, batch.weight, slot, energy, bandwidth, noise, gain, limit, rows, out, power)
    return out.reshape(batch.shape), power.reshape(batch.shape[:-1])


def allocate_edge(
    queue_cycles: ArrayLike,
    *,
    slot_s: ArrayLike,
    max_frequency_hz: ArrayLike,
    queue_weight: ArrayLike = 1.0,
) -> Floats:
    """Problem 5: the edge's frequency for each service.

    Minimises ``-tau·sum f v Q`` subject to ``sum f <= F^e`` and ``0 <= f <= Q/tau``. The edge shares F^e among all
    services of all devices: an (M, N) backlog has to be flattened to (M·N,) first.

    Args:
        queue_cycles: (..., N), backlog Q^e in cycles.
        slot_s: tau in seconds, (...) or broadcast to it.
        max_frequency_hz: F^e in cycles/s, (...) or broadcast to it.
        queue_weight: v, (..., N) or broadcast to it; 1 is the paper's problem.

    Returns:
        (..., N), f^e in cycles/s.

    Raises:
        InputError: a value is negative or not finite, ``slot_s`` is not above 0, or shapes do not fit.
    """
    from splitinfer.scheduling.kernels import edge_rows

    batch = Batch("queue_cycles", queue_cycles, queue_weight)
    slot = batch.parameter("slot_s", slot_s, positive=True)
    limit = batch.parameter("max_frequency_hz", max_frequency_hz)
    out = np.empty_like(batch.queue)
    edge_rows(batch.queue, batch.weight, slot, limit, out)
    return out.reshape(batch.shape)


class ClosedForm:
    """The three functions of this module as a ``SlotAllocator``."""

    allocate_local = staticmethod(allocate_local)
    allocate_transmission = staticmethod(allocate_transmission)
    allocate_edge = staticmethod(allocate_edge)


def slot_allocator(solver: str) -> SlotAllocator:
    """The allocator called ``"closed-form"`` or ``"cvxpy"`` (the reference, about a thousand times slower).

    Raises:
        InputError: there is no solver of that name.
    """
    if solver == "closed-form":
        return ClosedForm()
    if solver == "cvxpy":
        from splitinfer.scheduling.reference import CvxpyAllocator

        return CvxpyAllocator()
    raise InputError(f"solver must be 'closed-form' or 'cvxpy', got {solver!r}")


class Batch:
    """Checked inputs of a problem with the leading dimensions flattened to one.

    Attributes:
        shape: (..., N), the shape of the backlog as given.
        queue: (B, N), backlog.
        weight: (B, N), queue weight.

    Raises:
        InputError: a value is negative or not finite, or shapes do not fit.
    """

    def __init__(self, name: str, queue: ArrayLike, weight: ArrayLike) -> None:
        backlog = checked(name, queue)
        if backlog.ndim == 0:
            raise InputError(f"{name} must have at least one dimension, the services")
        self.shape = backlog.shape
        self.queue = self._two_dimensional(backlog)
        self.weight = self._two_dimensional(
            self._broadcast("queue_weight", checked("queue_weight", weight), self.shape)
        )

    def parameter(self, name: str, value: ArrayLike, *, positive: bool = False) -> Floats:
        """A parameter per problem, (B,)."""
        array = checked(name, value)
        if positive and np.any(array == 0):
            raise InputError(f"{name} must be above 0")
        return np.ascontiguousarray(self._broadcast(name, array, self.shape[:-1])).reshape(-1)

    def rows(self, name: str, value: ArrayLike) -> Floats:
        """Parameter rows per problem, (B, R)."""
        array = checked(name, value)
        if array.ndim == 0:
            raise InputError(f"{name} must hold rows of numbers")
        width = array.shape[-1]
        return self._broadcast(name, array, (*self.shape[:-1], width)).reshape(-1, width)

    def _two_dimensional(self, array: Floats) -> Floats:
        # Writable, because numba compiles everything again for read-only arrays.
        plain = np.require(array, requirements=("C", "W"))
        return plain.reshape(int(np.prod(self.shape[:-1])), self.shape[-1])

    def _broadcast(self, name: str, array: Floats, shape: tuple[int, ...]) -> Floats:
        try:
            return np.array(np.broadcast_to(array, shape), order="C")
        except ValueError:
            raise InputError(f"{name} must broadcast to the shape {shape}, got {array.shape}") from None


def checked(name: str, value: ArrayLike) -> Floats:
    """``value`` as float64, refused with a line that names it unless all of it is finite and at least 0."""
    try:
        array: NDArray[Any] = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must hold numbers, got {value!r}") from None
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        raise InputError(f"{name} must be finite and at least 0")
    return array
