"""The compiled slot loop: queues with per-task first-come-first-served state, for E environments at once.

Rules: ``docs/simulator.md``. Allocation comes from ``splitinfer.scheduling.kernels``, power and energy
from the compiled formulas of ``radio`` and ``energy``; nothing of them is written again here.

Tasks live in one pool per environment and hang in singly linked lists: one list per service and stage, and one of
free places. The caller makes the pool large enough for the arrivals of a call, so no queue is ever capped.
All randomness (channel gains, arrivals) comes in as arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from splitinfer.scheduling.compiled import njit, prange
from splitinfer.scheduling.kernels import (
    SOURCE_STAMP,
    edge_core,
    lean,
    local_core,
    local_energy_core,
    power_core,
    radio_power_core,
    rate_core,
    transmission_core,
    transmission_energy_core,
)
from splitinfer.scheduling.pricing import (
    BitPrices,
    follow_gain,
    grown,
    link_price_core,
    local_price_core,
    serve_in_order,
)
from splitinfer.scheduling.setting import STACKED, named_tuple

LOCAL, TRANSMISSION, EDGE, DONE = 0, 1, 2, 3
DRIFT_PLUS_PENALTY, PRICE = 0, 1
NOBODY = -1

ROUNDING = 1e-12
"""A task with no more than this share of a stage's work left is done: what remains is rounding."""

RESUM_LIMIT = 16
"""A queue's total is summed afresh from its tasks whenever one leaves and at most this many remain. Totals are
otherwise kept by subtraction; the fresh sum keeps rounding from stranding or inventing work as a queue runs empty."""


Worlds: Any = named_tuple("Worlds", (*STACKED, "rule", "followed_gain", "seen", "prices"), __name__)
"""A ``Stack`` of settings, and what the rules keep; the latter:

rule: (E,), DRIFT_PLUS_PENALTY or PRICE.
followed_gain, seen, prices: ``BitPrices`` of each environment, beside ``fading`` and ``mean_gain``, which the prices
move. Fields of their own: numba's parallel loops take no tuple inside a tuple.
"""


class Queues(NamedTuple):
    """State of all queues. Everything between two calls is here."""

    backlog: Any  # (E, 3, M, N) cycles, bits, cycles
    tasks: Any  # (E, 3, M, N) number of tasks
    first: Any  # (E, 3, M, N) pool index of the oldest task
    last: Any  # (E, 3, M, N)
    device_tasks: Any  # (E, M) tasks of a device in any stage
    clock: Any  # (E,) slots since reset
    free: Any  # (E,) first free place of the pool
    next: Any  # (E, P) the task behind this one
    remaining: Any  # (E, P) work left in the current stage
    arrival_slot: Any  # (E, P)
    cut: Any  # (E, P)


class Inputs(NamedTuple):
    """What drives one call of T slots."""

    cuts: Any  # (E, M, N)
    gains: Any  # (E, T, M); the first axis may have stride 0
    event_start: Any  # (E + 1,) the arrivals of environment e are event_start[e]:event_start[e + 1], in slot order
    event_slot: Any  # (A,) slot within the call
    event_device: Any  # (A,)
    event_service: Any  # (A,)
    event_count: Any  # (A,)
    requested: bool  # False: closed form; True: the four arrays below decide
    local_frequency_hz: Any  # (E, M, N)
    power_w: Any  # (E, M)
    rate_share: Any  # (E, M, N)
    edge_frequency_hz: Any  # (E, M, N)


class Sums(NamedTuple):
    """Sums over the slots of a call."""

    backlog: Any  # (E, 3, M, N) of the backlog seen at the start of each slot
    service_rate: Any  # (E, 3, M, N) of f^l, r, f^e
    power_w: Any  # (E, M)
    max_rate_bps: Any  # (E, M) R at full power
    local_energy_j: Any  # (E, M)
    transmission_energy_j: Any  # (E, M)
    work_in: Any  # (E, 3, M, N)
    work_served: Any  # (E, 3, M, N)
    arrived: Any  # (E, M, N)
    finished: Any  # (E, M, N)


class FinishedLog(NamedTuple):
    """One entry per finished task, environment after environment."""

    start: Any  # (E,) where an environment's entries start
    count: Any  # (E,) how many there are
    device: Any  # (L,)
    service: Any
    arrival_slot: Any
    finish_slot: Any
    cut: Any


class TraceLog(NamedTuple):
    """Every ``every``-th slot in full; ``every`` 0 records nothing."""

    every: int
    slot: Any  # (E, S)
    backlog: Any  # (E, S, 3, M, N)
    service_rate: Any  # (E, S, 3, M, N)
    power_w: Any  # (E, S, M)


@lean
def _enter(queues, sums, e, stage, m, n, task, work):  # type: ignore[no-untyped-def]
    """Puts a task at the end of a queue."""
    queues.remaining[e, task] = work
    queues.next[e, task] = NOBODY
    if queues.tasks[e, stage, m, n] == 0:
        queues.first[e, stage, m, n] = task
        queues.backlog[e, stage, m, n] = work
    else:
        queues.next[e, queues.last[e, stage, m, n]] = task
        queues.backlog[e, stage, m, n] += work
    queues.last[e, stage, m, n] = task
    queues.tasks[e, stage, m, n] += 1
    sums.work_in[e, stage, m, n] += work


@lean
def _next_stage(work, m, n, cut, stage):  # type: ignore[no-untyped-def]
    """The first stage from ``stage`` on in which a task with this cut has work, or DONE."""
    while stage < DONE and work[stage, m, n, cut] <= 0.0:
        stage += 1
    return stage


@lean
def _serve(tables, slot_s, queues, sums, log, e, stage, m, n, rate):  # type: ignore[no-untyped-def]
    """Serves one queue first come first served for one slot; tasks that are done here move on."""
    work = rate * slot_s
    left = 0
    while queues.tasks[e, stage, m, n] > 0:
        task = queues.first[e, stage, m, n]
        remaining = queues.remaining[e, task]
        cut = queues.cut[e, task]
        if remaining - work > ROUNDING * tables[stage, m, n, cut]:
            queues.remaining[e, task] = remaining - work
            queues.backlog[e, stage, m, n] -= work
            sums.work_served[e, stage, m, n] += work
            break
        work = max(0.0, work - remaining)
        queues.backlog[e, stage, m, n] -= remaining
        sums.work_served[e, stage, m, n] += remaining
        queues.first[e, stage, m, n] = queues.next[e, task]
        queues.tasks[e, stage, m, n] -= 1
        left += 1
        following = _next_stage(tables, m, n, cut, stage + 1)
        if following < DONE:
            _enter(queues, sums, e, following, m, n, task, tables[following, m, n, cut])
        else:
            at = log.start[e] + log.count[e]
            log.device[at] = m
            log.service[at] = n
            log.arrival_slot[at] = queues.arrival_slot[e, task]
            log.finish_slot[at] = queues.clock[e]
            log.cut[at] = cut
            log.count[e] += 1
            sums.finished[e, m, n] += 1
            queues.device_tasks[e, m] -= 1
            queues.next[e, task] = queues.free[e]
            queues.free[e] = task
    if left > 0 and queues.tasks[e, stage, m, n] <= RESUM_LIMIT:
        total = 0.0
        task = queues.first[e, stage, m, n]
        for _ in range(queues.tasks[e, stage, m, n]):
            total += queues.remaining[e, task]
            task = queues.next[e, task]
        queues.backlog[e, stage, m, n] = total
    elif left == 0 and queues.tasks[e, stage, m, n] == 1:
        queues.backlog[e, stage, m, n] = queues.remaining[e, queues.first[e, stage, m, n]]


@lean
def _rank(queues, e, task, shortest_first):  # type: ignore[no-untyped-def]
    """The place of a task in the order of service: its work left, or when it came; least is first."""
    if shortest_first:
        return queues.remaining[e, task]
    return float(queues.arrival_slot[e, task])


@lean
def _heads(queues, e, stage, m, services, shortest_first, head, rank):  # type: ignore[no-untyped-def]
    """Fills row m with the heads of a device's lines at one stage."""
    for n in range(services):
        if queues.tasks[e, stage, m, n] > 0:
            first = queues.first[e, stage, m, n]
            head[m, n] = queues.remaining[e, first]
            rank[m, n] = _rank(queues, e, first, shortest_first)


@lean
def _wages(queues, e, stage, m, services, tasks, slot_s, growth_s):  # type: ignore[no-untyped-def]
    """As how many tasks a device's tasks at one stage count."""
    if growth_s <= 0.0:
        return tasks
    oldest = queues.clock[e]
    for n in range(services):
        if queues.tasks[e, stage, m, n] > 0:
            oldest = min(oldest, queues.arrival_slot[e, queues.first[e, stage, m, n]])
    return grown(tasks, queues.clock[e] - oldest, slot_s, growth_s)


@lean
def _scale_into(wanted, backlog, slot_s, limit, out):  # type: ignore[no-untyped-def]
    """What was asked for, no more than is queued, and scaled down together to keep a shared limit."""
    total = 0.0
    for n in range(out.shape[0]):
        out[n] = min(wanted[n], backlog[n] / slot_s)
        total += out[n]
    if total > limit:
        for n in range(out.shape[0]):
            out[n] *= limit / total
        total = limit
    return total


@njit(error_model="numpy")
def _advance_environment(e, worlds, queues, inputs, sums, log, trace):  # type: ignore[no-untyped-def]
    devices = worlds.num_devices[e]
    services = worlds.num_services[e]
    slot_s = worlds.slot_s[e]
    bandwidth_hz = worlds.device_bandwidth_hz[e]
    noise = worlds.noise_w_per_hz[e]
    processor, radio = worlds.processor[e], worlds.radio[e]
    pricing = worlds.rule[e] == PRICE and not inputs.requested
    shortest_first = worlds.shortest_first[e]
    growth_s = worlds.price_growth_s[e]
    channel = BitPrices(
        worlds.fading[e], worlds.mean_gain[e], worlds.followed_gain[e], worlds.seen[e], worlds.prices[e]
    )
    backlog = queues.backlog[e]
    local_backlog, send_backlog = backlog[LOCAL], backlog[TRANSMISSION]
    weight = worlds.queue_weight[e]
    # Functions that are called are given no more of the worlds than they need: a tuple is handed over by value.
    tables = worlds.work[e]

    price = np.empty(devices * services, np.float64)
    order = np.empty(2 * devices * services, np.int64)  # room for sorting
    local_hz = np.zeros((devices, services), np.float64)
    rate = np.zeros((devices, services), np.float64)
    edge_hz = np.zeros((devices, services), np.float64)
    wanted = np.empty(services, np.float64)
    # Of the head of each line: work left, and its place in the order of service.
    head = np.zeros((devices, services), np.float64)
    rank = np.zeros((devices, services), np.float64)
    edge_head = np.zeros((1, devices * services), np.float64)
    edge_rank = np.zeros((1, devices * services), np.float64)
    # Waiting edge queues of all devices side by side, as Problem 5 sees them.
    edge_backlog = np.empty((1, devices * services), np.float64)
    edge_weight = np.empty((1, devices * services), np.float64)
    edge_wanted = np.empty((1, devices * services), np.float64)
    edge_share = np.empty((1, devices * services), np.float64)
    edge_device = np.empty(devices * services, np.int64)
    edge_service = np.empty(devices * services, np.int64)

    event = inputs.event_start[e]
    last_event = inputs.event_start[e + 1]
    for t in range(inputs.gains.shape[1]):
        tracing = trace.every > 0 and t % trace.every == 0
        if tracing:
            sample = t // trace.every
            trace.slot[e, sample] = queues.clock[e]
            for stage in range(DONE):
                for m in range(devices):
                    for n in range(services):
                        trace.backlog[e, sample, stage, m, n] = backlog[stage, m, n]

        # 1 and 2: observe, allocate.
        waiting = 0
        for m in range(devices):
            if pricing:
                follow_gain(channel, m, inputs.gains[e, t, m])
            if queues.device_tasks[e, m] == 0:
                continue
            local_wait, send_wait = 0, 0
            for n in range(services):
                if queues.tasks[e, LOCAL, m, n] > 0:
                    sums.backlog[e, LOCAL, m, n] += backlog[LOCAL, m, n]
                    local_wait += queues.tasks[e, LOCAL, m, n]
                if queues.tasks[e, TRANSMISSION, m, n] > 0:
                    sums.backlog[e, TRANSMISSION, m, n] += backlog[TRANSMISSION, m, n]
                    send_wait += queues.tasks[e, TRANSMISSION, m, n]
                if queues.tasks[e, EDGE, m, n] > 0:
                    sums.backlog[e, EDGE, m, n] += backlog[EDGE, m, n]
                    edge_backlog[0, waiting] = backlog[EDGE, m, n]
                    edge_weight[0, waiting] = worlds.queue_weight[e, m, n]
                    if inputs.requested:
                        edge_wanted[0, waiting] = inputs.edge_frequency_hz[e, m, n]
                    if pricing:
                        first = queues.first[e, EDGE, m, n]
                        edge_head[0, waiting] = queues.remaining[e, first]
                        edge_rank[0, waiting] = _rank(queues, e, first, shortest_first)
                    edge_device[waiting] = m
                    edge_service[waiting] = n
                    waiting += 1
            if local_wait > 0:
                if inputs.requested:
                    total_hz = _scale_into(
                        inputs.local_frequency_hz[e, m, :services],
                        backlog[LOCAL, m, :services],
                        slot_s,
                        worlds.max_local_frequency_hz[e, m],
                        local_hz[m],
                    )
                elif pricing:
                    _heads(queues, e, LOCAL, m, services, shortest_first, head, rank)
                    total_hz = local_price_core(
                        local_backlog,
                        head,
                        rank,
                        _wages(queues, e, LOCAL, m, services, local_wait, slot_s, growth_s),
                        m,
                        services,
                        slot_s,
                        worlds.latency_price_w[e, m],
                        processor,
                        worlds.max_local_frequency_hz[e, m],
                        price,
                        order,
                        local_hz,
                    )
                else:
                    total_hz = local_core(
                        local_backlog,
                        weight,
                        m,
                        services,
                        slot_s,
                        worlds.local_energy_weight[e, m],
                        processor,
                        worlds.max_local_frequency_hz[e, m],
                        price,
                        order,
                        local_hz,
                    )
                sums.local_energy_j[e, m] += local_energy_core(slot_s, processor, m, total_hz)
                for n in range(services):
                    sums.service_rate[e, LOCAL, m, n] += local_hz[m, n]
            if send_wait > 0:
                gain = inputs.gains[e, t, m]
                if inputs.requested:
                    power_limit = min(inputs.power_w[e, m], worlds.max_power_w[e, m])
                    total_rate, power = 0.0, 0.0
                    limit = 0.0
                    if gain > 0.0:
                        limit = rate_core(power_limit, gain, bandwidth_hz, noise)
                    for n in range(services):
                        wanted[n] = inputs.rate_share[e, m, n] * limit
                    total_rate = _scale_into(wanted, backlog[TRANSMISSION, m, :services], slot_s, limit, rate[m])
                    if total_rate > 0.0:
                        power = min(power_limit, power_core(total_rate, gain, bandwidth_hz, noise))
                elif pricing:
                    _heads(queues, e, TRANSMISSION, m, services, shortest_first, head, rank)
                    total_rate, power = link_price_core(
                        send_backlog,
                        head,
                        rank,
                        _wages(queues, e, TRANSMISSION, m, services, send_wait, slot_s, growth_s),
                        m,
                        services,
                        slot_s,
                        worlds.latency_price_w[e, m],
                        channel,
                        radio,
                        bandwidth_hz,
                        noise,
                        gain,
                        worlds.max_power_w[e, m],
                        price,
                        order,
                        rate,
                    )
                else:
                    total_rate, power = transmission_core(
                        send_backlog,
                        weight,
                        m,
                        services,
                        worlds.transmission_energy_weight[e, m],
                        slot_s,
                        bandwidth_hz,
                        noise,
                        gain,
                        worlds.max_power_w[e, m],
                        radio,
                        price,
                        order,
                        rate,
                    )
                sums.power_w[e, m] += power
                sums.transmission_energy_j[e, m] += transmission_energy_core(
                    slot_s, radio_power_core(radio, m, power, total_rate)
                )
                if tracing:
                    trace.power_w[e, sample, m] = power
                for n in range(services):
                    sums.service_rate[e, TRANSMISSION, m, n] += rate[m, n]
        if waiting > 0:
            if inputs.requested:
                _scale_into(
                    edge_wanted[0, :waiting],
                    edge_backlog[0, :waiting],
                    slot_s,
                    worlds.max_edge_frequency_hz[e],
                    edge_share[0, :waiting],
                )
            elif pricing:
                serve_in_order(
                    edge_backlog,
                    edge_head,
                    edge_rank,
                    0,
                    waiting,
                    slot_s,
                    worlds.max_edge_frequency_hz[e],
                    price,
                    order,
                    edge_share,
                )
            else:
                edge_core(
                    edge_backlog,
                    edge_weight,
                    0,
                    waiting,
                    slot_s,
                    worlds.max_edge_frequency_hz[e],
                    price,
                    order,
                    edge_share,
                )

        # 3: serve. Later stages first, so that a task which moves on is not served twice in one slot.
        for i in range(waiting):
            m, n = edge_device[i], edge_service[i]
            edge_hz[m, n] = edge_share[0, i]
            sums.service_rate[e, EDGE, m, n] += edge_share[0, i]
            if tracing:
                trace.service_rate[e, sample, EDGE, m, n] = edge_share[0, i]
            if edge_share[0, i] > 0.0:
                _serve(tables, slot_s, queues, sums, log, e, EDGE, m, n, edge_share[0, i])
        for m in range(devices):
            if queues.device_tasks[e, m] == 0:
                continue
            for n in range(services):
                if tracing:
                    if queues.tasks[e, LOCAL, m, n] > 0:
                        trace.service_rate[e, sample, LOCAL, m, n] = local_hz[m, n]
                    if queues.tasks[e, TRANSMISSION, m, n] > 0:
                        trace.service_rate[e, sample, TRANSMISSION, m, n] = rate[m, n]
                # A row of rates is only fresh where something waits; elsewhere it is left over from an earlier slot.
                if queues.tasks[e, TRANSMISSION, m, n] > 0 and rate[m, n] > 0.0:
                    _serve(tables, slot_s, queues, sums, log, e, TRANSMISSION, m, n, rate[m, n])
                if queues.tasks[e, LOCAL, m, n] > 0 and local_hz[m, n] > 0.0:
                    _serve(tables, slot_s, queues, sums, log, e, LOCAL, m, n, local_hz[m, n])

        # 4: arrivals.
        while event < last_event and inputs.event_slot[event] == t:
            m, n = inputs.event_device[event], inputs.event_service[event]
            cut = inputs.cuts[e, m, n]
            stage = _next_stage(tables, m, n, cut, LOCAL)
            for _ in range(inputs.event_count[event]):
                task = queues.free[e]
                queues.free[e] = queues.next[e, task]
                queues.arrival_slot[e, task] = queues.clock[e]
                queues.cut[e, task] = cut
                _enter(queues, sums, e, stage, m, n, task, tables[stage, m, n, cut])
            sums.arrived[e, m, n] += inputs.event_count[event]
            queues.device_tasks[e, m] += inputs.event_count[event]
            event += 1
        queues.clock[e] += 1

    for m in range(devices):
        for t in range(inputs.gains.shape[1]):
            if inputs.gains[e, t, m] > 0.0:
                sums.max_rate_bps[e, m] += rate_core(
                    worlds.max_power_w[e, m], inputs.gains[e, t, m], bandwidth_hz, noise
                )


@njit(cache=True, error_model="numpy")
def advance_serial(worlds, queues, inputs, sums, log, trace, _stamp=SOURCE_STAMP):  # type: ignore[no-untyped-def]
    """Advances every environment on the calling thread."""
    for e in range(queues.clock.shape[0]):
        _advance_environment(e, worlds, queues, inputs, sums, log, trace)


@njit(cache=True, error_model="numpy", parallel=True, nogil=True)
def advance_parallel(worlds, queues, inputs, sums, log, trace, _stamp=SOURCE_STAMP):  # type: ignore[no-untyped-def]
    """Advances the environments on all of numba's threads; they share nothing."""
    for e in prange(queues.clock.shape[0]):
        _advance_environment(e, worlds, queues, inputs, sums, log, trace)
