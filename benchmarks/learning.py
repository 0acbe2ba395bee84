"""Training: environments that step together against one by one, the speed of training, and what it is worth.

Ratios:

- ``together_over_single``: periods per second of 32 environments in one engine call over one Gymnasium environment.
- ``training_over_5_minutes``: slots per second of training over the 16,667 that 5 million slots in 5 minutes need.
- ``energy_over_best_static``, ``latency_over_best_static``: of the policy that this short training left, on seeds that
  neither training nor search has seen; below 1 is better than the best fixed cuts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TARGET_SLOTS_PER_S = 5_000_000 / 300
ENVIRONMENTS = 32
PERIODS = 300


def _together(scenario: Any) -> float:
    from splitinfer.learning.actions import CutActions
    from splitinfer.learning.vector import PeriodVecEnv

    many = PeriodVecEnv([scenario] * ENVIRONMENTS, CutActions)
    many.reset()
    actions = np.random.default_rng(0).integers(0, many.action_space.nvec, size=(ENVIRONMENTS, 8))
    many.step(actions)  # compiles
    started = time.perf_counter()
    for _ in range(PERIODS):
        many.step(actions)
    return ENVIRONMENTS * PERIODS / (time.perf_counter() - started)


def _single(scenario: Any) -> float:
    from splitinfer.learning.environments import PartitionEnv

    environment = PartitionEnv(scenario, periods_per_episode=PERIODS + 1)
    environment.reset(seed=0)
    action = environment.action_space.sample()
    environment.step(action)
    started = time.perf_counter()
    for _ in range(PERIODS):
        environment.step(action)
    return PERIODS / (time.perf_counter() - started)


def measure(slots: int = 320_000) -> dict[str, Any]:
    """Run both sides and return the record."""
    import torch

    from splitinfer.learning import TrainingSettings, load_policy
    from splitinfer.learning.training import train
    from splitinfer.scheduling import BestStaticCut
    from splitinfer.simulation import Scenario, simulate_batch

    torch.set_num_threads(1)
    scenario = Scenario.preset("busy")
    together, single = _together(scenario), _single(scenario)
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingSettings.for_algorithm(slots=slots)
        folder = train(scenario, settings, Path(scratch) / "run")
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        policies = [load_policy(folder), BestStaticCut()]
        runs = [simulate_batch(scenario, [policy] * 3, seeds=[0, 1, 2]) for policy in policies]
    energy = [np.mean([run.energy_j for run in own]) for own in runs]
    latency = [np.mean([run.latency_s.mean() for run in own]) for own in runs]
    slots_per_s = record["slots_done"] / record["training_seconds"]
    return {
        "name": "learning",
        "scenario": scenario.name,
        "periods_per_s": {"together": together, "single": single},
        "training_slots_per_s": slots_per_s,
        "ratios": {
            "together_over_single": together / single,
            "training_over_5_minutes": slots_per_s / TARGET_SLOTS_PER_S,
            "energy_over_best_static": float(energy[0] / energy[1]),
            "latency_over_best_static": float(latency[0] / latency[1]),
        },
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    record = measure()
    if arguments.json:
        print(json.dumps(record))
        return 0
    periods = record["periods_per_s"]
    print(f"periods/s   {periods['together']:,.0f} together, {periods['single']:,.0f} single")
    print(f"training    {record['training_slots_per_s']:,.0f} slots/s (the best of trials included)")
    for name, ratio in record["ratios"].items():
        print(f"{name:<26} {ratio:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
