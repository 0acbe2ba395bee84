"""Policies by name, for simulations and live runs alike."""

from __future__ import annotations

import sys
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
    with pytest.raises(InputError, match="no 'nosuch'; there are lyappo, random, fixed, best-static, myopic"):
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


def test_load_policy_means_the_same_by_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lyappo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_policy("lyappo").name == "lyappo"
    with pytest.raises(InputError, match="no training run"):
        load_policy("./lyappo")


OWN = """
import numpy as np

class Longest:
    # All at the edge, but for devices whose link is busier than k bits.
    def __init__(self, k=1e6):
        self.k = k

    def reset(self, setting, rng):
        self.setting = setting

    def cuts(self, observation):
        busy = observation.transmission_queue_bits > self.k
        return np.where(busy, self.setting.num_cuts, 0)

class Nested:
    class Inner(Longest):
        name = "inner"

class NoPolicy:
    pass

class Fails(Longest):
    def __init__(self):
        raise RuntimeError("no luck")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mypol_here.py").write_text(OWN)
    (tmp_path / "broken_here.py").write_text("import numpy\nx = (\n")
    (tmp_path / "raises_here.py").write_text("\nraise KeyError('at import')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("mypol_here", "broken_here", "raises_here"):  # of an earlier test's folder
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def test_an_own_policy_goes_by_its_module_and_class(own: Path) -> None:
    busy = Scenario.preset("busy")
    policy = named_policy("mypol_here:Longest(k=5e5)", busy)
    assert (policy.name, policy.k) == ("Longest(k=5e5)", 5e5)  # type: ignore[attr-defined]
    assert named_policy("mypol_here:Nested.Inner([1, 2])", busy).name == "inner"
    run = simulate(busy, named_policy("mypol_here:Longest", busy), slots=500)
    assert (run.policy, run.finished > 0) == ("Longest", True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mypol_here:Absent", "mypol_here has no class 'Absent'"),
        ("absent_here:Longest", "cannot import absent_here: there is no module absent_here"),
        ("mypol_here:NoPolicy", "has no method reset and no cuts"),
        ("mypol_here:Fails", r"failed: RuntimeError: no luck \(mypol_here.py:\d+\)"),
        ("mypol_here:Longest(1, 2)", "failed.*TypeError"),
        ("mypol_here:Longest(k=open('x'))", "with numbers, strings and lists"),
        ("mypol_here:Longest(**{'k': 1})", "with numbers, strings and lists"),
        ("broken_here:Longest", r"failed: SyntaxError.*\(broken_here.py:\d+\)"),
        ("raises_here:Longest", r"failed: KeyError.*\(raises_here.py:2\)"),
        ("ppo", "has to be trained"),
    ],
)
def test_what_is_no_policy_is_one_line(own: Path, name: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=says) as caught:
        named_policy(name, Scenario.preset("busy"))
    assert "\n" not in str(caught.value)
    assert main(["simulate", "--scenario", "busy", "--policy", name, "--slots", "100"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_an_own_policy_stands_in_comparisons_and_sweeps(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = "fixed,mypol_here:Longest"
    assert main(["simulate", "--scenario", "busy", "--compare", names, "--slots", "400", "--seeds", "2"]) == 0
    assert "Longest" in capsys.readouterr().out
    (own / "mine.toml").write_text(
        'title = "my sweep"\nscenario = "busy"\nfield = "max_power_w"\nvalues = [0.1, 0.3]\nquick_values = [0.3]\n'
        'policies = ["random", "mypol_here:Longest(k=1e5)"]\npanels = ["energy"]\n'
        "[quick]\nevaluation_slots = 300\nevaluation_seeds = [0]\n"
    )
    command = ["reproduce", "mine.toml", "--quick", "--jobs", "1", "--out", "out"]
    assert main(command) == 0
    assert "ran 2 of 2 jobs" in capsys.readouterr().out
    assert "mypol_here:Longest(k=1e5)" in (own / "out" / "mine-quick.csv").read_text()
    assert main(command) == 0
    assert "ran 0 of 2 jobs" in capsys.readouterr().out
    # What a result was computed with is part of its name.
    (own / "mypol_here.py").write_text(OWN + "\n# another version\n")
    assert main(command) == 0
    assert "ran 1 of 2 jobs" in capsys.readouterr().out


def test_the_command_line_takes_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--scenario", "busy", "--policy", "lyappo", "--slots", "500"]) == 0
    assert "busy, policy lyappo, seed 0: 500 slots" in capsys.readouterr().out
    assert main(["pareto", "--scenario", "busy", "--policy", "lyappo", "--slots", "200", "--local", "1e9:1e18:2"]) == 0
    assert "policy lyappo" in capsys.readouterr().out
