"""Several settings side by side, padded to the largest: what encoders and rewards read for E environments at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
