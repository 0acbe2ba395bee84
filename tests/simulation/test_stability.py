"""The growth test on queues whose stability is known: false alarms, misses, and what must not matter."""

from __future__ import annotations

import numpy as np
import pytest

from splitinfer.cli.main import main
from splitinfer.simulation.stability import growth_test, stability_of

SERVICE_SLOTS = 10
SLOTS = 20_000
RUNS = 200


def part_means(load, *, runs=RUNS, seed=0, slots=SLOTS):
    """Workload of M/D/1 queues slot by slot (Lindley), as means over 100 parts, shape (100, runs)."""
    rng = np.random.default_rng(seed)
    work = rng.poisson(load / SERVICE_SLOTS, size=(slots, runs)) * SERVICE_SLOTS
    queue = np.zeros((slots, runs))
    level = np.zeros(runs)
    for slot in range(slots):
        level = np.maximum(level + work[slot] - 1, 0)
        queue[slot] = level
    return queue.reshape(100, slots // 100, runs).mean(axis=1)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9, 0.95])
def test_stable_queues_raise_no_alarm(load):
    _, p = growth_test(part_means(load))
    assert np.mean(p < 0.01) <= 0.01


def test_at_the_very_edge_of_stability_the_level_holds():
    # Neither growing nor returning: the hardest case. At level 0.05, 200 runs leave room for chance.
    _, p = growth_test(part_means(1.0))
    assert np.mean(p < 0.05) <= 0.12


@pytest.mark.parametrize(("load", "found"), [(1.2, 0.95), (1.5, 1.0), (3.0, 1.0)])
def test_growing_queues_are_found(load, found):
    _, p = growth_test(part_means(load))
    assert np.mean(p < 0.001) >= found


def test_longer_runs_find_slighter_growth():
    short, long = (np.mean(growth_test(part_means(1.08, slots=s, runs=100))[1] < 0.001) for s in (10_000, 80_000))
    assert long > short + 0.3


def test_depth_and_unit_do_not_matter():
    stable, growing = part_means(0.9, runs=20), part_means(1.5, runs=20)
    for means in (stable, growing):
        z, _ = growth_test(means)
        np.testing.assert_allclose(growth_test(1e9 * means)[0], z, rtol=1e-6)
        np.testing.assert_allclose(growth_test(means + 1e6)[0], z, rtol=1e-4)


@pytest.mark.parametrize(
    ("series", "grows"), [(np.zeros(100), False), (np.full(100, 5.0), False), (np.arange(100.0), True)]
)
def test_series_without_noise(series, grows):
    _, p = growth_test(series[:, None])
    assert (p[0] < 0.001) == grows


def test_a_drained_start_is_no_growth():
    # Queues start empty: one early rise to a level that then holds.
    series = np.concatenate([np.linspace(0, 100, 5), np.full(95, 100.0)])
    assert growth_test(series[:, None])[1][0] > 0.01


def test_too_short_a_run_says_nothing():
    z, p = growth_test(np.arange(3.0)[:, None])
    assert (z[0], p[0]) == (0.0, 1.0)


def test_the_report_names_what_grows():
    parts = np.zeros((100, 5))
    parts[:, 3] = np.arange(100) * 50.0
    report = stability_of(parts, part_s=2.0)
    assert not report.stable
    assert report.growing == ("device 1 link",)
    assert report.growth_per_s[3] == pytest.approx(25.0)
    assert stability_of(np.zeros((100, 5)), part_s=2.0).stable


def test_of_a_run_of_few_parts_nothing_is_claimed(capsys):
    assert not stability_of(np.ones((3, 3)), 0.1).is_known
    assert stability_of(np.ones((4, 3)), 0.1).is_known
    assert main(["simulate", "--slots", "1"]) == 0
    assert "queues   too short a run to tell whether they grow" in capsys.readouterr().out
