"""A stream of requests against the ideal, in which head, link and tail of ResNet-18 overlap without a gap.

Device and edge are processes of one thread each. Ideal is the slower half alone: the head computed here, or the tail as
the edge times it, while the other process is idle. Two processes that compute at the same time share caches and memory,
so each half is slower in the stream than alone; ``as they ran`` compares with the halves' own times in the stream, and
what is missing there to 1 is what the link costs. Alone and stream take turns at every cut, with every engine that is
installed; of several rounds the best counts, since whatever else runs on the machine only ever takes time away.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from statistics import median

# One thread a side, also in the server, which inherits this. Set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MODEL = "resnet18"
CUTS = (2, 5, 8, 11, 14, 17)
WINDOW = 3


def measure(engine: str, rounds: int, requests: int) -> dict[int, dict[str, float]]:
    """Return milliseconds per cut: head and tail alone, head, tail and one request in the stream."""
    import torch

    from splitinfer.models import CaptureOptions
    from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess, ServerSettings
    from splitinfer.runtime.loading import capture_card

    torch.set_num_threads(1)
    options = CaptureOptions(engine=engine)
    split = capture_card(MODEL, options)
    image = torch.randn(1, 3, 224, 224)
    table: dict[int, dict[str, float]] = {}
    with (
        EdgeProcess([MODEL], ServerSettings(parallel_tails=1), options=options) as edge,
        EdgeClient(edge.address, ClientSettings(allocator_tuning=True)) as client,
    ):
        for k in CUTS:
            seen: dict[str, list[float]] = {}
            crossing = split.run_head(k, image)
            for turn in range(rounds + 1):
                alone_head, alone_tail = [], []
                for _ in range(requests // 4):
                    start = time.perf_counter()
                    split.run_head(k, image)
                    alone_head.append(time.perf_counter() - start)
                for _ in range(requests // 4):
                    alone_tail.append(client.run_tail(split, k, crossing).timing.tail_s)
                timings, arrived = [], []
                for result in client.stream(split, k, [image] * requests, window=WINDOW):
                    arrived.append(time.perf_counter())
                    timings.append(result.timing)
                if not turn:
                    continue
                for name, value in {
                    "head": median(alone_head),
                    "tail": median(alone_tail),
                    "head in stream": median(timing.head_s for timing in timings),
                    "tail in stream": median(timing.tail_s for timing in timings),
                    # From the first answer on: before it the stages fill.
                    "request": (arrived[-1] - arrived[0]) / (requests - 1),
                }.items():
                    seen.setdefault(name, []).append(value)
            table[k] = {name: min(values) * 1e3 for name, values in seen.items()}
    return table


def installed_engines() -> list[str]:
    """Return the engines that can be used here."""
    from splitinfer.errors import SplitInferError
    from splitinfer.graph.engines import ENGINES, find_engine

    found = []
    for name in ENGINES:
        try:
            find_engine(name)
            found.append(name)
        except (ImportError, SplitInferError):
            continue
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=24)
    options = parser.parse_args(argv)
    tables = {engine: measure(engine, options.rounds, options.requests) for engine in installed_engines()}
    ratios = {}
    for engine, table in tables.items():
        for k, row in table.items():
            ratios[f"{engine} cut {k}: slower half alone / stream"] = max(row["head"], row["tail"]) / row["request"]
        for k, row in table.items():
            slower = max(row["head in stream"], row["tail in stream"])
            ratios[f"{engine} cut {k}: slower half as it ran / stream"] = slower / row["request"]
    if options.json:
        print(json.dumps({"name": "streaming", "ratios": ratios, "milliseconds": tables, "window": WINDOW}))
        return 0
    for engine, table in tables.items():
        for k, row in table.items():
            print(f"{engine} cut {k:<3} " + "  ".join(f"{part} {value:6.2f} ms" for part, value in row.items()))
    for name, ratio in ratios.items():
        print(f"{name:<50} {ratio:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
