"""Myopic: each period and for each service, the cut of least expected drift plus penalty. Needs no training.

Derivation. Let T be the time that a station (a device's processor, its link, the edge's processor) needs to drain its
backlog under the exact allocation of a slot, and E the energy that this takes. Take ``L = 1/2 (T_l^2 + T_t^2 + T_e^2)``
as the Lyapunov function: squared seconds, so that cycles and bits can be added. One task that comes with cut k brings
work x_k to each station and changes drift plus penalty by ::

    sum over the stations of  1/2 T(W + x_k)^2 - 1/2 T(W)^2  +  V [ E(W + x_k) - E(W) ]

with W the backlog of the station, all services together: a station serves whatever is queued, so what a new task waits
for is the sum. Arrivals multiply every cut's value by the same rate, so the least value per task is the least value per
period. Under load T(W + x) - T(W) tends to x over capacity, so the rule becomes that of least backlog times work, which
keeps the queues bounded where the capacity allows it (max-weight); with little backlog the energy decides.

T and E are those of :mod:`splitinfer.scheduling.draining`. The link's rate has no short integral; it is taken at the
backlog that the task finds on average, ``W + x/2``. The edge serves at F^e and costs the device nothing.

W holds what is queued and what is on its way: bits and edge cycles of tasks that are still in the local queue, and edge
cycles of those in the transmission queue, at the ratio of the cut in force.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splitinfer.scheduling.draining import link_added_j, link_rate_bps, local_added_j, local_drain_s
from splitinfer.scheduling.observation import Observation, Setting
from splitinfer.scheduling.policy import Cuts, pareto_cuts

Array = NDArray[np.float64]


class MyopicCut:
    """Myopic drift-plus-penalty over the Pareto cuts of each service.

    Args:
        energy_weight_s2_per_j: V, squared seconds of delay that one joule is worth. More saves energy at the price of
            delay; queues stay bounded at any value, but settle at up to V joules over the seconds that a cut saves.
        smoothing: share of the newest period in the running mean of the channel, in (0, 1].
    """

    name = "myopic"

    def __init__(self, *, energy_weight_s2_per_j: float = 1.0, smoothing: float = 0.1) -> None:
        self._v = energy_weight_s2_per_j
        self._smoothing = smoothing

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        self._setting = setting
        self._max_rate: Array | None = None
        # Only the Pareto cuts, padded with the last one (K), so that the arrays stay small.
        devices, services = setting.active.shape
        choices = [[_choices(setting, device, service) for service in range(services)] for device in range(devices)]
        width = max(len(cuts) for device in choices for cuts in device)
        self._choice = np.array(
            [[np.pad(cuts, (0, width - len(cuts)), mode="edge") for cuts in device] for device in choices]
        )
        pick = self._choice
        self._local = np.take_along_axis(setting.local_cycles, pick, axis=2)
        self._bits = np.take_along_axis(setting.transmission_bits, pick, axis=2)
        self._edge = np.take_along_axis(setting.edge_cycles, pick, axis=2)

    def cuts(self, observation: Observation) -> Cuts:
        setting = self._setting
        local, link, edge = self._backlogs(observation)
        rate = self._mean_max_rate(observation)
        value = self._local_value(local[:, None, None], self._local)
        value += self._link_value(link[:, None, None], self._bits, rate[:, None, None])
        value += _half_square_rise(edge / setting.max_edge_frequency_hz, self._edge / setting.max_edge_frequency_hz)
        best = np.argmin(value, axis=2)[..., None]
        return np.where(setting.active, np.take_along_axis(self._choice, best, axis=2)[..., 0], 0)

    def _backlogs(self, observation: Observation) -> tuple[Array, Array, float]:
        """Work queued or on its way: per device locally and on its link, shape (M,), and at the edge."""
        setting = self._setting
        at = observation.cuts[..., None]
        cycles = np.take_along_axis(setting.local_cycles, at, axis=2)[..., 0]
        bits = np.take_along_axis(setting.transmission_bits, at, axis=2)[..., 0]
        edge_cycles = np.take_along_axis(setting.edge_cycles, at, axis=2)[..., 0]
        in_local = _ratio(observation.local_queue_cycles, cycles)
        link = observation.transmission_queue_bits + in_local * bits
        edge = observation.edge_queue_cycles + _ratio(link, bits) * edge_cycles
        return (
            np.where(setting.active, observation.local_queue_cycles, 0).sum(axis=1),
            np.where(setting.active, link, 0).sum(axis=1),
            float(np.where(setting.active, edge, 0).sum()),
        )

    def _mean_max_rate(self, observation: Observation) -> Array:
        seen = observation.max_rate_bps
        if self._max_rate is None:
            if not seen.any():
                # Before the first period nothing is known of the channel: 8 bit/s per Hz is a fair link.
                return np.full(seen.shape, 8 * self._setting.device_bandwidth_hz)
            self._max_rate = seen.copy()
        self._max_rate += self._smoothing * (seen - self._max_rate)
        return np.asarray(self._max_rate)

    def _local_value(self, backlog: Array, work: Array) -> Array:
        setting = self._setting
        station = {
            "max_frequency_hz": setting.max_local_frequency_hz[:, None, None],
            "energy_coefficient": setting.energy_coefficient[:, None, None],
            "energy_weight": setting.local_energy_weight[:, None, None],
        }
        slot_s = np.asarray(setting.slot_s)
        before = local_drain_s(backlog, **station)
        rise = local_drain_s(backlog + work, **station) - before
        more_j = local_added_j(backlog, work, slot_s=slot_s, **station)
        return _half_square_rise(before, rise) + self._v * more_j

    def _link_value(self, backlog: Array, work: Array, max_rate: Array) -> Array:
        setting = self._setting
        # The steady channel that carries the mean rate at full power.
        link = {
            "full_rate_bps": max_rate,
            "bandwidth_hz": np.asarray(setting.device_bandwidth_hz),
            "max_power_w": setting.max_power_w[:, None, None],
        }
        weight = setting.transmission_energy_weight[:, None, None]
        rate = link_rate_bps(backlog + work / 2, energy_weight=weight, **link)
        slot_s = np.asarray(setting.slot_s)
        more_j = link_added_j(backlog, work, rate_bps=rate, slot_s=slot_s, **link)
        return np.asarray(_half_square_rise(backlog / rate, work / rate) + self._v * more_j)


def _half_square_rise(before: Array | float, rise: Array) -> Array:
    """1/2 (T + x)^2 - 1/2 T^2."""
    return np.asarray(rise * (before + rise / 2))


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _choices(setting: Setting, device: int, service: int) -> NDArray[np.int64]:
    highest = int(setting.num_cuts[device, service])
    return pareto_cuts(
        setting.local_cycles[device, service, : highest + 1], setting.transmission_bits[device, service, : highest + 1]
    )
