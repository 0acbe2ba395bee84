import shutil

import pytest

from splitinfer.cli import train as train_module
from splitinfer.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["ppo2"], "algorithm"),
        (["lyappo", "--variant", "loud"], "variant"),
        (["lyappo", "--scenario", "nowhere"], "nowhere"),
        (["lyappo", "--set", "max_power_w=-1"], "max_power_w"),
        (["lyappo", "--resume", "--out", "no/such/run"], "no/such/run"),
        (["lyappo", "--steps", "0"], "steps"),
        (["ppo", "--variant", "paper"], "variant"),
        (["ddpg", "--many-worlds"], "--many-worlds"),
        (["lyappo", "--many-worlds", "--set", "max_power_w=1"], "--set"),
        (["lyappo", "--many-worlds", "--scenario", "busy"], "--scenario"),
    ],
)
def test_mistakes_are_one_line(arguments, named, capsys):
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pytest.importorskip("stable_baselines3")
    folder = tmp_path_factory.mktemp("runs") / "ddpg"
    assert main(["train", "ddpg", "--scenario", "busy", "--steps", "1", "--out", str(folder)]) == 0
    return folder


def test_the_length_is_rounded_up_and_said(run, capsys):
    arguments = ["train", "ddpg", "--resume", "--out", str(run), "--steps", "100"]
    assert main(arguments) == 0
    assert "320 slots already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["lyappo"], "algorithm ddpg, not lyappo"),
        (["ddpg", "--seed", "3"], "seed 0, not 3"),
        (["ddpg", "--scenario", "table2"], "scenario busy, not table2"),
        (["ddpg", "--set", "max_power_w=1"], "--set"),
    ],
)
def test_a_run_goes_on_as_what_it_is(run, arguments, named, capsys):
    assert main(["train", *arguments, "--resume", "--out", str(run), "--steps", "64000"]) == 2
    assert named in capsys.readouterr().err


def test_a_damaged_checkpoint_is_one_line(run, tmp_path, capsys):
    folder = tmp_path / "damaged"
    shutil.copytree(run, folder)
    whole = (folder / "checkpoint.pt").read_bytes()
    for damaged in (whole[:1000], b"", b"no checkpoint"):
        (folder / "checkpoint.pt").write_bytes(damaged)
        assert main(["train", "ddpg", "--resume", "--out", str(folder), "--steps", "64000"]) == 2
        error = capsys.readouterr().err
        assert "checkpoint.pt is damaged" in error
        assert error.count("\n") == 1


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(train_module, "find_spec", lambda package: None)
    assert main(["train", "lyappo"]) == 2
    assert "splitinfer[learn]" in capsys.readouterr().err


def test_help_has_an_example(capsys):
    assert main(["train", "--help"]) == 0
    assert "splitinfer train lyappo" in capsys.readouterr().out
