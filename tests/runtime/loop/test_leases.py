"""A device that is lost: its queues are released, the others go on, and it can come back."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from benchmarks.faults.proxy import Proxy
from splitinfer.errors import RemoteError
from splitinfer.policies import named_policy
from splitinfer.runtime.loop import LoopSettings, device_run, edge_run, run_device
from splitinfer.runtime.loop.attendance import Attendance
from splitinfer.runtime.loop.hub import Hub
from splitinfer.simulation.identity import digest
from splitinfer.wire import splitinfer_pb2 as pb
from tests.runtime.loop.in_process import Edge


class GuestAtSlot(Attendance):
    """Somebody who takes a device's place, and can be told to leave it."""

    def __init__(self, address: str, world: Any, models: Any, device: int) -> None:
        super().__init__(address, lambda result: None)
        prints = {split.name: split.fingerprint for split in models}
        self._hello = pb.Hello(
            protocol_version=1,
            device=device,
            scenario=digest(world),
            fingerprints=[prints[profile.model] for profile in world.profiles[device]],
        )

    def come(self) -> pb.Start:
        return self.join(self._hello, connect_s=30, join_s=30)


@pytest.fixture
def world(tiny: Any) -> Any:
    return tiny.replace(num_devices=2, fixed_cuts=(1, 1))


def attend(address: str, world: Any, device: int, services: Any, **more: Any) -> tuple[threading.Thread, list[Any]]:
    out: list[Any] = []

    def go() -> None:
        try:
            out.append(run_device(address, world, device, services, **more))
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            out.append(error)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    return thread, out


@pytest.mark.parametrize("way", ["goes away", "is silent", "sends nonsense"])
def test_the_others_go_on_without_a_lost_device(way: str, world: Any, loader: Any) -> None:
    lease_s = 0.5 if way == "is silent" else 60.0
    edge = Edge(world, loader, LoopSettings(slots=60, time_scale=0.2, patience_s=60.0, lease_s=lease_s))
    thread, out = attend(edge.address, world, 0, loader.services(world, 0))
    guest = GuestAtSlot(edge.address, world, loader.models(world), 1)
    guest.come()
    guest.send(pb.Slot(slot=0))
    if way == "goes away":
        guest.close()
    elif way == "sends nonsense":
        guest.send(pb.Slot(slot=1, arrived=[1, 2, 3]))
    thread.join(120)
    edge.join(60)
    guest.close()
    assert edge.failed is None
    (farewell,) = out
    assert farewell.checked > 0
    assert (farewell.wrong, farewell.unexpected) == (0, 0)
    result = edge.record.result(world)
    (line,) = result.lost
    assert line.startswith("device 1 was lost in slot ")
    assert result.is_right
    assert result.figures.device_energy_local_j[1] == 0.0


def test_a_lost_device_comes_back(world: Any, loader: Any) -> None:
    edge = Edge(world, loader, LoopSettings(slots=600, time_scale=0.5, patience_s=0.0, lease_s=60.0))
    thread, out = attend(edge.address, world, 0, loader.services(world, 0))
    guest = GuestAtSlot(edge.address, world, loader.models(world), 1)
    guest.come()
    guest.close()
    begun: list[pb.Start] = []
    services = loader.services(world, 1)
    for _ in range(50):  # until the edge has seen that its place is empty
        second, other = attend(edge.address, world, 1, services, on_start=begun.append)
        second.join(120)
        if not isinstance(other[0], BaseException):
            break
        assert "is there already" in str(other[0])
    thread.join(120)
    edge.join(60)
    assert edge.failed is None
    (start,) = begun
    assert start.first_slot > 0
    assert start.first_slot % world.slots_per_period == 0
    assert other[0].checked > 0
    assert other[0].wrong == out[0].wrong == 0
    lost = edge.record.result(world).lost
    assert [line.split(" in slot ")[0] for line in lost] == ["device 1 was lost", "device 1 came back"]


def test_without_a_lease_a_lost_device_ends_the_run(world: Any, loader: Any) -> None:
    edge = Edge(world, loader, LoopSettings(slots=60, time_scale=0.2))
    thread, out = attend(edge.address, world, 0, loader.services(world, 0))
    guest = GuestAtSlot(edge.address, world, loader.models(world), 1)
    guest.come()
    guest.close()
    edge.join(60)
    thread.join(60)
    assert isinstance(edge.failed, RemoteError)
    assert "device 1 went away" in str(edge.failed)
    assert isinstance(out[0], RemoteError)


def test_a_run_ends_when_nobody_is_left(world: Any, loader: Any) -> None:
    edge = Edge(world, loader, LoopSettings(slots=60, time_scale=0.2, lease_s=1.0))
    guests = [GuestAtSlot(edge.address, world, loader.models(world), device) for device in range(2)]
    threads = [threading.Thread(target=guest.come) for guest in guests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for guest in guests:
        guest.close()
    edge.join(60)
    assert isinstance(edge.failed, RemoteError)


class AwaitsDevice1:
    """Fixed cuts; while device 1 is lost, the slots of the edge stand still until it knocks.

    The first cuts are chosen before anybody is there.
    """

    name = "fixed"

    def __init__(self, world: Any, hubs: list[Hub]) -> None:
        self._policy, self._hubs, self._asked = named_policy("fixed", world), hubs, 0

    def reset(self, setting: Any, rng: Any) -> None:
        self._policy.reset(setting, rng)

    def cuts(self, observation: Any) -> Any:
        deadline_s = time.monotonic() + 60
        self._asked += 1
        while self._asked > 1 and not self._hubs[0].is_seated(1) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        return self._policy.cuts(observation)


def test_a_device_that_works_alone_returns_when_the_edge_does(
    world: Any, loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is cut in the middle: alone meanwhile, then at the edge again, nothing wrong.

    Slots wait for events, on both sides, so that it is back a few slots later on any machine.
    """
    hubs: list[Hub] = []
    invited = threading.Semaphore(0)

    class SeenHub(Hub):
        def __enter__(self) -> Hub:
            hubs.append(self)
            return super().__enter__()

    class SeenAttendance(Attendance):
        def join(self, *arguments: Any, **named: Any) -> pb.Start:
            start = super().join(*arguments, **named)
            if start.first_slot > 0:
                invited.release()
            return start

    monkeypatch.setattr(device_run, "RETURN_S", 0.1)
    monkeypatch.setattr(device_run, "Attendance", SeenAttendance)
    monkeypatch.setattr(edge_run, "Hub", SeenHub)
    settings = LoopSettings(slots=300, time_scale=0.1, patience_s=60.0, lease_s=60.0)
    edge = Edge(world, loader, settings, AwaitsDevice1(world, hubs))
    with Proxy(int(edge.address.rpartition(":")[2])) as proxy:
        alone: list[int] = []
        back: list[int] = []
        cuts: list[tuple[int, list[int]]] = []

        def on_period(slot: int, means: Any, in_force: Any) -> None:
            cuts.append((slot, list(in_force)))
            if slot == 100 and not alone:
                proxy.cut()
            if alone and not back:
                assert invited.acquire(timeout=60)

        def on_alone(slot: int, stranded: int, error: RemoteError) -> None:
            alone.append(slot)

        first, out = attend(edge.address, world, 0, loader.services(world, 0))
        second, other = attend(
            proxy.address,
            world,
            1,
            loader.services(world, 1),
            on_failure="fallback",
            on_alone=on_alone,
            on_return=back.append,
            on_period=on_period,
        )
        second.join(120)
        first.join(120)
        edge.join(60)
    assert edge.failed is None
    assert other[0].wrong == out[0].wrong == 0
    assert back, "it came back"
    assert 99 <= alone[0] < back[0] < 300
    last = [service.split.num_cuts for service in loader.services(world, 1)]
    at = dict(cuts)
    ends = sorted(at)
    assert at[max(end for end in ends if end <= back[0])] == last
    assert at[min(end for end in ends if end > back[0] + 5)] == [1, 1]
    result = edge.record.result(world)
    assert result.retries.keys() == {1}
    assert 1 <= result.retries[1] < 100
    assert 0 < sum(result.fallbacks[1]) < other[0].checked
    assert result.to_dict()["fallbacks"] == {"1": result.fallbacks[1]}
    assert result.figures.in_flight == other[0].unanswered + out[0].unanswered
    lost = result.lost
    assert [line.split(" in slot ")[0] for line in lost[:2]] == ["device 1 was lost", "device 1 came back"]
    sent = [period.transmission_energy_j[1] for period in edge.record.periods if period.first_slot > back[0]]
    assert sum(sent) > 0
