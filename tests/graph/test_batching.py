"""Halves for several requests against the half for one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from splitinfer.errors import CaptureError
from splitinfer.graph import SplitModel
from splitinfer.runtime.verify import check_answer
from tests.runtime import small

TOLERANCE = 1e-5


class Attention(nn.Module):
    """Reshapes with the batch's size in them, softmax, a parameter that is expanded to the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 3)
        self.token = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(x).reshape(x.shape[0], -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        return self.out(mixed.transpose(1, 2).reshape(x.shape[0], -1, 8)[:, 0])


class OverTheBatch(nn.Module):
    """Computes over dimension 0, which for one request is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.first(x)
        x = x / x.abs().sum() + x.softmax(0)
        return self.second(x), x.argmax(-1)


class NoBatch(nn.Module):
    """Has no dimension of a batch at all, and takes several inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.last = nn.Embedding(10, 4), nn.Linear(4, 2)

    def forward(self, index: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.last(self.words(index).masked_fill(~mask.unsqueeze(-1), 0.0).sum(0))


CASES = {
    "plain": (small.plain, lambda: (torch.randn(1, 3, 32, 32),)),
    "branches and channels-last": (small.Branchy, lambda: (torch.randn(1, 3, 32, 32),)),
    "attention": (Attention, lambda: (torch.randn(1, 5, 8),)),
    "over the batch": (OverTheBatch, lambda: (torch.randn(3, 4),)),
    "no batch": (NoBatch, lambda: (torch.randint(0, 10, (6,)), torch.rand(6) > 0.5)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_batch_answers_what_single_runs_answer(case: str) -> None:
    factory, example = CASES[case]
    torch.manual_seed(0)
    split = SplitModel.capture(factory().eval(), example())
    for k in range(split.num_cuts):
        requests = [split.run_head(k, *example()) for _ in range(4)]
        for size in (1, 2, 4):
            answers = split.run_tails(k, requests[:size])
            assert len(answers) == size
            for answer, request in zip(answers, requests, strict=False):
                expected = split.run_tail_leaves(k, request)
                check_answer(answer, expected, f"cut {k}", tolerance=TOLERANCE if size > 1 else 0.0)


def test_what_is_wrong_with_one_member_stays_its_own() -> None:
    split = SplitModel.capture(small.plain(), (torch.randn(1, 3, 32, 32),))
    good, bad = split.run_head(1, torch.randn(1, 3, 32, 32)), split.run_head(1, torch.full((1, 3, 32, 32), torch.nan))
    answers = split.run_tails(1, [good, bad])
    check_answer(answers[0], split.run_tail_leaves(1, good), "beside nan", tolerance=TOLERANCE)
    assert answers[1][0].isnan().all()


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(x + torch.randn_like(x))


class Choosy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(x[x > 0].sum() + x)


@pytest.mark.parametrize(
    ("factory", "shape", "reason"),
    [
        (small.Broken, (1, 3, 32, 32), "break_down"),
        (Noisy, (1, 4), "random"),
        (Choosy, (1, 4), ""),
    ],
)
@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_tails_without_a_form_for_batches_say_so(factory: type[nn.Module], shape: tuple[int, ...], reason: str) -> None:
    split = SplitModel.capture(factory(), (torch.randn(shape),))
    request = split.trial_tensors(0, 0)
    with pytest.raises(
        CaptureError, match=f"the tail of {factory.__name__} after cut 0 cannot run in batches.*{reason}"
    ):
        split.run_tails(0, [request, request])


def test_trial_tensors_are_what_crosses() -> None:
    split = SplitModel.capture(NoBatch(), (torch.randint(0, 10, (6,)), torch.rand(6) > 0.5))
    for k in range(split.num_cuts):
        for seed in (0, 1):
            split.check_tail(k, split.trial_tensors(k, seed))
