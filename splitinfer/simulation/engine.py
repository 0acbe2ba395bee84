"""The simulator's engine: E environments of queues, advanced T slots at a time by compiled code.

The engine holds no randomness and makes no decisions. Channel gains, arrivals and cuts come in; queues, energies and
finished tasks come out. Policies compared on the same inputs see the same world.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitinfer.energy.processor import CUBIC, TOP
from splitinfer.energy.transmitter import RADIATED_ROW
from splitinfer.errors import InputError
from splitinfer.radio import rate_bps
from splitinfer.scheduling.allocation import SlotAllocator, checked, slot_allocator
from splitinfer.scheduling.policy import Request
from splitinfer.scheduling.rules import (
    ALLOCATIONS,
    AllocationRule,
    DriftPlusPenalty,
    PriceOfTime,
    Waiting,
    checked_rule,
    is_compiled,
)
from splitinfer.scheduling.setting import Setting, put, stack
from splitinfer.simulation.records import Arrivals, FinishedTasks, PeriodStatistics, Trace

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Engine:
    """Queues of one or several environments. All arrays have a leading axis E, also where E is 1.

    Environments may differ in everything, also in M, N and K: arrays are padded to the largest. The weights and
    prices may be changed in place between calls.

    Args:
        worlds: one ``Setting`` or one per environment.
        solver: of Problems 3 to 5: ``"closed-form"``; or ``"cvxpy"``, or an allocator of your own, which is asked slot
            by slot (slow).
        allocation: a name of ``rules.ALLOCATIONS``, compiled; or a rule of your own, which is asked slot by slot.
        parallel: advance several environments on all of numba's threads.

    Attributes:
        worlds: tuple of E worlds, as given.
        local_energy_weight: (E, M), U^l.
        transmission_energy_weight: (E, M), U^t.
        queue_weight: (E, M, N), v.

    Raises:
        InputError: no world; no solver or allocation of that name; or a solver for another rule than it solves.
    """

    def __init__(
        self,
        worlds: Setting | Sequence[Setting],
        *,
        solver: str | SlotAllocator = "closed-form",
        allocation: str | AllocationRule = "drift-plus-penalty",
        parallel: bool = True,
    ) -> None:
        self.worlds: tuple[Setting, ...] = (worlds,) if isinstance(worlds, Setting) else tuple(worlds)
        if not self.worlds:
            raise InputError("worlds must hold at least one world")
        self._allocator: SlotAllocator | None = None  # the compiled loop's own closed forms
        if solver != "closed-form":
            self._allocator = slot_allocator(solver) if isinstance(solver, str) else solver
        rule = ALLOCATIONS[allocation]() if isinstance(allocation, str) and allocation in ALLOCATIONS else allocation
        if isinstance(rule, str):
            raise InputError(f"allocation must be {' or '.join(ALLOCATIONS)}, or a rule, got {allocation!r}")
        if self._allocator is not None and type(rule) is not DriftPlusPenalty:
            raise InputError(f"solver: {solver!r} solves drift-plus-penalty, not the allocation {rule.name!r}")
        if self._allocator is not None and not all(_is_papers(world) for world in self.worlds):
            raise InputError("solver: it knows the paper's processor and radio only; other cards need the closed form")
        # A rule keeps what it knows of its own environment.
        self._rules = [] if is_compiled(rule) else [deepcopy(checked_rule(rule)) for _ in self.worlds]
        self._parallel = parallel and len(self.worlds) > 1
        self._shape = (
            len(self.worlds),
            max(world.num_devices for world in self.worlds),
            max(world.num_services for world in self.worlds),
        )
        from splitinfer.scheduling.pricing import PRICES_KEPT
        from splitinfer.simulation import kernel

        e, m, _ = self._shape
        if len({world.fading.shape[1] for world in self.worlds}) > 1:
            raise InputError("fading: environments of one engine need the same number of quantiles")
        self._worlds = kernel.Worlds(
            **stack(self.worlds)._asdict(),
            rule=np.full(e, kernel.PRICE if type(rule) is PriceOfTime else kernel.DRIFT_PLUS_PENALTY),
            followed_gain=np.zeros((e, m)),
            seen=np.zeros((e, m)),
            prices=np.zeros((e, m, PRICES_KEPT)),
        )
        for index, world in enumerate(self.worlds):
            self._load(index, world)
        self._answered_s = np.zeros((e, m))  # when each device has its last answer, on the environment's clock
        self._clear_queues()
        self.local_energy_weight: Floats = self._worlds.local_energy_weight
        self.transmission_energy_weight: Floats = self._worlds.transmission_energy_weight
        self.queue_weight: Floats = self._worlds.queue_weight

    @property
    def backlog(self) -> Floats:
        """(E, 3, M, N): Q^l, Q^t, Q^e now. A copy."""
        return np.array(self._queues.backlog)

    @property
    def in_flight(self) -> Ints:
        """(E, 3, M, N): tasks waiting or in service in each stage now. A copy."""
        return np.array(self._queues.tasks)

    @property
    def clock(self) -> Ints:
        """(E,): slots advanced since the last reset. A copy."""
        return np.array(self._queues.clock)

    @property
    def way_back_s(self) -> Floats:
        """(E, M): time until the answers that the edge has are all on their device. A copy."""
        now = self._queues.clock * self._worlds.slot_s
        return np.asarray(np.maximum(self._answered_s - now[:, None], 0.0))

    def reset(self, environments: Sequence[int] | None = None, worlds: Sequence[Setting] | None = None) -> None:
        """Empties all queues, or those of some environments, and sets their clocks to 0.

        Args:
            environments: which ones; all by default.
            worlds: a new world for each of them, no larger in M, N and K than the engine's arrays. By default each
                environment keeps its world, and its weights as they are now.

        Raises:
            InputError: a new world does not fit, or the lengths differ.
        """
        chosen = range(len(self.worlds)) if environments is None else environments
        if worlds is not None:
            if len(worlds) != len(chosen):
                raise InputError(f"worlds must hold {len(chosen)} worlds, one per environment, got {len(worlds)}")
            for index, world in zip(chosen, worlds, strict=True):
                self._load(index, world)
        for index in chosen:
            self._clear(index)

    def advance(
        self,
        cuts: ArrayLike,
        gains: Floats,
        arrivals: Arrivals | NDArray[np.integer],
        *,
        request: Request | None = None,
        trace_every: int = 0,
    ) -> PeriodStatistics:
        """Runs T slots; T is the length of ``gains``.

        Args:
            cuts: (M, N) or (E, M, N), the cut with which tasks that arrive in this call are admitted.
            gains: (T, M) or (E, T, M), channel gain h of each device in each slot.
            arrivals: counts (T, M, N) or (E, T, M, N), or ``Arrivals``.
            request: resources decided elsewhere, in place of the solver.
            trace_every: record every so many slots in full; 0 for no trace.

        Returns:
            Sums, means, and the finished tasks.

        Raises:
            InputError: a shape does not fit, a cut is out of range, a gain is negative, or a task arrives at a
                service that does not exist.
        """
        from splitinfer.simulation import kernel

        channel = self._checked_gains(gains)
        slots = channel.shape[1]
        news = (
            arrivals if isinstance(arrivals, Arrivals) else Arrivals.from_counts(self._checked_counts(arrivals, slots))
        )
        event_start = self._checked_arrivals(news, slots)
        inputs = kernel.Inputs(
            cuts=self._checked_cuts(cuts),
            gains=channel,
            event_start=event_start,
            event_slot=_plain(news.slot),
            event_device=_plain(news.device),
            event_service=_plain(news.service),
            event_count=_plain(news.count),
            requested=request is not None,
            **self._request_arrays(request),
        )
        # Tasks in flight now and about to arrive: what the pool must hold, and the most that can be finished.
        most = self._queues.device_tasks.sum(axis=1) + np.diff(np.append(0, np.cumsum(news.count))[event_start])
        self._reserve(int(most.max()))
        sums = self._empty_sums()
        log = self._empty_log(most)
        trace = self._empty_trace(slots, trace_every)
        if request is None and (self._allocator is not None or self._rules):
            self._advance_slot_by_slot(inputs, sums, log, trace)
        else:
            run = kernel.advance_parallel if self._parallel else kernel.advance_serial
            run(self._worlds, self._queues, inputs, sums, log, trace)
        return self._statistics(inputs, sums, log, trace)

    def _load(self, index: int, world: Setting) -> None:
        """Copies a world into row ``index`` of the padded arrays, and forgets what was known of another."""
        put(self._worlds, index, world)
        self._forget_channel(index, world)
        if self._rules:
            self._rules[index].start(world)
        self.worlds = (*self.worlds[:index], world, *self.worlds[index + 1 :])

    def _forget_channel(self, index: int, world: Setting) -> None:
        from splitinfer.scheduling.pricing import BitPrices, bit_prices

        state = bit_prices(world)
        for name, fresh in zip(BitPrices.__annotations__, state, strict=True):
            array = getattr(self._worlds, name)
            array[index] = 0.0
            array[index, : world.num_devices] = fresh

    def set_latency_price(self, index: int, latency_price_w: Floats) -> None:
        """Change w of one environment's devices, (M,), between calls."""
        prices = self._worlds.latency_price_w[index]
        changed = prices[: len(latency_price_w)] != latency_price_w
        if changed.any():
            prices[: len(latency_price_w)] = latency_price_w
            self._worlds.prices[index, : len(latency_price_w)][changed] = 0.0

    def _clear_queues(self) -> None:
        from splitinfer.simulation.kernel import Queues

        e, m, n = self._shape
        places = 16
        self._queues = Queues(
            backlog=np.zeros((e, 3, m, n)),
            tasks=np.zeros((e, 3, m, n), np.int64),
            first=np.zeros((e, 3, m, n), np.int64),
            last=np.zeros((e, 3, m, n), np.int64),
            device_tasks=np.zeros((e, m), np.int64),
            clock=np.zeros(e, np.int64),
            free=np.zeros(e, np.int64),
            next=np.zeros((e, places), np.int64),
            remaining=np.zeros((e, places)),
            arrival_slot=np.zeros((e, places), np.int64),
            cut=np.zeros((e, places), np.int64),
        )
        for index in range(e):
            self._clear(index)

    def _clear(self, index: int) -> None:
        queues = self._queues
        for array in (queues.backlog, queues.tasks, queues.device_tasks, queues.clock, queues.free):
            array[index] = 0
        self._answered_s[index] = 0
        queues.next[index] = np.arange(1, queues.next.shape[1] + 1)

    def _reserve(self, needed: int) -> None:
        """Makes every pool large enough for ``needed`` tasks."""
        queues = self._queues
        places = queues.next.shape[1]
        if needed <= places:
            return
        grown = max(needed, 2 * places)
        extra = np.broadcast_to(np.arange(places + 1, grown + 1), (self._shape[0], grown - places))
        self._queues = queues._replace(
            # The last old place pointed just past the end, which is where the new places begin.
            next=np.concatenate((queues.next, extra), axis=1),
            remaining=_widened(queues.remaining, grown),
            arrival_slot=_widened(queues.arrival_slot, grown),
            cut=_widened(queues.cut, grown),
        )

    def _checked_gains(self, gains: Floats) -> Floats:
        e, m, _ = self._shape
        array = np.asarray(gains, dtype=np.float64)
        if array.ndim == 2:
            array = np.broadcast_to(array, (e, *array.shape))
        if array.ndim != 3 or array.shape[::2] != (e, m):
            raise InputError(f"gains must have the shape (slots, {m}) or ({e}, slots, {m}), got {np.shape(gains)}")
        if array.size and not (array.min() >= 0 and array.max() < np.inf):
            raise InputError("gains must be finite and at least 0")
        return np.require(array, requirements=("C", "W"))

    def _checked_counts(self, counts: NDArray[np.integer], slots: int) -> NDArray[np.integer]:
        array = np.asarray(counts)
        dense = array[None] if array.ndim == 3 else array
        if dense.shape != (self._shape[0], slots, *self._shape[1:]) or not np.issubdtype(dense.dtype, np.integer):
            e, m, n = self._shape
            raise InputError(
                f"arrivals must be whole numbers of the shape ({slots}, {m}, {n}) or ({e}, {slots}, {m}, {n}), "
                f"got {array.dtype} {array.shape}"
            )
        return dense

    def _checked_arrivals(self, news: Arrivals, slots: int) -> Ints:
        """Checks every entry; returns where each environment's entries start, (E + 1,)."""
        e, m, n = self._shape
        columns = (news.environment, news.slot, news.device, news.service, news.count)
        if len({column.shape for column in columns}) != 1 or news.slot.ndim != 1:
            raise InputError("arrivals: all columns must have the same length")
        if len(news.slot):
            for name, column, limit in zip(
                ("environment", "slot", "device", "service"), columns, (e, slots, m, n), strict=False
            ):
                if column.min() < 0 or column.max() >= limit:
                    raise InputError(f"arrivals: every {name} must be between 0 and {limit - 1}")
            if news.count.min() < 1:
                raise InputError("arrivals: every count must be at least 1")
            key = news.environment * slots + news.slot
            if np.any(key[1:] < key[:-1]):
                raise InputError("arrivals must be ordered by environment, then by slot")
            if not self._worlds.active[news.environment, news.device, news.service].all():
                raise InputError("arrivals: a task arrives at a service that does not exist")
        return np.searchsorted(news.environment, np.arange(e + 1)).astype(np.int64)

    def _checked_cuts(self, cuts: ArrayLike) -> Ints:
        array = np.asarray(cuts)
        if not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"cuts must hold whole numbers, got {array.dtype}")
        try:
            full = np.broadcast_to(array, self._shape)
        except ValueError:
            raise InputError(
                f"cuts must have the shape {self._shape[1:]} or {self._shape}, got {array.shape}"
            ) from None
        wrong = self._worlds.active & ((full < 0) | (full > self._worlds.num_cuts))
        if wrong.any():
            e, m, n = np.argwhere(wrong)[0]
            raise InputError(
                f"cuts: device {m}, service {n} has the cuts 0..{self._worlds.num_cuts[e, m, n]}, got {full[e, m, n]}"
            )
        return np.array(full, dtype=np.int64, order="C")

    def _request_arrays(self, request: Request | None) -> dict[str, Floats]:
        e, m, n = self._shape
        names = ("local_frequency_hz", "power_w", "rate_share", "edge_frequency_hz")
        if request is None:
            return {name: np.zeros((1, 1) if name == "power_w" else (1, 1, 1)) for name in names}
        arrays = {}
        for name in names:
            shape = (e, m) if name == "power_w" else (e, m, n)
            array = checked(name, getattr(request, name))
            try:
                arrays[name] = np.array(np.broadcast_to(array, shape), order="C")
            except ValueError:
                raise InputError(f"request.{name} must broadcast to the shape {shape}, got {array.shape}") from None
        return arrays

    def _empty_sums(self) -> Any:
        from splitinfer.simulation.kernel import Sums

        e, m, n = self._shape
        return Sums(
            backlog=np.zeros((e, 3, m, n)),
            service_rate=np.zeros((e, 3, m, n)),
            power_w=np.zeros((e, m)),
            max_rate_bps=np.zeros((e, m)),
            local_energy_j=np.zeros((e, m)),
            transmission_energy_j=np.zeros((e, m)),
            work_in=np.zeros((e, 3, m, n)),
            work_served=np.zeros((e, 3, m, n)),
            arrived=np.zeros((e, m, n), np.int64),
            finished=np.zeros((e, m, n), np.int64),
        )

    def _empty_log(self, most: Ints) -> Any:
        from splitinfer.simulation.kernel import FinishedLog

        start = np.append(0, np.cumsum(most))
        columns = (np.empty(int(start[-1]), np.int64) for _ in range(5))
        return FinishedLog(start[:-1], np.zeros(self._shape[0], np.int64), *columns)

    def _empty_trace(self, slots: int, every: int) -> Any:
        from splitinfer.simulation.kernel import TraceLog

        if every < 0:
            raise InputError(f"trace_every must be at least 0, got {every}")
        e, m, n = self._shape
        samples = -(-slots // every) if every else 0
        return TraceLog(
            every,
            np.zeros((e, samples), np.int64),
            np.zeros((e, samples, 3, m, n)),
            np.zeros((e, samples, 3, m, n)),
            np.zeros((e, samples, m)),
        )

    def _statistics(self, inputs: Any, sums: Any, log: Any, trace: Any) -> PeriodStatistics:
        slots = inputs.gains.shape[1]
        rows = np.concatenate([np.arange(s, s + c) for s, c in zip(log.start, log.count, strict=True)])
        environment = np.repeat(np.arange(self._shape[0]), log.count)
        arrival, finish = log.arrival_slot[rows], log.finish_slot[rows]
        tasks = FinishedTasks(
            environment=environment,
            device=log.device[rows],
            service=log.service[rows],
            arrival_slot=arrival,
            finish_slot=finish,
            cut=log.cut[rows],
            latency_s=(finish + 1 - arrival) * self._worlds.slot_s[environment],
        )
        tasks.latency_s[:] += self._answered(tasks)
        over = max(slots, 1)
        return PeriodStatistics(
            slots=slots,
            cuts=inputs.cuts,
            backlog=sums.backlog / over,
            service_rate=sums.service_rate / over,
            power_w=sums.power_w / over,
            max_rate_bps=sums.max_rate_bps / over,
            local_energy_j=sums.local_energy_j / over,
            transmission_energy_j=sums.transmission_energy_j / over,
            work_in=sums.work_in,
            work_served=sums.work_served,
            arrived=sums.arrived,
            finished=sums.finished,
            tasks=tasks,
            trace=Trace(trace.slot, trace.backlog, trace.service_rate, trace.power_w) if trace.every else None,
        )

    def _answered(self, tasks: FinishedTasks) -> Floats:
        """Seconds from the end of each task at the edge until its answer is on the device, one after the other.

        Nobody decides by what is on its way back, so it need not be stepped through slot by slot.
        """
        worlds, late = self._worlds, np.zeros(len(tasks))
        if not worlds.answer_s.any():
            return late
        e, m, n = tasks.environment, tasks.device, tasks.service
        sent = worlds.work[e, 1, m, n, tasks.cut] > 0
        for index, device in np.unique(np.stack([e[sent], m[sent]], axis=1), axis=0):
            own = np.flatnonzero(sent & (e == index) & (m == device))
            takes_s = worlds.answer_s[index, device, n[own]]
            ready_s = (tasks.finish_slot[own] + 1) * worlds.slot_s[index]
            # Each starts when it is ready and the one before is through.
            done_s = np.cumsum(takes_s)
            begin_s = np.maximum(np.maximum.accumulate(ready_s - done_s + takes_s), self._answered_s[index, device])
            late[own] = begin_s + done_s - ready_s
            self._answered_s[index, device] = begin_s[-1] + done_s[-1]
        return late

    def _advance_slot_by_slot(self, inputs: Any, sums: Any, log: Any, trace: Any) -> None:
        """What a solver or a rule of one's own decides goes into the same compiled serving rules as a request."""
        from splitinfer.simulation import kernel

        log_trace = self._empty_trace(1, 1)
        no_trace = self._empty_trace(1, 0)
        environment = np.repeat(np.arange(self._shape[0]), np.diff(inputs.event_start))
        for t in range(inputs.gains.shape[1]):
            now = np.flatnonzero(inputs.event_slot == t)
            one_slot = inputs._replace(
                gains=np.ascontiguousarray(inputs.gains[:, t : t + 1]),
                event_start=np.searchsorted(environment[now], np.arange(self._shape[0] + 1)).astype(np.int64),
                event_slot=np.zeros(len(now), np.int64),
                event_device=inputs.event_device[now],
                event_service=inputs.event_service[now],
                event_count=inputs.event_count[now],
                requested=True,
                **self._request_arrays(self._decide(inputs.gains[:, t])),
            )
            tracing = trace.every > 0 and t % trace.every == 0
            if tracing:
                for array in log_trace[1:]:
                    array[...] = 0
            kernel.advance_serial(self._worlds, self._queues, one_slot, sums, log, log_trace if tracing else no_trace)
            if tracing:
                for record, sample in zip(trace[1:], log_trace[1:], strict=True):
                    record[:, t // trace.every] = sample[:, 0]

    def _decide(self, gains: Floats) -> Request:
        if self._allocator is not None:
            return self._solve(self._allocator, gains)
        e, m, n = self._shape
        local, rate, edge, power = np.zeros((e, m, n)), np.zeros((e, m, n)), np.zeros((e, m, n)), np.zeros((e, m))
        for index, (world, rule) in enumerate(zip(self.worlds, self._rules, strict=True)):
            own = np.s_[index, : world.num_devices, : world.num_services]
            stages = [self._waiting(index, stage) for stage in range(3)]
            for device in range(world.num_devices):
                gain = float(gains[index, device])
                rule.observe(device, gain)
                if stages[0].tasks[device].any():
                    local[own][device] = _row(
                        rule, "local", rule.local(device, stages[0].of(device)), (world.num_services,)
                    )
                if stages[1].tasks[device].any():
                    rates, limit = rule.transmission(device, stages[1].of(device), gain)
                    rate[own][device], power[index, device] = (
                        _row(rule, "transmission", rates, (world.num_services,)),
                        limit,
                    )
            if stages[2].tasks.any():
                edge[own] = _row(rule, "edge", rule.edge(stages[2]), stages[2].work.shape)
        most = rate_bps(
            np.minimum(power, self._worlds.max_power_w),
            gain=gains,
            bandwidth_hz=self._worlds.device_bandwidth_hz[:, None],
            noise_w_per_hz=self._worlds.noise_w_per_hz[:, None],
        )[..., None]
        share = np.divide(rate, most, out=np.zeros_like(rate), where=most > 0)
        return Request(local, power, share, edge)

    def _waiting(self, index: int, stage: int) -> Waiting:
        """What waits at one stage of one environment, (M, N)."""
        world, queues = self.worlds[index], self._queues
        own = np.s_[index, stage, : world.num_devices, : world.num_services]
        tasks, first = queues.tasks[own], queues.first[own]
        there = tasks > 0
        return Waiting(
            work=np.array(queues.backlog[own]),
            tasks=np.array(tasks),
            head_work=np.where(there, queues.remaining[index][first], 0.0),
            head_arrival_slot=np.where(there, queues.arrival_slot[index][first], 0),
            slot=int(queues.clock[index]),
        )

    def _solve(self, allocator: SlotAllocator, gains: Floats) -> Request:
        """The three problems of one slot, all environments, through ``allocator``."""
        e, m, n = self._shape
        worlds, queue, weight = self._worlds, self._queues.backlog, self._worlds.queue_weight
        slot_s = worlds.slot_s[:, None]
        local = allocator.allocate_local(
            queue[:, 0],
            slot_s=slot_s,
            energy_weight=worlds.local_energy_weight,
            energy_coefficient=worlds.processor[..., CUBIC],
            max_frequency_hz=worlds.max_local_frequency_hz,
            queue_weight=weight,
        )
        rate, power = allocator.allocate_transmission(
            queue[:, 1],
            slot_s=slot_s,
            energy_weight=worlds.transmission_energy_weight,
            bandwidth_hz=worlds.device_bandwidth_hz[:, None],
            noise_w_per_hz=worlds.noise_w_per_hz[:, None],
            channel_gain=gains,
            max_power_w=worlds.max_power_w,
            queue_weight=weight,
        )
        edge = allocator.allocate_edge(
            queue[:, 2].reshape(e, m * n),
            slot_s=worlds.slot_s,
            max_frequency_hz=worlds.max_edge_frequency_hz,
            queue_weight=weight.reshape(e, m * n),
        )
        total = rate.sum(axis=-1, keepdims=True)
        share = np.divide(rate, total, out=np.zeros_like(rate), where=total > 0)
        return Request(local, power, share, edge.reshape(e, m, n))


def _is_papers(world: Setting) -> bool:
    """Whether power is ``delta f^3`` and what is radiated."""
    own = np.array(world.processor)
    own[:, [CUBIC, TOP]] = 0.0
    return not own.any() and bool(np.all(world.radio == RADIATED_ROW))


def _row(rule: AllocationRule, method: str, value: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """What a rule returned, refused in one line unless it is numbers of at least 0, one per queue."""
    array = checked(f"allocation: what {rule.name}.{method} returns", value)
    if array.shape != shape:
        raise InputError(f"allocation: {rule.name}.{method} must return the shape {shape}, got {array.shape}")
    return array


def _plain(column: NDArray[Any]) -> Ints:
    """A contiguous, writable int64 array: numba compiles the whole loop again for every other kind."""
    return np.require(column, np.int64, ("C", "W"))


def _widened(array: NDArray[Any], width: int) -> NDArray[Any]:
    """``array`` (E, P) with zeros behind it, (E, width)."""
    wide = np.zeros((array.shape[0], width), array.dtype)
    wide[:, : array.shape[1]] = array
    return wide
