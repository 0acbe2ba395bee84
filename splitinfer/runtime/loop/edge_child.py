"""The edge's process of a live run on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TextIO

from splitinfer.runtime.loop.children import child_main, leave_with_parent


def work(order: dict[str, Any], say: Callable[[dict[str, Any]], None], parent: TextIO) -> None:
    """Load the models, listen, and run."""
    leave_with_parent(parent)
    import torch

    from splitinfer.policies import named_policy
    from splitinfer.runtime.loop.edge_run import run_edge
    from splitinfer.runtime.loop.services import ServiceLoader
    from splitinfer.runtime.loop.settings import LoopSettings
    from splitinfer.runtime.settings import ServerSettings
    from splitinfer.simulation.scenario import Scenario

    settings = LoopSettings(**order["loop"])
    torch.set_num_threads(settings.torch_threads)
    scenario = Scenario.load(order["scenario"])
    policy = named_policy(order["policy"], scenario)
    models = ServiceLoader(order["cards"]).models(scenario)
    run_edge(
        scenario,
        policy,
        models,
        settings,
        ServerSettings(port=order["port"]),
        on_listen=lambda address: say({"event": "listen", "address": address}),
        on_event=say,
    )


if __name__ == "__main__":
    sys.exit(child_main(work))
