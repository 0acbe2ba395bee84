"""Two XR headsets with three services each: fixed cuts against a policy, on real processes and a real photo.

The headsets stand at different distances from the edge, so the same cuts cost them different energy. Run it for
``--duration`` seconds of the scenario's time; ``--policy`` takes a policy's name or the folder of a training run::

    python examples/xr_headset.py --duration 30 --policy runs/lyappo-xr
"""

from __future__ import annotations

import argparse

from splitinfer.models.photos import photos
from splitinfer.runtime.loop import LoopSettings, run_locally
from splitinfer.simulation import Scenario

# The large model's camera picture goes to the edge, the small models stay. A person might choose that.
FIXED = "fixed:0,54,26"


def headsets() -> Scenario:
    #           objects     eye tracking          hand pose
    services = ("resnet18", "mobilenet_v3_small", "squeezenet1_1")
    return Scenario(
        name="two headsets",
        services=services,
        num_devices=2,
        distances_m=(40.0, 200.0),
        arrival_rate_hz=(1.0, 1.0, 0.5),
        max_local_frequency_hz=0.5e9,
        max_edge_frequency_hz=2e9,  # about as fast as one core of a small machine, which really runs the tails
        bandwidth_hz=0.5e6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--duration", type=float, default=30.0)
    parser.add_argument("--policy", default="myopic")
    parser.add_argument("--time-scale", type=float, default=1.0)
    options = parser.parse_args()
    scenario = headsets()
    settings = LoopSettings(slots=round(options.duration / scenario.slot_s), seed=1, time_scale=options.time_scale)
    print(
        f"{'policy':<14} {'device':>6} {'tasks':>6} {'local mJ':>9} {'sending mJ':>11} {'mJ per task':>12} {'late':>5}"
    )
    for name in (FIXED, options.policy):
        result = run_locally(scenario, name, settings, images=photos()).result(scenario)
        assert result.is_right, "an answer differs from the whole model's, or a task is lost"
        figures = result.figures
        for device in range(scenario.num_devices):
            local_j = figures.device_energy_local_j[device] * figures.slots
            sent_j = figures.device_energy_transmission_j[device] * figures.slots
            tasks = int(figures.finished_by_service[device].sum())
            per_task = f"{(local_j + sent_j) / tasks * 1e3:.1f}" if tasks else "-"
            late = result.lateness[device].late_jobs
            energies = f"{local_j * 1e3:>9.1f} {sent_j * 1e3:>11.1f} {per_task:>12}"
            print(f"{name:<14} {device:>6} {tasks:>6} {energies} {late:>5}")
        latency_ms = figures.latency_percentile_s(50) * 1e3
        print(f"{name:<14} median latency {latency_ms:.0f} ms, {result.checked} answers equal the whole models'")


if __name__ == "__main__":
    main()
