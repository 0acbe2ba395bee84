"""Tables over seeds, sweeps over weights, pictures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from splitinfer.errors import InputError
from splitinfer.policies import named_policy, policy_names
from splitinfer.scheduling import FixedCut, RandomCut
from splitinfer.simulation import simulate
from splitinfer.simulation.comparison import compare, estimate
from splitinfer.simulation.pareto import sweep_weights
from splitinfer.simulation.plot import plot_pareto, plot_run
from tests.simulation.small import small_scenario


def test_intervals_are_students():
    values = [1.0, 2.0, 4.0, 8.0]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert estimate(values).mean == pytest.approx((low + high) / 2)
    assert estimate(values).half_width == pytest.approx((high - low) / 2)
    assert np.isnan(estimate([1.0]).half_width)


def test_a_comparison_is_its_single_runs():
    scenario = small_scenario()
    local, chance = compare(scenario, [FixedCut(name="local"), RandomCut()], seeds=[3, 4], slots=1000)
    singles = [simulate(scenario, FixedCut(), 1000, seed) for seed in (3, 4)]
    assert local.energy_j.mean == pytest.approx(np.mean([run.energy_j for run in singles]))
    assert local.arrived == chance.arrived == sum(run.arrived for run in singles)
    assert (local.policy, chance.policy) == ("local", "random")


def test_more_weight_on_energy_is_less_energy_and_more_delay():
    scenario = small_scenario(num_devices=1, arrival_rate_hz=3.0)
    points = sweep_weights(
        scenario, FixedCut(), local_weights=[1e9, 1e17, 1e18], transmission_weights=[1e6], slots=8000
    )
    own, *others = points
    assert own.scenario_weights
    assert len(points) == 3, "the scenario's own pair is not run twice"
    energy = [own.energy_j, *(point.energy_j for point in others)]
    delay = [own.latency_p95_s, *(point.latency_p95_s for point in others)]
    assert energy == sorted(energy, reverse=True)
    assert delay == sorted(delay)
    alone = simulate(scenario.replace(local_energy_weight=1e18), FixedCut(), 8000)
    assert others[-1].energy_j == pytest.approx(alone.energy_j)
    assert all(point.efficient for point in others)


def test_pictures_are_written(tmp_path):
    scenario = small_scenario()
    run = simulate(scenario, RandomCut(), 500, trace=5)
    plot_run(run, tmp_path / "run.svg", services=["big", "little"], cut_limits=[3, 2])
    points = sweep_weights(scenario, FixedCut(), local_weights=[1e17], transmission_weights=[1e10], slots=500)
    plot_pareto(points, tmp_path / "pareto.png", title="weights")
    assert "little" in (tmp_path / "run.svg").read_text()
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"\.png"):
        plot_run(run, tmp_path / "run.txt", services=["big", "little"], cut_limits=[3, 2])
    with pytest.raises(InputError, match="no folder"):
        plot_pareto(points, tmp_path / "no" / "pareto.png", title="weights")


def test_policies_by_name():
    scenario = small_scenario(fixed_cuts=(1, 0))
    for name in policy_names():
        assert named_policy(name, scenario).name == name
    run = simulate(scenario, named_policy("fixed:2,1", scenario), 500)
    assert run.policy == "fixed:2,1"
    assert set(run.tasks.cut[run.tasks.service == 0]) == {2}
    for name in ("lucky", "fixed:x", "fixed:9,0", "fixed:1"):
        with pytest.raises(InputError, match="policy"):
            named_policy(name, scenario)


def test_what_is_nothing_all_the_time_needs_no_panel(tmp_path):
    scenario = small_scenario()
    said = {}
    for name, policy in (("local", FixedCut()), ("random", RandomCut())):
        run = simulate(scenario, policy, 400, 0, trace=4)
        plot_run(run, tmp_path / f"{name}.svg", services=["a", "b"], cut_limits=[9, 9])
        said[name] = (tmp_path / f"{name}.svg").read_text()
    assert "<!-- nothing all the time: transmission queue, edge queue, transmit power -->" in said["local"]
    assert said["local"].count('<g id="axes_') == 3
    assert "nothing all the time" not in said["random"]
    assert said["random"].count('<g id="axes_') == 6
    assert "pale: single samples" in said["random"]
