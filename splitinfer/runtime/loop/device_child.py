"""A device's process of a live run on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from splitinfer.runtime.loop.children import child_main, leave_with_parent


def work(order: dict[str, Any], say: Callable[[dict[str, Any]], None], parent: TextIO) -> None:
    """Load the models, learn the edge's address from the parent, and attend."""
    import torch

    from splitinfer.runtime.loop.device_run import run_device
    from splitinfer.runtime.loop.services import ServiceLoader
    from splitinfer.simulation.scenario import Scenario

    torch.set_num_threads(order["threads"])
    scenario = Scenario.load(order["scenario"])
    loader = ServiceLoader(order["cards"], [Path(image) for image in order["images"]])
    services = loader.services(scenario, order["device"])
    say({"event": "loaded"})
    address = parent.readline().strip()
    if not address:  # the parent is gone
        return
    leave_with_parent(parent)
    run_device(address, scenario, order["device"], services)


if __name__ == "__main__":
    sys.exit(child_main(work))
