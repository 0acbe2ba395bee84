"""How an array lies in memory on the wire: which dimensions travel, and in which order.

Shape and dtype alone do not describe a tensor: kernels are chosen by strides, and a channels-last map that arrives
row-major costs a copy on the way out and other kernels on the way in. So dense tensors keep their order of dimensions,
and dimensions made by ``expand`` (stride 0) travel once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

import numpy as np

from splitinfer.wire.dtypes import Array, DType, name_of


@dataclass(frozen=True)
class ArraySpec:
    """What an array is, and how it lies in memory.

    Attributes:
        shape: sizes of its dimensions.
        dtype: of its elements.
        stride_order: dimensions from outermost to innermost; ``()`` for row-major.
        expanded_dims: dimensions of stride 0 and size above 1.
    """

    shape: tuple[int, ...]
    dtype: DType
    stride_order: tuple[int, ...] = ()
    expanded_dims: tuple[int, ...] = ()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.shape, self.dtype, self.stride_order, self.expanded_dims))

    @cached_property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape with expanded dimensions of size 1: what has bytes of its own."""
        return tuple(1 if dim in self.expanded_dims else size for dim, size in enumerate(self.shape))

    @cached_property
    def elements(self) -> int:
        """Elements that have bytes of their own."""
        return prod(self.stored_shape)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of these elements in memory."""
        return self.elements * self.dtype.itemsize

    @cached_property
    def any_bits(self) -> bool:
        """Whether any bits are elements; of bools only two bytes are."""
        return self.dtype != np.bool_

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Steps in bytes along the dimensions."""
        strides, step = [0] * len(self.shape), self.dtype.itemsize
        for dim in reversed(self.stride_order or range(len(self.shape))):
            strides[dim] = 0 if dim in self.expanded_dims else step
            step *= max(self.stored_shape[dim], 1)
        return tuple(strides)

    def flatten(self, stored: Array) -> Array:
        """Return the elements of an array of ``stored_shape`` in memory order: a view where it lies as this says."""
        return (stored.transpose(self.stride_order) if self.stride_order else stored).reshape(-1)

    def arrange(self, flat: Array) -> Array:
        """Undo :meth:`flatten`, and expand: a view of the elements with this shape and these strides."""
        # Not reshape and transpose: those choose strides of their own for dimensions of size 1.
        return np.ndarray(self.shape, flat.dtype, flat if self.elements else None, 0, self.strides)

    def __str__(self) -> str:
        return f"{name_of(self.dtype)}[{','.join(map(str, self.shape))}]"


def dense(array: Array) -> tuple[ArraySpec, Array]:
    """Describe an array, and return the elements that have bytes of their own, as ``stored_shape``.

    They share the array's memory unless it has gaps or overlaps, and are then a row-major copy.
    """
    spec, is_dense = _plan(array.shape, array.strides, array.dtype)
    if spec.expanded_dims:
        array = array[tuple(slice(1) if dim in spec.expanded_dims else slice(None) for dim in range(array.ndim))]
    return spec, array if is_dense else array.copy()


@lru_cache(maxsize=4096)
def _plan(shape: tuple[int, ...], strides: tuple[int, ...], dtype: DType) -> tuple[ArraySpec, bool]:
    """Return the layout of such an array, and whether its stored elements are dense in memory.

    A model has few kinds of tensors, and finding this out takes longer than sending a small one.
    """
    expanded = tuple(dim for dim, size in enumerate(shape) if size > 1 and strides[dim] == 0)
    stored = [1 if dim in expanded else size for dim, size in enumerate(shape)]
    # Equal strides mean a dimension of size 1 beside a larger one; the larger one is the outer.
    order = tuple(sorted(range(len(shape)), key=lambda dim: (-strides[dim], stored[dim] == 1, dim)))
    step = dtype.itemsize
    for dim in reversed(order):
        if stored[dim] != 1 and strides[dim] != step and 0 not in stored:
            return ArraySpec(shape, dtype, (), expanded), False
        step *= stored[dim]
    return ArraySpec(shape, dtype, () if order == tuple(range(len(shape))) else order, expanded), True
