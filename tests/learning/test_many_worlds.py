"""One policy for many worlds: how they are drawn, that training goes through them, and the policy that is shipped."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import splitinfer
from splitinfer.errors import InputError
from splitinfer.learning import TrainingSettings
from splitinfer.learning.shipped import SHIPPED_POLICY
from splitinfer.learning.training import train
from splitinfer.learning.worlds import TRAINING_WORLDS, UNSEEN_WORLDS, WorldFamily
from splitinfer.scheduling import BestStaticCut, FixedCut
from splitinfer.simulation import Scenario, simulate_batch


def test_a_world_is_its_seed():
    assert TRAINING_WORLDS.draw(7) == TRAINING_WORLDS.draw(7)
    drawn = TRAINING_WORLDS.draw_many(40)
    assert len({world.num_devices for world in drawn}) > 3
    assert len({world.num_services[0] for world in drawn}) > 2
    assert {world.arrivals.kind for world in drawn} == {"poisson", "periodic"}


def test_everything_on_the_device_is_within_its_load():
    for world in TRAINING_WORLDS.draw_many(20):
        cycles = np.array([profile.total_macs * world.cycles_per_mac for profile in world.profiles[0]])
        load = float(world.arrival_rates_hz()[0] @ cycles) / world.max_local_frequency_hz
        low, high = TRAINING_WORLDS.local_load
        assert 0.99 * low <= load <= 1.01 * high


def test_no_model_that_is_judged_on_was_trained_on():
    assert not set(TRAINING_WORLDS.models) & set(UNSEEN_WORLDS.models)
    with pytest.raises(InputError, match="models"):
        WorldFamily(models=()).draw(0)


def test_training_goes_through_many_worlds_and_on(tmp_path):
    small = replace(
        TrainingSettings.for_many_worlds(slots=6_000), environments=6, periods_per_rollout=50, epochs=2, validations=1
    )
    folder = train(TRAINING_WORLDS, small, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    assert record["worlds"]["models"] == list(TRAINING_WORLDS.models)
    train(TRAINING_WORLDS, replace(small, slots=9_000), folder, resume=True)
    assert json.loads((folder / "run.json").read_text())["slots_done"] == 9_000
    world = Scenario.preset("table2")
    results = simulate_batch(world, [splitinfer.load_policy(folder)], seeds=[0], slots=2_000)
    assert results[0].finished > 0


def test_flat_policies_cannot_be_trained_over_many_worlds(tmp_path):
    with pytest.raises(InputError, match="only lyappo"):
        train(TRAINING_WORLDS, TrainingSettings.for_algorithm("ppo", slots=1_000), tmp_path / "run")


@pytest.mark.parametrize("number", [2, 3, 14])
def test_the_shipped_policy_takes_little_more_than_best_static_where_it_never_was(number):
    world = UNSEEN_WORLDS.draw(1_000_000 + number)
    seeds, slots = [0, 1], 10_000
    ours = simulate_batch(world, [splitinfer.load_policy(SHIPPED_POLICY)] * 2, seeds=seeds, slots=slots)
    best = simulate_batch(world, [BestStaticCut()] * 2, seeds=seeds, slots=slots)
    local = simulate_batch(world, [FixedCut()] * 2, seeds=seeds, slots=slots)
    energy = [float(np.mean([run.energy_j for run in runs])) for runs in (ours, best, local)]
    assert energy[0] <= 1.05 * energy[1]
    assert energy[0] < energy[2]
    assert all(run.stability.stable for run in ours)
