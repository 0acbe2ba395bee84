"""Runs an edge server until it is told to stop; as a module, the server process of :class:`EdgeProcess`."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch

from splitinfer.errors import SplitInferError
from splitinfer.runtime.loading import capture_card
from splitinfer.runtime.server import EdgeServer
from splitinfer.runtime.settings import ServerSettings
from splitinfer.wire.limits import WireLimits


def serve(
    models: Sequence[str],
    settings: ServerSettings,
    *,
    announce: Callable[[EdgeServer], None],
    warm: bool = False,
    input_size: tuple[int, int] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Capture models, serve their tails, and stop cleanly on SIGINT or SIGTERM.

    A second signal while calls are finishing ends the process at once. Call it from the main thread.

    Args:
        models: references as :func:`capture_card` takes them.
        settings: of the server.
        announce: called once the server answers.
        warm: compile every half before answering, instead of at its first use.
        input_size: height and width in pixels instead of the cards'.
        stop: stops the server when set.

    Raises:
        SplitInferError: a model cannot be captured, or the address cannot be used.
    """
    stop = stop or threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    torch.set_num_threads(settings.torch_threads)
    captured = [capture_card(model, input_size=input_size) for model in dict.fromkeys(models)]
    if warm:
        for split in captured:
            for k in range(split.num_cuts):
                split.warm(k)
    server = EdgeServer(captured, settings)
    try:
        for number in before:
            signal.signal(number, on_signal)
        server.start()
        announce(server)
        stop.wait()
    finally:
        server.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: Sequence[str]) -> int:
    """Serve what the one JSON argument asks for; says one JSON line on standard output, and ends with its parent."""
    order: dict[str, Any] = json.loads(argv[0])
    order["settings"]["limits"] = WireLimits(**order["settings"]["limits"])
    stop = threading.Event()

    def wait_for_parent() -> None:
        sys.stdin.buffer.read()  # the parent holds the other end and never writes
        stop.set()

    def announce(server: EdgeServer) -> None:
        print(json.dumps({"address": server.address, "models": server.models}), flush=True)

    logging.basicConfig(level=logging.WARNING)
    threading.Thread(target=wait_for_parent, daemon=True).start()
    try:
        serve(
            order["models"],
            ServerSettings(**order["settings"]),
            announce=announce,
            input_size=order["input_size"],
            stop=stop,
        )
    except SplitInferError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
