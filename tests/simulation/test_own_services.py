"""Services of one's own: a card file, a factory or a profile, wherever a scenario is used."""

from __future__ import annotations

import pytest

from splitinfer.cli.main import main
from splitinfer.errors import InputError, ScenarioError
from splitinfer.profiling import profile
from splitinfer.runtime.loop import LoopSettings, run_locally
from splitinfer.scheduling import FixedCut
from splitinfer.simulation import Scenario, simulate
from splitinfer.simulation.identity import digest

CODE = """
import torch
from torch import nn
def build():
    layers = nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    return nn.Sequential(*layers)
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
    def forward(self, x, y):
        return self.a(x) + self.b(y)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "ownnet.py").write_text(CODE, "utf-8")
    (tmp_path / "ownnet.toml").write_text('source = "ownnet:build"\n[[inputs]]\nshape = [3, 32, 32]\n', "utf-8")
    (tmp_path / "world.toml").write_text(
        'services = ["ownnet.toml"]\nnum_devices = 1\narrival_rate_hz = 5.0\n', "utf-8"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_card_file_a_factory_and_a_profile_are_services(here):
    world = Scenario.load(here / "world.toml")
    assert world.num_cuts.tolist() == [[2]]
    profile("ownnet.toml").save(here / "ownnet.json")
    saved = world.replace(services="ownnet.json")
    assert digest(world) == digest(saved)
    assert simulate(world, FixedCut([1]), 300).finished == simulate(saved, FixedCut([1]), 300).finished > 0
    bigger = world.replace(services=("ownnet:build", "mobilenet_v2"))
    assert bigger.profiles[0][0].total_macs > world.profiles[0][0].total_macs, "a factory takes 224 x 224"
    assert main(["simulate", "--scenario", "world.toml", "--slots", "200", "--policy", "price"]) == 0
    assert main(["simulate", "--set", "services=ownnet.toml", "--slots", "200"]) == 0


def test_live_runs_take_them_too(here):
    world = Scenario.load(here / "world.toml")
    settings = LoopSettings(slots=200, time_scale=0.05, patience_s=60.0)
    live = run_locally(world, "fixed:1", settings).result(world)
    assert live.is_right
    assert live.figures.finished == simulate(world, FixedCut([1]), 200).finished > 0


def test_a_profile_without_its_model_is_refused_before_anything_starts(here, capsys):
    profile("ownnet.toml").save(here / "ownnet.json")
    world = Scenario.load(here / "world.toml").replace(services="ownnet.json")
    with pytest.raises(ScenarioError, match="services: ownnet is a profile without its model"):
        run_locally(world, "fixed:1", LoopSettings(slots=10))
    for verb in (["run"], ["edge", "--port", "0"], ["device", "--server", "127.0.0.1:1", "--index", "0"]):
        assert main([*verb, "--scenario", "world.toml", "--set", "services=ownnet.json"]) == 2
        assert "ownnet is a profile without its model" in capsys.readouterr().err
    assert main(["run", "--set", "services=nothing.json"]) == 2
    assert "nothing.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("service", "says"),
    [
        ("resnet51", "no profile for 'resnet51'; known: convnext_tiny"),
        ("ownnet.py:build", "write the module's name, ownnet:build"),
        ("nets/ownnet.py:build", "write the module's name, nets.ownnet:build"),
        ("/home/me/ownnet.py:build", "write the module's name, ownnet:build, in the folder /home/me"),
        ("../ownnet.py", "name the factory in it, ownnet:FACTORY, in the folder .."),
        ("ownnet:Two", "missing a required argument: 'y'; a factory without a card is taken to want one picture"),
        ("ownnet:nothing", "ownnet has no factory 'nothing'"),
        ("nowhere.toml", "cannot read model card nowhere.toml"),
    ],
)
def test_what_is_no_service_is_one_line(here, service, says):
    with pytest.raises(InputError, match=r"^services") as caught:
        Scenario(services=(service,))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
