"""Arrival processes against what they promise: means, spacing, and no dependence on how they are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from splitinfer.errors import ScenarioError
from splitinfer.simulation.arrivals import BurstyArrivals, PeriodicArrivals, PoissonArrivals, TraceArrivals

SLOT_S = 0.01
SERVICES = np.ones((2, 2), dtype=bool)
RATES_HZ = np.array([[0.5, 2.0], [7.0, 30.0]])


def start(settings, seed=0):
    return settings.start(SERVICES, SLOT_S, np.random.default_rng(seed))


@pytest.fixture
def trace_file(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("time_s,device,service\n0.25,1,0\n0.02,0,1\n0.021,0,1\n0.03,1,1\n")
    return str(path)


@pytest.mark.parametrize("kind", ["poisson", "periodic", "bursty", "trace"])
def test_blocks_of_any_length_give_the_same_arrivals(kind, trace_file):
    settings = {
        "poisson": PoissonArrivals(),
        "periodic": PeriodicArrivals(),
        "bursty": BurstyArrivals(mean_on_s=0.1, mean_off_s=0.2),
        "trace": TraceArrivals(path=trace_file, repeat_s=0.3),
    }[kind]
    whole = start(settings).counts(RATES_HZ, 500)
    process = start(settings)
    pieces = np.concatenate([process.counts(RATES_HZ, slots) for slots in (1, 10, 89, 400)])
    np.testing.assert_array_equal(whole, pieces)
    assert whole.shape == (500, 2, 2)


@pytest.mark.parametrize(
    "settings", [PoissonArrivals(), PeriodicArrivals(), BurstyArrivals(mean_on_s=0.2, mean_off_s=0.6)]
)
def test_the_mean_rate_is_the_scenarios(settings):
    counts = start(settings).counts(RATES_HZ, 400_000)
    np.testing.assert_allclose(counts.mean(axis=0) / SLOT_S, RATES_HZ, rtol=0.06)


def test_poisson_counts_vary_as_poisson_counts_do():
    counts = start(PoissonArrivals()).counts(np.full((2, 2), 30.0), 200_000)
    np.testing.assert_allclose(counts.var(axis=0) / counts.mean(axis=0), 1.0, rtol=0.03)


def test_frames_come_at_even_distances():
    counts = start(PeriodicArrivals(phase=0.0)).counts(np.full((2, 2), 10.0), 1000)
    frames = np.flatnonzero(counts[:, 0, 0])
    assert counts.max() == 1
    np.testing.assert_array_equal(np.diff(frames), 10)
    # 30 frames a second do not fit whole slots: three or four slots apart, never more than a slot off.
    thirty = np.flatnonzero(start(PeriodicArrivals(phase=0.0)).counts(np.full((2, 2), 30.0), 3000)[:, 0, 0])
    ideal = (np.arange(len(thirty)) / 30.0) / SLOT_S
    assert np.all(np.abs(thirty - thirty[0] - ideal) <= 1.0)


def test_cameras_have_their_own_phase_or_share_one():
    apart = start(PeriodicArrivals()).counts(np.full((2, 2), 1.0), 100)
    together = start(PeriodicArrivals(phase=0.5)).counts(np.full((2, 2), 1.0), 100)
    assert len(set(np.argmax(apart, axis=0).ravel())) > 1
    assert len(set(np.argmax(together, axis=0).ravel())) == 1


def test_bursts_come_in_bursts_of_the_given_length():
    settings = BurstyArrivals(mean_on_s=0.5, mean_off_s=1.5)
    # So many requests that a burst shows as an unbroken row of busy slots.
    busy = start(settings).counts(np.full((2, 2), 500.0), 400_000)[:, 0, 0] > 0
    assert busy.mean() == pytest.approx(0.25, abs=0.02)
    starts = np.count_nonzero(~busy[:-1] & busy[1:])
    assert busy.sum() / starts * SLOT_S == pytest.approx(0.5, rel=0.1)


def test_a_trace_is_played_as_recorded(trace_file):
    counts = start(TraceArrivals(path=trace_file)).counts(RATES_HZ, 60)
    assert counts.sum() == 4
    assert (counts[2, 0, 1], counts[3, 1, 1], counts[25, 1, 0]) == (2, 1, 1)
    again = start(TraceArrivals(path=trace_file, repeat_s=0.3)).counts(RATES_HZ, 60)
    np.testing.assert_array_equal(again[:30], again[30:])
    np.testing.assert_array_equal(again[:30], counts[:30])


@pytest.mark.parametrize(
    "text",
    [
        "time_s,device\n0.1,0\n",
        "time_s,device,service\n0.1,5,0\n",
        "time_s,device,service\n0.1,-1,0\n",
        "time_s,device,service\n-0.1,0,0\n",
        "time_s,device,service\nsoon,0,0\n",
        "time_s,device,service\n0.1,0\n",
    ],
)
def test_bad_traces_are_refused(tmp_path, text):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=r"arrivals\.path.*bad\.csv"):
        start(TraceArrivals(path=str(path)))
