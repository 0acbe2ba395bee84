"""Memory layout of a tensor on the wire: which dimensions travel, and in which order they lie in memory.

Shape and dtype alone do not describe a tensor: kernels are chosen by strides, and a channels-last map that arrives
row-major costs a copy on the way out and other kernels on the way in. So dense tensors keep their order of dimensions,
and dimensions made by ``expand`` (stride 0) travel once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in memory.

    Attributes:
        shape: the tensor's shape.
        stride_order: dimensions from outermost to innermost; ``()`` for row-major.
        expanded_dims: dimensions of stride 0 and size above 1.
    """

    shape: tuple[int, ...]
    stride_order: tuple[int, ...] = ()
    expanded_dims: tuple[int, ...] = ()

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape with expanded dimensions of size 1: what has bytes of its own."""
        if not self.expanded_dims:
            return self.shape
        return tuple(1 if dim in self.expanded_dims else size for dim, size in enumerate(self.shape))

    @property
    def stored_elements(self) -> int:
        return prod(self.stored_shape)


def dense(tensor: torch.Tensor) -> tuple[Layout, torch.Tensor]:
    """Return the layout, and a row-major tensor of the stored elements in memory order.

    It shares the tensor's memory unless the tensor has gaps or overlaps, and is then a copy.
    """
    layout, is_dense = _plan(tensor.shape, tensor.stride())
    for dim in layout.expanded_dims:
        tensor = tensor.narrow(dim, 0, 1)
    if not is_dense:
        return layout, tensor.contiguous()
    if layout.stride_order:
        tensor = tensor.permute(layout.stride_order)
    return layout, tensor


@lru_cache(maxsize=4096)
def _plan(shape: torch.Size, strides: tuple[int, ...]) -> tuple[Layout, bool]:
    """Return the layout of such a tensor, and whether its stored elements are dense in memory.

    A model has few kinds of tensors, and finding this out takes longer than sending a small one.
    """
    sizes = tuple(shape)
    expanded = tuple(dim for dim, size in enumerate(sizes) if size > 1 and strides[dim] == 0)
    stored = [1 if dim in expanded else size for dim, size in enumerate(sizes)]
    # Equal strides mean a dimension of size 1 beside a larger one; the larger one is the outer.
    order = tuple(sorted(range(len(sizes)), key=lambda dim: (-strides[dim], stored[dim] == 1, dim)))
    step = 1
    for dim in reversed(order):
        if stored[dim] != 1 and strides[dim] != step and 0 not in stored:
            return Layout(sizes, (), expanded), False
        step *= stored[dim]
    return Layout(sizes, () if order == tuple(range(len(sizes))) else order, expanded), True


def restore(layout: Layout, flat: torch.Tensor) -> torch.Tensor:
    """Undo :func:`dense`: a view of the 1-D tensor ``flat`` with the layout's shape and strides."""
    stored = layout.stored_shape
    if layout.stride_order:
        tensor = flat.view([stored[dim] for dim in layout.stride_order])
        inverse = [0] * len(stored)
        for position, dim in enumerate(layout.stride_order):
            inverse[dim] = position
        tensor = tensor.permute(inverse)
    else:
        tensor = flat.view(stored)
    return tensor.expand(layout.shape) if layout.expanded_dims else tensor
