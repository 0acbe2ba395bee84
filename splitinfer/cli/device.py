"""``splitinfer device``: one device under an edge's scheduler."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitinfer.cli.options import (
    Cards,
    ClientCert,
    EngineName,
    Images,
    MaxMessageMib,
    MeterName,
    OtlpEndpoint,
    SlotsOnFailure,
    Threads,
    TlsCa,
    TlsKey,
    TokenFile,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from splitinfer.errors import RemoteError
    from splitinfer.runtime.loop.device import Service
    from splitinfer.scheduling.period import Period
    from splitinfer.simulation import Scenario
    from splitinfer.wire import splitinfer_pb2 as pb


def device(
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="The edge: splitinfer edge --scenario ...")],
    index: Annotated[int, typer.Option(min=0, help="Which device of the scenario this is, from 0.")] = 0,
    scenario: Annotated[str, typer.Option(help="The edge's scenario: a preset or a TOML file.")] = "table2",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field, as at the edge.")
    ] = None,
    heads: Annotated[
        list[Path] | None,
        typer.Option("--heads", metavar="DIR", help="What splitinfer export wrote, for each model; needs no torch."),
    ] = None,
    images: Images = None,
    cards: Cards = None,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0.0, max=1e6, metavar="S", help="Wait so long for the edge to answer.")
    ] = 60.0,
    threads: Threads = 1,
    engine: EngineName = "torch",
    max_message_mib: MaxMessageMib = 64,
    meter: MeterName = "none",
    on_failure: SlotsOnFailure = "fail",
    otlp: OtlpEndpoint = None,
    tls_ca: TlsCa = None,
    tls_cert: ClientCert = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
) -> None:
    """Run the heads of one device: its queues, its allocation each slot, its emulated clock and radio.

    The edge decides when the run starts, how long it is, how fast time goes, and the cuts. Every answer is compared
    with the whole model's. With --on-failure fallback a device whose edge goes away finishes the run by itself.
    With --heads the models come from exported files, of the cuts that the edge may choose, and torch is not needed.

    Example:
      splitinfer device --server 192.168.1.10:50051 --index 0 --scenario table2
      splitinfer device --server 192.168.1.10:50051 --heads resnet18-heads --heads vgg16-heads
    """
    from splitinfer.cli.serve import limits_of
    from splitinfer.energy.meter import find_meter
    from splitinfer.errors import CheckFailedError, InputError
    from splitinfer.runtime.loop import run_device
    from splitinfer.runtime.loop.device_run import DeviceTimes, check_device
    from splitinfer.runtime.loop.ticker import SWITCH_S
    from splitinfer.runtime.perseverance import checked_on_failure
    from splitinfer.runtime.security import ClientSecurity
    from splitinfer.runtime.tracing import check_endpoint, tracing_to
    from splitinfer.runtime.transport import checked_target
    from splitinfer.simulation import find_scenario, with_settings

    if heads and engine != "torch":
        raise InputError("--engine: exported heads run in ONNX Runtime; leave it out with --heads")
    world = with_settings(find_scenario(scenario), settings or [])
    check_device(world, index)
    check_endpoint(otlp)
    target = checked_target(server)
    security = ClientSecurity(tls_ca, tls_cert, tls_key, token_file)
    security.metadata(target)
    host_meter, about_meter = find_meter(meter)
    readings_j: list[float] = []
    sys.setswitchinterval(SWITCH_S)
    if heads:
        services = _exported(world, index, heads, images, threads, cards)
    else:
        services = _captured(world, index, images, threads, engine, cards)
    times = DeviceTimes(connect_s=wait_s)
    models = ", ".join(service.name for service in services)
    print(
        f"device {index}: {models}; waits up to {wait_s:g} s for {target}, then up to {times.join_s:g} s for the other "
        "devices",
        flush=True,
    )

    def on_start(start: pb.Start) -> None:
        print(f"device {index}: {start.slots:,} slots of {start.slot_wall_s * 1e3:g} ms begin", flush=True)
        if host_meter is not None:
            readings_j.append(host_meter.joules())

    spent_j = [0.0, 0.0]

    def on_period(slot: int, means: Period, cuts: Sequence[int]) -> None:
        spent_j[0] += float(means.local_energy_j[0]) * means.slots
        spent_j[1] += float(means.transmission_energy_j[0]) * means.slots

    def on_alone(slot: int, stranded: int, error: RemoteError) -> None:
        print(f"device {index}: alone from slot {slot} on, with {stranded} tasks to finish here: {error}", flush=True)

    def on_return(slot: int) -> None:
        print(f"device {index}: back at the edge from slot {slot} on", flush=True)

    with tracing_to(otlp, "splitinfer-device") as tracing:
        farewell = run_device(
            target,
            world,
            index,
            services,
            limits=limits_of(max_message_mib),
            security=security,
            times=times,
            on_failure=checked_on_failure(on_failure),
            on_alone=on_alone,
            on_return=on_return,
            on_start=on_start,
            on_period=on_period,
            tracing=tracing,
        )
    _show(index, farewell)
    print(f"device {index}: {spent_j[0]:.4g} J of computing and {spent_j[1]:.4g} J of sending, by the model")
    if host_meter is not None:
        measured_j = host_meter.joules() - readings_j[0]
        print(f"device {index}: measured meanwhile {measured_j:.1f} J, {about_meter}, whatever else this host did")
    elif meter != "none":
        print(about_meter)
    if farewell.wrong or farewell.unexpected:
        raise CheckFailedError(f"{farewell.wrong} of {farewell.checked} answers are wrong")


def _captured(
    world: Scenario, index: int, images: Path | None, threads: int, engine: str, cards: list[Path] | None
) -> Sequence[Service]:
    """Return the services from models that torch loads here."""
    from splitinfer.cli.output import say
    from splitinfer.graph.engines import checked_engine, set_threads
    from splitinfer.models import CaptureOptions
    from splitinfer.models.photos import photos
    from splitinfer.runtime.loop.world import card_files, check_models

    files = card_files(cards or [])
    check_models(world, files)
    checked_engine(engine)
    pictures = photos(images)
    from splitinfer.runtime.loop.services import ServiceLoader  # torch, from here on

    set_threads(threads)
    say(f"capturing the models of device {index} of {world.name} and compiling their cuts")
    return ServiceLoader(files, pictures, options=CaptureOptions(engine=engine)).services(world, index)


def _exported(
    world: Scenario, index: int, heads: list[Path], images: Path | None, threads: int, cards: list[Path] | None
) -> Sequence[Service]:
    """Return the services from exported files, without torch."""
    from splitinfer.errors import InputError
    from splitinfer.models.photos import photos
    from splitinfer.runtime.loop.exported import exported_services

    if cards:
        raise InputError("--card: an exported head has its model with it; leave the option out")
    pictures = [] if images is None else photos(images)
    return exported_services(world, index, heads, images=pictures, threads=threads)


def _show(index: int, farewell: pb.Farewell) -> None:
    print(
        f"device {index}: {farewell.checked} answers, all checked, {farewell.wrong} wrong; {farewell.unanswered} tasks "
        f"under way; {farewell.slot_overruns} slots overran, {farewell.late_jobs} of {farewell.jobs} heads were late"
    )
