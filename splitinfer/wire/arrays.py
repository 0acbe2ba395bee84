"""What the wire carries: arrays of numpy with a declared dtype."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.wire.dtypes import DTYPES, DType, dtype_of_numpy


@dataclass(frozen=True, eq=False, slots=True)
class WireArray:
    """An array as it is sent or was received.

    Attributes:
        values: the elements, in ``dtype.storage``. Those of a received message lie on its bytes and cannot be written.
        dtype: what they mean, which differs from ``values.dtype`` where numpy has no such dtype.
    """

    values: NDArray[Any]
    dtype: DType

    def numpy(self) -> NDArray[Any]:
        """Return the values in a dtype of numpy; bfloat16 becomes float32 and complex32 complex64, both exactly."""
        if self.dtype.is_in_numpy:
            return self.values
        if self.dtype is DTYPES["bfloat16"]:
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        parts = self.values.reshape(*self.values.shape, 1).copy().view(np.float16)
        return parts.astype(np.float32).view(np.complex64)[..., 0]


def as_wire(tensor: Any) -> WireArray:
    """Return a torch tensor, a numpy array or a ``WireArray`` as the latter, on the same memory where possible.

    Raises:
        InputError: it is something else, or has no form on the wire.
    """
    kind = type(tensor)
    convert = _CONVERTERS.get(kind)
    if convert is None:
        convert = _CONVERTERS[kind] = _converter(kind)
    return convert(tensor)


def _converter(kind: type) -> Callable[[Any], WireArray]:
    if issubclass(kind, WireArray):
        return lambda tensor: tensor
    if issubclass(kind, np.ndarray | np.generic):
        return lambda tensor: WireArray(np.asarray(tensor), dtype_of_numpy(tensor.dtype))
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is not None and issubclass(kind, torch.Tensor):
        from splitinfer.wire.torch_tensors import from_torch

        return from_torch
    raise InputError(f"tensors of torch and arrays of numpy can be sent, not {kind.__name__}")


# By type: looking at the type's ancestors each time would take longer than to send a small tensor.
_CONVERTERS: dict[type, Callable[[Any], WireArray]] = {}
