"""A lower bound on energy + w · latency that no policy can beat, for given arrivals and channel gains.

Two proofs, of which the better counts for each device. Both know the future, let every device have the whole edge to
itself, and count energy and latency only up to the end of the trace, as a run of that length does.

**Alone.** Each task at its least cost on empty queues, over all cuts and all schedules. Power, made convex by mixing
speeds and resting, is superadditive: sharing a slot never makes work cheaper. So the sum over the tasks is a bound. It
is exact where tasks never meet, and loose where they overlap.

**Fluid.** All tasks of a device together: divisible, mixed over cuts, each unit of work ageing from its arrival until
it is done. A convex programme (CVXPY), for short traces. It knows that tasks share processor and radio, but a unit that
is done early stops ageing, which for a task alone halves its latency; so it only wins under load.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.energy.processor import BASE, CUBIC, FIRST, LEVELS, LINEAR, processor_energy_j
from splitinfer.energy.transmitter import CIRCUIT, PER_BIT, PER_RADIATED
from splitinfer.errors import InputError
from splitinfer.radio import LN2, rate_bps
from splitinfer.scheduling.policy import Policy
from splitinfer.scheduling.setting import Setting
from splitinfer.simulation.build import setting_of
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.simulate import simulate
from splitinfer.simulation.surroundings import Surroundings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_SLOTS = 10_000_000
"""Longest trace: what each slot brings is held in memory."""

MAX_FLUID_SLOTS = 3_000
"""Longest trace for the fluid programme; longer ones have the bound of tasks alone."""


@dataclass(frozen=True)
class Bound:
    """Energy + w · latency that no policy can go below.

    Attributes:
        cost_j: the bound, summed over devices, joules over the whole trace.
        alone_j: (M,), of the tasks alone.
        fluid_j: (M,), of the fluid programme; 0 where it was not solved.
        tasks: number of tasks.
        slots: length of the trace.
    """

    cost_j: float
    alone_j: Floats
    fluid_j: Floats
    tasks: int
    slots: int


def lower_bound(scenario: Scenario, slots: int = 2_000, seed: int = 0, *, fluid: bool = True) -> Bound:
    """Return the bound for the arrivals and gains that ``simulate`` meets with this seed.

    Args:
        scenario: the world; its ``latency_price_w`` is w.
        slots: length of the trace.
        seed: as for ``simulate``.
        fluid: also solve the fluid programme, where the trace is short enough.

    Raises:
        InputError: a number is out of range.
    """
    if not 1 <= slots <= MAX_SLOTS:
        raise InputError(f"slots: must be in 1..{MAX_SLOTS:,}, not {slots:,}")
    setting = setting_of(scenario)
    gains, counts = Surroundings(scenario, seed).draw(slots)
    alone = np.array([alone_bound(setting, m, gains[:, m], counts[:, m]) for m in range(setting.num_devices)])
    fluids = np.zeros(setting.num_devices)
    if fluid and slots <= MAX_FLUID_SLOTS:
        fluids = np.array([fluid_bound(setting, m, gains[:, m], counts[:, m]) for m in range(setting.num_devices)])
    return Bound(float(np.maximum(alone, fluids).sum()), alone, fluids, int(counts.sum()), slots)


@dataclass(frozen=True)
class Cost:
    """What one policy came to, in the bound's own terms.

    Attributes:
        policy: its name.
        allocation: the rule's name.
        cost_j: energy + w · latency of all devices over the trace, tasks under way counted up to its end.
        energy_j: energy of all devices over the trace.
        latency_s: mean over the finished tasks; nan without any.
    """

    policy: str
    allocation: str
    cost_j: float
    energy_j: float
    latency_s: float


def cost_of(scenario: Scenario, policy: Policy, slots: int = 2_000, seed: int = 0) -> Cost:
    """Simulate a policy on the trace that ``lower_bound`` is for, and return what it comes to."""
    setting = setting_of(scenario)
    _, counts = Surroundings(scenario, seed).draw(slots)
    run = simulate(scenario, policy, slots, seed)
    # Every task waits from its arrival to the end of the trace, but for the time after it was done.
    weight = setting.latency_price_w * setting.slot_s
    waited = (counts * (slots - np.arange(slots))[:, None, None]).sum(axis=(0, 2)) @ weight
    after = (slots - 1 - run.tasks.finish_slot) * weight[run.tasks.device]
    energy_j = run.energy_j * scenario.num_devices * slots
    mean_s = float(run.latency_s.mean()) if len(run.latency_s) else float("nan")
    return Cost(run.policy, scenario.allocation, energy_j + float(waited - after.sum()), energy_j, mean_s)


def alone_bound(setting: Setting, device: int, gains: Floats, counts: Ints) -> float:
    """Sum over a device's tasks of the least cost of each on empty queues.

    Args:
        setting: of the world.
        device: m.
        gains: (T,).
        counts: (T, N), arriving tasks.
    """
    from splitinfer.simulation.bound_kernels import least_cost_alone

    total = 0.0
    for service in range(setting.num_services):
        last = int(setting.num_cuts[device, service])
        work = np.stack(
            [
                table[device, service, : last + 1]
                for table in (setting.local_cycles, setting.transmission_bits, setting.edge_cycles)
            ]
        )
        for slot in np.flatnonzero(counts[:, service]).tolist():
            one = least_cost_alone(
                slot,
                np.array(gains),
                np.ascontiguousarray(work),
                setting.slot_s,
                float(setting.latency_price_w[device]),
                np.array(setting.processor),
                np.array(setting.radio),
                device,
                float(setting.max_local_frequency_hz[device]),
                setting.device_bandwidth_hz,
                setting.noise_w_per_hz,
                float(setting.max_power_w[device]),
                setting.max_edge_frequency_hz,
            )
            total += one * int(counts[slot, service])
    return total


def fluid_bound(setting: Setting, device: int, gains: Floats, counts: Ints) -> float:
    """The fluid programme's value for one device; 0, which is a bound too, where the solver fails.

    Variables per slot are tasks' shares moving through each stage, per service and cut on the convex hull of (cycles,
    bits). A share that passes a stage in a slot can pass the next one in a later slot at the earliest. Costs are in
    units of a slot of one task's latency, rates and frequencies in units of their limits, and the value is the solver's
    dual one where that is lower.
    """
    import cvxpy as cp

    slots = len(gains)
    unit_j = setting.slot_s * float(setting.latency_price_w[device])
    limit_cycles = float(setting.max_local_frequency_hz[device]) * setting.slot_s
    limit_bits = setting.device_bandwidth_hz * setting.slot_s  # one bit per s and Hz
    limit_edge = setting.max_edge_frequency_hz * setting.slot_s
    local: list[Any] = []
    sent: list[Any] = []
    at_edge: list[Any] = []
    unfinished, finished, constraints = [], [], []
    for service in range(setting.num_services):
        arrived = np.cumsum(counts[:, service])
        if not arrived[-1]:
            continue
        entered, left = [], []
        for _, cycles, bits, edge in hull_cuts(setting, device, service):
            came = cp.Variable(slots, nonneg=True)  # shares admitted with this cut
            before = cp.cumsum(came)
            for work, limit, into in (
                (cycles, limit_cycles, local),
                (bits, limit_bits, sent),
                (edge, limit_edge, at_edge),
            ):
                if work <= 0 or limit <= 0:
                    continue
                used = cp.Variable(slots, nonneg=True)  # of the station, in units of its limit
                after = cp.cumsum(used) * (limit / work)
                constraints += [used[0] == 0, after[1:] <= before[:-1]]
                into.append(used)
                before = after
            entered.append(came)
            left.append(before)
        constraints.append(cp.sum(entered) == counts[:, service].astype(float))
        unfinished.append(cp.sum(arrived - cp.sum(left)))
        finished += [one[-1] for one in left]
    if not unfinished:
        return 0.0
    # Who is done had one slot more than those at whose ends it was not done yet.
    cost = cp.sum(unfinished) + cp.sum(finished)
    if local:
        share = cp.sum(local)
        constraints.append(share <= 1)
        cost = cost + _processor_cost(cp, setting, device, share, unit_j, constraints)
    if sent:
        cost = cost + _radio_cost(cp, setting, device, cp.sum(sent), gains, unit_j, constraints)
    if at_edge:
        constraints.append(cp.sum(at_edge) <= 1)
    problem = cp.Problem(cp.Minimize(cost), constraints)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an inexact solution, whose dual value is a bound all the same
            problem.solve(solver=cp.CLARABEL, max_iter=500)  # type: ignore[no-untyped-call]
    except cp.SolverError:
        return 0.0
    if problem.status not in ("optimal", "optimal_inaccurate") or problem.value is None:
        return 0.0
    dual = getattr(problem.solver_stats.extra_stats, "obj_val_dual", problem.value)
    primal = getattr(problem.solver_stats.extra_stats, "obj_val", problem.value)
    gap = max(0.0, float(primal) - float(dual))
    return max(0.0, float(problem.value) - gap - 1e-6 * abs(float(problem.value))) * unit_j


def _processor_cost(cp: Any, setting: Setting, device: int, share: Any, unit_j: float, constraints: list[Any]) -> Any:
    """Cost of all slots, with f over F given; hulls through (0, 0) from below by their tangents."""
    row, limit_hz = setting.processor[device], float(setting.max_local_frequency_hz[device])

    def energy(at_hz: float) -> float:
        return processor_energy_j(setting.slot_s, setting.processor, device, at_hz) / unit_j

    if row[LEVELS] == 0 and row[BASE] == 0:
        top = setting.slot_s * row[CUBIC] * limit_hz**3 / unit_j
        return cp.sum(top * cp.power(share, 3) + setting.slot_s * row[LINEAR] * limit_hz / unit_j * share)
    cost = cp.Variable(share.shape[0], nonneg=True)
    corners = np.linspace(0.0, 1.0, 60)
    if row[LEVELS]:
        levels = int(row[LEVELS])
        corners = np.append(0.0, row[FIRST : FIRST + levels] / limit_hz)
    for below, above in itertools.pairwise(corners):
        low, high = energy(below * limit_hz), energy(above * limit_hz)
        slope = (high - low) / (above - below)
        if row[LEVELS]:
            constraints.append(cost >= low + slope * (share - below))
        else:  # parallel to the chord, through the curve's lowest point against it
            grid = np.linspace(below, above, 50)
            offset = min(energy(at * limit_hz) - slope * at for at in grid)
            constraints.append(cost >= offset - 1e-9 * abs(offset) + slope * share)
    return cp.sum(cost)


def _radio_cost(
    cp: Any, setting: Setting, device: int, rate: Any, gains: Floats, unit_j: float, constraints: list[Any]
) -> Any:
    """Cost of all slots, with r over b given. A circuit's power is spread over the highest rate: the lower hull."""
    row, most_w = setting.radio[device], float(setting.max_power_w[device])
    bandwidth = setting.device_bandwidth_hz
    highest = rate_bps(most_w, gain=gains, bandwidth_hz=bandwidth, noise_w_per_hz=setting.noise_w_per_hz) / bandwidth
    alive = highest > 1e-6
    constraints.append(rate[~alive] == 0)
    if not alive.any():
        return cp.Constant(0.0)
    rate, highest, gains = rate[alive], highest[alive], gains[alive]
    constraints.append(rate <= highest)
    slot_cost = setting.slot_s / unit_j
    cost = slot_cost * row[PER_BIT] * bandwidth * cp.sum(rate)
    if row[PER_RADIATED] > 0:
        noise_w = bandwidth * setting.noise_w_per_hz / gains
        cost = cost + slot_cost * row[PER_RADIATED] * cp.sum(cp.multiply(noise_w, cp.exp(LN2 * rate) - 1))
    if row[CIRCUIT] > 0:
        cost = cost + slot_cost * row[CIRCUIT] * cp.sum(cp.multiply(1 / highest, rate))
    return cost


def hull_cuts(setting: Setting, device: int, service: int) -> list[tuple[int, float, float, float]]:
    """Cuts on the lower hull of (cycles, bits), with their cycles, bits and edge cycles.

    Mixing cuts reaches every point above the hull. The edge's work falls in proportion as the device's rises, so a
    mixture of two hull cuts has the edge work of the point between them.
    """
    last = int(setting.num_cuts[device, service])
    cycles = setting.local_cycles[device, service, : last + 1]
    bits = setting.transmission_bits[device, service, : last + 1]
    chosen: list[int] = []
    for k in np.lexsort((bits, cycles)).tolist():
        if chosen and cycles[k] == cycles[chosen[-1]]:
            continue
        while len(chosen) > 1:
            a, b = chosen[-2], chosen[-1]
            if (bits[b] - bits[a]) * (cycles[k] - cycles[a]) >= (bits[k] - bits[a]) * (cycles[b] - cycles[a]):
                chosen.pop()
            else:
                break
        chosen.append(k)
    edge = setting.edge_cycles[device, service]
    return [(k, float(cycles[k]), float(bits[k]), float(edge[k])) for k in chosen]
