"""Requests in pieces over a stream: the same answers, and a stream that breaks off in the middle harms nobody."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import torch

from splitinfer.errors import DeadlineError, RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess, EdgeServer, ServerSettings
from splitinfer.runtime import direct as direct_module
from splitinfer.runtime import server as server_module
from splitinfer.runtime.events import Event, Inferred, Refused
from splitinfer.runtime.lane import Lane
from splitinfer.runtime.transport import INFER, INFER_STREAM, WINDOW
from splitinfer.runtime.verify import check_answer
from splitinfer.wire import Request as WireRequest
from splitinfer.wire import Wire, WireLimits, encode_request, whole_message
from splitinfer.wire import splitinfer_pb2 as pb
from tests.runtime import small
from tests.runtime.waiting import wait_until

IN_PIECES = ClientSettings(pieces_from_bytes=2000, piece_bytes=1000, deadline_s=60)


@pytest.mark.parametrize("lane", ["direct", "public"])
def test_answers_are_the_same(
    edge: EdgeProcess, models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch, lane: str
) -> None:
    if lane == "public":
        monkeypatch.setattr("splitinfer.runtime.timed_lane.open_lane", Lane)
    split = models["branchy"]
    images = [torch.full((1, 3, 32, 32), float(i)) for i in range(3)]
    with EdgeClient(edge.address, IN_PIECES) as client:
        for k in range(split.num_cuts):  # long and short ones, on one stream
            for image in images:
                result = client.infer(split, k, image)
                check_answer(result.output, split(image), f"cut {k}")
        coded = client.infer(split, 0, images[1], codec="int8")
        assert 0 < coded.bytes_up < 4000
        whole = [r.output for r in client.stream(split, 0, images)]
    for image, output in zip(images, whole, strict=True):
        check_answer(output, split(image), "a stream's own requests stay whole")


def test_pieces_are_what_is_sent_and_only_where_they_are_taken(
    models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    split, image, sizes = models["plain"], torch.ones(1, 3, 32, 32), []

    def counted(first: bytes, others: Iterator[bytes], limits: WireLimits) -> memoryview | None:
        def seen(piece: bytes) -> bytes:
            sizes.append(len(pb.InferRequest.FromString(piece).piece))
            return piece

        return whole_message(seen(first), map(seen, others), limits)

    monkeypatch.setattr(server_module, "whole_message", counted)
    with EdgeServer([split]) as server:
        with EdgeClient(server.address, IN_PIECES) as client:
            up = client.infer(split, 0, image).bytes_up
            assert sum(sizes) == up > 12_288
            assert len(sizes) == -(-up // 1000)
            assert max(sizes) <= 1000
            assert max(sizes) - min(sizes) < len(sizes), "equally long but for the last"
        sizes.clear()
        with EdgeClient(server.address, IN_PIECES) as client:
            description = client.describe()
            assert description.takes_pieces
            client._exchange.agree(description.max_message_bytes, description.codecs)  # an older server
            check_answer(client.infer(split, 0, image).output, split(image), "whole")
        assert not sizes


def messages_of(split: SplitModel, piece_bytes: int) -> list[bytes]:
    content = encode_request(
        WireRequest(split.name, split.fingerprint, 0, (torch.ones(1, 3, 32, 32),), request_id=7), Wire(WireLimits())
    )
    parts = [content[at : at + piece_bytes] for at in range(0, len(content), piece_bytes)]
    sizes = [len(content)] + [0] * (len(parts) - 1)
    return [
        pb.InferRequest(whole_bytes=size, piece=part).SerializeToString()
        for size, part in zip(sizes, parts, strict=True)
    ]


def test_what_is_no_message_is_refused_and_the_stream_goes_on(models: dict[str, SplitModel]) -> None:
    split = models["plain"]
    good = messages_of(split, 5000)
    endless = pb.InferRequest(whole_bytes=1 << 40, piece=b"x").SerializeToString()
    limits = WireLimits(max_message_bytes=1 << 20)
    malformed, too_much = grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    told: list[Event] = []
    with (
        EdgeServer([split], ServerSettings(limits=limits), observer=told.append) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        ask = channel.stream_stream(INFER_STREAM)
        for messages, codes in [
            ([good[1]], [malformed]),
            ([good[1], *good[1:]], [malformed]),
            ([good[0], good[0], *good[1:]], [malformed]),
            ([good[0], b"\x0a\x00"], [malformed]),
            ([b" ", b"*", b"", b"*"], [malformed, grpc.StatusCode.UNIMPLEMENTED.value[0], malformed]),
            ([endless, *good[1:]], [too_much]),
            ([endless, endless], [too_much, too_much]),
        ]:
            replies = [pb.InferReply.FromString(reply).header for reply in ask(iter([*messages, *good]))]
            assert [reply.refusal.code for reply in replies] == [*codes, 0], messages
            assert replies[-1].request_id == 7
            assert sum(isinstance(event, Refused) for event in told) == len(codes)
            told.clear()
        assert list(ask(iter(good[:2]))) == [], "the stream ended before the message did"
        with pytest.raises(grpc.RpcError, match="in pieces has to come in a stream"):
            channel.unary_unary(INFER)(good[0])


def test_who_stops_in_the_middle_of_a_message_gives_its_place_to_others(models: dict[str, SplitModel]) -> None:
    split, image = models["plain"], torch.ones(1, 3, 32, 32)
    first = messages_of(split, 5000)[0]
    with (
        EdgeServer([split], ServerSettings(max_calls=2)) as server,
        grpc.insecure_channel(server.address) as channel,
        EdgeClient(server.address, IN_PIECES) as client,
    ):
        sending: list[queue.SimpleQueue[bytes]] = [queue.SimpleQueue() for _ in range(2)]
        calls = [channel.stream_stream(INFER_STREAM)(iter(each.get, None)) for each in sending]
        for each in sending:
            each.put(first)
        wait_until(lambda: server.open_calls == 2)
        check_answer(client.infer(split, 0, image).output, split(image), "beside two that say nothing more")
        for call in calls:
            call.cancel()
        for each in sending:
            each.put(b"")


def test_a_deadline_holds_for_pieces_too(models: dict[str, SplitModel]) -> None:
    small.release.clear()
    settings = ClientSettings(pieces_from_bytes=2000, piece_bytes=1000, deadline_s=0.3)
    image = torch.ones(1, 3, 32, 32)
    told: list[Inferred] = []
    with EdgeServer([models["waiting"]]) as server:
        with EdgeClient(server.address, settings) as client, pytest.raises(DeadlineError):
            client.infer(models["waiting"], 0, image)
        with EdgeClient(server.address, settings, observer=told.append) as client:  # type: ignore[arg-type]
            releasing = threading.Timer(0.0, small.release.set)
            releasing.start()
            check_answer(client.infer(models["waiting"], 0, image).output, models["waiting"](image), "after it")
            releasing.join()
    assert [(event.ran_at, event.retries) for event in told] == [("edge", 0)]


def test_the_tensors_of_a_long_request_are_sent_again_to_the_next_server(models: dict[str, SplitModel]) -> None:
    split, image = models["plain"], torch.ones(1, 3, 32, 32)
    with EdgeServer([split]) as first:
        port = int(first.address.rpartition(":")[2])
        client = EdgeClient(first.address, IN_PIECES)
        check_answer(client.infer(split, 0, image).output, split(image), "first server")
    with EdgeServer([split], ServerSettings(port=port)), client:
        check_answer(client.infer(split, 0, image).output, split(image), "second server")
    with pytest.raises(RemoteError):
        client.infer(split, 0, image)


def test_the_short_way_sends_one_piece_after_the_other(edge: EdgeProcess, models: dict[str, SplitModel]) -> None:
    with EdgeClient(edge.address, IN_PIECES) as client:
        client.infer(models["plain"], 0, torch.ones(1, 3, 32, 32))
        (lane,) = client._connection._free_lanes
        assert isinstance(lane._lane, direct_module.DirectLane)


def test_a_small_request_waits_for_the_last_piece_of_the_one_before(
    edge: EdgeProcess, models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    split, image = models["plain"], torch.ones(1, 3, 32, 32)
    at_once: list[str] = []
    operate = direct_module.DirectLane._operate

    def noted(lane: direct_module.DirectLane, operations: tuple[Any, ...], tag: str) -> None:
        if any(type(each).__name__ == "SendMessageOperation" for each in operations):
            at_once.extend(lane._due & {direct_module._SENDING})
        operate(lane, operations, tag)

    monkeypatch.setattr(direct_module.DirectLane, "_operate", noted)
    with EdgeClient(edge.address, IN_PIECES) as client:
        client.infer(split, 2, image)
        (timed,) = client._connection._free_lanes
        lane = timed._lane
        assert isinstance(lane, direct_module.DirectLane)
        # The core has the reply to a long request, and has yet to say that its last piece is sent.
        lane._operate((), direct_module._SENDING)
        check_answer(client.infer(split, 2, image).output, split(image), "a small one")
    assert not at_once, "the core refuses a message while another is being sent"


@pytest.mark.parametrize("window", ["1", "3"])
def test_a_stream_that_waits_for_its_client_holds_no_request(
    models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch, window: str
) -> None:
    held: list[weakref.ref[memoryview]] = []

    def noted(first: bytes, others: Iterator[bytes], limits: WireLimits) -> memoryview | None:
        whole = whole_message(first, others, limits)
        if whole is not None:
            held.append(weakref.ref(whole))
        return whole

    monkeypatch.setattr(server_module, "whole_message", noted)
    with EdgeServer([models["plain"]]) as server, grpc.insecure_channel(server.address) as channel:
        sending: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        replies = channel.stream_stream(INFER_STREAM)(iter(sending.get, None), metadata=((WINDOW, window),))
        for piece in messages_of(models["plain"], 5000):
            sending.put(piece)
        assert pb.InferReply.FromString(next(replies)).header.request_id == 7
        wait_until(lambda: held[0]() is None)
        sending.put(None)
        assert list(replies) == []


def test_an_edge_without_memory_for_a_message_keeps_what_happened_to_itself(
    models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(first: bytes, others: Iterator[bytes], limits: WireLimits) -> memoryview | None:
        raise MemoryError("secret detail")

    monkeypatch.setattr(server_module, "whole_message", out_of_memory)
    with EdgeServer([models["plain"]]) as server, EdgeClient(server.address, IN_PIECES) as client:
        with pytest.raises(RemoteError, match="internal error") as refused:
            client.infer(models["plain"], 0, torch.ones(1, 3, 32, 32))
        assert "secret" not in str(refused.value)


def test_who_leaves_in_the_middle_of_a_message_is_no_mistake_of_the_edge(
    models: dict[str, SplitModel], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = messages_of(models["plain"], 5000)[0]
    begun = threading.Event()

    def seen(first: bytes, others: Iterator[bytes], limits: WireLimits) -> memoryview | None:
        begun.set()
        with contextlib.suppress(grpc.RpcError):  # raised or not, by chance
            whole_message(first, others, limits)
        raise grpc.RpcError

    monkeypatch.setattr(server_module, "whole_message", seen)
    with EdgeServer([models["plain"]]) as server, grpc.insecure_channel(server.address) as channel:
        sending: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call = channel.stream_stream(INFER_STREAM)(iter(sending.get, None))
        sending.put(first)
        assert begun.wait(60)
        call.cancel()
        wait_until(lambda: server.open_calls == 0)
        sending.put(None)
    assert not [record for record in caplog.records if record.name.startswith("splitinfer")]
