"""Halves by each engine: head + tail at the Pareto cuts, against the whole model in one ONNX Runtime session.

One process, one thread, turns of all in one loop; of each the third fastest of ``--repeats`` runs counts, so that a
busy moment of the machine does not.

Run: ``python -m benchmarks.engines [--json] [--models NAME,NAME] [--repeats N]``
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from splitinfer import SplitModel, load_model
from splitinfer.models import load_card
from splitinfer.scheduling import pareto_cuts

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0", "googlenet")


def third_fastest_s(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run all in turns; returns the third fastest time of each."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - start)
    return {name: sorted(own)[min(2, len(own) - 1)] for name, own in times.items()}


def measure(name: str, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds per cut: torch, onnxruntime, and the whole model in one session."""
    model, inputs = load_model(name), load_card(name).example_inputs()
    exact, fast, whole = (SplitModel.capture(model, inputs, engine=e) for e in ("torch", "onnxruntime", "onnxruntime"))
    macs = np.array([cut.macs_before for cut in exact.cuts], np.float64)
    bits = np.array([sum(tensor.bits for tensor in cut.crossing) for cut in exact.cuts], np.float64)
    cuts = [int(k) for k in pareto_cuts(macs, bits) if 0 < k < exact.num_cuts]
    whole(*inputs)
    for _ in range(2):  # the second round runs on the final parts
        for k in cuts:
            fast.run_tail(k, *fast.run_head(k, *inputs))
    rows = {}
    for k in cuts:
        actions: dict[str, Callable[[], object]] = {
            "torch": lambda k=k: exact.run_tail(k, *exact.run_head(k, *inputs)),  # type: ignore[misc]
            "onnxruntime": lambda k=k: fast.run_tail(k, *fast.run_head(k, *inputs)),  # type: ignore[misc]
            "whole": lambda: whole(*inputs),
        }
        rows[str(k)] = {key: value * 1e3 for key, value in third_fastest_s(actions, repeats).items()}
    return rows


def main(argv: list[str] | None = None) -> int:
    """Print one row per model and cut."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    record = {}
    for name in options.models.split(","):
        record[name] = measure(name, options.repeats)
        if not options.json:
            for k, row in record[name].items():
                print(
                    f"{name:<20} cut {k:>3}: torch {row['torch']:7.1f} ms, ort {row['onnxruntime']:7.1f}, whole "
                    f"{row['whole']:7.1f}; halves / whole {row['onnxruntime'] / row['whole']:.2f}, "
                    f"onnxruntime / torch {row['onnxruntime'] / row['torch']:.2f}",
                    flush=True,
                )
    cells = [row for rows in record.values() for row in rows.values()]
    ratios = {
        "halves / whole session, median": statistics.median(c["onnxruntime"] / c["whole"] for c in cells),
        "halves / whole session, worst": max(c["onnxruntime"] / c["whole"] for c in cells),
        "onnxruntime / torch, median": statistics.median(c["onnxruntime"] / c["torch"] for c in cells),
        "onnxruntime / torch, worst": max(c["onnxruntime"] / c["torch"] for c in cells),
    }
    print(json.dumps({"ratios": ratios, "models": record}) if options.json else ratios)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
