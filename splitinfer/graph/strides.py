"""Tensors laid out as they were at capture, whatever way they took: kernels are chosen by strides, and with them bits.

What crosses a wire keeps the order of its dimensions, not the gaps between rows of a view into a larger tensor (the
queries of a joint projection, say). The half that takes such a tensor makes the gaps again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from splitinfer.graph.engines import Half


def with_captured_gaps(half: Half, arguments: Sequence[fx.Node]) -> Half:
    """Return a half whose arguments lie in memory as the captured ones, where those had gaps."""
    wanted = {index: node.meta["val"].stride() for index, node in enumerate(arguments) if _has_gaps(node.meta["val"])}
    if not wanted:
        return half

    def laid_out(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return half(*(t if i not in wanted else _laid_out(t, wanted[i]) for i, t in enumerate(tensors)))

    return laid_out


def _has_gaps(value: torch.Tensor) -> bool:
    shape, strides = tuple(value.shape), value.stride()
    if any(not isinstance(number, int) for number in (*shape, *strides)) or 0 in shape:
        return False
    step = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size > 1):
        if stride and stride != step:
            return True
        step *= size if stride else 1
    return False


def _laid_out(tensor: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    moving = [size > 1 for size in tensor.shape]
    if all(not moves or own == stride for moves, own, stride in zip(moving, tensor.stride(), strides, strict=True)):
        return tensor
    if any(stride == 0 and moves for moves, stride in zip(moving, strides, strict=True)):
        shape = tensor.shape
        for dim, stride in enumerate(strides):
            tensor = tensor.narrow(dim, 0, 1) if stride == 0 else tensor
        return _laid_out(tensor, tuple(stride or 1 for stride in strides)).expand(shape)
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)
