"""What a live run leaves behind: its events, put together as the same figures that a simulation gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.files import json_of, read_text
from splitinfer.runtime.events import (
    DeviceLeft,
    DeviceLost,
    DeviceReturned,
    DidAlone,
    Ended,
    Event,
    PeriodEnded,
    Started,
    TaskDone,
    read_event,
)
from splitinfer.simulation.build import setting_of
from splitinfer.simulation.records import FinishedTasks
from splitinfer.simulation.result import RunTrace, SimulationResult, Utilisation
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.stability import stability_of, station_backlogs

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lateness:
    """Where one host was slower than what it stands for.

    Attributes:
        who: ``"device 0"``, ..., ``"edge"``.
        slot_overruns: slots whose work was done only after their end.
        late_cuts: periods whose cuts came after they were needed.
        jobs: heads or tails that ran.
        late_jobs: of them, those that the host finished after their cycles were worked off.
        late_slots: slots by which these were late, summed.
        late_s: the same on the wall clock, seconds.
        worst_s: the latest.
        host_s: time that heads or tails took on this host, summed, seconds.
    """

    who: str
    slot_overruns: int
    late_cuts: int
    jobs: int
    late_jobs: int
    late_slots: int
    late_s: float
    worst_s: float
    host_s: float


@dataclass(frozen=True, eq=False)
class LiveResult:
    """A live run.

    Attributes:
        figures: energies, latencies, queues and stability, as a simulation has them.
        time_scale: wall-clock time per virtual time.
        wall_latency_s: of every answered task: real time from the slot in which it came to its answer on the device,
            divided by the time scale, seconds.
        checked: answers that were compared with the whole model's.
        wrong: of them, those that differ by more than the tolerance.
        lost: devices that were lost, and that came back, in order, as lines; what they did in between is not counted.
        tolerance: of answers, relative to the largest magnitude; 0 asks for the same bits.
        unexpected: answers to tasks that were not waiting for one.
        unanswered: tasks without an answer at the end.
        lateness: of each device, then of the edge.
        retries: how often a device without its edge asked to be taken back, by device; of those that did.
        fallbacks: tasks that it finished by itself for want of an edge, per service, by device.
    """

    figures: SimulationResult
    time_scale: float
    wall_latency_s: Array
    checked: int
    wrong: int
    unexpected: int
    unanswered: int
    lateness: tuple[Lateness, ...]
    tolerance: float = 0.0
    lost: tuple[str, ...] = ()
    retries: Mapping[int, int] = field(default_factory=dict)
    fallbacks: Mapping[int, list[int]] = field(default_factory=dict)

    @property
    def is_right(self) -> bool:
        """Whether every answer is the whole model's, to the tolerance, and every task is accounted for once.

        Of a device that was lost nobody knows; the others' tasks are held to it.
        """
        counted = self.checked == self.figures.finished and self.unanswered == self.figures.in_flight
        return (counted or bool(self.lost)) and not self.wrong and not self.unexpected

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready numbers."""
        wall = self.wall_latency_s
        percentiles = {f"p{p}": float(np.percentile(wall, p)) if len(wall) else None for p in (50, 90, 95, 99)}
        figures = self.figures
        return figures.to_dict() | {
            "measured": True,
            "time_scale": self.time_scale,
            "device_energy_local_j": figures.device_energy_local_j.tolist(),
            "device_energy_transmission_j": figures.device_energy_transmission_j.tolist(),
            "wall_latency_s": {"mean": float(wall.mean()) if len(wall) else None} | percentiles,
            "checked": self.checked,
            "wrong": self.wrong,
            "tolerance": self.tolerance,
            "lost": list(self.lost),
            "retries": {str(device): count for device, count in self.retries.items()},
            "fallbacks": {str(device): counts for device, counts in self.fallbacks.items()},
            "unexpected": self.unexpected,
            "unanswered": self.unanswered,
            "lateness": [vars(one) for one in self.lateness],
        }


class LiveRecord:
    """Takes the events of a run one by one.

    Attributes:
        start: how it started, once it has.
        periods: its periods.
        tasks: its finished tasks.
        lost: devices that were lost and came back, as lines.
    """

    def __init__(self) -> None:
        self.start: Started | None = None
        self.periods: list[PeriodEnded] = []
        self.tasks: list[TaskDone] = []
        self.lost: list[str] = []
        self._devices: dict[int, DeviceLeft] = {}
        self._retries: Counter[int] = Counter()
        self._fallbacks: dict[int, list[int]] = {}
        self._end: Ended | None = None

    def add(self, event: Event) -> None:
        """Take one event; those of other kinds are ignored."""
        match event:
            case Started():
                self.start = event
            case PeriodEnded():
                self.periods.append(event)
            case TaskDone():
                self.tasks.append(event)
            case DeviceLeft():
                self._devices[event.device] = event
            case DeviceLost():
                self.lost.append(
                    f"device {event.device} was lost in slot {event.slot} with {event.tasks} tasks at the edge: "
                    f"{event.reason}"
                )
            case DeviceReturned():
                self.lost.append(f"device {event.device} came back in slot {event.slot}")
            case DidAlone():
                self._retries[event.device] += event.retries
                so_far = self._fallbacks.setdefault(event.device, [0] * len(event.fallbacks))
                self._fallbacks[event.device] = [a + b for a, b in zip(so_far, event.fallbacks, strict=True)]
            case Ended():
                self._end = event

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end."""
        return self._end is not None

    def result(self, scenario: Scenario) -> LiveResult:
        """Put the run together.

        Raises:
            InputError: the run did not come to its end.
        """
        start, end = self.start, self._end
        if start is None or end is None or not self.periods:
            raise InputError("the run did not come to its end, so it has no result")
        devices = [self._devices[m] for m in sorted(self._devices)]
        wall = [latency for device in devices for latency in device.wall_latency_s]
        return LiveResult(
            figures=self._figures(scenario, start, end),
            time_scale=start.time_scale,
            tolerance=start.tolerance,
            lost=tuple(self.lost),
            retries=dict(self._retries),
            fallbacks=self._fallbacks,
            wall_latency_s=np.array(wall, dtype=np.float64),
            checked=sum(device.checked for device in devices),
            wrong=sum(device.wrong for device in devices),
            unexpected=sum(device.unexpected for device in devices),
            unanswered=sum(device.unanswered for device in devices),
            lateness=(
                *(
                    Lateness(
                        f"device {device.device}",
                        device.slot_overruns,
                        device.late_cuts,
                        **device.shortfall,
                    )
                    for device in devices
                ),
                Lateness("edge", end.slot_overruns, 0, **end.shortfall),
            ),
        )

    def _figures(self, scenario: Scenario, start: Started, end: Ended) -> SimulationResult:
        setting = setting_of(scenario)
        lengths = np.array([period.slots for period in self.periods], dtype=np.float64)
        columns = {
            name: np.array([getattr(period, name) for period in self.periods], dtype=np.float64)
            for name in (
                "backlog",
                "service_rate",
                "power_w",
                "max_rate_bps",
                "local_energy_j",
                "transmission_energy_j",
            )
        }
        means = {name: np.average(column, axis=0, weights=lengths) for name, column in columns.items()}
        equal = lengths == lengths[0]
        tasks = self._finished_tasks(setting.slot_s)
        finished = np.zeros(setting.active.shape, np.int64)
        np.add.at(finished, (tasks.device, tasks.service), 1)
        rate = means["service_rate"]
        devices = len(setting.active)
        return SimulationResult(
            scenario=scenario.name,
            policy=start.policy,
            seed=start.seed,
            slots=int(lengths.sum()),
            slot_s=setting.slot_s,
            energy_local_j=np.float64(means["local_energy_j"].mean()),
            energy_transmission_j=np.float64(means["transmission_energy_j"].mean()),
            device_energy_local_j=means["local_energy_j"],
            device_energy_transmission_j=means["transmission_energy_j"],
            tasks=tasks,
            mean_queue=means["backlog"],
            arrived_by_service=np.array(end.arrived, np.int64),
            finished_by_service=finished,
            utilisation=Utilisation(
                local=rate[0].sum(axis=-1) / setting.max_local_frequency_hz,
                # A device that never came, or left at once, has no channel that anybody knows.
                link=rate[1].sum(axis=-1) / np.where(means["max_rate_bps"] > 0, means["max_rate_bps"], np.inf),
                edge=float(rate[2].sum() / setting.max_edge_frequency_hz),
                max_rate_bps=means["max_rate_bps"],
            ),
            stability=stability_of(station_backlogs(columns["backlog"][equal]), float(lengths[0]) * setting.slot_s),
            final_local_energy_weight=np.broadcast_to(setting.local_energy_weight, devices).copy(),
            final_transmission_energy_weight=np.broadcast_to(setting.transmission_energy_weight, devices).copy(),
            trace=RunTrace(
                slot=np.array([period.first_slot for period in self.periods], np.int64),
                backlog=columns["backlog"],
                service_rate=columns["service_rate"],
                power_w=columns["power_w"],
                cuts=np.array([period.cuts for period in self.periods], np.int64),
                local_energy_weight=np.tile(setting.local_energy_weight, (len(lengths), 1)),
                transmission_energy_weight=np.tile(setting.transmission_energy_weight, (len(lengths), 1)),
            ),
        )

    def _finished_tasks(self, slot_s: float) -> FinishedTasks:
        names = ("device", "service", "arrival_slot", "finish_slot", "cut")
        table = np.array([[getattr(task, name) for name in names] for task in self.tasks], np.int64).reshape(
            -1, len(names)
        )
        device, service, arrival, finish, cut = table.T
        return FinishedTasks(
            environment=np.zeros(len(table), np.int64),
            device=device,
            service=service,
            arrival_slot=arrival,
            finish_slot=finish,
            cut=cut,
            latency_s=np.asarray((finish + 1 - arrival) * slot_s, dtype=np.float64),
        )


MAX_TRACE_BYTES = 1_000_000_000
"""Largest trace of a live run that is read."""


def read_trace(path: str | Path) -> LiveRecord:
    """Read a trace file that ``splitinfer run --trace`` wrote.

    Raises:
        InputError: the file is absent or no such trace.
    """
    try:
        lines = read_text(path, max_bytes=MAX_TRACE_BYTES).splitlines()
        return record_of(read_event(json_of(line)) for line in lines)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (InputError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no trace of a live run: {error}") from None


def record_of(events: Iterable[Event]) -> LiveRecord:
    """Return the record of some events."""
    record = LiveRecord()
    for event in events:
        record.add(event)
    return record
