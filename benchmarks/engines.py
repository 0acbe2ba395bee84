"""Halves by each engine: head + tail at the Pareto cuts, against the whole model in one ONNX Runtime session.

One process, one thread, turns of all in one loop; of each the third fastest of ``--repeats`` runs counts, in the time
that the processor gave to this process, so that what else the machine does matters little. Memory is what all cuts add
in a process that finds their files in the cache.

Run: ``python -m benchmarks.engines [--json] [--models NAME,NAME] [--repeats N]``
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx  # noqa: F401 - its own memory is not the halves'
import onnxruntime
import torch

from splitinfer import SplitModel, load_model
from splitinfer.graph.engines.export import export_onnx, part_module
from splitinfer.graph.engines.onnx_files import session_options
from splitinfer.models import load_card
from splitinfer.scheduling import pareto_cuts

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0", "googlenet")


def third_fastest_s(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run all in turns, each thrice, so that none is timed on what another left in the caches; the last time counts.

    Returns the third fastest time of each.
    """
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            action()
            action()
            start = time.process_time()
            action()
            times[name].append(time.process_time() - start)
    return {name: sorted(own)[min(2, len(own) - 1)] for name, own in times.items()}


def pareto(split: SplitModel) -> list[int]:
    """Cuts between 0 and K at which neither MACs nor bits can be lowered alone."""
    macs = np.array([cut.macs_before for cut in split.cuts], np.float64)
    bits = np.array([sum(tensor.bits for tensor in cut.crossing) for cut in split.cuts], np.float64)
    return [int(k) for k in pareto_cuts(macs, bits) if 0 < k < split.num_cuts]


def whole_session(split: SplitModel, inputs: tuple[torch.Tensor, ...]) -> Callable[[], object]:
    """The whole model as anyone exports and runs it."""
    order = [node for node in split._captured.graph.nodes if node.op != "output"]
    program = split._program
    content = export_onnx(*part_module(order, split._captured.weights, program.inputs, program.outputs))
    session = onnxruntime.InferenceSession(content, session_options(1), providers=["CPUExecutionProvider"])
    feed = {one.name: tensor.numpy() for one, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return lambda: session.run(None, feed)


def measure(name: str, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds per cut: torch, onnxruntime, and the whole model in one session."""
    model, inputs = load_model(name), load_card(name).example_inputs()
    exact, fast = (SplitModel.capture(model, inputs, engine=engine) for engine in ("torch", "onnxruntime"))
    whole = whole_session(exact, inputs)
    rows = {}
    for k in pareto(exact):
        actions: dict[str, Callable[[], object]] = {
            "torch": lambda k=k: exact.run_tail(k, *exact.run_head(k, *inputs)),  # type: ignore[misc]
            "onnxruntime": lambda k=k: fast.run_tail(k, *fast.run_head(k, *inputs)),  # type: ignore[misc]
            "whole": whole,
        }
        rows[str(k)] = {key: value * 1e3 for key, value in third_fastest_s(actions, repeats).items()}
    return rows


def memory_share(name: str) -> float:
    """Memory that the halves of all Pareto cuts add, over the model's weights; in a process of its own."""
    torch.set_num_threads(1)
    model, inputs = load_model(name), load_card(name).example_inputs()
    fast = SplitModel.capture(model, inputs, engine="onnxruntime")
    before = resident_bytes()
    for k in pareto(fast):
        fast.run_tail(k, *fast.run_head(k, *inputs))
    return (resident_bytes() - before) / sum(weight.nbytes for weight in model.parameters())


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(argv: list[str] | None = None) -> int:
    """Print one row per model and cut."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    record, memory = {}, {}
    for name in options.models.split(","):
        record[name] = measure(name, options.repeats)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory[name] = pool.apply(memory_share, (name,))
        if not options.json:
            for k, row in record[name].items():
                print(
                    f"{name:<20} cut {k:>3}: torch {row['torch']:7.1f} ms, ort {row['onnxruntime']:7.1f}, whole "
                    f"{row['whole']:7.1f}; halves / whole {row['onnxruntime'] / row['whole']:.2f}, "
                    f"onnxruntime / torch {row['onnxruntime'] / row['torch']:.2f}",
                    flush=True,
                )
            print(f"{name:<20} memory of all these halves / weights {memory[name]:.2f}", flush=True)
    cells = [row for rows in record.values() for row in rows.values()]
    ratios = {
        "halves / whole session, median": statistics.median(c["onnxruntime"] / c["whole"] for c in cells),
        "halves / whole session, worst": max(c["onnxruntime"] / c["whole"] for c in cells),
        "onnxruntime / torch, median": statistics.median(c["onnxruntime"] / c["torch"] for c in cells),
        "onnxruntime / torch, worst": max(c["onnxruntime"] / c["torch"] for c in cells),
        "memory of the halves of all Pareto cuts / weights, worst": max(memory.values()),
    }
    print(json.dumps({"ratios": ratios, "models": record, "memory": memory}) if options.json else ratios)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
