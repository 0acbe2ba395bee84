import shutil

import pytest

from splitinfer.cli import train as train_module
from splitinfer.cli.main import main
from splitinfer.learning.run_folder import read_run, settings_of


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
        (["lyappo", "--hyper", "learning_rat=1"], "learning_rat: lyappo has no such setting; there are slots"),
        (["lyappo", "--hyper", "learning_rate=fast"], "text is written in quotes"),
        (["lyappo", "--hyper", "hidden=1.5"], "hidden: is of the wrong type: 1.5"),
        (["ddpg", "--hyper", "clip=0.2"], "clip: ddpg has no such setting"),
        (["ppo", "--hyper", "epochs=0"], "epochs: must be at least 1, not 0"),
        (["lyappo", "--hyper", "seed=1"], "seed is the option --seed"),
        (["lyappo", "--hyper", "loud"], "--hyper: write NAME=VALUE"),
        (["lyappo", "--hyper", "no/such.toml"], "--hyper: cannot read no/such.toml"),
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
    (folder.parent / "mine.toml").write_text("gamma = 0.9\nhidden = 32\n")
    how = ["--hyper", str(folder.parent / "mine.toml"), "--hyper", "hidden=16"]
    assert main(["train", "ddpg", "--scenario", "busy", "--steps", "1", "--out", str(folder), *how]) == 0
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
        (["ddpg", "--hyper", "gamma=0.8"], "--hyper"),
    ],
)
def test_a_run_goes_on_as_what_it_is(run, arguments, named, capsys):
    assert main(["train", *arguments, "--resume", "--out", str(run), "--steps", "64000"]) == 2
    assert named in capsys.readouterr().err


def test_settings_of_options_and_files_are_the_runs(run):
    settings = settings_of(read_run(run))
    assert (settings.gamma, settings.hidden, settings.learning_rate) == (0.9, 16, type(settings)().learning_rate)


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
