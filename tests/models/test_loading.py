"""Models come with the weights they were asked for, or are refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from splitinfer import load_model
from splitinfer.errors import InputError
from splitinfer.models import load_card
from tests.models.tiny import digits_net

DIGITS = """
source = "tests.models.tiny:digits_net"
weights = "{weights}"
[[inputs]]
shape = [1, 8, 8]
"""


@pytest.fixture(scope="module")
def trained() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A digit classifier trained for real, and held-out digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = digits_net()
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[:1200]), labels[:1200]).backward()
            optimizer.step()
    return model.eval(), images[1200:], labels[1200:]


def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.inference_mode():
        return float((model(images).argmax(1) == labels).float().mean())


def card_file(folder: Path, weights: str) -> Path:
    path = folder / "digits.toml"
    path.write_text(DIGITS.format(weights=weights), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_trained_weights_come_back_from_a_file_beside_the_card(tmp_path: Path, trained: Any, kind: str) -> None:
    model, images, labels = trained
    if kind == "pt":
        torch.save(model.state_dict(), tmp_path / "digits.pt")
    else:
        save_file(model.state_dict(), tmp_path / "digits.safetensors")
    loaded = load_model(card_file(tmp_path, f"digits.{kind}"))
    assert not loaded.training
    assert accuracy(loaded, images, labels) == accuracy(model, images, labels) > 0.85
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_weights_given_to_the_call_win_over_the_card(tmp_path: Path, trained: Any) -> None:
    model, images, labels = trained
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    loaded = load_model("tests.models.tiny:digits_net", weights=tmp_path / "mine.pt")
    assert accuracy(loaded, images, labels) > 0.85


def test_random_weights_depend_on_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    one, two = (load_model("squeezenet1_1").state_dict() for _ in range(2))
    other = load_model("squeezenet1_1", seed=1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_zero_weights_are_drawn_so_that_the_answer_depends_on_the_input() -> None:
    model = load_model("tests.models.tiny:zero_classifier")
    assert not torch.allclose(model(torch.ones(1, 4)), model(-torch.ones(1, 4)))


def test_models_come_in_evaluation_mode() -> None:
    assert not any(module.training for module in load_model("mobilenet_v3_small").modules())


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("tests.models.tiny:absent", "has no factory 'absent'"),
        ("tests.models.absent:net", "cannot import tests.models.absent"),
        ("tests.models.tiny:failing", "failed: RuntimeError: no such width"),
        ("tests.models.tiny:no_module", "returned int, not a torch.nn.Module"),
        ("resnet19", "unknown model"),
    ],
)
def test_what_cannot_be_built_is_refused(ref: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load_model(ref)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop("0.weight"), r"lack 0\.weight"),
        (lambda state: state.update(extra=torch.ones(1)), "have unknown extra"),
        (
            lambda state: state.update({"0.bias": torch.ones(9)}),
            r"shape in 0\.bias \(\(9,\) instead of \(8,\)\)",
        ),
        (lambda state: state.clear(), r"lack 0\.weight, 0\.bias, 3\.weight and 3 more"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, trained: Any, change: Any, reason: str) -> None:
    state = dict(trained[0].state_dict())
    change(state)
    torch.save(state, tmp_path / "digits.pt")
    with pytest.raises(InputError, match=reason):
        load_model(card_file(tmp_path, "digits.pt"))


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_holds_more_than_weights_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    marker = tmp_path / "executed"
    path = tmp_path / "digits.pt"
    if how == "torch":
        torch.save({"0.weight": _Payload(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(_Payload(marker)))
    with pytest.raises(InputError, match="refused"):
        load_model(card_file(tmp_path, "digits.pt"))
    assert not marker.exists()


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello", encoding="utf-8")
    (tmp_path / "text.safetensors").write_text("hello", encoding="utf-8")
    (tmp_path / "empty.pt").touch()
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    for name in ("text.pt", "text.safetensors", "empty.pt", "list.pt", "absent.pt"):
        with pytest.raises(InputError, match=name.split(".")[0]) as caught:
            load_model(card_file(tmp_path, name))
        assert "\n" not in str(caught.value).strip(), name


def test_unknown_published_weights_are_refused() -> None:
    for name in ("ResNet18_Weights.NEWEST", "ResNet19_Weights.DEFAULT"):
        with pytest.raises(InputError, match="torchvision has no weights"):
            load_model("resnet18", weights=name)


def _publish(monkeypatch: pytest.MonkeyPatch, home: Path, enum_name: str, state: dict[str, torch.Tensor]) -> None:
    """Put a file where torch keeps weights that it has downloaded."""
    from splitinfer.models.weights import weight_enum

    monkeypatch.setenv("TORCH_HOME", str(home))
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / Path(weight_enum(enum_name).url).name)


def test_published_weights_come_from_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = load_model("squeezenet1_1", seed=7).state_dict()
    _publish(monkeypatch, tmp_path, "SqueezeNet1_1_Weights.DEFAULT", published)
    loaded = load_model("squeezenet1_1", weights="SqueezeNet1_1_Weights.DEFAULT").state_dict()
    assert all(torch.equal(loaded[name], published[name]) for name in published)


def test_published_weights_with_heads_for_training_or_old_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lraspp = dict(load_model("lraspp_mobilenet_v3_large", seed=7).state_dict())
    _publish(
        monkeypatch,
        tmp_path / "a",
        "LRASPP_MobileNet_V3_Large_Weights.DEFAULT",
        lraspp | {"aux.0.weight": torch.ones(1)},
    )
    loaded = load_model("lraspp_mobilenet_v3_large", weights="LRASPP_MobileNet_V3_Large_Weights.DEFAULT").state_dict()
    assert all(torch.equal(loaded[name], lraspp[name]) for name in lraspp)

    densenet = load_model("densenet121", seed=7).state_dict()
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in name else name: value
        for name, value in densenet.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    _publish(monkeypatch, tmp_path / "b", "DenseNet121_Weights.DEFAULT", old)
    loaded = load_model("densenet121", weights="DenseNet121_Weights.DEFAULT").state_dict()
    assert all(torch.equal(loaded[name], densenet[name]) for name in densenet)


def test_a_failed_download_is_one_line_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with pytest.raises(InputError, match=r"cannot download .*give its path instead"):
        load_model("squeezenet1_1", weights="SqueezeNet1_1_Weights.DEFAULT")


def test_a_card_of_every_source_is_a_card(tmp_path: Path) -> None:
    card = load_card(card_file(tmp_path, "absent.pt"))
    with pytest.raises(InputError, match="there is no file"):
        load_model(card)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 1},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    ],
    ids=["checkpoint", "data-parallel", "compiled"],
)
def test_checkpoints_as_people_save_them(wrap, tmp_path, trained) -> None:
    torch.save(wrap(dict(trained[0].state_dict())), tmp_path / "checkpoint.pt")
    loaded = load_model("tests.models.tiny:digits_net", weights=tmp_path / "checkpoint.pt")
    for name, value in trained[0].state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_a_checkpoint_with_several_state_dicts_names_them(tmp_path, trained) -> None:
    state = dict(trained[0].state_dict())
    torch.save({"model": state, "ema": {name: value + 1 for name, value in state.items()}}, tmp_path / "two.pt")
    with pytest.raises(InputError, match=r"several state dicts \(model, ema\); name one.*two.pt#KEY"):
        load_model("tests.models.tiny:digits_net", weights=tmp_path / "two.pt")
    averaged = load_model("tests.models.tiny:digits_net", weights=f"{tmp_path / 'two.pt'}#ema")
    name = next(iter(state))
    assert torch.equal(averaged.state_dict()[name], state[name] + 1)
    with pytest.raises(InputError, match="'best' is no state dict in it; it holds model, ema"):
        load_model("tests.models.tiny:digits_net", weights=f"{tmp_path / 'two.pt'}#best")
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "none.pt")
    with pytest.raises(InputError, match=r"hold no state dict; the keys are epoch, loss"):
        load_model("tests.models.tiny:digits_net", weights=tmp_path / "none.pt")
