"""What a name in a file may have run: own code and models, and not whatever is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from splitinfer.errors import InputError
from splitinfer.models import load_card, load_model
from splitinfer.models.sources import inputs_of
from splitinfer.policies import named_policy
from splitinfer.scheduling.fixed import FixedCut
from splitinfer.simulation import Scenario, simulate
from splitinfer.simulation.services import profile_of
from splitinfer.user_code import TRUST_VARIABLE
from tests.simulation.small import small_scenario

# Each would make the file "ran".
COMMANDS = [
    ("os:system", "command = 'touch ran'"),
    ("posix:system", "command = 'touch ran'"),
    ("subprocess:Popen", "args = ['touch', 'ran']"),
    ("builtins:exec", ""),
    ("torch:os.system", "command = 'touch ran'"),
    ("own:system", "command = 'touch ran'"),
    ("own:touch", ""),
    ("splitinfer.runtime.child:subprocess.run", "args = ['touch', 'ran']"),
    ("torch.utils.collect_env:run", "command = 'touch ran'"),
    ("torch.hub:load", "repo_or_dir = '.', model = 'touch', source = 'local'"),
    ("torch:load", "f = 'evil.pt', weights_only = false"),
    ("numpy:load", "file = 'evil.pkl', allow_pickle = true"),
    ("splitinfer.cli.main:main", "argv = ['--version']"),
    ("timm:create_model", "model_name = 'hf-hub:somebody/evil'"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with code of the user's own."""
    (tmp_path / "own.py").write_text(
        "from functools import partial\nfrom os import system\nfrom torch import hub\nfrom torchvision.models import "
        "alexnet\ntouch = partial(system, 'touch ran')\nload = hub.load\n"
    )
    (tmp_path / "hubconf.py").write_text("def touch():\n    open('ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    return tmp_path


@pytest.mark.parametrize(("source", "kwargs"), COMMANDS)
def test_a_card_runs_no_command(source: str, kwargs: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if source.startswith("timm"):  # as it is where timm is installed
        timm = ModuleType("timm")
        timm.__file__ = str(Path(pytest.__file__).parent / "timm.py")
        timm.create_model = lambda **kwargs: (folder / "ran").touch()  # type: ignore[attr-defined]
        timm.create_model.__module__ = "timm.models"  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "timm", timm)
    card = folder / "evil.toml"
    card.write_text(f'source = "{source}"\nkwargs = {{ {kwargs} }}\n[[inputs]]\nshape = [3]\n')
    with pytest.raises(InputError, match=r"Python itself|is a module|Python's own|--trust-code"):
        load_model(card)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("source", ["torchvision.models:alexnet", "own:alexnet", "torch.nn:Identity"])
def test_a_card_names_models_wherever_they_are(source: str, folder: Path) -> None:
    card = folder / "good.toml"
    card.write_text(f'source = "{source}"\n')
    assert load_model(card) is not None


def test_installed_code_runs_where_it_is_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = folder / "trusted.toml"
    card.write_text("source = 'torch.hub:load'\nkwargs = { repo_or_dir = '.', model = 'touch', source = 'local' }\n")
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    with pytest.raises(InputError, match="returned NoneType"):
        load_model(card)
    assert (folder / "ran").exists()


def test_preprocessing_runs_no_installed_code(folder: Path) -> None:
    card = folder / "evil.toml"
    card.write_text('source = "own:alexnet"\npreprocess_with = "torch:load"\n')
    with pytest.raises(InputError, match=r"preprocess_with: torch:load .*--trust-code"):
        inputs_of(load_card(card), folder / "evil.pt", max_pixels=1)


@pytest.mark.parametrize("field", ["allocation", "arrivals", "channel", "policy", "services"])
@pytest.mark.parametrize("name", ["torch:os.system", "own:touch", "own:load", "torch.utils.collect_env:run"])
def test_a_scenario_runs_no_command(field: str, name: str, folder: Path) -> None:
    call = f"{name}('touch ran')"

    def use() -> None:
        if field == "policy":
            named_policy(call, small_scenario())
        elif field == "services":
            profile_of(name)
        else:
            simulate(small_scenario().replace(**{field: call}), FixedCut([2, 1]), 10)

    with pytest.raises(InputError, match=r"is a module|Python's own|--trust-code"):
        use()
    assert not (folder / "ran").exists()


def test_classes_of_the_kind_wanted_are_taken_wherever_they_are() -> None:
    assert named_policy("splitinfer.scheduling.price_cut:PriceCut", Scenario.preset("table2")) is not None
