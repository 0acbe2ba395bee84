"""What a price that grows with waiting brings: energy at equal mean, 95th and 99th percentile of the latency.

One side is the price of time with a constant w, over several w and the better of both orders of service at each; the
other pays w once more for every T seconds that the oldest task of a station has waited (``price_growth_s``), oldest
first. Both meet the same arrivals and gains, on five seeds. A ratio below 1 is energy saved by the growth; "none" means
that one side does not reach that latency.

Run: ``python -m benchmarks.price_growth [--json] [--worlds "NAME; ..."] [--slots N]``
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.price import Point, measure
from splitinfer.scheduling import FixedCut, PriceCut
from splitinfer.simulation import Scenario


@dataclass(frozen=True)
class World:
    """A preset and what is varied in it."""

    preset: str
    slots: int
    prices_w: tuple[float, ...]
    growth_s: tuple[float, ...]
    cuts: tuple[int, ...] | None  # None: the cut rule `price`


WORLDS = {
    "busy, large model at the edge": World("busy", 30_000, (0.004, 0.008, 0.016, 0.032, 0.064), (0.3, 1.0), (0, 53)),
    "busy": World("busy", 30_000, (0.003, 0.01, 0.03, 0.1), (0.3, 1.0), None),
    "table2": World("table2", 60_000, (0.003, 0.01, 0.03, 0.1), (0.3,), None),
    "xr, its fixed cuts": World("xr", 12_000, (0.1, 0.3, 1.0, 3.0), (0.05,), ()),
    "drifting": World("drifting", 48_000, (0.03, 0.1, 0.3, 1.0), (0.3,), None),
}
LATENCIES: dict[str, Callable[[Point], float]] = {
    "mean": lambda point: point.mean_s,
    "p95": lambda point: point.p95_s,
    "p99": lambda point: point.p99_s,
}


def energy_at(points: list[Point], latency: Callable[[Point], float], wanted_s: float) -> float:
    """Energy at a latency, between prices on logarithmic scales; infinite outside of what was swept or unstable."""
    ordered = sorted((point for point in points if point.stable), key=latency)
    times, energies = [latency(point) for point in ordered], [point.energy_j for point in ordered]
    if not times or not times[0] <= wanted_s <= times[-1]:
        return float("inf")
    return float(np.exp(np.interp(np.log(wanted_s), np.log(times), np.log(energies))))


def run_world(world: World, slots: int | None) -> dict[str, Any]:
    """Sweep both sides; a ratio per growth time, kind of latency and price within the swept range."""
    base = Scenario.preset(world.preset).replace(allocation="price")
    cuts = base.fixed_cuts if world.cuts == () else world.cuts
    length = world.slots if slots is None else slots

    def sweep(prices_w: list[float], **changes: Any) -> list[Point]:
        policy = PriceCut() if cuts is None else FixedCut(base.cut_array(cuts))
        return [measure(base.replace(latency_price_w=w, **changes), policy, length, f"w {w:.3g}") for w in prices_w]

    plain = {order: sweep(list(world.prices_w), service_order=order) for order in ("oldest", "shortest")}
    ratios, grown = {}, {}
    for growth_s in world.growth_s:
        # So much less w as it grows by in a task's life: both sides then come to about the same latencies.
        less = [w / (1 + one.mean_s / growth_s) for w, one in zip(world.prices_w, plain["oldest"], strict=True)]
        points = grown[growth_s] = sweep(less, service_order="oldest", price_growth_s=growth_s)
        for what, latency in LATENCIES.items():
            for at in map(latency, points):
                theirs = min(energy_at(side, latency, at) for side in plain.values())
                if np.isfinite(theirs) and np.isfinite(ours := energy_at(points, latency, at)):
                    ratios[f"T {growth_s:g} s, equal {what} {at * 1e3:.0f} ms"] = ours / theirs
    return {
        "constant": {order: [vars(point) for point in side] for order, side in plain.items()},
        "growing": {growth_s: [vars(point) for point in side] for growth_s, side in grown.items()},
        "ratios": ratios,
    }


def main(argv: list[str] | None = None) -> int:
    """Print every world."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.price_growth", description=__doc__)
    parser.add_argument("--worlds", default=";".join(WORLDS), help="separated by semicolons")
    parser.add_argument("--slots", type=int, help="length of every run, instead of each world's")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    names = [name.strip() for name in options.worlds.split(";") if name.strip()]
    if unknown := [name for name in names if name not in WORLDS]:
        parser.error(f"--worlds: there are {'; '.join(WORLDS)}, not {unknown[0]!r}")
    results = {}
    for name in names:
        one = results[name] = run_world(WORLDS[name], options.slots)
        if options.json:
            continue
        print(name)
        for title, side in [*one["constant"].items(), *((f"T {t:g} s", side) for t, side in one["growing"].items())]:
            for point in side:
                print(
                    f"  {title:<8} {point['setting']:<11} {point['energy_j'] * 1e3:9.4f} mJ  mean "
                    f"{point['mean_s'] * 1e3:6.0f}  p95 {point['p95_s'] * 1e3:6.0f}  p99 {point['p99_s'] * 1e3:6.0f} ms"
                    f"  {'stable' if point['stable'] else 'UNSTABLE'}"
                )
        for what, ratio in one["ratios"].items():
            print(f"  {what}: {ratio:.3f}", flush=True)
    if options.json:
        ratios = {f"{name}: {what}": ratio for name, one in results.items() for what, ratio in one["ratios"].items()}
        print(json.dumps({"name": "price_growth", "worlds": results, "ratios": ratios}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
