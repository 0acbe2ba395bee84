"""MACs of single layers against closed forms written out here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from splitinfer.graph import SplitModel


class Matmuls(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(a @ b, a, b) + torch.bmm(a, b)


class Einsum(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bij,bjk->bik", a, b)


class Attention(nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v)


def _ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape)


CASES: dict[str, tuple[nn.Module, tuple[Any, ...], int]] = {
    "conv2d": (nn.Conv2d(3, 8, 3, padding=1), (_ones(2, 3, 10, 12),), 2 * 8 * 10 * 12 * 3 * 9),
    "grouped conv2d": (nn.Conv2d(4, 8, 3, groups=2), (_ones(1, 4, 8, 8),), 8 * 6 * 6 * 2 * 9),
    "depthwise conv1d": (nn.Conv1d(6, 6, 5, groups=6), (_ones(1, 6, 9),), 6 * 5 * 5),
    "conv3d": (nn.Conv3d(1, 2, 2), (_ones(1, 1, 4, 4, 4),), 2 * 27 * 8),
    "transposed conv2d": (nn.ConvTranspose2d(4, 6, 3, stride=2), (_ones(1, 4, 5, 5),), 4 * 25 * 6 * 9),
    "linear": (nn.Linear(7, 5), (_ones(2, 3, 7),), 6 * 7 * 5),
    "matmul, baddbmm, bmm": (Matmuls(), (_ones(2, 3, 4), _ones(2, 4, 5)), 3 * 2 * 3 * 4 * 5),
    "einsum": (Einsum(), (_ones(2, 3, 4), _ones(2, 4, 5)), 2 * 3 * 4 * 5),
    "attention": (Attention(), (_ones(1, 2, 6, 4), _ones(1, 2, 9, 4), _ones(1, 2, 9, 5)), 2 * 6 * 9 * (4 + 5)),
    "lstm": (nn.LSTM(5, 7), (_ones(3, 2, 5),), 3 * 2 * 4 * 7 * (5 + 7)),
    "gru, two ways": (nn.GRU(5, 7, bidirectional=True), (_ones(3, 2, 5),), 2 * 3 * 2 * 3 * 7 * (5 + 7)),
}


@pytest.mark.parametrize("case", CASES)
def test_macs_match_the_closed_form(case: str) -> None:
    module, inputs, expected = CASES[case]
    split = SplitModel.capture(module.eval(), inputs)
    assert split.total_macs == expected
    assert split.cuts[-1].macs_before == expected


def test_what_no_rule_covers_is_listed() -> None:
    split = SplitModel.capture(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Softmax(-1), nn.ReLU()), (_ones(1, 2),))
    assert split.uncounted_ops == {"relu": 2, "softmax": 1}
