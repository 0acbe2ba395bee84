"""Channel processes: distributions, correlation in time, traces."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from splitinfer.errors import ScenarioError
from splitinfer.simulation.channel import CorrelatedChannel, RayleighChannel, SteadyChannel, TraceChannel

SLOT_S = 0.01
MEAN = np.array([1e-10, 5e-11])


def start(settings, seed=0):
    return settings.start(2, SLOT_S, np.random.default_rng(seed))


@pytest.mark.parametrize("settings", [SteadyChannel(), RayleighChannel(), CorrelatedChannel(coherence_time_s=0.1)])
def test_blocks_of_any_length_give_the_same_gains(settings):
    whole = start(settings).gains(MEAN, 300)
    process = start(settings)
    np.testing.assert_allclose(whole, np.concatenate([process.gains(MEAN, n) for n in (1, 99, 200)]), rtol=1e-12)
    assert whole.shape == (300, 2)


def test_rayleigh_power_is_exponential_and_independent():
    gains = start(RayleighChannel()).gains(MEAN, 50_000) / MEAN
    assert stats.kstest(gains[:, 0], "expon").pvalue > 0.01
    assert abs(np.corrcoef(gains[:-1, 0], gains[1:, 0])[0, 1]) < 0.02


def test_correlated_fading_keeps_the_distribution_and_forgets_as_told():
    coherence_s = 0.05
    gains = start(CorrelatedChannel(coherence_time_s=coherence_s)).gains(MEAN, 400_000) / MEAN
    # Thinned beyond its memory, it is Exp(1) again.
    assert stats.kstest(gains[::100, 0], "expon").pvalue > 0.01
    for lag in (1, 5, 10):
        measured = np.corrcoef(gains[:-lag, 0], gains[lag:, 0])[0, 1]
        assert measured == pytest.approx(np.exp(-2 * lag * SLOT_S / coherence_s), abs=0.03)


def test_steady_is_path_loss_alone():
    np.testing.assert_array_equal(start(SteadyChannel()).gains(MEAN, 3), [MEAN] * 3)


def test_a_trace_repeats(tmp_path):
    path = tmp_path / "gains.csv"
    path.write_text("1e-10,2e-10\n3e-10,4e-10\n5e-10,6e-10\n")
    process = start(TraceChannel(path=str(path)))
    np.testing.assert_array_equal(
        np.concatenate([process.gains(MEAN, 2), process.gains(MEAN, 2)]),
        [[1e-10, 2e-10], [3e-10, 4e-10], [5e-10, 6e-10], [1e-10, 2e-10]],
    )


@pytest.mark.parametrize("text", ["1e-10\n2e-10\n", "1,2\n3,0\n", "1,x\n", "1,2\n3\n"])
def test_bad_traces_are_refused(tmp_path, text):
    path = tmp_path / "gains.csv"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=r"channel\.path.*gains\.csv"):
        start(TraceChannel(path=str(path)))


def test_no_slots_need_no_gains() -> None:
    for model in (SteadyChannel(), RayleighChannel(), CorrelatedChannel()):
        process = model.start(2, 0.01, np.random.default_rng(0))
        assert process.gains(np.ones(2), 0).shape == (0, 2)
