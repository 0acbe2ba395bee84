"""Detectors whose post-processing no export takes: the network is cut, the rest is one operation of the tail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from splitinfer.errors import CaptureError, InputError
from splitinfer.graph import SplitModel
from splitinfer.runtime import EdgeClient, EdgeServer
from splitinfer.torchvision_compat import import_torchvision

torchvision = import_torchvision()


def suppress(boxes: torch.Tensor, scores: torch.Tensor, most: float) -> torch.Tensor:
    """``torchvision.ops.nms`` in plain torch: where its compiled operators are absent the detectors run with this."""
    order = torch.argsort(scores, descending=True, stable=True)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    gone = torch.zeros(len(order), dtype=torch.bool)
    for place, index in enumerate(order.tolist()):
        if gone[place]:
            continue
        kept.append(index)
        others = order[place + 1 :]
        corner = torch.maximum(boxes[index, :2], boxes[others, :2])
        opposite = torch.minimum(boxes[index, 2:], boxes[others, 2:])
        shared = (opposite - corner).clamp(min=0).prod(1)
        gone[place + 1 :] |= shared / (area[index] + area[others] - shared) > most
    return torch.tensor(kept, dtype=torch.int64)


@pytest.fixture(autouse=True)
def plain_suppression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.ops.boxes, "_assert_has_ops", lambda: None)
    monkeypatch.setattr(torchvision.ops.boxes, "nms", suppress)
    monkeypatch.setattr(torchvision.ops.boxes, "_batched_nms_vanilla", _batched)
    monkeypatch.setattr(torchvision.ops.boxes, "_batched_nms_coordinate_trick", _batched)


def _batched(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, most: float) -> torch.Tensor:
    return suppress(boxes + labels.to(boxes)[:, None] * (boxes.max() + 1 if len(boxes) else 0), scores, most)


SIZE = 96


class Features(nn.Module):
    """What of a torchvision detector can be exported: normalisation and resizing, backbone, and of SSD the heads."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.transform, self.backbone = detector.transform, detector.backbone
        self.heads = detector.head if hasattr(detector, "head") else None

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], dict[str, torch.Tensor]]:
        images, _ = self.transform([image])
        features = list(self.backbone(images.tensors).values())
        return images.tensors, features, {} if self.heads is None else self.heads(features)


def rest_of(detector: nn.Module) -> Callable[[Any], Any]:
    """The rest of the same detector, as its own ``forward`` does it."""
    from torchvision.models.detection.image_list import ImageList

    def boxes(found: tuple[torch.Tensor, list[torch.Tensor], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        pixels, features, heads = found
        images = ImageList(pixels, [tuple(pixels.shape[-2:])])
        if heads:
            anchors = detector.anchor_generator(images, features)
            answer = detector.postprocess_detections(heads, anchors, images.image_sizes)
        else:
            named = dict(zip(detector.backbone.fpn_names, features, strict=True))
            proposals, _ = detector.rpn(images, named)
            answer, _ = detector.roi_heads(named, proposals, images.image_sizes)
        return detector.transform.postprocess(answer, images.image_sizes, [(SIZE, SIZE)])[0]

    return boxes


def detector(name: str) -> nn.Module:
    torch.manual_seed(3)
    make = getattr(torchvision.models.detection, name)
    sizes = (
        {"score_thresh": 0.3}
        if name.startswith("ssd")
        else {"min_size": SIZE, "max_size": SIZE, "box_score_thresh": 0.05}
    )
    model = make(weights=None, weights_backbone=None, num_classes=4, **sizes).eval()
    if not name.startswith("ssd"):
        model.backbone.fpn_names = list(model.backbone(torch.zeros(1, 3, 64, 64)))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):  # pictures that differ are to give boxes that differ
            nn.init.kaiming_normal_(module.weight)
    return model


@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_torchvisions_detectors_give_the_eager_boxes_from_a_late_cut(name: str) -> None:
    model = detector(name)
    ramp = torch.linspace(0, 1, SIZE).expand(3, SIZE, SIZE)
    noise = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    pictures = [noise, ramp * noise, 3 * ramp.mT * ramp - 1]
    with torch.no_grad():
        eager = [model([picture])[0] for picture in pictures]
    assert not torch.equal(eager[0]["scores"], eager[1]["scores"])
    split = SplitModel.capture(Features(model).eval(), (pictures[0],), rest=rest_of(model), optimize=False, name=name)
    assert any(operator.startswith("rest ") for operator in split.uncounted_ops)
    assert sorted(spec.shape for spec in split.outputs) == [(-1,), (-1,), (-1, -1)]
    late = split.num_cuts - 2
    for picture, expected in zip(pictures, eager, strict=True):
        for k in (0, late, split.num_cuts):
            boxes = split.run_tail(k, *split.run_head(k, picture))
            assert boxes.keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(boxes[key], value, rtol=0, atol=0)
    with EdgeServer([split]) as server, EdgeClient(server.address) as edge:
        answer = edge.infer(split, late, pictures[1]).output
    assert all(torch.equal(answer[key], value) for key, value in eager[1].items())


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"y": self.second(torch.relu(self.first(x))), "kind": "pair"}


def chosen(found: dict[str, Any]) -> dict[str, Any]:
    """Branches on values, as no export would take it."""
    rows = [row for row in found["y"] if float(row.sum()) > 0]
    if not rows:
        return {"rows": torch.zeros(0, 4), "kind": found["kind"]}
    return {"rows": torch.stack(rows), "kind": found["kind"]}


def test_the_rest_may_branch_on_values_and_its_sizes_differ() -> None:
    torch.manual_seed(0)
    model = Pair().eval()
    split = SplitModel.capture(model, (torch.randn(6, 4),), rest=chosen, optimize=False)
    sizes = set()
    for seed in range(4):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            expected = chosen(model(x))
        for k in range(split.num_cuts + 1):
            answer = split.run_tail(k, *split.run_head(k, x))
            assert answer["kind"] == "pair"
            assert torch.equal(answer["rows"], expected["rows"])
        sizes.add(len(expected["rows"]))
    assert len(sizes) > 1


def test_another_rest_is_another_model() -> None:
    torch.manual_seed(0)
    model, x = Pair().eval(), torch.randn(6, 4)
    plain = SplitModel.capture(model, (x,), name="pair")
    other = SplitModel.capture(model, (x,), rest=chosen, name="pair")
    again = SplitModel.capture(model, (x,), rest=chosen, name="pair")
    assert other.fingerprint == again.fingerprint != plain.fingerprint


def test_tails_with_a_rest_run_one_by_one() -> None:
    x = torch.randn(6, 4)
    split = SplitModel.capture(Pair().eval(), (x,), rest=chosen)
    crossing = split.run_head(1, x)
    with pytest.raises(CaptureError, match="rest"):
        split.run_tails(1, [crossing, crossing])


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (lambda found: found["z"], "fails on the example: KeyError: 'z'"),
        (lambda found: "nothing", "returns no tensor"),
    ],
)
def test_a_rest_that_does_not_fit_is_one_line(rest: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(CaptureError, match=said):
        SplitModel.capture(Pair().eval(), (torch.randn(6, 4),), rest=rest)


def test_a_rest_that_changes_its_mind_is_one_line() -> None:
    answers = iter([torch.zeros(2), torch.zeros(2, 2)])
    x = torch.randn(6, 4)
    split = SplitModel.capture(Pair().eval(), (x,), rest=lambda found: next(answers))
    with pytest.raises(InputError, match="another structure"):
        split(x)
    with pytest.raises(InputError, match="failed: StopIteration"):
        split(x)
