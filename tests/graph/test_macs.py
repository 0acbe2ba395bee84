"""MACs of single layers against closed forms written out here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

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


class Maps(nn.Module):
    def forward(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch._higher_order_ops.map(lambda row, by: row @ by, rows, weight)


class Scans(nn.Module):
    def forward(self, start: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        def step(state: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            following = (state + row) @ weight
            return following, following.clone()

        return torch._higher_order_ops.scan(step, start, rows)[1]


class Branches(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cond(a.sum() > 0, lambda x, y: x @ y @ y, lambda x, y: x @ y, (a, b))


class Flexible(nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        from torch.nn.attention.flex_attention import flex_attention

        return flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: torch.tanh(score) + i - j)


class Autocasts(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return a @ b


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
    "map": (Maps(), (_ones(5, 3, 4), _ones(4, 4)), 5 * 3 * 4 * 4),
    "map of one row": (Maps(), (_ones(1, 3, 4), _ones(4, 4)), 3 * 4 * 4),
    "scan": (Scans(), (_ones(3, 4), _ones(7, 3, 4), _ones(4, 4)), 7 * 3 * 4 * 4),
    "cond": (Branches(), (_ones(3, 3), _ones(3, 3)), 2 * 27),
    "autocast": (Autocasts(), (_ones(3, 4), _ones(4, 5)), 3 * 4 * 5),
    "flex attention": (Flexible(), (_ones(1, 2, 16, 8), _ones(1, 2, 32, 8), _ones(1, 2, 32, 8)), 2 * 16 * 32 * 16),
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


class Loops(nn.Module):
    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch._higher_order_ops.while_loop(
            lambda i, y: i < 3, lambda i, y: (i + 1, torch.tanh(y @ w)), (torch.tensor(0), x)
        )[1]


def test_loops_of_unknown_length_and_what_bodies_hold_are_listed() -> None:
    split = SplitModel.capture(Loops().eval(), (_ones(3, 3), _ones(3, 3)))
    assert split.uncounted_ops["while_loop"] == 1
    assert split.uncounted_ops["tanh"] == 1
    split = SplitModel.capture(Branches().eval(), (_ones(3, 3), _ones(3, 3)))
    assert "cond" not in split.uncounted_ops


class Composed(nn.Module):
    """A random composition of operators that MAC rules cover, each keeping the shape (2, 6, 8, 8)."""

    def __init__(self, kinds: list[str]) -> None:
        super().__init__()
        self.kinds = kinds
        self.layers = nn.ModuleList(_MAKERS[kind]() for kind in kinds)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = x
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            if kind == "attention":
                q = x.flatten(2).transpose(1, 2)
                x = nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).reshape(x.shape)
            elif kind == "matmul":
                x = torch.matmul(x, kept.transpose(2, 3))
            elif kind == "einsum":
                x = torch.einsum("bcij,bcjk->bcik", x, kept)
            else:
                x = layer(x)
            kept = kept + x
        return x + kept


_MAKERS = {
    "conv": lambda: nn.Conv2d(6, 6, 3, padding=1),
    "grouped": lambda: nn.Conv2d(6, 6, 3, padding=1, groups=3, bias=False),
    "dilated": lambda: nn.Conv2d(6, 6, 3, padding=2, dilation=2),
    "transposed": lambda: nn.ConvTranspose2d(6, 6, 3, padding=1),
    "linear": lambda: nn.Linear(8, 8),
    "bilinear in two": lambda: nn.Sequential(nn.Linear(8, 3, bias=False), nn.ReLU(), nn.Linear(3, 8)),
    "attention": nn.Identity,
    "matmul": nn.Identity,
    "einsum": nn.Identity,
}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(sorted(_MAKERS)), min_size=1, max_size=5))
def test_any_composition_adds_up_to_what_torch_counts(kinds: list[str]) -> None:
    model, x = Composed(kinds).eval(), torch.randn(2, 6, 8, 8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    assert SplitModel.capture(model, (x,)).total_macs == counter.get_total_flops() // 2
