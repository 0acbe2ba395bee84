"""Small models for the runtime's tests, as sources of the card files that ``conftest`` writes."""

from __future__ import annotations

import threading

import torch
from torch import nn

# What the waiting operator does in this process; in a server process nobody sets them.
entered = threading.Event()
release = threading.Event()

WAIT_S = 30.0


@torch.library.custom_op("splitinfer_tests::wait", mutates_args=())
def wait(x: torch.Tensor) -> torch.Tensor:
    """Return a copy once ``release`` is set, or after 30 s."""
    entered.set()
    release.wait(WAIT_S)
    return x.clone()


@wait.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("splitinfer_tests::break_down", mutates_args=())
def break_down(x: torch.Tensor) -> torch.Tensor:
    """Fail as a bug would."""
    raise RuntimeError("secret detail of a bug")


@break_down.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Waiting(nn.Module):
    """Waits in the tail of cut 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.second(torch.ops.splitinfer_tests.wait(self.first(image)))


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.ops.splitinfer_tests.break_down(self.first(image))


class Branchy(nn.Module):
    """Several tensors of several dtypes and layouts cross its cuts; returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        stem = self.norm(self.stem(image)).to(memory_format=torch.channels_last)
        mask = stem > 0
        shift = stem.mean((2, 3), keepdim=True).expand(stem.shape)
        left = torch.relu_(self.left(stem)) + shift
        right = torch.where(mask, self.right(left), left)
        pooled = (left + right + stem).mean((2, 3))
        return {"logits": self.head(pooled), "kept": mask.flatten(1).sum(1)}


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


class Fat(nn.Module):
    """Crosses its first cut with 64 MiB of float32 at 32x32 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.head = nn.Conv2d(3, 16384, 1, bias=False), nn.Conv2d(16384, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.widen(image))
