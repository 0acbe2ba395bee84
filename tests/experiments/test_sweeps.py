"""The sweep files: what they hold fits the scenario, the profiles and each other."""

from __future__ import annotations

import pytest

from splitinfer.errors import InputError, ScenarioError
from splitinfer.experiments import figure_names, jobs, load_sweep
from splitinfer.experiments.jobs import Job, sources_digest
from splitinfer.simulation import Scenario
from splitinfer.simulation.identity import describe


def test_the_papers_figures_are_there():
    assert figure_names() == ["fig3", "fig4", "fig5", "fig6", "fig7"]


@pytest.mark.parametrize("figure", figure_names())
def test_every_point_is_a_valid_world(figure):
    sweep = load_sweep(figure)
    base = sweep.base()
    for quick in (False, True):
        worlds = [sweep.world(base, value) for value in sweep.points(quick=quick)]
        descriptions = [str(describe(world)) for world in worlds]
        assert len(set(descriptions)) == len(worlds)
        # Every sweep meets the base world at one of its points, so that figures share it.
        assert str(describe(base)) in descriptions
    assert set(sweep.paper_reduction_percent) <= set(sweep.policies)


def test_models_come_one_after_another_with_their_fixed_cuts():
    sweep = load_sweep("fig4")
    world = sweep.world(sweep.base(), 4)
    assert world.num_services == (4,) * world.num_devices
    # the large model at the edge, the others on the device
    assert world.cut_array(world.fixed_cuts)[0].tolist() == [0, *world.num_cuts[0, 1:].tolist()]


def test_a_wrong_file_names_the_field():
    fields = load_sweep("fig6").model_dump()
    changes = {"field": "max_pover_w"}, {"quick_values": (0.2, 0.9)}, {"policies": ("magic",)}, {"models": 3}
    for change in changes:
        (name,) = change
        with pytest.raises(ScenarioError, match=name):
            type(load_sweep("fig6"))(**(fields | change))
    with pytest.raises(InputError, match="fig3"):
        load_sweep("fig8")


def test_a_jobs_key_is_what_decides_its_outcome():
    world = Scenario.preset("table2")

    def key(**changes):
        fields = {"world": world, "policy": "ppo", "training_slots": 100, "training_seed": 0, "seeds": (0,), "slots": 9}
        return Job(**(fields | changes)).key

    same = key(world=world.replace(name="another name", max_power_w=0.3, fixed_cuts=[[0, 53]] * 4))
    assert same == key()
    others = [
        key(world=world.replace(max_power_w=0.2)),
        key(world=world.replace(services=("resnet50", "resnet18"))),
        key(policy="ddpg"),
        key(training_slots=101),
        key(training_seed=1),
        key(seeds=(1,)),
        key(slots=10),
    ]
    assert len({key(), *others}) == len(others) + 1


def test_another_source_is_another_result(monkeypatch, tmp_path):
    world = Scenario.preset("table2")
    job = {"world": world, "policy": "ppo", "training_slots": 100, "training_seed": 0, "seeds": (0,), "slots": 9}
    before = Job(**job)
    assert before.key == Job(**job).key
    before = before.key, before.training_key
    monkeypatch.setattr(jobs, "sources_digest", lambda: "another")
    after = Job(**job).key, Job(**job).training_key
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_the_sources_that_count_are_those_that_compute(tmp_path):
    def digest_of(**contents):
        for name, text in contents.items():
            file = tmp_path / name / "module.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        sources_digest.cache_clear()
        return sources_digest(tmp_path)

    first = digest_of(scheduling="a = 1", cli="b = 1", runtime="c = 1")
    assert digest_of(cli="b = 2", runtime="c = 2") == first
    assert digest_of(scheduling="a = 2") != first
    assert digest_of(scheduling="a = 1") == first
