"""A device that tells its edge nonsense ends the run with one line that names it, whatever it says."""

from __future__ import annotations

import math
import queue
import random
import threading

import pytest

from splitinfer.errors import InputError, RemoteError, SplitInferError
from splitinfer.policies import named_policy
from splitinfer.runtime.description import describe_wire
from splitinfer.runtime.loop import LoopSettings, run_device, run_edge
from splitinfer.runtime.loop.attendance import Attendance
from splitinfer.runtime.loop.edge import UsedNumbers
from splitinfer.runtime.loop.hub import Hub
from splitinfer.runtime.loop.services import ServiceLoader
from splitinfer.runtime.settings import ServerSettings
from splitinfer.simulation.identity import digest
from splitinfer.wire import Wire
from splitinfer.wire import splitinfer_pb2 as pb


def telemetry(**changes: object) -> pb.Telemetry:
    rows = ("local_queue_cycles", "transmission_queue_bits", "local_frequency_hz", "rate_bps")
    return pb.Telemetry(**({"slots": 5} | {name: [0.0, 0.0] for name in rows} | changes))


NONSENSE = {
    "counts of too many services": (pb.Slot(arrived=[0, 0, 0]), "counts of 3 services"),
    "an unknown service": (pb.Slot(finished=[pb.LocalTask(task=1, service=7, cut=0)]), "service 7"),
    "an unknown cut": (pb.Slot(finished=[pb.LocalTask(task=1, service=0, cut=99)]), "cut 99"),
    "a task of later": (pb.Slot(finished=[pb.LocalTask(task=1, arrival_slot=50)]), "before it came"),
    "a number twice": (pb.Slot(finished=[pb.LocalTask(task=1)] * 2), "finished twice"),
    "telemetry that is none": (pb.Slot(telemetry=telemetry(power_w=math.nan)), "not finite"),
    "telemetry below nothing": (pb.Slot(telemetry=telemetry(rate_bps=[-1.0, 0.0])), "below 0"),
    "telemetry of too few": (pb.Slot(telemetry=telemetry(rate_bps=[1.0])), "another number of services"),
    "tasks under way of too many": (pb.Slot(under_way=[1, 2, 3]), "tasks under way of 3 services"),
    "tasks under way of one that stayed": (pb.Slot(under_way=[1, 1]), "in which it does not come back"),
    "what it did alone, being here": (pb.Slot(alone=pb.Alone(retries=1, fallbacks=[0, 9])), "here all the time"),
    "tasks that never came": (pb.Slot(finished=[pb.LocalTask(task=1)]), "finishes more tasks than came to it"),
    "tasks without end": (pb.Slot(arrived=[2**32 - 1, 1]), "4,294,967,296 open tasks, more than 100,000"),
    "what it did alone for too few": (pb.Slot(alone=pb.Alone(retries=1, fallbacks=[1])), "fallbacks of 1 services"),
    "telemetry of no time": (pb.Slot(telemetry=telemetry(slots=10**6)), "telemetry of 1000000 slots"),
    "a tail that is none": (
        pb.Slot(pieces=[pb.TaskPiece(task=1, service=0, cut=99, message_bytes=4, data=b"1234")]),
        "which has no tail",
    ),
    "telemetry beyond reason": (pb.Slot(telemetry=telemetry(local_queue_cycles=[1e300, 0.0])), "above 1e+18"),
    "a piece of nothing": (pb.Slot(pieces=[pb.TaskPiece(task=1, cut=1, byte_offset=9, data=b"1")]), "0 bytes"),
    "a piece of later": (
        pb.Slot(pieces=[pb.TaskPiece(task=1, cut=1, arrival_slot=7, message_bytes=4, data=b"1234")]),
        "before it came",
    ),
    "a request that is none": (
        pb.Slot(pieces=[pb.TaskPiece(task=1, service=0, cut=1, message_bytes=4, data=b"1234")]),
        "malformed",
    ),
}


@pytest.fixture(scope="module")
def models(tiny, tiny_cards):
    return ServiceLoader(tiny_cards).models(tiny)


@pytest.mark.parametrize("what", list(NONSENSE))
def test_nonsense_ends_the_run_and_names_the_device(what, tiny, models):
    nonsense, words = NONSENSE[what]
    world = tiny.replace(num_devices=1)
    listens: queue.SimpleQueue[str] = queue.SimpleQueue()
    ended: list[BaseException] = []

    def be_edge() -> None:
        try:
            run_edge(world, named_policy("fixed", world), models, LoopSettings(slots=20), on_listen=listens.put)
        except BaseException as error:  # noqa: BLE001 - looked at below
            ended.append(error)

    edge = threading.Thread(target=be_edge)
    edge.start()
    attendance = Attendance(listens.get(timeout=60), lambda result: None)
    prints = {split.name: split.fingerprint for split in models}
    hello = pb.Hello(
        protocol_version=1,
        device=0,
        scenario=digest(world),
        fingerprints=[prints[profile.model] for profile in world.profiles[0]],
    )
    try:
        attendance.join(hello, connect_s=30, join_s=30)
        attendance.send(nonsense)
        attendance.send(pb.Slot(slot=1))
        edge.join(60)
    except RemoteError:  # told before everything was sent
        edge.join(60)
    finally:
        attendance.close()
    (error,) = ended
    assert isinstance(error, SplitInferError), repr(error)
    assert words in str(error)
    assert str(error).startswith("device 0")


IMPOSSIBLE = {
    "slots of no time": ({"slot_wall_s": 0.0}, "slot_wall_s"),
    "slots of no number": ({"slot_wall_s": math.nan}, "slot_wall_s"),
    "a start that never comes": ({"starts_in_s": math.inf}, "starts_in_s"),
    "waiting backwards": ({"patience_s": -1.0}, "patience_s"),
    "a start after the end": ({"first_slot": 9}, "slots"),
    "any answer is right": ({"tolerance": 1e9}, "tolerance"),
    "cuts of other services": ({"cuts": [1]}, "cuts 1"),
    "cuts that there are not": ({"cuts": [1, 4_000_000_000]}, "cuts 1, 4000000000"),
}


@pytest.mark.parametrize("what", list(IMPOSSIBLE))
def test_a_device_begins_no_run_that_cannot_be(what, tiny, tiny_cards):
    changes, words = IMPOSSIBLE[what]
    loader, world = ServiceLoader(tiny_cards), tiny.replace(num_devices=1)
    services = loader.services(world, 0)
    with Hub([[service.fingerprint for service in services]], digest(world), ServerSettings(drain_s=0.1)) as hub:
        start = {"slots": 5, "slot_wall_s": 0.001, "cuts": [1, 1]} | describe_wire(Wire()) | changes
        greeter = threading.Thread(
            target=lambda: (hub.wait_for_all(30), hub.send(0, pb.EdgeMessage(start=pb.Start(**start))))
        )
        greeter.start()
        with pytest.raises(RemoteError, match=words):
            run_device(hub.address, world, 0, services)
        greeter.join()


def test_no_number_is_used_twice_and_a_run_of_any_length_keeps_few() -> None:
    rng = random.Random(0)
    used, told = UsedNumbers(max_gaps=300), set[int]()
    for first in range(1, 20_000, 200):  # tasks end in another order than they came
        numbers = list(range(first, first + 200))
        rng.shuffle(numbers)
        for number in numbers:
            assert used.add(number)
            told.add(number)
            assert not used.add(rng.choice(sorted(told)) if number % 997 == 0 else number)
    assert len(used) == 1
    assert not any(map(used.add, told))


def test_a_device_that_leaves_gaps_on_purpose_is_bounded() -> None:
    used = UsedNumbers(max_gaps=10)
    assert all(used.add(2 * one) for one in range(11))
    with pytest.raises(InputError, match=r"more than 10 gaps .*max_open_tasks"):
        used.add(1 << 60)
    assert used.add(1)  # closes one
    assert used.add(1 << 60)
