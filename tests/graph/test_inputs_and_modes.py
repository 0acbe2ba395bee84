"""What surrounds a capture or a request: shared example tensors, values, modes of torch, threads, odd modules."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from splitinfer.errors import CaptureError, InputError
from splitinfer.graph import SplitModel
from tests.graph.zoo import eager_leaves, tensor_leaves


class Difference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("shift", torch.randn(2, 4))

    def forward(self, a: torch.Tensor, b: Any, *, c: Any = 0) -> torch.Tensor:
        several = b if isinstance(b, (list, tuple)) else [b]
        return self.left(a) - sum(self.right(one) * (i + 1) for i, one in enumerate(several)) + c * 3 + self.shift


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


_X = _draw(2, 4)
_MODEL = Difference().eval()


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((_X, _X), {}),
        ((_X, [_X, _X]), {}),
        ((_X, _draw(2, 4)), {"c": _X}),
        ((_X, _X.view(2, 4)), {"c": _X.detach()}),
        ((_MODEL.shift, _MODEL.shift), {"c": _MODEL.left.weight[:2]}),
        ((_X, (_X, _MODEL.shift)), {"c": _X}),
    ],
)
def test_every_place_of_the_example_is_an_input_of_its_own(args: Any, kwargs: Any) -> None:
    split = SplitModel.capture(_MODEL, args, kwargs, optimize=False)
    seeds = iter(range(10, 30))
    given = torch.utils._pytree.tree_map_only(
        torch.Tensor, lambda t: _draw(*t.shape, seed=next(seeds)), (tuple(args), kwargs)
    )
    assert sum(spec.elements for spec in split.cuts[0].crossing) == sum(
        t.numel() for t in tensor_leaves((args, kwargs))
    )
    for k in range(split.num_cuts + 1):
        answer = split.run_tail(k, *split.run_head(k, *given[0], **given[1]))
        assert torch.equal(answer, eager_leaves(_MODEL, *given[0], **given[1])[0])


class Scales(nn.Module):
    def forward(self, x: torch.Tensor, by: Any = 2) -> torch.Tensor:
        return x * by if not isinstance(by, (str, type(None))) else x


@pytest.mark.parametrize(
    ("captured", "same", "others"),
    [
        (2, [2, np.int64(2)], [2.0, True, 3, torch.tensor(2), torch.ones(2, 2), "2", np.ones(2), None]),
        (1, [1], [True, 1.0]),
        (True, [True], [1, np.bool_(True)]),
        (0.0, [0.0, np.float64(0)], [-0.0, 0, False]),
        (math.nan, [math.nan, float("nan")], [0.0, math.inf]),
        ("x", ["x"], ["y", np.str_("y")]),
        (None, [None], [0, False]),
    ],
)
def test_a_captured_value_is_told_from_others(captured: Any, same: list[Any], others: list[Any]) -> None:
    split = SplitModel.capture(Scales(), (torch.ones(2), captured))
    for value in same:
        split(torch.ones(2), value)
    for value in others:
        with pytest.raises(InputError, match=r"captured with the value|another structure") as caught:
            split(torch.ones(2), value)
        assert "\n" not in str(caught.value)


class MakesConstants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + torch.ones(4) * torch.linspace(0, 1, 4) + torch.zeros(4).to(x) + torch.eye(4)[:2]


def _in_autocast() -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("mode", [_in_autocast, torch.inference_mode, torch.enable_grad, torch.no_grad])
def test_modes_of_torch_change_neither_capture_nor_answers(mode: Callable[[], Any]) -> None:
    model = MakesConstants().eval()
    expected = eager_leaves(model, _X)[0]
    warns = pytest.warns(UserWarning, match="inside torch.autocast") if mode is _in_autocast else mode()
    with warns, mode():
        inside = SplitModel.capture(model, (_X.clone(),), optimize=False)
    outside = SplitModel.capture(model, (_X,), optimize=False)
    assert inside.fingerprint == outside.fingerprint
    for split in (inside, outside):
        with mode():
            crossing = split.run_head(1, _X)
            answers = [split(_X), split.run_tail(1, *crossing)]
        answers.append(split.run_tail(1, *crossing))
        for answer in answers:
            assert torch.equal(answer, expected)
            assert answer.dtype == torch.float32
        for answer in answers:
            answer.sigmoid_()


def test_another_default_dtype_at_a_request_is_refused() -> None:
    split = SplitModel.capture(MakesConstants().eval(), (_X,))
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with pytest.raises(InputError, match=r"default dtype torch\.float32, which is now torch\.float64"):
            split(_X)
    finally:
        torch.set_default_dtype(before)


def test_autocast_inside_the_model_is_kept() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with _in_autocast():
                y = self.a(x)
            return self.b(y.float())

    model = Mixed().eval()
    split = SplitModel.capture(model, (_X,), optimize=False)
    assert split.cuts[1].crossing[0].dtype in (torch.bfloat16, torch.float32)
    for k in range(split.num_cuts + 1):
        assert torch.equal(split.run_tail(k, *split.run_head(k, _X)), eager_leaves(model, _X)[0])


def test_answers_can_be_written_to_and_change_no_weight() -> None:
    class ReturnsItsOwn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.table = nn.Linear(4, 4), nn.Parameter(torch.randn(3, 4))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.layer(x), self.table, self.layer.weight.t(), self.table[1:].view(-1), x.clone()

    model = ReturnsItsOwn().eval()
    x = _X.clone()
    split = SplitModel.capture(model, (x,))
    expected = eager_leaves(model, x.clone())
    for k in (0, split.num_cuts):
        for leaf in split.run_tail(k, *split.run_head(k, x)):
            leaf.sigmoid_()
        assert all(map(torch.equal, split(x), [leaf.clone() for leaf in expected]))
    assert torch.equal(x, _X)


def test_threads_can_capture_at_once() -> None:
    models = [Difference().eval() for _ in range(4)]
    failures: list[str] = []

    def capture(model: nn.Module) -> None:
        try:
            split = SplitModel.capture(model, (_X, _X), optimize=False)
            if not torch.equal(split(_X, _X + 1), eager_leaves(model, _X, _X + 1)[0]):
                failures.append("wrong")
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(str(error))

    threads = [threading.Thread(target=capture, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_loaded_and_wrapped_modules_are_taken_or_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU()).eval()
    exported = torch.export.export(model, (_X,))
    for given in (exported.module(), exported, torch.compile(model), torch.fx.symbolic_trace(model)):
        split = SplitModel.capture(given, (_X,), optimize=False)
        assert torch.equal(split(_X), eager_leaves(model, _X)[0])
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        scripts = [torch.jit.trace(model, _X), torch.jit.script(model)]
    for script in scripts:
        with pytest.raises(InputError, match=r"TorchScript module.* give the module it was made of"):
            SplitModel.capture(script, (_X,))


def test_indices_of_numpy_and_torch_are_indices() -> None:
    split = SplitModel.capture(Difference().eval(), (_X, _X))
    expected = split(_X, _X)
    for k in (np.int64(1), np.uint8(1), np.array(1), torch.tensor(1)):
        assert torch.equal(split.run_tail(k, *split.run_head(k, _X, _X)), expected)
        assert split.find_cut(k) == 1
        assert type(split.find_cut(k)) is int
        split.warm(k)
    for wrong in (np.float64(1), 1.0, True, np.bool_(True), "1", None, -1, np.array([1, 2]), torch.tensor(1.0)):
        with pytest.raises(InputError, match="out of range"):
            split.run_head(wrong, _X, _X)  # type: ignore[arg-type]


class Raises(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise self.error


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError


class BadMode(nn.Linear):
    def train(self, mode: bool = True) -> BadMode:
        if not mode:
            raise KeyError("no such mode")
        return super().train(mode)


class DynamicCache:
    pass


class ReturnsCache(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return x + 1, DynamicCache()


class KeepsSparse(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        values = torch.eye(4)
        self.register_buffer("table", values.to_sparse() if kind == "coo" else values.to_sparse_csr())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.table @ x.t()).t()


def _made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Raises(KeyError("weight")), r"test_inputs_and_modes\.py:\d+ `raise self\.error`: KeyError: 'weight'"),
        (lambda: Raises(SystemExit(3)), "SystemExit: 3; its own code fails"),
        (lambda: Raises(UnprintableError()), "ValueError; its own code fails"),
        (lambda: Raises(ValueError("")), "ValueError"),
        (lambda: Raises(RuntimeError("first\nsecond")), "first; its own"),
        (lambda: BadMode(4, 4), "KeyError: 'no such mode'"),
        (lambda: nn.Module(), "forward"),
        (ReturnsCache, "use_cache=False"),
        (lambda: KeepsSparse("coo"), r"holds table, a torch\.sparse_coo tensor; keep dense"),
        (lambda: KeepsSparse("csr"), "holds table|sparse"),
        (_made_in_inference_mode, r"outside of torch\.inference_mode"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_whatever_goes_wrong_is_one_line(make: Callable[[], nn.Module], says: str) -> None:
    with pytest.raises((CaptureError, InputError), match=says) as caught:
        SplitModel.capture(make(), (_X,))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:The PyTorch API of nested tensors")
def test_example_inputs_that_are_not_dense_are_refused() -> None:
    quantized = torch.quantize_per_tensor(_X, 0.1, 0, torch.quint8)
    for example in (_X.to_sparse(), quantized, torch.nested.nested_tensor([_X, _X[:1]])):
        with pytest.raises(InputError, match="must be dense tensors"):
            SplitModel.capture(nn.Linear(4, 4).eval(), (example,))


class Drops(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.layer = how, nn.Linear(4, 4)
        self.lstm = nn.LSTM(4, 4, num_layers=2, dropout=0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        if self.how == "dropout":
            return nn.functional.dropout(y, 0.5)
        if self.how == "randn_like":
            return y + torch.randn_like(y)
        if self.how == "attention":
            return nn.functional.scaled_dot_product_attention(y[None], y[None], y[None], dropout_p=0.3)
        if self.how == "in place":
            return y + torch.empty(4).uniform_()
        if self.how == "gumbel":
            return nn.functional.gumbel_softmax(y)
        if self.how == "nested":
            return torch.cond(y.sum() > 0, lambda t: t * torch.rand_like(t), lambda t: t + 1, (y,))
        if self.how == "python":
            return y * random.random()
        if self.how == "numpy":
            return y * float(np.random.rand())  # noqa: NPY002
        return self.lstm(nn.functional.dropout(y, 0.5, self.training))[0]


@pytest.mark.parametrize(
    ("how", "operator"),
    [
        ("dropout", "dropout"), ("randn_like", "randn_like"), ("attention", "scaled_dot_product_attention"),
        ("in place", "uniform"), ("gumbel", "exponential"), ("nested", "cond"),
    ],
)  # fmt: skip
def test_randomness_that_stays_on_is_named(how: str, operator: str) -> None:
    with pytest.warns(
        UserWarning, match=rf"random numbers in evaluation mode \({operator} at test_inputs_and_modes\.py"
    ):
        split = SplitModel.capture(Drops(how).eval(), (_X,))
    (named,) = split.random_ops
    assert named.startswith(operator)


@pytest.mark.parametrize("how", ["python", "numpy"])
def test_random_numbers_of_python_are_kept_and_named(how: str) -> None:
    with pytest.warns(UserWarning, match="Python's or numpy's random numbers"):
        split = SplitModel.capture(Drops(how).eval(), (_X,))
    assert torch.equal(split(_X), split(_X))


def test_dropout_of_evaluation_mode_draws_nothing() -> None:
    assert SplitModel.capture(Drops("layers").eval(), (_X,)).random_ops == ()


class Writes(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.layer = how, nn.Linear(4, 4)
        self.register_buffer("cache", torch.zeros(2, 4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.plain = torch.zeros(2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        if self.how == "copy_":
            self.cache.copy_(y)
        elif self.how == "index_copy_":
            self.cache.index_copy_(0, torch.tensor([1]), y[:1])
        elif self.how == "item":
            self.cache[1] = y[0]
        elif self.how == "assignment":
            self.cache = self.cache + y
        elif self.how == "view":
            self.cache.view(-1)[2:].add_(1)
        elif self.how == "fill":
            self.cache.detach().fill_(1)
        elif self.how == "parameter":
            self.layer.bias.mul_(0.5)
        elif self.how == "plain":
            self.plain.add_(y)
        return y + self.cache + self.plain


@pytest.mark.parametrize(
    ("how", "named"),
    [(how, "cache") for how in ("copy_", "index_copy_", "item", "assignment", "view", "fill")]
    + [("parameter", r"layer\.bias"), ("plain", "plain")],
)
def test_writes_to_what_outlives_a_call_are_named_and_left_out(how: str, named: str) -> None:
    model = Writes(how).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.warns(UserWarning, match=rf"writes to its buffers \({named}\)"):
        split = SplitModel.capture(model, (_X,), optimize=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    answers = [split.run_tail(k, *split.run_head(k, _X)) for k in range(split.num_cuts + 1)]
    expected = eager_leaves(model, _X)[0]
    assert all(torch.equal(answer, expected) for answer in (*answers, split(_X)))


def test_a_weight_that_is_only_read_is_not_named() -> None:
    split = SplitModel.capture(Writes("nothing").eval(), (_X,))
    assert split.random_ops == ()


class Folds(nn.Sequential):
    """Convolutions whose batch norm counts its channels along another dimension, or with other dtypes."""


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ((nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6), nn.Linear(6, 2)), (3, 6)),
        ((nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(9)), (3, 9)),
        ((nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm1d(6)), (3, 6, 6)),
        ((nn.ConvTranspose1d(3, 6, 3, padding=1), nn.BatchNorm1d(6)), (3, 6)),
        ((nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6)), (2, 3, 6)),
        ((nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6, affine=False), nn.BatchNorm1d(6)), (2, 3, 6)),
        ((nn.Conv2d(3, 6, 1).double(), nn.BatchNorm2d(6).double()), (2, 3, 4, 4)),
        ((nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4)), (1, 3, 2, 2, 2)),
    ],
)
def test_folding_looks_at_the_dimension(layers: tuple[nn.Module, ...], shape: tuple[int, ...]) -> None:
    model = Folds(*layers).eval()
    for layer in model:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    x = _draw(*shape).to(next(model.parameters()).dtype)
    split = SplitModel.capture(model, (x,))
    torch.testing.assert_close(split(x), eager_leaves(model, x)[0], rtol=1e-4, atol=1e-4)


def test_a_list_of_numbers_for_a_tensor_is_named_briefly() -> None:
    split = SplitModel.capture(nn.Linear(4, 4).eval(), (_draw(50, 4),))
    with pytest.raises(InputError, match=r"another structure: .*, \.\.\. \(200 in all\)$") as caught:
        split(_draw(50, 4).tolist())
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("kind", "said"), [("meta", "in the CPU's memory for .*, not on meta"), ("sparse", "a dense")])
def test_a_tensor_elsewhere_is_one_line(kind: str, said: str) -> None:
    split = SplitModel.capture(nn.Linear(4, 4).eval(), (_draw(2, 4),))
    given = _draw(2, 4).to("meta") if kind == "meta" else _draw(2, 4).to_sparse()
    with pytest.raises(InputError, match=said):
        split.run_head(1, given)
