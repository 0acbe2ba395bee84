"""Our bytes against protobuf's own parser, and protobuf's own bytes against our reader."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.errors import InputError
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.envelope import PAYLOAD_ALIGNMENT, PAYLOAD_REMAINDER, read_envelope, write_envelope
from splitinfer.wire.limits import LimitError

HEADER_LIMIT = 1 << 16

headers = st.builds(
    pb.RequestHeader,
    protocol_version=st.integers(0, 2**32 - 1),
    request_id=st.integers(0, 2**64 - 1),
    model=st.text(max_size=300),
    cut=st.integers(0, 300),
)


@given(header=headers, parts=st.lists(st.binary(max_size=200), max_size=4))
@settings(derandomize=True, deadline=None)
def test_protobuf_reads_what_we_write(header: pb.RequestHeader, parts: list[bytes]) -> None:
    payload = b"".join(parts)
    data = write_envelope(header.SerializeToString(), [memoryview(part) for part in parts], len(payload))
    message = pb.InferRequest.FromString(data)
    assert message.header == header
    assert message.payload == payload
    assert not message.padding.strip(b"\0")
    if payload:
        assert data.endswith(payload)
        assert (len(data) - len(payload)) % PAYLOAD_ALIGNMENT == PAYLOAD_REMAINDER


@given(header=headers, padding=st.binary(max_size=70), payload=st.binary(max_size=200))
@settings(derandomize=True, deadline=None)
def test_we_read_what_protobuf_writes(header: pb.RequestHeader, padding: bytes, payload: bytes) -> None:
    data = pb.InferRequest(header=header, padding=padding, payload=payload).SerializeToString()
    serialized, view, _ = read_envelope(data, max_header_bytes=HEADER_LIMIT)
    assert pb.RequestHeader.FromString(serialized) == header
    assert view == payload


def test_fields_may_come_in_any_order_in_parts_and_among_unknown_ones() -> None:
    first = pb.InferRequest(header=pb.RequestHeader(model="a", cut=3), payload=b"old").SerializeToString()
    second = pb.InferRequest(header=pb.RequestHeader(model="b")).SerializeToString()
    payload = pb.InferRequest(payload=b"new").SerializeToString()
    unknown = bytes([15 << 3, 0x85, 1]) + bytes([14 << 3 | 1]) + bytes(8) + bytes([13 << 3 | 5]) + bytes(4)
    data = payload + first + unknown + second + payload
    serialized, view, _ = read_envelope(data, max_header_bytes=HEADER_LIMIT)
    expected = pb.InferRequest.FromString(data)
    assert pb.RequestHeader.FromString(serialized) == expected.header
    assert (expected.header.model, expected.header.cut) == ("b", 3)
    assert view == expected.payload == b"new"


@pytest.mark.parametrize("field", [1, 2, 3, 15], ids=["header", "padding", "payload", "unknown"])
@pytest.mark.parametrize("kind", [0, 2], ids=["number", "bytes"])
def test_empty_fields_are_counted(field: int, kind: int) -> None:
    empty = bytes([field << 3 | kind, 0])
    assert read_envelope(empty * 7, max_header_bytes=HEADER_LIMIT, max_fields=7)[:2] == (b"", b"")
    for many in (8, 1 << 22):  # the number that is left does not matter: reading stops at the limit
        with pytest.raises(LimitError, match="max_fields is 7"):
            read_envelope(empty * many, max_header_bytes=HEADER_LIMIT, max_fields=7)


# Random bytes rarely are messages, so some are cut from, or changed in, a real one.
_REAL = write_envelope(pb.RequestHeader(model="resnet18", cut=3).SerializeToString(), [b"x" * 40], 40)
mutated = st.builds(
    lambda at, byte, stop: _REAL[:at] + byte + _REAL[at + 1 : stop],
    st.integers(0, len(_REAL)),
    st.binary(max_size=3),
    st.integers(0, len(_REAL)),
)


def read(data: bytes) -> tuple[pb.RequestHeader, bytes]:
    serialized, view, _ = read_envelope(data, max_header_bytes=HEADER_LIMIT)
    return pb.RequestHeader.FromString(serialized), bytes(view)


@given(data=st.one_of(st.binary(max_size=60), mutated))
@settings(derandomize=True, deadline=None, max_examples=2000)
def test_we_accept_what_protobuf_accepts_and_read_the_same(data: bytes) -> None:
    try:
        expected = pb.InferRequest.FromString(data)
    except DecodeError:
        with pytest.raises((InputError, DecodeError)):
            read(data)
        return
    try:
        received = read(data)
    except InputError as error:
        # Groups, gone from protobuf since 2008, are the one thing that is refused.
        if "wire type 3" not in str(error):
            raise
        return
    assert received == (expected.header, expected.payload)


def test_a_large_header_is_refused_before_it_is_parsed() -> None:
    data = write_envelope(b"\0" * 101, [], 0)
    with pytest.raises(LimitError, match="max_header_bytes is 100"):
        read_envelope(data, max_header_bytes=100)


def test_the_payload_is_not_copied() -> None:
    data = write_envelope(b"", [b"abc"], 3)
    _, view, _ = read_envelope(data, max_header_bytes=HEADER_LIMIT)
    assert view.obj is data
