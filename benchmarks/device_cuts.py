"""How the best cut of a model moves between devices, and what the paper's power law would have got wrong.

One device with one model, one request every five seconds, allocation by the price of time. For each device card and
model the fixed cut of least energy + w x latency is searched by simulation twice: with the card as it is, and with the
paper's law in its place, P = delta f^3 that draws the same at F^l and a radio that draws what it radiates. The second
cut is then run on the card as it is. ``believed`` is the energy per task that the paper's law expects of its cut,
``true`` what the card draws for it, ``best`` what the card draws at the card's own best cut.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "squeezenet1_0", "densenet121", "vit_b_16")
CARDS = ("paper", "pixel6", "snapdragon865", "snapdragon865:lte", "snapdragon865:5g", "jetson_nano")
SEEDS = (0, 1, 2)
EDGE_CYCLES_PER_MAC = 0.12


def world_of(model: str, card: str, *, latency_price_w: float, bandwidth_hz: float) -> Any:
    """Return the world of one device."""
    from splitinfer.simulation import Scenario

    return Scenario(
        name=f"{model} on {card}",
        num_devices=1,
        services=(model,),
        device=card,
        bandwidth_hz=bandwidth_hz,
        distances_m=(150.0,),
        allocation="price",
        latency_price_w=latency_price_w,
        cycles_per_mac=EDGE_CYCLES_PER_MAC,
    )


def by_papers_law(world: Any) -> Any:
    """Return the same world with the paper's laws of power in the card's place."""
    card = world.cards[0]
    rho = world.device_cycles_per_mac(0)
    return world.replace(
        name=world.name,
        device="paper",
        energy_coefficient=card.effective_cubic,
        max_local_frequency_hz=card.used_core.limit_hz,
        max_power_w=card.used_radio.max_power_w,
        cycles_per_mac=rho,  # of the edge too, which is as quick as before with as many more cycles a second
        max_edge_frequency_hz=world.max_edge_frequency_hz * rho / world.cycles_per_mac,
    )


def judged(world: Any, cut: int, slots: int) -> dict[str, float]:
    """Return energy, latency and cost per task of a fixed cut."""
    from splitinfer.policies import named_policy
    from splitinfer.simulation import simulate

    runs = [simulate(world, named_policy(f"fixed:{cut}", world), slots=slots, seed=seed) for seed in SEEDS]
    energy_j = sum(run.energy_per_task_j for run in runs) / len(runs)
    latency_s = sum(float(run.latency_s.mean()) for run in runs) / len(runs)
    return {"energy_j": energy_j, "latency_s": latency_s, "cost_j": energy_j + world.latency_price_w * latency_s}


def measure(models: tuple[str, ...], cards: tuple[str, ...], *, slots: int, **law: float) -> list[dict[str, Any]]:
    """Return a row per model and card."""
    from splitinfer.simulation import find_best_static

    rows = []
    for model in models:
        for card in cards:
            world = world_of(model, card, **law)
            paper = by_papers_law(world)
            best, theirs = (int(find_best_static(one).report.cuts[0, 0]) for one in (world, paper))
            rows.append(
                {
                    "model": model,
                    "card": card,
                    "num_cuts": int(world.num_cuts[0, 0]),
                    "cut": best,
                    "layer": world.profiles[0][0].cuts[best].name,
                    "papers_cut": theirs,
                    "best": judged(world, best, slots),
                    "believed": judged(paper, theirs, slots),
                    "true": judged(world, theirs, slots),
                }
            )
    return rows


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device_cuts", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--cards", nargs="+", default=list(CARDS))
    parser.add_argument("--latency-price", type=float, default=0.05, help="w, watts")
    parser.add_argument("--bandwidth", type=float, default=5e6, help="hertz")
    parser.add_argument("--slots", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    rows = measure(
        tuple(options.models),
        tuple(options.cards),
        slots=options.slots,
        latency_price_w=options.latency_price,
        bandwidth_hz=options.bandwidth,
    )
    if options.json:
        ratios = {
            f"{row['model']}, {row['card']}: cost of the paper's cut / the best": row["true"]["cost_j"]
            / row["best"]["cost_j"]
            for row in rows
        }
        print(json.dumps({"name": "device_cuts", "ratios": ratios, "rows": rows}))
        return 0
    print("| model (K) | card | best cut | mJ, ms | by the paper's law | believed mJ | true mJ, ms | cost / best |")
    print("| --- | --- | --- | --- | --- | ---: | ---: | ---: |")
    for row in rows:
        best, true = row["best"], row["true"]
        print(
            f"| {row['model']} ({row['num_cuts']}) | {row['card']} | {row['cut']} {row['layer']} "
            f"| {best['energy_j'] * 1e3:.1f}, {best['latency_s'] * 1e3:.0f} | {row['papers_cut']} "
            f"| {row['believed']['energy_j'] * 1e3:.1f} | {true['energy_j'] * 1e3:.1f}, {true['latency_s'] * 1e3:.0f} "
            f"| {true['cost_j'] / best['cost_j']:.2f} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
