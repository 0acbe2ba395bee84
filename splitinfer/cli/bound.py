"""``splitinfer bound``: how far policies are from what no policy can beat."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from splitinfer.cli.options import AsJson, Changes, DeviceName, LatencyPrice, ScenarioName, Seed, scenario_from
from splitinfer.errors import InputError

if TYPE_CHECKING:
    from splitinfer.simulation import Cost, Scenario


def bound(
    scenario: ScenarioName = "table2",
    slots: Annotated[int, typer.Option(min=1, help="Length of the trace in slots.")] = 2_000,
    policies: Annotated[
        str, typer.Option(metavar="POLICY,POLICY", help="As in simulate; under both allocations.")
    ] = "fixed,best-static,myopic,lyappo,price",
    latency_price: LatencyPrice = None,
    device: DeviceName = None,
    seed: Seed = 0,
    fluid: Annotated[bool, typer.Option(help="Also solve the convex programme, up to 3,000 slots.")] = True,
    settings: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Print a proven lower bound on energy + w x latency for a trace, and every policy's distance to it.

    w is the scenario's latency_price_w. Each policy runs under drift-plus-penalty with the scenario's energy weights,
    under drift-plus-penalty with the best of a few multiples of them, and under price.

    Example:
      splitinfer bound --scenario table2 --slots 2000
      splitinfer bound --scenario busy --latency-price 0.003 --policies price,best-static
    """
    from splitinfer.cli.output import print_table, progress_bar, say
    from splitinfer.cli.simulate import policy_list
    from splitinfer.policies import named_policy
    from splitinfer.simulation import lower_bound

    world = scenario_from(scenario, settings, latency_price=latency_price, device=device)
    if isinstance(world.latency_price_w, tuple):
        raise InputError("latency_price_w: the table needs one price for all devices")
    if world.p95_latency_s is not None:
        raise InputError("p95_latency_s: the bound is for a given price of latency; leave the target out")
    names = policy_list(policies)
    for name in names:
        named_policy(name, world)
    say(f"bounding {slots:,} slots of {world.name}")
    floor = lower_bound(world, slots, seed, fluid=fluid)
    rows = []
    with progress_bar("policies") as progress:
        for done, name in enumerate(names):
            progress(done, len(names))
            rows += [(name, *row) for row in _costs(world, name, slots, seed)]
    if as_json:
        record = {
            "scenario": world.name,
            "slots": slots,
            "tasks": floor.tasks,
            "latency_price_w": world.latency_price_w,
            "bound_j": floor.cost_j,
            "alone_j": floor.alone_j.tolist(),
            "fluid_j": floor.fluid_j.tolist(),
            "policies": [
                {
                    "policy": name,
                    "allocation": one.allocation,
                    "weights": how,
                    "cost_j": one.cost_j,
                    "energy_j": one.energy_j,
                    "latency_s": one.latency_s,
                    "ratio": one.cost_j / floor.cost_j if floor.cost_j else None,
                }
                for name, how, one in rows
            ],
        }
        print(json.dumps(record))
        return
    print(f"{world.name}: {floor.tasks} tasks in {slots:,} slots, w = {world.latency_price_w:g} W")
    print(f"no policy costs less than {floor.cost_j:.4g} J, the better per device of two bounds:")
    print(f"each task alone {floor.alone_j.sum():.4g} J, all tasks as a fluid {floor.fluid_j.sum():.4g} J")
    print()
    print_table(
        ["policy", "allocation", "weights", "cost J", "over the bound", "energy J", "latency ms"],
        [
            [
                name,
                one.allocation,
                how,
                f"{one.cost_j:.4g}",
                f"{one.cost_j / floor.cost_j:.2f}" if floor.cost_j else "-",
                f"{one.energy_j:.4g}",
                f"{one.latency_s * 1e3:.0f}" if one.latency_s == one.latency_s else "-",
            ]
            for name, how, one in rows
        ],
        left=("policy", "allocation", "weights"),
    )


def _costs(world: Scenario, name: str, slots: int, seed: int) -> list[tuple[str, Cost]]:
    """A policy under drift-plus-penalty (as given, and at its best weights where others are better) and under price."""
    from splitinfer.policies import named_policy
    from splitinfer.simulation import cost_of

    drift = world.replace(allocation="drift-plus-penalty")
    costs = [("as given", cost_of(drift, named_policy(name, drift), slots, seed))]
    for step in range(-4, 3):
        # The ratio under which a second of backlog costs about the same on the processor and on the link.
        local = 1e18 * 4.0**step
        other = drift.replace(local_energy_weight=local, transmission_energy_weight=1e-5 * local)
        costs.append((f"U^l {local:.1e}", cost_of(other, named_policy(name, other), slots, seed)))
    best = min(costs, key=lambda one: one[1].cost_j)
    priced = world.replace(allocation="price")
    rows = [costs[0]] if best is costs[0] else [costs[0], best]
    return [*rows, (f"w {world.latency_price_w:g}", cost_of(priced, named_policy(name, priced), slots, seed))]
