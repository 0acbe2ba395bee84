"""Heads here, tails in a server process with another number of threads."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from splitinfer.errors import (
    DeadlineError,
    EdgeUnavailableError,
    InputError,
    ModelMismatchError,
    RemoteError,
)
from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess, EdgeServer, ServerSettings
from splitinfer.runtime.loading import capture_card
from splitinfer.runtime.verify import check_answer
from splitinfer.wire import WireLimits
from tests.runtime import small

ANSWERING = ("plain", "branchy")


def picture(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.parametrize("stream_up_to_bytes", [0, 1 << 30])
def test_every_cut_gives_the_whole_models_bits(
    edge: EdgeProcess, models: dict[str, SplitModel], name: str, stream_up_to_bytes: int
) -> None:
    split = models[name]
    whole = split(picture())
    with EdgeClient(edge.address, ClientSettings(stream_up_to_bytes=stream_up_to_bytes)) as client:
        for k in range(split.num_cuts + 1):
            result = client.infer(split, k, picture())
            check_answer(result.output, whole, f"cut {k}")
            timing = result.timing
            parts = (
                timing.head_s,
                timing.encode_s,
                timing.wire_s,
                timing.queue_s,
                timing.tail_s,
                timing.decode_s,
            )
            assert all(part >= 0 for part in parts)
            assert timing.total_s == pytest.approx(sum(parts))
            crossing = sum(spec.bits for spec in split.cuts[k].crossing) // 8
            if k < split.num_cuts:
                assert result.bytes_up > 0
                assert result.bytes_up <= crossing + 2048
            else:
                assert (result.bytes_up, result.bytes_down, timing.wire_s) == (0, 0, 0.0)


def test_the_last_cut_needs_no_server(models: dict[str, SplitModel]) -> None:
    split = models["plain"]
    with EdgeClient("127.0.0.1:1") as client:
        check_answer(client.infer(split, split.num_cuts, picture()).output, split(picture()), "K")
        with pytest.raises(InputError, match="no tail"):
            client.run_tail(split, split.num_cuts, ())


def test_cuts_go_by_name_and_tails_alone(client: EdgeClient, models: dict[str, SplitModel]) -> None:
    split = models["branchy"]
    k = split.find_cut("left")
    assert client.infer(split, "left", picture()).cut == k
    tensors = split.run_head(k, picture())
    for _ in range(2):  # a retry gives the same answer
        check_answer(client.run_tail(split, k, tensors).output, split(picture()), "retry")


def test_a_stream_answers_in_order(client: EdgeClient, models: dict[str, SplitModel]) -> None:
    split = models["branchy"]
    for window in (1, 2, 5):
        results = list(client.stream(split, 2, (picture(i) for i in range(7)), window=window))
        assert len(results) == 7
        for i, result in enumerate(results):
            check_answer(result.output, split(picture(i)), f"request {i}")


def test_a_stream_may_be_left_early_and_ends_on_wrong_inputs(client: EdgeClient, models: dict[str, SplitModel]) -> None:
    split = models["plain"]
    stream = client.stream(split, 1, (picture(i) for i in range(100)))
    check_answer(next(stream).output, split(picture(0)), "first")
    stream.close()
    with pytest.raises(InputError, match="window"):
        client.stream(split, 1, [], window=0)
    with pytest.raises(InputError, match="float32"):
        list(client.stream(split, 1, [picture(), picture().double()]))
    check_answer(client.infer(split, 1, picture()).output, split(picture()), "after")


def same_tensors(ours: Iterable[object], theirs: Iterable[object]) -> bool:
    """Whether shapes and dtypes agree, which both ends write alike but keep in types of their own."""
    return list(map(str, ours)) == list(map(str, theirs))


def test_describe_tells_models_cuts_and_limits(client: EdgeClient, models: dict[str, SplitModel]) -> None:
    description = client.describe()
    assert set(description.models) == set(models)
    assert description.max_message_bytes == WireLimits().max_message_bytes
    for name, split in models.items():
        held = description.models[name]
        assert held.fingerprint == split.fingerprint
        assert held.num_cuts == split.num_cuts
        assert same_tensors(held.inputs, split.inputs)
        assert same_tensors(held.outputs, split.outputs)
        for ours, theirs in zip(split.cuts, held.cuts, strict=True):
            assert (ours.index, ours.name, ours.macs_before) == (theirs.index, theirs.name, theirs.macs_before)
            assert same_tensors(ours.crossing, theirs.crossing)


def test_eight_clients_with_mixed_models_and_cuts(edge: EdgeProcess, models: dict[str, SplitModel]) -> None:
    failures: list[BaseException] = []
    shared = EdgeClient(edge.address)

    def work(number: int) -> None:
        try:
            # Half of the clients share one connection, the others have their own.
            client = shared if number % 2 else EdgeClient(edge.address)
            for i in range(12):
                split = models[ANSWERING[(number + i) % 2]]
                image = picture(100 * number + i)
                result = client.infer(split, (number + i) % (split.num_cuts + 1), image)
                check_answer(result.output, split(image), f"client {number} request {i}")
            if client is not shared:
                client.close()
        except BaseException as error:  # noqa: BLE001 - a thread's failure must fail the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.close()
    assert not failures


def test_asyncio(edge: EdgeProcess, models: dict[str, SplitModel]) -> None:
    async def run() -> None:
        split = models["branchy"]
        async with EdgeClient(edge.address) as client:
            assert "branchy" in (await client.describe()).models
            cuts = range(split.num_cuts + 1)
            results = await asyncio.gather(*(client.infer(split, k, picture(k)) for k in cuts))
            for k, result in zip(cuts, results, strict=True):
                check_answer(result.output, split(picture(k)), f"cut {k}")
            seen = [result.output async for result in client.stream(split, 1, [picture(i) for i in range(5)])]
            for i, output in enumerate(seen):
                check_answer(output, split(picture(i)), f"request {i}")
            assert len(seen) == 5
            other = SplitModel.capture(small.plain(), (picture(),), name="other")
            with pytest.raises(RemoteError, match="no model 'other'"):
                await client.infer(other, 0, picture())
        async with EdgeClient("127.0.0.1:1") as nobody:
            with pytest.raises(EdgeUnavailableError):
                await nobody.infer(models["plain"], 0, picture())

    asyncio.run(run())


def test_another_model_or_other_weights_are_refused(
    client: EdgeClient, cards: dict[str, Path], models: dict[str, SplitModel]
) -> None:
    trained = SplitModel.capture(small.plain(), (picture(),), name="plain")
    with pytest.raises(ModelMismatchError, match="another plain") as mismatch:
        client.infer(trained, 1, picture())
    assert mismatch.value.status == "FAILED_PRECONDITION"
    unfolded = SplitModel.capture(small.Branchy().eval(), (picture(),), name="branchy", optimize=False)
    with pytest.raises(ModelMismatchError):
        client.infer(unfolded, 1, picture())
    with pytest.raises(RemoteError, match="no model 'nowhere'; it has plain") as unknown:
        client.infer(SplitModel.capture(small.plain(), (picture(),), name="nowhere"), 1, picture())
    assert unknown.value.status == "NOT_FOUND"


def test_a_bug_on_the_server_stays_there(client: EdgeClient, models: dict[str, SplitModel]) -> None:
    with pytest.raises(RemoteError, match=r"internal error [0-9a-f]{8}") as failure:
        client.infer(models["broken"], 0, picture())
    assert failure.value.status == "INTERNAL"
    assert "secret" not in str(failure.value)


def test_a_message_over_the_servers_limit_is_not_sent(edge: EdgeProcess, models: dict[str, SplitModel]) -> None:
    with EdgeClient(edge.address) as client, pytest.raises(InputError, match="max_message_bytes"):
        client.infer(models["fat"], 1, picture())
    wide = ClientSettings(limits=WireLimits(max_message_bytes=80 << 20, max_tensor_bytes=80 << 20))
    with EdgeClient(edge.address, wide) as client, pytest.raises(InputError, match="the edge takes at most 67108864"):
        client.infer(models["fat"], 1, picture())


def test_a_feature_map_of_64_mib_with_raised_limits(models: dict[str, SplitModel]) -> None:
    limits = WireLimits(max_message_bytes=65 << 20, max_tensor_bytes=64 << 20)
    split = models["fat"]
    with (
        EdgeServer([split], ServerSettings(limits=limits)) as server,
        EdgeClient(server.address, ClientSettings(limits=limits)) as client,
    ):
        result = client.infer(split, 1, picture())
        check_answer(result.output, split(picture()), "64 MiB")
        assert result.bytes_up > 64 << 20


def test_a_server_killed_in_the_middle_of_requests(cards: dict[str, Path], models: dict[str, SplitModel]) -> None:
    split = models["waiting"]
    failures: dict[str, RemoteError] = {}
    with EdgeProcess([str(cards["waiting"])], ServerSettings(parallel_tails=3)) as edge, ExitStack() as stack:

        def connect(stream_up_to_bytes: int) -> EdgeClient:
            client = EdgeClient(edge.address, ClientSettings(stream_up_to_bytes=stream_up_to_bytes))
            client.describe()
            return stack.enter_context(client)

        calling, lane = connect(0), connect(1 << 20)
        requests: dict[str, Callable[[], object]] = {
            "call": lambda: calling.infer(split, 0, picture()),
            "lane": lambda: lane.infer(split, 0, picture()),
            "stream": lambda: list(lane.stream(split, 0, [picture()] * 2)),
        }

        def work(name: str) -> None:
            try:
                requests[name]()
            except RemoteError as error:
                failures[name] = error

        threads = [threading.Thread(target=work, args=(name,)) for name in requests]
        for thread in threads:
            thread.start()
        threads[0].join(0.5)  # tails take 30 s there, so that all three are under way for long
        edge.kill()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
        assert {name: type(error) for name, error in failures.items()} == dict.fromkeys(requests, EdgeUnavailableError)
        with pytest.raises(EdgeUnavailableError, match="no edge server answers"):
            lane.infer(split, 0, picture())
        # Another server takes its place, and the same client finds it.
        port = int(edge.address.rpartition(":")[2])
        with EdgeServer([models["plain"]], ServerSettings(port=port)):
            result = lane.infer(models["plain"], 1, picture())
            check_answer(result.output, models["plain"](picture()), "after")


@pytest.fixture
def waiting_server(models: dict[str, SplitModel]) -> Iterator[EdgeServer]:
    small.entered.clear()
    small.release.clear()
    with EdgeServer([models["waiting"], models["plain"]], ServerSettings(parallel_tails=2)) as server:
        yield server
        small.release.set()


@pytest.mark.parametrize("stream_up_to_bytes", [0, 1 << 20])
def test_deadlines_hold_and_the_client_goes_on(
    waiting_server: EdgeServer, models: dict[str, SplitModel], stream_up_to_bytes: int
) -> None:
    settings = ClientSettings(deadline_s=0.5, stream_up_to_bytes=stream_up_to_bytes)
    with EdgeClient(waiting_server.address, settings) as client:
        for _ in range(2):
            with pytest.raises(DeadlineError):
                client.infer(models["waiting"], 0, picture())
        small.release.set()
        with EdgeClient(waiting_server.address) as patient:
            check_answer(patient.infer(models["plain"], 1, picture()).output, models["plain"](picture()), "after")
    with EdgeClient(waiting_server.address, settings) as client:
        small.release.clear()
        with pytest.raises(DeadlineError):
            list(client.stream(models["waiting"], 0, [picture()]))


@pytest.mark.parametrize("stream_up_to_bytes", [0, 1 << 20])
def test_a_stopping_server_finishes_what_it_has_begun(
    waiting_server: EdgeServer, models: dict[str, SplitModel], stream_up_to_bytes: int
) -> None:
    split = models["waiting"]
    answers: list[object] = []
    settings = ClientSettings(stream_up_to_bytes=stream_up_to_bytes)
    with EdgeClient(waiting_server.address, settings) as client, EdgeClient(waiting_server.address) as idle:
        idle.infer(models["plain"], 1, picture())  # leaves its stream open
        thread = threading.Thread(target=lambda: answers.append(client.infer(split, 0, picture()).output))
        thread.start()
        assert small.entered.wait(10)
        stopper = threading.Thread(target=waiting_server.stop)
        stopper.start()
        small.release.set()
        thread.join(10)
        stopper.join(10)
        assert not stopper.is_alive()
        check_answer(answers[0], split(picture()), "in flight")
        with pytest.raises(EdgeUnavailableError):
            idle.infer(models["plain"], 1, picture())


def test_a_closed_client_says_so(edge: EdgeProcess, models: dict[str, SplitModel]) -> None:
    client = EdgeClient(edge.address)
    client.infer(models["plain"], 1, picture())
    client.close()
    client.close()
    with pytest.raises(EdgeUnavailableError, match="closed"):
        client.infer(models["plain"], 1, picture())


NO_TARGETS = [
    "",
    "localhost",
    "localhost:",
    ":50051",
    "localhost:0",
    "h:http",
    "h:99999",
    "h:\u00b2",
    "http://h:1",
    "a b:1",
]


@pytest.mark.parametrize("target", [*NO_TARGETS, "h" * 300 + ":1", "h:" + "1" * 5000])
def test_a_target_is_host_and_port(target: str) -> None:
    with pytest.raises(InputError, match="HOST:PORT"):
        EdgeClient(target)


def test_a_client_that_nobody_closed_leaves_nothing_behind(edge: EdgeProcess, models: dict[str, SplitModel]) -> None:
    def ask() -> None:
        EdgeClient(edge.address).infer(models["plain"], 1, picture())

    def answers() -> Iterator[object]:
        return EdgeClient(edge.address).stream(models["plain"], 1, [picture()] * 5)

    def waiting() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "splitinfer-deadline"]

    gc.collect()
    before = waiting()
    for _ in range(3):
        ask()
    gc.collect()
    assert waiting() == before
    assert len(list(answers())) == 5  # whoever still reads answers keeps the connection


def test_a_server_process_that_cannot_start_says_why(tmp_path: object) -> None:
    with pytest.raises(InputError, match="unknown model 'resnet19'"), EdgeProcess(["resnet19"]):
        pass


def test_capture_is_the_same_on_both_sides(cards: dict[str, Path], models: dict[str, SplitModel]) -> None:
    again = capture_card(str(cards["branchy"]))
    assert again.fingerprint == models["branchy"].fingerprint
