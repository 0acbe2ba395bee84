"""The smallest model whose best cuts are no prefix of its order."""

from __future__ import annotations

import torch
from torch import nn


class Towers(nn.Module):
    """Two inputs of different sizes; the second one's tower, which runs last, narrows the most."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU())
        self.large = nn.Sequential(nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 4), nn.ReLU())
        self.join = nn.Linear(8, 3)

    def forward(self, small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
        return self.join(torch.cat([self.small(small), self.large(large)], 1))


TWO = torch.linspace(-1, 1, 16)[None], torch.linspace(-1, 1, 256).sin()[None]
"""Inputs of it."""
