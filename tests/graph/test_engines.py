"""Engines behind halves: the one that is there, and one that somebody adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import fx, nn

from splitinfer.errors import CheckFailedError, InputError, MissingExtraError
from splitinfer.graph import SplitModel
from splitinfer.graph.engines import ENGINES, Half
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeServer
from splitinfer.runtime.verify import check_answer

X = torch.linspace(-1, 1, 8).reshape(2, 4)


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).eval()


class Interpreter:
    """Runs a half node by node in double precision: slow, and right to a tolerance only."""

    name = "double"
    tolerance = 1e-5

    def __init__(self, order: Sequence[fx.Node], weights: Mapping[str, Any]) -> None:
        self._order, self._weights = order, weights

    def compile(self, arguments: Sequence[fx.Node], results: Sequence[fx.Node]) -> Half:
        def half(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values = dict(zip(arguments, (tensor.double() for tensor in tensors), strict=True))

            def value(node: fx.Node) -> Any:
                if node not in values and node.op == "get_attr":
                    values[node] = self._weights[str(node.target)].double()
                if node not in values:
                    args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
                    values[node] = node.target(*args, **kwargs)
                return values[node]

            return tuple(value(node).to(node.meta["val"].dtype) for node in results)

        return half


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(ENGINES, "double", f"{__name__}:Interpreter")
    return "double"


def test_the_engine_is_chosen_by_name() -> None:
    split = SplitModel.capture(_model(), (X,), optimize=False)
    assert (split.engine, split.tolerance) == ("torch", 0.0)
    with pytest.raises(InputError, match="engine: no 'onnx'; there are torch"):
        SplitModel.capture(_model(), (X,), engine="onnx")


def test_another_engine_is_a_class_and_a_line(another: str) -> None:
    usual = SplitModel.capture(_model(), (X,), name="model")
    other = SplitModel.capture(_model(), (X,), engine=another, name="model")
    assert other.engine == another
    assert other.fingerprint == usual.fingerprint
    for k in range(usual.num_cuts + 1):
        expected = usual.run_tail(k, *usual.run_head(k, X))
        answer = other.run_tail(k, *other.run_head(k, X))
        check_answer(answer, expected, f"cut {k}", tolerance=other.tolerance)
    with pytest.raises(CheckFailedError, match="differs from the whole model's"):
        check_answer(other(X), usual(X), "bits")


def test_device_and_edge_choose_their_own(another: str) -> None:
    usual = SplitModel.capture(_model(), (X,), name="model")
    other = SplitModel.capture(_model(), (X,), engine=another, name="model")
    for device, edge in ((usual, other), (other, usual)):
        with EdgeServer([edge]) as server, EdgeClient(server.address, ClientSettings(deadline_s=60)) as client:
            for k in range(usual.num_cuts + 1):
                check_answer(client.infer(device, k, X).output, usual(X), f"cut {k}", tolerance=other.tolerance)


@pytest.mark.filterwarnings("ignore", "error::splitinfer.graph.engines.checked.EngineWarning")
def test_executorch_where_it_is_installed() -> None:  # ExecuTorch uses what torch and importlib deprecate
    if find_spec("executorch") is None:
        with pytest.raises(MissingExtraError, match=r"pip install 'splitinfer\[executorch\]'"):
            SplitModel.capture(_model(), (X,), engine="executorch")
        pytest.skip("the extra [executorch] is not installed; seen with 1.5.1, torchao 0.18.0, torch 2.13")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Hardswish(), nn.Flatten(), nn.Linear(288, 5)).eval()
    examples = [torch.randn(1, 3, 8, 8) for _ in range(3)]
    usual, other = (SplitModel.capture(model, examples[:1], engine=engine) for engine in ("torch", "executorch"))
    assert (other.engine, other.tolerance, other.fingerprint) == ("executorch", 1e-4, usual.fingerprint)
    for k in range(1, usual.num_cuts + 1):
        heads = [other.run_head(k, x) for x in examples]  # all kept: no answer is written over by the next
        for x, head in zip(examples, heads, strict=True):
            check_answer(head, usual.run_head(k, x), f"head {k}", tolerance=1e-4)
            check_answer(other.run_tail(k, *head), usual(x), f"cut {k}", tolerance=1e-4)


def test_a_tolerance_is_relative_and_for_floats_only() -> None:
    want = {"a": torch.tensor([1000.0, 0.0]), "b": torch.tensor([1, 2])}
    close = {"a": want["a"] + 0.05, "b": want["b"].clone()}
    check_answer(close, want, "close", tolerance=1e-4)
    for tolerance, got in ((1e-5, close), (0.0, close), (1.0, close | {"b": torch.tensor([1, 3])})):
        with pytest.raises(CheckFailedError):
            check_answer(got, want, "far", tolerance=tolerance)
    nan = torch.tensor([float("nan"), 1.0])
    check_answer(nan, nan.clone(), "nan")
    check_answer(nan, nan + 1e-9, "nan", tolerance=1e-6)
    with pytest.raises(CheckFailedError):
        check_answer(torch.tensor([0.0, 1.0]), nan, "nan", tolerance=1e-6)
