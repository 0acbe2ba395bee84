"""Cost of the exact slot allocation: how it grows with the number of services, and against CVXPY.

``--plot FILE`` draws the time of one solve against N up to 10^5 beside c·N·log2(N), fitted at one point.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable

import numpy as np

from splitinfer.scheduling import allocate_edge, allocate_local, allocate_transmission
from splitinfer.scheduling.reference import CvxpyAllocator

SIZES = (1, 2, 4, 10, 32, 100, 316, 1_000, 3_162, 10_000, 31_623, 100_000)
CVXPY_SIZES = (1, 2, 4, 10)

LOCAL = {"slot_s": 0.01, "energy_weight": 1e18, "energy_coefficient": 1e-28}
RADIO = {
    "slot_s": 0.01,
    "energy_weight": 1e9,
    "bandwidth_hz": 250e3,
    "noise_w_per_hz": 4e-21,
    "channel_gain": 1e-10,
    "max_power_w": 0.3,
}


def seconds_each(run: Callable[[], object], rows: int, least_s: float = 0.05) -> float:
    """Seconds of one of ``rows`` solves: the least of several runs."""
    run()
    best, spent = math.inf, 0.0
    while spent < least_s:
        start = time.perf_counter()
        run()
        elapsed = time.perf_counter() - start
        best, spent = min(best, elapsed), spent + elapsed
    return best / rows


def closed_form(services: int, rng: np.random.Generator) -> dict[str, float]:
    """Seconds of one solve of each problem, in a batch as the simulator and training have them.

    Limits grow with N, so that a constant share of the services is served: greedy sorting cannot stop early.
    """
    rows = max(1, 20_000 // services)
    cycles = 1e7 * rng.exponential(size=(rows, services))
    bits = 1e3 * rng.exponential(size=(rows, services))
    hz = 0.5e9 * services
    return {
        "local": seconds_each(lambda: allocate_local(cycles, **LOCAL, max_frequency_hz=hz), rows),
        "transmission": seconds_each(lambda: allocate_transmission(bits, **RADIO), rows),
        "edge": seconds_each(lambda: allocate_edge(cycles, slot_s=0.01, max_frequency_hz=hz), rows),
    }


def cvxpy(services: int, rng: np.random.Generator) -> dict[str, float]:
    solver = CvxpyAllocator()
    cycles, bits = 1e7 * rng.exponential(size=services), 1e3 * rng.exponential(size=services)
    hz = 0.5e9 * services
    return {
        "local": seconds_each(lambda: solver.allocate_local(cycles, **LOCAL, max_frequency_hz=hz), 1),
        "transmission": seconds_each(lambda: solver.allocate_transmission(bits, **RADIO), 1),
        "edge": seconds_each(lambda: solver.allocate_edge(cycles, slot_s=0.01, max_frequency_hz=hz), 1),
    }


def growth(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """Exponent a of the best fit seconds ~ (N·log2 N)^a over N >= 100; 1 is N log N."""
    points = [(n * math.log2(n), s) for n, s in zip(sizes, seconds, strict=True) if n >= 100]
    slope, _ = np.polyfit(*np.log(np.array(points)).T, 1)
    return float(slope)


def measure() -> dict[str, object]:
    rng = np.random.default_rng(0)
    ours = {n: closed_form(n, rng) for n in SIZES}
    theirs = {n: cvxpy(n, rng) for n in CVXPY_SIZES}
    ratios = {}
    for problem in ("local", "transmission", "edge"):
        exponent = growth(SIZES, [ours[n][problem] for n in SIZES])
        ratios[f"{problem}: exponent of N log N (goal about 1)"] = exponent
        for n in CVXPY_SIZES:
            ratios[f"{problem}: CVXPY / closed form, N={n} (goal >= 1000)"] = theirs[n][problem] / ours[n][problem]
    seconds = {"closed form": ours, "CVXPY": theirs}
    return {"name": "allocation", "ratios": ratios, "seconds_per_solve": seconds}


def draw(result: dict[str, object], path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 5))
    seconds: dict[str, dict[int, dict[str, float]]] = result["seconds_per_solve"]  # type: ignore[assignment]
    for solver, style in (("closed form", "o-"), ("CVXPY", "s--")):
        table = seconds[solver]
        for colour, problem in enumerate(("local", "transmission", "edge")):
            values = [table[n][problem] for n in table]
            axes.loglog(list(table), values, style, color=f"C{colour}", label=f"{problem}, {solver}")
    sizes = np.array([n for n in SIZES if n >= 10])
    anchor = seconds["closed form"][1_000]["local"] / (1_000 * math.log2(1_000))
    axes.loglog(sizes, anchor * sizes * np.log2(sizes), "k:", label="c·N·log2 N")
    axes.set_xlabel("services N")
    axes.set_ylabel("seconds per solve")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.allocation", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", metavar="FILE", help="draw time against N into a PNG, PDF or SVG file")
    options = parser.parse_args(argv)
    result = measure()
    if options.plot:
        draw(result, options.plot)
    if options.json:
        print(json.dumps(result))
        return 0
    for name, value in result["ratios"].items():  # type: ignore[attr-defined]
        print(f"{name:<60}{value:>14,.2f}")
    for solver, table in result["seconds_per_solve"].items():  # type: ignore[attr-defined]
        for n, row in table.items():
            times = "".join(f"{problem} {1e6 * value:>12,.2f} us   " for problem, value in row.items())
            print(f"{solver:<12} N={n:<8}{times}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
