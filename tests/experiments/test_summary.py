"""Arithmetic of tables and bands, on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from splitinfer.experiments import load_sweep
from splitinfer.experiments.report import overview, tables_of
from splitinfer.experiments.summary import band, curve, is_stable, reduction, unstable_points
from tests.experiments.made_up import curve_rows, row, sweep_rows


def test_reductions_are_means_of_each_points_own():
    # at 0.1: 1 against 2 = 50 %, at 0.5: 3 against 4 = 25 %; of the sums it would be 33 %
    found = reduction(sweep_rows(lyappo=(1, 3), ppo=(2, 4)), "lyappo", "ppo")
    assert found.percent == pytest.approx(37.5)
    assert found.by_point == ((0.1, pytest.approx(50)), (0.5, pytest.approx(25)))
    assert (found.points, found.unstable_points) == (2, 0)
    assert found.stable_percent == pytest.approx(37.5)


def test_seeds_are_averaged_before_they_are_compared():
    rows = [row("lyappo", 0.1, energy_j=e, seed=s, training_seed=0) for s, e in enumerate((1.0, 3.0))]
    rows += [row("random", 0.1, energy_j=e, seed=s) for s, e in enumerate((2.0, 6.0))]
    assert reduction(rows, "lyappo", "random").percent == pytest.approx(50)


def test_points_with_growing_queues_are_told_apart():
    rows = sweep_rows(lyappo=(1, 3), ppo=(2, 4))
    for own in rows:
        if own["policy"] == "ppo" and own["value"] == 0.1:
            own["stable"] = False
    assert unstable_points(rows, "ppo") == [0.1]
    assert unstable_points(rows, "lyappo") == []
    assert reduction(rows, "lyappo", "ppo").stable_percent == pytest.approx(25)


def test_stability_is_of_most_runs_and_of_finished_requests():
    def runs(*stable, finished=99):
        return [row("ppo", 0.1, seed=s, stable=one, finished=finished) for s, one in enumerate(stable)]

    assert is_stable(runs(True, True, False))
    assert not is_stable(runs(True, False))
    assert not is_stable(runs(True, True, finished=94))


def test_bands_of_one_training_are_students():
    values = [1.0, 2.0, 4.0, 8.0]
    rows = [row("random", 0.1, energy_j=value, seed=seed) for seed, value in enumerate(values)]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert band(rows, "energy_j").mean == pytest.approx((low + high) / 2)
    assert band(rows, "energy_j").half_width == pytest.approx((high - low) / 2)
    assert np.isnan(band(rows[:1], "energy_j").half_width)


def test_trainings_and_seeds_both_widen_a_band():
    # E = a training's part + a seed's part: means 1, 3 over trainings and 0, 2, 4 (less their mean) over seeds
    rows = [
        row("ppo", 0.1, energy_j=training + seed, training_seed=t, seed=s)
        for t, training in enumerate((1.0, 3.0))
        for s, seed in enumerate((-2.0, 0.0, 2.0))
    ]
    trained, seeded = 2.0 / 2, 4.0 / 3
    freedom = (trained + seeded) ** 2 / (trained**2 / 1 + seeded**2 / 2)
    found = band(rows, "energy_j")
    assert found.mean == pytest.approx(2)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(trained + seeded))


def test_a_curve_has_settled_where_it_stays_near_its_end():
    rows = curve_rows("lyappo", [-9.0, -1.0, -5.0, -2.08, -1.99, -2.01, -2.0])
    assert curve(rows, "reward").settled_slots == 400
    assert curve(rows, "reward").end == -2.0


def test_tables_say_what_the_numbers_say():
    sweep = load_sweep("fig6")
    rows = sweep_rows(lyappo=(1, 3), ppo=(2, 4), random=(4, 12), myopic=(1, 3))
    for own in rows:
        own["stable"] = own["policy"] != "random"
    table = tables_of(sweep, rows, [], world="w", effort=sweep.quick)[0]
    assert table.columns == ("", "PPO", "Random-Cov", "Myopic")
    assert table.rows == (
        ("LyaPPO", "37.50 %", "75.00 % *", "0.00 %"),
        ("the paper", "14.67 %", "32.47 %", "-"),
    )
    text = " ".join(table.notes)
    assert "Random-Cov: growing queues at 2 of 2 points (0.1 W, 0.5 W)" in text
    assert "22.8 points more than in the paper" in text  # 37.5 - 14.67
    assert "Myopic takes as much energy as LyaPPO" in text
    assert "| LyaPPO | 37.50 % | 75.00 % * | 0.00 % |" in table.markdown()


def test_the_overview_stands_beside_the_paper():
    sweeps = [load_sweep("fig6"), load_sweep("fig7")]
    rows = sweep_rows(lyappo=(1, 3), ppo=(2, 4))
    table = overview(sweeps, {"fig6": rows, "fig7": rows})
    assert table is not None
    assert table.rows[0][1] == "37.50 / 14.67 %"
    assert overview(sweeps[:1], {"fig6": rows}) is None, "one figure has a table of its own"
