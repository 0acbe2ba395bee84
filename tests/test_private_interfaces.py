"""One look at each private interface that ``docs/private_interfaces.md`` lists, as we use it."""

from __future__ import annotations

import numba
import numpy as np
import torch
import typer
from torch._guards import detect_fake_mode
from torch._ops import OpOverload
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree

from splitinfer.graph.aliasing import is_composite
from splitinfer.scheduling.kernels import lean

aten = torch.ops.aten


def test_modes() -> None:
    assert torch._C._is_any_autocast_enabled() is False
    with torch.autocast("cpu"):
        assert torch._C._is_any_autocast_enabled() is True


def test_tensor_subclasses() -> None:
    class Tagged(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            return func(*args, **(kwargs or {}))

    plain = torch._C._disabled_torch_dispatch_impl
    assert torch.Tensor.__torch_dispatch__ is plain
    assert torch.nn.Parameter.__torch_dispatch__ is plain
    assert Tagged.__torch_dispatch__ is not plain


def test_operators() -> None:
    assert isinstance(aten.add_.Tensor, OpOverload)
    first, second, _ = aten.add_.Tensor._schema.arguments
    assert (first.name, first.is_write, second.is_write) == ("self", True, False)
    assert aten.add_.Tensor._schema.is_mutable
    assert aten.add_.Tensor._overloadname == "Tensor"
    assert callable(aten.einsum.default._op_dk)
    assert is_composite(aten.einsum.default)
    assert not is_composite(aten.add.Tensor)


def test_storages() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    assert whole.t().untyped_storage()._cdata == whole.untyped_storage()._cdata
    assert whole.clone().untyped_storage()._cdata != whole.untyped_storage()._cdata
    dense = torch._prims_common.is_non_overlapping_and_dense_or_false
    assert dense(whole.t())
    assert not dense(whole[:, ::2])
    assert not dense(whole[:1].expand(3, 4))


def test_fake_tensors() -> None:
    with FakeTensorMode() as mode:
        fake = torch.ones(2)
    assert detect_fake_mode((fake,)) is mode
    assert fake.fake_mode is mode  # type: ignore[attr-defined]


def test_structures() -> None:
    leaves, tree = pytree.tree_flatten(((1, [2]), {"b": 3, "a": 4}))
    assert leaves == [1, 2, 3, 4]
    assert tree.child(1).context == ["b", "a"]
    assert pytree.tree_unflatten(leaves, tree) == ((1, [2]), {"b": 3, "a": 4})


def test_modules() -> None:
    assert isinstance(torch.nn.BatchNorm2d(2), torch.nn.modules.batchnorm._BatchNorm)
    assert isinstance(torch.nn.Dropout2d(), torch.nn.modules.dropout._DropoutNd)


def test_aten_operators() -> None:
    for name, overload in (
        ("_assert_async", "msg"),
        ("_assert_scalar", "default"),
        ("_assert_tensor_metadata", "default"),
        ("_unsafe_view", "default"),
        ("_native_batch_norm_legit_no_training", "default"),
        ("_convolution", "default"),
        ("_scaled_dot_product_efficient_attention", "default"),
        ("_scaled_dot_product_flash_attention", "default"),
        ("_scaled_dot_product_flash_attention_for_cpu", "default"),
    ):
        assert isinstance(getattr(getattr(aten, name), overload), OpOverload), name


def test_usage_mistakes() -> None:
    usage_error = typer.BadParameter.__mro__[1]
    assert usage_error.__name__ == "UsageError"
    assert hasattr(usage_error, "format_message")


def test_compiled_helpers() -> None:
    """What ``lean`` compiles counts no references of the arrays it is given, and computes the same."""

    def least(values: np.ndarray, count: int) -> float:
        low = values[0]
        for i in range(count):
            low = min(low, values[i])
        return float(low)

    counted, uncounted = numba.njit(least), lean(least)
    values = np.array([3.0, 1.0, 2.0])
    assert counted(values, 3) == uncounted(values, 3) == 1.0
    body = next(iter(uncounted.inspect_llvm().values())).split("define")
    assert not any("NRT_incref(ptr %arg" in part for part in body)
    assert "NRT_incref" in "".join(counted.inspect_llvm().values())
