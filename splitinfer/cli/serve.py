"""``splitinfer serve``: the edge server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitinfer.errors import InputError

if TYPE_CHECKING:
    from splitinfer.runtime import EdgeServer
    from splitinfer.wire import WireLimits


_DEFAULT_MODELS = "resnet18"


def serve(
    models: Annotated[
        str, typer.Option(help="Models to serve, separated by commas: card names, package.module:factory, card files.")
    ] = _DEFAULT_MODELS,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 50051,
    threads: Annotated[int, typer.Option(min=1, help="Threads inside one operation of a tail.")] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Tails computed at the same time; as many as fill the processors.")
    ] = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="PIXELS", help="Height and width instead of the cards': 160 or 240x320.")
    ] = None,
    max_message_mib: Annotated[int, typer.Option(min=1, help="Largest message taken, MiB.")] = 64,
    drain_s: Annotated[float, typer.Option(help="Seconds that calls get to finish when stopping.")] = 5.0,
    warm: Annotated[bool, typer.Option("--warm", help="Compile every tail before answering.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine, unencrypted and open to everyone.")
    ] = False,
    scenario: Annotated[
        str | None,
        typer.Option(help="Be the edge of one live run of this preset or TOML file; its services name the models."),
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            help="With --scenario: fixed (the scenario's), fixed:0,53, random, best-static, myopic, lyappo (ready "
            "trained), or the folder of a training run."
        ),
    ] = "fixed",
    duration: Annotated[float, typer.Option(help="With --scenario: length of the run, seconds.")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="With --scenario: of arrivals and channel.")] = 0,
    time_scale: Annotated[
        float,
        typer.Option(help="With --scenario: real time per scenario time; 0.1 is ten times faster. Devices are told."),
    ] = 1.0,
    patience_s: Annotated[
        float,
        typer.Option(help="With --scenario: let time stand still this long for late work. Devices are told."),
    ] = 0.0,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="With --scenario: change a field of it."),
    ] = None,
    cards: Annotated[
        list[Path] | None,
        typer.Option("--card", metavar="FILE", help="With --scenario: card file of a model that is not shipped."),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --scenario: write every event as a line of JSON.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="With --scenario: draw queues, cuts, frequency and power.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="With --scenario: simulate the same run too, and show both.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --scenario: print one JSON object at the end and nothing else.")
    ] = False,
    join_s: Annotated[float, typer.Option(help="With --scenario: longest wait for the devices, seconds.")] = 300.0,
) -> None:
    """Run the edge server: it computes the tails of the models it holds.

    It stops cleanly on Ctrl-C or SIGTERM, after the calls under way. Health checks and reflection are on.

    With --scenario it is the edge of one live run instead: it waits for every device of the scenario (the device verb,
    here or on other machines), decides their cuts, runs their tails, and prints a report at the end. The devices get
    the length, seed, time scale and patience of the run from it.

    Example:
      splitinfer serve --models resnet18,mobilenet_v2 --port 50051
      splitinfer serve --scenario table2 --policy lyappo --duration 60 --host 192.168.1.10 --insecure
    """
    from splitinfer.cli.profile import parse_input_size
    from splitinfer.models.options import CaptureOptions
    from splitinfer.runtime.serving import serve as serve_until_stopped
    from splitinfer.runtime.settings import ServerSettings

    if scenario is not None:
        if models != _DEFAULT_MODELS:
            raise InputError("--models: a live run serves the scenario's models; leave it out")
        from splitinfer.cli.serve_scenario import serve_scenario

        serve_scenario(
            scenario,
            policy,
            duration_s=duration,
            seed=seed,
            time_scale=time_scale,
            patience_s=patience_s,
            join_s=join_s,
            changes=changes or [],
            cards=cards or [],
            trace=trace,
            plot=plot,
            compare=compare,
            as_json=as_json,
            server=ServerSettings(
                host=host,
                port=port,
                insecure=insecure,
                torch_threads=threads,
                parallel_tails=workers,
                drain_s=drain_s,
                limits=_limits(max_message_mib),
            ),
        )
        return
    for option, is_given in (
        ("--policy", policy != "fixed"),
        ("--time-scale", time_scale != 1.0),
        ("--patience-s", patience_s != 0.0),
        ("--set", bool(changes)),
        ("--card", bool(cards)),
        ("--trace", trace is not None),
        ("--plot", plot is not None),
        ("--compare", compare),
        ("--json", as_json),
    ):
        if is_given:
            raise InputError(f"{option} is for a live run; give its --scenario")
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names:
        raise InputError("--models needs at least one model, for example resnet18")
    settings = ServerSettings(
        host=host,
        port=port,
        insecure=insecure,
        torch_threads=threads,
        parallel_tails=workers,
        drain_s=drain_s,
        limits=_limits(max_message_mib),
    )
    options = CaptureOptions(input_size=parse_input_size(input_size), threads=threads)
    serve_until_stopped(names, settings, announce=_announce, warm=warm, options=options)
    print("stopped", flush=True)


def _limits(max_message_mib: int) -> WireLimits:
    from splitinfer.wire.limits import MIB, WireLimits

    return WireLimits(max_message_bytes=max_message_mib * MIB, max_tensor_bytes=max_message_mib * MIB)


def _announce(server: EdgeServer) -> None:
    print(f"serving {', '.join(server.models)} on {server.address} (Ctrl-C stops)", flush=True)
