"""``splitinfer run``: the scheduler in the loop on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitinfer.errors import InputError


def run(
    scenario: Annotated[str, typer.Option(help="A preset (table2, busy, xr, drifting) or a TOML file.")] = "table2",
    policy: Annotated[
        str,
        typer.Option(
            help="fixed (the scenario's), fixed:0,53 (these), random, best-static, myopic, lyappo (ready trained), or "
            "the folder of a training run."
        ),
    ] = "fixed",
    duration: Annotated[float, typer.Option(help="Length of the run, seconds of the scenario's time.")] = 60.0,
    devices: Annotated[int | None, typer.Option(min=1, help="Number of devices instead of the scenario's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals and channel, as in simulate.")] = 0,
    time_scale: Annotated[
        float, typer.Option(help="Real time per scenario time; 0.1 is ten times faster, where the machine allows.")
    ] = 1.0,
    patience_s: Annotated[
        float,
        typer.Option(help="Let time stand still this long for late work, instead of carrying it into later slots."),
    ] = 0.0,
    images: Annotated[Path | None, typer.Option(help="Folder of pictures to run on; one photo by default.")] = None,
    cards: Annotated[
        list[Path] | None, typer.Option("--card", metavar="FILE", help="Card file of a model that is not shipped.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the scenario.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads inside one operation.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Tails computed at the same time at the edge.")] = 1,
    meter: Annotated[
        str, typer.Option(help="Also measure what this whole host spends: rapl or nvml; auto takes what there is.")
    ] = "none",
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every event as a line of JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw queues, cuts, frequency and power over time.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Simulate the same run too, and show both.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Run a scenario on real processes: an edge, and one process per device.

    Heads and tails really run, on real photos; tensors really cross, over gRPC; every answer is compared with the whole
    model's. Emulated are the devices' clock and radio, which pace the real work slot by slot. Energies come from the
    model. Exits with 1 when an answer is wrong.

    Example:
      splitinfer run --scenario table2 --policy fixed --duration 60
      splitinfer run --scenario table2 --policy lyappo --duration 20 --trace run.jsonl --plot run.png
    """
    from splitinfer.cli.live_report import tell
    from splitinfer.cli.watching import watching
    from splitinfer.energy.meter import find_meter
    from splitinfer.models.photos import photos
    from splitinfer.runtime.loop import LoopSettings, run_locally
    from splitinfer.runtime.loop.services import card_files
    from splitinfer.simulation import find_scenario, with_settings
    from splitinfer.simulation.plot import check_plot_path

    world = with_settings(find_scenario(scenario), settings or [])
    if devices is not None:
        world = world.replace(num_devices=devices)
    if plot is not None:
        check_plot_path(plot)
    loop = LoopSettings(
        slots=slots_of(duration, world.slot_s),
        seed=seed,
        time_scale=time_scale,
        patience_s=patience_s,
        torch_threads=threads,
        tail_workers=workers,
    )
    pictures = photos(images)
    host_meter, about_meter = find_meter(meter)
    readings_j: list[float] = []
    with watching(trace, readings_j, host_meter) as observer:
        record = run_locally(world, policy, loop, cards=card_files(cards or []), images=pictures, observer=observer)
    measured: tuple[float | None, str] | None = None
    if host_meter is not None:
        measured = readings_j[-1] - readings_j[0], about_meter
    elif meter != "none":
        measured = None, about_meter
    tell(world, record.result(world), policy, trace=trace, plot=plot, compare=compare, as_json=as_json, host=measured)


def slots_of(duration_s: float, slot_s: float) -> int:
    """Return a duration in slots."""
    slots = round(duration_s / slot_s)
    if slots < 1:
        raise InputError(f"--duration: must be at least one slot ({slot_s} s), not {duration_s}")
    return slots
