"""``splitinfer serve``: the edge server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from splitinfer.cli.options import (
    Batch,
    ClientCa,
    DrainS,
    EngineName,
    Host,
    Insecure,
    LogForm,
    MaxMessageMib,
    MetricsPort,
    OtlpEndpoint,
    Port,
    ServerCert,
    Threads,
    TlsKey,
    TokenFile,
    WebPort,
)
from splitinfer.errors import InputError

if TYPE_CHECKING:
    from splitinfer.runtime import EdgeServer
    from splitinfer.wire import WireLimits


def serve(
    models: Annotated[
        str, typer.Option(help="Models to serve, separated by commas: card names, package.module:factory, card files.")
    ] = "resnet18",
    host: Host = "127.0.0.1",
    port: Port = 50051,
    threads: Threads = 1,
    engine: EngineName = "torch",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Tails computed at the same time; as many as fill the processors.")
    ] = None,
    batch: Batch = 1,
    max_calls: Annotated[int, typer.Option(min=1, help="Calls and streams open at the same time.")] = 256,
    max_wait_s: Annotated[
        float, typer.Option(metavar="S", help="Refuse requests while those that wait will take longer.")
    ] = 5.0,
    input_size: Annotated[
        str | None, typer.Option(metavar="PIXELS", help="Height and width instead of the cards': 160 or 240x320.")
    ] = None,
    max_message_mib: MaxMessageMib = 64,
    drain_s: DrainS = 5.0,
    warm: Annotated[
        bool, typer.Option("--warm", help="Compile every tail, of set cuts too, and try its batches, before answering.")
    ] = False,
    insecure: Insecure = False,
    tls_cert: ServerCert = None,
    tls_key: TlsKey = None,
    client_ca: ClientCa = None,
    token_file: TokenFile = None,
    metrics_port: MetricsPort = None,
    web_port: WebPort = None,
    log: LogForm = None,
    otlp: OtlpEndpoint = None,
    scenario: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the edge server: it computes the tails of the models it holds.

    It stops cleanly on Ctrl-C, SIGTERM or SIGHUP, after the calls under way. Health checks and reflection are on. The
    edge of a live run under a scheduler is a verb of its own, edge.

    With --batch, requests for one tail that queued while the processors were busy are computed together, where trials
    found that this is quicker and answers the same. Nobody waits for a batch to fill.

    Example:
      splitinfer serve --models resnet18,mobilenet_v2 --port 50051
    """
    if scenario is not None:
        raise InputError(f"--scenario: the edge of a live run is now a verb: splitinfer edge --scenario {scenario}")
    from splitinfer.cli.output import say
    from splitinfer.cli.profile import parse_input_size
    from splitinfer.models.options import CaptureOptions
    from splitinfer.runtime.batch_sizes import BatchCounts
    from splitinfer.runtime.events import all_of
    from splitinfer.runtime.logs import log_event, log_to_stderr
    from splitinfer.runtime.metrics import metrics_at
    from splitinfer.runtime.security import ServerSecurity
    from splitinfer.runtime.serving import serve as serve_until_stopped
    from splitinfer.runtime.settings import ServerSettings
    from splitinfer.runtime.tracing import tracing_to
    from splitinfer.web.server import page_at

    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names:
        raise InputError("--models needs at least one model, for example resnet18")
    settings = ServerSettings(
        host=host,
        port=port,
        insecure=insecure,
        security=ServerSecurity(tls_cert, tls_key, client_ca, token_file),
        torch_threads=threads,
        parallel_tails=workers,
        batch=batch,
        max_calls=max_calls,
        max_wait_s=max_wait_s,
        drain_s=drain_s,
        limits=limits_of(max_message_mib),
    )
    options = CaptureOptions(input_size=parse_input_size(input_size), threads=threads, engine=engine)
    batches = BatchCounts()
    observers = [batches.add] if batch > 1 else []
    if log is not None:
        log_to_stderr(log)
        observers.append(log_event)
    with (
        metrics_at(metrics_port, settings) as metrics,
        page_at(web_port) as page,
        tracing_to(otlp, "splitinfer-edge") as tracing,
    ):
        if page is not None:
            observers.append(page.add)
        if metrics is not None:
            observers.append(metrics.add)

        def announce(server: EdgeServer) -> None:
            print(f"serving {', '.join(server.models)} on {server.address} (Ctrl-C stops)", flush=True)
            if metrics is not None:
                metrics.follow(server)
                print(f"metrics at {metrics.address}", flush=True)
            if page is not None:
                print(f"live page at {page.address}", flush=True)

        serve_until_stopped(
            names,
            settings,
            announce=announce,
            warm=warm,
            options=options,
            observer=all_of(*observers),
            progress=say,
            tracing=tracing,
        )
    if batches.requests:
        print(batches, flush=True)
    print("stopped", flush=True)


def limits_of(max_message_mib: int) -> WireLimits:
    """Return the limits of messages of so many MiB."""
    from splitinfer.wire.limits import MIB, WireLimits

    return WireLimits(max_message_bytes=max_message_mib * MIB, max_tensor_bytes=max_message_mib * MIB)
