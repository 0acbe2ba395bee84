"""What a partition policy observes each partition period; what stays the same over a run is its ``Setting``.

The simulator and the live runtime both fill these in, so a policy cannot tell which of the two it steers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitinfer.scheduling.setting import Setting

__all__ = ["Observation", "Setting"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Observation:
    """The state (25) at the start of a partition period: means over the period before it.

    Before the first period everything is zero, and the cuts are those of a fully local device.

    Attributes:
        cuts: the cut in force until now, shape (M, N).
        local_queue_cycles: Q^l, shape (M, N).
        transmission_queue_bits: Q^t, shape (M, N).
        edge_queue_cycles: Q^e, shape (M, N).
        local_frequency_hz: f^l, shape (M, N).
        rate_bps: r, shape (M, N).
        edge_frequency_hz: f^e, shape (M, N).
        local_ratio: c of the cut, shape (M, N).
        feature_ratio: d of the cut, shape (M, N).
        edge_ratio: 1 - c of the cut, shape (M, N).
        power_w: p, shape (M,).
        max_rate_bps: R at full power, shape (M,): what the channel would carry. (R at the power that was spent
            is the sum of r, which the state has already.)
    """

    cuts: NDArray[np.int64]
    local_queue_cycles: Array
    transmission_queue_bits: Array
    edge_queue_cycles: Array
    local_frequency_hz: Array
    rate_bps: Array
    edge_frequency_hz: Array
    local_ratio: Array
    feature_ratio: Array
    edge_ratio: Array
    power_w: Array
    max_rate_bps: Array

    @classmethod
    def first(cls, setting: Setting) -> Observation:
        """Return what a policy sees before the first period."""
        nothing = np.zeros(setting.active.shape)
        idle = np.zeros(len(setting.active))
        return cls(
            cuts=setting.num_cuts,
            local_queue_cycles=nothing,
            transmission_queue_bits=nothing,
            edge_queue_cycles=nothing,
            local_frequency_hz=nothing,
            rate_bps=nothing,
            edge_frequency_hz=nothing,
            local_ratio=np.where(setting.active, 1.0, 0.0),
            feature_ratio=nothing,
            edge_ratio=nothing,
            power_w=idle,
            max_rate_bps=idle,
        )

    @classmethod
    def of_period(
        cls,
        setting: Setting,
        *,
        cuts: NDArray[np.int64],
        mean_backlog: Array,
        mean_service_rate: Array,
        mean_power_w: Array,
        mean_max_rate_bps: Array,
    ) -> Observation:
        """Return what a policy sees after a period, from the period's means.

        Args:
            setting: of the run.
            cuts: in force in the period, shape (M, N).
            mean_backlog: Q^l, Q^t, Q^e, shape (3, M, N).
            mean_service_rate: f^l, r, f^e, shape (3, M, N).
            mean_power_w: p, shape (M,).
            mean_max_rate_bps: R at full power, shape (M,).
        """
        at = cuts[..., None]
        work = np.where(setting.task_cycles > 0, setting.task_cycles, 1.0)
        size = np.where(setting.input_bits > 0, setting.input_bits, 1.0)
        return cls(
            cuts=cuts,
            local_queue_cycles=mean_backlog[0],
            transmission_queue_bits=mean_backlog[1],
            edge_queue_cycles=mean_backlog[2],
            local_frequency_hz=mean_service_rate[0],
            rate_bps=mean_service_rate[1],
            edge_frequency_hz=mean_service_rate[2],
            local_ratio=np.take_along_axis(setting.local_cycles, at, axis=2)[..., 0] / work,
            feature_ratio=np.take_along_axis(setting.transmission_bits, at, axis=2)[..., 0] / size,
            edge_ratio=np.take_along_axis(setting.edge_cycles, at, axis=2)[..., 0] / work,
            power_w=mean_power_w,
            max_rate_bps=mean_max_rate_bps,
        )
