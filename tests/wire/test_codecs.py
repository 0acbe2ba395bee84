"""Every codec of the registry, and codecs as others would add them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.errors import InputError, MissingExtraError
from splitinfer.runtime import ServerSettings
from splitinfer.wire import LimitError, Wire, WireLimits, unpack
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.codecs import CODECS, RAW, Codec, codecs_named
from splitinfer.wire.codecs.base import check_size
from splitinfer.wire.dtypes import DTYPES, dtype_number
from splitinfer.wire.layout import ArraySpec, dense
from splitinfer.wire.tensors import pack
from splitinfer.wire.torch_tensors import as_received, from_torch, to_torch
from tests.wire.trip import bits, layouts, through_the_wire

(FLOAT16,) = codecs_named(["float16"])


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@given(tensors=st.lists(layouts(), max_size=3))
@settings(derandomize=True, deadline=None, max_examples=150)
def test_what_a_codec_does_not_take_or_keeps_exactly_comes_back_in_every_bit(
    codec: Codec, tensors: list[torch.Tensor]
) -> None:
    for got, sent in zip(through_the_wire(*tensors, codec=codec), tensors, strict=True):
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        if codec.exact or not codec.takes(from_torch(sent[:0] if sent.dim() else sent).dtype):
            assert bits(got) == bits(sent)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@given(tensor=layouts())
@settings(derandomize=True, deadline=None, max_examples=150)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_bytes_keep_to_the_declared_bound_and_estimate(codec: Codec, tensor: torch.Tensor) -> None:
    spec, stored = dense(from_torch(tensor))
    if not codec.takes(spec.dtype):
        return
    data = codec.encode(stored, spec)
    if data is not None:
        assert len(data) <= codec.max_bytes(spec)
        if codec.name in ("raw", "float16", "bfloat16"):  # others have a head, or a size that depends on the values
            assert len(data) * 8 == pytest.approx(codec.bits_per_element(spec.dtype) * spec.elements, rel=0.1)


@given(
    dtype=st.sampled_from(["float32", "float64"]),
    values=st.lists(st.floats(-6e4, 6e4, width=32), min_size=8, max_size=8),
    channels_last=st.booleans(),
)
@settings(derandomize=True, deadline=None)
def test_float16_rounds_as_torch_does_and_keeps_the_layout(
    dtype: str, values: list[float], channels_last: bool
) -> None:
    tensor = torch.tensor(values, dtype=getattr(torch, dtype)).view(1, 2, 2, 2)
    if channels_last:
        tensor = tensor.to(memory_format=torch.channels_last)
    (received,) = through_the_wire(tensor, codec=FLOAT16)
    assert torch.equal(received, tensor.half().to(tensor.dtype))
    assert received.stride() == tensor.stride()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 65504.0, -0.0, 1e-8])
def test_float16_keeps_what_is_no_ordinary_number(value: float) -> None:
    tensor = torch.full((40,), value)
    assert pack([tensor], FLOAT16).headers[0].codec == FLOAT16.number
    assert bits(through_the_wire(tensor, codec=FLOAT16)[0].half()) == bits(tensor.half())


@pytest.mark.parametrize("value", [65520.0, -1e38])
def test_a_tensor_with_a_number_too_large_for_float16_stays_raw(value: float) -> None:
    tensor = torch.tensor([1.0, value])
    payload = pack([tensor, torch.ones(2)], FLOAT16)
    assert [header.codec for header in payload.headers] == [RAW.number, FLOAT16.number]
    assert torch.equal(through_the_wire(tensor, codec=FLOAT16)[0], tensor)


@given(
    codec=st.sampled_from(CODECS),
    dtype=st.sampled_from(list(DTYPES.values())),
    shape=st.lists(st.integers(0, 5), max_size=3),
    data=st.binary(max_size=64),
)
@settings(derandomize=True, deadline=None, max_examples=500)
def test_any_bytes_are_such_an_array_or_an_input_error(codec: Codec, dtype, shape: list[int], data: bytes) -> None:
    header = pb.TensorHeader(
        dtype=dtype_number(dtype), shape=shape, codec=codec.number, codec_version=codec.version, byte_size=len(data)
    )
    try:
        (array,) = unpack([header], memoryview(data), Wire())
    except InputError:
        return
    assert (array.shape, array.dtype) == (tuple(shape), dtype)


def test_a_bool_is_nothing_but_0_and_1() -> None:
    header = pack([torch.zeros(3, dtype=torch.bool)]).headers[0]
    with pytest.raises(InputError, match="tensor 0: a byte of a bool is neither 0 nor 1"):
        unpack([header], memoryview(bytes([0, 1, 2])), Wire())


def test_a_codec_that_does_not_carry_the_dtype_is_refused() -> None:
    header = pack([torch.zeros(3, dtype=torch.int32)]).headers[0]
    header.codec = FLOAT16.number
    with pytest.raises(InputError, match="tensor 0: codec float16 does not carry int32"):
        unpack([header], memoryview(bytes(6)), Wire())


def test_codecs_that_are_known_but_not_accepted_are_refused() -> None:
    payload = pack([torch.ones(3)], FLOAT16)
    with pytest.raises(InputError, match="unknown codec 1 version 1; accepted: raw 0 version 1"):
        unpack(payload.headers, memoryview(b"".join(payload.buffers)), Wire(accepts=codecs_named(["raw"])))
    with pytest.raises(InputError, match=r"there is no codec 'jpg'; known: raw, float16, .*ternary\+ans"):
        ServerSettings(codecs=("raw", "jpg"))


class PerChannelCodec:
    """8 bits with a scale per channel (axis 1): a codec that needs axes, as one would be added."""

    name = "int8"
    number = 200
    version = 1
    exact = False

    def takes(self, dtype) -> bool:
        return dtype.name == "float32"

    def bits_per_element(self, dtype) -> float:
        return 8.0

    def max_bytes(self, spec: ArraySpec) -> int:
        return spec.elements + 4 * spec.stored_shape[1]

    def encode(self, values: np.ndarray, spec: ArraySpec) -> bytes | None:
        if values.ndim != 4:
            return None
        scales = np.abs(values).max((0, 2, 3), initial=0).astype(np.float32) / 127
        whole = np.rint(values / np.where(scales == 0, 1, scales)[:, None, None]).astype(np.int8)
        return scales.tobytes() + whole.tobytes()

    def decode(self, data: memoryview, spec: ArraySpec) -> np.ndarray:
        channels = spec.stored_shape[1]
        check_size(data, 1, spec, extra=4 * channels)
        scales = np.frombuffer(data[: 4 * channels], np.float32)
        whole = np.frombuffer(data[4 * channels :], np.int8).reshape(spec.stored_shape)
        return spec.flatten(whole * scales[:, None, None])


class PerChannelCodec2(PerChannelCodec):
    """A later version: the bytes are inverted."""

    version = 2

    def encode(self, values: np.ndarray, spec: ArraySpec) -> bytes | None:
        data = super().encode(values, spec)
        return None if data is None else bytes(255 - byte for byte in data)

    def decode(self, data: memoryview, spec: ArraySpec) -> np.ndarray:
        return super().decode(memoryview(bytes(255 - byte for byte in data)), spec)


def one_way(tensors: Sequence[torch.Tensor], codec: Codec, accepts: tuple[Codec, ...]) -> tuple[torch.Tensor, ...]:
    payload = pack(tensors, codec)
    return tuple(map(to_torch, unpack(payload.headers, memoryview(b"".join(payload.buffers)), Wire(accepts=accepts))))


def test_a_codec_sees_the_axes_whatever_the_memory_looks_like_and_two_versions_are_served() -> None:
    scaled = torch.randn(1, 4, 5, 6) * torch.tensor([1e-3, 1.0, 1e3, 0.0]).view(1, 4, 1, 1)
    last = scaled.to(memory_format=torch.channels_last)
    accepts = (RAW, PerChannelCodec2(), PerChannelCodec())
    for codec in accepts[1:]:
        for sent in (scaled, last):
            (received, again) = one_way([sent, sent], codec, accepts)
            assert received.stride() == sent.stride()
            assert received.data_ptr() == again.data_ptr()
            error = (received - sent).abs().amax((0, 2, 3))
            assert (error <= sent.abs().amax((0, 2, 3)) / 127).all()
        # Two views of one memory have other axes: neither may be taken for the other.
        view = scaled.permute(0, 1, 3, 2)
        for got, sent in zip(one_way([scaled, view], codec, accepts), (scaled, view), strict=True):
            assert torch.allclose(got, sent, rtol=0.0, atol=1e3 * 5 / 127)
        assert torch.equal(one_way([torch.ones(7)], codec, accepts)[0], torch.ones(7))


class CountingCodec(PerChannelCodec):
    """Says that everything is one byte, and notes what it is given to decode."""

    number = 201
    asked = 0

    def max_bytes(self, spec: ArraySpec) -> int:
        return 1

    def encode(self, values: np.ndarray, spec: ArraySpec) -> bytes:
        return b"\0"

    def decode(self, data: memoryview, spec: ArraySpec) -> np.ndarray:
        self.asked += 1
        return np.zeros(spec.elements, np.float32)


def test_sizes_are_bounded_before_anything_is_decoded() -> None:
    codec = CountingCodec()
    payload = pack([torch.zeros(256, 256), torch.zeros(256, 256)], codec)
    data = memoryview(b"".join(payload.buffers))
    assert len(unpack(payload.headers, data, Wire(accepts=(RAW, codec)))) == 2
    small = Wire(WireLimits(max_decoded_bytes=256 * 256 * 4), accepts=(RAW, codec))
    with pytest.raises(LimitError, match="tensor 1: 524288 bytes decoded; max_decoded_bytes is 262144"):
        unpack(payload.headers, data, small)
    payload.headers[0].byte_size = 2
    before = codec.asked
    with pytest.raises(InputError, match="tensor 0: 65536 elements of float32 are 1 bytes, not 2; codec int8 never"):
        unpack(payload.headers, data, Wire(accepts=(RAW, codec)))
    assert codec.asked == before


def test_the_example_of_the_documentation_is_a_codec() -> None:
    text = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
    names: dict[str, object] = {"np": np, "check_size": check_size}
    exec(re.search(r"```python\n(class Int8Codec.*?)```", text, re.DOTALL)[1], names)
    codec = names["Int8Codec"]()
    wire = Wire(codec=codec, accepts=(RAW, codec))
    tensor = torch.randn(1, 3, 4, 4).to(memory_format=torch.channels_last)
    received, empty, infinite = as_received([tensor, torch.zeros(0), torch.tensor([float("inf")])], wire)
    assert (received - tensor).abs().max() <= tensor.abs().max() / 127
    assert received.stride() == tensor.stride()
    assert (empty.numel(), infinite.item()) == (0, float("inf"))
    for data in (b"", b"abc", b"abcde"):
        header = pb.TensorHeader(dtype=12, shape=[0], codec=2, codec_version=1, byte_size=len(data))
        with pytest.raises(InputError, match="0 elements of float32 are 4 bytes"):
            unpack([header], memoryview(data), wire)


AFFINE = codecs_named(["int8", "int4", "int2"])


@given(
    shape=st.sampled_from([(1, 4, 6, 6), (1, 3, 8), (2, 5), (40,), (1, 8, 3, 3)]),
    seed=st.integers(0, 99),
    channels_last=st.booleans(),
    spread=st.sampled_from([0.0, 1.0, 6.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(derandomize=True, deadline=None, max_examples=120)
def test_affine_codecs_are_as_near_as_their_levels(shape, seed, channels_last, spread, dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(shape, generator=generator, dtype=dtype)
    if len(shape) > 2:  # channels of very different sizes
        tensor = tensor * torch.exp(spread * torch.rand(shape[1], generator=generator)).view(
            -1, *[1] * (len(shape) - 2)
        )
    if channels_last and len(shape) == 4:
        tensor = tensor.to(memory_format=torch.channels_last)
    errors = []
    for codec in AFFINE:
        (got,) = through_the_wire(tensor, codec=codec)
        assert (got.dtype, got.shape, got.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
        errors.append(float((got - tensor).pow(2).mean()))
        if codec.name == "int8":
            step = float(tensor.max() - tensor.min()) / 255
            assert float((got - tensor).abs().max()) <= 0.51 * step + 1e-6
    assert errors[0] <= errors[1] <= errors[2] + 1e-12


def test_ranges_per_channel_are_written_where_they_pay() -> None:
    codec = codecs_named(["int4"])[0]
    maps = torch.rand(1, 8, 28, 28)
    even, uneven = (dense(from_torch(t)) for t in (maps, maps * torch.logspace(-2, 2, 8).view(1, 8, 1, 1)))
    assert bytes(codec.encode(even[1], even[0]))[0] == 0
    assert bytes(codec.encode(uneven[1], uneven[0]))[0] == 1


def test_zeros_after_a_relu_come_back_as_zeros() -> None:
    tensor = torch.randn(1, 16, 14, 14).relu()
    for codec in AFFINE:
        (got,) = through_the_wire(tensor, codec=codec)
        assert torch.equal(got[tensor == 0], tensor[tensor == 0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_affine_codecs_leave_what_is_not_finite(value: float) -> None:
    tensor = torch.tensor([1.0, value, 2.0])
    for codec in AFFINE:
        assert bits(through_the_wire(tensor, codec=codec)[0]) == bits(tensor)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e-40, 1e30])
def test_affine_codecs_on_constants(value: float) -> None:
    tensor = torch.full((1, 4, 5, 5), value)
    for codec in AFFINE:
        torch.testing.assert_close(through_the_wire(tensor, codec=codec)[0], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec.name != "raw"], ids=lambda codec: codec.name)
@given(data=st.binary(max_size=300), length=st.integers(0, 300))
@settings(derandomize=True, deadline=None, max_examples=80)
def test_rubbish_is_refused_or_gives_the_declared_elements(codec: Codec, data: bytes, length: int) -> None:
    spec = ArraySpec((1, 4, 3, 3), np.dtype(np.float32))
    whole = bytes(codec.encode(np.linspace(0, 1, 36, dtype=np.float32).reshape(1, 4, 3, 3), spec) or b"")
    for attempt in (data, whole[: min(length, len(whole))], whole + data, data[:20] + whole):
        try:
            got = codec.decode(memoryview(attempt), spec)
        except InputError:
            continue
        assert (got.size, got.dtype) == (36, spec.dtype)


def test_a_bomb_is_not_inflated() -> None:
    zstd = pytest.importorskip("backports.zstd")
    spec = ArraySpec((10,), np.dtype(np.float32))
    codec = codecs_named(["raw+zstd"])[0]
    bomb = zstd.compress(bytes(50_000_000))
    assert len(bomb) < 10_000
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(InputError, match=r"raw\+zstd: the bytes are no frame of at most 40 bytes"):
        codec.decode(memoryview(bomb), spec)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    wide = zstd.compress(
        bytes(100), options={zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.checksum_flag: 1}
    )
    with pytest.raises(InputError):
        codec.decode(memoryview(wide[:8] + bytes(40)), spec)


ANS = codecs_named(["int4+ans", "int2+ans", "ternary+ans"])


@given(
    shape=st.sampled_from([(1, 4, 6, 6), (1, 3, 8), (2, 5), (40,), (), (1, 64, 7, 7)]),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["signed", "relu", "far", "negative"]),
    channels_last=st.booleans(),
    spread=st.sampled_from([0.0, 6.0]),
)
@settings(derandomize=True, deadline=None, max_examples=120)
def test_ans_codecs_give_the_mean_of_each_level_and_more_levels_err_less(
    shape, seed, kind, channels_last, spread
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(shape, generator=generator)
    tensor = {"signed": tensor, "relu": tensor.relu(), "far": tensor + 900, "negative": -tensor.abs()}[kind]
    if len(shape) > 2:
        scales = torch.exp(spread * torch.rand(shape[1], generator=generator))
        tensor = tensor * scales.view(-1, *[1] * (len(shape) - 2))
    if channels_last and len(shape) == 4:
        tensor = tensor.to(memory_format=torch.channels_last)
    errors = []
    for codec, levels in zip(ANS, (16, 4, 3), strict=True):
        (got,) = through_the_wire(tensor, codec=codec)
        assert (got.dtype, got.shape, got.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
        found = got.unique()
        assert len(found) <= levels
        for level in found:
            mean = float(tensor[got == level].double().mean())
            assert float(level) == pytest.approx(mean, rel=2**-7, abs=2**-7 * float(tensor.std(correction=0)) + 1e-6)
        errors.append(float((got - tensor).pow(2).mean()))
    assert errors[0] <= min(errors) + 1e-4 * float(tensor.pow(2).mean())


def test_an_entropy_coder_beats_zstd_on_maps_after_a_relu() -> None:
    maps = torch.randn(1, 64, 28, 28, generator=torch.Generator().manual_seed(0)).relu()
    uneven = maps * torch.logspace(-1, 1, 64).view(1, 64, 1, 1)
    for tensor, least in ((maps, 0.65), (uneven, 0.4)):
        spec, stored = dense(from_torch(tensor))
        sizes, errors = {}, {}
        for name in ("int4+zstd", "int2+zstd", *(codec.name for codec in ANS)):
            codec = codecs_named([name])[0]
            sizes[name] = len(codec.encode(stored, spec)) * 8 / tensor.numel()
            errors[name] = float((through_the_wire(tensor, codec=codec)[0] - tensor).pow(2).mean())
        assert sizes["int4+ans"] < 0.8 * sizes["int4+zstd"]
        assert sizes["int2+ans"] < sizes["int2+zstd"]
        assert sizes["ternary+ans"] < least
    # How often levels occur is told per channel, and an error a quarter as large goes in fewer bits.
    assert bytes(ANS[0].encode(stored, spec))[0] & 0x80
    assert sizes["int4+ans"] < sizes["int2+zstd"]
    assert errors["int4+ans"] < 0.25 * errors["int2+zstd"]


def test_bytes_of_an_entropy_coder_are_those_of_every_machine_and_release() -> None:
    values = (np.arange(24, dtype=np.float32) ** 2 % 17 - 3).reshape(1, 4, 6)
    spec, stored = dense(values)
    assert [bytes(codec.encode(stored, spec)).hex() for codec in ANS] == [
        "05000040c02bbfa040c04030415041156120202a20e563831191cd0ad2c311",
        "0200008cbfd4404a4176553553dc655e457fd101",
        "0100000a404a41cb3583ae1f3d42",
    ]


def test_what_an_entropy_coder_left_is_checked() -> None:
    spec, stored = dense(np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 4, 16))
    codec = ANS[1]
    whole = bytes(codec.encode(stored, spec))
    table = 3 + 2 * (1 + (whole[0] & 0x7F))
    for wrong, says in (
        (b"", "0 bytes are no 64 elements of int2.ans"),
        (bytes([15]) + whole[1:], "are no 64 elements"),
        (whole[: table - 1], "are no 64 elements"),
        (whole[:table] + bytes([whole[table] ^ 1]) + whole[table + 1 :], "its table of levels is not one"),
        (whole[:1] + bytes([0xC0, 0x7F]) + whole[3:], "its table of levels is not one"),  # NaN
        (whole + b"\1\2\3\4", "the bytes are no 64 elements"),
        (whole + bytes(8), "int2.ans: "),
    ):
        with pytest.raises(InputError, match=says):
            codec.decode(memoryview(wrong), spec)


def test_codecs_whose_extra_is_absent_are_named_with_it(monkeypatch) -> None:
    without = tuple(codec for codec in CODECS if codec not in ANS)
    monkeypatch.setattr("splitinfer.wire.codecs.INSTALLED", without)
    with pytest.raises(
        MissingExtraError, match=r"^constriction is not installed; run: pip install 'splitinfer\[ans\]'"
    ):
        ServerSettings(codecs=("int2+ans",))
    assert codecs_named(["int2+ans"])  # a simulation needs no coder
