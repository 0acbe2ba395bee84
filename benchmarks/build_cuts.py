"""What it costs to have every cut of a model ready: time to build all halves, and memory beside the weights.

Each model is measured in a process of its own. Goals for ResNet-50: under 10 s, and under 20 % of the weights' memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

MODELS = ("resnet50", "mobilenet_v2", "densenet121", "swin_t")


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure(name: str) -> dict[str, float]:
    """Capture one model and build both halves of every cut."""
    import torch

    from splitinfer.graph import SplitModel
    from splitinfer.torchvision_compat import import_torchvision

    torch.set_num_threads(1)
    model = import_torchvision().models.get_model(name, weights=None).eval()
    image = torch.zeros(1, 3, 224, 224)
    started = time.perf_counter()
    split = SplitModel.capture(model, (image,))
    captured_s = time.perf_counter() - started
    split(image)
    before = _resident_bytes()
    started = time.perf_counter()
    for k in range(split.num_cuts + 1):
        split.warm(k)
    built_s = time.perf_counter() - started
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    return {
        "cuts": split.num_cuts + 1,
        "capture_s": captured_s,
        "build_all_s": built_s,
        "build_all / capture": built_s / captured_s,
        "memory added / weights": max(_resident_bytes() - before, 0) / weights,
    }


def main(argv: list[str] | None = None) -> int:
    """Print one row per model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build_cuts", description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(measure(options.models[0])))
        return 0
    rows = {}
    for name in options.models:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.build_cuts", name, "--one"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
            return 1
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        if not options.json:
            print(f"{name:<14} " + "  ".join(f"{key} {value:.3g}" for key, value in rows[name].items()), flush=True)
    if options.json:
        keys = ("build_all / capture", "memory added / weights")
        ratios = {f"{name}: {key}": row[key] for name, row in rows.items() for key in keys}
        print(json.dumps({"name": "build_cuts", "ratios": ratios, "models": rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
