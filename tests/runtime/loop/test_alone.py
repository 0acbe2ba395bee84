"""A device that finishes a run without its edge."""

from __future__ import annotations

import json
import queue
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest

from splitinfer.errors import InputError, RemoteError
from splitinfer.models import CaptureOptions
from splitinfer.runtime.child import Child
from splitinfer.runtime.loop import LoopSettings, run_device
from splitinfer.runtime.loop.services import ServiceLoader
from splitinfer.runtime.loop.world import DeviceWorld


def test_a_device_whose_edge_goes_away_finishes_the_run_by_itself(tiny, tiny_cards):
    """The edge is a process that is killed in the middle; its devices go on with every cut at the last."""
    world = tiny.replace(num_devices=1, arrival_rate_hz=6.0, fixed_cuts=(1, 1), max_local_frequency_hz=3e8)
    services = ServiceLoader(tiny_cards).services(world, 0)
    said: queue.SimpleQueue = queue.SimpleQueue()
    order = {
        "cards": {name: str(file) for name, file in tiny_cards.items()},
        "options": CaptureOptions(threads=1).to_dict(),
        "port": 0,
        "otlp": None,
    }
    slots, alone, periods = 600, [], []
    with tempfile.TemporaryDirectory() as folder:
        world.save(Path(folder) / "scenario.toml")
        order["scenario"] = f"{folder}/scenario.toml"
        edge = Child("splitinfer.runtime.loop.edge_child", order, "edge", said, threads=1)
        try:
            # Time stands still for late cuts, so that the slot in which the edge is missed is no matter of speed.
            settings = LoopSettings(slots=slots, time_scale=0.2, patience_s=60.0)
            edge.tell(json.dumps({"policy": "fixed", "loop": asdict(settings)}))
            _, event = said.get(timeout=100)

            def on_period(slot, means, cuts):
                periods.append((slot, means, list(cuts)))
                if slot == 200:
                    edge.kill()

            farewell = run_device(
                event["address"],
                world,
                0,
                services,
                on_failure="fallback",
                on_alone=lambda slot, stranded, error: alone.append((slot, stranded, error)),
                on_period=on_period,
            )
        finally:
            edge.kill()
            edge.stop(10)
    ((slot, stranded, error),) = alone
    assert 200 <= slot < 300
    assert isinstance(error, RemoteError)
    assert stranded > 0
    assert (farewell.wrong, farewell.unexpected) == (0, 0)
    arrived = sum(int(DeviceWorld(world, 0, 0).requests(s).sum()) for s in range(slots))
    assert farewell.checked + farewell.unanswered == arrived  # every task once
    assert farewell.unanswered <= 8  # of the last slots
    last = [service.split.num_cuts for service in services]
    after = [(means, cuts) for at, means, cuts in periods if at > slot + 5]
    assert all(cuts == last for _, cuts in after)
    assert sum(means.transmission_energy_j for means, _ in after) == 0.0
    assert sum(means.local_energy_j for means, _ in after) > 0.0


def test_slots_do_not_wait(tiny, tiny_cards):
    services = ServiceLoader(tiny_cards).services(tiny, 0)
    with pytest.raises(InputError, match="do not wait"):
        run_device("localhost:1", tiny, 0, services, on_failure="wait")
