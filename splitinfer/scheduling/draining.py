"""What a task costs a queue under the exact allocation of a slot, in closed form: seconds and joules.

Policies that look ahead weigh cuts by it. Everything broadcasts. A device's services share its stations, so a queue
here is the sum over the services.

Local. ``f(q) = min(F, sqrt(q / (3 U delta)), q / tau)``. Below the knee ``q0 = 3 U delta F^2`` the device runs slower
than it could, by its own choice: a queue takes ``T = 2 sqrt(3 U delta q)`` and ``E = q^2 / (6 U)``; above, T grows by
1/F and E by ``delta F^2`` per cycle. Where the knee lies within one slot's work at F, the device runs flat out, and
what is left for a task's last slot, rest < F tau, goes at ``rest / tau``: that slot costs ``delta rest^3 / tau^2``, far
less than at F. A task that finds others there fills its last slot up with them, and costs its full share.

Link. Sent at a rate r given for the whole queue, each slot at power p(r); what is left for the last slot goes at
``rest / tau``. Power is convex in the rate, so a tensor that fits into a slot costs far less than its share of a full
one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def local_drain_s(
    queue_cycles: Floats, *, max_frequency_hz: Floats, energy_coefficient: Floats, energy_weight: Floats
) -> Floats:
    """Return the seconds that a local queue takes, without waiting for slots.

    Args:
        queue_cycles: q.
        max_frequency_hz: F.
        energy_coefficient: delta in W s^3.
        energy_weight: U^l.
    """
    slow = 3 * energy_weight * energy_coefficient
    knee = slow * max_frequency_hz**2
    crawling = 2 * np.sqrt(slow * np.minimum(queue_cycles, knee))
    return np.asarray(crawling + np.maximum(queue_cycles - knee, 0) / max_frequency_hz)


def local_backlog_cycle_s(
    queue_cycles: Floats, *, max_frequency_hz: Floats, energy_coefficient: Floats, energy_weight: Floats
) -> Floats:
    """Return the integral of a local queue over the time that it takes, in cycles times seconds.

    Args:
        queue_cycles, max_frequency_hz, energy_coefficient, energy_weight: as for ``local_drain_s``.
    """
    slow = 3 * energy_weight * energy_coefficient
    knee = slow * max_frequency_hz**2
    crawling = 2 / 3 * np.sqrt(slow) * np.minimum(queue_cycles, knee) ** 1.5
    return np.asarray(crawling + np.maximum(queue_cycles**2 - knee**2, 0) / (2 * max_frequency_hz))


def local_added_j(
    queue_cycles: Floats,
    task_cycles: Floats,
    *,
    slot_s: Floats,
    max_frequency_hz: Floats,
    energy_coefficient: Floats,
    energy_weight: Floats,
) -> Floats:
    """Return the energy that a task adds to a local queue.

    Args:
        queue_cycles: what it finds there, on average.
        task_cycles: its own work.
        slot_s: tau.
        max_frequency_hz: F.
        energy_coefficient: delta in W s^3.
        energy_weight: U^l.
    """
    knee = 3 * energy_weight * energy_coefficient * max_frequency_hz**2
    slot_cycles = max_frequency_hz * slot_s

    def slowly(queue: Floats) -> Floats:
        crawling = np.square(np.minimum(queue, knee)) / (2 * np.maximum(knee, 1e-300))
        return np.asarray(crawling + np.maximum(queue - knee, 0))

    full, rest = np.divmod(task_cycles, slot_cycles)
    alone = full * slot_cycles + rest**3 / slot_cycles**2
    behind_others = np.minimum(queue_cycles / slot_cycles, 1.0)
    flat_out = alone + behind_others * (task_cycles - alone)
    by_choice = slowly(queue_cycles + task_cycles) - slowly(queue_cycles)
    return np.asarray(energy_coefficient * max_frequency_hz**2 * np.where(knee > slot_cycles, by_choice, flat_out))


def local_followers_j(
    queue_cycles: Floats,
    added_cycle_s: Floats,
    *,
    load_hz: Floats,
    slot_s: Floats,
    max_frequency_hz: Floats,
    energy_coefficient: Floats,
    energy_weight: Floats,
) -> Floats:
    """Return the energy that those who come later spend because of a task: they find it there, and run faster.

    Who brings y cycles while q are queued spends ``((q + y)^2 - q^2) / (6 U)``, of which ``q y / (3 U)`` is for what is
    queued. So a task that adds ``added_cycle_s`` to the integral of the queue costs its followers ``load / (3 U)``
    times that, to first order in their load. Where the device runs flat out they spend no more than they did.

    Args:
        queue_cycles: the queue while the task is served, on average.
        added_cycle_s: what it adds to the integral of the queue over time, see ``local_backlog_cycle_s``.
        load_hz: cycles per second that keep coming.
        slot_s, max_frequency_hz, energy_coefficient, energy_weight: as for ``local_added_j``.
    """
    knee = 3 * energy_weight * energy_coefficient * max_frequency_hz**2
    by_choice_slow = (queue_cycles < knee) & (knee > max_frequency_hz * slot_s)
    return np.asarray(np.where(by_choice_slow, load_hz * added_cycle_s / np.maximum(3 * energy_weight, 1e-300), 0.0))


def link_rate_bps(
    queue_bits: Floats, *, full_rate_bps: Floats, bandwidth_hz: Floats, max_power_w: Floats, energy_weight: Floats
) -> Floats:
    """Return the rate that Problem 4 gives a backlog on a steady channel.

    Args:
        queue_bits: backlog.
        full_rate_bps: R(p_max) of that channel, which determines it.
        bandwidth_hz: b.
        max_power_w: p_max.
        energy_weight: U^t.
    """
    gain_over_noise = np.expm1(full_rate_bps / bandwidth_hz * np.log(2)) * bandwidth_hz / max_power_w
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing waits, or energy weighs nothing
        wanted = bandwidth_hz * np.log2(queue_bits * gain_over_noise / (energy_weight * np.log(2)))
    wanted = np.where(queue_bits > 0, wanted, 0.0)
    # A backlog too small to be sent at all waits until it is not; a floor keeps its delay finite.
    return np.asarray(np.clip(wanted, 0.01 * full_rate_bps, full_rate_bps))


def link_added_j(
    queue_bits: Floats,
    task_bits: Floats,
    *,
    rate_bps: Floats,
    slot_s: Floats,
    full_rate_bps: Floats,
    bandwidth_hz: Floats,
    max_power_w: Floats,
) -> Floats:
    """Return the energy that a task adds to a transmission queue.

    Args:
        queue_bits: what it finds there, on average.
        task_bits: its own.
        rate_bps: the rate while the queue is long enough for it.
        slot_s: tau.
        full_rate_bps: R(p_max) of the channel.
        bandwidth_hz: b.
        max_power_w: p_max.
    """
    snr = np.expm1(full_rate_bps / bandwidth_hz * np.log(2))

    def power_w(rate: Floats) -> Floats:
        return np.asarray(max_power_w * np.expm1(rate / bandwidth_hz * np.log(2)) / snr)

    slot_bits = rate_bps * slot_s
    full, rest = np.divmod(task_bits, slot_bits)
    alone = slot_s * (full * power_w(rate_bps) + power_w(rest / slot_s))
    behind_others = np.minimum(queue_bits / slot_bits, 1.0)
    return np.asarray(alone + behind_others * (power_w(rate_bps) * task_bits / rate_bps - alone))
