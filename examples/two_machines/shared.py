"""What both machines have: the model with its weights, and how a picture becomes its input."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from splitinfer import SplitModel

SIZE = 64


def build() -> SplitModel:
    """The model, captured. Both ends need the same weights: here a seed, in real use a file of them."""
    torch.manual_seed(0)
    layers = {
        "wide": nn.Conv2d(3, 16, 5, stride=2),
        "relu": nn.ReLU(),
        "narrow": nn.Conv2d(16, 4, 3, stride=2),
        "flatten": nn.Flatten(),
        "classes": nn.Linear(4 * 14 * 14, 10),
    }
    model = nn.Sequential(OrderedDict(layers))
    return SplitModel.capture(model.eval(), (torch.zeros(1, 3, SIZE, SIZE),), name="mine")


def preprocess(picture: Path) -> torch.Tensor:
    """A picture as the model wants it: the middle square, from -1 to 1, shape (1, 3, SIZE, SIZE)."""
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.resize((SIZE, SIZE), box=(left, top, left + side, top + side))
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).reshape(SIZE, SIZE, 3)
    return (pixels.permute(2, 0, 1)[None].float() / 127.5 - 1).contiguous()
