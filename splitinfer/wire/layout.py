"""Memory layout of a tensor on the wire: which dimensions travel, and in which order they lie in memory.

Shape and dtype alone do not describe a tensor: kernels are chosen by strides, and a channels-last map that arrives
row-major costs a copy on the way out and other kernels on the way in. So dense tensors keep their order of dimensions,
and dimensions made by ``expand`` (stride 0) travel once.
"""

from __future__ import annotations

from dataclasses import dataclass
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


def flatten(tensor: torch.Tensor) -> tuple[Layout, torch.Tensor]:
    """Return the layout and a 1-D tensor of the stored elements in memory order.

    The 1-D tensor shares the tensor's memory unless the tensor has gaps or overlaps, and is then a row-major copy.
    """
    shape = tuple(tensor.shape)
    strides = tensor.stride()
    expanded = tuple(dim for dim, size in enumerate(shape) if size > 1 and strides[dim] == 0)
    for dim in expanded:
        tensor = tensor.narrow(dim, 0, 1)
    # Equal strides mean a dimension of size 1 beside a larger one; the larger one is the outer.
    strides = tensor.stride()
    order = tuple(sorted(range(len(shape)), key=lambda dim: (-strides[dim], tensor.shape[dim] == 1, dim)))
    permuted = tensor.permute(order)
    if not permuted.is_contiguous():
        permuted, order = tensor.contiguous(), ()
    if order == tuple(range(len(shape))):
        order = ()
    # Not view(-1): one element that was expanded keeps its stride of 0, and is not a row of bytes then.
    return Layout(shape, order, expanded), permuted.as_strided((permuted.numel(),), (1,))


def restore(layout: Layout, flat: torch.Tensor) -> torch.Tensor:
    """Undo :func:`flatten`: a view of ``flat`` with the layout's shape and strides."""
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
