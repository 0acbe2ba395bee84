"""The next request of a stream is taken in while one is at work: one, in order, and only for clients that stream."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator

import grpc
import pytest
import torch

from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeServer
from splitinfer.runtime.ahead import read_ahead
from splitinfer.runtime.verify import check_answer
from tests.runtime import small
from tests.runtime.waiting import wait_until


def readers() -> int:
    return sum(thread.name == "splitinfer-ahead" for thread in threading.enumerate())


def test_one_message_is_read_ahead() -> None:
    taken: list[bytes] = []

    def messages() -> Iterator[bytes]:
        for number in range(5):
            taken.append(bytes([number]))
            yield taken[-1]

    with read_ahead(messages()) as ahead:
        for number, message in enumerate(ahead):
            assert message == bytes([number])
            wait_until(lambda number=number: len(taken) == min(number + 2, 5))  # type: ignore[misc]
    wait_until(lambda: readers() == 0)


def test_a_cancelled_stream_ends_its_reader() -> None:
    def messages() -> Iterator[bytes]:
        yield b"first"
        raise grpc.RpcError

    with read_ahead(messages()) as ahead:
        assert list(ahead) == [b"first"]
    wait_until(lambda: readers() == 0)


def test_a_reader_that_fails_ends_its_handler_too(recwarn: pytest.WarningsRecorder) -> None:
    def messages() -> Iterator[bytes]:
        yield b"first"
        raise MemoryError

    with read_ahead(messages()) as ahead:
        assert list(ahead) == [b"first"]
    wait_until(lambda: readers() == 0)


def test_a_message_is_let_go_when_the_next_is_asked_for() -> None:
    go = threading.Event()

    def messages() -> Iterator[memoryview]:
        yield memoryview(b"first")
        go.wait(60)

    with read_ahead(messages()) as ahead:  # type: ignore[arg-type]
        first = weakref.ref(next(ahead))
        asking = threading.Thread(target=next, args=(ahead, None))
        asking.start()
        wait_until(lambda: first() is None)
        assert asking.is_alive()
        go.set()
        asking.join()
    wait_until(lambda: readers() == 0)


def test_a_handler_that_leaves_ends_the_reader() -> None:
    go = threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"first"
        go.wait(60)
        yield b"too late"

    with read_ahead(messages()) as ahead:
        assert next(ahead) == b"first"
    go.set()
    wait_until(lambda: readers() == 0)


def test_streams_read_ahead_and_leave_nothing_behind(models: dict[str, SplitModel]) -> None:
    split, image = models["waiting"], torch.ones(1, 3, 32, 32)
    small.release.set()
    images = [torch.full((1, 3, 32, 32), float(i)) for i in range(5)]
    with EdgeServer([split]) as server, EdgeClient(server.address, ClientSettings(deadline_s=60)) as client:
        check_answer(client.infer(split, 0, image).output, split(image), "a single request")
        assert readers() == 0
        assert len(list(client.stream(split, 0, images, window=1))) == len(images)
        assert readers() == 0
        outputs = []
        for result in client.stream(split, 0, images):
            assert readers() == 1
            outputs.append(result.output)
        for one, output in zip(images, outputs, strict=True):
            check_answer(output, split(one), "in order")
        wait_until(lambda: readers() == 0)
        small.entered.clear()
        small.release.clear()
        stream = client.stream(split, 0, images, window=2)
        asking = threading.Thread(target=next, args=(stream, None))
        asking.start()
        assert small.entered.wait(60)
        small.release.set()
        asking.join()
        stream.close()
        wait_until(lambda: readers() == 0)
