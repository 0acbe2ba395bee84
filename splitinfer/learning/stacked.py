"""Several settings side by side, padded to the largest: what encoders and rewards read for E environments at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from splitinfer.scheduling.observation import Observation, Setting

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StackedSettings:
    """E settings as arrays with a leading axis E; M, N and K are those of the largest.

    Attributes:
        active: (E, M, N), which services exist.
        num_cuts: (E, M, N), K; 0 where there is no service.
        work: (E, 3, M, N, K + 1), cycles on the device, bits sent and cycles at the edge of a task per cut.
        arrival_rate_hz: (E, M, N), nominal.
        slot_s: (E,), tau.
        slots_per_period: G, the same in all of them.
        max_local_frequency_hz: (E, M), F^l; padded devices have 1, so that nothing divides by zero.
        max_power_w: (E, M), p_max, padded likewise.
        energy_coefficient: (E, M), delta.
        local_energy_weight: (E, M), U^l.
        transmission_energy_weight: (E, M), U^t.
        max_edge_frequency_hz: (E,), F^e.
        bandwidth_hz: (E,), b of each device.
        noise_w_per_hz: (E,), N0.
        queue_price: (E, 3), weight over scale of each queue in Qbar, per cycle or bit.
        energy_price: (E,), w1 of (34).
        backlog_price: (E,), w2 of (34).
    """

    active: NDArray[np.bool_]
    num_cuts: Ints
    work: Floats
    arrival_rate_hz: Floats
    slot_s: Floats
    slots_per_period: int
    max_local_frequency_hz: Floats
    max_power_w: Floats
    energy_coefficient: Floats
    local_energy_weight: Floats
    transmission_energy_weight: Floats
    max_edge_frequency_hz: Floats
    bandwidth_hz: Floats
    noise_w_per_hz: Floats
    queue_price: Floats
    energy_price: Floats
    backlog_price: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        """(E, M, N)."""
        environments, devices, services = self.active.shape
        return environments, devices, services

    def work_at(self, cuts: Ints) -> Floats:
        """Work of a task at each stage with the given cuts, shape (E, 3, M, N)."""
        return np.take_along_axis(self.work, cuts[:, None, :, :, None], axis=4)[..., 0]


def emphasised(settings: StackedSettings, energy_emphasis: float) -> StackedSettings:
    """Return the settings with w1 of (34) multiplied."""
    return replace(settings, energy_price=energy_emphasis * settings.energy_price)


def stack_settings(settings: Sequence[Setting]) -> StackedSettings:
    """Stack settings that share the number of slots per period."""
    count = len(settings)
    devices = max(setting.active.shape[0] for setting in settings)
    services = max(setting.active.shape[1] for setting in settings)
    cuts = max(setting.local_cycles.shape[2] for setting in settings)
    active = np.zeros((count, devices, services), np.bool_)
    num_cuts = np.zeros((count, devices, services), np.int64)
    work = np.zeros((count, 3, devices, services, cuts))
    rate = np.zeros((count, devices, services))
    per_device = {
        name: np.ones((count, devices))
        for name in (
            "max_local_frequency_hz",
            "max_power_w",
            "energy_coefficient",
            "local_energy_weight",
            "transmission_energy_weight",
        )
    }
    for row, setting in enumerate(settings):
        m, n, k = setting.local_cycles.shape
        active[row, :m, :n] = setting.active
        num_cuts[row, :m, :n] = np.where(setting.active, setting.num_cuts, 0)
        rate[row, :m, :n] = setting.arrival_rate_hz
        for stage, table in enumerate((setting.local_cycles, setting.transmission_bits, setting.edge_cycles)):
            work[row, stage, :m, :n, :k] = table
        for name, array in per_device.items():
            array[row, :m] = getattr(setting, name)
    scales = np.array([[s.queue_scale_cycles, s.queue_scale_bits, s.queue_scale_cycles] for s in settings])
    return StackedSettings(
        active=active,
        num_cuts=num_cuts,
        work=work,
        arrival_rate_hz=rate,
        slot_s=np.array([setting.slot_s for setting in settings]),
        slots_per_period=settings[0].slots_per_period,
        **per_device,
        max_edge_frequency_hz=np.array([setting.max_edge_frequency_hz for setting in settings]),
        bandwidth_hz=np.array([setting.device_bandwidth_hz for setting in settings]),
        noise_w_per_hz=np.array([setting.noise_w_per_hz for setting in settings]),
        queue_price=np.array([setting.queue_weights for setting in settings]) / scales,
        energy_price=np.array([setting.reward_energy_weight for setting in settings]),
        backlog_price=np.array([setting.reward_queue_weight for setting in settings]),
    )


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
        cuts=settings.num_cuts.copy(),
        backlog=np.zeros((environments, 3, devices, services)),
        service_rate=np.zeros((environments, 3, devices, services)),
        power_w=np.zeros((environments, devices)),
        max_rate_bps=np.zeros((environments, devices)),
    )
