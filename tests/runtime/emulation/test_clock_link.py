"""The emulated clock and link: never faster than allocated, and honest where the host is slower."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.runtime.emulation import EmulatedClock, EmulatedLink, Job


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_a_job_is_given_back_when_its_cycles_are_worked_off(executor):
    clock = EmulatedClock(2, slot_s=0.01, executor=executor, wait_s=10.0)
    clock.submit(1, Job("a", lambda: "head of a"), 25.0)
    given_back = []
    for _ in range(3):
        clock.open_slot(np.array([0.0, 1000.0]))  # ten cycles a slot
        given_back.append([(queue, job.key, job.result) for queue, job in clock.close_slot()])
    assert given_back == [[], [], [(1, "a", "head of a")]]
    assert clock.backlog_cycles().tolist() == [0.0, 0.0]


def test_real_work_starts_with_the_first_cycles_and_not_before(executor):
    clock = EmulatedClock(1, slot_s=1.0, executor=executor, wait_s=10.0)
    started = []
    clock.submit(0, Job("a", lambda: started.append("a")), 2.0)
    clock.submit(0, Job("b", lambda: started.append("b")), 1.0)
    clock.open_slot(np.array([0.0]))
    clock.close_slot()
    assert started == []
    clock.open_slot(np.array([2.0]))  # exactly the work of a: nothing is left for b
    clock.close_slot()
    assert started == ["a"]
    assert clock.shortfall.late_jobs in (0, 1)


def test_a_slow_host_carries_the_job_and_says_so(executor):
    may_end = threading.Event()
    clock = EmulatedClock(1, slot_s=1.0, executor=executor)
    clock.submit(0, Job("slow", may_end.wait), 1.0)
    for _ in range(4):
        clock.open_slot(np.array([1.0]))
        assert clock.close_slot() == []
    assert clock.backlog_cycles()[0] == 0.0
    assert len(clock) == 1
    may_end.set()
    executor.submit(lambda: None).result()  # behind the job on the only thread
    clock.open_slot(np.array([0.0]))
    assert [job.key for _, job in clock.close_slot()] == ["slow"]
    assert clock.shortfall.late_jobs == 1
    assert clock.shortfall.late_slots == 4
    assert clock.shortfall.late_s > 0


def test_order_is_kept_when_an_earlier_job_is_late():
    may_end = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        clock = EmulatedClock(1, slot_s=1.0, executor=pool)
        clock.submit(0, Job("first", may_end.wait), 1.0)
        clock.submit(0, Job("second", lambda: None), 1.0)
        clock.open_slot(np.array([2.0]))
        assert clock.close_slot() == []
        may_end.set()
        pool.submit(lambda: None).result()
        keys = []
        while len(keys) < 2:
            clock.open_slot(np.array([0.0]))
            keys += [job.key for _, job in clock.close_slot()]
    assert keys == ["first", "second"]


def test_no_workers_time_is_lost(monkeypatch):
    own = threading.local()

    def seconds() -> float:
        """A clock that every thread moves by itself: one second from a look to the next."""
        own.now = getattr(own, "now", 0.0) + 1.0
        return own.now

    monkeypatch.setattr("splitinfer.runtime.emulation.clock.time.perf_counter", seconds)
    jobs = 2000
    with ThreadPoolExecutor(8) as workers:
        clock = EmulatedClock(1, slot_s=1.0, executor=workers, wait_s=60.0)
        for number in range(jobs):
            clock.submit(0, Job(number, lambda: None), 1.0)
        clock.open_slot(np.array([float(jobs)]))
        assert len(clock.close_slot()) == jobs
    assert clock.shortfall.host_s == jobs


def test_what_a_job_raises_comes_out(executor):
    def fail():
        raise ValueError("no such layer")

    clock = EmulatedClock(1, slot_s=1.0, executor=executor, wait_s=10.0)
    clock.submit(0, Job("bad", fail), 1.0)
    clock.open_slot(np.array([1.0]))
    with pytest.raises(ValueError, match="no such layer"):
        clock.close_slot()


@settings(deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=6),
    rates=st.lists(st.floats(1.0, 40_000.0), min_size=1, max_size=10),
)
def test_the_link_sends_every_byte_once_and_never_ahead_of_its_bits(sizes, rates):
    link = EmulatedLink(1, slot_s=1.0)
    messages = [bytes(i % 251 for i in range(size)) for size in sizes]
    bits = [size * 3.0 for size in sizes]  # a radio that counts another size than the message has
    for number, (message, amount) in enumerate(zip(messages, bits, strict=True)):
        link.submit(0, number, message, amount)
    received = [b"" for _ in sizes]
    granted = 0.0
    slot = 0
    while len(link):
        rate = rates[slot % len(rates)]
        granted += rate
        slot += 1
        for piece in link.open_slot(np.array([rate]), 0.1):
            assert piece.offset == len(received[piece.key])
            assert piece.message_bytes == sizes[piece.key]
            received[piece.key] += bytes(piece.data)
            assert piece.is_last == (len(received[piece.key]) == sizes[piece.key])
        sent_bits = sum(3.0 * len(data) for data in received)
        assert sent_bits <= granted * (1 + 1e-9)
    assert received == messages
