"""Run a policy in a scenario: the loop over partition periods around the engine's loop over slots."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.scheduling.latency_target import LatencyTarget
from splitinfer.scheduling.observation import Observation
from splitinfer.scheduling.policy import Policy, Request, checked_cuts, is_static, sets_resources
from splitinfer.scheduling.rules import AllocationRule, is_compiled
from splitinfer.simulation.build import rule_of, setting_of
from splitinfer.simulation.engine import Engine
from splitinfer.simulation.records import FinishedTasks, PeriodStatistics
from splitinfer.simulation.result import RunTrace, SimulationResult, Utilisation
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.stability import stability_of, station_backlogs
from splitinfer.simulation.surroundings import POLICY, Surroundings, stream

Array = NDArray[np.float64]

MAX_QUEUE_SLOTS = 20_000_000_000
"""Most slots times services times runs of one call. Runs of static cuts hold a hundredth of it in memory at a time."""

MAX_TASKS = 100_000_000
"""Most requests of one call, in the mean: each is kept, with its latency."""

_STATIC_PARTS = 100
"""A run of static cuts needs no observations; it is advanced in this many parts, for the stability test."""

_DRAW_ELEMENTS = 500_000
"""Arrivals are drawn ahead in pieces of about this many numbers: fewer calls, bounded memory."""


def simulate(
    scenario: Scenario,
    policy: Policy,
    slots: int = 20_000,
    seed: int = 0,
    *,
    trace: int | None = None,
    solver: str = "closed-form",
    allocation: str | AllocationRule | None = None,
) -> SimulationResult:
    """Simulate one policy in one scenario.

    The same seed gives the same result. Arrivals and channel gains depend on the scenario and the seed alone, so
    policies that are compared at one seed meet the same world.

    Args:
        scenario: the world.
        policy: chooses the cuts; it is reset first. A policy that has to be searched for (``BestStaticCut``) is, once,
            on other seeds than this run's.
        slots: length of the run.
        seed: of arrivals, channel and the policy's own randomness.
        trace: keep every so many slots in full in ``result.trace``.
        solver: ``"closed-form"``, or ``"cvxpy"`` for the reference solver (about a thousand times slower).
        allocation: a rule's name, or an ``AllocationRule`` of your own, in place of the scenario's ``allocation``.

    Raises:
        InputError: the policy does not fit the scenario, or a number is out of range.
    """
    return simulate_batch(
        scenario, [policy], seeds=[seed], slots=slots, trace=trace, solver=solver, allocation=allocation
    )[0]


def simulate_batch(
    scenario: Scenario,
    policies: Sequence[Policy],
    *,
    seeds: Sequence[int],
    slots: int = 20_000,
    energy_weights: Sequence[tuple[float, float]] | None = None,
    trace: int | None = None,
    solver: str = "closed-form",
    allocation: str | AllocationRule | None = None,
) -> list[SimulationResult]:
    """Simulate several runs of one scenario side by side: run i has ``policies[i]`` and ``seeds[i]``.

    Every run gets a copy of its policy, so one object may be given several times.

    Args:
        scenario: the world.
        policies: one per run.
        seeds: one per run; runs of one seed meet the same arrivals and gains.
        slots: length of each run.
        energy_weights: (U^l, U^t) per run, in place of the scenario's.
        trace: as ``simulate``.
        solver: as ``simulate``.
        allocation: as ``simulate``.

    Raises:
        InputError: as ``simulate``, the lists differ in length, or only some of the policies set resources.
    """
    if len(policies) != len(seeds) or not seeds:
        raise InputError(f"policies and seeds: need as many of both, at least one, not {len(policies)}, {len(seeds)}")
    if slots < 1:
        raise InputError(f"slots: must be at least 1, not {slots}")
    _check_size(scenario, slots, len(seeds))
    if trace is not None and trace < 1:
        raise InputError(f"trace: keep every n-th slot with n at least 1, not {trace}")
    if any(seed < 0 for seed in seeds):
        raise InputError(f"seed: must be 0 or more, not {min(seeds)}")
    if energy_weights is not None and len(energy_weights) != len(seeds):
        raise InputError(f"energy_weights: need {len(seeds)}, one per run, not {len(energy_weights)}")
    worlds = [scenario] * len(seeds)
    if energy_weights is not None:
        worlds = [
            scenario.replace(local_energy_weight=local, transmission_energy_weight=transmission)
            for local, transmission in energy_weights
        ]
    prepare(policies, scenario)
    run = _Run(worlds, [deepcopy(policy) for policy in policies], list(seeds), trace, solver, allocation)
    run.advance(slots)
    return [run.result(index) for index in range(len(seeds))]


def _check_size(scenario: Scenario, slots: int, runs: int) -> None:
    queues, tasks_hz = scenario.active.size, scenario.arrival_rates_hz()[scenario.active].sum()
    if slots * queues * runs > MAX_QUEUE_SLOTS:
        raise InputError(
            f"slots: {slots:,} slots of {queues} services in {runs} runs side by side are more than "
            f"{MAX_QUEUE_SLOTS:,} together; shorten the run"
        )
    tasks = float(tasks_hz) * slots * scenario.slot_s * runs
    if tasks > MAX_TASKS:
        raise InputError(
            f"slots: {slots:,} slots bring about {tasks:,.0f} requests, and at most {MAX_TASKS:,} are kept; "
            "shorten the run"
        )


def prepare(policies: Sequence[Policy], scenario: Scenario) -> None:
    """Let those policies search that have to and have not yet."""
    from splitinfer.scheduling.best_static import BestStaticCut
    from splitinfer.simulation.search import find_best_static

    for policy in policies:
        if isinstance(policy, BestStaticCut) and policy.report is None:
            find_best_static(scenario, policy)


class _Run:
    """E runs in step, one period (or part) after another."""

    def __init__(
        self,
        scenarios: list[Scenario],
        policies: list[Policy],
        seeds: list[int],
        trace: int | None,
        solver: str,
        allocation: str | AllocationRule | None,
    ) -> None:
        # The scenarios differ in their energy weights alone, which no one but the engine and the policies looks at.
        scenario = scenarios[0]
        settings = [setting_of(own) for own in scenarios]
        setting = settings[0]
        self._scenario = scenario
        self._setting = setting
        self._policies = policies
        self._seeds = seeds
        self._trace = trace
        # One world for all runs of one seed: it is drawn once.
        self._surroundings = {seed: Surroundings(scenario, seed) for seed in dict.fromkeys(seeds)}
        for policy, own, seed in zip(policies, settings, seeds, strict=True):
            policy.reset(own, stream(scenario, seed, POLICY))
        self._static = all(is_static(policy) for policy in policies)
        targets = scenario.latency_targets_s()
        self._allocating = [policy for policy in policies if sets_resources(policy)]
        if self._allocating:
            self._check_allocating(len(policies), targets is not None, solver)
        # Waking numba's threads costs more than a period of a few slots; long parts are worth it.
        in_parts = self._static and targets is None
        rule = rule_of(scenario) if allocation is None else allocation
        if targets is not None and not isinstance(rule, str) and not is_compiled(rule):
            raise InputError(f"p95_latency_s: the allocation {rule.name} has no weights to adapt")
        self._engine = Engine(settings, solver=solver, allocation=rule, parallel=in_parts)
        self._targets = [] if targets is None else [LatencyTarget(setting, targets) for _ in seeds]
        self._observations = [Observation.first(setting)] * len(seeds)
        self._cuts = np.stack([setting.num_cuts] * len(seeds))
        self._done = 0
        self._parts: list[PeriodStatistics] = []
        self._way_back_s: list[Array] = []  # at the end of each part
        self._trace_cuts: list[NDArray[np.int64]] = []
        self._trace_weights: list[tuple[Array, Array]] = []

    def _check_allocating(self, runs: int, has_targets: bool, solver: str) -> None:
        name = self._allocating[0].name
        if len(self._allocating) != runs:
            raise InputError(f"policies: {name} sets resources itself; simulate it apart from those that do not")
        if has_targets:
            raise InputError(f"p95_latency_s: {name} sets resources itself and has no weights to adapt")
        if solver != "closed-form":
            raise InputError(f"solver: {name} sets resources itself, nothing is left to solve")

    def advance(self, slots: int) -> None:
        part = self._part_length(slots)
        ahead = max(1, _DRAW_ELEMENTS // (self._setting.active.size * len(self._seeds) * part)) * part
        while self._done < slots:
            gains, counts = self._draw(min(ahead, slots - self._done))
            for start in range(0, gains.shape[1], part):
                self._advance_part(gains[:, start : start + part], counts[:, start : start + part])

    def _part_length(self, slots: int) -> int:
        period = self._scenario.slots_per_period
        if not self._static or self._targets:
            return period
        length = max(1, slots // (_STATIC_PARTS * period)) * period
        # A sample opens each part, so a part must not be longer than the distance of the samples.
        return length if self._trace is None else min(length, max(1, self._trace // period) * period)

    def _draw(self, slots: int) -> tuple[Array, NDArray[np.int64]]:
        drawn = {seed: surroundings.draw(slots) for seed, surroundings in self._surroundings.items()}
        gains, counts = zip(*(drawn[seed] for seed in self._seeds), strict=True)
        return np.stack(gains), np.stack(counts)

    def _advance_part(self, gains: Array, counts: NDArray[np.int64]) -> None:
        slots = gains.shape[1]
        self._cuts = np.stack(
            [
                checked_cuts(policy.cuts(seen), self._setting)
                for policy, seen in zip(self._policies, self._observations, strict=True)
            ]
        )
        for run, target in enumerate(self._targets):
            self._engine.local_energy_weight[run] = target.local_energy_weight
            self._engine.transmission_energy_weight[run] = target.transmission_energy_weight
            self._engine.queue_weight[run] = target.queue_weight
            self._engine.set_latency_price(run, target.latency_price_w)
            reprice = getattr(self._policies[run], "set_latency_price", None)
            if reprice is not None:
                reprice(target.latency_price_w)
        every = self._trace_every(slots)
        if every:
            samples = -(-slots // every)
            self._trace_cuts += [self._cuts] * samples
            weights = self._engine.local_energy_weight.copy(), self._engine.transmission_energy_weight.copy()
            self._trace_weights += [weights] * samples
        request = _stacked([policy.resources() for policy in self._allocating]) if self._allocating else None
        part = self._engine.advance(self._cuts, gains, counts, request=request, trace_every=every)
        for run, target in enumerate(self._targets):
            self._report(target, run, counts[run], part)
        self._done += slots
        self._parts.append(part)
        self._way_back_s.append(self._engine.way_back_s)
        if not self._static:
            self._observations = [Observation(self._setting, part.row(run)) for run in range(len(self._seeds))]

    def _report(self, target: LatencyTarget, run: int, counts: NDArray[np.int64], part: PeriodStatistics) -> None:
        """Tell a latency target what a real system would know."""
        slot_s = self._setting.slot_s
        slot, device, service = np.nonzero(counts)
        many = counts[slot, device, service]
        target.arrived(np.repeat((self._done + slot) * slot_s, many), np.repeat(device, many), np.repeat(service, many))
        mine = part.tasks.environment == run
        target.finished(part.tasks.device[mine], part.tasks.service[mine], part.tasks.latency_s[mine])
        target.adapt((self._done + len(counts)) * slot_s, part.cuts[run], part.max_rate_bps[run])

    def _trace_every(self, slots: int) -> int:
        if self._trace is None:
            return 0
        if self._trace < slots:
            return self._trace
        return slots if self._done % self._trace < slots else 0

    def result(self, run: int) -> SimulationResult:
        parts = self._parts
        lengths = np.array([part.slots for part in parts], dtype=np.float64)

        def mean(rows: Sequence[Array]) -> Array:
            averaged: Array = np.average(np.stack([row[run] for row in rows]), axis=0, weights=lengths)
            return averaged

        service_rate = mean([part.service_rate for part in parts])
        max_rate_bps = mean([part.max_rate_bps for part in parts])
        local_j = mean([part.local_energy_j for part in parts])
        transmission_j = mean([part.transmission_energy_j for part in parts])
        setting = self._setting
        # The last part may be shorter than the others; the test wants equal ones.
        equal = [part for part in parts if part.slots == parts[0].slots]
        backlogs = station_backlogs(np.stack([part.backlog[run] for part in equal]))
        way_back_s = (
            np.stack([late[run] for late in self._way_back_s[: len(equal)]]) if setting.answer_s.any() else None
        )
        return SimulationResult(
            scenario=self._scenario.name,
            policy=self._policies[run].name,
            seed=self._seeds[run],
            slots=self._done,
            slot_s=setting.slot_s,
            energy_local_j=np.float64(local_j.mean()),
            energy_transmission_j=np.float64(transmission_j.mean()),
            device_energy_local_j=local_j,
            device_energy_transmission_j=transmission_j,
            tasks=_tasks_of(parts, run),
            notes=tuple(self._surroundings[self._seeds[run]].notes(self._done)),
            mean_queue=mean([part.backlog for part in parts]),
            arrived_by_service=sum((part.arrived[run] for part in parts), np.zeros(setting.active.shape, np.int64)),
            finished_by_service=sum((part.finished[run] for part in parts), np.zeros(setting.active.shape, np.int64)),
            utilisation=Utilisation(
                local=service_rate[0].sum(axis=-1) / setting.max_local_frequency_hz,
                link=service_rate[1].sum(axis=-1) / np.where(max_rate_bps > 0, max_rate_bps, np.inf),
                edge=float(service_rate[2].sum() / setting.max_edge_frequency_hz),
                max_rate_bps=max_rate_bps,
            ),
            stability=stability_of(backlogs, parts[0].slots * setting.slot_s, way_back_s=way_back_s),
            final_local_energy_weight=self._engine.local_energy_weight[run].copy(),
            final_transmission_energy_weight=self._engine.transmission_energy_weight[run].copy(),
            trace=self._trace_of(run),
        )

    def _trace_of(self, run: int) -> RunTrace | None:
        if self._trace is None:
            return None
        traces = [part.trace for part in self._parts if part.trace is not None]
        return RunTrace(
            slot=np.concatenate([trace.slot[run] for trace in traces]),
            backlog=np.concatenate([trace.backlog[run] for trace in traces]),
            service_rate=np.concatenate([trace.service_rate[run] for trace in traces]),
            power_w=np.concatenate([trace.power_w[run] for trace in traces]),
            cuts=np.stack([cuts[run] for cuts in self._trace_cuts]),
            local_energy_weight=np.stack([local[run] for local, _ in self._trace_weights]),
            transmission_energy_weight=np.stack([transmission[run] for _, transmission in self._trace_weights]),
        )


def _stacked(requests: Sequence[Request]) -> Request:
    names = ("local_frequency_hz", "power_w", "rate_share", "edge_frequency_hz")
    return Request(**{name: np.stack([getattr(request, name) for request in requests]) for name in names})


def _tasks_of(parts: Sequence[PeriodStatistics], run: int) -> FinishedTasks:
    mine = [part.tasks.environment == run for part in parts]
    fields = ("environment", "device", "service", "arrival_slot", "finish_slot", "cut", "latency_s")
    columns = {
        field: np.concatenate([getattr(part.tasks, field)[own] for part, own in zip(parts, mine, strict=True)])
        for field in fields
    }
    return FinishedTasks(**columns)
