"""How long ``serve`` takes until it answers and ``infer`` until its answer, the first time and the second, beside
``import torch``.

All run as fresh processes in turn, so that they meet the same machine; "first" has an empty cache of captures.
Processor time stands beside real time, which other work on the machine makes longer. Goal: the second start within 1.5
times ``import torch``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO

from PIL import Image

_GOAL = 1.5
_IMPORT = [sys.executable, "-c", "import torch; print(flush=True)"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run all sides and print their ratios; 0 unless one of them cannot run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=5, help="runs of each side")
    parser.add_argument("--model", default="resnet18")
    options = parser.parse_args(argv)
    serve = [sys.executable, "-m", "splitinfer", "serve", "--models", options.model, "--port", "0"]

    took: dict[str, list[tuple[float, float]]] = {"import torch": []}
    with tempfile.TemporaryDirectory() as folder, _served(serve, folder) as address:
        photo = Path(folder) / "photo.png"
        Image.new("RGB", (320, 240), (90, 140, 40)).save(photo)
        infer = [sys.executable, "-m", "splitinfer", "infer", options.model, "--cut", "1", "--input", str(photo)]
        sides = {"serve": serve, "infer": [*infer, "--server", address]}
        for _ in range(options.runs):
            with tempfile.TemporaryDirectory() as cache:
                took["import torch"].append(_until_line_s(_IMPORT, cache))
                for name, command in sides.items():
                    for which in ("first", "second"):  # infer's first has what serve kept of the model
                        took.setdefault(f"{which} start of {name}", []).append(_until_line_s(command, cache))
    wall, cpu = ({name: median(run[i] for run in runs) for name, runs in took.items()} for i in range(2))
    ratios = {
        f"{name} / import torch{unit}": times[name] / times["import torch"]
        for unit, times in (("", wall), (", processor time", cpu))
        for name in took
        if name != "import torch"
    }
    if options.json:
        goals = {name: _GOAL for name in ratios if name.startswith("second")}
        print(json.dumps({"name": "start", "ratios": ratios, "goals": goals, "took_s": took}))
        return 0
    for name in took:
        print(f"{name:21} {wall[name]:6.2f} s, {cpu[name]:5.2f} s of processor time (median of {options.runs})")
    for name, ratio in ratios.items():
        print(f"{name:52} {ratio:5.2f}")
    return 0


@contextmanager
def _started(command: list[str], cache: str) -> Iterator[IO[str]]:
    """Give what a process prints, and kill it at the end of the block: an orderly end is no part of a start."""
    with subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"SPLITINFER_CACHE": cache},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.kill()


@contextmanager
def _served(command: list[str], cache: str) -> Iterator[str]:
    """Give the address of a server that runs in this block."""
    with _started(command, cache) as said:
        yield said.readline().split(" on ")[1].split()[0]


def _until_line_s(command: list[str], cache: str) -> tuple[float, float]:
    """Return the real time until a process printed a line, and the processor time of all of it."""
    before = _processor_s()
    start = time.perf_counter()
    with _started(command, cache) as said:
        if not said.readline():
            raise SystemExit(f"{command} printed nothing")
        took_s = time.perf_counter() - start
    return took_s, _processor_s() - before


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
