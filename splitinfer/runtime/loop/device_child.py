"""A device's process of live runs on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from splitinfer.runtime.child import child_main, lines_of


def work(order: dict[str, Any], say: Callable[[dict[str, Any]], None], parent: TextIO) -> None:
    """Load the models, and attend run after run: each line of the parent is the edge's address."""
    from splitinfer.runtime.tracing import tracing_of_child

    tracing = tracing_of_child(order.get("otlp"), "splitinfer-device")
    lines = lines_of(parent, at_end=tracing.flush if tracing is not None else None)
    from splitinfer.graph.engines import set_threads
    from splitinfer.models import CaptureOptions
    from splitinfer.runtime.loop.device_run import run_device
    from splitinfer.runtime.loop.services import ServiceLoader
    from splitinfer.runtime.loop.ticker import SWITCH_S
    from splitinfer.simulation.scenario import Scenario

    options = CaptureOptions(**order["options"])
    set_threads(options.threads)
    sys.setswitchinterval(SWITCH_S)
    scenario = Scenario.load(order["scenario"])
    loader = ServiceLoader(order["cards"], [Path(image) for image in order["images"]], options)
    services = loader.services(scenario, order["device"])
    alone: list[int] = []
    while True:
        alone.clear()
        farewell = run_device(
            lines.get(),
            scenario,
            order["device"],
            services,
            on_failure=order["on_failure"],
            on_alone=lambda slot, stranded, error: alone.append(slot),
            on_return=lambda slot: alone.clear(),
            tracing=tracing,
        )
        of_run = {"checked": farewell.checked, "wrong": farewell.wrong + farewell.unexpected}
        say({"event": "farewell", "is_alone": bool(alone), "unanswered": farewell.unanswered} | of_run)


if __name__ == "__main__":
    sys.exit(child_main(work))
