"""A model of your own under the scheduler, live: real heads, a real edge, emulated clock and radio.

The scenario names the factory in this file. Every answer is compared with the whole model's, bit for bit, and the run
is simulated beside it: the same tasks, the same energy.
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch import nn

sys.path.insert(0, str(Path(__file__).parent))  # so that this file is a module here and in the processes of the run


def build() -> nn.Module:
    """The model: any module that takes one picture."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, stride=4),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(64, 16, 1),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def main() -> None:
    """Run two devices for a few seconds of the scenario's time."""
    import os

    from splitinfer.policies import named_policy
    from splitinfer.runtime.loop import LoopSettings, run_locally
    from splitinfer.simulation import Scenario, simulate

    os.chdir(Path(__file__).parent)
    world = Scenario(
        name="own",
        num_devices=2,
        services=("own_model_live:build",),
        arrival_rate_hz=4.0,
        allocation="price",
        latency_price_w=0.02,
    )
    settings = LoopSettings(slots=500, time_scale=0.2, patience_s=30.0)
    live = run_locally(world, "price", settings).result(world)
    simulated = simulate(world, named_policy("price", world), slots=settings.slots)
    figures = live.figures
    print(f"{figures.finished} tasks, {live.checked} answers checked, {live.wrong} wrong")
    print(f"live      {1e3 * figures.energy_j:.4f} mJ a slot, {1e3 * figures.latency_s.mean():.0f} ms")
    print(f"simulated {1e3 * simulated.energy_j:.4f} mJ a slot, {1e3 * simulated.latency_s.mean():.0f} ms")


if __name__ == "__main__":
    main()
