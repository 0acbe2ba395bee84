"""Every kind of picture: what one would see in 8 bits, or one line."""

from __future__ import annotations

import io
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from splitinfer.errors import InputError
from splitinfer.models import load_card
from splitinfer.models.pictures import open_picture, resize_and_crop

RAMP = np.tile(np.linspace(0, 255, 256).round().astype(np.uint8), (64, 1))


def rgb(picture):
    return np.asarray(open_picture(picture, "RGB"))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, order):
    wide = RAMP.astype(np.uint16) * 257
    path = tmp_path / ("deep.png" if order == "<u2" else "deep.tif")
    Image.fromarray(wide.astype(order) if order == "<u2" else wide).save(path)
    for seen in (rgb(path), rgb(Image.open(path))):
        np.testing.assert_array_equal(seen, np.repeat(RAMP[..., None], 3, axis=2))
    card = load_card("resnet18")
    Image.fromarray(RAMP).save(tmp_path / "plain.png")
    assert torch.equal(card.preprocess(path), card.preprocess(tmp_path / "plain.png"))


def test_sixteen_bits_as_integers():
    wide = Image.fromarray(RAMP.astype(np.int32) * 257)
    assert wide.mode == "I"
    np.testing.assert_array_equal(rgb(wide)[..., 0], RAMP)
    with pytest.raises(InputError, match="pixels from 0 to 16711425, which are neither 8 nor 16 bits"):
        rgb(Image.fromarray(RAMP.astype(np.int32) * 65535))
    with pytest.raises(InputError, match="pixels from -255"):
        rgb(Image.fromarray(-RAMP.astype(np.int32)))


def test_floats_have_no_known_white(tmp_path):
    Image.fromarray(RAMP.astype(np.float32) / 255).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match="mode F, whose white is not known"):
        rgb(tmp_path / "float.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_shows_white(mode):
    half = np.zeros((8, 8, 4), np.uint8)
    half[..., 0] = 200  # hidden colour
    half[:4, :, 3] = 255
    picture = Image.fromarray(half)
    picture = picture.convert("P").convert("PA") if mode == "PA" else picture.convert(mode)
    if mode == "PA":
        picture.putalpha(Image.fromarray(half[..., 3]))
    seen = rgb(picture)
    assert (seen[4:] == 255).all()
    assert (seen[:4] < 255).any()


def test_a_transparent_colour_of_a_palette_or_of_grey_shows_white(tmp_path):
    grey = Image.fromarray(np.full((4, 4), 7, np.uint8))
    grey.save(tmp_path / "key.png", transparency=7)
    assert (rgb(tmp_path / "key.png") == 255).all()
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.save(tmp_path / "key.gif", transparency=0)
    assert (rgb(tmp_path / "key.gif")[0, 0] == 255).all()


def test_lab_cmyk_and_the_rest_keep_their_colours():
    red = np.zeros((16, 16, 3), np.uint8)
    red[...] = (220, 30, 40)
    picture = Image.fromarray(red)
    from PIL import ImageCms

    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    kinds = [picture.convert(mode) for mode in ("CMYK", "YCbCr", "HSV")]
    kinds.append(ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB"))
    for kind in kinds:
        assert np.abs(rgb(kind).astype(int) - red).max() <= 6, kind.mode
    inverted = io.BytesIO()
    picture.convert("CMYK").save(inverted, "JPEG")
    inverted.seek(0)
    assert np.abs(rgb(Image.open(inverted)).astype(int) - red).max() <= 12


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (10, 250)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert rgb(tmp_path / "a.gif").mean() < 20


def test_a_strip_costs_what_it_holds(tmp_path):
    strip = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2, 8000, 3), dtype=np.uint8))
    path = tmp_path / "strip.png"
    strip.save(path)
    card = load_card("resnet18")
    card.preprocess(path)
    tracemalloc.start()
    card.preprocess(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000
    # Resized whole, then cropped: the same picture to rounding.
    whole = strip.resize((256 * 4000, 256), Image.Resampling.BILINEAR)
    left = round((256 * 4000 - 224) / 2)
    expected = np.asarray(whole.crop((left, 16, left + 224, 240))).astype(int)
    part = np.asarray(resize_and_crop(strip, [256], (224, 224), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(part - expected).max() <= 1


@pytest.mark.parametrize("size", [(2, 9000), (9000, 2), (1, 5000), (3, 1)])
@pytest.mark.parametrize("resample", ["BILINEAR", "BICUBIC", "NEAREST"])
def test_strips_of_every_direction(size, resample):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    assert resize_and_crop(picture, [64], (48, 48), Image.Resampling[resample]).size == (48, 48)


def huge_png(side):
    """A PNG whose header promises side x side pixels."""
    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [20_000, 2_000_000_000])
def test_a_bomb_is_refused_by_its_header(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(huge_png(side))
    with pytest.raises(InputError, match="max_pixels is 100,000,000"):
        load_card("resnet18").preprocess(tmp_path / "bomb.png")


def test_the_limit_is_a_setting():
    card, picture = load_card("resnet18"), Image.new("RGB", (300, 300))
    with pytest.raises(InputError, match="300 x 300 pixels; max_pixels is 50,000"):
        card.preprocess(picture, max_pixels=50_000)
    assert Image.MAX_IMAGE_PIXELS, "Pillow's own limit is as it was"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_damaged_pictures_are_one_line(tmp_path, kind):
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole, kind)
    content = whole.getvalue()
    rng = np.random.default_rng(3)
    for length in rng.integers(0, len(content), 12):
        broken = bytearray(content[:length])
        for at in rng.integers(0, max(len(broken), 1), 3):
            if broken:
                broken[at] ^= 0xFF
        path = tmp_path / f"broken.{kind.lower()}"
        path.write_bytes(bytes(broken))
        try:
            open_picture(path, "RGB")
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017 - some damage still leaves a picture
