"""``splitinfer pareto``: what energy costs in delay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from splitinfer.cli.options import AsJson, Changes, PolicyName, ScenarioName
from splitinfer.errors import InputError


def pareto(
    scenario: ScenarioName = "table2",
    policy: PolicyName = "fixed",
    local: Annotated[
        str, typer.Option(metavar="FROM:TO:N", help="U^l, N values evenly in the logarithm.")
    ] = "1e15:1e20:11",
    transmission: Annotated[str, typer.Option(metavar="FROM:TO:N", help="U^t, likewise.")] = "1e9:1e14:11",
    slots: Annotated[int, typer.Option(min=1, help="Length of each run in slots.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed; all runs meet the same arrivals and gains.")] = 0,
    settings: Changes = None,
    plot: Annotated[Path | None, typer.Option(help="Draw energy against mean and 95th-percentile latency.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sweep the energy weights U^l and U^t and show energy against delay.

    The table has the efficient pairs (no other has both less energy and a lower 95th percentile) and the scenario's own
    weights; --json has all of them.

    Example:
      splitinfer pareto --scenario busy --plot pareto.png
    """
    from splitinfer.cli.output import print_table, say
    from splitinfer.policies import named_policy
    from splitinfer.simulation import find_scenario, with_settings
    from splitinfer.simulation.pareto import sweep_weights
    from splitinfer.simulation.plot import check_plot_path, plot_pareto

    if plot is not None:
        check_plot_path(plot)
    world = with_settings(find_scenario(scenario), settings or [])
    locals_, sent = _weights(local, "--local"), _weights(transmission, "--transmission")
    say(f"simulating {len(locals_) * len(sent)} pairs of weights over {slots:,} slots each")
    points = sweep_weights(
        world,
        named_policy(policy, world),
        local_weights=locals_,
        transmission_weights=sent,
        slots=slots,
        seed=seed,
    )
    if plot is not None:
        plot_pareto(points, plot, title=f"{world.name}, policy {policy}: {len(points)} pairs of weights (simulated)")
    if as_json:
        record = {"scenario": world.name, "policy": policy, "slots": slots, "seed": seed}
        print(json.dumps(record | {"points": [point.to_dict() for point in points]}))
        return
    own = points[0]
    shown = sorted((point for point in points if point.efficient or point is own), key=lambda p: p.latency_p95_s)
    unstable = sum(not point.stable for point in points)
    print(
        f"{world.name}, policy {policy}: {len(points)} pairs of weights, {slots:,} slots each, "
        f"{unstable} unstable or unsettled"
    )
    print()
    rows = [
        [
            f"{point.local_energy_weight:.2e}",
            f"{point.transmission_energy_weight:.2e}",
            f"{point.energy_j * 1e3:.4f}",
            f"{point.energy_j / own.energy_j:.0%}" if own.energy_j else "-",
            f"{point.latency_mean_s * 1e3:.0f}",
            f"{point.latency_p95_s * 1e3:.0f}",
            "the scenario's" + ("" if point.stable else ", unstable") if point is own else "",
        ]
        for point in shown
    ]
    print_table(["U^l", "U^t", "energy mJ", "of scenario's", "latency ms", "p95 ms", ""], rows)
    if plot is not None:
        print(f"wrote {plot}")


def _weights(text: str, option: str) -> list[float]:
    import numpy as np

    try:
        first, last, count = text.split(":")
        low, high, number = float(first), float(last), int(count)
    except ValueError:
        raise InputError(f"{option}: write FROM:TO:N, for example 1e15:1e20:11, not {text!r}") from None
    if not (0 < low <= high < float("inf") and number >= 1):
        raise InputError(f"{option}: needs 0 < FROM <= TO and N of at least 1, not {text!r}")
    return [float(weight) for weight in np.geomspace(low, high, number)]
