"""Requests that are computed together: who goes with whom, whose failure is whose, and what the edge says meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from torch import nn

from splitinfer.errors import InputError, RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime import EdgeClient, EdgeServer, ServerSettings
from splitinfer.runtime.batch_sizes import BATCH_TOLERANCE, BatchSizes
from splitinfer.runtime.events import BatchReleased, Event
from splitinfer.runtime.turns import Turns
from splitinfer.runtime.verify import check_answer
from tests.runtime import small
from tests.runtime.waiting import LONG_S, wait_until


class Held:
    """Turns on one processor, whose first run lasts until it is let go."""

    def __init__(self, sizes: tuple[int, ...] = (1, 2, 4, 8)) -> None:
        self.go = threading.Event()
        self.runs: list[tuple[Any, list[Any]]] = []
        self.released: list[tuple[Any, int, str, int]] = []
        self.failed: list[tuple[Any, int]] = []
        self.pool = ThreadPoolExecutor(64)
        self.turns = Turns(
            1,
            self.run,
            sizes=lambda key: sizes,
            batch_failed=lambda key, size: self.failed.append((key, size)),
            released=lambda key, size, wait_s, reason, dropped: self.released.append((key, size, reason, dropped)),
        )
        self.first = self.pool.submit(self.turns.take, "first", 0)
        wait_until(lambda: bool(self.runs))

    def run(self, key: Any, works: list[Any]) -> list[Any]:
        self.runs.append((key, works))
        if key == "first":
            assert self.go.wait(LONG_S)
        if any(work == "bad" for work in works):
            raise InputError("bad work")
        if any(work == "lonely" for work in works) and len(works) > 1:
            raise RuntimeError("not in company")
        return [(key, work) for work in works]

    def queue(self, key: Any, work: Any, is_wanted: Callable[[], bool] = lambda: True) -> Any:
        before = self.turns.waiting
        future = self.pool.submit(self.turns.take, key, work, is_wanted)
        wait_until(lambda: self.turns.waiting > before)
        return future

    def end(self) -> None:
        self.go.set()
        self.first.result(LONG_S)
        self.pool.shutdown()


def test_what_queued_during_a_run_leaves_in_sizes_that_are_warm() -> None:
    held = Held()
    turns = [held.queue("a", work) for work in range(7)]
    held.end()
    assert [turn.result().result for turn in turns] == [("a", work) for work in range(7)]
    assert held.runs[1:] == [("a", [0, 1, 2, 3]), ("a", [4, 5]), ("a", [6])]
    assert held.released == [
        ("first", 1, "idle", 0),
        ("a", 4, "split", 0),
        ("a", 2, "split", 0),
        ("a", 1, "queued", 0),
    ]


def test_batches_are_of_one_tail_and_the_oldest_goes_first() -> None:
    held = Held((1, 2))
    for key, work in [("a", 0), ("b", 1), ("a", 2), ("a", 3), ("b", 4)]:
        held.queue(key, work)
    held.end()
    assert held.runs[1:] == [("a", [0, 2]), ("b", [1, 4]), ("a", [3])]
    assert [reason for _, _, reason, _ in held.released[1:]] == ["full", "full", "queued"]


def test_off_nothing_runs_together() -> None:
    held = Held((1,))
    for work in range(3):
        held.queue("a", work)
    held.end()
    assert held.runs[1:] == [("a", [work]) for work in range(3)]


@pytest.mark.parametrize("gone", [{0}, {1}, {0, 1}, {0, 1, 2}])
def test_those_who_no_longer_wait_are_dropped_before_the_run(gone: set[int]) -> None:
    held = Held()
    turns = [held.queue("a", work, lambda work=work: work not in gone) for work in range(3)]
    held.end()
    computed = [work for _, works in held.runs[1:] for work in works]
    assert computed == [work for work in range(3) if work not in gone]
    for work, turn in enumerate(turns):
        if work in gone:
            with pytest.raises(RemoteError, match="no longer waits"):
                turn.result()
        else:
            assert turn.result().result == ("a", work)
    # The processor is free again whoever left.
    assert held.turns.take("a", "next").result == ("a", "next")


def test_a_failing_member_fails_alone() -> None:
    held = Held()
    turns = [held.queue("a", work) for work in (0, "bad", 2, 3)]
    held.end()
    with pytest.raises(InputError, match="bad work"):
        turns[1].result()
    assert [turns[index].result().result for index in (0, 2, 3)] == [("a", 0), ("a", 2), ("a", 3)]
    assert held.failed == []


def test_a_batch_that_fails_where_its_members_do_not_is_reported() -> None:
    held = Held()
    turns = [held.queue("a", work) for work in (0, "lonely")]
    held.end()
    assert [turn.result().result for turn in turns] == [("a", 0), ("a", "lonely")]
    assert held.failed == [("a", 2)]


def test_a_run_that_does_not_end_shows() -> None:
    held = Held()
    before = held.turns.stuck_s()
    wait_until(lambda: held.turns.stuck_s() > before > 0)
    held.end()
    assert held.turns.stuck_s() == 0.0


def test_who_would_wait_too_long_is_refused_and_told_how_long() -> None:
    entered, release = threading.Event(), threading.Event()

    def run(key: str, works: list[str]) -> list[str]:
        if works == ["slow"]:
            entered.set()
            assert release.wait(30)
        time.sleep(0.02)
        return works

    turns = Turns(1, run, max_wait_s=0.015)
    turns.take("tail", "first")  # takes more than 0.02 s, so one that waits is over the limit
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(turns.take, "tail", "slow")
        assert entered.wait(30)
        waits = threads.submit(turns.take, "tail", "waits")
        while not turns.waiting:
            time.sleep(0.001)
        assert turns.backlog_s >= 0.02
        with pytest.raises(RemoteError, match="try again later") as refused:
            turns.take("tail", "refused")
        assert refused.value.status == "RESOURCE_EXHAUSTED"
        release.set()
        assert (slow.result(30).result, waits.result(30).result) == ("slow", "waits")
    assert turns.take("tail", "later").result == "later"


def test_whoever_fails_around_a_batch_holds_nobody_up() -> None:
    held = Held()
    turns = [held.queue("a", work) for work in range(3)]

    def fail(*_: object) -> None:
        raise ValueError("a fault of the observer")

    held.turns._released = fail
    held.end()
    assert [turn.result(LONG_S).result for turn in turns] == [("a", work) for work in range(3)]

    calls: list[str] = []

    def sizes(key: str) -> tuple[int, ...]:
        calls.append(key)
        if len(calls) == 1:
            raise ValueError("a fault of the sizes")
        return (1, 2)

    held = Held()
    turns = [held.queue("a", work) for work in range(3)]
    held.turns._sizes = sizes
    held.end()
    with pytest.raises(ValueError, match="of the sizes"):
        turns[0].result(LONG_S)
    assert [turn.result(LONG_S).result for turn in turns[1:]] == [("a", 1), ("a", 2)]


def test_everyone_gets_the_own_answer_under_load() -> None:
    turns = Turns(3, lambda key, works: [(key, work) for work in works], sizes=lambda key: (1, 2, 4))

    def one(work: int) -> bool:
        key = work % 3
        wanted = work % 7 != 0
        try:
            return bool(turns.take(key, work, lambda: wanted).result == (key, work))
        except RemoteError:
            return not wanted

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(one, range(3000)))
    assert turns.waiting == 0


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.last = nn.Embedding(10, 4), nn.Linear(4, 2)

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return self.last(self.words(index))


def test_an_edge_with_batches_answers_within_the_tolerance_and_says_what_it_did(
    models: dict[str, SplitModel],
) -> None:
    events: list[Event] = []
    split = models["branchy"]
    torch.manual_seed(0)
    images = [torch.randn(1, 3, 32, 32) for _ in range(48)]
    with (
        EdgeServer([split], ServerSettings(batch=4, parallel_tails=1), observer=events.append) as server,
        EdgeClient(server.address) as client,
    ):
        server.warm_batches()
        with ThreadPoolExecutor(12) as pool:
            results = list(pool.map(lambda image: client.infer(split, 1, image), images))
        assert client.tolerance(split) == BATCH_TOLERANCE
    for image, result in zip(images, results, strict=True):
        check_answer(result.output, split(image), "a batched answer", tolerance=BATCH_TOLERANCE)
    batches = [event for event in events if isinstance(event, BatchReleased)]
    assert sum(batch.size for batch in batches) == len(images)
    assert {batch.reason for batch in batches} <= {"idle", "single", "queued", "full", "split"}
    assert all((batch.model, batch.cut) == ("branchy", 1) and batch.size in (1, 2, 4) for batch in batches)


def test_a_tail_is_tried_behind_the_requests() -> None:
    split = SplitModel.capture(Words(), (torch.zeros(1, dtype=torch.int64),), name="words")
    sizes = BatchSizes({"words": split}, 8, torch_threads=1)
    assert sizes(("words", 0)) == (1,)  # nobody waits for the trial
    wait_until(lambda: sizes.untried == 0)
    known = sizes(("words", 0))
    assert known[0] == 1
    assert set(known) <= {1, 2, 4, 8}
    if len(known) > 1:
        sizes.failed(("words", 0), known[-1])
        assert sizes(("words", 0)) == known[:-1]
    sizes.close()


def test_nobody_waits_at_the_end_for_trials_that_are_to_come(models: dict[str, SplitModel]) -> None:
    small.entered.clear()
    small.release.clear()
    sizes = BatchSizes({"waiting": models["waiting"], "plain": models["plain"]}, 8, torch_threads=1)
    sizes(("waiting", 0))
    for k in range(models["plain"].num_cuts):
        sizes(("plain", k))
    assert small.entered.wait(LONG_S)
    closing = threading.Thread(target=sizes.close)
    closing.start()
    small.release.set()
    closing.join(LONG_S)
    assert not closing.is_alive()
    assert sizes.untried >= models["plain"].num_cuts


def test_tails_without_batches_run_alone(models: dict[str, SplitModel]) -> None:
    sizes = BatchSizes({"broken": models["broken"], "waiting": models["waiting"]}, 8, torch_threads=1)
    small.release.set()
    sizes.warm()
    small.release.clear()
    assert sizes(("broken", 0)) == (1,)
    assert sizes(("waiting", 0)) == (1,)
    sizes.close()


def test_a_bad_request_in_a_batch_is_refused_alone() -> None:
    split = SplitModel.capture(Words(), (torch.zeros(1, dtype=torch.int64),), name="words")
    with (
        EdgeServer([split], ServerSettings(batch=8, parallel_tails=1)) as server,
        EdgeClient(server.address) as client,
    ):
        server.warm_batches()

        def ask(index: int) -> Any:
            try:
                return client.run_tail(split, 0, (torch.tensor([index]),)).output
            except RemoteError as error:
                return error.status

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, [1, 2, 99, 4, 5, 99, 7, 8] * 4))
    for index, answer in zip([1, 2, 99, 4, 5, 99, 7, 8] * 4, answers, strict=True):
        if index == 99:
            assert answer == "INTERNAL"
        else:
            check_answer(answer, split(torch.tensor([index])), f"index {index}", tolerance=BATCH_TOLERANCE)


def test_the_health_service_tells_of_a_tail_that_does_not_end(models: dict[str, SplitModel]) -> None:
    small.release.clear()
    small.entered.clear()
    with (
        EdgeServer([models["waiting"]], ServerSettings(stuck_s=0.05)) as server,
        grpc.insecure_channel(server.address) as channel,
        EdgeClient(server.address) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        stub = health_pb2_grpc.HealthStub(channel)

        def status() -> int:
            return int(stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=LONG_S).status)

        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert status() == serving
        answer = pool.submit(client.infer, models["waiting"], 0, torch.ones(1, 3, 32, 32))
        wait_until(lambda: status() == not_serving)
        small.release.set()
        answer.result(LONG_S)
        wait_until(lambda: status() == serving)


@pytest.mark.parametrize("batch", [0, 3, 64, True, 1.0])
def test_sizes_that_are_no_power_of_two_are_refused(batch: Any) -> None:
    with pytest.raises(InputError, match="batch must be one of 1, 2, 4, 8, 16, 32"):
        ServerSettings(batch=batch)
