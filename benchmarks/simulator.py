"""Device-slots per second of the simulator: one environment, many on two threads, a thousand devices, and CVXPY.

A device-slot is one device advanced by one slot: three allocations, the edge's share and the queues, task by task. The
generation of gains and arrivals is timed with it, as ``simulate`` does it. Figures on one core are per second of CPU
time, so that other programs do not count; only the two-thread ratio is by the wall clock, and needs two idle cores.
The services, loads and limits are those of the presets ``table2`` (0.2 requests/s per service) and ``busy`` (1
request/s), everything sent to the edge, which is the costliest cut; the large case has 250 times the devices, bandwidth
and edge, and both services twice per device.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numba
import numpy as np

from splitinfer.radio import mean_gain
from splitinfer.scheduling import FixedCut
from splitinfer.scheduling.setting import AXES, Setting
from splitinfer.simulation import Scenario, simulate
from splitinfer.simulation.build import setting_of
from splitinfer.simulation.engine import Engine
from splitinfer.simulation.records import Arrivals

DEVICE_SLOTS = 800_000
ENVIRONMENTS = 64
COPIES = 250


def best_seconds(run: Callable[[], object], *, clock: Callable[[], float], repeats: int = 3) -> float:
    """The least of some timings. ``time.process_time`` leaves out what other programs take, on one thread."""
    seconds = []
    for _ in range(repeats):
        start = clock()
        run()
        seconds.append(clock() - start)
    return min(seconds)


def enlarged(world: Setting) -> Setting:
    """``COPIES`` times the devices, each with every service twice; bandwidth and edge per device as they were."""
    times = {"m": (COPIES,), "mr": (COPIES, 1), "mn": (COPIES, 2), "mnk": (COPIES, 2, 1)}
    tiled = {name: np.tile(getattr(world, name), times[axes]) for name, axes in AXES.items() if axes in times}
    return world.replace(**tiled, max_edge_frequency_hz=world.max_edge_frequency_hz * COPIES)


class Runner:
    """An engine with its own random gains and arrivals, everything offloaded."""

    def __init__(self, world: Setting, rate_hz: float, environments: int = 1, *, parallel: bool = False) -> None:
        self._world, self._rate, self._environments = world, rate_hz * world.slot_s, environments
        self._engine = Engine([world] * environments, parallel=parallel)
        self._rng = np.random.default_rng(0)
        self._cuts = np.zeros((world.num_devices, world.num_services), np.int64)
        self._mean_gain = mean_gain(np.linspace(150.0, 250.0, world.num_devices))
        self.run(10 * world.num_devices * environments)

    def run(self, device_slots: int) -> None:
        devices, services = self._world.num_devices, self._world.num_services
        slots = device_slots // devices // self._environments
        gains = self._rng.standard_exponential((self._environments, slots, devices))
        gains *= self._mean_gain
        number = self._rng.poisson(self._rate * slots, (self._environments, devices, services))
        environment, device, service = np.repeat(np.indices(number.shape).reshape(3, -1), number.ravel(), axis=1)
        slot = self._rng.integers(0, max(slots, 1), len(device))
        arrivals = Arrivals.from_events(slot, device, service, environment=environment)
        self._engine.advance(self._cuts, gains, arrivals)

    def device_slots_per_s(self, clock: Callable[[], float] = time.process_time, repeats: int = 3) -> float:
        return DEVICE_SLOTS / best_seconds(lambda: self.run(DEVICE_SLOTS), clock=clock, repeats=repeats)


def cvxpy_ratio(scenario: Scenario) -> tuple[float, float]:
    """The same slots through CVXPY and through the closed forms; seconds ratio and CVXPY's device-slots per second."""
    policy = FixedCut([0, 0])
    slots = 300
    # A small edge keeps all three problems busy.
    small = scenario.replace(max_edge_frequency_hz=5e8)
    simulate(small, policy, slots=slots)
    simulate(small, policy, slots=20, solver="cvxpy")
    slow = (
        best_seconds(lambda: simulate(small, policy, slots=slots, solver="cvxpy"), clock=time.process_time, repeats=1)
        / slots
    )
    fast = best_seconds(lambda: simulate(small, policy, slots=100 * slots), clock=time.process_time) / (100 * slots)
    return slow / fast, scenario.num_devices / slow


def measure() -> dict[str, object]:
    ratios: dict[str, float] = {}
    figures: dict[str, float] = {}
    for preset, rate_hz in (("table2", 0.2), ("busy", 1.0)):
        scenario = Scenario.preset(preset)
        world = setting_of(scenario)
        policy = FixedCut([0, 0])
        slots = DEVICE_SLOTS // world.num_devices
        simulate(scenario, policy, slots=100)
        whole = DEVICE_SLOTS / best_seconds(
            lambda s=scenario, n=slots, p=policy: simulate(s, p, slots=n),  # type: ignore[misc]
            clock=time.process_time,
        )
        one = Runner(world, rate_hz)
        small = one.device_slots_per_s()
        large = Runner(enlarged(world), rate_hz).device_slots_per_s()
        batch = Runner(world, rate_hz, ENVIRONMENTS, parallel=True)
        # Two threads are only seen on the wall clock; the two sides take turns, and each keeps its best.
        turns = [[r.device_slots_per_s(time.perf_counter, repeats=1) for r in (one, batch)] for _ in range(5)]
        single, many = (max(side) for side in zip(*turns, strict=True))
        figures[f"{preset}: simulate(), device-slots/s"] = whole
        figures[f"{preset}: engine, one environment, device-slots/s"] = small
        figures[f"{preset}: engine, {ENVIRONMENTS} environments, device-slots/s"] = many
        figures[f"{preset}: engine, 1000 devices x 4 services, device-slots/s"] = large
        ratios[f"{preset}: simulate() / 1M device-slots per s (goal >= 1)"] = whole / 1e6
        ratios[f"{preset}: {ENVIRONMENTS} environments / one (goal >= 1.6)"] = many / single
        ratios[f"{preset}: cost per device-slot, 1000 x 4 / 4 x 2 (goal <= 3)"] = small / large
    ratio, slow = cvxpy_ratio(Scenario.preset("busy"))
    ratios["busy: CVXPY loop / closed form, time (goal >= 1000)"] = ratio
    figures["busy: CVXPY loop, device-slots/s"] = slow
    return {"name": "simulator", "ratios": ratios, "figures": figures, "threads": numba.get_num_threads()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulator", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    result = measure()
    if options.json:
        print(json.dumps(result))
        return 0
    print(f"{result['threads']} threads")
    for key in ("figures", "ratios"):
        for name, value in result[key].items():  # type: ignore[attr-defined]
            print(f"{name:<72}{value:>16,.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
