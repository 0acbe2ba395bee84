"""What TLS and mutual TLS add to a request, against plain text: medians of requests that take turns, two processes."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

SIZES_KIB = (4, 98, 1024, 12_544)
CARD = """
source = "benchmarks.tls:pool"
seed = 0
[[inputs]]
shape = [1, {values}]
"""


def pool() -> Any:
    """Return a model of next to no work, whose input is what is sent."""
    from torch import nn

    return nn.Sequential(nn.AdaptiveMaxPool1d(8), nn.Flatten(), nn.Linear(8, 8))


def measure(repeats: int) -> dict[str, Any]:
    import torch

    from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess, ServerSettings
    from splitinfer.runtime.certificates import write_certificates
    from splitinfer.runtime.loading import capture_card
    from splitinfer.runtime.security import ClientSecurity, ServerSecurity

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        write_certificates(folder, ["127.0.0.1"])
        cards = []
        for size in SIZES_KIB:
            cards.append(folder / f"kib{size}.toml")
            cards[-1].write_text(CARD.format(values=size * 256))
        own = str(folder / "server.crt"), str(folder / "server.key")
        ca, device = str(folder / "ca.crt"), (str(folder / "device.crt"), str(folder / "device.key"))
        ways = {
            "plain": (ServerSecurity(), ClientSecurity()),
            "tls": (ServerSecurity(*own), ClientSecurity(ca)),
            "mutual": (ServerSecurity(*own, ca), ClientSecurity(ca, *device)),
        }
        clients = {}
        for way, (server, client) in ways.items():
            edge = stack.enter_context(EdgeProcess([str(card) for card in cards], ServerSettings(security=server)))
            settings = ClientSettings(security=client, allocator_tuning=True)
            clients[way] = stack.enter_context(EdgeClient(edge.address, settings))
        taken: dict[str, dict[int, list[float]]] = {way: {size: [] for size in SIZES_KIB} for way in ways}
        for size, card in zip(SIZES_KIB, cards, strict=True):
            split, tensors = capture_card(card), (torch.ones(1, 1, size * 256),)
            for turn in range(repeats + 3):
                for way, client in clients.items():
                    start = time.perf_counter()
                    client.run_tail(split, 0, tensors)
                    if turn >= 3:
                        taken[way][size].append(time.perf_counter() - start)
    medians = {way: {size: 1e3 * median(times) for size, times in by_size.items()} for way, by_size in taken.items()}
    ratios = {
        f"{way} / plain, {size} KiB": medians[way][size] / medians["plain"][size]
        for way in ("tls", "mutual")
        for size in SIZES_KIB
    }
    return {"milliseconds": medians, "ratios": ratios}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    print(json.dumps(measure(options.repeats), indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
