"""Several policies on the same seeds, as means with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from splitinfer.scheduling.policy import Policy
from splitinfer.simulation.result import SimulationResult
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.simulate import simulate_batch


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and the half width of its confidence interval (nan where there is none to earn)."""

    mean: float
    half_width: float


@dataclass(frozen=True, eq=False)
class PolicySummary:
    """One policy over several seeds.

    Attributes:
        policy: its name.
        energy_j: energy per device and slot.
        energy_local_j, energy_transmission_j: its parts.
        energy_per_task_j: energy per finished request.
        latency_mean_s, latency_p95_s: of all requests that were finished.
        arrived, finished: requests, all seeds together.
        stable_runs: number of seeds at which no queue grew.
        depends_on_seed: False where every seed gave the same run, as with recorded arrivals and channels: that is one
            run, and there are no intervals.
        runs: the runs themselves, one per seed.
    """

    policy: str
    energy_j: Estimate
    energy_local_j: Estimate
    energy_transmission_j: Estimate
    energy_per_task_j: Estimate
    latency_mean_s: Estimate
    latency_p95_s: Estimate
    arrived: int
    finished: int
    stable_runs: int
    depends_on_seed: bool
    runs: tuple[SimulationResult, ...]

    @property
    def stable_share(self) -> str:
        """How many of the runs were stable, ``5/5``; ``-`` where they were too short to tell."""
        is_known = all(run.stability.is_known for run in self.runs)
        return f"{self.stable_runs}/{len(self.runs)}" if is_known else "-"

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready numbers."""
        names = ("energy_j", "energy_local_j", "energy_transmission_j", "energy_per_task_j")
        record: dict[str, Any] = {"policy": self.policy, "seeds": [run.seed for run in self.runs]}
        for name in (*names, "latency_mean_s", "latency_p95_s"):
            estimate: Estimate = getattr(self, name)
            values = (estimate.mean, estimate.half_width)
            record[name], record[f"{name}_half_width"] = (v if np.isfinite(v) else None for v in values)
        counts = {"arrived": self.arrived, "finished": self.finished, "stable_runs": self.stable_runs}
        return record | counts | {"depends_on_seed": self.depends_on_seed}


def summarise(runs: Sequence[SimulationResult], *, confidence: float = 0.95) -> PolicySummary:
    """Summarise one policy's runs on several seeds; intervals are Student's t."""

    same = len(runs) > 1 and all(
        run.energy_j == runs[0].energy_j and np.array_equal(run.latency_s, runs[0].latency_s) for run in runs[1:]
    )

    def over(values: Sequence[float]) -> Estimate:
        return estimate(values[:1] if same else values, confidence=confidence)

    return PolicySummary(
        policy=runs[0].policy,
        energy_j=over([run.energy_j for run in runs]),
        energy_local_j=over([run.energy_local_j for run in runs]),
        energy_transmission_j=over([run.energy_transmission_j for run in runs]),
        energy_per_task_j=over([run.energy_per_task_j for run in runs]),
        latency_mean_s=over([float(run.latency_s.mean()) if run.finished else float("nan") for run in runs]),
        latency_p95_s=over([run.latency_percentile_s(95) for run in runs]),
        arrived=sum(run.arrived for run in runs),
        finished=sum(run.finished for run in runs),
        stable_runs=sum(run.stability.stable for run in runs),
        depends_on_seed=not same,
        runs=tuple(runs),
    )


def compare(
    scenario: Scenario, policies: Sequence[Policy], *, seeds: Sequence[int], slots: int = 20_000
) -> list[PolicySummary]:
    """Run every policy on every seed; at one seed all policies meet the same arrivals and gains.

    Args:
        scenario: the world.
        policies: each with a name of its own in ``name``.
        seeds: of the runs; intervals need two or more.
        slots: length of each run.

    Returns:
        One summary per policy, in their order: energies in joules per device and slot, latencies in seconds.

    Raises:
        InputError: a policy does not fit the scenario.
    """
    return [summarise(simulate_batch(scenario, [policy] * len(seeds), seeds=seeds, slots=slots)) for policy in policies]


def estimate(values: Sequence[float], *, confidence: float = 0.95) -> Estimate:
    """Return the mean and the half width of its t-interval."""
    from scipy.special import stdtrit

    count = len(values)
    mean = float(np.mean(values))
    if count < 2:
        return Estimate(mean, float("nan"))
    quantile = float(stdtrit(count - 1, (1 + confidence) / 2))
    return Estimate(mean, quantile * float(np.std(values, ddof=1)) / np.sqrt(count))
