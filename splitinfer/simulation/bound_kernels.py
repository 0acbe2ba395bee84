"""The least cost of one task alone, compiled: all cuts, all numbers of slots on the processor and on the radio."""

from __future__ import annotations

import numpy as np

from splitinfer.scheduling.compiled import njit
from splitinfer.scheduling.kernels import SOURCE_STAMP, local_energy_core, radio_power_core, rate_core
from splitinfer.scheduling.pricing import level_at

_MOST_STEPS = 260


@njit(error_model="numpy")
def _sending_cost_j(bits, first, count, gains, slot_s, radio, m, bandwidth_hz, noise, max_w):  # type: ignore[no-untyped-def]
    """A lower bound on the joules of sending ``bits`` in so many slots; infinite where they do not suffice.

    Any price gives one, by duality: price · bits + sum over slots of the least P(r) - price r. The best price sends
    just the bits, and for the paper's radio the bound is then the optimum (water-filling).
    """
    most = 0.0
    for t in range(first, first + count):
        most += slot_s * rate_core(max_w, gains[t], bandwidth_hz, noise)
    if most < bits:
        return np.inf
    low, high = 0.0, 1e-12
    for _ in range(_MOST_STEPS):
        price = high if low == 0.0 else (low * high) ** 0.5
        sent = 0.0
        for t in range(first, first + count):
            top = rate_core(max_w, gains[t], bandwidth_hz, noise)
            rate, _ = level_at(price, radio, m, gains[t], bandwidth_hz, noise, max_w, top)
            sent += slot_s * rate
        if sent >= bits * (1.0 - 1e-12):
            high = price
            if low == 0.0:
                low = price * 1e-12
        elif low == 0.0:
            high = price * 16.0
            if high > 1e60:
                break
        else:
            low = price
        if low > 0.0 and high <= low * (1.0 + 1e-10):
            break
    price = high
    value = price * bits
    for t in range(first, first + count):
        top = rate_core(max_w, gains[t], bandwidth_hz, noise)
        rate, power = level_at(price, radio, m, gains[t], bandwidth_hz, noise, max_w, top)
        if rate > 0.0:
            value += slot_s * (radio_power_core(radio, m, power, rate) - price * rate)
    return max(value, 0.0)


@njit(error_model="numpy")
def _is_beaten(work, k, edge_cycles_per_slot):  # type: ignore[no-untyped-def]
    """Whether another cut asks no more of processor, radio and edge slots than cut k does."""
    for other in range(work.shape[1]):
        if other == k or work[0, other] > work[0, k] or work[1, other] > work[1, k]:
            continue
        theirs = np.ceil(work[2, other] / edge_cycles_per_slot - 1e-9) if work[2, other] > 0.0 else 0.0
        ours = np.ceil(work[2, k] / edge_cycles_per_slot - 1e-9) if work[2, k] > 0.0 else 0.0
        alike = work[0, other] == work[0, k] and work[1, other] == work[1, k] and theirs == ours
        if theirs <= ours and (not alike or other < k):
            return True
    return False


@njit(cache=True, error_model="numpy")
def least_cost_alone(  # type: ignore[no-untyped-def]
    arrival, gains, work, slot_s, price_w, processor, radio, m, max_hz, bandwidth_hz, noise, max_w, edge_hz,
    _stamp=SOURCE_STAMP
):  # fmt: skip
    """The least of energy + w · latency for one task that comes in slot ``arrival``; (3, K + 1) is its work per cut.

    Not finishing by the end of the gains is a choice as well: it costs the time until then, and no energy.
    """
    end = gains.shape[0]
    best = price_w * slot_s * (end - arrival)
    wage = price_w * slot_s  # of a slot
    for k in range(work.shape[1]):
        if _is_beaten(work, k, edge_hz * slot_s):
            continue
        cycles, bits, edge_cycles = work[0, k], work[1, k], work[2, k]
        edge_slots = 0
        if edge_cycles > 0.0:
            if edge_hz <= 0.0:
                continue
            edge_slots = int(np.ceil(edge_cycles / (edge_hz * slot_s) - 1e-9))
        fewest = 0
        if cycles > 0.0:
            if max_hz <= 0.0:
                continue
            fewest = int(np.ceil(cycles / (max_hz * slot_s) - 1e-9))
        local = fewest
        while True:
            local_j = 0.0
            if local > 0:
                local_j = local * local_energy_core(slot_s, processor, m, min(max_hz, cycles / (local * slot_s)))
            # Latency is counted from the arrival's slot on, whose own end is the first chance to be served after.
            fixed = wage * (1 + local + edge_slots)
            if fixed + (1 if bits > 0.0 else 0) * wage >= best:
                break
            if bits <= 0.0:
                if arrival + local + edge_slots < end:
                    best = min(best, fixed + local_j)
            elif fixed + local_j < best:
                first = arrival + 1 + local
                # With all the slots that could still pay, sending is cheapest: what it costs then prunes the rest.
                longest = min(end - edge_slots - first, int((best - fixed - local_j) / wage) + 1)
                least_j = np.inf
                if longest > 0:
                    least_j = _sending_cost_j(bits, first, longest, gains, slot_s, radio, m, bandwidth_hz, noise, max_w)
                count = 1
                sent = slot_s * rate_core(max_w, gains[first], bandwidth_hz, noise) if longest > 0 else 0.0
                while count < longest and sent < bits:
                    sent += slot_s * rate_core(max_w, gains[first + count], bandwidth_hz, noise)
                    count += 1
                while count <= longest and fixed + wage * count + local_j + least_j < best:
                    sending_j = _sending_cost_j(bits, first, count, gains, slot_s, radio, m, bandwidth_hz, noise, max_w)
                    best = min(best, fixed + wage * count + local_j + sending_j)
                    count += 1
            if cycles <= 0.0:
                break
            local += 1
            if arrival + local >= end:
                break
    return best
