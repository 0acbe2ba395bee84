"""Head plus tail in one process against the eager model, one thread, both in inference mode, in one run.

The two take turns, and a ratio is the median of the ratios of neighbouring runs. Goals: at most 1.00 in the median over
the zoo, at most 1.05 on any MobileNet or ResNet at any measured cut.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable

import torch

from splitinfer.graph import SplitModel
from splitinfer.torchvision_compat import import_torchvision

ZOO = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "regnet_y_400mf",
    "googlenet",
    "densenet121",
    "mnasnet1_0",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
)


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _randomise_statistics(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def measure(name: str, *, cuts: int, repeats: int, optimize: bool, size: int) -> dict[str, float]:
    """Return the median and the worst ratio over the measured cuts of one model."""
    models = import_torchvision().models
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
        model = models.get_model(name, weights=None, **options).eval()
    _randomise_statistics(model)
    image = torch.randn(1, 3, size, size)
    split = SplitModel.capture(model, (image,), optimize=optimize)
    last = split.num_cuts - 1
    chosen = sorted({1 + round(index * (last - 1) / max(cuts - 1, 1)) for index in range(cuts)} | {split.num_cuts})
    ratios = []
    with torch.inference_mode():
        for k in chosen:

            def halves(k: int = k) -> object:
                return split.run_tail(k, *split.run_head(k, image))

            def eager() -> object:
                return model(image)

            halves(), eager()
            pairs = []
            for turn in range(repeats):
                if turn % 2:
                    pairs.append(_seconds(halves) / _seconds(eager))
                else:
                    whole = _seconds(eager)
                    pairs.append(_seconds(halves) / whole)
            ratios.append(statistics.median(pairs))
    return {"median": statistics.median(ratios), "worst": max(ratios), "cuts": len(chosen)}


def main(argv: list[str] | None = None) -> int:
    """Print the ratios of every model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.split_overhead", description=__doc__)
    parser.add_argument("models", nargs="*", default=list(ZOO))
    parser.add_argument("--cuts", type=int, default=5, help="cuts measured per model, evenly spread (1000: all)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--exact", action="store_true", help="capture with optimize=False")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = {}
    for name in options.models:
        rows[name] = measure(
            name, cuts=options.cuts, repeats=options.repeats, optimize=not options.exact, size=options.size
        )
        if not options.json:
            print(f"{name:<22} median {rows[name]['median']:.3f}  worst {rows[name]['worst']:.3f}", flush=True)
    mobile = [row["worst"] for name, row in rows.items() if name.startswith(("mobilenet", "resnet"))]
    ratios = {
        "split / eager, median over the zoo (goal 1.00)": statistics.median(row["median"] for row in rows.values()),
        "split / eager, worst cut of any MobileNet or ResNet (goal 1.05)": max(mobile, default=float("nan")),
    }
    if options.json:
        print(json.dumps({"name": "split_overhead", "ratios": ratios, "models": rows}))
    else:
        for key, value in ratios.items():
            print(f"{key}: {value:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
