"""The seam between what chooses cuts and what runs them: one protocol for simulator, training and runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitinfer.errors import InputError
from splitinfer.scheduling.observation import Observation, Setting

Cuts = NDArray[np.int64]


class Policy(Protocol):
    """Chooses the cut of every service once per partition period.

    Attributes:
        name: what tables and plots call it.
    """

    name: str

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        """Begin a run.

        Args:
            setting: everything that is known beforehand.
            rng: the policy's own source of randomness; the same seed must give the same cuts.

        Raises:
            InputError: the policy does not fit the setting.
        """

    def cuts(self, observation: Observation) -> Cuts:
        """Return the cut of each service for the coming period, shape (M, N), each in 0..K."""


@dataclass(frozen=True, eq=False)
class Request:
    """Resources decided outside the rule (by a joint learned policy or another solver), held for a whole call.

    The simulator keeps to what is feasible: nobody is served more than is queued, shared limits scale all services of
    a device (of the edge) down together, and the power spent is the least that carries the rates in use.

    Attributes:
        local_frequency_hz: (E, M, N) or (M, N), f^l asked for.
        power_w: (E, M) or (M,), power up to which the device may transmit.
        rate_share: (E, M, N) or (M, N), share of the rate R(power_w) that each service may use.
        edge_frequency_hz: (E, M, N) or (M, N), f^e asked for.
    """

    local_frequency_hz: ArrayLike
    power_w: ArrayLike
    rate_share: ArrayLike
    edge_frequency_hz: ArrayLike


class AllocatingPolicy(Policy, Protocol):
    """A policy that sets frequencies and powers itself, in place of the allocation rule."""

    sets_resources: bool
    """True."""

    def resources(self) -> Request:
        """Return what goes with the cuts that ``cuts`` returned last; (M, N) and (M,) arrays."""


def sets_resources(policy: Policy) -> TypeGuard[AllocatingPolicy]:
    """Whether the policy sets frequencies and powers itself, by an attribute ``sets_resources``."""
    return bool(getattr(policy, "sets_resources", False))


def is_static(policy: Policy) -> bool:
    """Whether the policy promises, by an attribute ``static``, never to change a cut within a run.

    A simulator may then ask once and run on.
    """
    return bool(getattr(policy, "static", False))


def pareto_cuts(device_work: NDArray[np.float64], bits: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the cuts that no other cut beats in both work on the device and bits to send, in rising order.

    Whatever the frequency and power, the device's energy rises with both, so no other cut can be the cheapest for the
    device. A cut outside may still relieve the edge (it leaves less there than the cut that beats it); k = K, which
    leaves nothing there, is always inside.

    Args:
        device_work: cycles (or MACs, or c^k) on the device per cut, shape (K+1,), rising.
        bits: bits (or elements, or d^k) crossing each cut, shape (K+1,).
    """
    fewest = np.minimum.accumulate(np.concatenate([[np.inf], bits[:-1]]))
    return np.flatnonzero(bits < fewest)


def checked_cuts(cuts: ArrayLike, setting: Setting) -> Cuts:
    """Return cuts as an (M, N) array.

    Raises:
        InputError: the shape does not fit the setting, or a cut is not in 0..K.
    """
    try:
        wanted = np.asarray(cuts)
    except ValueError as error:
        raise InputError(f"cuts: {error}") from None
    shape = setting.active.shape
    if wanted.shape not in (shape, shape[1:]):
        raise InputError(f"cuts: {shape[0]} devices with {shape[1]} services need shape {shape[1:]} or {shape}, "
                         f"not {wanted.shape}")  # fmt: skip
    if not np.issubdtype(wanted.dtype, np.integer):
        raise InputError(f"cuts: cut points are whole numbers, not {wanted.dtype}")
    table = np.where(setting.active, np.broadcast_to(wanted, shape), 0).astype(np.int64)
    wrong = (table < 0) | (table > setting.num_cuts)
    if wrong.any():
        device, service = np.argwhere(wrong)[0]
        raise InputError(
            f"cuts: cut {table[device, service]} of service {service} on device {device} "
            f"is not in 0..{setting.num_cuts[device, service]}"
        )
    return table
