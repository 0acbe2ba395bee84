"""A kept capture is the same model, and nothing else is taken for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from splitinfer.graph import SplitModel, kept
from splitinfer.graph.kept import thawed
from tests.graph.zoo import build, tensor_leaves


class Odd(nn.Module):
    """Constants, slices, dtypes, weights in other layouts and shared ones, a frozen one, an output with a name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(8)
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight
        self.one.bias.requires_grad_(False)
        self.register_buffer("scale", torch.arange(8.0))

    def forward(self, image: torch.Tensor, tokens: torch.Tensor, flag: bool = True) -> dict[str, torch.Tensor]:
        maps = torch.relu(self.norm(self.conv(image)))[:, :, 1:-1:2].mean((2, 3)).to(torch.float64).float()
        answer = self.two(torch.where(self.one(maps) > -float("inf"), maps, 0.0)) * self.scale
        return {"answer": answer, "tokens": tokens + 1, "max": answer.max(1).values, "flag": flag}


class Drawing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return self.layer(value) + torch.rand(4)


class Choosing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return torch.cond(value.sum() > 0, lambda x: self.layer(x), lambda x: x * 2, (value,))


def _odd():
    torch.manual_seed(0)
    return Odd().eval(), (torch.randn(1, 3, 12, 12), torch.arange(3)[None])


CASES = {"odd": _odd} | {
    name: (lambda name=name: (lambda pair: (pair[0], (pair[1],)))(build(name)))
    for name in ("resnet18", "swin", "lraspp_mobilenet_v3_large", "as_strided")
}


@pytest.mark.parametrize(("case", "optimize"), [*((case, True) for case in CASES), ("odd", False)])
def test_what_is_reopened_is_what_was_captured(case, optimize, tmp_path):
    model, inputs = CASES[case]()
    path = tmp_path / "model.safetensors"
    captured = SplitModel.capture(model, inputs, optimize=optimize, keep=path, name="m")
    reopened = SplitModel.reopen(path, optimize=optimize, name="m")
    assert reopened is not None
    for attribute in ("fingerprint", "cuts", "total_macs", "num_parameters", "uncounted_ops", "inputs", "outputs"):
        assert getattr(reopened, attribute) == getattr(captured, attribute), attribute
    assert [cut.crossing[0].name for cut in reopened.cuts[:-1]] == [cut.crossing[0].name for cut in captured.cuts[:-1]]
    assert reopened.half_weights(1) == captured.half_weights(1)
    for k in (0, captured.num_cuts // 2, captured.num_cuts):
        expected = captured.run_tail(k, *captured.run_head(k, *inputs))
        answer = reopened.run_tail(k, *reopened.run_head(k, *inputs))
        assert all(map(torch.equal, tensor_leaves(answer), tensor_leaves(expected)))
        assert type(answer) is type(expected)
    if case in ("odd", "resnet18"):
        many = reopened.run_tails(0, [captured.trial_tensors(0, 1)] * 2)
        assert [tuple(tensor.shape) for tensor in many[0]] == [spec.shape for spec in captured.outputs]


@pytest.mark.parametrize("model", [Drawing(), Choosing()], ids=["random", "conditions"])
def test_what_a_file_cannot_hold_is_captured_each_time(model, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SplitModel.capture(model.eval(), (torch.ones(4),), keep=tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_notes_are_said_again_and_a_full_disk_is_no_error(tmp_path):
    model, inputs = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train(), (torch.ones(1, 4),)
    path = tmp_path / "kept" / "model.safetensors"
    with warnings.catch_warnings(record=True) as first:
        warnings.simplefilter("always")
        SplitModel.capture(model, inputs, keep=path, name="m")
    with warnings.catch_warnings(record=True) as second:
        warnings.simplefilter("always")
        assert SplitModel.reopen(path, name="m") is not None
    assert len(first) == len(second)
    (tmp_path / "file").write_text("")
    SplitModel.capture(model.eval(), inputs, keep=tmp_path / "file" / "model.safetensors")


def _change(path, change):
    with safe_open(path, "pt") as file:
        metadata, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    graph = json.loads(metadata["graph"])
    change(graph, tensors)
    save_file(tensors, path, metadata | {"graph": json.dumps(graph)})


def _other_weight(graph, tensors):
    next(iter(tensors.values()))[0] += 1


def _other_operator(graph, tensors):
    next(node for node in graph["nodes"] if "relu" in node["target"])["target"] = "aten.tanh.default"


def _someone_elses(graph, tensors):
    next(node for node in graph["nodes"] if "relu" in node["target"])["target"] = "os.system.default"


def _no_shape(graph, tensors):
    graph["nodes"][-2]["val"] = ["float32", [-1], [1]]


def _no_format(graph, tensors):
    graph["format"] = 0


@pytest.mark.parametrize("change", [_other_weight, _other_operator, _someone_elses, _no_shape, _no_format])
def test_a_changed_file_is_not_believed(change, tmp_path):
    path = tmp_path / "model.safetensors"
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    SplitModel.capture(model, (torch.ones(1, 4),), keep=path)
    assert SplitModel.reopen(path, name="m") is not None
    _change(path, change)
    assert SplitModel.reopen(path, name="m") is None


def test_a_damaged_file_and_what_others_could_have_written_are_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    SplitModel.capture(nn.Linear(4, 4).eval(), (torch.ones(1, 4),), keep=path)
    content = path.read_bytes()
    assert thawed(path) is not None
    (tmp_path / "link.safetensors").symlink_to(path)
    assert thawed(tmp_path / "link.safetensors") is None
    for place, mode in ((path, 0o666), (tmp_path, 0o777)):
        before = place.stat().st_mode
        place.chmod(mode)
        assert thawed(path) is None
        place.chmod(before)
    for damaged in (b"", content[:20], content[:-1], b"\xff" * 100):
        path.write_bytes(damaged)
        assert thawed(path) is None
    assert thawed(tmp_path / "absent.safetensors") is None


PROGRAM = """
import sys, torch
from splitinfer.runtime.loading import capture_card
split = capture_card(sys.argv[1])
print(split.fingerprint, "torchvision" in sys.modules, "sympy" in sys.modules)
"""


def test_the_second_start_neither_builds_nor_captures_and_weights_are_told_apart(tmp_path):
    card = tmp_path / "card.toml"
    card.write_text('source = "torchvision.models:squeezenet1_1"\n[[inputs]]\nshape = [3, 64, 64]\n')

    def start():
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(card)],
            env=os.environ | {"SPLITINFER_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    first, second = start(), start()
    assert first[1:] == ["True", "True"]
    assert second == [first[0], "False", "False"]
    card.write_text(card.read_text().replace("[[inputs]]", "seed = 1\n[[inputs]]"))
    assert start()[:2] != first[:2]


def test_what_was_used_longest_ago_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_KEPT_BYTES", 250)
    names = ["old.onnx", "used.npy", "older.npy", ".being_written.7.part.onnx", "new.onnx", "newest.safetensors"]
    for age, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (age, age))
    kept.make_room(tmp_path, {tmp_path / "used.npy"})
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {"used.npy", ".being_written.7.part.onnx", "newest.safetensors"}
