"""The scheduler's own cost in the loop, against the time that it has: a slot of 10 ms.

The edge decides Problem 5 for all queues each slot, on the same path as a live run (queues, clock and allocation; no
tail computes here). A device decides Problems 3 and 4. A policy decides all cuts once a period, here with something in
every queue: the state (25) is put together from the period's means, and the policy is asked.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from splitinfer.policies import named_policy
from splitinfer.runtime.emulation import EmulatedClock, Job
from splitinfer.runtime.loop.edge import EdgeLoop, EdgeTask
from splitinfer.scheduling.observation import Setting
from splitinfer.scheduling.period import Period
from splitinfer.scheduling.policy import Policy
from splitinfer.scheduling.rules import ALLOCATIONS, Waiting
from splitinfer.simulation import Scenario
from splitinfer.simulation.build import setting_of


def _percentiles_s(action: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and 99th percentile of an action's time, seconds."""
    for _ in range(3):
        action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times), float(np.percentile(times, 99))


def edge_slot_s(setting: Setting, policy: Policy, allocation: str, repeats: int) -> tuple[float, float]:
    """Time of one slot of the edge with something in every queue."""
    with ThreadPoolExecutor(1) as executor:
        clock = EmulatedClock(setting.active.size, slot_s=setting.slot_s, executor=executor)
        rule = ALLOCATIONS[allocation]()
        rule.start(setting)
        edge = EdgeLoop(setting, policy, clock, rule)  # asks the policy once, before the first period
        rng = np.random.default_rng(0)
        for queue in range(setting.active.size):
            task = EdgeTask(queue // setting.num_services, queue % setting.num_services, queue, 0, 0)
            clock.submit(queue, Job(task, lambda: b""), float(rng.uniform(1e12, 2e12)))

        def slot() -> None:
            edge.close_slot()
            edge.open_slot(0)

        return _percentiles_s(slot, repeats)


def device_slot_s(setting: Setting, allocation: str, repeats: int) -> tuple[float, float]:
    """Time of one device's decisions in a slot."""
    services = setting.active.shape[1]
    cycles, bits = np.linspace(1e8, 2e8, services), np.linspace(1e5, 2e5, services)
    tasks, arrival = np.ones(services, np.int64), np.zeros(services, np.int64)
    rule = ALLOCATIONS[allocation]()
    rule.start(setting)

    def decide() -> None:
        rule.observe(0, 1e-9)
        rule.local(0, Waiting(cycles, tasks, cycles, arrival, 0))
        rule.transmission(0, Waiting(bits, tasks, bits, arrival, 0), 1e-9)

    return _percentiles_s(decide, repeats)


def policy_s(setting: Setting, policy: Policy, repeats: int) -> tuple[float, float]:
    """Time of one decision on all cuts, as a live run takes it at the end of a period."""
    policy.reset(setting, np.random.default_rng(0))
    with ThreadPoolExecutor(1) as executor:
        clock = EmulatedClock(setting.active.size, slot_s=setting.slot_s, executor=executor)
        edge = EdgeLoop(setting, policy, clock, ALLOCATIONS["drift-plus-penalty"]())
        rng = np.random.default_rng(1)
        devices, services = setting.active.shape
        # Up to two tasks' work in every queue, and everybody served.
        tasks = np.stack([setting.task_cycles, setting.input_bits, setting.task_cycles])
        most = np.array([3e8, 1e5, 5e7])[:, None, None]
        periods = itertools.cycle(
            Period(
                slots=setting.slots_per_period,
                cuts=edge.cuts,
                backlog=rng.uniform(0, 2, (3, devices, services)) * tasks,
                service_rate=rng.uniform(0, 1, (3, devices, services)) * most,
                power_w=rng.uniform(0, 0.3, devices),
                max_rate_bps=rng.uniform(1e5, 1e6, devices),
                local_energy_j=np.zeros(devices),
                transmission_energy_j=np.zeros(devices),
            )
            for _ in range(100)
        )

        def decide() -> None:
            edge.choose_cuts(replace(next(periods), cuts=edge.cuts))

        return _percentiles_s(decide, repeats)


def main(argv: list[str] | None = None) -> int:
    """Print times and their share of what they may take."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control_loop", description=__doc__)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument(
        "--policies",
        nargs="+",
        default=["lyappo", "myopic"],
        help="as splitinfer run takes them, also training folders",
    )
    parser.add_argument("--allocation", default="drift-plus-penalty", choices=list(ALLOCATIONS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    scenario = Scenario.preset("xr").replace(num_devices=options.devices)
    setting = setting_of(scenario)
    fixed = named_policy("fixed", scenario)
    fixed.reset(setting, np.random.default_rng(0))
    times = {
        "edge_slot_ms": edge_slot_s(setting, fixed, options.allocation, options.repeats),
        "device_slot_ms": device_slot_s(setting, options.allocation, options.repeats),
    }
    for name in options.policies:
        times[f"{name}_ms"] = policy_s(setting, named_policy(name, scenario), options.repeats)
    slot_s = setting.slot_s
    queues = f"{options.devices} devices x {setting.active.shape[1]} services"
    ratios = {
        f"edge, {queues} / a slot (goal 0.1)": times["edge_slot_ms"][0] / slot_s,
        "device, Problems 3 and 4 / a slot": times["device_slot_ms"][0] / slot_s,
    }
    for name in options.policies:
        ratios[f"policy {name}, {queues} / 5 ms (goal 1)"] = times[f"{name}_ms"][0] / 5e-3
    if options.json:
        record = {name: {"p50": p50 * 1e3, "p99": p99 * 1e3} for name, (p50, p99) in times.items()}
        print(json.dumps({"name": "control_loop", "ratios": ratios, "times": record}))
    else:
        for name, (p50, p99) in times.items():
            print(f"{name}: p50 {p50 * 1e3:.3f}, p99 {p99 * 1e3:.3f}")
        for key, value in ratios.items():
            print(f"{key}: {value:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
