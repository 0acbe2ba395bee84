"""Best-static's search, by simulation: tries cuts on seeds that no reported run uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splitinfer.scheduling.best_static import BestStaticCut, Trial
from splitinfer.scheduling.fixed import FixedCut
from splitinfer.scheduling.policy import Cuts
from splitinfer.scheduling.rules import PriceOfTime
from splitinfer.simulation.build import setting_of
from splitinfer.simulation.result import SimulationResult
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.simulate import simulate_batch

SEARCH_SEED = 2**31 - 1
"""Seed of the trials; runs that are reported use small seeds, so nothing is chosen on what it is judged by."""


def find_best_static(scenario: Scenario, policy: BestStaticCut | None = None) -> BestStaticCut:
    """Search the best fixed cuts of a scenario and return the policy that holds them.

    Args:
        scenario: the world; a latency target in it is left aside during the search.
        policy: settings of the search; by default the cuts of least energy, and under the price of time those of least
            energy + w x latency.
    """
    policy = best_static_of(scenario) if policy is None else policy
    plain = scenario.replace(p95_latency_s=None) if scenario.p95_latency_s is not None else scenario
    setting = setting_of(plain)
    scale = np.array([1 / setting.queue_scale_cycles, 1 / setting.queue_scale_bits, 1 / setting.queue_scale_cycles])
    weights = np.asarray(setting.queue_weights) * scale

    def evaluate(cuts: Cuts, slots: int) -> Trial:
        runs = simulate_batch(plain, [FixedCut(own) for own in cuts], seeds=[SEARCH_SEED] * len(cuts), slots=slots)
        devices = len(setting.active)
        steady = np.array([run.stability.p_value >= run.stability.level / (2 * devices + 1) for run in runs])
        growth = np.array([run.stability.growth_per_s for run in runs])
        local, link, edge = growth[:, :devices], growth[:, devices : 2 * devices], growth[:, -1:]
        full_rate = np.array([run.utilisation.max_rate_bps for run in runs])
        energy_j = np.array([run.device_energy_local_j + run.device_energy_transmission_j for run in runs])
        waited_s = np.array([[_latency_s(run, m).sum() for m in range(devices)] for run in runs])
        return Trial(
            energy_j=energy_j,
            cost_j=energy_j + setting.latency_price_w * waited_s / slots,
            scaled_queue=np.array([np.einsum("s,smn->m", weights, run.mean_queue) for run in runs]),
            # What the edge lacks, it lacks for all devices.
            stable=steady[:, :devices] & steady[:, devices : 2 * devices] & steady[:, -1:],
            latency_s=np.array([[_mean_latency_s(run, m) for m in range(devices)] for run in runs]),
            growth_s=local / setting.max_local_frequency_hz + link / full_rate + edge / setting.max_edge_frequency_hz,
        )

    policy.prepare(setting, evaluate)
    return policy


def best_static_of(scenario: Scenario) -> BestStaticCut:
    """Return Best-static, not searched yet, with the objective that goes with a scenario's allocation."""
    return BestStaticCut(objective="cost" if scenario.allocation == PriceOfTime.name else "energy")


def _mean_latency_s(run: SimulationResult, device: int) -> float:
    own = _latency_s(run, device)
    return float(own.mean()) if len(own) else 0.0


def _latency_s(run: SimulationResult, device: int) -> NDArray[np.float64]:
    return np.asarray(run.latency_s[run.tasks.device == device])
