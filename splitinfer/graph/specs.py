"""What a cut point is made of: tensor descriptions and the cut itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import torch


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one tensor; ``name`` is its name in the captured graph and plays no part in equality.

    A size of -1 depends on the values of the request. Only outputs have such sizes.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    name: str = field(default="", compare=False)

    @classmethod
    def of(cls, tensor: torch.Tensor, name: str = "") -> TensorSpec:
        """Describe a tensor (real or fake)."""
        return cls(tuple(size if isinstance(size, int) else -1 for size in tensor.shape), tensor.dtype, name)

    def fits(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor has this dtype and shape."""
        shape = tuple(tensor.shape)
        if shape != self.shape and (
            len(shape) != len(self.shape)
            or any(size not in (mine, -1) for mine, size in zip(shape, self.shape, strict=True))
        ):
            return False
        return tensor.dtype == self.dtype

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bits(self) -> int:
        """Bits of the values alone, in the tensor's own dtype."""
        return self.elements * self.dtype.itemsize * 8

    def __str__(self) -> str:
        sizes = ",".join("?" if size == -1 else str(size) for size in self.shape)
        return f"{str(self.dtype).removeprefix('torch.')}[{sizes}]"


FIRST_SET_CUT = 100_000
"""Number of the first set cut. It is far from 0..K, so that a number just beyond K stays the mistake that it is."""


@dataclass(frozen=True)
class Cut:
    """One cut point k of a captured model, or one of its set cuts.

    Attributes:
        index: k in 0..K; set cuts are numbered from ``FIRST_SET_CUT`` on.
        name: the last layer of the head that has MACs, in the model's own names; ``"input"`` at k=0. Of a set cut those
            that no other in the head depends on: ``"{left.conv2+right.conv1}"``.
        macs_before: MACs of the head.
        crossing: the tensors that the tail needs and the head (or the input) produces; empty at k=K.
        output_shape: shape of the tensor that the head makes last (of the first input at k=0).
        position: number of operations of the captured graph that belong to the head.
    """

    index: int
    name: str
    macs_before: int
    crossing: tuple[TensorSpec, ...]
    output_shape: tuple[int, ...]
    position: int

    @property
    def crossing_bits(self) -> int:
        """Bits that cross this cut, in the tensors' own dtypes."""
        return sum(spec.bits for spec in self.crossing)
