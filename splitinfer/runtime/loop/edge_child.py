"""The edge's process of live runs on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TextIO

from splitinfer.runtime.child import child_main, lines_of


def work(order: dict[str, Any], say: Callable[[dict[str, Any]], None], parent: TextIO) -> None:
    """Load the models, and be the edge of run after run: each line of the parent is one, as JSON."""
    from splitinfer.runtime.tracing import tracing_of_child

    tracing = tracing_of_child(order.get("otlp"), "splitinfer-edge")
    lines = lines_of(parent, at_end=tracing.flush if tracing is not None else None)
    from splitinfer.graph.engines import set_threads
    from splitinfer.models import CaptureOptions
    from splitinfer.policies import named_policy
    from splitinfer.runtime.loop.edge_run import run_edge
    from splitinfer.runtime.loop.services import ServiceLoader
    from splitinfer.runtime.loop.settings import LoopSettings
    from splitinfer.runtime.loop.ticker import SWITCH_S
    from splitinfer.runtime.settings import ServerSettings
    from splitinfer.simulation.scenario import Scenario

    options = CaptureOptions(**order["options"])
    set_threads(options.threads)
    sys.setswitchinterval(SWITCH_S)
    scenario = Scenario.load(order["scenario"])
    models = ServiceLoader(order["cards"], options=options).models(scenario)
    while True:
        run = json.loads(lines.get())
        run_edge(
            scenario,
            named_policy(run["policy"], scenario),
            models,
            LoopSettings(**run["loop"]),
            ServerSettings(port=order["port"]),
            on_listen=lambda address: say({"event": "listen", "address": address}),
            observer=lambda event: say(event.to_dict()),
            tracing=tracing,
        )


if __name__ == "__main__":
    sys.exit(child_main(work))
