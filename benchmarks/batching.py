"""Tails per second of an edge with and without batches, for eight devices that send as soon as they are answered.

Two servers of their own processes, one processor and one thread each, take turns with the same devices: ResNet-18 cut
in its last stage, where a tail is small. The devices are threads of one process, each with a connection of its own;
heads are computed beforehand, and every answer is checked. ``p95 / mean`` is the worst device's, with batches.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from statistics import mean, quantiles

# One thread a side, also in the servers, which inherit this. Set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MODEL = "resnet18"
LAYERS = ("layer4.0.downsample.0", "layer4.1.conv1")
DEVICES = 8
BATCH = 8


def measure(seconds: float, rounds: int) -> dict:
    import torch

    from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess, ServerSettings
    from splitinfer.runtime.batch_sizes import BATCH_TOLERANCE
    from splitinfer.runtime.loading import capture_card
    from splitinfer.runtime.verify import check_answer

    torch.set_num_threads(1)
    split = capture_card(MODEL)
    edges = {
        "single": EdgeProcess([MODEL], ServerSettings(parallel_tails=1)),
        "batched": EdgeProcess([MODEL], ServerSettings(parallel_tails=1, batch=BATCH)),
    }
    table: dict[str, dict] = {}
    for edge in edges.values():
        edge.start()
    try:
        for edge in edges.values():
            edge.wait_ready()
        for layer in LAYERS:
            k = split.find_cut(layer)
            heads = [split.run_head(k, torch.randn(1, 3, 224, 224)) for _ in range(DEVICES)]
            wanted = [split.run_tail_leaves(k, head)[0] for head in heads]
            latencies: dict[str, list[list[float]]] = {kind: [[] for _ in heads] for kind in edges}
            spent = dict.fromkeys(edges, 0.0)

            def device(client: EdgeClient, index: int, until: float, seen: list[float]) -> None:
                while (start := time.perf_counter()) < until:
                    answer = client.run_tail(split, k, heads[index]).output  # noqa: B023 - ended within the turn
                    seen.append(time.perf_counter() - start)
                    check_answer(answer, wanted[index], "an answer", tolerance=BATCH_TOLERANCE)  # noqa: B023

            for turn in range(rounds + 1):  # the first tries the sizes of batches
                for kind, edge in edges.items():
                    clients = [EdgeClient(edge.address, ClientSettings(allocator_tuning=True)) for _ in heads]
                    seen: list[list[float]] = [[] for _ in heads]
                    for client, head in zip(clients, heads, strict=True):
                        client.run_tail(split, k, head)
                    start = time.perf_counter()
                    threads = [
                        threading.Thread(target=device, args=(client, index, start + seconds, seen[index]))
                        for index, client in enumerate(clients)
                    ]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
                    if turn:
                        spent[kind] += time.perf_counter() - start
                        for old, new in zip(latencies[kind], seen, strict=True):
                            old += new
                    for client in clients:
                        client.close()
            table[layer] = {
                kind: {
                    "tails_per_s": sum(map(len, devices)) / spent[kind],
                    "worst_p95_over_mean": max(quantiles(one, n=20)[-1] / mean(one) for one in devices),
                }
                for kind, devices in latencies.items()
            }
    finally:
        for edge in edges.values():
            edge.stop()
    return {
        "name": "batching",
        "ratios": {
            f"{layer}: tails per second, batched / single": row["batched"]["tails_per_s"] / row["single"]["tails_per_s"]
            for layer, row in table.items()
        }
        | {
            f"{layer}: p95 / mean of the worst device": row["batched"]["worst_p95_over_mean"]
            for layer, row in table.items()
        },
        "table": table,
        "devices": DEVICES,
        "batch": BATCH,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a turn")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args(argv)
    result = measure(options.seconds, options.rounds)
    if options.json:
        print(json.dumps(result))
        return 0
    for layer, row in result["table"].items():
        for kind, seen in row.items():
            print(f"{layer:<24} {kind:<8} {seen['tails_per_s']:8.1f} tails/s")
    for name, ratio in result["ratios"].items():
        print(f"{name:<60} {ratio:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
