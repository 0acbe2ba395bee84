"""Clients that hold calls open and say nothing, connections that come and go, and both clients' streams."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from splitinfer.errors import RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeServer, ServerSettings
from splitinfer.runtime.transport import DESCRIBE, INFER, INFER_STREAM
from splitinfer.runtime.verify import check_answer
from tests.runtime import small

PLACES = 4
IMAGE = torch.ones(1, 3, 32, 32)


@pytest.fixture
def server(models: dict[str, SplitModel]) -> Iterator[EdgeServer]:
    small.entered.clear()
    small.release.clear()
    with EdgeServer([models["plain"], models["waiting"]], ServerSettings(max_calls=PLACES)) as server:
        yield server
        small.release.set()


class Silent:
    """Calls that are opened with nothing but headers."""

    def __init__(self, address: str) -> None:
        self._ends: list[threading.Event] = []
        self._calls: list[grpc.Call] = []
        self._channels: list[grpc.Channel] = []
        self._address = address

    def open(self, method: str, number: int, *, channels: int) -> None:
        shared = [grpc.insecure_channel(self._address) for _ in range(channels)]
        self._channels += shared
        for index in range(number):
            end = threading.Event()
            self._ends.append(end)

            def nothing(end: threading.Event = end) -> Iterator[bytes]:
                end.wait(60)
                yield from ()

            self._calls.append(shared[index % channels].stream_stream(method)(nothing()))

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        for end in self._ends:
            end.set()


@pytest.fixture
def silent(server: EdgeServer) -> Iterator[Silent]:
    silent = Silent(server.address)
    yield silent
    silent.close()


@pytest.mark.parametrize("method", [INFER, INFER_STREAM])
@pytest.mark.parametrize("channels", [1, 20])
def test_silent_calls_keep_nobody_out(
    server: EdgeServer, silent: Silent, models: dict[str, SplitModel], method: str, channels: int
) -> None:
    silent.open(method, 5 * PLACES, channels=channels)
    for stream_up_to_bytes in (0, 1 << 20):
        settings = ClientSettings(deadline_s=60, stream_up_to_bytes=stream_up_to_bytes)
        with EdgeClient(server.address, settings) as client:
            for _ in range(3):
                check_answer(client.infer(models["plain"], 1, IMAGE).output, models["plain"](IMAGE), "beside them")
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert (
            health.Check(health_pb2.HealthCheckRequest(), timeout=60).status == health_pb2.HealthCheckResponse.SERVING
        )


HEALTH, REFLECTION = "/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@pytest.mark.parametrize("method", [DESCRIBE, f"{HEALTH}Check", f"{HEALTH}Watch", REFLECTION])
@pytest.mark.parametrize("said", [None, b""], ids=["headers", "a message"])
def test_calls_of_any_method_that_stay_open_keep_nobody_out(
    server: EdgeServer, models: dict[str, SplitModel], method: str, said: bytes | None
) -> None:
    end = threading.Event()

    def little() -> Iterator[bytes]:
        if said is not None:
            yield said
        end.wait(60)

    with grpc.insecure_channel(server.address) as many, grpc.insecure_channel(server.address) as channel:
        calls = [many.stream_stream(method)(little()) for _ in range(300)]  # more than gRPC takes at once
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(3):
            status = health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60).status
            assert status == health_pb2.HealthCheckResponse.SERVING
            with EdgeClient(server.address, ClientSettings(deadline_s=60)) as client:
                check_answer(client.infer(models["plain"], 1, IMAGE).output, models["plain"](IMAGE), "beside them")
        end.set()
        for call in calls:
            call.cancel()


def test_who_watches_over_nothing_is_told_so_and_forgotten(server: EdgeServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        for name in map(str, range(20)):
            (told,) = watch(health_pb2.HealthCheckRequest(service=name), timeout=60)
            assert told.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        told = next(watch(health_pb2.HealthCheckRequest(), timeout=60))
        assert told.status == health_pb2.HealthCheckResponse.SERVING


def test_more_idle_clients_than_places_go_on_working(server: EdgeServer, models: dict[str, SplitModel]) -> None:
    clients = [EdgeClient(server.address, ClientSettings(deadline_s=60)) for _ in range(3 * PLACES)]
    for _ in range(2):  # the second time most find their stream closed, and open another
        for client in clients:
            check_answer(client.infer(models["plain"], 1, IMAGE).output, models["plain"](IMAGE), "idle")
    for client in clients:
        client.close()


def test_a_busy_edge_refuses_and_stays_healthy(server: EdgeServer, models: dict[str, SplitModel]) -> None:
    answers: list[object] = []
    with EdgeClient(server.address, ClientSettings(deadline_s=60, stream_up_to_bytes=0)) as client:
        work: Callable[[], None] = lambda: answers.append(client.infer(models["waiting"], 0, IMAGE).output)  # noqa: E731
        threads = [threading.Thread(target=work) for _ in range(PLACES)]
        client.describe()
        for thread in threads:
            thread.start()
        refused = None
        while refused is None:  # until all have arrived
            try:
                with EdgeClient(server.address, ClientSettings(deadline_s=60)) as late:
                    late.describe()
                    if small.entered.wait(60):
                        late.infer(models["plain"], 1, IMAGE)
            except RemoteError as error:
                refused = error
        assert refused.status == "RESOURCE_EXHAUSTED"
        assert f"all {PLACES} calls" in str(refused)
        with grpc.insecure_channel(server.address) as channel:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        small.release.set()
        for thread in threads:
            thread.join()
    assert len(answers) == PLACES


def test_silence_ends_a_call(models: dict[str, SplitModel]) -> None:
    with (
        EdgeServer([models["plain"]], ServerSettings(idle_s=0.05)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        never = threading.Event()
        call = channel.stream_stream(INFER_STREAM)(iter(lambda: never.wait(60) or b"", b""))
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
        assert ended.value.code() is grpc.StatusCode.CANCELLED
        never.set()


def _descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open descriptors in /proc")
def test_closed_clients_leave_no_connection(server: EdgeServer, models: dict[str, SplitModel]) -> None:
    def visit() -> None:
        with EdgeClient(server.address, ClientSettings(deadline_s=60)) as client:
            client.infer(models["plain"], 1, IMAGE)

    for _ in range(5):
        visit()
    before = _descriptors()
    for _ in range(60):
        visit()
    # Both ends live here. A connection that is just being closed may still be there.
    assert _descriptors() <= before + 10


def test_a_task_closes_its_own_client(server: EdgeServer, models: dict[str, SplitModel]) -> None:
    async def run() -> None:
        shared = EdgeClient(server.address, ClientSettings(deadline_s=60))
        first_is_in, second_is_out = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            async with shared as client:
                first_is_in.set()
                await second_is_out.wait()
                check_answer((await client.infer(models["plain"], 1, IMAGE)).output, models["plain"](IMAGE), "first")

        async def second() -> None:
            await first_is_in.wait()
            async with shared as outer, shared as inner:
                assert outer is not inner
                await inner.infer(models["plain"], 1, IMAGE)
            second_is_out.set()

        async def third() -> None:
            async with shared as client:
                await second_is_out.wait()
                await client.infer(models["plain"], 0, IMAGE)

        await asyncio.gather(first(), second(), third())

    asyncio.run(run())


def test_both_clients_streams_go_on_after_a_refusal(server: EdgeServer, models: dict[str, SplitModel]) -> None:
    stranger = SplitModel.capture(small.plain().eval(), (IMAGE,), name="waiting")  # not the weights that the edge holds
    settings = ClientSettings(deadline_s=60)

    def kinds(results: list[object]) -> list[str]:
        return [type(result.error).__name__ for result in results]  # type: ignore[attr-defined]

    async def asynchronous() -> list[object]:
        async with EdgeClient(server.address, settings) as client:
            client._exchange.introduce = lambda description: None  # the server, not the client, is to refuse
            client._exchange._check_model = lambda *_: None
            return [result async for result in client.stream(stranger, 1, [IMAGE] * 4)]

    with EdgeClient(server.address, settings) as client:
        client._exchange._check_model = lambda *_: None  # type: ignore[method-assign]
        synchronous = list(client.stream(stranger, 1, [IMAGE] * 4))
    assert kinds(synchronous) == ["ModelMismatchError"] * 4
    assert kinds(asyncio.run(asynchronous())) == kinds(synchronous)
