"""Weights that adapt to a latency target against the best fixed weights that meet it, by simulation.

Both sides run the same scenario, cuts, arrivals and gains. The fixed side is searched: a grid over (U^l, U^t), then a
finer one around the best. A pair meets the target when no service of any device has a 95th percentile above what the
adaptive side's worst service has (or above the target, if that is more). All percentiles and energies are over the
whole run, settling included.

Run: ``python -m benchmarks.latency_target [--json] [--scenario NAME]``
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

import numpy as np

from splitinfer.scheduling import FixedCut
from splitinfer.simulation import Scenario, SimulationResult, simulate, simulate_batch


@dataclass(frozen=True)
class Case:
    """One preset: the target of every service, the length of the run and the energy weights to search from."""

    preset: str
    target_s: float
    slots: int


CASES = (
    Case("table2", 0.6, 200_000),
    Case("busy", 1.5, 60_000),
    Case("xr", 0.4, 24_000),
    Case("drifting", 4.0, 96_000),
)
COARSE = [(1e9, 1e6)] + [
    (float(local), float(sent)) for local in np.geomspace(1e16, 1e20, 5) for sent in np.geomspace(1e10, 1e14, 5)
]
FINE = [10.0**step for step in (-0.5, -0.25, 0.0, 0.25, 0.5)]


def percentiles_s(result: SimulationResult) -> np.ndarray:
    """95th percentile of each service of each device, shape (M, N); infinite where more than 5 % never finished."""
    devices, services = result.arrived_by_service.shape
    table = np.full((devices, services), np.inf)
    for device in range(devices):
        for service in range(services):
            finished = result.finished_by_service[device, service]
            if finished > 0.95 * result.arrived_by_service[device, service]:
                table[device, service] = np.percentile(result.service_latency_s(device, service), 95)
    return table


def best_fixed(scenario: Scenario, case: Case, worst: float) -> tuple[SimulationResult | None, tuple[float, float]]:
    """The pair of fixed weights of least energy whose worst service stays within ``worst`` seconds."""
    best: SimulationResult | None = None
    weights = (0.0, 0.0)
    pairs = COARSE
    for _ in range(2):
        runs = simulate_batch(
            scenario,
            [FixedCut(scenario.cut_array(scenario.fixed_cuts))] * len(pairs),
            seeds=[1] * len(pairs),
            slots=case.slots,
            energy_weights=pairs,
        )
        for pair, run in zip(pairs, runs, strict=True):
            if percentiles_s(run).max() <= worst and (best is None or run.energy_j < best.energy_j):
                best, weights = run, pair
        if best is None:
            break
        pairs = [(weights[0] * local, weights[1] * sent) for local in FINE for sent in FINE]
    return best, weights


def measure(case: Case) -> dict[str, float]:
    """Run both sides of one case."""
    started = time.perf_counter()
    scenario = Scenario.preset(case.preset)
    policy = FixedCut(scenario.cut_array(scenario.fixed_cuts))
    adaptive = simulate(scenario.replace(p95_latency_s=case.target_s), policy, case.slots, seed=1)
    ratios = percentiles_s(adaptive) / case.target_s
    fixed, weights = best_fixed(scenario, case, case.target_s * max(1.0, float(ratios.max())))
    plain = simulate(scenario, policy, case.slots, seed=1)
    return {
        "target_s": case.target_s,
        "p95_over_target_least": float(ratios.min()),
        "p95_over_target_most": float(ratios.max()),
        "adaptive_mj": adaptive.energy_j * 1e3,
        "best_fixed_mj": fixed.energy_j * 1e3 if fixed is not None else float("nan"),
        "best_fixed_local_weight": weights[0],
        "best_fixed_transmission_weight": weights[1],
        "best_fixed_p95_over_target_most": (
            float(percentiles_s(fixed).max()) / case.target_s if fixed is not None else float("nan")
        ),
        "scenario_weights_mj": plain.energy_j * 1e3,
        "seconds": time.perf_counter() - started,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure all presets and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--scenario", help="one preset instead of all")
    options = parser.parse_args(argv)
    cases = [case for case in CASES if options.scenario in (None, case.preset)]
    if not cases:
        parser.error(f"--scenario: there are {', '.join(case.preset for case in CASES)}")
    results = {}
    for case in cases:
        results[case.preset] = figures = measure(case)
        if not options.json:
            print(
                f"{case.preset:9s} target {case.target_s:.2f} s: p95 / target {figures['p95_over_target_least']:.2f} "
                f"to {figures['p95_over_target_most']:.2f} over its services; energy {figures['adaptive_mj']:.4f} mJ = "
                f"{figures['adaptive_mj'] / figures['best_fixed_mj']:.2f} of the best fixed weights' "
                f"{figures['best_fixed_mj']:.4f} ({figures['best_fixed_local_weight']:.1e}, "
                f"{figures['best_fixed_transmission_weight']:.1e}) and "
                f"{figures['adaptive_mj'] / figures['scenario_weights_mj']:.2f} of the scenario's  "
                f"[{figures['seconds']:.0f} s]",
                flush=True,
            )
    if options.json:
        ratios = {}
        for preset, figures in results.items():
            ratios[f"{preset}_p95_over_target"] = figures["p95_over_target_most"]
            if figures["best_fixed_mj"] == figures["best_fixed_mj"]:
                ratios[f"{preset}_energy_over_best_fixed"] = figures["adaptive_mj"] / figures["best_fixed_mj"]
        clean = {
            preset: {key: value if value == value else None for key, value in figures.items()}
            for preset, figures in results.items()
        }
        print(json.dumps({"name": "latency_target", "ratios": ratios, "cases": clean}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
