"""Arrays of numpy on the wire; torch only as the other opinion."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.errors import InputError
from splitinfer.wire import Wire, unpack
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.dtypes import DTYPES, dtype_number, widened
from splitinfer.wire.tensors import pack
from splitinfer.wire.torch_tensors import from_torch

NUMPY = [dtype for dtype in DTYPES.values() if not dtype.names]


def received(*tensors: object) -> tuple[np.ndarray, ...]:
    payload = pack(tensors)
    return unpack(payload.headers, memoryview(b"".join(payload.buffers)), Wire())


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays of every dtype of numpy: permuted, sliced, reversed, repeated, empty, scalar."""
    dtype = draw(st.sampled_from(NUMPY))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    values = random.integers(0, 2, (*shape, dtype.itemsize), np.uint8) * (1 if dtype.name == "bool" else 77)
    array = np.ascontiguousarray(values).view(dtype).reshape(shape)
    array = array.transpose(draw(st.sampled_from(list(itertools.permutations(range(len(shape)))))))
    for axis in range(array.ndim):
        way = draw(st.integers(0, 4))
        slices = [slice(None)] * axis
        if way == 0:
            array = array[(*slices, slice(None, None, -1))]
        elif way == 1:
            array = array[(*slices, slice(None, None, 2))]
        elif way == 2 and array.shape[axis] == 1:
            array = np.broadcast_to(array, [3 if a == axis else size for a, size in enumerate(array.shape)])
    return array


@given(sent=st.lists(arrays(), max_size=3))
@settings(derandomize=True, deadline=None, max_examples=300)
def test_every_array_comes_back(sent: list[np.ndarray]) -> None:
    for got, array in zip(received(*sent), sent, strict=True):
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        assert got.tobytes() == array.tobytes()
        assert not (array.size and got.flags.writeable)


def test_neither_side_copies() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    (buffer,) = pack([array]).buffers
    array[0, 0] = 9
    data = bytes(buffer)
    assert np.frombuffer(data, np.float32)[0] == 9
    (got,) = unpack(pack([array]).headers, memoryview(data), Wire())
    assert np.shares_memory(got, np.frombuffer(data, np.uint8))
    assert got.strides == array.strides


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("name", ["bfloat16", "complex32"])
def test_dtypes_that_numpy_does_not_have_are_widened_exactly(name: str) -> None:
    dtype = DTYPES[name]
    bits = np.random.default_rng(0).integers(0, 256, (3, 5, dtype.itemsize), np.uint8).view(dtype)[..., 0]
    tensor = torch.from_numpy(bits[name].copy()).view(getattr(torch, name))
    assert from_torch(tensor).dtype == dtype
    wide = tensor.to(torch.float32 if name == "bfloat16" else torch.complex64)
    for got in received(bits, tensor.t(), bits):
        assert got.dtype == dtype
        values = widened(got if got.shape == (3, 5) else got.T)
        assert values.dtype == wide.numpy().dtype
        np.testing.assert_array_equal(values, wide.numpy())


def test_numbers_of_dtypes_are_the_contracts() -> None:
    contract = {name.removeprefix("DTYPE_").lower(): number for name, number in pb.DType.items()}
    assert contract == {"unspecified": 0} | {name: dtype_number(dtype) for name, dtype in DTYPES.items()}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([1.0, 2.0], "not list"),
        (np.array(["a"]), "arrays of <U1 cannot be sent"),
        (np.array([None]), "arrays of object cannot be sent"),
        (np.zeros(2, ">f4"), "arrays of >f4 cannot be sent"),
    ],
)
def test_what_has_no_form_on_the_wire_is_refused(wrong: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pack([wrong])
