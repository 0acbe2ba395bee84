"""Energy at equal latency: the price of time against the shipped LyaPPO under drift-plus-penalty.

The other side runs once per pair of energy weights. Ours runs over prices w, and its energy is interpolated (in the
logarithms) to where its mean latency, and then its 95th percentile, equals the other's. Both sides meet the same
arrivals and gains, on five seeds that neither training nor search has used.

On ``xr`` both sides are also compared with the preset's own fixed cuts, since the shipped policy is far from the best
there. A ratio below 1 is energy saved; "none" means that no price within the range reaches that latency.

Run: ``python -m benchmarks.price [--json] [--scenario NAME] [--slots N]``
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from splitinfer.policies import named_policy
from splitinfer.scheduling import FixedCut, Policy, PriceCut
from splitinfer.simulation import Scenario
from splitinfer.simulation.simulate import simulate_batch

SEEDS = (101, 102, 103, 104, 105)


@dataclass(frozen=True)
class Point:
    """One side at one setting: energy per device and slot, latency over all tasks of all seeds."""

    setting: str
    energy_j: float
    mean_s: float
    p95_s: float
    p99_s: float
    stable: bool


@dataclass(frozen=True)
class Case:
    """One preset, and what the other side is."""

    preset: str
    slots: int
    weights: tuple[tuple[float, float], ...]
    prices_w: tuple[float, ...]
    cuts: str  # "policies": lyappo against price; "fixed": the preset's cuts on both sides
    order: str
    goal_mean: float
    goal_p95: float


LOW = (0.003, 0.006, 0.01, 0.02)
CASES = (
    Case(
        "table2", 100_000, ((1e18, 1e13),), (0.003, 0.006, 0.01, 0.02, 0.03, 0.05), "policies", "shortest", 0.25, 0.45
    ),
    Case(
        "busy",
        60_000,
        ((1e18, 1e13), (3e18, 3e13)),
        (0.003, 0.006, 0.01, 0.02, 0.04, 0.06),
        "policies",
        "shortest",
        0.5,
        0.85,
    ),
    Case("xr", 24_000, ((1e9, 1e6),), (0.03, 0.1, 0.3, 1.0, 3.0), "policies", "shortest", 0.8, 0.8),
    Case("xr", 24_000, ((1e9, 1e6),), (0.1, 0.3, 0.6, 1.0, 3.0), "fixed", "oldest", 0.8, 0.8),
    Case("xr", 24_000, ((1e9, 1e6),), (0.1, 0.3, 0.6, 1.0, 3.0), "fixed", "shortest", 0.8, 0.8),
    Case("drifting", 96_000, ((1e9, 1e6),), (0.03, 0.1, 0.2, 0.4, 0.8), "policies", "shortest", 0.9, 0.9),
)


def measure(scenario: Scenario, policy: Policy, slots: int, setting: str) -> Point:
    """Run on all seeds."""
    runs = simulate_batch(scenario, [policy] * len(SEEDS), seeds=SEEDS, slots=slots)
    latency = np.concatenate([run.latency_s for run in runs])
    return Point(
        setting,
        float(np.mean([run.energy_j for run in runs])),
        float(latency.mean()),
        *np.percentile(latency, (95, 99)).tolist(),
        all(run.stability.stable for run in runs),
    )


def energy_at(points: list[Point], latency: Callable[[Point], float], wanted_s: float) -> float | None:
    """Energy where the latency is what is wanted, between prices on logarithmic scales; stable ones only."""
    ordered = sorted((point for point in points if point.stable), key=latency)
    times = np.array([latency(point) for point in ordered])
    energies = np.array([point.energy_j for point in ordered])
    if wanted_s < times[0]:
        return None
    if wanted_s >= times[-1]:
        return float(energies.min())
    return float(np.exp(np.interp(np.log(wanted_s), np.log(times), np.log(energies))))


def run_case(case: Case, slots: int | None) -> dict[str, object]:
    """Both sides of one case."""
    base = Scenario.preset(case.preset)
    length = case.slots if slots is None else slots
    fixed = FixedCut(base.cut_array(base.fixed_cuts))
    ours = []
    for price in case.prices_w:
        world = base.replace(allocation="price", latency_price_w=price, service_order=case.order)
        ours.append(measure(world, fixed if case.cuts == "fixed" else PriceCut(), length, f"w {price:g}"))
    rows = []
    for local, sent in case.weights:
        world = base.replace(local_energy_weight=local, transmission_energy_weight=sent)
        theirs = measure(
            world, fixed if case.cuts == "fixed" else named_policy("lyappo", world), length, f"U {local:.0e}"
        )
        at_mean = energy_at(ours, lambda point: point.mean_s, theirs.mean_s)
        at_p95 = energy_at(ours, lambda point: point.p95_s, theirs.p95_s)
        rows.append(
            {
                "other": vars(theirs),
                "ratio_at_mean": None if at_mean is None else at_mean / theirs.energy_j,
                "ratio_at_p95": None if at_p95 is None else at_p95 / theirs.energy_j,
            }
        )
    return {
        "preset": case.preset,
        "cuts": case.cuts,
        "order": case.order,
        "goal_mean": case.goal_mean,
        "goal_p95": case.goal_p95,
        "prices": [vars(point) for point in ours],
        "against": rows,
    }


def main(argv: list[str] | None = None) -> int:
    """Print every case."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.price", description=__doc__)
    parser.add_argument("--scenario", choices=sorted({case.preset for case in CASES}))
    parser.add_argument("--slots", type=int, help="length of every run, instead of each preset's")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    chosen = [case for case in CASES if options.scenario in (None, case.preset)]
    results = [run_case(case, options.slots) for case in chosen]
    if options.json:
        ratios = {
            f"{one['preset']} {one['cuts']} {one['order']} {row['other']['setting']} at equal {what}": row[
                f"ratio_at_{what}"
            ]
            for one in results
            for row in one["against"]  # type: ignore[attr-defined]
            for what in ("mean", "p95")
        }
        print(json.dumps({"ratios": ratios, "cases": results}))
        return 0
    for one in results:
        print(f"{one['preset']}, {one['cuts']}, {one['order']} first")
        points = [*(row["other"] for row in one["against"]), *one["prices"]]  # type: ignore[attr-defined, misc]
        for point in points:
            print(
                f"  {point['setting']:<10} {point['energy_j'] * 1e3:9.4f} mJ  mean {point['mean_s'] * 1e3:6.0f} ms  "
                f"p95 {point['p95_s'] * 1e3:6.0f} ms  {'stable' if point['stable'] else 'UNSTABLE'}"
            )
        for row in one["against"]:  # type: ignore[attr-defined]
            mean, p95 = ("none" if row[key] is None else f"{row[key]:.2f}" for key in ("ratio_at_mean", "ratio_at_p95"))
            print(
                f"  against {row['other']['setting']}: {mean} of its energy at equal mean (goal {one['goal_mean']}), "
                f"{p95} at equal p95 (goal {one['goal_p95']})"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
