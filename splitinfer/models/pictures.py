"""Pictures of any kind as 8-bit RGB or grey: what one would see, or one line that says why not."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from splitinfer.errors import InputError, SplitInferError
from splitinfer.files import check_file

if TYPE_CHECKING:
    from splitinfer.models.card import Preprocessing

MAX_PIXELS = 100_000_000
"""Largest picture that is decoded: 300 MB as RGB."""

_PILLOW_LIMIT = threading.Lock()
_AS_THEY_ARE = ("1", "L", "RGB")
_CONVERTED = ("CMYK", "YCbCr", "HSV", "RGBX")
_WITH_ALPHA = ("LA", "PA", "RGBA", "La", "RGBa")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


def open_picture(image: Image.Image | str | Path | BytesIO, mode: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return a picture upright (as its EXIF orientation says), in 8 bits.

    Transparency is laid on white, as viewers do; of an animation the first frame counts; 16-bit pictures are scaled.

    Args:
        image: a PIL image, the path of a file, or a file in memory.
        mode: ``"RGB"`` or ``"L"``.
        max_pixels: largest picture taken.

    Raises:
        InputError: the file is no picture, is damaged or too large, or its pixels have no known white.
    """
    what = str(image) if isinstance(image, (str, Path)) else "the picture"
    with _one_line(what, max_pixels):
        if isinstance(image, Image.Image):
            _check_size(image, what, max_pixels)
            return _eight_bits(ImageOps.exif_transpose(image), mode, what)
        if isinstance(image, (str, Path)):
            check_file(image)
        with _limit_lifted(), Image.open(image) as opened:
            _check_size(opened, what, max_pixels)
            opened.load()
            return _eight_bits(ImageOps.exif_transpose(opened), mode, what)


def open_as_it_is(file: BytesIO, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the decoded picture in its own mode and orientation, as ``Image.open`` gives it for the file's path.

    Raises:
        InputError: the file is no picture, is damaged or too large.
    """
    with _one_line("the picture", max_pixels), _limit_lifted():
        opened = Image.open(file)
        _check_size(opened, "the picture", max_pixels)
        opened.load()
        return opened


def check_header(path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse what is no picture or too large one, by its header alone.

    Raises:
        InputError: it is.
    """
    with _one_line(str(path), max_pixels):
        check_file(path)
        with _limit_lifted(), Image.open(path) as opened:
            _check_size(opened, str(path), max_pixels)


@contextmanager
def _one_line(what: str, max_pixels: int) -> Iterator[None]:
    try:
        yield
    except SplitInferError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{what} is no picture that can be read") from None
    except OSError as error:
        raise InputError(f"cannot read picture {what}: {error.strerror or error}") from None
    except MemoryError:
        raise InputError(f"{what} does not fit into memory; max_pixels is {max_pixels:,}") from None
    except Exception as error:  # noqa: BLE001 - readers of broken files fail in any way
        raise InputError(f"{what} is a damaged picture: {type(error).__name__}: {error}") from None


def _check_size(image: Image.Image, what: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(f"{what} has {width} x {height} pixels; max_pixels is {max_pixels:,}")


@contextmanager
def _limit_lifted() -> Iterator[None]:
    """Pillow's own limit is a global number and half a warning; ours is checked before anything is decoded."""
    with _PILLOW_LIMIT, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _eight_bits(image: Image.Image, mode: str, what: str) -> Image.Image:
    if image.mode in _AS_THEY_ARE and "transparency" not in image.info:
        return image.convert(mode)
    if image.mode in _CONVERTED:
        return image.convert("RGB").convert(mode)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        white.alpha_composite(layer)
        return white.convert(mode)
    if image.mode == "P":
        return image.convert("RGB").convert(mode)
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", None)):
        return _from_sixteen_bits(image, what).convert(mode)
    if image.mode == "LAB":
        return _from_lab(image).convert(mode)
    raise InputError(
        f"{what} has pixels of mode {image.mode}, whose white is not known; convert it to 8 bits first, "
        "for example with image.point(lambda v: v / white * 255).convert('L')"
    )


def _from_sixteen_bits(image: Image.Image, what: str) -> Image.Image:
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise InputError(
            f"{what} has pixels from {values.min()} to {values.max()}, which are neither 8 nor 16 bits; "
            "convert it to 8 bits first"
        )
    # 65535 is white: rounded v / 257, in rows so that no wide copy of the whole is made.
    out = np.empty(values.shape, np.uint8)
    for row in range(len(values)):
        out[row] = (values[row].astype(np.uint32) + 128) // 257
    return Image.fromarray(out)


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted


def resize_and_crop(picture: Image.Image, resize: list[int], crop: tuple[int, int], resample: int) -> Image.Image:
    """Resize so that the shorter side (or both) is as asked, and cut the centre out.

    Args:
        picture: in 8 bits.
        resize: ``[shorter side]`` or ``[height, width]``, pixels.
        crop: (height, width); where it is larger than the picture, the rest is black.
        resample: Pillow's filter.
    """
    width, height = picture.size
    if len(resize) == 1:
        short, long = min(width, height), max(width, height)
        new_long = int(resize[0] * long / short)
        new_width, new_height = (resize[0], new_long) if width <= height else (new_long, resize[0])
    else:
        new_height, new_width = resize
    filter_ = Image.Resampling(resample)
    top, left = round((new_height - crop[0]) / 2.0), round((new_width - crop[1]) / 2.0)
    if new_width * new_height <= max(4 * width * height, 16 * crop[0] * crop[1]):
        resized = (
            picture if picture.size == (new_width, new_height) else picture.resize((new_width, new_height), filter_)
        )
        return resized.crop((left, top, left + crop[1], top + crop[0]))
    # A strip would grow beyond all bounds before most of it is cut away: resize the part that is kept alone, with a
    # margin wide enough that its edges do not show.
    scale_x, scale_y = width / new_width, height / new_height
    margin_x, margin_y = (int(4 / min(scale, 1.0)) + 4 for scale in (scale_x, scale_y))
    x0, x1 = max(0, left - margin_x), min(new_width, left + crop[1] + margin_x)
    y0, y1 = max(0, top - margin_y), min(new_height, top + crop[0] + margin_y)
    box = (x0 * scale_x, y0 * scale_y, min(x1 * scale_x, width), min(y1 * scale_y, height))
    part = picture.resize((x1 - x0, y1 - y0), filter_, box=box)
    return part.crop((left - x0, top - y0, left - x0 + crop[1], top - y0 + crop[0]))


def picture_array(
    image: Image.Image | str | Path | BytesIO,
    rules: Preprocessing,
    usual: tuple[int, ...],
    size: tuple[int, int],
    *,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.float32]:
    """Make a picture fit for a model: resize, crop, scale to 0..1, subtract mean, divide by std. Needs no torch.

    Args:
        image: a PIL image, or the path of a file.
        rules: of the card.
        usual: (height, width) that the rules are for.
        size: (height, width) wanted.
        max_pixels: largest picture taken.

    Returns:
        (1, channels, height, width), float32.

    Raises:
        InputError: as ``open_picture``.
    """
    channels = len(rules.mean)
    picture = open_picture(image, "RGB" if channels == 3 else "L", max_pixels=max_pixels)
    resample = getattr(Image.Resampling, rules.interpolation.upper())
    picture = resize_and_crop(picture, _resize_target(rules, usual, size), size, resample)
    pixels = np.asarray(picture).reshape(*size, channels).transpose(2, 0, 1).astype(np.float32)
    pixels /= np.float32(255)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (rules.mean, rules.std))
    pixels -= mean
    pixels /= std
    return np.ascontiguousarray(pixels)[None]


def _resize_target(rules: Preprocessing, usual: tuple[int, ...], size: tuple[int, int]) -> list[int]:
    """Return the resize of the card, scaled along when another input size is asked for."""
    if isinstance(rules.resize, tuple):
        return [round(length * now / then) for length, now, then in zip(rules.resize, size, usual, strict=True)]
    return [round(rules.resize * max(now / then for now, then in zip(size, usual, strict=True)))]
