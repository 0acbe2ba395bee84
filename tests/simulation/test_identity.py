"""Worlds are the same by their contents: not by where their files lie, nor by how their values are written."""

from __future__ import annotations

import json

import pytest

from splitinfer.errors import ScenarioError
from splitinfer.simulation import Scenario
from splitinfer.simulation.identity import describe, digest

GAINS = "1e-9,2e-9\n3e-9,4e-9\n"
ARRIVALS = "time_s,device,service\n0.1,0,0\n0.2,1,0\n"


def _world(folder, gains=GAINS, arrivals=ARRIVALS):
    folder.mkdir(exist_ok=True)
    (folder / "gains.csv").write_text(gains)
    (folder / "arrivals.csv").write_text(arrivals)
    return Scenario(
        num_devices=2,
        channel={"kind": "trace", "path": str(folder / "gains.csv")},
        arrivals={"kind": "trace", "path": str(folder / "arrivals.csv")},
    )


def test_the_same_traces_in_another_folder_are_the_same_world(tmp_path):
    assert digest(_world(tmp_path / "here")) == digest(_world(tmp_path / "there"))


def test_other_traces_at_the_same_path_are_another_world(tmp_path):
    first = digest(_world(tmp_path))
    assert digest(_world(tmp_path, gains=GAINS.replace("4e-9", "5e-9"))) != first
    assert digest(_world(tmp_path, arrivals=ARRIVALS + "0.3,0,1\n")) != first
    assert digest(_world(tmp_path)) == first


def test_a_trace_that_is_gone_is_named(tmp_path):
    world = _world(tmp_path)
    (tmp_path / "gains.csv").unlink()
    with pytest.raises(ScenarioError, match=r"channel.path: cannot read .*gains.csv"):
        digest(world)


def test_how_values_are_written_makes_no_other_world():
    world = Scenario(num_devices=2, services=("resnet50", "mobilenet_v2"), arrival_rate_hz=0.2, distances_m=200)
    for same in (
        world.replace(name="another name"),
        world.replace(services=(("resnet50", "mobilenet_v2"),) * 2),
        world.replace(arrival_rate_hz=[0.2, 0.2]),
        world.replace(arrival_rate_hz=[[0.2, 0.2], [0.2, 0.2]]),
        world.replace(distances_m=(200.0, 200.0)),
        world.replace(fixed_cuts=world.num_cuts.tolist()),
        world.replace(channel={"kind": "rayleigh"}),
    ):
        assert digest(same) == digest(world)


def test_each_field_counts():
    world = Scenario(num_devices=2, drift={"steps": [{"at_s": 0.0, "distances_m": 200}, {"at_s": 1.0}]})
    changes = (
        {"seed": 1},
        {"slot_s": 0.02},
        {"energy_coefficient": 2e-28},
        {"services": ("resnet50", "resnet18")},
        {"fixed_cuts": (0, 0)},
        {"p95_latency_s": 0.5},
        {"arrivals": {"kind": "periodic"}},
        {"channel": {"kind": "correlated", "coherence_time_s": 0.1}},
        {"channel": {"kind": "correlated", "coherence_time_s": 0.2}},
        {"drift": {"steps": [{"at_s": 0.0, "distances_m": 201}, {"at_s": 1.0}]}},
        {"drift": {"steps": [{"at_s": 0.0, "distances_m": 200}, {"at_s": 2.0}]}},
    )
    digests = {digest(world), *(digest(world.replace(**change)) for change in changes)}
    assert len(digests) == len(changes) + 1


def test_a_description_is_json():
    for preset in ("table2", "busy", "xr", "drifting"):
        world = Scenario.preset(preset)
        assert json.loads(json.dumps(describe(world))).keys() == describe(world).keys()
