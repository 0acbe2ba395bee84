"""What a partition policy observes each partition period; what stays the same over a run is its ``Setting``.

The simulator and the live runtime both fill these in, so a policy cannot tell which of the two it steers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitinfer.scheduling.period import Period
from splitinfer.scheduling.setting import Setting

__all__ = ["Observation", "Setting"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Observation:
    """The state (25) at the start of a partition period: the period before it, by the paper's names.

    Before the first period everything is zero, and the cuts are those of a fully local device.

    Attributes:
        setting: of the run.
        period: means over the period before.
    """

    setting: Setting
    period: Period

    @classmethod
    def first(cls, setting: Setting) -> Observation:
        """Return what a policy sees before the first period."""
        return cls(setting, Period.empty(setting.num_cuts))

    @property
    def cuts(self) -> NDArray[np.int64]:
        """The cut in force until now, shape (M, N)."""
        return self.period.cuts

    @property
    def local_queue_cycles(self) -> Array:
        """Q^l, shape (M, N)."""
        return np.asarray(self.period.backlog[0])

    @property
    def transmission_queue_bits(self) -> Array:
        """Q^t, shape (M, N)."""
        return np.asarray(self.period.backlog[1])

    @property
    def edge_queue_cycles(self) -> Array:
        """Q^e, shape (M, N)."""
        return np.asarray(self.period.backlog[2])

    @property
    def local_frequency_hz(self) -> Array:
        """f^l, shape (M, N)."""
        return np.asarray(self.period.service_rate[0])

    @property
    def rate_bps(self) -> Array:
        """r, shape (M, N)."""
        return np.asarray(self.period.service_rate[1])

    @property
    def edge_frequency_hz(self) -> Array:
        """f^e, shape (M, N)."""
        return np.asarray(self.period.service_rate[2])

    @property
    def power_w(self) -> Array:
        """p, shape (M,)."""
        return self.period.power_w

    @property
    def max_rate_bps(self) -> Array:
        """R at full power, shape (M,): what the channel would carry; 0 before the first period."""
        return self.period.max_rate_bps

    @property
    def local_ratio(self) -> Array:
        """c of the cut, shape (M, N); 0 where there is no service."""
        return self._share(self.setting.local_cycles, self.setting.task_cycles)

    @property
    def feature_ratio(self) -> Array:
        """d of the cut, shape (M, N)."""
        return self._share(self.setting.transmission_bits, self.setting.input_bits)

    @property
    def edge_ratio(self) -> Array:
        """1 - c of the cut, shape (M, N)."""
        return self._share(self.setting.edge_cycles, self.setting.task_cycles)

    def _share(self, table: Array, whole: Array) -> Array:
        at_cut = np.take_along_axis(table, self.cuts[..., None], axis=2)[..., 0]
        return np.asarray(np.where(self.setting.active, at_cut / np.where(whole > 0, whole, 1.0), 0.0))
