"""``splitinfer edge``: the edge of one live run whose devices come from other machines."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from splitinfer.cli.options import (
    AsJson,
    Batch,
    Cards,
    Changes,
    ClientCa,
    CompareRun,
    DrainS,
    Duration,
    EngineName,
    Host,
    Insecure,
    MaxMessageMib,
    MetricsPort,
    OtlpEndpoint,
    P95Target,
    PatienceS,
    PlotFile,
    PolicyName,
    Port,
    ScenarioName,
    Seed,
    ServerCert,
    Threads,
    TimeScale,
    TlsKey,
    TokenFile,
    TraceFile,
    WebPort,
)


def edge(
    scenario: ScenarioName = "table2",
    policy: PolicyName = "fixed",
    duration: Duration = 60.0,
    host: Host = "127.0.0.1",
    port: Port = 50051,
    seed: Seed = 0,
    time_scale: TimeScale = 1.0,
    patience_s: PatienceS = 0.0,
    join_s: Annotated[float, typer.Option(help="Longest wait for the devices, seconds.")] = 300.0,
    lease_s: Annotated[
        float,
        typer.Option(help="How long a silent device keeps its place, seconds; then the others go on; it can return."),
    ] = 10.0,
    p95_target_s: P95Target = None,
    threads: Threads = 1,
    engine: EngineName = "torch",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Tails computed at the same time; as many as fill the processors.")
    ] = None,
    batch: Batch = 1,
    changes: Changes = None,
    cards: Cards = None,
    trace: TraceFile = None,
    plot: PlotFile = None,
    compare: CompareRun = False,
    as_json: AsJson = False,
    max_message_mib: MaxMessageMib = 64,
    drain_s: DrainS = 5.0,
    insecure: Insecure = False,
    tls_cert: ServerCert = None,
    tls_key: TlsKey = None,
    client_ca: ClientCa = None,
    token_file: TokenFile = None,
    metrics_port: MetricsPort = None,
    web_port: WebPort = None,
    otlp: OtlpEndpoint = None,
) -> None:
    """Be the edge of one live run: wait for every device of a scenario, decide their cuts, run their tails.

    The devices (the device verb, here or on other machines) get the length, seed, time scale and patience of the run
    from it. It prints a report at the end and exits with 1 when an answer was wrong.

    Example:
      splitinfer edge --scenario table2 --policy lyappo --host 0.0.0.0 --tls-cert server.crt --tls-key server.key
    """
    from splitinfer.cli.live_report import tell
    from splitinfer.cli.output import say
    from splitinfer.cli.run import slots_of
    from splitinfer.cli.serve import limits_of
    from splitinfer.cli.watching import watching
    from splitinfer.graph.engines import checked_engine, set_threads
    from splitinfer.models import CaptureOptions
    from splitinfer.policies import named_policy
    from splitinfer.runtime.events import Event, Started
    from splitinfer.runtime.loop import LiveRecord, LoopSettings
    from splitinfer.runtime.loop.ticker import SWITCH_S
    from splitinfer.runtime.loop.world import card_files, check_live, check_models, check_policy
    from splitinfer.runtime.metrics import metrics_at
    from splitinfer.runtime.security import ServerSecurity
    from splitinfer.runtime.settings import ServerSettings
    from splitinfer.runtime.tracing import check_endpoint, tracing_to
    from splitinfer.runtime.transport import check_free
    from splitinfer.simulation import find_scenario, with_settings
    from splitinfer.simulation.plot import check_plot_path
    from splitinfer.simulation.references import reference_energies_j
    from splitinfer.web.server import page_at

    server = ServerSettings(
        host=host,
        port=port,
        insecure=insecure,
        security=ServerSecurity(tls_cert, tls_key, client_ca, token_file),
        torch_threads=threads,
        parallel_tails=workers,
        drain_s=drain_s,
        limits=limits_of(max_message_mib),
    )
    world = with_settings(find_scenario(scenario), changes or [])
    loop = LoopSettings(
        slots=slots_of(duration, world.slot_s),
        seed=seed,
        time_scale=time_scale,
        patience_s=patience_s,
        torch_threads=threads,
        tail_workers=server.tails_at_once,
        batch=batch,
        join_s=join_s,
        lease_s=lease_s,
        p95_target_s=p95_target_s,
    )
    if plot is not None:
        check_plot_path(plot)
    check_endpoint(otlp)
    check_live(world)
    chosen = named_policy(policy, world)
    check_policy(chosen, world)
    files = card_files(cards or [])
    check_models(world, files)
    checked_engine(engine)
    check_free(server)
    sys.setswitchinterval(SWITCH_S)
    record = LiveRecord()

    def on_listen(address: str) -> None:
        waiting = f"waiting for {world.num_devices} devices of {world.name} on {address}"
        print(waiting, file=sys.stderr if as_json else sys.stdout, flush=True)

    def on_event(event: Event) -> None:
        if isinstance(event, Started):
            begin = (
                f"all {world.num_devices} are here: {event.slots} slots of {event.slot_s * 1e3 * time_scale:g} ms begin"
            )
            print(begin, file=sys.stderr if as_json else sys.stdout, flush=True)

    with (
        metrics_at(metrics_port, server) as metrics,
        page_at(web_port) as page,
        tracing_to(otlp, "splitinfer-edge") as tracing,
        watching(trace, []) as observer,
    ):
        from splitinfer.runtime.loop import run_edge  # torch, from here on: what is wrong is said before
        from splitinfer.runtime.loop.services import ServiceLoader

        set_threads(threads)
        say(f"capturing the models of {world.name} and compiling their cuts")
        models = ServiceLoader(files, options=CaptureOptions(engine=engine)).models(world)
        if page is not None:
            page.state.references_j = reference_energies_j(world, loop.slots, loop.seed)
            observer.add("the page", page.add, most_waiting=None)
            print(f"live page at {page.address}", file=sys.stderr, flush=True)
        if metrics is not None:
            observer.add("the metrics", metrics.add, most_waiting=None)
        observer.add("the beginning", on_event, most_waiting=None)
        observer.add("the report", record.add, most_waiting=None)
        run_edge(world, chosen, models, loop, server, on_listen=on_listen, observer=observer, tracing=tracing)
    tell(world, record.result(world), policy, trace=trace, plot=plot, compare=compare, as_json=as_json)
