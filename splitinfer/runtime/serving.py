"""Runs an edge server until it is told to stop; as a module, the server process of ``EdgeProcess``."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from splitinfer.graph.engines import checked_engine, set_threads
from splitinfer.models import CaptureOptions, load_card
from splitinfer.models.sent_pictures import Preparation
from splitinfer.runtime.child import Said, child_main
from splitinfer.runtime.events import Observer, nobody
from splitinfer.runtime.security import ServerSecurity
from splitinfer.runtime.settings import ServerSettings
from splitinfer.runtime.tracing import Tracing
from splitinfer.runtime.transport import check_free
from splitinfer.wire.limits import WireLimits

if TYPE_CHECKING:
    from splitinfer.runtime.server import EdgeServer


def serve(
    models: Sequence[str],
    settings: ServerSettings,
    *,
    announce: Callable[[EdgeServer], None],
    warm: bool = False,
    options: CaptureOptions | None = None,
    stop: threading.Event | None = None,
    observer: Observer = nobody,
    progress: Callable[[str], None] = lambda what: None,
    tracing: Tracing | None = None,
) -> None:
    """Capture models, serve their tails, and stop cleanly on SIGINT, SIGTERM or, unless it is ignored, SIGHUP.

    A second signal while calls are finishing ends the process at once. Call it from the main thread.

    Args:
        models: references as :func:`capture_card` takes them.
        settings: of the server.
        announce: called once the server answers.
        warm: compile every half, and try every size of batch, before answering, instead of at first use.
        options: how models are captured and tails computed.
        stop: stops the server when set.
        observer: as :class:`EdgeServer` takes it.
        progress: told what is being done before the server answers.
        tracing: as :class:`EdgeServer` takes it.

    Raises:
        SplitInferError: a model cannot be captured, or the address cannot be used.
    """
    stop = stop or threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # nohup
        del before[signal.SIGHUP]

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    check_free(settings)  # before what takes long
    cards = [load_card(model) for model in dict.fromkeys(models)]  # a wrong name is said at once
    checked_engine((options or CaptureOptions()).engine)
    from splitinfer.runtime.loading import capture_card  # torch, from here on
    from splitinfer.runtime.server import EdgeServer

    set_threads(settings.torch_threads)
    captured = []
    for card in cards:
        progress(f"capturing {card.name}")
        captured.append(capture_card(card, options))
    if warm:
        for split in captured:
            progress(f"compiling the tails of {split.name}")
            for k in split.tails:
                split.warm(k)
    pictures = {
        split.name: Preparation(card, settings.max_picture_pixels, settings.max_picture_scans)
        for card, split in zip(cards, captured, strict=True)
        if card.preprocessing is not None or card.preprocess_with is not None
    }
    server = EdgeServer(captured, settings, observer=observer, pictures=pictures, tracing=tracing)
    if warm:
        server.warm_batches()
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


def work(order: Said, say: Callable[[Said], None], parent: TextIO) -> None:
    """Serve what the order asks for until the parent closes its end of the pipe."""
    order["settings"]["security"] = ServerSecurity(**order["settings"]["security"])
    order["settings"]["limits"] = WireLimits(**order["settings"]["limits"])
    stop = threading.Event()

    def wait_for_parent() -> None:
        parent.read()
        stop.set()

    logging.basicConfig(level=logging.WARNING)
    threading.Thread(target=wait_for_parent, daemon=True).start()
    serve(
        order["models"],
        ServerSettings(**order["settings"]),
        announce=lambda server: say({"event": "listen", "address": server.address}),
        options=CaptureOptions(**order["options"]),
        stop=stop,
    )


if __name__ == "__main__":
    sys.exit(child_main(work))
