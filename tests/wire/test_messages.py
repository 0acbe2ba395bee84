import pytest
import torch

from splitinfer.errors import InputError
from splitinfer.wire import (
    LimitError,
    Reply,
    Request,
    Wire,
    WireLimits,
    decode_reply,
    encode_reply,
    encode_request,
    open_request,
    unpack,
)
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.torch_tensors import to_torch

WIRE = Wire()


def test_a_request_comes_back_as_it_was_sent() -> None:
    sent = Request("resnet18", "ab" * 32, 7, (torch.randn(3, 4), torch.tensor([True, False])), request_id=2**63)
    header, payload = open_request(encode_request(sent, WIRE), WIRE)
    assert (header.model, header.fingerprint, header.cut) == (sent.model, sent.fingerprint, sent.cut)
    assert (header.request_id, header.protocol_version) == (sent.request_id, 1)
    received = unpack(header.tensors, payload, WIRE)
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
    header, payload = open_request(message.SerializeToString(), WIRE)
    (tensor,) = unpack(header.tensors, payload, WIRE)
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
    header, payload = open_request(b"", WIRE)
    assert header == pb.RequestHeader()
    assert len(payload) == 0
