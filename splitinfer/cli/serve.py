"""``splitinfer serve``: the edge server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from splitinfer.errors import InputError

if TYPE_CHECKING:
    from splitinfer.runtime import EdgeServer


def serve(
    models: Annotated[
        str, typer.Option(help="Models to serve, separated by commas: card names, package.module:factory, card files.")
    ] = "resnet18",
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
) -> None:
    """Run the edge server: it computes the tails of the models it holds.

    It stops cleanly on Ctrl-C or SIGTERM, after the calls under way. Health checks and reflection are on.

    Example:
      splitinfer serve --models resnet18,mobilenet_v2 --port 50051
    """
    from splitinfer.cli.profile import parse_input_size
    from splitinfer.runtime.serving import serve as serve_until_stopped
    from splitinfer.runtime.settings import ServerSettings
    from splitinfer.wire.limits import MIB, WireLimits

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
        limits=WireLimits(max_message_bytes=max_message_mib * MIB, max_tensor_bytes=max_message_mib * MIB),
    )
    serve_until_stopped(names, settings, announce=_announce, warm=warm, input_size=parse_input_size(input_size))
    print("stopped", flush=True)


def _announce(server: EdgeServer) -> None:
    print(f"serving {', '.join(server.models)} on {server.address} (Ctrl-C stops)", flush=True)
