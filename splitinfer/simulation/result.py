"""What a simulated run gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.simulation.records import FinishedTasks
from splitinfer.simulation.stability import StabilityReport

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RunTrace:
    """The run slot by slot (every so many slots), S samples.

    Attributes:
        slot: (S,) number of the slot.
        backlog: (S, 3, M, N) Q^l (cycles), Q^t (bits), Q^e (cycles) at the start of the slot.
        service_rate: (S, 3, M, N) f^l (cycles/s), r (bit/s), f^e (cycles/s) in the slot.
        power_w: (S, M) p.
        cuts: (S, M, N) the cut of tasks that arrive in the slot.
        local_energy_weight: (S, M) U^l in force.
        transmission_energy_weight: (S, M) U^t in force.
    """

    slot: NDArray[np.int64]
    backlog: Array
    service_rate: Array
    power_w: Array
    cuts: NDArray[np.int64]
    local_energy_weight: Array
    transmission_energy_weight: Array


@dataclass(frozen=True, eq=False)
class Utilisation:
    """Mean share of each station's capacity in use, 0..1.

    Attributes:
        local: (M,) of F^l.
        link: (M,) of the rate at full power.
        edge: of F^e.
        max_rate_bps: (M,) mean rate at full power.
    """

    local: Array
    link: Array
    edge: float
    max_rate_bps: Array


@dataclass(frozen=True, eq=False)
class SimulationResult:
    """One run of one policy.

    Attributes:
        scenario: name of the scenario.
        policy: name of the policy.
        seed: of the run.
        slots: length of the run.
        slot_s: tau.
        energy_local_j: local energy per device and slot, mean over both.
        energy_transmission_j: transmission energy per device and slot, mean over both.
        device_energy_local_j: (M,) the same for each device.
        device_energy_transmission_j: (M,).
        tasks: the finished tasks one by one: device, service, cut, arrival and finish slot, latency.
        mean_queue: (3, M, N) mean Q^l (cycles), Q^t (bits), Q^e (cycles).
        arrived_by_service: (M, N) requests that came in.
        finished_by_service: (M, N) requests that were finished.
        utilisation: how busy the stations were.
        stability: whether any queue grows.
        final_local_energy_weight: (M,) U^l at the end (it moves where there is a latency target).
        final_transmission_energy_weight: (M,) U^t at the end.
        notes: what a reader should know of the run, for example that a trace ended before it.
        trace: the run over time, if asked for.
    """

    scenario: str
    policy: str
    seed: int
    slots: int
    slot_s: float
    energy_local_j: float
    energy_transmission_j: float
    device_energy_local_j: Array
    device_energy_transmission_j: Array
    tasks: FinishedTasks
    mean_queue: Array
    arrived_by_service: NDArray[np.int64]
    finished_by_service: NDArray[np.int64]
    utilisation: Utilisation
    stability: StabilityReport
    final_local_energy_weight: Array
    final_transmission_energy_weight: Array
    trace: RunTrace | None = None
    notes: tuple[str, ...] = ()

    @property
    def latency_s(self) -> Array:
        """Latency of each finished task, in the order of ``tasks``."""
        return self.tasks.latency_s

    @property
    def energy_j(self) -> float:
        """Energy per device and slot, local and transmission."""
        return self.energy_local_j + self.energy_transmission_j

    @property
    def arrived(self) -> int:
        """Requests that came in."""
        return int(self.arrived_by_service.sum())

    @property
    def finished(self) -> int:
        """Requests that were finished."""
        return int(self.finished_by_service.sum())

    @property
    def in_flight(self) -> int:
        """Requests that were still queued somewhere at the end."""
        return self.arrived - self.finished

    @property
    def energy_per_task_j(self) -> float:
        """All energy spent over the finished tasks; nan when none was finished."""
        spent = self.energy_j * self.slots * len(self.device_energy_local_j)
        return spent / self.finished if self.finished else float("nan")

    def latency_percentile_s(self, percent: float) -> float:
        """A percentile of the latency of all finished tasks; nan when none was finished."""
        return float(np.percentile(self.latency_s, percent)) if len(self.latency_s) else float("nan")

    def service_latency_s(self, device: int, service: int) -> Array:
        """Latencies of one service's finished tasks."""
        mine = (self.tasks.device == device) & (self.tasks.service == service)
        own: Array = self.tasks.latency_s[mine]
        return own

    def to_dict(self) -> dict[str, Any]:
        """Return the figures (not the tasks and traces) as JSON-ready numbers."""
        percentiles = {f"p{p}": self.latency_percentile_s(p) for p in (50, 90, 95, 99)}
        mean = float(self.latency_s.mean()) if len(self.latency_s) else float("nan")
        return {
            "scenario": self.scenario,
            "policy": self.policy,
            "seed": self.seed,
            "slots": self.slots,
            "slot_s": self.slot_s,
            "energy_local_j": float(self.energy_local_j),
            "energy_transmission_j": float(self.energy_transmission_j),
            "energy_j": float(self.energy_j),
            "energy_per_task_j": _number(self.energy_per_task_j),
            "latency_s": {name: _number(value) for name, value in ({"mean": mean} | percentiles).items()},
            "mean_queue": {
                "local_cycles": self.mean_queue[0].tolist(),
                "transmission_bits": self.mean_queue[1].tolist(),
                "edge_cycles": self.mean_queue[2].tolist(),
            },
            "arrived": self.arrived,
            "finished": self.finished,
            "in_flight": self.in_flight,
            "notes": list(self.notes),
            "utilisation": {
                "local": self.utilisation.local.tolist(),
                "link": self.utilisation.link.tolist(),
                "edge": self.utilisation.edge,
            },
            "stable": self.stability.stable if self.stability.is_known else None,
            "growing": list(self.stability.growing),
            "stability_statistic": dict(
                zip(self.stability.stations, (_number(z) for z in self.stability.statistic), strict=True)
            ),
        }


def _number(value: float) -> float | None:
    """JSON knows neither nan nor infinity."""
    return float(value) if np.isfinite(value) else None
