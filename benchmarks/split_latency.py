"""Latency of a split inference over head plus tail computed in one process, ResNet-18, two processes, one thread each.

Calls take turns with the same head and tail run here, at an early, a middle and a late cut, each after 30 ms of other
computing. ``added`` is the difference of the medians: what the wire, the messages and the second process cost.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from statistics import median

# One thread a side, also in the server, which inherits this. Set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

LAYERS = {"early": "layer1.1.conv2", "middle": "layer2.1.conv2", "late": "layer4.0.downsample.0"}


def measure(repeats: int) -> dict:
    import torch

    from benchmarks.transport import GAP_S, compute
    from splitinfer.models import load_card
    from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess
    from splitinfer.runtime.loading import capture_card
    from splitinfer.runtime.verify import check_answer

    torch.set_num_threads(1)
    card = load_card("resnet18")
    inputs = card.example_inputs()
    edge = EdgeProcess(["resnet18"])
    edge.start()
    split = capture_card(card)
    whole = split(*inputs)
    cuts = {place: split.find_cut(layer) for place, layer in LAYERS.items()}
    here: dict[str, list[float]] = {place: [] for place in cuts}
    apart: dict[str, list[float]] = {place: [] for place in cuts}
    wire: dict[str, list[float]] = {place: [] for place in cuts}
    sent: dict[str, int] = {}
    try:
        edge.wait_ready()
        with EdgeClient(edge.address, ClientSettings(allocator_tuning=True)) as client:
            for turn in range(repeats + 2):
                for place, k in cuts.items():
                    compute(GAP_S)
                    begin = time.perf_counter()
                    split.run_tail(k, *split.run_head(k, *inputs))
                    local_s = time.perf_counter() - begin
                    compute(GAP_S)
                    begin = time.perf_counter()
                    result = client.infer(split, k, *inputs)
                    apart_s = time.perf_counter() - begin
                    check_answer(result.output, whole, f"cut {k}")
                    sent[place] = result.bytes_up
                    if turn >= 2:
                        here[place].append(local_s)
                        apart[place].append(apart_s)
                        timing = result.timing
                        wire[place].append(timing.encode_s + timing.wire_s + timing.queue_s + timing.decode_s)
    finally:
        edge.stop()
    return {
        "name": "split_latency",
        "ratios": {f"{place}: split / head + tail here": median(apart[place]) / median(here[place]) for place in cuts},
        "added_ms": {place: (median(apart[place]) - median(here[place])) * 1e3 for place in cuts},
        "transport_ms": {place: median(wire[place]) * 1e3 for place in cuts},
        "local_ms": {place: median(here[place]) * 1e3 for place in cuts},
        "cut": {place: {"k": k, "layer": split.cuts[k].name, "bytes_up": sent[place]} for place, k in cuts.items()},
        "repeats": repeats,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.split_latency", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=60)
    options = parser.parse_args(argv)
    result = measure(options.repeats)
    if options.json:
        print(json.dumps(result))
        return 0
    for place, cut in result["cut"].items():
        print(
            f"{place:<7} k={cut['k']:<3} {cut['layer']:<22} {cut['bytes_up'] / 1024:8.1f} KiB  "
            f"head + tail here {result['local_ms'][place]:7.2f} ms  split adds {result['added_ms'][place]:6.2f} ms, of "
            f"which transport {result['transport_ms'][place]:5.2f} ms"
        )
    for name, ratio in result["ratios"].items():
        print(f"{name:<40} {ratio:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
