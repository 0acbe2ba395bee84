"""``splitinfer run``: the scheduler in the loop on this machine."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from splitinfer.cli.options import (
    Allocation,
    AsJson,
    Batch,
    Cards,
    Changes,
    CompareRun,
    DeviceName,
    Duration,
    EngineName,
    Images,
    LatencyPrice,
    MeterName,
    MetricsPort,
    OtlpEndpoint,
    P95Target,
    PatienceS,
    PlotFile,
    PolicyName,
    ScenarioName,
    Seed,
    SlotsOnFailure,
    Threads,
    TraceFile,
    WebPort,
    scenario_from,
)
from splitinfer.errors import InputError

MAX_DURATION_S = 1e8
"""Longest live run, three years."""

_WORTH_A_TRIAL_S = 20.0
"""Real length of a run, seconds, from which on a trial says beforehand whether this host is quick enough."""


def run(
    scenario: ScenarioName = "table2",
    policy: PolicyName = "fixed",
    duration: Duration = 60.0,
    devices: Annotated[int | None, typer.Option(min=1, help="Number of devices instead of the scenario's.")] = None,
    seed: Seed = 0,
    time_scale: Annotated[
        str,
        typer.Option(
            help="Real time per scenario time; 0.1 is ten times faster, where the machine allows; auto: as it allows."
        ),
    ] = "1.0",
    patience_s: PatienceS = 0.0,
    images: Images = None,
    cards: Cards = None,
    settings: Changes = None,
    allocation: Allocation = None,
    latency_price: LatencyPrice = None,
    device: DeviceName = None,
    threads: Threads = 1,
    engine: EngineName = "torch",
    workers: Annotated[int, typer.Option(min=1, help="Tails computed at the same time at the edge.")] = 1,
    batch: Batch = 1,
    meter: MeterName = "none",
    on_failure: SlotsOnFailure = "fail",
    lease_s: Annotated[
        float | None,
        typer.Option(help="Go on without a device that is lost, or silent for so many seconds; else the run ends."),
    ] = None,
    p95_target_s: P95Target = None,
    trace: TraceFile = None,
    plot: PlotFile = None,
    compare: CompareRun = False,
    as_json: AsJson = False,
    metrics_port: MetricsPort = None,
    web_port: WebPort = None,
    otlp: OtlpEndpoint = None,
) -> None:
    """Run a scenario on real processes: an edge, and one process per device.

    Heads and tails really run, on real photos; tensors really cross, over gRPC; every answer is compared with the whole
    model's. Emulated are the devices' clock and radio, which pace the real work slot by slot. Energies come from the
    model. Exits with 1 when an answer is wrong.

    Example:
      splitinfer run --scenario table2 --policy fixed --duration 60
      splitinfer run --scenario xr --policy lyappo --duration 60 --time-scale auto
      splitinfer run --scenario table2 --policy lyappo --duration 20 --trace run.jsonl --plot run.png
    """
    from splitinfer.cli.live_report import tell
    from splitinfer.cli.output import say
    from splitinfer.cli.watching import watching
    from splitinfer.energy.meter import find_meter
    from splitinfer.models.photos import photos
    from splitinfer.runtime.loop import LoopSettings, run_locally
    from splitinfer.runtime.loop.host_fit import fit_time_scale, warn_if_slow
    from splitinfer.runtime.loop.world import card_files
    from splitinfer.runtime.metrics import metrics_at
    from splitinfer.runtime.perseverance import checked_on_failure
    from splitinfer.runtime.settings import ServerSettings
    from splitinfer.simulation.plot import check_plot_path
    from splitinfer.simulation.references import reference_energies_j
    from splitinfer.web.server import page_at

    world = scenario_from(scenario, settings, allocation=allocation, latency_price=latency_price, device=device)
    if devices is not None:
        world = world.replace(num_devices=devices)
    if plot is not None:
        check_plot_path(plot)
    loop = LoopSettings(
        slots=slots_of(duration, world.slot_s),
        seed=seed,
        time_scale=1.0 if time_scale == "auto" else scale_of(time_scale),
        patience_s=patience_s,
        torch_threads=threads,
        tail_workers=workers,
        batch=batch,
        lease_s=lease_s,
        p95_target_s=p95_target_s,
    )
    chosen = checked_on_failure(on_failure)
    pictures = photos(images)
    before = None
    if time_scale == "auto":
        before = partial(fit_time_scale, say=say)
    elif patience_s == 0 and duration * loop.time_scale >= _WORTH_A_TRIAL_S:
        before = partial(warn_if_slow, say=say)
    host_meter, about_meter = find_meter(meter)
    readings_j: list[float] = []
    with (
        metrics_at(metrics_port, ServerSettings()) as metrics,
        page_at(web_port) as page,
        watching(trace, readings_j, host_meter) as observer,
    ):
        if page is not None:
            page.state.references_j = reference_energies_j(world, loop.slots, loop.seed)
            observer.add("the page", page.add, most_waiting=None)
            print(f"live page at {page.address}", file=sys.stderr, flush=True)
        if metrics is not None:
            observer.add("the metrics", metrics.add, most_waiting=None)
        record = run_locally(
            world,
            policy,
            loop,
            cards=card_files(cards or []),
            images=pictures,
            engine=engine,
            on_failure=chosen,
            otlp=otlp,
            observer=observer,
            before=before,
        )
    measured: tuple[float | None, str] | None = None
    if host_meter is not None:
        measured = readings_j[-1] - readings_j[0], about_meter
    elif meter != "none":
        measured = None, about_meter
    tell(world, record.result(world), policy, trace=trace, plot=plot, compare=compare, as_json=as_json, host=measured)


def scale_of(text: str) -> float:
    """Return a time scale."""
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--time-scale: must be a number above 0, or auto, not {text!r}") from None


def slots_of(duration_s: float, slot_s: float) -> int:
    """Return a duration in slots."""
    if not slot_s / 2 < duration_s <= MAX_DURATION_S:
        raise InputError(
            f"--duration: must be at least one slot ({slot_s} s) and at most {MAX_DURATION_S:.0f} s, not {duration_s}"
        )
    return round(duration_s / slot_s)
