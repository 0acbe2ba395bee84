"""What LyaPPO is worth: trained with several seeds per preset, and one policy over worlds that it has never seen.

Everything is judged on seeds 0 to 4, which neither training nor Best-static's search has met, both policies on the same
arrivals and gains. Ratios, below 1 where LyaPPO is better than the best fixed cuts:

- ``PRESET_energy``, ``PRESET_latency``: total energy and mean latency over Best-static's; mean over the training seeds.
- ``PRESET_training_over_5_minutes``: the longest training's time, scaled to 5 million slots, over 5 minutes.
- ``unseen_energy``, ``unseen_latency``: of the policy that is shipped, mean over the unseen worlds.
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

PRESETS = ("table2", "busy", "xr", "drifting")
EVALUATION_SEEDS = (0, 1, 2, 3, 4)
FIRST_UNSEEN = 1_000_000
PAPER_SLOTS = 5_000_000


def _slots_of(name: str) -> int:
    return 48_000 if name == "drifting" else 20_000  # one whole timetable


def _runs(scenario: Any, policy: Any, slots: int) -> dict[str, Any]:
    from splitinfer.simulation import simulate_batch

    runs = simulate_batch(scenario, [policy] * len(EVALUATION_SEEDS), seeds=EVALUATION_SEEDS, slots=slots)
    return {
        "energy_j": float(np.mean([run.energy_j for run in runs])),
        "latency_s": float(np.mean([run.latency_s.mean() for run in runs])),
        "stable": sum(run.stability.stable for run in runs),
        "energy_by_seed_j": [float(run.energy_j) for run in runs],
    }


def _best_static(name: str) -> dict[str, Any]:
    from splitinfer.scheduling import BestStaticCut
    from splitinfer.simulation import Scenario

    return _runs(Scenario.preset(name), BestStaticCut(), _slots_of(name))


def _trained(name: str, seed: int, slots: int) -> dict[str, Any]:
    import torch

    from splitinfer.learning import TrainingSettings, load_policy
    from splitinfer.learning.training import train
    from splitinfer.simulation import Scenario

    torch.set_num_threads(1)
    scenario = Scenario.preset(name)
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingSettings.for_algorithm("lyappo", slots=slots, seed=seed)
        folder = train(scenario, settings, Path(scratch) / "run")
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        result = _runs(scenario, load_policy(folder), _slots_of(name))
    history = record["history"]
    return result | {
        "training_seed": seed,
        "slots": record["slots_done"],
        "seconds": record["training_seconds"],
        "start": history["start"],
        "kept_from_slot": history["kept_from_slot"],
    }


def _unseen(number: int) -> dict[str, Any]:
    from splitinfer.learning import load_policy
    from splitinfer.learning.shipped import SHIPPED_POLICY
    from splitinfer.learning.worlds import UNSEEN_WORLDS
    from splitinfer.scheduling import BestStaticCut

    scenario = UNSEEN_WORLDS.draw(FIRST_UNSEEN + number)
    ours = _runs(scenario, load_policy(SHIPPED_POLICY), 20_000)
    best = _runs(scenario, BestStaticCut(), 20_000)
    return {
        "world": scenario.name,
        "devices": scenario.num_devices,
        "services": scenario.num_services[0],
        "energy": ours["energy_j"] / best["energy_j"],
        "latency": ours["latency_s"] / best["latency_s"],
        "stable": ours["stable"],
        "best_static_stable": best["stable"],
    }


def measure(
    presets: tuple[str, ...] = PRESETS, *, seeds: int = 5, slots: int = 320_000, worlds: int = 24
) -> dict[str, Any]:
    """Train and judge everything; returns the record."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"))
    with pool:
        best = {name: pool.submit(_best_static, name) for name in presets}
        trained = {name: [pool.submit(_trained, name, seed, slots) for seed in range(seeds)] for name in presets}
        unseen = [pool.submit(_unseen, number) for number in range(worlds)]
        record: dict[str, Any] = {"name": "learned", "slots": slots, "presets": {}, "ratios": {}}
        for name in presets:
            reference = best[name].result()
            runs = [future.result() for future in trained[name]]
            for run in runs:
                run["energy"] = run["energy_j"] / reference["energy_j"]
                run["latency"] = run["latency_s"] / reference["latency_s"]
            record["presets"][name] = {"best_static": reference, "runs": runs}
            for figure in ("energy", "latency"):
                record["ratios"][f"{name}_{figure}"] = float(np.mean([run[figure] for run in runs]))
            longest = max(run["seconds"] / run["slots"] for run in runs) * PAPER_SLOTS
            record["ratios"][f"{name}_training_over_5_minutes"] = longest / 300
        record["unseen"] = [future.result() for future in unseen]
        if worlds:
            for figure in ("energy", "latency"):
                record["ratios"][f"unseen_{figure}"] = float(np.mean([world[figure] for world in record["unseen"]]))
    return record


def _show(record: dict[str, Any]) -> None:
    print(f"LyaPPO over Best-static, {len(EVALUATION_SEEDS)} held-out seeds; mean (range) over the training seeds")
    for name, result in record["presets"].items():
        runs = result["runs"]
        spread = {
            figure: f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            for figure in ("energy", "latency")
            for values in [[run[figure] for run in runs]]
        }
        stable = sum(run["stable"] for run in runs)
        print(
            f"{name:<9} energy {spread['energy']}, latency {spread['latency']}, stable in {stable} of "
            f"{len(runs) * len(EVALUATION_SEEDS)} runs (Best-static: {result['best_static']['stable']} of "
            f"{len(EVALUATION_SEEDS)})"
        )
        for run in runs:
            print(
                f"    seed {run['training_seed']}: {run['slots']:,} slots in {run['seconds']:.0f} s, start "
                f"{run['start']}, kept from slot {run['kept_from_slot']:,}: energy {run['energy']:.3f}, "
                f"latency {run['latency']:.3f}"
            )
    if record["unseen"]:
        energy = np.array([world["energy"] for world in record["unseen"]])
        latency = np.array([world["latency"] for world in record["unseen"]])
        within = int((energy <= 1.05).sum())
        unstable = [w["world"] for w in record["unseen"] if w["stable"] < w["best_static_stable"]]
        print(
            f"shipped policy on {len(energy)} unseen worlds: energy {energy.mean():.3f} "
            f"(median {np.median(energy):.3f}, {energy.min():.3f} to {energy.max():.3f}; at most 1.05 in {within}),"
        )
        print(f"    latency {latency.mean():.3f} ({latency.min():.3f} to {latency.max():.3f});", end=" ")
        print(f"stable less often than Best-static: {', '.join(unstable) or 'nowhere'}")
        for world in record["unseen"]:
            print(
                f"    {world['world']}: M={world['devices']}, N={world['services']}: energy {world['energy']:.3f}, "
                f"latency {world['latency']:.3f}"
            )


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--presets", default=",".join(PRESETS), help="comma-separated")
    parser.add_argument("--seeds", type=int, default=5, help="training seeds per preset")
    parser.add_argument("--slots", type=int, default=320_000, help="slots of each training")
    parser.add_argument("--worlds", type=int, default=24, help="unseen worlds for the shipped policy")
    arguments = parser.parse_args(argv)
    presets = tuple(name for name in arguments.presets.split(",") if name)
    record = measure(presets, seeds=arguments.seeds, slots=arguments.slots, worlds=arguments.worlds)
    if arguments.json:
        print(json.dumps(record))
    else:
        _show(record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
