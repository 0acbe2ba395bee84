"""Learning under the price of time: where it starts, what it is rewarded with, and what a run folder remembers."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import splitinfer
from splitinfer.cli.main import main
from splitinfer.learning import TrainingSettings
from splitinfer.learning.agents import ServiceAgents
from splitinfer.learning.outlook import FEATURES
from splitinfer.learning.periods import Periods
from splitinfer.learning.policies import SharedCutPolicy
from splitinfer.learning.training import train
from splitinfer.learning.worlds import TRAINING_WORLDS
from splitinfer.scheduling import BestStaticCut, FixedCut, PriceCut
from splitinfer.simulation import Scenario, find_best_static, simulate
from tests.simulation.small import small_scenario

PRICED = small_scenario(arrival_rate_hz=2.0, allocation="price", latency_price_w=0.02)


def _untrained():
    width = 2
    sizes = {"actor.0": (width, len(FEATURES)), "actor.2": (width, width), "actor.4": (1, width)}
    weights = {}
    for name, (rows, columns) in sizes.items():
        weights[f"{name}.weight"] = np.zeros((rows, columns), np.float32)
        weights[f"{name}.bias"] = np.zeros(rows, np.float32)
    return SharedCutPolicy(weights, allocation="price")


@pytest.mark.parametrize(
    "scenario",
    [
        PRICED,
        Scenario.preset("busy").replace(allocation="price", latency_price_w=0.003),
        Scenario.preset("drifting").replace(allocation="price", latency_price_w=0.1),
        Scenario.preset("busy").replace(allocation="price", latency_price_w=0.5, device="pixel6"),
    ],
    ids=["small", "busy", "drifting", "pixel6"],
)
def test_training_starts_from_the_price_rule(scenario):
    ours = simulate(scenario, _untrained(), slots=4_000, seed=2)
    rule = simulate(scenario, PriceCut(), slots=4_000, seed=2)
    np.testing.assert_array_equal(ours.tasks.cut, rule.tasks.cut)
    assert ours.energy_j == rule.energy_j


def test_worlds_side_by_side_start_from_it_too():
    scenarios = [PRICED, PRICED.replace(num_devices=3, latency_price_w=0.2, max_power_w=0.1)]
    agents = ServiceAgents(scenarios, periods_per_episode=400)
    single = [ServiceAgents([one], seed=seed, periods_per_episode=400) for seed, one in enumerate(scenarios)]
    together, alone = agents.reset(), [one.reset() for one in single]
    for _ in range(100):
        np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-6)
        for one, seen in ((agents, together), *zip(single, alone, strict=True)):
            one.step_async(np.argmin(np.where(seen[..., -1] > 0, seen[..., -2], np.inf), axis=1))
        together, *_ = agents.step_wait()
        alone = [one.step_wait()[0] for one in single]


@pytest.mark.parametrize("slots_per_period", [1, 7, 10])
def test_task_seconds_add_up_to_the_latencies(tmp_path, slots_per_period):
    trace = tmp_path / "arrivals.csv"
    times = np.random.default_rng(4).uniform(0, 6.0, 120)
    rows = [f"{time:.4f},{number % 2},{number % 3 % 2}" for number, time in enumerate(np.sort(times))]
    trace.write_text("\n".join(["time_s,device,service", *rows, ""]))
    scenario = small_scenario(arrivals={"kind": "trace", "path": str(trace)}, slots_per_period=slots_per_period)
    periods = Periods([scenario, scenario], parallel=False)
    periods.start([0, 1])
    spent, waited, finished = np.zeros((2, 2)), np.zeros((2, 2)), 0
    while finished < 240:
        step = periods.step(periods.settings.num_cuts // 2)
        spent += step.task_s * slots_per_period
        tasks = step.statistics.tasks
        np.add.at(waited, (tasks.environment, tasks.device), tasks.latency_s)
        finished += len(tasks)
    np.testing.assert_allclose(spent, waited, rtol=1e-9)


def test_a_run_remembers_its_allocation(tmp_path):
    small = replace(
        TrainingSettings.for_algorithm("lyappo", slots=4_000),
        environments=4,
        periods_per_rollout=50,
        epochs=2,
        validations=1,
    )
    folder = train(PRICED, small, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    assert record["allocation"] == "price"
    learned = simulate(PRICED, splitinfer.load_policy(folder), slots=4_000, seed=1)
    assert learned.finished > 0


def test_best_static_goes_by_energy_and_latency_under_price():
    world = PRICED.replace(latency_price_w=3.0)  # time is dear
    by_cost = find_best_static(world)
    by_energy = find_best_static(world, BestStaticCut(objective="energy"))
    costs = []
    for policy in (by_cost, by_energy):
        run = simulate(world, FixedCut(policy.report.cuts), slots=20_000, seed=0)
        costs.append(run.energy_j * world.num_devices * run.slots + world.latency_price_w * run.latency_s.sum())
    assert costs[0] < 0.99 * costs[1]


def test_many_worlds_are_drawn_with_a_price():
    priced = replace(TRAINING_WORLDS, allocation="price")
    plain, other = TRAINING_WORLDS.draw(3), priced.draw(3)
    assert other == plain.replace(allocation="price", latency_price_w=other.latency_price_w)
    low, high = priced.latency_price_w
    assert low <= other.latency_price_w <= high


def test_the_verb_takes_an_allocation(tmp_path, capsys):
    out = str(tmp_path / "run")
    arguments = ["train", "ppo", "--scenario", "table2", "--steps", "1", "--allocation", "price", "--out", out]
    assert main([*arguments, "--latency-price", "0.02"]) == 0
    scenario = Scenario.load(tmp_path / "run" / "scenario.toml")
    assert (scenario.allocation, scenario.latency_price_w) == ("price", 0.02)
    assert main(["train", "lyappo", "--many-worlds", "--latency-price", "0.02"]) == 2
    assert "--latency-price" in capsys.readouterr().err
