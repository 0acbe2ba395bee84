"""Best-static: the best cut per service that never changes, found by trying candidates.

Trying means simulating, and scheduling knows no simulator: whoever can try cuts hands in a function. ``simulate`` does
so by itself; elsewhere call ``splitinfer.simulation.find_best_static``.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.scheduling.observation import Observation, Setting
from splitinfer.scheduling.policy import Cuts, pareto_cuts

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """What came of C candidates on M devices, all under the same arrivals and channel gains.

    Attributes:
        energy_j: mean energy per slot, shape (C, M).
        scaled_queue: mean Qbar, shape (C, M).
        stable: whether no queue of the device grows, shape (C, M).
        growth_s: by how much the backlog grows, in seconds of work per second, shape (C, M).
        latency_s: mean over each device's tasks, shape (C, M), which decides between candidates of equal value.
        cost_j: energy + w x the sum of latencies, mean per slot, shape (C, M); for the objective ``"cost"``.
    """

    energy_j: Array
    scaled_queue: Array
    stable: NDArray[np.bool_]
    growth_s: Array
    latency_s: Array | None = None
    cost_j: Array | None = None


TIE_SHARE = 1e-9

Evaluate = Callable[[Cuts, int], Trial]
"""Tries cuts of shape (C, M, N) for a number of slots."""


@dataclass(frozen=True)
class SearchReport:
    """What a search found and what it cost.

    Attributes:
        cuts: the best cuts, shape (M, N).
        objective: value per device, shape (M,): joules per slot, or the negative reward of (34).
        stable: whether the cuts were stable together in the last, longest trial.
        candidates: number of cut combinations tried per device.
        device_slots: simulated slots times devices.
        seconds: wall-clock time.
        per_device: False where one combination was taken for all devices.
    """

    cuts: Cuts
    objective: Array
    stable: bool
    candidates: int
    device_slots: int
    seconds: float
    per_device: bool


class BestStaticCut:
    """The fixed cuts of least energy among those that keep every queue stable.

    Devices share nothing but the edge's frequency, so each gets its own best cuts (``per_device=True``), and one trial
    tries a different candidate on every device at once. If the cuts found so are not stable together (the edge is what
    is scarce), the search is repeated with the same cuts on every device.

    A device's candidates are the combinations of its services' Pareto cuts where these are at most ``max_candidates``,
    and they are thinned by successive halving: each round doubles the slots and drops the worse half. Beyond that, a
    coordinate search changes one service at a time until nothing improves.

    Args:
        objective: ``"energy"`` (mean joules per slot); ``"reward"`` (the negative of (34)); or ``"cost"``, energy + w x
            latency, by which policies are judged under the price of time. By name, ``best-static`` goes by energy under
            drift-plus-penalty and by cost under price.
        per_device: False for the same cuts on all devices (they must host the same services).
        first_slots: slots of the first round, and of a coordinate search's trials.
        last_slots: slots of the last round.
        max_candidates: most combinations to try one by one.
        cuts: ``"pareto"`` or ``"all"``: which cuts of a service are candidates.
    """

    static = True

    def __init__(
        self,
        *,
        objective: Literal["energy", "reward", "cost"] = "energy",
        per_device: bool = True,
        first_slots: int = 4_000,
        last_slots: int = 32_000,
        max_candidates: int = 64,
        cuts: Literal["pareto", "all"] = "pareto",
    ) -> None:
        self.name = "best-static"
        self.report: SearchReport | None = None
        self._objective = objective
        self._per_device = per_device
        self._first_slots = first_slots
        self._last_slots = last_slots
        self._max_candidates = max_candidates
        self._candidate_cuts = cuts

    def prepare(self, setting: Setting, evaluate: Evaluate) -> SearchReport:
        """Search, and keep what was found for the runs that follow.

        Args:
            setting: the world, M devices with up to N services.
            evaluate: simulates cuts of shape (E, M, N) for E trials at once.

        Raises:
            InputError: ``per_device=False``, and devices have different services.
        """
        started = time.perf_counter()
        search = _Search(setting, evaluate, self._objective)
        choices = [
            [self._choices(setting, device, service) for service in np.flatnonzero(setting.active[device]).tolist()]
            for device in range(len(setting.active))
        ]
        alike = _same_services(setting)
        if not self._per_device and not alike:
            raise InputError("best-static: per_device=False needs the same services on every device")
        per_device = self._per_device
        cuts = self._search(search, choices, per_device)
        value, stable = search.last_value(cuts, self._last_slots)
        if not stable and per_device and alike:
            shared = self._search(search, choices, False)
            shared_value, shared_stable = search.last_value(shared, self._last_slots)
            if shared_stable:
                cuts, value, stable, per_device = shared, shared_value, True, False
        self.report = SearchReport(
            cuts=cuts,
            objective=value,
            stable=stable,
            candidates=search.candidates,
            device_slots=search.device_slots,
            seconds=time.perf_counter() - started,
            per_device=per_device,
        )
        return self.report

    def reset(self, setting: Setting, rng: np.random.Generator) -> None:
        if self.report is None:
            raise InputError("best-static: no search was made; call splitinfer.simulation.find_best_static(scenario)")
        if self.report.cuts.shape != setting.active.shape or np.any(self.report.cuts > setting.num_cuts):
            raise InputError("best-static: the cuts were searched for another scenario; make a new BestStaticCut")

    def cuts(self, observation: Observation) -> Cuts:
        assert self.report is not None, "reset comes first"
        return self.report.cuts

    def _choices(self, setting: Setting, device: int, service: int) -> list[int]:
        highest = int(setting.num_cuts[device, service])
        if self._candidate_cuts == "all":
            return list(range(highest + 1))
        cuts = pareto_cuts(
            setting.local_cycles[device, service, : highest + 1],
            setting.transmission_bits[device, service, : highest + 1],
        )
        return [int(cut) for cut in cuts]

    def _search(self, search: _Search, choices: list[list[list[int]]], per_device: bool) -> Cuts:
        if not per_device:
            choices = choices[:1]
        most = max(int(np.prod([len(cuts) for cuts in device])) for device in choices)
        if most <= self._max_candidates:
            products = [list(itertools.product(*device)) for device in choices]
            return search.halve(products, self._first_slots, self._last_slots)
        return search.descend(choices, self._first_slots, self._last_slots)


class _Search:
    """Tries candidates and keeps the bill. A list for one device only stands for all of them."""

    def __init__(self, setting: Setting, evaluate: Evaluate, objective: str) -> None:
        self._setting = setting
        self._evaluate = evaluate
        self._objective = objective
        self.candidates = 0
        self.device_slots = 0

    def halve(self, candidates: list[list[tuple[int, ...]]], slots: int, last_slots: int) -> Cuts:
        """Successive halving: score all, keep the better half, double the slots."""
        self.candidates += max(len(device) for device in candidates)
        while max(len(device) for device in candidates) > 1:
            scores = self._scores(candidates, slots)
            enough = slots >= last_slots
            kept = []
            for device, own in zip(candidates, scores, strict=True):
                order = np.argsort(own[: len(device)], kind="stable")
                kept.append([device[i] for i in order[: 1 if enough else max(1, (len(device) + 1) // 2)]])
            candidates = kept
            slots = min(2 * slots, last_slots)
        return self._table([device[0] for device in candidates])

    def descend(self, choices: list[list[list[int]]], slots: int, last_slots: int) -> Cuts:
        """Coordinate search from a fully local and a fully offloaded device; the better end is kept."""
        ends = []
        for start in (-1, 0):
            current = [tuple(cuts[start] for cuts in device) for device in choices]
            for _ in range(4):
                before = list(current)
                for service in range(max(len(device) for device in choices)):
                    candidates = [
                        _with_each(own, service, device[service] if service < len(device) else [])
                        for own, device in zip(current, choices, strict=True)
                    ]
                    self.candidates += max(len(device) for device in candidates)
                    scores = self._scores(candidates, slots)
                    current = [
                        device[int(np.argmin(own[: len(device)]))]
                        for device, own in zip(candidates, scores, strict=True)
                    ]
                if current == before:
                    break
            ends.append(current)
        return self.halve([list(dict.fromkeys(pair)) for pair in zip(*ends, strict=True)], last_slots, last_slots)

    def last_value(self, cuts: Cuts, slots: int) -> tuple[Array, bool]:
        """Return the objective per device and whether all is stable, with these cuts together."""
        trial = self._try(cuts[None], slots)
        return self._value(trial)[0], bool(trial.stable.all())

    def _scores(self, candidates: list[list[tuple[int, ...]]], slots: int) -> list[Array]:
        most = max(len(device) for device in candidates)
        # A device with fewer candidates repeats its last one; those scores are not read.
        tables = [self._table([device[min(i, len(device) - 1)] for device in candidates]) for i in range(most)]
        trial = self._try(np.stack(tables), slots)
        value = self._value(trial)
        if trial.latency_s is not None:
            # A share so small that it only decides ties: of two cuts of one energy the faster.
            value = value + TIE_SHARE * np.abs(value) * trial.latency_s / (1.0 + trial.latency_s)
        # Unstable ones come after all stable ones, the fastest growth last.
        score = np.where(trial.stable, value, value.max() + 1.0 + np.maximum(trial.growth_s, 0.0))
        if len(candidates) == 1:
            return [score.mean(axis=1)]
        return list(score.T)

    def _try(self, cuts: Cuts, slots: int) -> Trial:
        self.device_slots += cuts.shape[0] * cuts.shape[1] * slots
        return self._evaluate(cuts, slots)

    def _value(self, trial: Trial) -> Array:
        if self._objective == "energy":
            return trial.energy_j
        if self._objective == "cost":
            if trial.cost_j is None:
                raise InputError("best-static: the objective cost needs trials that measure it")
            return trial.cost_j
        setting = self._setting
        return setting.reward_energy_weight * trial.energy_j + setting.reward_queue_weight * trial.scaled_queue

    def _table(self, own: list[tuple[int, ...]]) -> Cuts:
        active = self._setting.active
        table = np.zeros(active.shape, dtype=np.int64)
        for device in range(len(active)):
            cuts = own[device if len(own) > 1 else 0]
            table[device, : len(cuts)] = cuts
        return table


def _with_each(cuts: tuple[int, ...], service: int, choices: list[int]) -> list[tuple[int, ...]]:
    return [(*cuts[:service], choice, *cuts[service + 1 :]) for choice in choices] or [cuts]


def _same_services(setting: Setting) -> bool:
    return all(
        np.array_equal(table, np.broadcast_to(table[:1], table.shape))
        for table in (setting.active, setting.num_cuts, setting.local_cycles, setting.transmission_bits)
    )
