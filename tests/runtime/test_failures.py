"""An edge that is gone, slow, busy or refuses: retries that compute once, fallback to the device, and its end."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import grpc
import pytest
import torch
from PIL import Image

from splitinfer.cli.main import main
from splitinfer.errors import DeadlineError, EdgeUnavailableError, InputError, ModelMismatchError, RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeServer, ModelId, ServerSettings
from splitinfer.runtime.events import Event, Repeated, TailServed
from splitinfer.runtime.once import Once
from splitinfer.runtime.perseverance import Attempts, Breaker
from splitinfer.runtime.statuses import error_of_status
from splitinfer.runtime.transport import INFER, INFER_STREAM, SENDER
from splitinfer.runtime.verify import check_answer
from splitinfer.wire import Request, Wire, decode_reply, encode_request
from tests.runtime import small

IMAGE = torch.ones(1, 3, 32, 32)
NOBODY = "127.0.0.1:1"
QUICK = ClientSettings(deadline_s=20, probe_s=0.01, longest_probe_s=0.01)


@pytest.fixture
def held() -> Iterator[None]:
    """The waiting model waits until the test is over, or says so."""
    small.entered.clear()
    small.release.clear()
    yield
    small.release.set()


def test_a_fallback_finishes_from_what_crosses_the_cut(
    models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = models["branchy"]
    whole = split(IMAGE)
    heads: list[int] = []
    run_head = SplitModel.run_head
    monkeypatch.setattr(SplitModel, "run_head", lambda self, k, *x: (heads.append(k), run_head(self, k, *x))[1])
    with EdgeClient(NOBODY, on_failure="fallback") as client:
        for k in range(split.num_cuts):
            heads.clear()
            result = client.infer(split, k, IMAGE)
            check_answer(result.output, whole, f"cut {k}")
            assert (result.ran_at, heads) == ("device", [k])
            assert isinstance(result.failure, EdgeUnavailableError)
        assert client.infer(split, split.num_cuts, IMAGE).failure is None
        with pytest.raises(EdgeUnavailableError):
            client.infer(split, 1, IMAGE, on_failure="fail")
        with pytest.raises(EdgeUnavailableError):
            client.run_tail(ModelId("elsewhere", "f"), 0, [IMAGE])  # there is no model here to fall back to
        results = list(client.stream(split, 1, [IMAGE] * 3))
        assert [result.ran_at for result in results] == ["device"] * 3
        for result in results:
            check_answer(result.output, split(IMAGE), "stream")

    async def ask() -> None:
        async with EdgeClient(NOBODY, on_failure="fallback") as edge:
            result = await edge.infer(split, 1, IMAGE)
            assert result.ran_at == "device"
            check_answer(result.output, split(IMAGE), "asyncio")
            assert [each.ran_at async for each in edge.stream(split, 1, [IMAGE] * 2)] == ["device"] * 2

    asyncio.run(ask())


def test_a_client_returns_to_an_edge_that_returns(models: dict[str, SplitModel]) -> None:
    split = models["plain"]
    with EdgeServer([split]) as server:
        port = int(server.address.rpartition(":")[2])
        client = EdgeClient(server.address, QUICK, on_failure="fallback")
        first = client.infer(split, 1, IMAGE)
        assert (first.ran_at, first.retries, first.failure) == ("edge", 0, None)
    with client:
        while not client._tasks.breaker.is_open:
            assert client.infer(split, 1, IMAGE).ran_at == "device"
        with EdgeServer([split], ServerSettings(port=port)):
            places = {client.infer(split, 1, IMAGE).ran_at for _ in range(200)}
            assert client.infer(split, 1, IMAGE).ran_at == "edge"
            assert "edge" in places
            assert [each.ran_at for each in client.stream(split, 1, [IMAGE] * 3)] == ["edge"] * 3


def test_whoever_waits_gets_the_answer_of_the_edge(models: dict[str, SplitModel]) -> None:
    split = models["plain"]
    with EdgeServer([split]) as server:
        port = int(server.address.rpartition(":")[2])
    with (
        EdgeClient(f"127.0.0.1:{port}", ClientSettings(retries=0), on_failure="wait") as client,
        ThreadPoolExecutor(1) as thread,
    ):
        waiting = thread.submit(client.infer, split, 1, IMAGE)
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        with EdgeServer([split], ServerSettings(port=port)):
            result = waiting.result(30)
    assert result.ran_at == "edge"
    assert result.retries > 0
    check_answer(result.output, split(IMAGE), "after waiting")


def test_closing_a_client_ends_its_waiting() -> None:
    client = EdgeClient(NOBODY, on_failure="wait")
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(client.run_tail, ModelId("plain", "f"), 0, [IMAGE])
        with pytest.raises(TimeoutError):
            asked.result(0.2)
        client.close()
        assert isinstance(asked.exception(20), EdgeUnavailableError)


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("stream_up_to_bytes", [0, 1 << 20])
def test_an_edge_past_the_deadline(models: dict[str, SplitModel], stream_up_to_bytes: int) -> None:
    split = models["waiting"]
    settings = ClientSettings(deadline_s=0.3, retries=0, stream_up_to_bytes=stream_up_to_bytes)
    with EdgeServer([split]) as server, EdgeClient(server.address, settings) as client:
        client.describe()
        with pytest.raises(DeadlineError):
            client.infer(split, 0, IMAGE)
        # The tail here would wait, too.
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(client.infer, split, 0, IMAGE, on_failure="fallback")
            with pytest.raises(TimeoutError):
                asked.result(0.4)
            small.release.set()
            result = asked.result(30)
        assert result.ran_at == "device"
        assert isinstance(result.failure, DeadlineError)


def test_a_refusal_falls_back_too(models: dict[str, SplitModel]) -> None:
    split = models["plain"]
    with EdgeServer([models["branchy"]]) as server, EdgeClient(server.address, on_failure="fallback") as client:
        result = client.infer(split, 1, IMAGE)
        assert result.ran_at == "device"
        assert isinstance(result.failure, RemoteError)
        assert result.failure.status == "NOT_FOUND"
        assert client.infer(models["branchy"], 1, IMAGE).ran_at == "edge"  # other services are not held up
        with pytest.raises(RemoteError, match="has no model"):
            client.infer(split, 1, IMAGE, on_failure="wait")  # waiting would not help


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("stream_up_to_bytes", [0, 1 << 20])
def test_a_repeated_try_joins_the_first(models: dict[str, SplitModel], stream_up_to_bytes: int) -> None:
    events: list[Event] = []
    split = models["waiting"]
    settings = ClientSettings(deadline_s=30, try_s=0.3, retries=50, stream_up_to_bytes=stream_up_to_bytes)
    with EdgeServer([split], observer=events.append) as server, EdgeClient(server.address, settings) as client:
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(client.infer, split, 0, IMAGE)
            with pytest.raises(TimeoutError):
                asked.result(1.0)
            small.release.set()
            result = asked.result(30)
        check_answer(result.output, split(IMAGE), "after tries that gave up")
        assert result.retries > 0
        assert result.ran_at == "edge"
    assert sum(isinstance(event, TailServed) for event in events) == 1
    assert any(isinstance(event, Repeated) for event in events)


def test_an_id_is_answered_once_and_for_its_sender_alone(models: dict[str, SplitModel]) -> None:
    split, events = models["plain"], []
    wire = Wire()

    def request(cut: int, tensors: list[torch.Tensor]) -> bytes:
        return encode_request(Request("plain", split.fingerprint, cut, tensors, 7), wire)

    data = request(0, [IMAGE])
    with EdgeServer([split], observer=events.append) as server, grpc.insecure_channel(server.address) as channel:
        infer = channel.unary_unary(INFER)
        answers = [infer(data, metadata=((SENDER, who),)) for who in ("a", "a", "b")]
        assert [type(event) for event in events] == [TailServed, Repeated, TailServed]
        assert answers[0] == answers[1]
        for answer in answers:
            assert torch.equal(torch.from_numpy(decode_reply(answer, wire).tensors[0].copy()), split(IMAGE))
        with pytest.raises(grpc.RpcError, match="another one"):
            infer(request(1, list(split.run_head(1, IMAGE))), metadata=((SENDER, "a"),))
        assert infer(data) != b""  # without a sender, ids mean nothing
        assert infer(data) != b""
        assert sum(isinstance(event, TailServed) for event in events) == 4


def test_kept_answers_are_bounded() -> None:
    once, runs = Once(max_bytes=10_000), []

    def ask(key: int, size: int) -> bytes:
        return once.answer(key, size, lambda: True, lambda wanted: (runs.append(key), bytes(size))[1])[0]

    for key in range(100):
        ask(key, 1000)
    runs.clear()
    ask(99, 1000)
    assert runs == []
    ask(0, 1000)
    assert runs == [0]
    ask(1000, 20_000)
    ask(1000, 20_000)
    assert runs == [0, 1000, 1000]
    assert once._bytes <= 10_000


def test_kept_answers_grow_old() -> None:
    now = [0.0]
    once = Once(1 << 20, keep_s=60.0, clock=lambda: now[0])
    ask = [once.answer(key, "", lambda: True, lambda wanted: bytes(100))[1] for key in (1, 1)]
    assert ask == [True, False]
    now[0] = 61.0
    once.answer(2, "", lambda: True, lambda wanted: b"")
    assert once.answer(1, "", lambda: True, lambda wanted: b"")[1]


def test_an_id_that_comes_again_on_a_stream_or_another_is_answered_once(models: dict[str, SplitModel]) -> None:
    split, events = models["plain"], list[Event]()
    tensors = split.run_head(1, IMAGE)
    first, second = (encode_request(Request("plain", split.fingerprint, 1, tensors, n), Wire()) for n in (5, 6))
    with EdgeServer([split], observer=events.append) as server, grpc.insecure_channel(server.address) as channel:
        stream = channel.stream_stream(INFER_STREAM)
        for asked in ([first, first, second, first], [second, first]):
            replies = list(stream(iter(asked), metadata=((SENDER, "ab" * 16),)))
            assert [decode_reply(reply, Wire()).request_id for reply in replies] == [
                5 + (one is second) for one in asked
            ]
            assert len({bytes(decode_reply(reply, Wire()).tensors[0].tobytes()) for reply in replies}) == 1
    assert [type(event) for event in events] == [TailServed, Repeated, TailServed, *[Repeated] * 3]


def test_many_with_one_id_compute_once() -> None:
    once, runs, begin = Once(max_bytes=1 << 20), [], threading.Event()

    def compute(wanted: object) -> bytes:
        runs.append(1)
        begin.wait(30)
        return b"answer"

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(once.answer, "id", "content", lambda: True, compute) for _ in range(8)]
        begin.set()
        wait(asked)
    assert {one.result()[0] for one in asked} == {b"answer"}
    assert sum(one.result()[1] for one in asked) == len(runs) == 1


def test_the_breaker_probes_at_jittered_times() -> None:
    now = [0.0]
    draws = iter([0.0, 1.0, 0.5, 0.5, 0.5])
    breaker = Breaker(2, 1.0, 8.0, clock=lambda: now[0], draw=lambda: next(draws))
    breaker.failed()
    assert breaker.admits()
    breaker.failed()  # opens; probes in 0.5 s
    assert breaker.is_open
    assert not breaker.admits()
    now[0] = 0.5
    assert breaker.admits()  # the probe
    assert not breaker.admits()  # one at a time, for 1.5 s
    breaker.failed()  # probes in 2 s
    now[0] = 2.4
    assert not breaker.admits()
    now[0] = 2.5
    assert breaker.admits()
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.admits()


@pytest.mark.usefixtures("held")
def test_a_busy_edge_says_when_to_ask_again(models: dict[str, SplitModel]) -> None:
    split = models["waiting"]
    settings = ServerSettings(max_calls=1, retry_after_s=0.2)
    alone = ClientSettings(retries=0, deadline_s=30)
    with EdgeServer([split], settings) as server, ThreadPoolExecutor(1) as thread:
        busy = EdgeClient(server.address, alone)
        with busy:
            asked = thread.submit(busy.infer, split, 0, IMAGE)
            assert small.entered.wait(30)
            for up_to in (0, 1 << 20):
                hasty = ClientSettings(retries=0, deadline_s=30, stream_up_to_bytes=up_to)
                with EdgeClient(server.address, hasty) as client, pytest.raises(RemoteError) as refused:
                    client.infer(split, 0, IMAGE)
                assert refused.value.status == "RESOURCE_EXHAUSTED"
                assert refused.value.retry_after_s == 0.2
            small.release.set()
            asked.result(30)


@pytest.mark.usefixtures("held")
def test_a_busy_edge_is_left_alone_for_as_long_as_it_asked(models: dict[str, SplitModel]) -> None:
    split, slow = models["plain"], models["waiting"]
    events: list[Event] = []
    settings = ServerSettings(parallel_tails=1, max_wait_s=1e-9, retry_after_s=30.0)
    once = ClientSettings(retries=0)
    with (
        EdgeServer([split, slow], settings, observer=events.append) as server,
        ThreadPoolExecutor(2) as threads,
        EdgeClient(server.address) as first,
        EdgeClient(server.address, once) as client,
    ):
        first.infer(split, 0, IMAGE)  # so that the edge knows how long a tail takes
        held = threads.submit(first.infer, slow, 0, IMAGE)
        assert small.entered.wait(30)
        waits = threads.submit(first.infer, slow, 0, IMAGE)
        while not server.waiting:
            time.sleep(0.001)
        with pytest.raises(RemoteError, match="requests that wait at this edge") as refused:
            client.infer(split, 0, IMAGE)
        assert refused.value.retry_after_s == 30.0
        with pytest.raises(RemoteError, match="asked to be left alone") as refused:
            client.infer(split, 0, IMAGE)
        assert refused.value.status == "RESOURCE_EXHAUSTED"
        assert refused.value.retry_after_s is not None
        assert 0 < refused.value.retry_after_s <= 45.0
        here = client.infer(split, 0, IMAGE, on_failure="fallback")
        assert here.ran_at == "device"
        assert torch.equal(here.output, split(IMAGE))
        assert [type(event).__name__ for event in events].count("Refused") == 1  # it was asked once
        with EdgeClient(server.address, once) as other:
            results = list(other.stream(split, 0, [IMAGE] * 2))
            assert [result.error.status for result in results if result.error] == ["RESOURCE_EXHAUSTED"] * 2
            assert [r.ran_at for r in other.stream(split, 0, [IMAGE], on_failure="fallback")] == ["device"]
        small.release.set()
        held.result(30)
        waits.result(30)


def test_the_time_that_a_busy_edge_asked_for_passes() -> None:
    now = [0.0]
    breaker = Breaker(2, 1.0, 8.0, clock=lambda: now[0], draw=lambda: 1.0)
    attempts = Attempts(ClientSettings(retries=3), "fail", breaker)
    attempts.check_busy()
    busy = RemoteError("no place", status="RESOURCE_EXHAUSTED", retry_after_s=2.0)
    assert attempts.failed(busy) == 3.0  # devices that were told the same come back one by one
    for later, left_s in ((1.0, 2.0), (2.5, 0.5)):
        now[0] = later
        with pytest.raises(RemoteError) as refused:
            attempts.check_busy()
        assert refused.value.retry_after_s == left_s
        assert attempts.failed(refused.value) >= left_s
        assert breaker.busy_s == left_s  # and not longer because of that
    now[0] = 3.0
    attempts.check_busy()
    breaker.refused(1e6)  # an edge may not send its devices away for good
    assert breaker.busy_s == 12.0


def test_wrong_words_are_refused(models: dict[str, SplitModel]) -> None:
    with pytest.raises(InputError, match="fail, fallback, wait"):
        EdgeClient(NOBODY, on_failure="retry")  # type: ignore[arg-type]
    with EdgeClient(NOBODY) as client, pytest.raises(InputError, match="fail, fallback, wait"):
        client.infer(models["plain"], 1, IMAGE, on_failure="never")  # type: ignore[arg-type]
    for wrong in ({"retries": -1}, {"try_s": 0.0}, {"breaker_failures": 0}, {"keepalive_s": 0.1}):
        with pytest.raises(InputError):
            ClientSettings(**wrong)


def test_infer_falls_back_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plain.toml").write_text(
        'source = "tests.runtime.small:plain"\n[[inputs]]\nshape = [3, 32, 32]\n[preprocessing]\nresize = 32\n'
    )
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "photo.png")
    command = ["infer", str(tmp_path / "plain.toml"), "--input", str(tmp_path / "photo.png"), "--cut", "1"]
    command += ["--server", NOBODY]
    assert main([*command, "--on-failure", "fallback", "--check", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ran_at"] == {"edge": 0, "device": 1}
    assert report["checked"] == 1
    assert "no edge server answers" in report["failure"] or "failed often" in report["failure"]
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("splitinfer: error: no edge server answers")
    assert main([*command, "--on-failure", "pray"]) == 2
    assert "fail, fallback, wait" in capsys.readouterr().err


def test_a_mismatch_falls_back_with_its_reason(models: dict[str, SplitModel]) -> None:
    other = SplitModel.capture(small.plain().eval(), (IMAGE,), name="plain")
    with EdgeServer([other]) as server, EdgeClient(server.address, on_failure="fallback") as client:
        for result in (client.infer(models["plain"], 1, IMAGE), *client.stream(models["plain"], 1, [IMAGE] * 2)):
            assert result.ran_at == "device"
            assert isinstance(result.failure, ModelMismatchError)
            check_answer(result.output, models["plain"](IMAGE), "the device's own model")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.UNKNOWN, "Stream removed (Unwrap failed (TSI_DATA_CORRUPTED))"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.CANCELLED, "CANCELLED"),
    ],
)
def test_a_connection_that_broke_is_tried_again_whatever_grpc_calls_it(code: grpc.StatusCode, said: str) -> None:
    assert isinstance(error_of_status(code.value[0], said, "edge:1"), EdgeUnavailableError)


def test_a_bug_of_the_server_is_no_broken_connection() -> None:
    for code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL):
        error = error_of_status(code.value[0], "internal error 12; the server's log has the details", "edge:1")
        assert not isinstance(error, EdgeUnavailableError)
        assert error.status == code.name


def test_a_server_of_another_kind_is_named() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with EdgeClient(f"127.0.0.1:{port}") as client, pytest.raises(RemoteError, match="ask a splitinfer serve, device"):
        client.describe()
    server.stop(None)
