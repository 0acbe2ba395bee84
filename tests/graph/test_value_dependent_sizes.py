"""Models whose sizes depend on values, as detection heads have them: cut before, the rest as one piece."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeServer


def _suppressed(boxes: torch.Tensor, scores: torch.Tensor, most: float) -> torch.Tensor:
    """Indices that non-maximum suppression keeps, best first: of two boxes that overlap too much the better one."""
    order = torch.argsort(scores, descending=True, stable=True)
    boxes = boxes[order]
    area = (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)
    corner = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    opposite = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (opposite - corner).clamp(min=0).prod(-1)
    overlap = shared / (area[:, None] + area[None] - shared).clamp(min=1e-9)
    better = torch.triu(overlap > most, diagonal=1)
    return order[~better.any(0)]


class Detector(nn.Module):
    """A one-stage detector in small: backbone, heads, a threshold, and suppression."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
        )
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.backbone(image)
        boxes = self.boxes(features)[0].flatten(1).t()
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:].abs()], 1)
        scores, labels = self.scores(features)[0].flatten(1).softmax(0).max(0)
        likely = torch.nonzero(scores > 0.34).squeeze(1)
        kept = likely[_suppressed(boxes[likely], scores[likely], 0.5)]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(torch.relu(self.first(x)))
        return y[y.sum(1) > 0]


class SlicedByItem(Masked):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x))
        return y[: (y[:, 0] > 0).sum().item()]


class WorksOnWhatIsLeft(Masked):
    """A layer behind the selection: its MACs are nobody's to know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.second(torch.relu(y[y.sum(1) > 0])) + 1


class Unique(Masked):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.second(self.first(x))
        return torch.unique((y * 4).round()), y


CASES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "detector": (Detector, (1, 3, 16, 16)),
    "masked": (Masked, (6, 4)),
    "sliced by item": (SlicedByItem, (6, 4)),
    "works on what is left": (WorksOnWhatIsLeft, (6, 4)),
    "unique": (Unique, (6, 4)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, SplitModel, list[torch.Tensor]]:
    make, shape = CASES[request.param]
    torch.manual_seed(1)
    model = make().eval()
    pictures = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    return model, SplitModel.capture(model, (pictures[0],), optimize=False, name="case"), pictures


def leaves_of(answer: Any) -> list[torch.Tensor]:
    return pytree.tree_leaves(answer)


def test_every_cut_gives_the_eager_answer_of_any_size(case: tuple[nn.Module, SplitModel, list[torch.Tensor]]) -> None:
    model, split, pictures = case
    sizes = set()
    for picture in pictures:
        with torch.no_grad():
            eager = leaves_of(model(picture))
        sizes.add(eager[0].shape)
        for k in range(split.num_cuts + 1):
            answer = leaves_of(split.run_tail(k, *split.run_head(k, picture)))
            assert all(map(torch.equal, answer, eager)), f"cut {k}"
            assert [leaf.shape for leaf in answer] == [leaf.shape for leaf in eager]
    assert len(sizes) > 1
    for cut in split.cuts:  # only tensors whose size is known cross
        assert all(size >= 0 for spec in cut.crossing for size in spec.shape)
    assert split.uncounted_ops


def test_the_edge_answers_with_any_size(case: tuple[nn.Module, SplitModel, list[torch.Tensor]]) -> None:
    model, split, pictures = case
    with EdgeServer([split]) as server, EdgeClient(server.address, ClientSettings(deadline_s=60)) as client:
        for picture in pictures:
            with torch.no_grad():
                eager = leaves_of(model(picture))
            for k in range(split.num_cuts):
                assert all(map(torch.equal, leaves_of(client.infer(split, k, picture).output), eager))


def test_what_is_known_is_counted_and_the_rest_is_listed() -> None:
    split = SplitModel.capture(WorksOnWhatIsLeft().eval(), (torch.ones(6, 4),))
    assert split.total_macs == 6 * 4 * 4
    assert "linear" in split.uncounted_ops
    detector = SplitModel.capture(Detector().eval(), (torch.ones(1, 3, 16, 16),))
    assert detector.total_macs == 64 * (8 * 27 + 8 * 72 + 7 * 8)
    assert {"nonzero", "argsort"} & detector.uncounted_ops.keys()
