import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import torch

import splitinfer
from splitinfer.errors import InputError
from splitinfer.learning import TrainingSettings
from splitinfer.learning.network import CandidateScores
from splitinfer.learning.outlook import FEATURES, Outlook
from splitinfer.learning.policies import network_input
from splitinfer.learning.settings import TRAINABLE
from splitinfer.learning.stacked import stack_settings
from splitinfer.learning.training import train
from splitinfer.scheduling import FixedCut, RandomCut
from splitinfer.simulation import Scenario, simulate
from splitinfer.simulation.build import setting_of
from tests.simulation.small import BIG, LITTLE, profile_from, small_scenario

SCENARIO = small_scenario(arrival_rate_hz=0.8)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(name="lyappo", **changes):
    base = TrainingSettings.for_algorithm(name, slots=16_000)
    small = {"environments": 4, "periods_per_rollout": 100, "epochs": 3, "validations": 2, "start": "expected-cost"}
    return replace(base, **({name: value for name, value in small.items() if hasattr(base, name)} | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(SCENARIO, settings(), tmp_path_factory.mktemp("runs") / "default")


@pytest.fixture(scope="module")
def paper_run(tmp_path_factory):
    return train(SCENARIO, settings("lyappo-paper", batch_size=100), tmp_path_factory.mktemp("runs") / "paper")


def test_a_learned_policy_beats_random_cuts(run):
    learned = simulate(SCENARIO, splitinfer.load_policy(run), slots=10_000, seed=3)
    random = simulate(SCENARIO, RandomCut(), slots=10_000, seed=3)
    assert learned.energy_j < 0.9 * random.energy_j
    assert learned.latency_s.mean() < random.latency_s.mean()


def test_a_run_folder_holds_no_pickle_and_says_what_was_done(run):
    record = json.loads((run / "run.json").read_text())
    assert record["slots_done"] == 16_000
    assert record["settings"]["seed"] == 0
    assert record["versions"]["torch"] == torch.__version__
    assert Scenario.load(run / "scenario.toml").arrival_rates_hz().tolist() == [[0.8, 0.8], [0.8, 0.8]]
    assert {path.suffix for path in run.iterdir()} <= {".json", ".toml", ".csv", ".safetensors", ".pt", ""}
    torch.load(run / "checkpoint.pt", weights_only=True)
    with (run / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["slots"]) for row in rows] == [4_000, 8_000, 12_000, 16_000]
    assert any((run / "tensorboard").iterdir())


class Recorder:
    """Asks a policy and keeps what it saw and said; simulate copies policies, so the record is shared by all."""

    name = "recorder"
    record: list = []  # noqa: RUF012

    def __init__(self, policy):
        self._policy = policy

    def reset(self, setting, rng):
        self._policy.reset(setting, rng)

    def cuts(self, observation):
        cuts = self._policy.cuts(observation)
        self.record.append((observation, cuts))
        return cuts


def test_the_policy_that_is_loaded_is_the_network_that_was_trained(run):
    network = CandidateScores(len(FEATURES), 64)
    trained = torch.load(run / "checkpoint.pt", weights_only=True)["kept"]
    network.load_state_dict(trained)
    simulate(SCENARIO, Recorder(splitinfer.load_policy(run)), slots=1_000)
    stacked = stack_settings([setting_of(SCENARIO)])
    outlook = Outlook(stacked, task_price=settings().task_price)
    assert len(Recorder.record) == 100
    for observation, cuts in Recorder.record:
        seen = network_input(outlook.look(observation.period.stacked()))
        with torch.no_grad():
            logits = network.forward_actor(torch.from_numpy(seen.reshape(-1, *seen.shape[3:])))
        expected = outlook.cuts(logits.argmax(dim=1).numpy().reshape(stacked.shape))[0]
        np.testing.assert_array_equal(cuts, expected)


def test_same_seed_same_weights(run, tmp_path):
    again = train(SCENARIO, settings(), tmp_path / "again")
    assert (again / "policy.safetensors").read_bytes() == (run / "policy.safetensors").read_bytes()


def test_training_goes_on_from_a_checkpoint(tmp_path):
    folder = train(SCENARIO, replace(settings(), slots=4_000), tmp_path / "run")
    before = _weights_in_training(folder)
    train(SCENARIO, replace(settings(), slots=8_000), folder, resume=True)
    assert json.loads((folder / "run.json").read_text())["slots_done"] == 8_000
    assert len((folder / "curve.csv").read_text().splitlines()) == 3
    after = _weights_in_training(folder)
    assert not torch.equal(before["value_net.weight"], after["value_net.weight"])


def _weights_in_training(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["parameters"]["policy"]


def test_training_may_start_from_the_best_fixed_cuts(tmp_path):
    changes = {"start": "best-static", "slots": 4_000, "learning_rate": 1e-9}
    folder = train(SCENARIO, settings(**changes), tmp_path / "run")
    history = json.loads((folder / "run.json").read_text())["history"]
    assert history["imitated"] > 0.98
    learned = simulate(SCENARIO, splitinfer.load_policy(folder), slots=10_000, seed=3)
    fixed = simulate(SCENARIO, FixedCut(history["best_static_cuts"]), slots=10_000, seed=3)
    assert learned.energy_j == pytest.approx(fixed.energy_j, rel=0.02)


def test_the_policy_kept_is_the_best_of_the_trials(run):
    history = json.loads((run / "run.json").read_text())["history"]
    scores = dict(history["validations"])
    assert len(scores) == 3  # at the start, half way, at the end
    assert history["kept_score"] == max(scores.values())


def test_a_shared_policy_works_where_nothing_is_as_it_was_in_training(run):
    elsewhere = small_scenario(services=("resnet18", "squeezenet1_1", BIG), num_devices=3, arrival_rate_hz=0.3)
    result = simulate(elsewhere, splitinfer.load_policy(run), slots=4_000)
    assert result.stability.stable
    assert result.finished > 0


def test_the_papers_variant_loads_and_fits_its_services_only(paper_run):
    policy = splitinfer.load_policy(paper_run)
    assert simulate(SCENARIO, policy, slots=2_000).finished > 0
    with pytest.raises(InputError, match="trained for other services"):
        simulate(small_scenario(services=(BIG, BIG)), policy, slots=100)


@pytest.mark.parametrize(
    "other",
    [
        {"services": (LITTLE, BIG)},  # as many inputs and outputs, in another order
        {"services": (BIG, profile_from("other", (0, 30_000_000, 100_000_000), (20_000, 4_000, 0)))},
        {"services": (BIG, profile_from("deeper", (0, 60_000_000, 100_000_000), (20_000, 5_000, 0)))},
        {"codecs": "float16"},
        {"num_devices": 1, "services": (BIG, LITTLE, BIG, LITTLE)},
    ],
)
def test_services_of_the_same_size_are_told_apart(paper_run, other):
    with pytest.raises(InputError, match="trained for other services"):
        simulate(SCENARIO.replace(**other), splitinfer.load_policy(paper_run), slots=100)


@pytest.mark.parametrize(
    "moved",
    [
        {"arrival_rate_hz": 0.3},
        {"max_local_frequency_hz": 5e8},
        {"device": "pixel6"},
        {"allocation": "price"},
        {"slots_per_period": 50},
        {"distances_m": 120.0},
    ],
)
def test_a_world_may_move_under_a_trained_policy(paper_run, moved):
    assert simulate(SCENARIO.replace(**moved), splitinfer.load_policy(paper_run), slots=2_000).finished > 0


def test_resuming_notices_that_the_services_changed(paper_run, tmp_path):
    folder = shutil.copytree(paper_run, tmp_path / "run")
    other = SCENARIO.replace(services=(LITTLE, BIG))
    other.save(folder / "scenario.toml")
    with pytest.raises(InputError, match="changed since"):
        train(SCENARIO, settings("lyappo-paper", slots=32_000), folder, resume=True)


def test_a_network_of_other_features_is_refused(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    record["features"] = record["features"][::-1]
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="other features"):
        splitinfer.load_policy(folder)


def test_a_folder_is_not_overwritten(run):
    with pytest.raises(InputError, match="holds a training run already"):
        train(SCENARIO, settings(), run)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no training run"):
        splitinfer.load_policy(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": 99}')
    with pytest.raises(InputError, match="schema"):
        splitinfer.load_policy(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"slots": 0}, {"seed": -1}, {"environments": 0}, {"start": "luck"}, {"epochs": 0}, {"most_samples": 0}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        replace(TrainingSettings.for_algorithm("lyappo"), **wrong)


@pytest.mark.parametrize("name", TRAINABLE)
def test_settings_come_back_from_their_record(name):
    wanted = TrainingSettings.for_algorithm(name, slots=1_234, seed=5)
    assert TrainingSettings.from_record(json.loads(json.dumps(wanted.record()))) == wanted
    assert wanted.name == name


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"algorithm": "sarsa"}, "algorithm: must be one of"),
        ({"variant": "best"}, "must be one of"),
        ({"slots": "many"}, "slots: is of the wrong type"),
        ({"epochs": True}, "epochs: is of the wrong type"),
        ({"clip": None}, "clip: is of the wrong type"),
        ({"hidden": -3}, "hidden: must be at least 1"),
    ],
)
def test_a_damaged_record_of_settings_is_one_line(wrong, said):
    with pytest.raises(InputError, match=said):
        TrainingSettings.from_record(TrainingSettings.for_algorithm().record() | wrong)


def test_records_of_older_runs_hold_fields_of_other_algorithms():
    wanted = TrainingSettings.for_algorithm()
    assert TrainingSettings.from_record(wanted.record() | {"replay_periods": 5, "noise": 0.1}) == wanted
