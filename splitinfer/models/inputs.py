"""Inputs of a model: random ones of the right shape, and pictures made fit for it."""

from __future__ import annotations

from io import BytesIO
from math import prod
from pathlib import Path

import torch
from PIL import Image

from splitinfer.errors import InputError
from splitinfer.models.card import InputTensor, ModelCard
from splitinfer.models.options import ImageSize
from splitinfer.models.pictures import MAX_PIXELS, picture_array

MAX_ELEMENTS = 10_000_000_000
"""Most elements of an input that is made up."""

_IMAGE_DIMENSIONS = 3  # channels, height, width


def random_inputs(card: ModelCard, *, batch: int, input_size: ImageSize | None, seed: int) -> tuple[torch.Tensor, ...]:
    """Return random inputs of the card's shapes; floats are normal, integers uniform, booleans all true."""
    if batch < 1:
        raise InputError(f"batch must be at least 1, not {batch}")
    shapes = input_shapes(card, input_size)
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for spec, shape in zip(card.inputs, shapes, strict=True):
        if (elements := batch * prod(shape)) > MAX_ELEMENTS:
            raise InputError(f"an input of {elements:.1e} elements; at most {MAX_ELEMENTS:,} are taken")
        dtype: torch.dtype = getattr(torch, spec.dtype)
        size = (batch, *shape)
        if spec.dtype == "bool":
            tensors.append(torch.ones(size, dtype=dtype))
        elif dtype.is_floating_point:
            tensors.append(torch.randn(size, generator=generator).to(dtype))
        else:
            tensors.append(torch.randint(spec.high, size, generator=generator, dtype=dtype))
    return tuple(tensors)


def input_shapes(card: ModelCard, input_size: ImageSize | None) -> list[tuple[int, ...]]:
    """Return the shape of each input without its batch dimension, images at the given size."""
    if input_size is None:
        return [spec.shape for spec in card.inputs]
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
    if height < 1 or width < 1:
        raise InputError(f"input size must be at least 1 pixel, not {height}x{width}")
    if height * width > MAX_PIXELS:
        raise InputError(f"input size must be at most {MAX_PIXELS:,} pixels, not {height}x{width}")
    if not any(_is_image(spec) for spec in card.inputs):
        raise InputError(f"model {card.name} takes no picture, so an input size makes no sense for it")
    return [(spec.shape[0], height, width) if _is_image(spec) else spec.shape for spec in card.inputs]


def _is_image(spec: InputTensor) -> bool:
    return len(spec.shape) == _IMAGE_DIMENSIONS


def preprocess(
    card: ModelCard,
    image: Image.Image | str | Path | BytesIO,
    *,
    input_size: ImageSize | None,
    max_pixels: int = MAX_PIXELS,
) -> torch.Tensor:
    """Turn a picture into the model's first input, with a batch dimension of 1."""
    if card.preprocessing is None:
        raise InputError(f"model {card.name} has no preprocessing in its card, so it takes no picture")
    spec = card.inputs[0]
    if not _is_image(spec):
        raise InputError(f"model {card.name} takes no picture: its first input has shape {spec.shape}")
    rules = card.preprocessing
    channels, height, width = input_shapes(card, input_size)[0]
    if channels != len(rules.mean):
        raise InputError(f"model {card.name} takes {channels} channels but has {len(rules.mean)} means")
    pixels = picture_array(image, rules, spec.shape[1:], (height, width), max_pixels=max_pixels)
    result: torch.Tensor = torch.from_numpy(pixels).to(getattr(torch, spec.dtype))
    return result
