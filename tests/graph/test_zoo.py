"""Every cut of every model of the zoo gives the unsplit answer, bit for bit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from splitinfer.graph import SplitModel
from tests.graph.zoo import CLASSIFICATION, SEGMENTATION, ZOO, build, eager_leaves, layout, tensor_leaves
from tests.wire.trip import through_the_wire


def test_the_zoo_is_as_wide_as_promised() -> None:
    assert len(CLASSIFICATION) >= 20
    assert len(SEGMENTATION) >= 2


@pytest.mark.parametrize("name", ZOO)
def test_every_cut_gives_the_unsplit_answer(name: str) -> None:
    model, image = build(name)
    split = SplitModel.capture(model, (image,), optimize=False)
    eager = eager_leaves(model, image)
    whole = tensor_leaves(split(image))
    for mine, theirs in zip(whole, eager, strict=True):
        assert torch.equal(mine, theirs)
        assert (mine.dtype, layout(mine)) == (theirs.dtype, layout(theirs))

    macs = [cut.macs_before for cut in split.cuts]
    assert macs[0] == 0
    assert all(earlier < later for earlier, later in pairwise(macs))
    assert split.cuts[0].crossing == split.inputs
    assert split.cuts[-1].crossing == ()
    assert len({cut.name for cut in split.cuts}) == len(split.cuts)

    for k, cut in enumerate(split.cuts):
        crossing = split.run_head(k, image)
        if k < split.num_cuts:
            assert [(tuple(t.shape), t.dtype) for t in crossing] == [(s.shape, s.dtype) for s in cut.crossing]
        # What a wire delivers, and on some cuts also what the head made: each costs as much as the whole model.
        deliveries = [through_the_wire(*crossing), *([crossing] if k % 4 == 0 else [])]
        for tensors in deliveries:
            for mine, theirs in zip(tensor_leaves(split.run_tail(k, *tensors)), eager, strict=True):
                assert torch.equal(mine, theirs), f"{name} cut {k} ({cut.name})"
                assert (mine.dtype, layout(mine)) == (theirs.dtype, layout(theirs)), f"{name} cut {k} ({cut.name})"


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet", "densenet", "shufflenet_v2_x1_0"])
def test_folding_batch_norms_keeps_cuts_and_answers(name: str) -> None:
    model, image = build(name)
    exact = SplitModel.capture(model, (image,), optimize=False)
    folded = SplitModel.capture(model, (image,))
    assert [(c.name, c.macs_before, c.crossing) for c in folded.cuts] == [
        (c.name, c.macs_before, c.crossing) for c in exact.cuts
    ]
    (expected,) = tensor_leaves(exact(image))
    whole = folded(image)
    assert (whole - expected).abs().max() <= 1e-4 * expected.abs().max()
    for k in range(0, folded.num_cuts + 1, 5):
        assert torch.equal(folded.run_tail(k, *folded.run_head(k, image)), whole)


@pytest.mark.parametrize("name", ["vit_b_16", "swin", "shufflenet_v2_x1_0", "maxvit"])
def test_a_tail_takes_what_the_wire_delivers_and_can_run_twice(name: str) -> None:
    """A wire delivers bytes and a layout; a retry runs the same tail again on the same tensors."""
    model, image = build(name)
    split = SplitModel.capture(model, (image,))
    whole = split(image)
    for k in range(split.num_cuts):
        crossing = split.run_head(k, image)
        received = through_the_wire(*crossing)
        before = [tensor.clone() for tensor in received]
        first = split.run_tail(k, *received)
        again = split.run_tail(k, *received)
        assert torch.equal(first, whole)
        assert torch.equal(again, whole)
        assert all(torch.equal(now, then) for now, then in zip(received, before, strict=True))


def test_all_cuts_of_resnet50_share_one_set_of_weights() -> None:
    model, image = build("resnet50")
    split = SplitModel.capture(model, (image,), optimize=False)
    held = {tensor.data_ptr(): tensor.nbytes for tensor in split._captured.weights.values()}
    owned = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    assert not held.keys() & owned.keys()  # one copy of the model's, and no more
    assert sum(held.values()) <= sum(owned.values())
    for k in range(split.num_cuts + 1):
        split.warm(k)
    assert {tensor.data_ptr() for tensor in split._captured.weights.values()} == held.keys()
    assert split.num_cuts == 54


class ClassAttention(nn.Module):
    """Keys and values are views with gaps into one projection; where they cross, kernels are chosen by the gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.kv, self.q, self.out = nn.Linear(384, 768), nn.Linear(384, 384), nn.Linear(384, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        k, v = self.kv(x).reshape(1, 17, 2, 12, 32).permute(2, 0, 3, 1, 4)
        q = self.q(x[:, :1]).reshape(1, 1, 12, 32).transpose(1, 2) * 0.2
        attention = (q @ k.transpose(-2, -1)).softmax(-1)
        return self.out((attention @ v).transpose(1, 2).reshape(1, 384))


def test_views_with_gaps_lie_in_the_tail_as_they_did_at_capture() -> None:
    torch.manual_seed(0)
    model, x = ClassAttention().eval(), torch.randn(1, 17, 384)
    split = SplitModel.capture(model, (x,), optimize=False)
    (eager,) = eager_leaves(model, x)
    seen = []
    for k in range(split.num_cuts):
        crossing = split.run_head(k, x)
        seen += [tensor for tensor in crossing if tensor.numel() and not tensor.is_contiguous()]
        assert torch.equal(split.run_tail(k, *through_the_wire(*crossing)), eager), k
        assert torch.equal(split.run_tail(k, *(tensor.contiguous() for tensor in crossing)), eager), k
    assert seen
