"""Latency: what is summarised, that drift meets all cuts alike, and that the process is left as it was."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch

from splitinfer import SplitModel
from splitinfer.errors import InputError
from splitinfer.graph import TensorSpec
from splitinfer.profiling.latency import LatencySettings, describe_host, measure_latency


class Clockwork:
    """Halves that take a known time on a clock of their own; the machine slows down as it runs."""

    set_cuts = ()

    def __init__(self, slowdown_per_call: float = 0.0, num_cuts: int = 20) -> None:
        self.num_cuts = num_cuts
        self.inputs = (TensorSpec((1, 2), torch.float32, "x"), TensorSpec((1, 2), torch.int64, "ids"))
        self.slowdown_per_call = slowdown_per_call
        self.calls: list[tuple[str, int]] = []
        self.now_s = 0.0

    def _work(self, side: str, k: int, seconds: float) -> tuple[torch.Tensor, ...]:
        self.now_s += seconds * (1 + self.slowdown_per_call * len(self.calls))
        self.calls.append((side, k))
        return ()

    def run_head(self, k: int, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert [(tensor.shape, tensor.dtype) for tensor in inputs] == [(s.shape, s.dtype) for s in self.inputs]
        return self._work("head", k, 1e-3 * k)

    def run_tail(self, k: int, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._work("tail", k, 1e-3 * (self.num_cuts - k))


def measure(monkeypatch: pytest.MonkeyPatch, work: Any, settings: LatencySettings, **kwargs: Any) -> np.ndarray:
    monkeypatch.setattr("splitinfer.profiling.latency.time.perf_counter", lambda: work.now_s)
    latencies = measure_latency(work, settings, **kwargs)
    return np.array([[head.median_s, head.iqr_s, tail.median_s, tail.iqr_s] for head, tail in latencies])


def test_a_steady_machine_is_measured_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Clockwork()
    result = measure(monkeypatch, work, LatencySettings(warmup=2, repeats=5))
    k = np.arange(21)
    np.testing.assert_allclose(result[:, 0], 1e-3 * k, atol=1e-12)
    np.testing.assert_allclose(result[:, 2], 1e-3 * (20 - k), atol=1e-12)
    np.testing.assert_allclose(result[:, [1, 3]], 0, atol=1e-12)
    assert len(work.calls) == 2 * 21 * 7


def test_drift_is_not_taken_for_a_difference_between_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine ends twice as slow as it began; head plus tail is the same work at every cut and must look so."""
    settings = LatencySettings(warmup=0, repeats=15)
    work = Clockwork(slowdown_per_call=1 / (2 * 21 * 15))
    result = measure(monkeypatch, work, settings)
    whole = result[:, 0] + result[:, 2]
    k = np.arange(21)
    slope_over_all_cuts = np.polyfit(k, whole, 1)[0] * 20 / whole.mean()
    # Cut after cut in one order within the same rounds gives 1/15 of the drift, measured one by one all of it.
    assert abs(slope_over_all_cuts) < 0.05
    assert whole.std() / whole.mean() < 0.06


def test_the_order_of_cuts_changes_from_round_to_round(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Clockwork()
    measure(monkeypatch, work, LatencySettings(warmup=0, repeats=3))
    rounds = [[k for side, k in work.calls[start : start + 42] if side == "head"] for start in (0, 42, 84)]
    assert all(sorted(order) == list(range(21)) for order in rounds)
    assert rounds[0] != rounds[1] != rounds[2]


def test_progress_counts_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    settings = LatencySettings(warmup=1, repeats=2)
    measure(monkeypatch, Clockwork(), settings, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 63) for done in range(1, 64)]


def test_a_real_model_and_the_process_left_as_it_was() -> None:
    split = SplitModel.capture(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2)), (torch.ones(1, 8),))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        latencies = measure_latency(split, LatencySettings(threads=1, warmup=1, repeats=3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert gc.isenabled()
    assert len(latencies) == split.num_cuts + 1
    assert all(half.median_s > 0 and half.iqr_s >= 0 for pair in latencies for half in pair)


def test_the_host_is_described() -> None:
    host = describe_host(LatencySettings(threads=3, repeats=4))
    assert host["processor"]
    assert (host["threads"], host["repeats"], host["torch"]) == (3, 4, torch.__version__)


@pytest.mark.parametrize("change", [{"threads": 0}, {"repeats": 0}, {"warmup": -1}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        LatencySettings(**change)
