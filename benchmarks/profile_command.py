"""How long ``splitinfer profile resnet18 --no-latency`` takes beside what it cannot do without.

The other side is a process that imports torch and torchvision, builds the model, and exports it once. Both run as fresh
processes in turn, so that both meet the same machine. Goal: a ratio of medians of at most 1.25.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

_GOAL = 1.25
_MODEL = "resnet18"

_COMMAND = [sys.executable, "-m", "splitinfer.cli.main", "profile", _MODEL, "--no-latency"]
# torchvision is imported as splitinfer does it, since the plain import fails where its compiled operators do not load.
_BARE = [
    sys.executable,
    "-c",
    f"""
import torch
from splitinfer.torchvision_compat import import_torchvision
model = import_torchvision().models.{_MODEL}().eval()
torch.export.export(model, (torch.randn(1, 3, 224, 224),), strict=False)
""",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run both sides and print the ratio; 0 unless one of them cannot run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=5, help="runs of each side")
    options = parser.parse_args(argv)

    command_s: list[float] = []
    bare_s: list[float] = []
    for _ in range(options.runs):
        bare_s.append(_run_s(_BARE))
        command_s.append(_run_s(_COMMAND))
    ratio = median(command_s) / median(bare_s)
    if options.json:
        result = {
            "name": "profile_command",
            "ratios": {"profile resnet18 --no-latency / imports and one export": ratio},
            "goals": {"profile resnet18 --no-latency / imports and one export": _GOAL},
            "command_s": command_s,
            "bare_s": bare_s,
        }
        print(json.dumps(result))
    else:
        print(f"imports, model and one export   {median(bare_s):6.2f} s  (median of {options.runs})")
        print(f"splitinfer profile --no-latency {median(command_s):6.2f} s")
        print(f"ratio                           {ratio:6.2f}    (goal: at most {_GOAL})")
    return 0


def _run_s(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
