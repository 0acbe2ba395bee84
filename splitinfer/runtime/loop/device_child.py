"""A device's process of live runs on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from splitinfer.runtime.loop.children import child_main, lines_of


def work(order: dict[str, Any], say: Callable[[dict[str, Any]], None], parent: TextIO) -> None:
    """Load the models, and attend run after run: each line of the parent is the edge's address."""
    lines = lines_of(parent)
    import torch

    from splitinfer.runtime.loop.device_run import run_device
    from splitinfer.runtime.loop.services import ServiceLoader
    from splitinfer.simulation.scenario import Scenario

    torch.set_num_threads(order["threads"])
    scenario = Scenario.load(order["scenario"])
    loader = ServiceLoader(order["cards"], [Path(image) for image in order["images"]])
    services = loader.services(scenario, order["device"])
    while True:
        run_device(lines.get(), scenario, order["device"], services)


if __name__ == "__main__":
    sys.exit(child_main(work))
