"""Several settings side by side, padded to the largest: what encoders and rewards read for E environments at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.scheduling.observation import Observation
from splitinfer.scheduling.setting import Setting, stack

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StackedSettings:
    """E settings: every number of ``Setting`` by its name with a leading axis E, padded by ``stack``.

    Attributes:
        arrays: the stack.
        slots_per_period: G, the same in all of them.
    """

    arrays: Any
    slots_per_period: int

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "arrays":  # asked of a copy that has nothing yet
            raise AttributeError(name)
        return getattr(self.arrays, name)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(E, M, N)."""
        environments, devices, services = self.arrays.active.shape
        return environments, devices, services

    @property
    def num_cuts(self) -> Ints:
        """(E, M, N), K; 0 where there is no service."""
        return np.where(self.arrays.active, self.arrays.num_cuts, 0)

    @property
    def queue_price(self) -> Floats:
        """(E, 3), weight over scale of each queue in Qbar, per cycle or bit."""
        arrays = self.arrays
        scales = np.stack([arrays.queue_scale_cycles, arrays.queue_scale_bits, arrays.queue_scale_cycles], axis=1)
        return np.asarray(arrays.queue_weights / scales)

    def work_at(self, cuts: Ints) -> Floats:
        """Work of a task at each stage with the given cuts, shape (E, 3, M, N)."""
        return np.take_along_axis(self.arrays.work, cuts[:, None, :, :, None], axis=4)[..., 0]


def emphasised(settings: StackedSettings, energy_emphasis: float) -> StackedSettings:
    """Return the settings with w1 of (34) multiplied."""
    price = energy_emphasis * settings.reward_energy_weight
    return StackedSettings(settings.arrays._replace(reward_energy_weight=price), settings.slots_per_period)


def stack_settings(settings: Sequence[Setting]) -> StackedSettings:
    """Stack settings that share the number of slots per period."""
    return StackedSettings(stack(settings), settings[0].slots_per_period)


@dataclass(frozen=True, eq=False)
class StackedObservation:
    """The state (25) of E environments: what ``Observation`` holds for one, with a leading axis E.

    Attributes:
        cuts: (E, M, N), in force until now.
        backlog: (E, 3, M, N), period means of Q^l, Q^t and Q^e.
        service_rate: (E, 3, M, N), period means of f^l, r and f^e.
        power_w: (E, M), period mean of p.
        max_rate_bps: (E, M), period mean of R at full power; 0 before the first period.
    """

    cuts: Ints
    backlog: Floats
    service_rate: Floats
    power_w: Floats
    max_rate_bps: Floats


def stack_observation(observation: Observation) -> StackedObservation:
    """One environment's observation as a stack of one."""
    return StackedObservation(
        cuts=observation.cuts[None],
        backlog=np.stack(
            [observation.local_queue_cycles, observation.transmission_queue_bits, observation.edge_queue_cycles]
        )[None],
        service_rate=np.stack([observation.local_frequency_hz, observation.rate_bps, observation.edge_frequency_hz])[
            None
        ],
        power_w=observation.power_w[None],
        max_rate_bps=observation.max_rate_bps[None],
    )


def first_observation(settings: StackedSettings) -> StackedObservation:
    """Before the first period: nothing queued or spent, everything on the device."""
    environments, devices, services = settings.shape
    return StackedObservation(
        cuts=settings.num_cuts,
        backlog=np.zeros((environments, 3, devices, services)),
        service_rate=np.zeros((environments, 3, devices, services)),
        power_w=np.zeros((environments, devices)),
        max_rate_bps=np.zeros((environments, devices)),
    )
