"""Does a live run measure what the simulator computes? Energy and mean latency of both, for the same seed.

Each preset runs on real processes, by default at half the speed of real time: late work is carried into later slots,
as on real devices. The machine has to be about as fast as what it emulates, so pictures are scaled down to
``--pixels``, with the cycles per MAC and the bits per element scaled up to match: in virtual time every task is as
heavy as in the preset. The presets run with fewer devices, each with the preset's bandwidth.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import tomli_w

from splitinfer.models import load_card
from splitinfer.policies import named_policy
from splitinfer.profiling import profile
from splitinfer.runtime.loop import LocalProcesses, LoopSettings
from splitinfer.runtime.loop.world import card_files
from splitinfer.simulation import Scenario, simulate

# Preset, number of devices of it, and seconds of each run: about as many as give enough requests.
WORLDS = (("table2", 2, 20.0), ("busy", 2, 8.0), ("xr", 1, 4.0))
POLICIES = ("fixed", "lyappo", "myopic")


def scaled_down(scenario: Scenario, folder: Path, *, devices: int, pixels: int) -> tuple[Scenario, dict[str, str]]:
    """Return the scenario on small pictures and fewer devices, as heavy in virtual time; and its models' card files."""
    files = []
    sizes = set()
    for loaded in scenario.profiles[0]:
        card = load_card(loaded.model)
        sizes.add(card.inputs[0].shape[-1])
        assert card.preprocessing is not None
        record = card.model_dump(exclude={"name", "labels"}, exclude_none=True)
        record["inputs"] = [{"shape": [3, pixels, pixels]}]
        record["preprocessing"]["resize"] = pixels
        files.append(folder / f"{loaded.model}.toml")
        files[-1].write_text(tomli_w.dumps(record), encoding="utf-8")
    area = (max(sizes) / pixels) ** 2
    scaled = scenario.replace(
        services=tuple(profile(file) for file in files),
        num_devices=devices,
        distances_m=scenario.distances_m[:devices],
        bandwidth_hz=scenario.bandwidth_hz / scenario.num_devices * devices,
        cycles_per_mac=scenario.cycles_per_mac * area,
        bits_per_element=scenario.bits_per_element * area,
        fixed_cuts=scenario.fixed_cuts,
    )
    return scaled, card_files(files)


def measure(
    processes: LocalProcesses, scenario: Scenario, policy: str, *, duration_s: float, seed: int, time_scale: float
) -> dict[str, Any]:
    """Run and simulate one policy; returns both sides' figures and how far they are apart."""
    slots = round(duration_s / scenario.slot_s)
    live = processes.run(policy, LoopSettings(slots=slots, seed=seed, time_scale=time_scale)).result(scenario)
    simulated = simulate(scenario, named_policy(policy, scenario), slots, seed)
    figures = live.figures
    live_s, simulated_s = float(figures.latency_s.mean()), float(simulated.latency_s.mean())
    allowed_s = scenario.slot_s + 0.1 * simulated_s
    return {
        "scenario": scenario.name,
        "policy": policy,
        "allocation": scenario.allocation,
        "tasks": figures.finished,
        "answers_right": live.is_right,
        "energy_mj": {"live": figures.energy_j * 1e3, "simulated": simulated.energy_j * 1e3},
        "latency_ms": {"live": live_s * 1e3, "simulated": simulated_s * 1e3},
        "energy_ratio": figures.energy_j / simulated.energy_j,
        "latency_gap_over_allowed": abs(live_s - simulated_s) / allowed_s,
        "slot_overruns": sum(one.slot_overruns for one in live.lateness),
        "late_cuts": sum(one.late_cuts for one in live.lateness),
        "late_jobs": sum(one.late_jobs for one in live.lateness),
        "jobs": sum(one.jobs for one in live.lateness),
    }


def _show(row: dict[str, Any]) -> None:
    energy, latency = row["energy_mj"], row["latency_ms"]
    print(
        f"{row['scenario']}, {row['policy']}: "
        f"energy {energy['live']:.4f} live, {energy['simulated']:.4f} mJ simulated; "
        f"latency {latency['live']:.1f} live, {latency['simulated']:.1f} ms simulated; "
        f"{row['tasks']} tasks, {row['late_jobs']} of {row['jobs']} halves late, {row['late_cuts']} late cuts, "
        f"{row['slot_overruns']} overruns" + ("" if row["answers_right"] else "; ANSWERS WRONG"),
        file=sys.stderr,
        flush=True,
    )


def main(argv: list[str] | None = None) -> int:
    """Print both sides of every preset and policy."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("--duration", type=float, help="seconds of each run, instead of each preset's own")
    parser.add_argument(
        "--time-scale", type=float, default=2.0, help="1 is real time, for a machine with cores to spare"
    )
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policies", nargs="*", default=list(POLICIES), help="also folders of training runs")
    names = [name for name, _, _ in WORLDS]
    parser.add_argument(
        "--allocation", default="drift-plus-penalty", help="rule of the slots: also price, or module:Class"
    )
    parser.add_argument("--worlds", nargs="*", choices=names, default=names)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    rows = []
    for name, devices, own_s in WORLDS:
        if name not in options.worlds:
            continue
        with tempfile.TemporaryDirectory() as folder:
            preset = Scenario.preset(name).replace(allocation=options.allocation)
            scenario, cards = scaled_down(preset, Path(folder), devices=devices, pixels=options.pixels)
            with LocalProcesses(scenario, cards=cards) as processes:
                for policy in options.policies:
                    row = measure(
                        processes,
                        scenario,
                        policy,
                        duration_s=options.duration or own_s,
                        seed=options.seed,
                        time_scale=options.time_scale,
                    )
                    rows.append(row)
                    _show(row)
    ratios: dict[str, float] = {}
    for policy in options.policies:
        mine = [row for row in rows if row["policy"] == policy]
        worst = max((row["energy_ratio"] for row in mine), key=lambda ratio: abs(ratio - 1))
        ratios[f"{policy}: worst energy, live / simulated (goal 0.95 to 1.05)"] = worst
        gap = max(row["latency_gap_over_allowed"] for row in mine)
        ratios[f"{policy}: worst latency gap / (one slot + 10 %) (goal 1)"] = gap
    ratios["runs in which every answer is right / runs"] = sum(row["answers_right"] for row in rows) / len(rows)
    if options.json:
        print(json.dumps({"name": "agreement", "ratios": ratios, "runs": rows}))
    else:
        for key, value in ratios.items():
            print(f"{key}: {value:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
