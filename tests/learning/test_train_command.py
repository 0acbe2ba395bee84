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
    ],
)
def test_mistakes_are_one_line(arguments, named, capsys):
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(train_module, "find_spec", lambda package: None)
    assert main(["train", "lyappo"]) == 2
    assert "splitinfer[learn]" in capsys.readouterr().err


def test_help_has_an_example(capsys):
    assert main(["train", "--help"]) == 0
    assert "splitinfer train lyappo" in capsys.readouterr().out
