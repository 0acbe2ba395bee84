"""What energy costs in delay: a sweep of the energy weights U^l and U^t."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from splitinfer.scheduling.policy import Policy
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.simulate import simulate_batch


@dataclass(frozen=True)
class ParetoPoint:
    """One pair of weights.

    Attributes:
        local_energy_weight: U^l.
        transmission_energy_weight: U^t.
        energy_j: energy per device and slot.
        latency_mean_s: mean latency of finished requests.
        latency_p95_s: its 95th percentile.
        stable: whether no queue grew and no more than 5 % of the requests were under way at the end; else the run says
            nothing about the 95th percentile.
        efficient: whether no other stable point has both less energy and a lower 95th percentile.
        scenario_weights: whether these are the scenario's own weights.
    """

    local_energy_weight: float
    transmission_energy_weight: float
    energy_j: float
    latency_mean_s: float
    latency_p95_s: float
    stable: bool
    efficient: bool = False
    scenario_weights: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready numbers."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def sweep_weights(
    scenario: Scenario,
    policy: Policy,
    *,
    local_weights: Sequence[float],
    transmission_weights: Sequence[float],
    slots: int = 20_000,
    seed: int = 0,
) -> list[ParetoPoint]:
    """Simulate every pair of weights, and the scenario's own, on the same arrivals and gains.

    Returns:
        The points, the scenario's own first.
    """
    own = (scenario.local_energy_weight, scenario.transmission_energy_weight)
    pairs = [own, *((local, sent) for local in local_weights for sent in transmission_weights if (local, sent) != own)]
    plain = scenario.replace(p95_latency_s=None)
    count = len(pairs)
    runs = simulate_batch(plain, [policy] * count, seeds=[seed] * count, slots=slots, energy_weights=pairs)
    energy = np.array([run.energy_j for run in runs])
    p95 = np.array([run.latency_percentile_s(95) for run in runs])
    stable = np.array([run.stability.stable and run.in_flight <= 0.05 * run.arrived for run in runs])
    return [
        ParetoPoint(
            local_energy_weight=local,
            transmission_energy_weight=sent,
            energy_j=float(energy[i]),
            latency_mean_s=float(runs[i].latency_s.mean()) if runs[i].finished else float("nan"),
            latency_p95_s=float(p95[i]),
            stable=bool(stable[i]),
            efficient=bool(stable[i] and not np.any(stable & (energy < energy[i]) & (p95 <= p95[i]))),
            scenario_weights=i == 0,
        )
        for i, (local, sent) in enumerate(pairs)
    ]
