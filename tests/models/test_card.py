"""Model cards: what is shipped, what a card may say, and what a wrong one is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from splitinfer.errors import InputError
from splitinfer.models import ModelCard, card_names, list_cards, load_card, weights

CARD = """
source = "torchvision.models:resnet18"
[[inputs]]
shape = [3, 32, 32]
"""


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_at_least_twelve_cards_are_shipped_and_each_says_what_it_stands_for() -> None:
    cards = list_cards()
    assert len(cards) >= 12
    assert [card.name for card in cards] == card_names()
    for card in cards:
        assert card.task, card.name
        assert card.description, card.name
        assert card.preprocessing is not None, card.name
        assert card.labels is not None, card.name


def test_class_names_of_a_shipped_card() -> None:
    names = load_card("resnet18").class_names()
    assert names is not None
    assert len(names) == 1000
    assert names[0] == "tench"


def test_class_names_are_kept_so_that_nobody_waits_for_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITINFER_CACHE", str(tmp_path))
    names = load_card("resnet18").class_names()
    with monkeypatch.context() as patch:
        patch.setattr(weights, "weight_enum", lambda name: pytest.fail("torchvision is asked again"))
        assert load_card("resnet18").class_names() == names
    (kept,) = (tmp_path / "labels").iterdir()
    for damage in ("", "[", "5", "null"):
        kept.write_text(damage)
        assert load_card("resnet18").class_names() == names, "what is damaged is made anew"
    kept.write_text("[]")
    kept.chmod(0o666)
    assert load_card("resnet18").class_names() == names, "what others could have written is not believed"


def test_class_names_from_a_list_a_file_and_nowhere(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n", encoding="utf-8")
    assert load_card(write(tmp_path, 'labels = ["a", "b"]' + CARD)).class_names() == ("a", "b")
    assert load_card(write(tmp_path, 'labels = "names.txt"' + CARD)).class_names() == ("cat", "dog")
    assert load_card(write(tmp_path, CARD)).class_names() is None
    with pytest.raises(InputError, match=r"labels: cannot read .*other\.txt"):
        load_card(write(tmp_path, 'labels = "other.txt"' + CARD)).class_names()


def test_a_card_file_is_named_after_its_file_and_frozen(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, CARD))
    assert card.name == "mine"
    assert card.folder == tmp_path.resolve()
    with pytest.raises(ValueError, match="frozen"):
        card.seed = 3


def test_a_factory_without_a_card_takes_one_image() -> None:
    card = load_card("torchvision.models:alexnet")
    assert card.source == "torchvision.models:alexnet"
    assert card.example_inputs()[0].shape == (1, 3, 224, 224)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('source = "torchvision.models"', "source"),
        ("seed = 1", "source"),
        ('colour = "red"' + CARD, "colour"),
        ("seed = -1" + CARD, "seed"),
        (CARD.replace("[3, 32, 32]", "[3, 0, 32]"), r"inputs\[0\]\.shape\[1\]: must be greater than 0, not 0"),
        (CARD + 'dtype = "float33"', r"inputs\[0\]\.dtype"),
        (CARD + "[preprocessing]\nresize = 32\nmean = [0.5, 0.5]", "mean and std need one number per channel"),
        (CARD + "[preprocessing]\nresize = 32\nstd = [1, 0, 1]", r"preprocessing\.std\[1\]"),
        ("name = 'other'" + CARD, "file's name"),
        ("source = ", "not TOML"),
    ],
)
def test_a_wrong_card_is_answered_with_the_field(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load_card(write(tmp_path, text))


@pytest.mark.parametrize("ref", ["resnet19", "", "../models/resnet18", "absent.toml"])
def test_an_unknown_model_is_answered_in_one_line(ref: str) -> None:
    with pytest.raises(InputError, match=r"unknown model|cannot read model card") as caught:
        load_card(ref)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"known: .*resnet18.*package\.module:factory"):
        load_card("resnet19")


def test_example_inputs_follow_seed_batch_and_size() -> None:
    card = load_card("resnet18")
    (image,) = card.example_inputs()
    assert image.shape == (1, 3, 224, 224)
    assert image.dtype == torch.float32
    assert torch.equal(image, card.example_inputs(seed=0)[0])
    assert not torch.equal(image, card.example_inputs(seed=1)[0])
    assert card.example_inputs(batch=4, input_size=64)[0].shape == (4, 3, 64, 64)
    assert card.example_inputs(input_size=(48, 64))[0].shape == (1, 3, 48, 64)


def test_example_inputs_of_other_dtypes() -> None:
    card = ModelCard.model_validate(
        {
            "name": "text",
            "source": "my.text:model",
            "inputs": [
                {"shape": [7], "dtype": "int64", "high": 100},
                {"shape": [7], "dtype": "bool"},
                {"shape": [3, 8, 8], "dtype": "bfloat16"},
            ],
        }
    )
    tokens, mask, image = card.example_inputs(batch=50, input_size=16)
    assert tokens.dtype == torch.int64
    assert int(tokens.min()) >= 0
    assert 50 < int(tokens.max()) < 100
    assert mask.dtype == torch.bool
    assert mask.all()
    assert (image.dtype, image.shape) == (torch.bfloat16, (50, 3, 16, 16))


def test_inputs_that_make_no_sense_are_refused() -> None:
    card = load_card("resnet18")
    with pytest.raises(InputError, match="batch must be at least 1"):
        card.example_inputs(batch=0)
    with pytest.raises(InputError, match="at least 1 pixel"):
        card.example_inputs(input_size=(0, 5))
    words = ModelCard.model_validate({"name": "w", "source": "a:b", "inputs": [{"shape": [7], "dtype": "int64"}]})
    with pytest.raises(InputError, match="takes no picture"):
        words.example_inputs(input_size=32)
