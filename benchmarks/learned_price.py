"""What LyaPPO adds to the price rule: trained under the price of time, with several seeds per world.

The worlds are the presets, and some where a rule that looks at one device and one moment could be improved on: channels
with a memory, bursts, an edge that its devices have to share, devices in a hurry (a higher w) beside patient ones.
Everything is judged on seeds 0 to 4, which no training and no search has met, all policies on the same arrivals and
gains, by what the price of time asks for: cost, energy + w x latency per task. Ratios are LyaPPO's over that of
``price``, of Best-static (by cost) and of Myopic; below 1 LyaPPO is better. "energy at equal latency" is its energy
over what ``price`` takes at some w' to be as quick, by interpolation over w' on logarithmic scales.

Run: ``python -m benchmarks.learned_price [--json] [--worlds "NAME; ..."] [--seeds N] [--slots N]``
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

EVALUATION_SEEDS = (0, 1, 2, 3, 4)
LATENCY_PRICE_W = 0.02
SWEEP = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Multiples of w over which the energy of ``price`` is interpolated."""

FIRST_UNSEEN = 1_000_000

PRICED = {"allocation": "price", "latency_price_w": LATENCY_PRICE_W}
WORLDS: dict[str, tuple[str, dict[str, Any]]] = {
    "table2": ("table2", {}),
    "busy": ("busy", {}),
    "xr": ("xr", {"latency_price_w": 0.5}),
    "drifting": ("drifting", {}),
    "slow fading": ("busy", {"channel": {"kind": "correlated", "coherence_time_s": 1.0}}),
    "slower fading": ("busy", {"channel": {"kind": "correlated", "coherence_time_s": 5.0}}),
    "bursts": ("busy", {"arrivals": {"kind": "bursty"}, "arrival_rate_hz": 0.5}),
    "scarce edge": ("busy", {"max_edge_frequency_hz": 1e9}),
    "scarce edge, bursts": (
        "busy",
        {"max_edge_frequency_hz": 1.5e9, "arrivals": {"kind": "bursty"}, "arrival_rate_hz": 0.5},
    ),
    "scarce edge, slow fading": (
        "busy",
        {"max_edge_frequency_hz": 1e9, "channel": {"kind": "correlated", "coherence_time_s": 1.0}},
    ),
    "hurried and patient on a scarce edge": (
        "busy",
        {"latency_price_w": (0.002, 0.2, 0.002, 0.2), "max_edge_frequency_hz": 1e9},
    ),
    "shared by twelve": (
        "busy",
        {
            "num_devices": 12,
            "distances_m": tuple(150.0 + 100.0 * m / 11 for m in range(12)),
            "bandwidth_hz": 3e6,
            "max_edge_frequency_hz": 3e9,
        },
    ),
}


def world_of(name: str) -> Any:
    """Return one of ``WORLDS``."""
    from splitinfer.simulation import Scenario

    preset, changes = WORLDS[name]
    return Scenario.preset(preset).replace(**(PRICED | changes))


def _slots_of(scenario: Any) -> int:
    return 48_000 if scenario.name == "drifting" else 20_000  # one whole timetable


def judged(scenario: Any, policy: Any) -> dict[str, Any]:
    """Run a policy on the evaluation seeds."""
    from splitinfer.simulation import simulate_batch

    slots = _slots_of(scenario)
    runs = simulate_batch(scenario, [policy] * len(EVALUATION_SEEDS), seeds=EVALUATION_SEEDS, slots=slots)
    latency = np.concatenate([run.latency_s for run in runs])
    price_w = np.broadcast_to(scenario.latency_price_w, scenario.num_devices)
    waited_j = np.concatenate([price_w[run.tasks.device] * run.latency_s for run in runs])
    energy_j = sum(float(run.energy_j) * scenario.num_devices * slots for run in runs) / len(latency)
    return {
        "energy_j": energy_j,
        "latency_s": float(latency.mean()),
        "p95_s": float(np.percentile(latency, 95)),
        "cost_j": energy_j + float(waited_j.mean()),
        "stable": sum(run.stability.stable for run in runs),
    }


def _named(scenario: Any, name: str) -> dict[str, Any]:
    from splitinfer.policies import named_policy

    return judged(scenario, named_policy(name, scenario))


def _curve(scenario: Any) -> list[dict[str, Any]]:
    def swept(factor: float) -> dict[str, Any]:
        own = scenario.latency_price_w
        scaled = tuple(factor * w for w in own) if isinstance(own, tuple) else factor * own
        return _named(scenario.replace(latency_price_w=scaled), "price") | {"factor": factor}

    return [swept(factor) for factor in SWEEP]


def _trained(scenario: Any, seed: int, slots: int) -> dict[str, Any]:
    import torch

    from splitinfer.learning import TrainingSettings, load_policy
    from splitinfer.learning.training import train

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingSettings.for_algorithm("lyappo", slots=slots, seed=seed)
        folder = train(scenario, settings, Path(scratch) / "run")
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        result = judged(scenario, load_policy(folder))
    history = record["history"]
    return result | {
        "training_seed": seed,
        "seconds": record["training_seconds"],
        "start": history["start"],
        "kept_from_slot": history["kept_from_slot"],
        "kept_score": history["kept_score"],
    }


def _many(seed: int, slots: int, folder: str) -> str:
    from dataclasses import replace

    import torch

    from splitinfer.learning import TrainingSettings
    from splitinfer.learning.training import train
    from splitinfer.learning.worlds import TRAINING_WORLDS

    torch.set_num_threads(1)
    settings = TrainingSettings.for_many_worlds(slots=slots, seed=seed)
    return str(train(replace(TRAINING_WORLDS, allocation="price"), settings, folder))


def _unseen(number: int, folder: str) -> dict[str, Any]:
    from dataclasses import replace

    from splitinfer.learning import load_policy
    from splitinfer.learning.worlds import UNSEEN_WORLDS

    scenario = replace(UNSEEN_WORLDS, allocation="price").draw(FIRST_UNSEEN + number)
    others = {name: _named(scenario, name) for name in ("price", "best-static")}
    return {"world": scenario.name, "lyappo": judged(scenario, load_policy(folder))} | others


def energy_at(curve: list[dict[str, Any]], latency_s: float) -> float | None:
    """Energy per task of ``price`` where its latency is this, or None outside what was swept."""
    points = sorted((point["latency_s"], point["energy_j"]) for point in curve if point["stable"])
    times, energies = (np.log([point[i] for point in points]) for i in (0, 1))
    if not len(times) or not times[0] <= np.log(latency_s) <= times[-1]:
        return None
    return float(np.exp(np.interp(np.log(latency_s), times, energies)))


def measure(worlds: tuple[str, ...], *, seeds: int, slots: int, unseen: int) -> dict[str, Any]:
    """Train and judge everything; returns the record."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    record: dict[str, Any] = {"name": "learned_price", "slots": slots, "worlds": {}, "ratios": {}}
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool,
    ):
        scenarios = {name: world_of(name) for name in worlds}
        many = pool.submit(_many, 0, slots, f"{scratch}/many") if unseen else None
        waiting = {
            name: (
                {rule: pool.submit(_named, scenario, rule) for rule in ("price", "best-static", "myopic")},
                pool.submit(_curve, scenario),
                [pool.submit(_trained, scenario, seed, slots) for seed in range(seeds)],
            )
            for name, scenario in scenarios.items()
        }
        for name, (rules, swept, trained) in waiting.items():
            others = {rule: future.result() for rule, future in rules.items()}
            curve, runs = swept.result(), [future.result() for future in trained]
            for run in runs:
                equal = energy_at(curve, run["latency_s"])
                run["energy_at_equal_latency"] = None if equal is None else run["energy_j"] / equal
            record["worlds"][name] = {"rules": others, "price_over_w": curve, "runs": runs}
            for rule, other in others.items():
                ratio = float(np.mean([run["cost_j"] for run in runs])) / other["cost_j"]
                record["ratios"][f"{name}: cost over {rule}"] = ratio
        if many is not None:
            folder = many.result()
            jobs = [pool.submit(_unseen, number, folder) for number in range(unseen)]
            record["unseen"] = [job.result() for job in jobs]
            for rule in ("price", "best-static"):
                ratios = [one["lyappo"]["cost_j"] / one[rule]["cost_j"] for one in record["unseen"]]
                record["ratios"][f"unseen worlds: cost over {rule}, median"] = float(np.median(ratios))
    return record


def _show(record: dict[str, Any]) -> None:
    print(f"LyaPPO under price, {record['slots']:,} slots; per task: mJ, ms, p95 ms, cost mJ, stable runs")
    for name, result in record["worlds"].items():
        print(name)
        rows = list(result["rules"].items()) + [(f"lyappo {run['training_seed']}", run) for run in result["runs"]]
        for who, one in rows:
            print(
                f"    {who:<12} {one['energy_j'] * 1e3:9.3f} {one['latency_s'] * 1e3:7.0f} {one['p95_s'] * 1e3:7.0f} "
                f"{one['cost_j'] * 1e3:9.3f}  {one['stable']}/{len(EVALUATION_SEEDS)}",
                end="",
            )
            if "start" in one:
                equal = one["energy_at_equal_latency"]
                print(
                    f"  cost {one['cost_j'] / result['rules']['price']['cost_j']:.3f} of price's, energy at equal "
                    f"latency {'none' if equal is None else f'{equal:.3f}'}, start {one['start']}, kept from "
                    f"{one['kept_from_slot']:,}, {one['seconds']:.0f} s",
                    end="",
                )
            print(flush=True)
    for one in record.get("unseen", []):
        cost = one["lyappo"]["cost_j"]
        print(
            f"    {one['world']}: cost {cost / one['price']['cost_j']:.3f} of price's, "
            f"{cost / one['best-static']['cost_j']:.3f} of Best-static's; stable {one['lyappo']['stable']}, "
            f"{one['price']['stable']}, {one['best-static']['stable']}"
        )
    for key, ratio in record["ratios"].items():
        print(f"{key}: {ratio:.3f}")


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learned_price", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--worlds", default=";".join(WORLDS), help="separated by semicolons")
    parser.add_argument("--seeds", type=int, default=5, help="training seeds per world")
    parser.add_argument("--slots", type=int, default=640_000, help="slots of each training")
    parser.add_argument("--unseen", type=int, default=24, help="unseen worlds for one policy over many worlds")
    options = parser.parse_args(argv)
    names = tuple(name.strip() for name in options.worlds.split(";") if name.strip())
    if unknown := [name for name in names if name not in WORLDS]:
        parser.error(f"--worlds: there are {'; '.join(WORLDS)}, not {unknown[0]!r}")
    record = measure(names, seeds=options.seeds, slots=options.slots, unseen=options.unseen)
    print(json.dumps(record)) if options.json else _show(record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
