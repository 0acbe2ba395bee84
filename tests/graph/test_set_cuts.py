"""Set cuts: heads that are no prefix of the captured order, held against all sets there are, and run."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from splitinfer.errors import InputError
from splitinfer.graph import SplitModel
from splitinfer.graph.cuts import Program, find_cuts
from splitinfer.graph.set_cuts import find_set_cuts
from splitinfer.graph.specs import FIRST_SET_CUT
from tests.graph.test_cuts import _input, check
from tests.graph.towers import TWO, Towers

aten = torch.ops.aten


class NarrowingBlock(nn.Module):
    """Every branch narrows at once, and all run before any goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.narrow = nn.ModuleList(nn.Conv2d(16, 1, 1) for _ in range(3))
        self.widen = nn.ModuleList(nn.Conv2d(1, 16, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        branches = zip(self.narrow, self.widen, strict=True)
        return torch.cat([widen(narrow(x).relu()) for narrow, widen in branches], 1).mean((2, 3))


class InPlaceTowers(Towers):
    """A branch writes into what it made, through a view, and adds to it in place after the other has run."""

    def forward(self, small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
        a = self.small[0](small)
        a[:, :2] = 0.5
        b = self.large(large)
        a.add_(1.0)
        a = self.small[2](a.relu_())
        b.mul_(2.0)
        return self.join(torch.cat([a, b], 1))


class ViewsAcross(Towers):
    """Views of one tower's tensor are read on both sides of a set cut."""

    def forward(self, small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
        left, right = self.small[0](small).chunk(2, 1)
        b = self.large[:2](large)
        low, high = b.split([4, 12], 1)
        a = self.small[2](torch.cat([right, left], 1))
        c = self.large[2](torch.cat([high, low], 1))
        return self.join(torch.cat([a + low, c * b.view(1, 4, 4)[:, 1]], 1))


class ManyOutputs(Towers):
    """Outputs that repeat, that are inputs, views, constants, and inner values of both towers."""

    def forward(self, small: torch.Tensor, large: torch.Tensor) -> dict[str, Any]:
        a, b = self.small[:2](small), self.large[:2](large)
        end = self.join(torch.cat([self.small[2](a), self.large[2](b)], 1))
        return {"end": end, "again": (end, end), "large": large, "low": b[:, :3], "bias": self.join.bias * 2, "n": 3}


class ChangingTypes(Towers):
    """Whole numbers and truth values cross beside real ones."""

    def forward(self, small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
        b = self.large[:2](large)
        mask, place = b > 0, b.argmax(1)
        a = self.small(small)
        return self.join(torch.cat([a, self.large[2](b * mask)], 1)) + place[:, None]


class ConditionsAndTuples(Towers):
    """Operations with several results, a condition, and an output whose size depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(4, 4, batch_first=True)

    def forward(self, small: torch.Tensor, large: torch.Tensor) -> tuple[torch.Tensor, ...]:
        steps, (state, _) = self.recurrent(self.large[:2](large).view(1, 4, 4))
        small = torch.cond(large.sum() > 0, lambda x: x * 2, lambda x: x - 1, (self.small(small),))
        most, place = steps.max(1)
        end = self.join(torch.cat([small, most], 1))
        return end, end[end > 0], state, place


class ShrinkingInput(nn.Module):
    """Without a MAC less crosses than the input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(nn.functional.avg_pool1d(x, 4))


CASES: dict[str, tuple[type[nn.Module], tuple[torch.Tensor, ...]]] = {
    "towers": (Towers, TWO),
    "narrowing block": (NarrowingBlock, (_input(1, 3, 16, 16),)),
    "in place": (InPlaceTowers, TWO),
    "views": (ViewsAcross, TWO),
    "many outputs": (ManyOutputs, TWO),
    "types": (ChangingTypes, TWO),
    "conditions and tuples": (ConditionsAndTuples, TWO),
    "shrinking input": (ShrinkingInput, (_input(1, 1, 16),)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_set_cut_gives_the_eager_answer_and_beats_the_cuts(case: str) -> None:
    factory, args = CASES[case]
    torch.manual_seed(3)
    split = check(factory(), args)
    assert split.set_cuts, case
    for number, cut in enumerate(split.set_cuts):
        assert cut.index == FIRST_SET_CUT + number
        assert split.cut(cut.index) is cut
        assert all(
            cut.crossing_bits < one.crossing_bits for one in split.cuts[:-1] if one.macs_before <= cut.macs_before
        )


def test_a_set_cut_is_found_by_its_last_layers_and_its_number() -> None:
    split = SplitModel.capture(Towers().eval(), TWO)
    names = [cut.name for cut in split.set_cuts]
    assert "{small.0+large.2}" in names
    first = split.set_cuts[0]
    assert split.find_cut(first.name) == split.find_cut(str(first.index)) == split.find_cut(first.index) == first.index
    for wrong in (split.num_cuts + 1, FIRST_SET_CUT - 1, FIRST_SET_CUT + len(names)):
        with pytest.raises(InputError, match=rf"cuts 0\.\.{split.num_cuts} and the set cuts {FIRST_SET_CUT}\.\."):
            split.run_head(wrong, *TWO)
    with pytest.raises(InputError, match=r"has no set cut '\{large\.9\}'; it has \{"):
        split.find_cut("{large.9}")


def test_two_captures_agree_on_set_cuts_and_their_fingerprints_tell_them_apart() -> None:
    torch.manual_seed(0)
    model = Towers().eval()
    one, other = (SplitModel.capture(model, TWO) for _ in range(2))
    ks = [cut.index for cut in one.set_cuts]
    marks = [one.fingerprint_at(k) for k in ks]
    assert marks == [other.fingerprint_at(k) for k in ks]
    assert len({one.fingerprint, *marks}) == len(ks) + 1
    assert one.fingerprint_at(0) == one.fingerprint_at(one.num_cuts) == one.fingerprint
    other.find_cut("0")
    assert [cut.crossing for cut in one.set_cuts] == [cut.crossing for cut in other.set_cuts]


def test_the_weights_of_a_set_cuts_halves_are_those_that_they_read() -> None:
    split = SplitModel.capture(Towers().eval(), TWO)
    k = split.find_cut("{small.0+large.2}")
    (head, _), (tail, _) = split.half_weights(k)
    assert head == 16 * 8 + 8 + 256 * 16 + 16 + 16 * 4 + 4
    assert head + tail == split.num_parameters


class RandomTowers(nn.Module):
    """Instructions on a pool that starts with two inputs of different widths: in-place ones, views, repeats."""

    def __init__(self, instructions: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.instructions = instructions
        self.narrow = nn.ModuleDict({str(width): nn.Linear(width, width // 2) for width in (64, 32, 16, 8, 4)})

    def forward(self, small: torch.Tensor, large: torch.Tensor) -> dict[str, Any]:
        pool = [small * 1.0, large * 1.0]
        for kind, first, second in self.instructions:
            a, b = pool[first % len(pool)], pool[second % len(pool)]
            width = a.shape[1]
            if kind == "narrow" and width > 2:
                pool.append(self.narrow[str(width)](a))
            elif kind == "add_" and a.shape == b.shape:
                a.add_(b * 0.5)
            elif kind == "relu_":
                a.relu_()
            elif kind == "fill":
                a[:, ::2] = 0.25
            elif kind == "halves" and width > 2:
                pool += a.chunk(2, 1)
            elif kind == "turn":
                pool.append(a.reshape(2, -1).t().reshape(4, width))
            elif kind == "drop":
                pool.append(nn.functional.dropout(a, 0.5, self.training))
        last = [self.narrow["4"](tensor.reshape(4, -1)[:, :4]) for tensor in pool[-2:]]
        return {"last": last, "again": last[0]}


_KINDS = ("narrow", "narrow", "narrow", "add_", "relu_", "fill", "halves", "turn", "drop")


def test_set_cuts_of_random_programs_give_the_eager_answer() -> None:
    seen: list[int] = []

    # Without shrinking: each takes a capture.
    @settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(st.lists(st.tuples(st.sampled_from(_KINDS), st.integers(0, 9), st.integers(0, 9)), min_size=6, max_size=12))
    def run(instructions: list[tuple[str, int, int]]) -> None:
        torch.manual_seed(5)
        seen.append(len(check(RandomTowers(instructions), (_input(4, 16), _input(4, 64))).set_cuts))

    run()
    assert sum(map(bool, seen)) >= 5, (len(seen), seen)


Vertex = tuple[str, tuple[int, ...], int]


@st.composite
def graphs(draw: st.DrawFn) -> list[Vertex]:
    """Operations as (kind, what is read, size); the first two are inputs."""
    nodes: list[Vertex] = [("input", (), draw(st.sampled_from([8, 64]))) for _ in range(2)]
    for _ in range(draw(st.integers(2, 7))):
        kind = draw(st.sampled_from(["layer", "layer", "free", "view", "join"]))
        read = draw(st.lists(st.integers(0, len(nodes) - 1), min_size=1, max_size=2, unique=True))
        size = draw(st.sampled_from([1, 3, 8, 20, 64]))
        if kind == "view":
            read, size = read[:1], min(size, nodes[read[0]][2])
        nodes.append((kind, tuple(read), size))
    return nodes


def _program(nodes: list[Vertex], outputs: list[int]) -> Program:
    graph, made = fx.Graph(), list[fx.Node]()
    for kind, read, size in nodes:
        sources = [made[i] for i in read]
        if kind == "input":
            node = graph.placeholder(f"x{len(made)}")
        elif kind == "view":
            node = graph.call_function(aten.slice.Tensor, (sources[0], 0, 0, size))
        else:
            node = graph.call_function(aten.cat.default, (sources,))
        node.meta["val"] = torch.empty(size, dtype=torch.uint8, device="meta")
        made.append(node)
    macs = tuple(size * 7 + index if kind == "layer" else 0 for index, (kind, _, size) in enumerate(nodes))[2:]
    return Program(tuple(made[:2]), tuple(made[2:]), frozenset(), tuple(made[i] for i in outputs), macs, {}, ())


def _all_heads(nodes: list[Vertex], outputs: list[int]) -> list[tuple[int, int]]:
    """MACs and least bits of every head, by trying every set of operations with every set of tensors to send."""
    found = []
    for count in range(len(nodes) - 1):
        for chosen in combinations(range(2, len(nodes)), count):
            head = {0, 1, *chosen}
            if not all(set(nodes[i][1]) <= head for i in head):
                continue
            macs = sum(nodes[i][2] * 7 + i for i in chosen if nodes[i][0] == "layer")
            bits = []
            for much in range(len(head) + 1):
                for sent in combinations(sorted(head), much):
                    there = set(sent)  # what the tail has: what was sent, views of that, and its own operations
                    for i, (kind, read, _) in enumerate(nodes):
                        if (i not in head or kind == "view") and read and set(read) <= there:
                            there.add(i)
                    if set(range(len(nodes))) - head <= there and set(outputs) <= there:
                        bits.append(8 * sum(nodes[i][2] for i in sent))
            found.append((macs, min(bits)))
    return found


@settings(max_examples=120, deadline=None, derandomize=True)
@given(graphs(), st.data())
def test_no_head_is_cheaper_than_the_best_cut_at_any_price(nodes: list[Vertex], data: st.DataObject) -> None:
    read = {i for _, sources, _ in nodes for i in sources}
    outputs = sorted({i for i in range(2, len(nodes)) if i not in read} | {data.draw(st.integers(0, len(nodes) - 1))})
    program = _program(nodes, outputs)
    cuts, _ = find_cuts(program)
    sets = find_set_cuts(program, cuts)
    total = sum(program.macs)
    every = [point for point in _all_heads(nodes, outputs) if point[0] < total]
    assert all((one.cut.macs_before, one.cut.crossing_bits) in every for one in sets)
    reached = [(cut.macs_before, cut.crossing_bits) for cut in (*cuts, *(one.cut for one in sets))]
    per_bit, per_mac = data.draw(st.integers(1, 50)), data.draw(st.integers(0, 50))
    best = min([per_bit * bits + per_mac * macs for macs, bits in every], default=per_mac * total)
    assert min(per_bit * bits + per_mac * macs for macs, bits in reached) == min(best, per_mac * total)
