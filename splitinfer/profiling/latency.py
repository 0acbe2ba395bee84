"""Latency of head and tail at every cut, measured so that two cuts can be compared.

A machine gets slower and faster while a measurement runs (heat, other processes). Timing one cut after the other would
write that drift into the comparison of cuts. So each *round* runs every cut once, head then tail as in real use, in a
new random order, and a cut's latency is the median over rounds. Drift then meets all cuts alike.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from splitinfer.errors import InputError
from splitinfer.profiling.profile import LatencyRecord
from splitinfer.threads import checked_threads

if TYPE_CHECKING:
    from splitinfer.graph import SplitModel
    from splitinfer.profiling.measure import Progress


@dataclass(frozen=True)
class LatencySettings:
    """How latencies are measured.

    Attributes:
        threads: threads that torch may use inside one operation.
        warmup: rounds over all cuts that are run and not counted.
        repeats: rounds over all cuts that are counted.
        seed: of the inputs and of the order of cuts within a round.
    """

    threads: int = 1
    warmup: int = 1
    repeats: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        checked_threads(self.threads)
        if self.repeats < 1:
            raise InputError(f"repeats must be at least 1, not {self.repeats}")
        if self.warmup < 0:
            raise InputError(f"warmup must not be negative, not {self.warmup}")

    def replace(self, **changes: int) -> LatencySettings:
        """Return settings with some fields changed."""
        return replace(self, **changes)


def measure_latency(
    split: SplitModel, settings: LatencySettings, *, progress: Progress | None = None
) -> list[tuple[LatencyRecord, LatencyRecord]]:
    """Return (head, tail) latency per cut 0..K on this machine, and then per set cut.

    The head of cut 0 and the tail of cut K hold nothing and read (nearly) zero.
    """
    inputs = _inputs(split, settings.seed)
    order = random.Random(settings.seed)
    cuts = [*range(split.num_cuts + 1), *(cut.index for cut in split.set_cuts)]
    ks = list(cuts)
    rounds = settings.warmup + settings.repeats
    times: dict[int, tuple[list[float], list[float]]] = {k: ([], []) for k in ks}
    done = 0
    with _one_thread_count(settings.threads), _no_garbage_collection():
        for round_number in range(rounds):
            order.shuffle(ks)
            for k in ks:
                start = time.perf_counter()
                crossing = split.run_head(k, *inputs)
                middle = time.perf_counter()
                split.run_tail(k, *crossing)
                end = time.perf_counter()
                if round_number >= settings.warmup:
                    times[k][0].append(middle - start)
                    times[k][1].append(end - middle)
                done += 1
                if progress is not None:
                    progress(done, rounds * len(ks))
    return [(_summary(heads), _summary(tails)) for heads, tails in map(times.__getitem__, cuts)]


def describe_host(settings: LatencySettings) -> dict[str, Any]:
    """Say where and how the latencies were measured."""
    return {
        "processor": _processor(),
        "logical_cpus": os.cpu_count(),
        "torch": torch.__version__,
        **asdict(settings),
    }


def _inputs(split: SplitModel, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(spec.shape, generator=generator).to(spec.dtype)
        if spec.dtype.is_floating_point
        else torch.zeros(spec.shape, dtype=spec.dtype)
        for spec in split.inputs
    ]


def _summary(times_s: list[float]) -> LatencyRecord:
    low, high = np.percentile(times_s, [25, 75])
    return LatencyRecord(median_s=median(times_s), iqr_s=float(high - low))


@contextmanager
def _one_thread_count(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _processor() -> str:
    """Name of the processor; Linux tells it in /proc only."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
