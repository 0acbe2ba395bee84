"""Live runs whose edge and devices are threads of the test: the same sockets and slots, the models captured once.

What only processes show (starting, being killed, their own copies of the models) is in the tests that start them.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from splitinfer.policies import named_policy
from splitinfer.runtime.events import Observer
from splitinfer.runtime.loop import LiveResult, LoopSettings, run_device, run_edge
from splitinfer.runtime.loop.record import LiveRecord
from splitinfer.runtime.loop.services import ServiceLoader
from splitinfer.scheduling import Policy
from splitinfer.simulation import Scenario


def run_here(
    world: Scenario,
    policy: str | Policy,
    settings: LoopSettings,
    loader: ServiceLoader,
    observer: Observer = lambda event: None,
) -> LiveResult:
    """Run a scenario once."""
    record = LiveRecord()
    addresses: queue.SimpleQueue[str] = queue.SimpleQueue()

    def take(event: Any) -> None:
        record.add(event)
        observer(event)

    chooser = named_policy(policy, world) if isinstance(policy, str) else policy
    models = loader.models(world)
    services = [loader.services(world, device) for device in range(world.num_devices)]
    with ThreadPoolExecutor(1 + world.num_devices) as threads:
        edge = threads.submit(run_edge, world, chooser, models, settings, on_listen=addresses.put, observer=take)
        address = addresses.get(timeout=60)
        devices = [threads.submit(run_device, address, world, device, own) for device, own in enumerate(services)]
        for one in (edge, *devices):
            one.result(timeout=240)
    return record.result(world)


class Edge(threading.Thread):
    """An edge on a thread, with its record and what it raised."""

    def __init__(self, world: Any, loader: ServiceLoader, settings: LoopSettings, policy: Policy | None = None) -> None:
        super().__init__(daemon=True)
        self.record = LiveRecord()
        self.failed: BaseException | None = None
        self._listens: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._run = lambda: run_edge(
            world,
            policy or named_policy("fixed", world),
            loader.models(world),
            settings,
            on_listen=self._listens.put,
            observer=self.record.add,
        )
        self.start()
        self.address = self._listens.get(timeout=60)

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.failed = error
