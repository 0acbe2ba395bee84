"""Cuts of hand-written modules that branch, mutate, alias and return structures."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from torch import nn

from splitinfer.errors import InputError
from splitinfer.graph import SplitModel, TensorSpec
from tests.graph.zoo import eager_leaves, layout, tensor_leaves
from tests.wire.trip import through_the_wire


def check(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, **options: Any) -> SplitModel:
    """Hold every cut of a model to the eager answer; return the split model."""
    kwargs = kwargs or {}
    torch.manual_seed(0)
    own = tuple(arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args)
    eager = eager_leaves(copy.deepcopy(model).eval(), *own, **kwargs)
    split = SplitModel.capture(model.eval(), args, kwargs, optimize=False, **options)
    whole = tensor_leaves(split(*args, **kwargs))
    assert len(whole) == len(eager)
    for mine, theirs in zip(whole, eager, strict=True):
        assert torch.equal(mine, theirs)
        assert (mine.dtype, layout(mine)) == (theirs.dtype, layout(theirs))
    for k in (cut.index for cut in (*split.cuts, *split.set_cuts)):
        crossing = split.run_head(k, *args, **kwargs)
        assert crossing or k == split.num_cuts
        kept = [tensor.clone() for tensor in crossing]
        for tensors in (crossing, crossing, through_the_wire(*crossing)):
            for mine, theirs in zip(tensor_leaves(split.run_tail(k, *tensors)), whole, strict=True):
                assert torch.equal(mine, theirs), f"cut {k}"
                assert layout(mine) == layout(theirs), f"cut {k}"
        # Tails take other layouts than the head's too; kernels are chosen by layout, so the last bits may differ then.
        row_major = (tensor.clone(memory_format=torch.contiguous_format) for tensor in crossing)
        for mine, theirs in zip(tensor_leaves(split.run_tail(k, *row_major)), whole, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
        assert all(torch.equal(now, then) for now, then in zip(crossing, kept, strict=True))
    return split


class InPlaceOnSkip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.a(x)
        y = self.b(skip)
        skip.add_(1.0)
        y += skip
        skip.mul_(2)
        return self.c(y) + skip


class InPlaceOnInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.relu_()
        y = self.a(x)
        x.add_(1)
        return self.b(y) + x


class InPlaceOnView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        y[:, :2] += 1.0
        part = y.view(-1)[4:]
        part.zero_()
        return self.b(y)


class InPlaceOnHiddenAlias(nn.Module):
    """einsum may return a view and does not say so."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.a(x)
        turned = torch.einsum("ij->ji", y)
        turned.add_(1)
        return self.a(y), turned


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor, *, mask: torch.Tensor) -> dict[str, Any]:
        masked = self.c(self.a(x) + self.b(y)).masked_fill(mask, 0.0)
        return {"out": (masked, mask), "count": [mask.long().sum()], "nothing": None, "five": 5}


class UnusedInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 5)

    def forward(self, x: torch.Tensor, unused: torch.Tensor, late: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x)) + late


class SharedSubmodule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(self.layer(x)).relu())


class ManyBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(4, 4) for _ in range(6))
        self.join = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        parts = [branch(x) for branch in self.branches]
        y = parts[0]
        for part in parts[1:]:
            y = self.join(y) * part
        return y, tuple(parts[:2])


class ChangingDtypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8).double()

    def forward(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.a(self.table(index))
        return self.b(y.double()) * (y > 0).to(torch.float64), y.argmax(-1) + index


class Chunks(nn.Module):
    """Chunks of one tensor, one of them expanded, cross together."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 12), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.a(x).chunk(3, -1)
        return self.c(k + self.b(q)) * v.expand(3, -1, -1) + v.transpose(0, 1).sum()


class OverlappingViews(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        left, middle, right, thin = y[:, :6], y[:, 1:7], y[:, 2:], y[:, :1].expand(-1, 6)
        return self.b(self.b(left)) + middle + right + thin


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(8, 6, num_layers=2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, (hidden, _) = self.lstm(x)
        return self.out(y[:, -1]), hidden


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        y = torch.cond(y.sum() > 0, lambda t: self.b(t), lambda t: self.c(t) * 2, (y,))
        return self.c(y)


class NoGradInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("scale", torch.full((4,), 3.0), persistent=False)

    def forward(self, x: torch.Tensor, flag: bool = True) -> torch.Tensor:
        with torch.no_grad():
            y = self.a(x) * self.scale
        return self.b(y) if flag else y


class NoMacs(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu() + 1


class Identity(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class OutputsFromWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x), torch.arange(3) + self.a.bias.sum()


def _input(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


CASES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "in place on a skip": (InPlaceOnSkip, (_input(1, 3, 8, 8),), {}),
    "in place on the input": (InPlaceOnInput, (_input(2, 4),), {}),
    "in place on views": (InPlaceOnView, (_input(2, 8),), {}),
    "in place on a hidden alias": (InPlaceOnHiddenAlias, (_input(8, 8),), {}),
    "two inputs and a keyword": (TwoInputs, (_input(3, 4), _input(3, 6)), {"mask": _input(3, 1) > 0}),
    "unused input": (UnusedInput, (_input(3, 4), _input(7), _input(5)), {}),
    "shared submodule": (SharedSubmodule, (_input(2, 4),), {}),
    "many branches": (ManyBranches, (_input(2, 4),), {}),
    "changing dtypes": (ChangingDtypes, (torch.arange(6).reshape(2, 3),), {}),
    "chunks": (Chunks, (_input(1, 4, 4),), {}),
    "overlapping views": (OverlappingViews, (_input(2, 8),), {}),
    "recurrent": (Recurrent, (_input(2, 5, 8),), {}),
    "branching": (Branching, (_input(2, 8),), {}),
    "no_grad inside": (NoGradInside, (_input(2, 4), True), {}),
    "no macs": (NoMacs, (_input(2, 4),), {}),
    "identity": (Identity, (_input(2, 4),), {}),
    "outputs from weights": (OutputsFromWeights, (_input(2, 4),), {}),
}


@pytest.mark.filterwarnings("ignore:InPlaceOnInput writes to its inputs")
@pytest.mark.parametrize("case", CASES)
def test_every_cut_of_a_nasty_module_gives_the_eager_answer(case: str) -> None:
    factory, args, kwargs = CASES[case]
    torch.manual_seed(3)
    check(factory(), args, kwargs)


def test_a_small_transformer_is_cut_everywhere() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
    split = check(
        nn.TransformerEncoder(layer, 3, enable_nested_tensor=False),
        (_input(2, 6, 16),),
        {"src_key_padding_mask": torch.tensor([[False] * 6, [False] * 4 + [True] * 2])},
    )
    names = [cut.name for cut in split.cuts]
    assert "layers.1.linear1" in names
    assert "layers.2.self_attn@3" in names


def test_cuts_are_named_by_the_layer_they_follow() -> None:
    split = check(SharedSubmodule(), (_input(2, 4),))
    assert [cut.name for cut in split.cuts] == ["input", "layer@1", "layer@2", "layer@3"]
    assert split.find_cut("layer@2") == 2
    assert split.find_cut("layer") == 3
    assert split.find_cut("1") == split.find_cut(1) == 1
    for wrong in ("nosuch", 4, -1, "lay"):
        with pytest.raises(InputError):
            split.find_cut(wrong)


def test_four_or_more_tensors_cross_where_branches_are_open() -> None:
    split = check(ManyBranches(), (_input(2, 4),))
    assert max(len(cut.crossing) for cut in split.cuts) >= 4


def test_what_crosses_is_what_the_tail_needs_and_nothing_twice() -> None:
    split = check(UnusedInput(), (_input(3, 4), _input(7), _input(5)))
    assert [spec.shape for spec in split.cuts[0].crossing] == [(3, 4), (5,)]
    assert [spec.shape for spec in split.cuts[1].crossing] == [(5,), (3, 5)]
    assert split.cuts[2].crossing == ()

    chunks = check(Chunks(), (_input(1, 4, 4),))
    after_first = chunks.cuts[1].crossing
    assert sum(spec.elements for spec in after_first) == 48  # all three chunks once; the expanded one unexpanded
    after_second = chunks.cuts[2].crossing
    assert sum(spec.elements for spec in after_second) == 32  # q is spent: k + b(q) and v

    overlapping = check(OverlappingViews(), (_input(2, 8),))
    assert overlapping.cuts[1].crossing == (TensorSpec((2, 8), torch.float32),)


def test_a_cut_takes_the_position_with_the_fewest_bits() -> None:
    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.nn.functional.max_pool2d(self.a(x).relu(), 5))

    split = check(Pooling(), (_input(1, 3, 12, 12),))
    assert split.cuts[1].crossing == (TensorSpec((1, 8, 2, 2), torch.float32),)
    assert split.cuts[1].output_shape == (1, 8, 2, 2)


def test_wrong_inputs_are_refused_in_one_line() -> None:
    split = check(TwoInputs(), *CASES["two inputs and a keyword"][1:])
    x, y, mask = _input(3, 4), _input(3, 6), _input(3, 1) > 0
    for args, kwargs, reason in [
        ((x,), {"mask": mask}, "structure"),
        ((x, y[:2]), {"mask": mask}, r"float32\[2,6\]"),
        ((x, y.double()), {"mask": mask}, "float64"),
        ((x, y), {"mask": mask.float()}, "bool"),
    ]:
        with pytest.raises(InputError, match=reason):
            split.run_head(1, *args, **kwargs)
    with pytest.raises(InputError, match=r"cuts 0\.\.3"):
        split.run_head(4, x, y, mask=mask)
    with pytest.raises(InputError, match="takes 3 tensors at cut 1, not 1"):
        split.run_tail(1, x)
    flagged = check(NoGradInside(), (_input(2, 4), True))
    with pytest.raises(InputError, match="captured with the value True"):
        flagged.run_head(0, _input(2, 4), False)


def test_threads_share_a_split_model() -> None:
    split = check(ManyBranches(), (_input(2, 4),))
    fresh = SplitModel.capture(ManyBranches().eval(), (_input(2, 4),))
    expected = tensor_leaves(fresh(_input(2, 4)))
    wrong: list[int] = []

    def run() -> None:
        for k in range(fresh.num_cuts + 1):
            answer = tensor_leaves(fresh.run_tail(k, *fresh.run_head(k, _input(2, 4))))
            if not all(map(torch.equal, answer, expected)):
                wrong.append(k)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert split.num_cuts == fresh.num_cuts


class RandomProgram(nn.Module):
    """Runs a list of instructions on a pool of 4x4 tensors, in-place ones and views among them."""

    def __init__(self, instructions: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.instructions = instructions
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pool = [x.clone(), x * 0.5]
        for kind, first, second in self.instructions:
            a, b = pool[first % len(pool)], pool[second % len(pool)]
            if kind == "linear":
                pool.append(self.layers[second % 3](a))
            elif kind == "add":
                pool.append(a + b)
            elif kind == "add_":
                a.add_(b * 0.5)
            elif kind == "relu_":
                a.relu_()
            elif kind == "view":
                pool.append(a.view(2, 8).view(4, 4))
            elif kind == "turn":
                pool.append(a.t())
            elif kind == "half":
                left, right = a.chunk(2, 1)
                pool.append(torch.cat([right, left], 1))
            elif kind == "fill":
                a[:, :1] = 0.25
            elif kind == "reshape":
                pool.append(a.t().reshape(4, 4))
            elif kind == "drop":
                pool.append(nn.functional.dropout(a, 0.5, self.training))
        return tuple(pool[-3:])


_KINDS = ("linear", "linear", "add", "add_", "relu_", "turn", "half", "fill", "reshape", "drop")


# Without shrinking: a capture takes a tenth of a second, and shrinking would take minutes.
@settings(max_examples=60, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@example([("drop", 0, 0), ("add_", 2, 0)])
@example([("relu_", 0, 0), ("drop", 0, 0), ("add_", 0, 1)])
@example([("linear", 0, 0), ("turn", 2, 0), ("fill", 3, 0), ("linear", 2, 1)])
@given(st.lists(st.tuples(st.sampled_from(_KINDS), st.integers(0, 7), st.integers(0, 7)), min_size=3, max_size=12))
def test_every_cut_of_any_program_gives_the_eager_answer(instructions: list[tuple[str, int, int]]) -> None:
    torch.manual_seed(5)
    check(RandomProgram(instructions), (_input(4, 4),))
