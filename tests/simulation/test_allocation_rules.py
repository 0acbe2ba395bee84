"""Allocation rules in the simulator: the compiled ones against themselves in plain Python, and rules of one's own."""

from __future__ import annotations

import numpy as np
import pytest

from splitinfer.errors import InputError, ScenarioError
from splitinfer.scheduling import FixedCut, MyopicCut, PriceCut
from splitinfer.scheduling.rules import DriftPlusPenalty, PriceOfTime, Waiting
from splitinfer.simulation import Scenario, simulate
from splitinfer.simulation.build import setting_of
from splitinfer.simulation.identity import digest
from tests.simulation.small import small_scenario


class PlainPrice(PriceOfTime):
    """Another class: the compiled loop does not know it and asks slot by slot."""


class PlainDrift(DriftPlusPenalty):
    """Likewise."""


class FullSpeed:
    """Everything as fast as it goes, oldest queue first come: a rule that a user would write first."""

    name = "full-speed"

    def start(self, setting):
        self.setting = setting

    def observe(self, device, channel_gain):
        pass

    def local(self, device, waiting):
        return np.where(waiting.tasks > 0, 1e12, 0.0)

    def transmission(self, device, waiting, channel_gain):
        return np.where(waiting.tasks > 0, 1e12, 0.0), 1e6

    def edge(self, waiting):
        return np.where(waiting.tasks > 0, 1e12, 0.0)


WORLDS = {
    "paper": {},
    "phone": {"device": "pixel6:lte"},
    "headset": {"device": "snapdragon865:5g"},
    "board": {"device": "jetson_nano"},
    "mixed": {"device": ("paper", "pixel6")},
}


def same(one, other):
    np.testing.assert_array_equal(np.sort(one.latency_s), np.sort(other.latency_s))
    assert one.energy_local_j == pytest.approx(other.energy_local_j, rel=1e-9)
    assert one.energy_transmission_j == pytest.approx(other.energy_transmission_j, rel=1e-9)
    assert one.arrived == other.arrived


@pytest.mark.parametrize("order", ["shortest", "oldest"])
@pytest.mark.parametrize("world", WORLDS)
def test_the_compiled_price_equals_the_plain_one(world, order):
    scenario = small_scenario(
        allocation="price", latency_price_w=(0.002, 0.05), service_order=order, arrival_rate_hz=3.0, **WORLDS[world]
    )
    policy = FixedCut([[1, 1], [3, 0]])
    fast = simulate(scenario, policy, 2500, seed=1)
    same(fast, simulate(scenario, policy, 2500, seed=1, allocation=PlainPrice()))
    assert fast.finished > 100


@pytest.mark.parametrize("world", ["paper", "headset"])
def test_the_compiled_growing_price_equals_the_plain_one(world):
    scenario = small_scenario(allocation="price", latency_price_w=0.002, arrival_rate_hz=3.0, **WORLDS[world])
    grown = scenario.replace(price_growth_s=0.15)
    policy = FixedCut([[1, 1], [3, 0]])
    fast = simulate(grown, policy, 2500, seed=1)
    same(fast, simulate(grown, policy, 2500, seed=1, allocation=PlainPrice()))
    constant = simulate(scenario, policy, 2500, seed=1)
    assert fast.energy_j > constant.energy_j
    assert np.percentile(fast.latency_s, 95) < np.percentile(constant.latency_s, 95)
    # Nobody waits so long: not a bit differs.
    later = simulate(scenario.replace(price_growth_s=1e4), policy, 2500, seed=1)
    assert (later.latency_s == constant.latency_s).all()
    assert later.energy_j == constant.energy_j


@pytest.mark.parametrize("tasks", [[1, 0], [2, 5]])
@pytest.mark.parametrize("age_slots", [0, 29, 30, 59, 60, 10_000])
def test_a_price_grown_so_many_times_is_that_price(tasks, age_slots):
    """Whoever has waited for 30 to 59 slots of 10 ms with T = 0.3 s is priced at 2 w, and so on."""
    setting = setting_of(small_scenario(latency_price_w=0.002, device=("paper", "pixel6:lte")))
    there = np.array(tasks) > 0
    waiting = Waiting(
        work=1e9 * there,
        tasks=np.array(tasks),
        head_work=1e8 * there,
        head_arrival_slot=np.where(there, [20_000 - age_slots, 20_000], 0),
        slot=20_000,
    )
    growing, constant = PriceOfTime(), PriceOfTime()
    growing.start(setting.replace(price_growth_s=0.3))
    constant.start(setting.replace(latency_price_w=(1 + age_slots // 30) * setting.latency_price_w))
    for device in range(2):
        np.testing.assert_allclose(growing.local(device, waiting), constant.local(device, waiting), rtol=1e-12)
        rates, power = growing.transmission(device, waiting, 1e-12)
        expected, expected_w = constant.transmission(device, waiting, 1e-12)
        np.testing.assert_allclose(rates, expected, rtol=1e-9)
        assert power == pytest.approx(expected_w, rel=1e-9)


@pytest.mark.parametrize("world", WORLDS)
def test_the_compiled_drift_plus_penalty_equals_the_plain_one(world):
    scenario = small_scenario(
        local_energy_weight=1e18, transmission_energy_weight=1e12, arrival_rate_hz=2.0, **WORLDS[world]
    )
    policy = FixedCut([[2, 1], [3, 0]])
    fast = simulate(scenario, policy, 1500)
    same(fast, simulate(scenario, policy, 1500, allocation=PlainDrift()))
    assert fast.finished >= 20


def test_a_rule_of_ones_own_is_kept_to_what_is_feasible():
    scenario = small_scenario()
    flat_out = simulate(
        scenario.replace(local_energy_weight=0.0, transmission_energy_weight=0.0), FixedCut([2, 1]), 800
    )
    own = simulate(scenario, FixedCut([2, 1]), 800, allocation=FullSpeed())
    assert own.finished == flat_out.finished
    assert own.energy_j == pytest.approx(flat_out.energy_j, rel=0.05)


def test_rules_are_named_in_scenarios(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from splitinfer.scheduling.rules import PriceOfTime\n"
        "class Rule(PriceOfTime):\n"
        "    def __init__(self, factor=1.0):\n"
        "        self.factor = factor\n"
        "    def start(self, setting):\n"
        "        super().start(setting.replace(latency_price_w=setting.latency_price_w * self.factor))\n",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    scenario = small_scenario(latency_price_w=0.01)
    own = scenario.replace(allocation="mine:Rule(factor=4.0)")
    priced = simulate(scenario.replace(allocation="price", latency_price_w=0.04), FixedCut([2, 1]), 600)
    same(simulate(own, FixedCut([2, 1]), 600), priced)
    before = digest(own)
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text("utf-8") + "# changed\n", "utf-8")
    assert digest(own) != before
    with pytest.raises(InputError, match=r"^allocation: mine:Rule\(wrong=1\) failed: TypeError"):
        simulate(scenario.replace(allocation="mine:Rule(wrong=1)"), FixedCut([2, 1]), 10)
    with pytest.raises(InputError, match=r"^allocation: cannot import nowhere"):
        simulate(scenario.replace(allocation="nowhere:Rule"), FixedCut([2, 1]), 10)
    with pytest.raises(ScenarioError, match=r"^allocation: must be drift-plus-penalty, price or package.module:Class"):
        scenario.replace(allocation="greedy")


class Broken(FullSpeed):
    name = "broken"

    def __init__(self, what):
        self.what = what

    def local(self, device, waiting):
        return self.what


@pytest.mark.parametrize("what", [[1.0], [np.nan, 1.0], [-1.0, 0.0], "fast", None])
def test_a_rule_that_returns_nonsense_is_named(what):
    with pytest.raises(InputError, match=r"allocation: .*broken"):
        simulate(small_scenario(arrival_rate_hz=5.0), FixedCut([3, 2]), 200, allocation=Broken(what))


@pytest.mark.parametrize("rule", [object(), FullSpeed, "price of bread", MyopicCut()])
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(InputError, match=r"^allocation"):
        simulate(small_scenario(), FixedCut([3, 2]), 10, allocation=rule)


def test_the_reference_solver_is_for_what_it_knows():
    with pytest.raises(InputError, match=r"solver: .*not the allocation 'price'"):
        simulate(small_scenario(allocation="price"), FixedCut([3, 2]), 10, solver="cvxpy")
    with pytest.raises(InputError, match=r"solver: it knows the paper's processor and radio only"):
        simulate(small_scenario(device="pixel6"), FixedCut([3, 2]), 10, solver="cvxpy")


def test_the_papers_card_changes_no_bit():
    plain, named = small_scenario(), small_scenario(device="paper")
    runs = [simulate(world, FixedCut([1, 1]), 3000) for world in (plain, named)]
    np.testing.assert_array_equal(runs[0].latency_s, runs[1].latency_s)
    assert runs[0].energy_j == runs[1].energy_j


def test_a_card_gives_its_own_limits_and_work():
    paper, board = setting_of(small_scenario()), setting_of(small_scenario(device=("paper", "jetson_nano")))
    assert board.max_local_frequency_hz.tolist() == [1.5e9, 0.9216e9]
    np.testing.assert_allclose(
        board.local_cycles[1] / paper.local_cycles[1].clip(1), 0.0233 / 0.12 * (paper.local_cycles[1] > 0)
    )
    np.testing.assert_array_equal(board.edge_cycles, paper.edge_cycles)
    with pytest.raises(ScenarioError, match="device: has 3 cards, but num_devices is 2"):
        small_scenario(device=("paper",) * 3)


def test_price_spends_less_than_drift_plus_penalty_at_the_same_latency():
    scenario = Scenario.preset("table2").replace(local_energy_weight=1e18, transmission_energy_weight=1e13)
    policy = FixedCut(scenario.cut_array([0, 53]))
    drift = simulate(scenario, policy, 30_000)
    priced = simulate(scenario.replace(allocation="price", latency_price_w=0.012), policy, 30_000)
    assert priced.latency_s.mean() <= drift.latency_s.mean()
    assert priced.energy_j < 0.35 * drift.energy_j
    assert priced.stability.stable


def test_queues_stay_bounded_under_a_small_price_at_high_load():
    """Tasks gather until their wage buys the speed that the load needs: n w = 2 delta s^3."""
    price_w = 3e-3
    scenario = small_scenario(allocation="price", latency_price_w=price_w, arrival_rate_hz=9.0, num_devices=1)
    run = simulate(scenario, FixedCut([3, 0]), 60_000)
    assert run.stability.stable
    speed = 9.0 * 1e9 * 0.12
    assert run.utilisation.local[0] == pytest.approx(speed / 1.5e9, rel=0.05)
    waiting = float(run.mean_queue[0, 0, 0]) / (1e9 * 0.12)
    assert waiting == pytest.approx(2 * 1e-28 * speed**3 / price_w, rel=0.35)


@pytest.mark.parametrize("service_order", ["shortest", "oldest"])
def test_a_latency_target_moves_the_price(service_order):
    scenario = small_scenario(
        allocation="price", num_devices=1, arrival_rate_hz=2.0, p95_latency_s=0.9, service_order=service_order
    )
    run = simulate(scenario, FixedCut([3, 0]), 40_000)
    worst = max(float(np.percentile(run.service_latency_s(0, n), 95)) for n in range(2))
    assert worst == pytest.approx(0.9, rel=0.12)


def test_the_price_policy_sees_queues_of_an_earlier_cut():
    """At a small price on a loaded world it filled the link, cut elsewhere, saw no queue there and filled it again."""
    world = Scenario.preset("xr").replace(allocation="price", latency_price_w=0.1)
    run = simulate(world, PriceCut(), 8_000, seed=101)
    fixed = simulate(world, FixedCut(world.cut_array(world.fixed_cuts)), 8_000, seed=101)
    assert run.stability.stable
    assert run.energy_j < fixed.energy_j
    assert run.latency_s.mean() < 1.1 * fixed.latency_s.mean()


def test_the_price_policy_takes_the_better_of_the_fixed_pairs():
    scenario = Scenario.preset("table2").replace(allocation="price")
    for price_w in (0.001, 0.01):
        world = scenario.replace(latency_price_w=price_w)

        def cost(policy, world=world, price_w=price_w):
            run = simulate(world, policy, 30_000)
            return run.energy_j / world.slot_s * world.num_devices + price_w * run.latency_s.sum() / (
                run.slots * world.slot_s
            )

        fixed = min(cost(FixedCut(world.cut_array(cuts))) for cuts in ([0, 0], [0, 53], None))
        assert cost(PriceCut()) <= 1.03 * fixed
