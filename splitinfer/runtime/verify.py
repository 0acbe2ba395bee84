"""Whether a split answer is the whole model's answer."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from splitinfer.errors import CheckFailedError


def check_answer(output: Any, expected: Any, what: str, *, tolerance: float = 0.0) -> None:
    """Compare two outputs: bit for bit, where a NaN equals the same NaN, or to a tolerance.

    Args:
        output: the answer.
        expected: what it should be.
        what: of which request, for the message.
        tolerance: largest difference relative to the largest magnitude of a tensor; 0 asks for the same bits.
            Whole numbers and truth values are held to their bits in any case.

    Raises:
        CheckFailedError: they differ; the message says where and by how much.
    """
    leaves, tree = pytree.tree_flatten(output)
    expected_leaves, expected_tree = pytree.tree_flatten(expected)
    if tree != expected_tree:
        raise CheckFailedError(f"{what}: the answer has another structure than the whole model's")
    for index, (got, want) in enumerate(zip(leaves, expected_leaves, strict=True)):
        if not isinstance(want, torch.Tensor):
            if got != want:
                raise CheckFailedError(f"{what}: leaf {index} is {got!r}, the whole model's {want!r}")
        elif got.shape != want.shape or got.dtype != want.dtype:
            raise CheckFailedError(
                f"{what}: leaf {index} is {got.dtype}{tuple(got.shape)}, the whole model's "
                f"{want.dtype}{tuple(want.shape)}"
            )
        elif not (torch.equal(_bits(got), _bits(want)) or _is_close(got, want, tolerance)):
            raise CheckFailedError(
                f"{what}: leaf {index} differs from the whole model's by up to {largest_difference(got, want):.3g}"
            )


def largest_difference(first: Any, second: Any) -> float:
    """Return the largest absolute difference between the tensors of two outputs of one structure."""
    pairs = zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=True)
    gaps = [
        float((a.double() - b.double()).abs().max())
        for a, b in pairs
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.numel()
    ]
    return max(gaps, default=0.0)


def _is_close(got: torch.Tensor, want: torch.Tensor, tolerance: float) -> bool:
    if not tolerance or not want.is_floating_point():
        return False
    most = tolerance * float(want.double().abs().nan_to_num(posinf=0.0).max())
    return torch.allclose(got.double(), want.double(), rtol=0.0, atol=most, equal_nan=True)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)
