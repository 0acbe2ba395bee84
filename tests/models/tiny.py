"""Small models that card files of the tests name as their source."""

from __future__ import annotations

import torch
from torch import nn


def digits_net(hidden: int = 32) -> nn.Module:
    """Classify 8x8 grey digits."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, hidden), nn.ReLU(), nn.Linear(hidden, 10)
    )


def zero_classifier() -> nn.Module:
    """Start with a classifier of zeros, as a ViT does."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[1].weight)
    return model


def looks_at_values() -> nn.Module:
    """Cannot be built without values in the weights."""
    model = nn.Linear(4, 4)
    model.scale = float(model.weight.sum())
    return model


class FixedDevice(nn.Module):
    """Makes a tensor on the CPU while it runs, so that it cannot be captured on another device."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(224, 8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        shift: torch.Tensor = torch.arange(224, device="cpu", dtype=torch.float32)
        return self.linear(image + shift)


def failing() -> nn.Module:
    raise RuntimeError("no such width")


def no_module() -> int:
    return 3


def any_size() -> nn.Module:
    """Take grey pictures of any size."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def wrong_size() -> nn.Module:
    """Do not take the picture that a factory without a card is given."""
    return nn.Linear(7, 7)
