"""What each codec adds to a split inference on loopback, against the time that it takes to encode and decode.

ResNet-18 at three cuts, device and edge in processes of one thread, codecs in turns. ``added`` is the difference of the
median latencies to raw, without the tails' own times; ``coding`` is encoding and decoding the same tensors in this
process, again after 30 ms of other computing. A ratio of at most 1 means that a codec costs its own work and no more;
a negative one, that fewer bytes saved more than that even here. Slower links are what codecs are for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from statistics import median

# One thread a side, also in the server, which inherits this. Set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MODEL = "resnet18"
LAYERS = {"early": "layer1.1.conv2", "middle": "layer2.1.conv2", "late": "layer4.0.downsample.0"}


def measure(repeats: int) -> dict:
    import torch

    from benchmarks.transport import GAP_S, compute
    from splitinfer.models import load_card
    from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess
    from splitinfer.runtime.loading import capture_card
    from splitinfer.wire.codecs import CODECS, RAW, Wire
    from splitinfer.wire.torch_tensors import as_received

    torch.set_num_threads(1)
    card = load_card(MODEL)
    inputs = card.example_inputs()
    order = random.Random(0)
    table: dict[str, dict[str, dict[str, float]]] = {}
    with EdgeProcess([MODEL]) as edge, EdgeClient(edge.address, ClientSettings(allocator_tuning=True)) as client:
        split = capture_card(card)
        accepted = {codec.name for codec in client.describe().codecs}
        codecs = [codec for codec in CODECS if codec.name in accepted]
        for place, layer in LAYERS.items():
            k = split.find_cut(layer)
            tensors = split.run_head(k, *inputs)
            spent: dict[str, list[float]] = {codec.name: [] for codec in codecs}
            coding: dict[str, list[float]] = {codec.name: [] for codec in codecs}
            sent: dict[str, int] = {}
            for turn in range(repeats + 1):
                order.shuffle(codecs)
                for codec in codecs:
                    for transfer in range(3):
                        compute(GAP_S)
                        start = time.perf_counter()
                        result = client.run_tail(split, k, tensors, codec=codec.name)
                        result.output  # noqa: B018 - a refusal is an error
                        if turn and transfer:
                            spent[codec.name].append(time.perf_counter() - start - result.timing.tail_s)
                        sent[codec.name] = result.bytes_up
                    compute(GAP_S)
                    start = time.perf_counter()
                    as_received(tensors, Wire(codec=codec))
                    if turn:
                        coding[codec.name].append(time.perf_counter() - start)
            raw = median(spent[RAW.name])
            table[place] = {
                codec.name: {
                    "added_ms": (median(spent[codec.name]) - raw) * 1e3,
                    "coding_ms": median(coding[codec.name]) * 1e3,
                    "bytes_up": sent[codec.name],
                }
                for codec in codecs
                if codec is not RAW
            }
    return {
        "name": "codec_latency",
        "ratios": {
            f"{place} {name}: added / coding": row["added_ms"] / row["coding_ms"]
            for place, rows in table.items()
            for name, row in sorted(rows.items())
        },
        "table": table,
        "repeats": repeats,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec_latency", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=12)
    options = parser.parse_args(argv)
    result = measure(options.repeats)
    if options.json:
        print(json.dumps(result))
        return 0
    for place, rows in result["table"].items():
        for name, row in sorted(rows.items()):
            print(
                f"{place:<7} {name:<14} {row['bytes_up'] / 1024:8.1f} KiB  added {row['added_ms']:6.2f} ms, "
                f"coding {row['coding_ms']:6.2f} ms"
            )
    for name, ratio in result["ratios"].items():
        print(f"{name:<40} {ratio:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
