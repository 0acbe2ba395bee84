"""Two XR headsets with three services each: cuts that a person might fix against LyaPPO, on real processes and photos.

One headset is near the edge, the other far away, so the same cuts cost them different energy. Both runs meet the same
requests and the same channel. Takes a good minute; energies come from the model of the device, not from this machine::

    python examples/xr_headset.py
    python examples/xr_headset.py --images ~/Pictures --policy runs/my-headsets --time-scale 0.5
"""

from __future__ import annotations

import argparse

from splitinfer.errors import SplitInferError
from splitinfer.models.photos import photos
from splitinfer.runtime.loop import LiveResult, LocalProcesses, LoopSettings
from splitinfer.simulation import Scenario

# The large model goes to the edge as a whole, the small ones stay on the headset.
FIXED = "fixed:0,54,26"


def headsets() -> Scenario:
    #           objects     eye tracking          hand pose
    services = ("resnet18", "mobilenet_v3_small", "squeezenet1_1")
    return Scenario(
        name="two headsets",
        services=services,
        num_devices=2,
        distances_m=(20.0, 250.0),
        arrival_rate_hz=(1.0, 1.0, 0.5),
        max_local_frequency_hz=0.9e9,
        energy_coefficient=3e-28,
        max_edge_frequency_hz=2e9,  # about as fast as one core of a small machine, which really runs the tails
        bandwidth_hz=0.7e6,
    )


def show(policy: str, scenario: Scenario, result: LiveResult) -> None:
    """Print a row per headset: energies over the whole run, and the mean time from request to answer."""
    figures = result.figures
    for device, where_m in enumerate(scenario.distances_m):
        local_j = figures.device_energy_local_j[device] * figures.slots
        sent_j = figures.device_energy_transmission_j[device] * figures.slots
        latency_s = figures.tasks.latency_s[figures.tasks.device == device]
        tasks = len(latency_s)
        per_task_mj = f"{(local_j + sent_j) / tasks * 1e3:.1f}" if tasks else "-"
        latency_ms = f"{latency_s.mean() * 1e3:.0f}" if tasks else "-"
        print(
            f"{policy:<15} {where_m:>6.0f} m {tasks:>6} {local_j * 1e3:>10.1f} {sent_j * 1e3:>11.1f} "
            f"{(local_j + sent_j) * 1e3:>9.1f} {per_task_mj:>12} {latency_ms:>11}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--duration", type=float, default=30.0, help="seconds of each run, in the scenario's time")
    parser.add_argument("--policy", default="lyappo", help="a policy's name, or the folder of a training run")
    parser.add_argument("--time-scale", type=float, default=1.0, help="0.5 is twice as fast, on a fast machine")
    parser.add_argument("--images", help="folder of your own photos; one photo comes with the installation")
    options = parser.parse_args()
    scenario = headsets()
    settings = LoopSettings(slots=round(options.duration / scenario.slot_s), seed=1, time_scale=options.time_scale)
    pictures = photos(options.images)
    print(f"starting an edge and two headsets, and loading three models in each; {len(pictures)} photo(s)", flush=True)
    results: dict[str, LiveResult] = {}
    with LocalProcesses(scenario, images=pictures) as processes:
        for policy in (FIXED, options.policy):
            print(f"{options.duration:g} s of {policy} ...", flush=True)
            results[policy] = processes.run(policy, settings).result(scenario)
    print()
    print(
        f"{'policy':<15} {'edge at':>8} {'tasks':>6} {'local mJ':>10} {'sending mJ':>11} {'total mJ':>9} "
        f"{'mJ per task':>12} {'latency ms':>11}"
    )
    for policy, result in results.items():
        show(policy, scenario, result)
    print()
    for policy, result in results.items():
        late = sum(one.late_jobs for one in result.lateness)
        jobs = sum(one.jobs for one in result.lateness)
        right = result.checked - result.wrong
        print(
            f"{policy}: {right} of {result.checked} answers equal the whole models', bit for bit; {late} of {jobs} "
            "halves were slower here than on the emulated processors"
        )
        if not result.is_right:
            raise SystemExit(f"{policy}: an answer is wrong, or a task is lost")


if __name__ == "__main__":
    try:
        main()
    except SplitInferError as error:
        raise SystemExit(f"error: {error}") from None
