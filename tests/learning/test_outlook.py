import numpy as np
import pytest

from splitinfer.learning.outlook import FEATURES, Outlook
from splitinfer.learning.periods import Periods
from splitinfer.learning.stacked import stack_settings
from splitinfer.scheduling import pareto_cuts
from splitinfer.simulation.build import setting_of
from tests.simulation.small import BIG, LITTLE, small_scenario


def _one_task_scenario(tmp_path, **changes):
    """One device, one service, one task at 5 s into the run, a channel that does not fade."""
    trace = tmp_path / "arrivals.csv"
    trace.write_text("time_s,device,service\n5.0,0,0\n")
    fields = {
        "services": (BIG,),
        "num_devices": 1,
        "distances_m": (200.0,),
        "arrivals": {"kind": "trace", "path": str(trace)},
        "channel": "steady",
        "bandwidth_hz": 5e4,  # many slots per transfer: in its last one a task is sent at less power than assumed
    }
    return small_scenario(**(fields | changes))


@pytest.mark.parametrize("cut", [0, 2, 3])
@pytest.mark.parametrize("weights", [(1e9, 1e6), (2e17, 1e11)])
def test_cost_is_the_reward_that_one_task_takes_away(tmp_path, cut, weights):
    local, link = weights
    scenario = _one_task_scenario(tmp_path, local_energy_weight=local, transmission_energy_weight=link)
    periods = Periods([scenario], parallel=False)
    outlook = Outlook(periods.settings)
    periods.start([0])
    everywhere = np.full((1, 1, 1), cut)
    periods.step(everywhere)  # from now on the channel is known
    expected = outlook.look(periods.observation).cost[0, 0, 0]
    lost = -sum(periods.step(everywhere).reward[0] for _ in range(600))
    assert periods.in_flight.sum() == 0
    index = outlook.choices[0, 0, 0].tolist().index(cut)
    # A slow device keeps a slot's first frequency to its end; the link's pace is that of its mean backlog.
    assert lost == pytest.approx(expected[index], rel=0.1 if local > 1e9 else 0.005)


def test_candidates_are_the_pareto_cuts():
    outlook = Outlook(stack_settings([setting_of(small_scenario())]))
    for service, profile in enumerate((BIG, LITTLE)):
        wanted = pareto_cuts(profile.compute_ratio, profile.feature_ratio)
        assert np.unique(outlook.choices[0, 0, service]).tolist() == wanted.tolist()


def test_worlds_of_different_sizes_look_the_same_stacked_or_alone():
    scenarios = [
        small_scenario(arrival_rate_hz=6.0),
        small_scenario(services=(LITTLE,), num_devices=3, arrival_rate_hz=4.0),
    ]
    both = Periods(scenarios, parallel=False)
    both.start([3, 4])
    alone = [Periods([scenario], parallel=False) for scenario in scenarios]
    for periods, seed in zip(alone, (3, 4), strict=True):
        periods.start([seed])
    outlook = Outlook(both.settings)
    own = [Outlook(periods.settings) for periods in alone]
    for _ in range(30):
        cost = outlook.look(both.observation).cost
        step = np.where(both.settings.active, 1, 0)
        for row, (periods, view) in enumerate(zip(alone, own, strict=True)):
            _, devices, services = periods.settings.shape
            single = view.look(periods.observation)
            width = single.cost.shape[3]
            np.testing.assert_allclose(cost[row, :devices, :services, :width], single.cost[0])
            assert single.features.shape[-1] == len(FEATURES)
            periods.step(step[row : row + 1, :devices, :services])
        both.step(step)


def test_features_are_of_order_one_in_overload_too():
    periods = Periods([small_scenario(arrival_rate_hz=200.0)], parallel=False)
    outlook = Outlook(periods.settings)
    periods.start([0])
    for _ in range(100):
        features = outlook.look(periods.observation).features
        periods.step(periods.settings.num_cuts // 2)
    assert np.isfinite(features).all()
    assert np.abs(features).max() < 30
