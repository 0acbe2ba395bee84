from __future__ import annotations

import contextlib
import threading

import grpc
import pytest
import torch

from splitinfer.errors import DeadlineError, EdgeUnavailableError
from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess, EdgeServer, ServerSettings
from splitinfer.runtime import direct as direct_module
from splitinfer.runtime import exchange as exchange_module
from splitinfer.runtime.direct import DirectLane, RequestLane, open_lane
from splitinfer.runtime.lane import Lane
from splitinfer.runtime.timed_lane import TimedLane
from splitinfer.runtime.verify import check_answer
from splitinfer.wire import Reply, Wire
from tests.runtime import small


def test_the_installed_grpcio_has_the_short_way(edge: EdgeProcess) -> None:
    # Otherwise every request would be slower, and nothing else would tell.
    with grpc.insecure_channel(edge.address) as channel:
        lane = open_lane(channel, edge.address)
        assert isinstance(lane, DirectLane)
        lane.cancel()


def test_another_grpcio_falls_back_to_public_streams(
    edge: EdgeProcess, models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(channel: grpc.Channel, target: str) -> None:
        raise TypeError("segregated_call() takes 11 positional arguments")

    monkeypatch.setattr(direct_module, "DirectLane", refuse)
    image = torch.ones(1, 3, 32, 32)
    with EdgeClient(edge.address) as client:
        assert isinstance(open_lane(client._connection.channel(), edge.address), Lane)
        for k in range(models["branchy"].num_cuts):
            check_answer(client.infer(models["branchy"], k, image).output, models["branchy"](image), f"cut {k}")
    small.release.clear()
    with (
        EdgeServer([models["waiting"]]) as server,
        EdgeClient(server.address, ClientSettings(deadline_s=0.3)) as client,
        pytest.raises(DeadlineError),
    ):
        client.infer(models["waiting"], 0, image)
    small.release.set()


def test_a_lane_closed_while_idle_is_opened_again(models: dict[str, SplitModel]) -> None:
    image, split = torch.ones(1, 3, 32, 32), models["plain"]
    with EdgeServer([split]) as first:
        port = int(first.address.rpartition(":")[2])
        client = EdgeClient(first.address)
        check_answer(client.infer(split, 1, image).output, split(image), "first server")
    with EdgeServer([split], ServerSettings(port=port)), client:
        # The first server has closed the stream and another has taken its place; the caller need not know.
        check_answer(client.infer(split, 1, image).output, split(image), "second server")


def test_a_deadline_that_passes_while_a_lane_is_opened_again_holds(
    models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, split = torch.ones(1, 3, 32, 32), models["waiting"]
    small.release.set()
    with EdgeServer([split]) as first:
        port = int(first.address.rpartition(":")[2])
        client = EdgeClient(first.address, ClientSettings(retries=0))
        client.infer(split, 0, image)
    small.release.clear()
    opened = TimedLane._open

    def late(lane: TimedLane) -> RequestLane:
        lane._watchdog.disarm(lane)
        lane.expire()  # as the watchdog does, and finds no stream to end
        return opened(lane)

    monkeypatch.setattr(TimedLane, "_open", late)
    with EdgeServer([split], ServerSettings(port=port)), client, pytest.raises(DeadlineError):
        client.infer(split, 0, image)
    small.release.set()


def test_reading_is_rehearsed_while_an_answer_is_awaited(
    edge: EdgeProcess, models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    split, read = models["plain"], []
    decode = exchange_module.decode_reply

    def counted(data: bytes, wire: Wire) -> Reply:
        read.append(data)
        return decode(data, wire)

    monkeypatch.setattr(exchange_module, "decode_reply", counted)
    images = [torch.full((1, 3, 32, 32), float(i)) for i in range(3)]
    with EdgeClient(edge.address) as client:
        results = [client.infer(split, 1, image) for image in images]
    for image, result in zip(images, results, strict=True):
        check_answer(result.output, split(image), "the answer to this request, not to the one before")
    first, _, second, _, third = read
    assert read == [first, first, second, second, third]


def test_a_channel_that_another_thread_has_closed_is_a_lost_edge() -> None:
    channel = grpc.insecure_channel("127.0.0.1:1")
    channel.close()
    for open_stream in (open_lane, Lane):
        with pytest.raises(EdgeUnavailableError, match="lost the edge at edge:1"):
            open_stream(channel, "edge:1")


@pytest.mark.parametrize("during", ["_begin", "_finish"])
def test_a_call_cancelled_while_its_thread_is_busy_is_let_go(
    edge: EdgeProcess, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    # The core keeps a call, and with it the connection, until its last event is read.
    with grpc.insecure_channel(edge.address) as channel:
        lane = DirectLane(channel, edge.address)
        as_it_is = getattr(lane, during)

        def cancelled_at_its_end(*arguments: object) -> object:
            result = as_it_is(*arguments)
            lane.cancel()
            return result

        monkeypatch.setattr(lane, during, cancelled_at_its_end)
        lane.begin(b"")
        if during == "_finish":
            assert lane.finish()
        assert not lane._due


def test_an_interrupted_exchange_is_left_at_once(edge: EdgeProcess, models: dict[str, SplitModel]) -> None:
    with grpc.insecure_channel(edge.address) as channel:
        lane = DirectLane(channel, edge.address)

        call = lane._call

        class Interrupted:
            operate, cancel = call.operate, call.cancel

            def next_event(self) -> None:
                call.next_event()  # Ctrl-C comes when the core has handed over an event, and nobody has seen it
                raise KeyboardInterrupt

        lane._call = Interrupted()
        lane.begin(b"")
        with pytest.raises(KeyboardInterrupt):
            lane.finish()
        lane._call = call
        leaves = threading.Thread(target=lane.cancel, daemon=True)
        leaves.start()
        leaves.join(30)
        assert not leaves.is_alive()


@pytest.mark.parametrize("up_to_bytes", [0, 1 << 20])  # calls of their own, streams
def test_ctrl_c_inside_grpcio_leaves_the_connection_to_other_threads(
    edge: EdgeProcess, models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch, up_to_bytes: int
) -> None:
    split, image = models["plain"], torch.ones(1, 3, 32, 32)
    enter, to_come, me = threading.Condition.__enter__, [0], threading.get_ident()

    def interrupted(condition: threading.Condition) -> bool:
        held = enter(condition)
        if threading.get_ident() == me:
            to_come[0] -= 1
            if to_come[0] == 0:  # the lock is taken, and nothing is bound to release it yet
                raise KeyboardInterrupt
        return held

    settings = ClientSettings(stream_up_to_bytes=up_to_bytes, pieces_from_bytes=2000, piece_bytes=1000, deadline_s=60)
    with EdgeClient(edge.address, settings) as client:
        client.infer(split, 0, image)
        monkeypatch.setattr(threading.Condition, "__enter__", interrupted)
        for moment in range(1, 5):
            to_come[0] = moment
            with contextlib.suppress(KeyboardInterrupt):
                client.infer(split, 0, image)
            to_come[0] = 0
            outputs = answers_to_another_thread(client, split, image)
            check_answer(outputs[0], split(image), f"after the lock was taken {moment} times")


def answers_to_another_thread(client: EdgeClient, split: SplitModel, image: torch.Tensor) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []
    other = threading.Thread(target=lambda: outputs.append(client.infer(split, 0, image).output), daemon=True)
    other.start()
    other.join(60)
    return outputs
