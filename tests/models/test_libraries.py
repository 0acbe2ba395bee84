"""Models by the names that their libraries have for them."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.architectures import examine
from splitinfer.cli.main import main
from splitinfer.errors import InputError, MissingExtraError
from splitinfer.models import libraries, load_card, load_model
from splitinfer.models.weights import weight_enum


@pytest.mark.parametrize(
    "name", ["shufflenet_v2_x0_5", "regnet_x_400mf", "efficientnet_v2_s", "inception_v3", "swin_t"]
)
def test_a_torchvision_name_without_a_card(name):
    card = load_card(name)
    assert card.name == name
    assert card.labels is not None
    assert isinstance(card.labels, str)
    image = torch.randint(0, 256, (3, 400, 400), dtype=torch.uint8)
    from torchvision.transforms.functional import to_pil_image

    picture = to_pil_image(image)
    expected = weight_enum(card.labels).transforms()(picture).unsqueeze(0)
    found = card.preprocess(picture)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_two_loads_of_a_name_are_one_model():
    one, two = (load_model("shufflenet_v2_x0_5").state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet19", "or give another name of torchvision, timm:NAME, hf:NAME"),
        ("fasterrcnn_resnet50_fpn", "a detector takes a list of pictures"),
        ("../resnet18", "unknown model"),
    ],
)
def test_names_that_mean_nothing(name, says):
    with pytest.raises(InputError) as caught:
        load_card(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "extra"), [("timm:resnet18", "timm"), ("hf:bert", "hf")])
def test_a_library_that_is_absent_is_one_line(monkeypatch, name, extra):
    monkeypatch.setattr(libraries, "find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'splitinfer\[{extra}\]'"):
        load_card(name)


def test_models_lists_every_name(capsys):
    assert main(["models", "--all", "--json"]) == 0
    names = json.loads(capsys.readouterr().out)
    assert "resnet18" in names["cards"]
    assert {"shufflenet_v2_x0_5", "maxvit_t"} <= set(names["torchvision"])
    assert main(["profile", "shufflenet_v2_x0_5", "--no-latency"]) == 0
    assert "shufflenet_v2_x0_5: C = 0.0" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["maxvit_t", "squeezenet1_0", "mnasnet0_5"])
def test_a_short_form_of_the_sweep(name):
    assert examine(name)[0] == "equal"


def test_timm_and_transformers_where_they_are():
    timm = pytest.importorskip("timm")
    assert timm
    card = load_card("timm:mobilenetv3_small_050")
    assert card.preprocessing is not None
    assert examine("timm:test_resnet")[0] == "equal"


def test_transformers_where_they_are():
    pytest.importorskip("transformers")
    assert load_card("hf:ViTConfig").inputs[0].shape == (3, 224, 224)
    assert load_card("hf:bert").inputs[0].dtype == "int64"
    assert examine("hf:distilbert")[0] == "equal"
    with pytest.raises(InputError, match="transformers has no model type"):
        load_card("hf:nothing")
