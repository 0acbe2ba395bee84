"""What the server says to requests that no client of ours would send; raw bytes over plain gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitinfer.errors import RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime import EdgeProcess
from splitinfer.runtime.description import read_description
from splitinfer.runtime.transport import DESCRIBE, INFER, INFER_STREAM, SERVICE
from splitinfer.wire import Request, Wire, WireLimits, decode_reply, encode_request
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.limits import LimitError
from splitinfer.wire.torch_tensors import to_torch

LIMITS = WireLimits()
WIRE = Wire()
CUT = 1
# Every status that a request may be refused with; anything else is a bug of the server.
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}

Change = Callable[[pb.InferRequest], None]


@pytest.fixture(scope="module")
def channel(edge: EdgeProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(edge.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


@pytest.fixture(scope="module")
def good(models: dict[str, SplitModel]) -> bytes:
    split = models["plain"]
    tensors = split.run_head(CUT, torch.ones(1, 3, 32, 32))
    return encode_request(Request("plain", split.fingerprint, CUT, tensors, request_id=77), WIRE)


def check_good(channel: grpc.Channel, good: bytes, split: SplitModel) -> None:
    reply = decode_reply(channel.unary_unary(INFER)(good, timeout=60), WIRE)
    assert reply.request_id == 77
    assert torch.equal(to_torch(reply.tensors[0]), split(torch.ones(1, 3, 32, 32)))


def changed(good: bytes, change: Change) -> bytes:
    message = pb.InferRequest.FromString(good)
    change(message)
    return message.SerializeToString()


def _header(**values: object) -> Change:
    return lambda message: message.header.MergeFrom(pb.RequestHeader(**values))  # type: ignore[arg-type]


def _tensor(**values: object) -> Change:
    def change(message: pb.InferRequest) -> None:
        for field, value in values.items():
            message.header.tensors[0].ClearField(field)  # type: ignore[arg-type]
            message.header.tensors[0].MergeFrom(pb.TensorHeader(**{field: value}))  # type: ignore[arg-type]

    return change


def _no_tensors(message: pb.InferRequest) -> None:
    del message.header.tensors[:]
    message.payload = b""


def _cut_zero(message: pb.InferRequest) -> None:
    message.header.cut = 0


def _version_zero(message: pb.InferRequest) -> None:
    message.header.protocol_version = 0


def _twice(message: pb.InferRequest) -> None:
    message.header.tensors.append(message.header.tensors[0])


def _truncated(message: pb.InferRequest) -> None:
    message.payload = message.payload[:-1]


BAD: dict[str, tuple[Change, grpc.StatusCode, str]] = {
    "unknown model": (_header(model="resnet19"), grpc.StatusCode.NOT_FOUND, "no model 'resnet19'; it has plain"),
    "other weights": (_header(fingerprint="ab" * 32), grpc.StatusCode.FAILED_PRECONDITION, "holds another plain"),
    "last cut": (_header(cut=3), grpc.StatusCode.INVALID_ARGUMENT, "cut 3 has no tail: plain has tails for cuts 0..2"),
    "huge cut": (_header(cut=2**32 - 1), grpc.StatusCode.INVALID_ARGUMENT, "cut 4294967295"),
    "another cut's tensors": (_cut_zero, grpc.StatusCode.INVALID_ARGUMENT, "at cut 0"),
    "version 0": (_version_zero, grpc.StatusCode.UNIMPLEMENTED, "speaks protocol version 1, not 0"),
    "version 7": (_header(protocol_version=7), grpc.StatusCode.UNIMPLEMENTED, "speaks protocol version 1, not 7"),
    "wrong shape": (_tensor(shape=[1, 8, 1024]), grpc.StatusCode.INVALID_ARGUMENT, "plain takes"),
    "wrong dtype": (_tensor(dtype=pb.DTYPE_INT32), grpc.StatusCode.INVALID_ARGUMENT, "not int32"),
    "byte count": (_tensor(shape=[1, 8, 32, 33]), grpc.StatusCode.INVALID_ARGUMENT, "tensor 0: .*bytes, not"),
    "negative size": (_tensor(shape=[-1, -8, 32, 32]), grpc.StatusCode.INVALID_ARGUMENT, "negative size"),
    "no tensors": (_no_tensors, grpc.StatusCode.INVALID_ARGUMENT, "takes 1 tensors at cut 1, not 0"),
    "two tensors": (_twice, grpc.StatusCode.INVALID_ARGUMENT, "takes 1 tensors at cut 1, not 2"),
    "truncated": (_truncated, grpc.StatusCode.INVALID_ARGUMENT, "of a payload of"),
    "huge tensor": (_tensor(shape=[2**40, 2**40]), grpc.StatusCode.RESOURCE_EXHAUSTED, "max_tensor_bytes is 67108864"),
    "unknown codec": (_tensor(codec=4000), grpc.StatusCode.INVALID_ARGUMENT, "unknown codec 4000"),
}


@pytest.mark.parametrize("what", BAD)
def test_each_bad_request_gets_its_status_and_the_stream_goes_on(
    channel: grpc.Channel, good: bytes, models: dict[str, SplitModel], what: str
) -> None:
    change, status, message = BAD[what]
    bad = changed(good, change)
    with pytest.raises(grpc.RpcError, match=message) as refused:
        channel.unary_unary(INFER)(bad, timeout=60)
    assert refused.value.code() is status
    assert "\n" not in refused.value.details()

    replies = [decode_reply(data, WIRE) for data in channel.stream_stream(INFER_STREAM)(iter([good, bad, good]))]
    assert [reply.request_id for reply in replies] == [77, 77, 77]
    assert replies[0].refusal is None
    assert replies[1].refusal == (status.value[0], refused.value.details())
    assert torch.equal(*(to_torch(replies[at].tensors[0]) for at in (0, 2)))
    check_good(channel, good, models["plain"])


@pytest.mark.parametrize("data", [b"\x0a", b"\xff\xff", b"\x0a\x03\x08\xff\xff", b"hello, is this HTTP?"])
def test_what_is_no_message_is_refused_on_every_method(channel: grpc.Channel, data: bytes) -> None:
    for method in (INFER, DESCRIBE):
        with pytest.raises(grpc.RpcError, match="malformed") as refused:
            channel.unary_unary(method)(data, timeout=60)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (reply,) = (decode_reply(reply, WIRE) for reply in channel.stream_stream(INFER_STREAM)(iter([data])))
    assert reply.request_id == 0
    assert reply.refusal is not None
    assert reply.refusal[0] == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_a_message_over_the_limit_is_refused(channel: grpc.Channel, good: bytes, models: dict[str, SplitModel]) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(INFER)(bytes(LIMITS.max_message_bytes + 1), timeout=60)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    check_good(channel, good, models["plain"])


@pytest.mark.parametrize(
    ("method", "data"),
    [(INFER, b"\x0a\x00"), (INFER, b"\x7a\x00"), (DESCRIBE, b"\x0a\x00"), (DESCRIBE, b"\x7a\x00")],
)
def test_millions_of_empty_fields_are_refused_before_they_are_read(
    channel: grpc.Channel, good: bytes, models: dict[str, SplitModel], method: str, data: bytes
) -> None:
    with pytest.raises(grpc.RpcError, match=r"max_fields|max_header_bytes") as refused:
        channel.unary_unary(method)(data * (4 << 20), timeout=60)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    check_good(channel, good, models["plain"])


def test_a_client_reads_no_endless_answers() -> None:
    with pytest.raises(LimitError, match="max_fields"):
        decode_reply(b"\x0a\x00" * (4 << 20), Wire())
    with pytest.raises(RemoteError, match="max_description_bytes is 4194304"):
        read_description(b"\x1a\x00" * (4 << 20), LIMITS)


def test_describe_refuses_what_it_does_not_know(channel: grpc.Channel) -> None:
    for request, status in (
        (pb.DescribeRequest(models=["resnet19"]), grpc.StatusCode.NOT_FOUND),
        (pb.DescribeRequest(protocol_version=9), grpc.StatusCode.UNIMPLEMENTED),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(DESCRIBE)(request.SerializeToString(), timeout=60)
        assert refused.value.code() is status


@pytest.mark.parametrize("name", ["x" * 20_000, "\N{SNOWMAN}" * 20_000])
def test_a_long_name_is_refused_as_a_short_one(channel: grpc.Channel, good: bytes, name: str) -> None:
    asked = {
        INFER: changed(good, _header(model=name)),
        DESCRIBE: pb.DescribeRequest(models=[name]).SerializeToString(),
    }
    for method, data in asked.items():
        with pytest.raises(grpc.RpcError, match=r"no model '.{100}\.\.\.'; it has plain") as refused:
            channel.unary_unary(method)(data, timeout=60)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_and_reflection_are_on(channel: grpc.Channel) -> None:
    for service in ("", SERVICE):
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in set(database.get_services())
    assert database.FindFileContainingSymbol(SERVICE).package == "splitinfer.v1"


def test_a_client_of_plain_protobuf_classes_is_served(
    channel: grpc.Channel, good: bytes, models: dict[str, SplitModel]
) -> None:
    call = channel.unary_unary(
        INFER, request_serializer=pb.InferRequest.SerializeToString, response_deserializer=pb.InferReply.FromString
    )
    reply = call(pb.InferRequest.FromString(good), timeout=60)
    expected = models["plain"](torch.ones(1, 3, 32, 32))
    assert reply.header.tensors[0].shape == list(expected.shape)
    assert torch.frombuffer(bytearray(reply.payload), dtype=torch.float32).equal(expected.view(-1))


sizes = st.one_of(st.integers(-3, 40), st.sampled_from([2**31, 2**62, -(2**63), 2**63 - 1]))
lengths = st.one_of(st.integers(0, 40_000), st.sampled_from([2**32, 2**63, 2**64 - 1]))
tensor_headers = st.builds(
    pb.TensorHeader,
    dtype=st.integers(0, 20),
    shape=st.lists(sizes, max_size=6),
    stride_order=st.lists(st.integers(0, 5), max_size=5),
    expanded_dims=st.lists(st.integers(0, 5), max_size=3),
    codec=st.sampled_from([0, 0, 0, 1, 2**32 - 1]),
    codec_version=st.sampled_from([1, 1, 1, 0]),
    byte_offset=lengths,
    byte_size=lengths,
)


@st.composite
def malformed(draw: st.DrawFn, good: bytes) -> bytes:
    """Noise, a good message with some bytes changed or cut off, or well-formed lies."""
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return draw(st.binary(max_size=100))
    if kind == 1:
        # The header holds what can lie; the payload is only numbers.
        at = draw(st.integers(0, 250))
        data = bytearray(good)
        data[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
        return bytes(data[: draw(st.sampled_from([len(data), len(data) - 1, len(data) // 2, 200, at]))])
    message = pb.InferRequest.FromString(good)
    if draw(st.booleans()):
        message.header.cut = draw(st.integers(0, 4))
    message.header.tensors[0].MergeFrom(draw(tensor_headers))
    message.header.tensors.extend(draw(st.lists(tensor_headers, max_size=3)))
    message.payload = draw(st.binary(max_size=64)) if draw(st.booleans()) else message.payload
    return message.SerializeToString()


def test_thousands_of_malformed_messages_do_not_disturb_the_server(
    edge: EdgeProcess, channel: grpc.Channel, good: bytes, models: dict[str, SplitModel]
) -> None:
    answered = 0
    allowed = {code.value[0] for code in REFUSALS}
    stream = channel.stream_stream(INFER_STREAM)

    @settings(derandomize=True, deadline=None, max_examples=250, suppress_health_check=list(HealthCheck))
    @given(batch=st.lists(malformed(good), min_size=12, max_size=12))
    def throw(batch: list[bytes]) -> None:
        nonlocal answered
        for data in stream(iter(batch)):
            reply = decode_reply(data, WIRE)
            assert reply.refusal is None or reply.refusal[0] in allowed, reply.refusal
            answered += 1

    @settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
    @given(data=malformed(good))
    def throw_alone(data: bytes) -> None:
        try:
            decode_reply(channel.unary_unary(INFER)(data, timeout=60), WIRE)
        except grpc.RpcError as error:
            assert error.code() in REFUSALS, error  # noqa: PT017 - both an answer and a refusal are right

    throw()
    throw_alone()
    assert answered >= 2000
    check_good(channel, good, models["plain"])
