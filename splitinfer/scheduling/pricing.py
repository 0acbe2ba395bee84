"""Compiled cores of the price of time: allocation when a second of a task's latency costs w joules.

With n tasks waiting, every second costs n w. A processor then runs at the speed at which a cycle costs least, and a
radio sends at the level at which a bit does, whatever the tasks have left: work is done at constant cost instead of
fast first and slowly at the end. ``docs/price_of_time.md`` derives the rules.

**Processor.** ``min over s of (n w + P(s)) / s``: ``energy.processor.processor_cruise_hz``.

**Radio.** The price of a bit is the least value of ``(n w + E[P(r)]) / E[r]`` over stationary rules r(h) under the
fading law. Dinkelbach's iteration finds it: at a price lambda the best rule sends, in a slot of gain h, the r that
maximises ``lambda r - P(r)``, which is water-filling; the next price is what that rule pays per bit. Prices fall to the
least one, and quadratically. They are kept per device and number of tasks.

**Wages that grow.** With a growth time T, n tasks whose oldest came a seconds ago count as ``n (1 + floor(a/T))``.
Prices of whole numbers of tasks are all that is needed, and each is exact for its wage.

**Whom to serve.** The service whose head-of-line task comes first in the order (least work left, or oldest), then the
next; what is left over goes to the tasks behind them in the same order.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from splitinfer.energy.transmitter import CIRCUIT, PER_BIT, PER_RADIATED
from splitinfer.radio import LN2
from splitinfer.scheduling.compiled import njit
from splitinfer.scheduling.kernels import (
    SOURCE_STAMP,
    cruise_core,
    lean,
    local_energy_core,
    power_core,
    radio_power_core,
    rate_core,
    sort_by_price,
)

PRICES_KEPT = 256
"""Prices of a bit are kept for so many numbers of tasks; beyond, they are computed each time."""

MOST_STEPS = 60
"""Dinkelbach's iteration converges quadratically from above; ten steps are usual."""

PRECISION = 1e-12
"""It ends when a step changes the price by less than this share."""

MOST_GROWTH = 1e6
"""A wage grows to so many times itself at most, so that numbers of tasks stay within an integer."""

GAIN_WINDOW = 2000.0
"""Slots over which a mean gain that is not known beforehand is followed."""

GAIN_STEP = 0.05
"""Prices are computed anew when the followed mean gain has moved by this share."""


class BitPrices(NamedTuple):
    """What is known of each device's channel, and the prices that follow. Everything a price depends on is here."""

    fading: Any  # (M, Q) equally likely gains over their mean
    mean_gain: Any  # (M,) the mean that the prices are for; 0 before any gain was seen
    followed_gain: Any  # (M,) running mean of the gains
    seen: Any  # (M,) slots in it; negative where the mean is known and stays
    prices: Any  # (M, PRICES_KEPT) joules per bit with n tasks; 0 where not computed yet


def bit_prices(setting: Any) -> BitPrices:
    """Return what the price rule keeps of the channels of a setting, or of a stack of them, device by device."""
    mean_gain = np.array(setting.mean_gain).ravel()
    devices = len(mean_gain)
    known = mean_gain > 0
    return BitPrices(
        fading=np.array(setting.fading).reshape(devices, -1),
        mean_gain=mean_gain,
        followed_gain=np.zeros(devices),
        seen=np.where(known, -1.0, 0.0),
        prices=np.zeros((devices, PRICES_KEPT)),
    )


@lean
def level_at(price, radio, row, gain, bandwidth_hz, noise, max_w, max_rate):  # type: ignore[no-untyped-def]
    """The rate that maximises ``price r - P(r)`` at a gain, and the radiated power that carries it."""
    net = price - radio[row, PER_BIT]
    if net <= 0.0 or gain <= 0.0:
        return 0.0, 0.0
    rate, power = max_rate, max_w
    steepness = noise * LN2 / gain * radio[row, PER_RADIATED]
    if net < steepness * (1.0 + max_w * gain / (bandwidth_hz * noise)):
        if net <= steepness:
            return 0.0, 0.0
        rate = min(max_rate, bandwidth_hz * (math.log(net / steepness) / LN2))
        power = min(max_w, power_core(rate, gain, bandwidth_hz, noise))
    if radio[row, CIRCUIT] > 0.0 and price * rate <= radio_power_core(radio, row, power, rate):
        return 0.0, 0.0
    return rate, power


@njit(error_model="numpy")
def price_of_bit(wage_w, fading, mean_gain, radio, row, bandwidth_hz, noise, max_w):  # type: ignore[no-untyped-def]
    """The least ``(wage + E[P]) / E[r]``, joules per bit; infinite where the channel carries nothing."""
    count = fading.shape[1]
    rates = np.empty(count, np.float64)
    mean_rate, mean_power = 0.0, 0.0
    for i in range(count):
        rates[i] = rate_core(max_w, mean_gain * fading[row, i], bandwidth_hz, noise)
        mean_rate += rates[i]
        if rates[i] > 0.0:
            mean_power += radio_power_core(radio, row, max_w, rates[i])
    if mean_rate <= 0.0:
        return np.inf
    price = (wage_w * count + mean_power) / mean_rate  # full power in every slot, which is never the cheapest
    for _ in range(MOST_STEPS):
        mean_rate, mean_power = 0.0, 0.0
        for i in range(count):
            gain = mean_gain * fading[row, i]
            rate, power = level_at(price, radio, row, gain, bandwidth_hz, noise, max_w, rates[i])
            if rate > 0.0:
                mean_rate += rate
                mean_power += radio_power_core(radio, row, power, rate)
        if mean_rate <= 0.0:
            break
        before = price
        price = (wage_w * count + mean_power) / mean_rate
        if before - price <= PRECISION * before:
            break
    return price


@njit(error_model="numpy")
def price_for(tasks, wage_w, channel, radio, row, bandwidth_hz, noise, max_w):  # type: ignore[no-untyped-def]
    """The price of a bit with so many tasks waiting on a device's link, from what is kept or computed now."""
    if tasks < PRICES_KEPT and channel.prices[row, tasks] > 0.0:
        return channel.prices[row, tasks]
    price = price_of_bit(tasks * wage_w, channel.fading, channel.mean_gain[row], radio, row, bandwidth_hz, noise, max_w)
    if tasks < PRICES_KEPT:
        channel.prices[row, tasks] = price
    return price


@lean
def follow_gain(channel, row, gain):  # type: ignore[no-untyped-def]
    """Takes in the gain of a slot where the mean is not known beforehand."""
    if channel.seen[row] < 0.0:
        return
    channel.seen[row] = min(channel.seen[row] + 1.0, GAIN_WINDOW)
    channel.followed_gain[row] += (gain - channel.followed_gain[row]) / channel.seen[row]
    followed = channel.followed_gain[row]
    if abs(followed - channel.mean_gain[row]) > GAIN_STEP * channel.mean_gain[row]:
        channel.mean_gain[row] = followed
        channel.prices[row, :] = 0.0


@lean
def grown(tasks, age_slots, slot_s, growth_s):  # type: ignore[no-untyped-def]
    """As how many tasks these count whose oldest came so many slots ago."""
    if growth_s <= 0.0 or age_slots <= 0:
        return tasks
    return tasks * (1 + int(min(age_slots * slot_s / growth_s, MOST_GROWTH)))


@lean
def serve_in_order(queue, head, rank, row, services, slot_s, budget, key, order, out):  # type: ignore[no-untyped-def]
    """Fills ``out`` with rates up to ``budget`` in all: heads of line by rank, least first, then those behind them."""
    count = 0
    total = 0.0
    for n in range(services):
        out[row, n] = 0.0
        if queue[row, n] > 0.0:
            key[n] = -rank[row, n]
            order[count] = n
            count += 1
            total += queue[row, n] / slot_s
    if total <= budget:  # everybody gets all they can use
        for i in range(count):
            out[row, order[i]] = queue[row, order[i]] / slot_s
        return total
    sort_by_price(key, order, count)
    left = budget
    for i in range(count):
        n = order[i]
        out[row, n] = min(min(head[row, n], queue[row, n]) / slot_s, left)
        left -= out[row, n]
    for i in range(count):
        n = order[i]
        if left <= 0.0:
            break
        more = min(max(queue[row, n] / slot_s - out[row, n], 0.0), left)
        out[row, n] += more
        left -= more
    return budget


@lean
def local_price_core(  # type: ignore[no-untyped-def]
    queue, head, rank, tasks, row, services, slot_s, wage_w, processor, max_hz, key, order, out
):
    """The local frequencies with so many tasks on the device; returns their sum."""
    speed = cruise_core(processor, row, tasks * wage_w, max_hz)
    return serve_in_order(queue, head, rank, row, services, slot_s, speed, key, order, out)


@njit(error_model="numpy")
def link_price_core(  # type: ignore[no-untyped-def]
    queue, head, rank, tasks, row, services, slot_s, wage_w, channel, radio, bandwidth_hz, noise, gain, max_w, key,
    order, out
):  # fmt: skip
    """The rates with so many tasks on the device's link; returns their sum and the radiated power."""
    for n in range(services):
        out[row, n] = 0.0
    if gain <= 0.0:
        return 0.0, 0.0
    price = price_for(tasks, wage_w, channel, radio, row, bandwidth_hz, noise, max_w)
    max_rate = rate_core(max_w, gain, bandwidth_hz, noise)
    rate, power = level_at(price, radio, row, gain, bandwidth_hz, noise, max_w, max_rate)
    if rate <= 0.0:
        return 0.0, 0.0
    total = serve_in_order(queue, head, rank, row, services, slot_s, rate, key, order, out)
    if total < rate:
        power = min(max_w, power_core(total, gain, bandwidth_hz, noise))
    return total, power


@njit(cache=True, error_model="numpy")
def local_price_row(queue, head, rank, tasks, row, slot_s, wage_w, processor, max_hz, out, _stamp=SOURCE_STAMP):  # type: ignore[no-untyped-def]
    """``local_price_core`` for one device, whose arrays are (1, N); ``row`` is its processor's."""
    services = queue.shape[1]
    key, order = np.empty(services, np.float64), np.empty(2 * services, np.int64)
    speed = cruise_core(processor, row, tasks * wage_w, max_hz)
    return serve_in_order(queue, head, rank, 0, services, slot_s, speed, key, order, out)


@njit(cache=True, error_model="numpy")
def link_price_row(  # type: ignore[no-untyped-def]
    queue, head, rank, tasks, row, slot_s, wage_w, channel, radio, bandwidth_hz, noise, gain, max_w, out,
    _stamp=SOURCE_STAMP
):  # fmt: skip
    """``link_price_core`` for one device, whose arrays are (M, N) with one row in use."""
    services = queue.shape[1]
    key, order = np.empty(services, np.float64), np.empty(2 * services, np.int64)
    return link_price_core(
        queue, head, rank, tasks, row, services, slot_s, wage_w, channel, radio, bandwidth_hz, noise, gain, max_w,
        key, order, out
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def edge_price_row(queue, head, rank, slot_s, max_hz, out, _stamp=SOURCE_STAMP):  # type: ignore[no-untyped-def]
    """The edge's frequencies; arrays are (1, M·N)."""
    services = queue.shape[1]
    key, order = np.empty(services, np.float64), np.empty(2 * services, np.int64)
    return serve_in_order(queue, head, rank, 0, services, slot_s, max_hz, key, order, out)


@njit(cache=True, error_model="numpy")
def follow_gain_row(channel, row, gain, _stamp=SOURCE_STAMP):  # type: ignore[no-untyped-def]
    """``follow_gain`` as an entry point."""
    follow_gain(channel, row, gain)


@njit(cache=True, error_model="numpy")
def follow_gains(channel, gains, seen, slots, _stamp=SOURCE_STAMP):  # type: ignore[no-untyped-def]
    """Takes in the gains (R,) of so many slots on each device that is marked in ``seen``."""
    for row in range(len(gains)):
        for _ in range(slots if seen[row] else 0):
            follow_gain(channel, row, gains[row])


@njit(cache=True, error_model="numpy")
def task_prices(  # type: ignore[no-untyped-def]
    tasks, wage_w, processor, max_hz, channel, radio, bandwidth_hz, noise, max_w, out, _stamp=SOURCE_STAMP
):
    """What a cycle and a bit cost on each of R devices with so many tasks there, (2, R); numbers need not be whole.

    Fills ``out`` (4, R): the price of a cycle and the seconds in it, the price of a bit and the seconds in it. Between
    whole numbers of tasks a bit's price is in proportion; one task more adds w times the seconds of a bit to it.
    """
    for row in range(tasks.shape[1]):
        wage = tasks[0, row] * wage_w[row]
        speed = cruise_core(processor, row, wage, max_hz[row])
        out[0, row], out[1, row] = np.inf, np.inf
        if speed > 0.0:
            out[0, row] = (wage + local_energy_core(1.0, processor, row, speed)) / speed
            out[1, row] = 1.0 / speed
        if channel.mean_gain[row] <= 0.0:  # nothing is known of the channel yet
            out[2, row], out[3, row] = 1.0 / bandwidth_hz[row], 1.0 / bandwidth_hz[row]
            continue
        low = int(tasks[1, row])
        price = price_for(low, wage_w[row], channel, radio, row, bandwidth_hz[row], noise[row], max_w[row])
        above = price_for(low + 1, wage_w[row], channel, radio, row, bandwidth_hz[row], noise[row], max_w[row])
        out[2, row], out[3, row] = price, np.inf
        if np.isfinite(price):
            out[2, row] += (tasks[1, row] - low) * (above - price)
            if wage_w[row] > 0.0:
                out[3, row] = (above - price) / wage_w[row]
