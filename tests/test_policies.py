"""Policies by name, for simulations and live runs alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitinfer import load_policy
from splitinfer.cli.main import main
from splitinfer.errors import InputError
from splitinfer.learning.shipped import SHIPPED_POLICY
from splitinfer.policies import named_policy
from splitinfer.scheduling import FixedCut, MyopicCut
from splitinfer.simulation import Scenario, simulate


def test_names_and_folders_lead_to_policies(tmp_path: Path) -> None:
    busy = Scenario.preset("busy")
    assert isinstance(named_policy("myopic", busy), MyopicCut)
    assert isinstance(named_policy("fixed:0,53", busy), FixedCut)
    with pytest.raises(InputError, match="no 'nosuch'; there are fixed, random, best-static, myopic, lyappo"):
        named_policy("nosuch", busy)
    with pytest.raises(InputError, match="no training run"):
        named_policy(str(tmp_path), busy)
    with pytest.raises(InputError, match="no training run"):
        named_policy(f"lyappo:{tmp_path}", busy)
    with pytest.raises(InputError, match="write lyappo:FOLDER"):
        named_policy("lyappo:", busy)


@pytest.mark.parametrize("preset", ["table2", "busy", "xr"])
def test_lyappo_is_the_shipped_policy_and_fits_any_scenario(preset: str) -> None:
    scenario = Scenario.preset(preset)
    by_name, by_folder, loaded = (
        simulate(scenario, policy, slots=2000, seed=3)
        for policy in (
            named_policy("lyappo", scenario),
            named_policy(f"lyappo:{SHIPPED_POLICY}", scenario),
            load_policy(SHIPPED_POLICY),
        )
    )
    assert by_name.policy == "lyappo"
    assert by_name.finished > 0
    assert by_name.to_dict() == by_folder.to_dict() == loaded.to_dict()


@pytest.mark.parametrize("name", ["lyappo", "myopic"])
def test_a_folder_does_not_take_a_policys_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()  # an empty one: no policy could come from it
    monkeypatch.chdir(tmp_path)
    busy = Scenario.preset("busy")
    assert named_policy(name, busy).name == name
    for folder in (f"./{name}", f"lyappo:{name}"):
        with pytest.raises(InputError, match="no training run"):
            named_policy(folder, busy)


def test_the_command_line_takes_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--scenario", "busy", "--policy", "lyappo", "--slots", "500"]) == 0
    assert "busy, policy lyappo, seed 0: 500 slots" in capsys.readouterr().out
    assert main(["pareto", "--scenario", "busy", "--policy", "lyappo", "--slots", "200", "--local", "1e9:1e18:2"]) == 0
    assert "policy lyappo" in capsys.readouterr().out
