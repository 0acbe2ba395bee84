"""Files to start from: ``scenario new``, ``card new``, and the table of a scenario's fields."""

from __future__ import annotations

import logging
import re
import tomllib
from pathlib import Path

import pytest

from splitinfer.cli.main import main
from splitinfer.models import load_card
from splitinfer.simulation import Scenario, preset_names
from splitinfer.simulation.field_table import field_table

MODELS = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.Flatten(), nn.Linear(4 * 28 * 28, 2))

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))

class Fuse(nn.Module):
    def __init__(self):
        super().__init__()
        self.see, self.read = nn.Conv2d(3, 8, 3, stride=4), nn.Embedding(2, 8)

    def forward(self, image, tokens):
        return self.see(image).mean((2, 3)) + self.read(tokens).mean(1)

class Choose(nn.Module):
    def forward(self, image):
        return image if image.sum() > 0 else -image
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a module of models."""
    (tmp_path / "new_files_net.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("preset", preset_names())
def test_a_new_scenario_file_is_the_one_that_it_starts_from(preset: str, folder: Path) -> None:
    assert main(["scenario", "new", f"{preset}.toml", "--from", preset]) == 0
    assert Scenario.load(f"{preset}.toml") == Scenario.preset(preset)


def test_every_field_stands_in_a_new_file_and_its_default_is_the_default(folder: Path) -> None:
    assert main(["scenario", "new", "mine.toml"]) == 0
    text = Path("mine.toml").read_text()
    assert all(re.search(rf"^(# )?{name} =", text, flags=re.MULTILINE) for name in Scenario.model_fields)
    shown = re.findall(r"^# (\w+ = .+)$", text, flags=re.MULTILINE)
    defaults = tomllib.loads("\n".join(line for line in shown if line.split()[0] in Scenario.model_fields))
    assert len(defaults) > 25
    assert Scenario(**defaults, num_devices=4, services=("resnet18",)) == Scenario(
        num_devices=4, services=("resnet18",), name="custom"
    )


def test_a_new_file_keeps_what_paths_mean(folder: Path) -> None:
    (folder / "far").mkdir()
    (folder / "far" / "requests.csv").write_text("time_s,device,service\n0.5,0,0\n")
    (folder / "far" / "from.toml").write_text(
        'num_devices = 1\nservices = ["resnet18"]\narrivals = { kind = "trace", path = "requests.csv" }\n'
    )
    assert main(["scenario", "new", "near.toml", "--from", "far/from.toml"]) == 0
    assert Path(Scenario.load("near.toml").arrivals.path).samefile("far/requests.csv")  # type: ignore[union-attr]


def test_the_table_of_fields_says_what_each_is_and_its_unit() -> None:
    table = {row.name: row for row in field_table()}
    assert list(table) == list(Scenario.model_fields)
    assert all(len(row.meaning) > 8 for row in table.values())
    assert table["slot_s"].unit == "s"
    assert table["noise_w_per_hz"].unit == "W/Hz"
    assert table["max_edge_frequency_hz"].default == "2e10"


def test_scenario_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("here.toml").write_text("num_devices = 1\n")
    for arguments, said in {
        ("new",): "new needs the file",
        ("fields", "x.toml"): "fields takes none",
        ("old", "x.toml"): "write new FILE or fields",
        ("new", "here.toml"): "is there already",
        ("new", "x.txt"): "must end in .toml",
        ("new", "x.toml", "--from", "nix"): "no preset 'nix'",
    }.items():
        assert main(["scenario", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert Path("here.toml").read_text() == "num_devices = 1\n"


def test_an_unknown_field_names_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--set", "max_power=0.2"]) == 2
    assert "did you mean max_power_w" in capsys.readouterr().err
    assert main(["simulate", "--set", "bogus=0.2"]) == 2
    assert "there are name, num_devices, services" in capsys.readouterr().err


def test_a_new_card_is_held_to_its_model_before_it_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "new", "new_files_net:net"]) == 0
    assert load_card("net.toml").inputs[0].shape == (3, 224, 224)
    assert main(["profile", "net.toml", "--no-latency"]) == 0
    capsys.readouterr()
    assert main(["card", "new", "new_files_net:Fuse"]) == 2
    assert "takes image, tokens" in capsys.readouterr().err
    two = ["card", "new", "new_files_net:Fuse", "--input", "3x64x64", "--input"]
    assert main([*two, "float32:16"]) == 2
    assert "failed: RuntimeError" in capsys.readouterr().err
    assert not Path("Fuse.toml").exists()
    assert main([*two, "int64:16"]) == 0
    card = load_card("Fuse.toml")
    assert [(one.shape, one.dtype) for one in card.inputs] == [((3, 64, 64), "float32"), ((16,), "int64")]
    assert card.preprocessing is None  # it would make the first of the two alone


def test_no_card_is_written_that_no_verb_would_take(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "new", "new_files_net:Choose"]) == 2
    assert "cannot capture Choose" in capsys.readouterr().err
    assert not Path("Choose.toml").exists()
    assert main(["card", "new", "new_files_net:net", "--out", "a net.toml"]) == 0
    assert "splitinfer profile 'a net.toml'" in capsys.readouterr().out


def test_what_is_assumed_of_a_factory_without_a_card_is_said_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("splitinfer.progress"), "disabled", False)
    for _ in range(2):
        assert main(["profile", "new_files_net:net", "--no-latency"]) == 0
    assert capsys.readouterr().err == (
        "splitinfer: new_files_net:net has no card, so it is taken to want one picture of 3x224x224; splitinfer card "
        "new new_files_net:net --input SHAPE writes a card\n"
    )


def test_files_that_are_no_models_are_told_what_to_write(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("card.txt").write_text("")
    for name, said in {
        "new_files_net.py": "name the factory in it, new_files_net:FACTORY",
        "some/net.py": "some.net:FACTORY",
        "card.txt": "the name of a card file ends in .toml",
        "absent.txt": "unknown model 'absent.txt'",
    }.items():
        assert main(["profile", name, "--no-latency"]) == 2
        assert said in capsys.readouterr().err


def test_card_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in {
        ("old", "a:b"): "write card new",
        ("new", "nix"): "is no factory",
        ("new", "nix:b"): "no module nix",
        ("new", "new_files_net:net", "--input", "3x6a"): "write [DTYPE:]SHAPE",
        ("new", "new_files_net:net", "--input", "float7:3x4x4"): "dtype",
        ("new", "new_files_net:net", "--input", "3x0x4"): "greater than 0",
        ("new", "new_files_net:lazy"): "run the model once in new_files_net:lazy before it is returned",
    }.items():
        assert main(["card", *arguments]) == 2
        assert said in capsys.readouterr().err
