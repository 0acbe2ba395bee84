"""``splitinfer serve --scenario``: the edge of a live run whose devices come from other machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitinfer.errors import CheckFailedError

if TYPE_CHECKING:
    from splitinfer.runtime.settings import ServerSettings


def serve_scenario(
    scenario: str,
    policy: str,
    *,
    duration_s: float,
    seed: int,
    changes: Sequence[str],
    cards: Sequence[Path],
    trace: Path | None,
    server: ServerSettings,
    join_s: float,
) -> None:
    """Wait for every device of a scenario, run it once, and print the report.

    Raises:
        InputError: the scenario, policy or a model is wrong, or the address cannot be listened on.
        RemoteError: a device is missing, goes away or is silent.
        CheckFailedError: an answer was wrong.
    """
    import torch

    from splitinfer.cli.live_report import print_report
    from splitinfer.cli.live_view import LiveView
    from splitinfer.cli.run import slots_of
    from splitinfer.policies import named_policy
    from splitinfer.runtime.loop import LiveRecord, LoopSettings, run_edge
    from splitinfer.runtime.loop.children import SWITCH_S
    from splitinfer.runtime.loop.services import ServiceLoader, card_files
    from splitinfer.simulation import find_scenario, with_settings

    world = with_settings(find_scenario(scenario), changes)
    loop = LoopSettings(
        slots=slots_of(duration_s, world.slot_s),
        seed=seed,
        torch_threads=server.torch_threads,
        tail_workers=server.tails_at_once,
        join_s=join_s,
    )
    chosen = named_policy(policy, world)
    torch.set_num_threads(server.torch_threads)
    sys.setswitchinterval(SWITCH_S)
    models = ServiceLoader(card_files(cards)).models(world)
    record = LiveRecord()
    with ExitStack() as stack:
        file = stack.enter_context(trace.open("w", encoding="utf-8")) if trace is not None else None
        view = LiveView()

        def on_listen(address: str) -> None:
            print(f"waiting for {world.num_devices} devices of {world.name} on {address}", flush=True)

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "start":
                stack.enter_context(view)
            view.add(event)
            record.add(event)
            if file is not None:
                file.write(json.dumps(event) + "\n")

        run_edge(world, chosen, models, loop, server, on_listen=on_listen, on_event=on_event)
    result = record.result(world)
    print_report(world, result)
    if trace is not None:
        print(f"wrote {trace}")
    if not result.is_right:
        raise CheckFailedError(f"{result.wrong} of {result.checked} answers are wrong, or a task is lost")
