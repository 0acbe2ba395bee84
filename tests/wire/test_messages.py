from collections.abc import Callable
from typing import Any

import pytest
import torch
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.wire import (
    LimitError,
    Reply,
    Request,
    RequestHead,
    Wire,
    WireLimits,
    decode_reply,
    encode_reply,
    encode_request,
    open_request,
    request_writer,
    unpack,
)
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.torch_tensors import to_torch
from tests.wire.trip import layouts

WIRE = Wire()


def test_a_request_comes_back_as_it_was_sent() -> None:
    sent = Request("resnet18", "ab" * 32, 7, (torch.randn(3, 4), torch.tensor([True, False])), request_id=2**63)
    opened = open_request(encode_request(sent, WIRE), WIRE)
    head = opened.head
    assert (head.model, head.fingerprint, head.cut) == (sent.model, sent.fingerprint, sent.cut)
    assert (opened.request_id, head.protocol_version) == (sent.request_id, 1)
    received = opened.arrays()
    assert all(torch.equal(to_torch(a), b) for a, b in zip(received, sent.tensors, strict=True))


def test_another_implementation_can_write_a_request() -> None:
    # Built field by field as a client in another language would, with nothing of ours but the generated classes.
    message = pb.InferRequest(
        payload=bytes([0, 0, 128, 63, 0, 0, 0, 64]),
        header=pb.RequestHeader(
            model="m",
            tensors=[pb.TensorHeader(dtype=pb.DTYPE_FLOAT32, shape=[2], codec_version=1, byte_size=8)],
        ),
    )
    (tensor,) = open_request(message.SerializeToString(), WIRE).arrays()
    assert tensor.tolist() == [1.0, 2.0]


def test_another_implementation_can_read_a_reply() -> None:
    data = encode_reply(Reply(5, (torch.tensor([1.0, 2.0]),), tail_s=0.25), WIRE)
    message = pb.InferReply.FromString(data)
    assert message.header.request_id == 5
    assert message.header.tail_s == 0.25
    assert message.payload == bytes([0, 0, 128, 63, 0, 0, 0, 64])


def test_a_refusal_survives() -> None:
    reply = decode_reply(encode_reply(Reply(9, refusal=(3, "no")), WIRE), WIRE)
    assert (reply.request_id, reply.refusal, reply.tensors) == (9, (3, "no"), ())


def test_messages_over_the_limit_are_not_built() -> None:
    request = Request("m", "f", 0, (torch.zeros(100),))
    with pytest.raises(LimitError, match="max_message_bytes is 300"):
        encode_request(request, Wire(WireLimits(max_message_bytes=300)))
    with pytest.raises(LimitError, match="max_message_bytes is 410"):
        encode_request(request, Wire(WireLimits(max_message_bytes=410)))
    with pytest.raises(LimitError, match="max_tensors is 1"):
        encode_request(Request("m", "f", 0, (torch.zeros(1),) * 2), Wire(WireLimits(max_tensors=1)))


@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"\x0a\x02\xff\xff", b"\xff" * 11, b"\x0b"])
def test_malformed_messages_are_input_errors(data: bytes) -> None:
    with pytest.raises(InputError, match="malformed"):
        open_request(data, WIRE)
    with pytest.raises(InputError, match="malformed"):
        decode_reply(data, WIRE)


def test_no_bytes_are_an_empty_message() -> None:
    opened = open_request(b"", WIRE)
    assert opened.request_id == 0
    assert opened.head == RequestHead()
    assert len(open_request(b"", WIRE).payload) == 0


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@given(messages=st.lists(st.lists(layouts(), max_size=3), min_size=1, max_size=3))
@settings(derandomize=True, deadline=None, max_examples=300)
def test_a_writer_writes_what_it_would_write_first(messages: list[list[torch.Tensor]]) -> None:
    # Each list twice, so that what the writer remembers fits, and then another one, where it does not.
    writer = request_writer("m", "f", 3, WIRE)
    for number, tensors in enumerate(each for message in messages for each in (message, message)):
        for sent in (tensors, [tensor.clone() for tensor in tensors]):
            assert writer.write(sent, number * 60) == encode_request(Request("m", "f", 3, sent, number * 60), WIRE)


def test_what_requests_are_about_is_equal_whether_it_was_kept_or_read_anew() -> None:
    # A repeated request is known by this, and whatever came between them may have taken the kept one's place.
    def head(model: str, number: int, *tensors: torch.Tensor) -> RequestHead:
        return open_request(encode_request(Request(model, "f", 3, tensors, number), WIRE), WIRE).head

    first = head("m", 1, torch.ones(3))
    assert head("m", 2, torch.zeros(3)) is first
    assert head("n", 1, torch.ones(3)) != first
    again = head("m", 1, torch.ones(3))
    assert again == first
    assert again is not first
    assert hash(again) == hash(first)
    assert head("m", 1, torch.ones(3).int()) != first


def test_a_writer_knows_arrays_and_what_has_no_array_of_its_own() -> None:
    writer = request_writer("m", "f", 3, WIRE)
    kinds = [
        torch.ones(3),
        torch.ones(3).numpy(),
        torch.ones(3, requires_grad=True),
        torch.ones(3, dtype=torch.bfloat16),
    ]
    for kind in (*kinds, *kinds):
        assert writer.write([kind], 1) == encode_request(Request("m", "f", 3, [kind], 1), WIRE)
    with pytest.raises(InputError, match="not list"):
        writer.write([[1.0]], 1)


requests = st.builds(
    pb.InferRequest,
    header=st.builds(
        pb.RequestHeader,
        protocol_version=st.sampled_from([0, 1, 2]),
        request_id=st.sampled_from([0, 1, 5, 127, 128, 300, 2**64 - 1]),
        model=st.sampled_from(["a", "b", "ab"]),
        cut=st.sampled_from([0, 1]),
        tensors=st.lists(
            st.builds(
                pb.TensorHeader,
                dtype=st.just(pb.DTYPE_UINT8),
                shape=st.lists(st.integers(1, 3), max_size=1),
                byte_size=st.integers(1, 3),
                codec_version=st.just(1),
            ),
            max_size=1,
        ),
    ),
    padding=st.binary(max_size=2),
    payload=st.binary(max_size=3),
)


@given(messages=st.lists(requests, min_size=1, max_size=6), again=st.integers(0, 300), cut=st.integers(0, 90))
@settings(derandomize=True, deadline=None, max_examples=1000)
def test_what_is_kept_of_one_message_never_changes_what_another_means(
    messages: list[pb.InferRequest], again: int, cut: int
) -> None:
    # Short messages, so that many are of one size; and some with a byte of the first at another place.
    sent = [message.SerializeToString() for message in messages]
    first = sent[0]
    sent += [first, first[:cut] + bytes([again % 256]) + first[cut + 1 :], first[:cut] + first[cut + 1 :] + first[:1]]
    for data in sent:
        try:
            expected = pb.InferRequest.FromString(data)
            opened = open_request(data, WIRE)
        except (DecodeError, InputError):
            continue
        head = opened.head
        assert opened.request_id == expected.header.request_id
        assert (head.model, head.cut) == (expected.header.model, expected.header.cut)
        assert head.protocol_version == expected.header.protocol_version
        assert opened.payload == expected.payload
        assert opened.payload == expected.payload
        wanted = outcome(lambda expected=expected: unpack(expected.header.tensors, memoryview(expected.payload), WIRE))
        assert outcome(opened.arrays) == wanted


def outcome(arrays: Callable[[], tuple[NDArray[Any], ...]]) -> list[bytes] | str:
    try:
        return [array.tobytes() for array in arrays()]
    except InputError as error:
        return str(error)


@given(
    replies=st.lists(
        st.builds(
            Reply,
            request_id=st.sampled_from([0, 1, 127, 128, 2**64 - 1]),
            tensors=st.lists(st.sampled_from([torch.zeros(2), torch.ones(3)]), max_size=2).map(tuple),
            refusal=st.none() | st.tuples(st.integers(0, 16), st.text(max_size=30)),
            queue_s=st.floats(0, 1),
            tail_s=st.floats(0, 1),
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_replies_mean_the_same_here_and_in_another_implementation(replies: list[Reply]) -> None:
    for reply in replies:
        data = encode_reply(reply, WIRE)
        header = pb.InferReply.FromString(data).header
        for again in (data, pb.InferReply.FromString(data).SerializeToString()):  # the second is as others write it
            got = decode_reply(again, WIRE)
            assert got.request_id == header.request_id == reply.request_id
            assert (got.queue_s, got.tail_s) == (header.queue_s, header.tail_s) == (reply.queue_s, reply.tail_s)
            assert got.refusal == reply.refusal
            assert [a.tobytes() for a in got.tensors] == [t.numpy().tobytes() for t in reply.tensors]
