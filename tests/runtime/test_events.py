"""Observers: slow ones, failing ones, and what a plain edge server tells."""

from __future__ import annotations

import json
import logging
import threading

import pytest
import torch

from splitinfer.errors import InputError, RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeServer, ModelId
from splitinfer.runtime.events import Event, Fanout, Refused, TailServed, TaskDone, read_event

IMAGE = torch.ones(1, 3, 32, 32)


def tasks(number: int) -> list[TaskDone]:
    return [TaskDone(0, 1, 2, index, index + 3) for index in range(number)]


def test_events_are_json_and_come_back() -> None:
    for event in (*tasks(2), TailServed("plain", 1, 10, 20, 0.0, 0.5), Refused("NOT_FOUND", "no such model")):
        assert read_event(json.loads(json.dumps(event.to_dict()))) == event
    assert TaskDone(0, 1, 2, 3, 4).to_dict()["event"] == "task"
    for wrong in ({"event": "party"}, {"event": "task", "device": 0}, {"event": "task", "who": 1}, {}):
        with pytest.raises(InputError, match="event"):
            read_event(wrong)


def test_a_slow_observer_delays_nobody_and_its_losses_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    release, is_stuck = threading.Event(), threading.Event()
    slow: list[Event] = []
    kept: list[Event] = []

    def stuck(event: Event) -> None:
        is_stuck.set()
        release.wait(60)
        slow.append(event)

    with caplog.at_level(logging.WARNING), Fanout() as fanout:
        fanout.add("slow", stuck, most_waiting=3).add("report", kept.append, most_waiting=None)
        fanout(tasks(1)[0])
        assert is_stuck.wait(60)
        for event in tasks(50):  # returns although one observer holds still
            fanout(event)
        assert fanout.dropped == {"slow": 47, "report": 0}
        release.set()
    assert len(slow) == 4
    assert kept == [*tasks(1), *tasks(50)]
    assert "slow was too slow for 47 events" in caplog.text


def test_a_failing_observer_is_told_no_more_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    kept: list[Event] = []

    def fails(event: Event) -> None:
        raise OSError("disk full")

    with caplog.at_level(logging.ERROR), Fanout() as fanout:
        fanout.add("the trace file", fails, most_waiting=None).add("report", kept.append, most_waiting=None)
        for event in tasks(20):
            fanout(event)
    assert kept == tasks(20)
    assert fanout.dropped["the trace file"] == 19
    assert "the trace file failed" in caplog.text


def test_a_plain_server_tells_what_it_serves_and_refuses(models: dict[str, SplitModel]) -> None:
    told: list[Event] = []
    split = models["plain"]
    with (
        EdgeServer([split], observer=told.append) as server,
        EdgeClient(server.address, ClientSettings(deadline_s=60)) as client,
    ):
        results = [client.infer(split, 1, IMAGE), *client.stream(split, 0, [IMAGE, IMAGE])]
        arrays = [tensor.numpy() for tensor in split.run_head(1, IMAGE)]
        with pytest.raises(RemoteError):
            client.run_tail(ModelId("plain", split.fingerprint), split.num_cuts, arrays)
    served = [event for event in told if isinstance(event, TailServed)]
    assert [(event.model, event.cut) for event in served] == [("plain", 1), ("plain", 0), ("plain", 0)]
    for event, result in zip(served, results, strict=True):
        assert (event.bytes_up, event.bytes_down) == (result.bytes_up, result.bytes_down)
        assert event.tail_s == result.timing.tail_s
    (refused,) = (event for event in told if isinstance(event, Refused))
    assert refused.status == "INVALID_ARGUMENT"
    assert "has no tail" in refused.message
