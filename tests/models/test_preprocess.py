"""Pictures become inputs exactly as the weights' publishers make them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splitinfer.errors import InputError
from splitinfer.models import ModelCard, card_names, load_card
from splitinfer.models.weights import weight_enum

ORIENTATION = 0x0112
TURNED_RIGHT = 6  # the camera was held so that the stored picture has to be turned by 90 degrees clockwise


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height)).convert(mode)


@pytest.mark.parametrize("name", card_names())
def test_preprocessing_equals_that_of_the_published_weights(name: str) -> None:
    card = load_card(name)
    assert isinstance(card.labels, str)
    # Segmentation presets keep the picture's shape where our card fixes it, so a square one is compared.
    image = picture(600, 600) if card.inputs[0].shape[1] != 224 else picture(300, 400)
    expected = weight_enum(card.labels).transforms()(image).unsqueeze(0)
    result = card.preprocess(image)
    assert result.shape == (1, *card.inputs[0].shape)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_the_orientation_in_the_file_is_applied(tmp_path: Path) -> None:
    card = load_card("resnet18")
    upright = picture(320, 240)
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_RIGHT
    path = tmp_path / "photo.png"
    stored.save(path, exif=exif)
    assert torch.equal(card.preprocess(path), card.preprocess(upright))
    assert not torch.equal(card.preprocess(stored), card.preprocess(upright))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_kind_of_picture_gives_three_channels(mode: str) -> None:
    assert load_card("resnet18").preprocess(picture(256, 256, mode)).shape == (1, 3, 224, 224)


def test_another_input_size_scales_the_resize_along() -> None:
    card = load_card("resnet18")
    image = picture(512, 512)
    small = card.preprocess(image, input_size=112)
    assert small.shape == (1, 3, 112, 112)
    # A quarter of the pixels of the same middle of the picture: the means of both agree.
    torch.testing.assert_close(small.mean(), card.preprocess(image).mean(), rtol=0.02, atol=0.02)
    assert card.preprocess(image, input_size=(96, 160)).shape == (1, 3, 96, 160)


def test_grey_models() -> None:
    card = ModelCard.model_validate(
        {
            "name": "digits",
            "source": "a:b",
            "inputs": [{"shape": [1, 8, 8]}],
            "preprocessing": {"resize": [8, 8], "mean": [0.0], "std": [1.0]},
        }
    )
    result = card.preprocess(picture(64, 64))
    assert result.shape == (1, 1, 8, 8)
    assert 0 <= float(result.min()) <= float(result.max()) <= 1


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a picture", encoding="utf-8")
    card = load_card("resnet18")
    with pytest.raises(InputError, match="no picture that can be read"):
        card.preprocess(text)
    with pytest.raises(InputError, match="cannot read picture"):
        card.preprocess(tmp_path / "absent.jpg")
    (tmp_path / "cut.png").write_bytes(_half_a_png(tmp_path))
    with pytest.raises(InputError, match="cannot read picture"):
        card.preprocess(tmp_path / "cut.png")
    with pytest.raises(InputError, match="no preprocessing"):
        ModelCard.model_validate({"name": "m", "source": "a:b"}).preprocess(picture(8, 8))


def _half_a_png(folder: Path) -> bytes:
    picture(64, 64).save(folder / "whole.png")
    data = (folder / "whole.png").read_bytes()
    return data[: len(data) // 2]
