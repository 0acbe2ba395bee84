"""``splitinfer serve --scenario``: the edge of a live run whose devices come from other machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splitinfer.runtime.settings import ServerSettings


def serve_scenario(
    scenario: str,
    policy: str,
    *,
    duration_s: float,
    seed: int,
    time_scale: float,
    patience_s: float,
    join_s: float,
    changes: Sequence[str],
    cards: Sequence[Path],
    trace: Path | None,
    plot: Path | None,
    compare: bool,
    as_json: bool,
    server: ServerSettings,
) -> None:
    """Wait for every device of a scenario, run it once, and print the report.

    The devices learn the length, seed, time scale and patience of the run from the edge when it starts.

    Raises:
        InputError: the scenario, policy or a model is wrong, or the address cannot be listened on.
        RemoteError: a device is missing, goes away or is silent.
        CheckFailedError: an answer was wrong.
    """
    from splitinfer.cli.live_report import tell
    from splitinfer.cli.run import slots_of
    from splitinfer.cli.watching import watching
    from splitinfer.graph.engines import set_threads
    from splitinfer.policies import named_policy
    from splitinfer.runtime.loop import LiveRecord, LoopSettings, run_edge
    from splitinfer.runtime.loop.services import ServiceLoader, card_files
    from splitinfer.runtime.loop.ticker import SWITCH_S
    from splitinfer.runtime.loop.world import check_live, check_policy
    from splitinfer.simulation import find_scenario, with_settings
    from splitinfer.simulation.plot import check_plot_path

    world = with_settings(find_scenario(scenario), changes)
    loop = LoopSettings(
        slots=slots_of(duration_s, world.slot_s),
        seed=seed,
        time_scale=time_scale,
        patience_s=patience_s,
        torch_threads=server.torch_threads,
        tail_workers=server.tails_at_once,
        join_s=join_s,
    )
    if plot is not None:
        check_plot_path(plot)
    check_live(world)
    chosen = named_policy(policy, world)
    check_policy(chosen, world)
    set_threads(server.torch_threads)
    sys.setswitchinterval(SWITCH_S)
    models = ServiceLoader(card_files(cards)).models(world)
    record = LiveRecord()

    def on_listen(address: str) -> None:
        waiting = f"waiting for {world.num_devices} devices of {world.name} on {address}"
        print(waiting, file=sys.stderr if as_json else sys.stdout, flush=True)

    with watching(trace, []) as observer:
        observer.add("the report", record.add, most_waiting=None)
        run_edge(world, chosen, models, loop, server, on_listen=on_listen, observer=observer)
    tell(world, record.result(world), policy, trace=trace, plot=plot, compare=compare, as_json=as_json)
