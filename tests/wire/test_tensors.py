import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.errors import InputError
from splitinfer.wire import LimitError, Wire, WireLimits, unpack
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.tensors import RECORD_ALIGNMENT, Payload, pack
from splitinfer.wire.torch_tensors import to_torch
from tests.wire.trip import WIRE, bits, layouts, through_the_wire


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@given(tensors=st.lists(layouts(), max_size=4))
@settings(derandomize=True, deadline=None, max_examples=300)
def test_every_bit_and_the_layout_of_dense_tensors_survive(tensors: list[torch.Tensor]) -> None:
    received = through_the_wire(*tensors)
    assert len(received) == len(tensors)
    for got, sent in zip(received, tensors, strict=True):
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        assert bits(got) == bits(sent)
        stored = sent
        for dim in range(sent.dim()):
            if sent.stride(dim) == 0:
                stored = stored.narrow(dim, 0, min(1, stored.shape[dim]))
        span = 1 + sum((size - 1) * stride for size, stride in zip(stored.shape, stored.stride(), strict=True))
        if sent.numel() and span == stored.numel():  # no gaps
            differing = [d for d in range(sent.dim()) if sent.shape[d] > 1 and got.stride(d) != sent.stride(d)]
            assert not differing, (sent.shape, sent.stride(), got.stride())


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 1, 4, 4), (1, 512, 1, 1), (1, 1, 5, 5), (4, 7, 1, 1)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_strides_of_maps_survive_exactly(shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    # Dimensions of size 1 too: kernels are chosen by looking at all strides.
    tensor = torch.randn(shape).to(memory_format=memory_format)
    (received,) = through_the_wire(tensor)
    assert received.stride() == tensor.stride()
    assert torch.equal(received, tensor)


def test_what_is_equal_in_memory_travels_once() -> None:
    tensor = torch.randn(8, 8)
    alone = pack([tensor]).size
    assert pack([tensor, tensor, tensor.t(), tensor.view(64)]).size == alone
    assert pack([tensor, tensor.clone()]).size == 2 * alone
    assert pack([torch.randn(1, 64).expand(1000, 64)]).size == 256


def test_shared_bytes_come_back_as_one_storage() -> None:
    tensor = torch.randn(8, 8)
    first, second = through_the_wire(tensor, tensor.t())
    assert first.data_ptr() == second.data_ptr()
    assert torch.equal(first.t(), second)


def test_dense_tensors_are_not_copied_on_either_side() -> None:
    tensor = torch.randn(1, 8, 4, 4).to(memory_format=torch.channels_last)
    (buffer,) = pack([tensor]).buffers
    assert isinstance(buffer, memoryview)
    expected = bits(tensor)
    tensor.zero_()
    assert bytes(buffer) != expected
    data = bytes(pack([torch.ones(100)]).buffers[0])
    (received,) = unpack(pack([torch.ones(100)]).headers, memoryview(data), WIRE)
    assert not received.flags.writeable
    to_torch(received)[0] = 7.0
    assert data[:4] != bytes(torch.ones(1).numpy().data)


def test_records_are_aligned() -> None:
    payload = pack([torch.zeros(3, dtype=torch.uint8), torch.zeros(2, dtype=torch.float64)])
    assert [header.byte_offset % RECORD_ALIGNMENT for header in payload.headers] == [0, 0]


def test_tensors_that_have_no_form_on_the_wire_are_refused() -> None:
    with pytest.raises(InputError, match="dense"):
        pack([torch.eye(3).to_sparse()])
    with pytest.raises(InputError, match="float8"):
        pack([torch.zeros(2, dtype=torch.float8_e4m3fn)])


def one_float(**changes: object) -> pb.TensorHeader:
    header = pack([torch.zeros(4)]).headers[0]
    for field, value in changes.items():
        header.ClearField(field)  # type: ignore[arg-type]
        header.MergeFrom(pb.TensorHeader(**{field: value}))  # type: ignore[arg-type]
    return header


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [-4]}, "negative"),
        ({"shape": [-1, -4]}, "negative"),
        ({"shape": [5]}, "20 bytes, not 16"),
        ({"shape": []}, "1 elements of float32 are 4 bytes, not 16"),
        ({"shape": [2**62, 2**62]}, "max_tensor_bytes"),
        ({"shape": [2**63 - 1, 0]}, "max_tensor_bytes"),
        ({"shape": [1] * 17}, "max_dims"),
        ({"dtype": 0}, "unknown dtype number 0"),
        ({"dtype": 99}, "unknown dtype number 99"),
        ({"byte_size": 12}, "16 bytes, not 12"),
        ({"byte_size": 2**63}, "of a payload of 16 bytes"),
        ({"byte_offset": 2**64 - 1}, "of a payload of 16 bytes"),
        ({"byte_offset": 1}, "bytes 1..17 of a payload of 16 bytes"),
        ({"stride_order": [1]}, "is no order of 1 dimensions"),
        ({"stride_order": [0, 0]}, "is no order of 1 dimensions"),
        ({"expanded_dims": [3]}, "are not dimensions"),
        ({"expanded_dims": [0, 0]}, "are not dimensions"),
        ({"expanded_dims": [0]}, "1 elements of float32 are 4 bytes, not 16"),
        ({"codec": 9}, "unknown codec 9 version 1"),
        ({"codec_version": 2}, "unknown codec 0 version 2"),
    ],
)
def test_lying_headers_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"tensor 0: .*{message}"):
        unpack([one_float(**changes)], memoryview(bytes(16)), WIRE)


def test_overlapping_records_and_leftover_bytes_are_refused() -> None:
    first, second = one_float(), one_float(byte_offset=4, byte_size=16)
    with pytest.raises(InputError, match=r"tensor 1: .*inside another"):
        unpack([first, second], memoryview(bytes(20)), WIRE)
    with pytest.raises(InputError, match="payload has 20 bytes but its tensors end at byte 16"):
        unpack([first], memoryview(bytes(20)), WIRE)


def test_limits_hold() -> None:
    payload: Payload = pack([torch.zeros(4), torch.zeros(4)])
    data = memoryview(b"".join(payload.buffers))
    with pytest.raises(LimitError, match="max_tensors is 1"):
        unpack(payload.headers, data, Wire(WireLimits(max_tensors=1)))
    with pytest.raises(LimitError, match="max_tensor_bytes is 8"):
        unpack(payload.headers, data, Wire(WireLimits(max_tensor_bytes=8)))
    wide = pack([torch.zeros(1).expand(1000)])
    with pytest.raises(LimitError, match="4000 bytes"):
        unpack(wide.headers, memoryview(b"".join(wide.buffers)), Wire(WireLimits(max_tensor_bytes=2000)))


@pytest.mark.parametrize("value", [0, -1, 2**31, 1.5, True])
def test_limits_must_make_sense(value: object) -> None:
    with pytest.raises(InputError, match="max_tensors"):
        WireLimits(max_tensors=value)  # type: ignore[arg-type]
