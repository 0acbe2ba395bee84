"""Long messages in pieces: whatever the pieces, the same message; and nothing else is taken for one."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.errors import InputError
from splitinfer.wire import (
    InPieces,
    LimitError,
    LongMessage,
    Request,
    Wire,
    WireLimits,
    encode_request,
    is_piece,
    open_request,
    request_writer,
    whole_message,
)
from splitinfer.wire import splitinfer_pb2 as pb

LIMITS = WireLimits(max_message_bytes=1 << 20)


@given(buffers=st.lists(st.binary(max_size=90), min_size=1, max_size=5), piece_bytes=st.integers(1, 200))
@settings(derandomize=True, deadline=None)
def test_pieces_make_the_message_that_they_were(buffers: list[bytes], piece_bytes: int) -> None:
    content = b"".join(buffers)
    message = LongMessage(buffers, len(content), piece_bytes)
    assert bytes(message) == content
    assert len(message) == len(content)
    pieces = list(message.pieces())
    if not content:
        assert not pieces
        return
    assert all(map(is_piece, pieces))
    read = [pb.InferRequest.FromString(piece) for piece in pieces]
    assert b"".join(each.piece for each in read) == content
    assert [each.whole_bytes for each in read] == [len(content)] + [0] * (len(pieces) - 1)
    lengths = [len(each.piece) for each in read]
    assert len(lengths) == -(-len(content) // piece_bytes)
    assert max(lengths) <= piece_bytes
    assert set(lengths[:-1]) <= {lengths[0]}
    assert 0 <= lengths[0] - lengths[-1] < len(lengths)
    others = iter([*pieces[1:], b"the next request"])
    whole = whole_message(pieces[0], others, LIMITS)
    assert whole == content
    assert next(others) == b"the next request"
    # What protobuf itself writes is read as well.
    again = [each.SerializeToString() for each in read]
    assert whole_message(again[0], again[1:], LIMITS) == content


@given(shapes=st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=4), piece_bytes=st.integers(1, 300))
@settings(derandomize=True, deadline=None, max_examples=50)
def test_a_request_in_pieces_reads_as_the_whole_one(shapes: list[tuple[int, ...]], piece_bytes: int) -> None:
    random = np.random.default_rng(0)
    tensors = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    wire = Wire(LIMITS)
    expected = encode_request(Request("m", "f", 1, tensors, request_id=300), wire)
    writer = request_writer("m", "f", 1, wire)
    for _ in range(2):  # the first describes its tensors, the second knows them
        message = writer.write(tensors, 300, b"", InPieces(1, piece_bytes))
        assert isinstance(message, LongMessage)
        assert bytes(message) == expected
        first, *others = message.pieces()
        whole = whole_message(first, others, LIMITS)
        assert whole is not None
        for _ in range(2):
            opened = open_request(whole, wire)
            assert (opened.request_id, opened.head.model, opened.head.cut) == (300, "m", 1)
            for mine, theirs in zip(opened.arrays(), tensors, strict=True):
                assert np.array_equal(mine, theirs)
                assert not mine.size or (mine.flags.aligned and not mine.flags.writeable)


def piece(content: bytes, whole_bytes: int = 0) -> bytes:
    return pb.InferRequest(whole_bytes=whole_bytes, piece=content).SerializeToString()


def test_what_makes_no_message_is_refused() -> None:
    for first, others, words in [
        (piece(b"abc"), [], "a piece of nothing"),
        (piece(b"abc", 2), [], "a piece of 3 bytes where 2 are left"),
        (piece(b"abc", 5), [piece(b"def")], "a piece of 3 bytes where 2 are left"),
        (piece(b"abc", 5), [piece(b"de", 5)], "begins before the one before has ended"),
        (piece(b"abc", 5), [b"\x2a\x00"], "a piece of 0 bytes"),
        (piece(b"abc", 5), [b""], "ends before its last piece"),
        (piece(b"abc", 5), [pb.InferRequest(payload=b"de").SerializeToString()], "ends before its last piece"),
        (piece(b"abc", 5)[:-1], [], "claims 3 bytes and has 2"),
        (piece(b"abc", 5) + b"x", [], "claims 3 bytes and has 4"),
        (pb.InferRequest(whole_bytes=5).SerializeToString(), [], "ends before its last piece"),
        (b"\x20" + b"\xff" * 11, [], "more than ten bytes"),
    ]:
        with pytest.raises(InputError, match=words):
            whole_message(first, others, LIMITS)
    with pytest.raises(LimitError, match="max_message_bytes is 1048576"):
        whole_message(piece(b"abc", 1 << 62), [], LIMITS)
    assert whole_message(piece(b"abc", 5), [], LIMITS) is None


@given(st.lists(st.one_of(st.binary(max_size=40), st.builds(piece, st.binary(max_size=20), st.integers(0, 60)))))
@settings(derandomize=True, deadline=None)
def test_any_messages_end_in_a_whole_one_or_in_one_line(messages: list[bytes]) -> None:
    for index, first in enumerate(messages):
        if is_piece(first):
            with suppress(InputError):
                whole = whole_message(first, messages[index + 1 :], LIMITS)
                assert whole is None or len(whole) <= 60
