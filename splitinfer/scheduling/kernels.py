"""Compiled cores of Problems 3, 4 and 5 for one device (one edge) and one slot.

The public functions of ``allocation.py`` and the simulator's slot loop both run these cores: each formula is written
once. ``docs/allocation.md`` derives them. All three are greedy: services in order of marginal worth ``v·Q``, largest
first, each up to its own level, minus what those before it got. Costs O(N log N).

``queue``, ``weight`` and ``out`` are two-dimensional, and a core works on the first ``services`` entries of one row: a
view per row would cost more than the allocation itself.

``price`` and ``order`` are scratch of at least N and 2 N elements; their contents on entry do not matter. Empty queues
are never looked at again after the first pass, so a slot with one or two waiting services costs next to nothing.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from splitinfer import radio
from splitinfer.energy import processor as processor_model
from splitinfer.energy import transmitter as radio_model
from splitinfer.energy.transmitter import CIRCUIT, PER_BIT, PER_RADIATED
from splitinfer.radio import LN2
from splitinfer.scheduling.compiled import njit

INSERTION_SORT_LIMIT = 32
"""Up to this many waiting services insertion sort beats merging."""

_SOURCES = (
    __file__,
    radio.__file__,
    processor_model.__file__,
    radio_model.__file__,
    Path(__file__).with_name("pricing.py"),
)
SOURCE_STAMP = zlib.crc32(b"".join(Path(str(file)).read_bytes() for file in _SOURCES))
"""Default argument of every cached entry point. Numba's cache on disk looks only at the file of the function it keeps,
not at what was inlined from other files; as part of the signature, this stamp makes it compile again when they change.
"""

lean: Any = njit(error_model="numpy", _nrt=False)  # type: ignore[call-overload]
"""Compiles what neither makes an array nor calls what does. Otherwise every call counts the references of all arrays
that it is given, by atomic instructions each way, which took two thirds of the simulator's time."""

rate_core: Any = lean(radio.shannon_rate_bps)
power_core: Any = lean(radio.shannon_power_w)
transmission_energy_core: Any = lean(radio_model.transmission_energy_j)
radio_power_core: Any = lean(radio_model.radio_power_w)
local_energy_core: Any = lean(processor_model.processor_energy_j)
level_core: Any = lean(processor_model.processor_level_hz)
cruise_core: Any = lean(processor_model.processor_cruise_hz)


@lean
def sort_by_price(price, order, count):  # type: ignore[no-untyped-def]
    """Sorts the first ``count`` services in ``order`` by ``price[service]``, largest first, equals as they come.

    Runs by insertion, merged to and fro between the halves of ``order``: a core that makes no array of its own need
    not count the references of those it is given.
    """
    for first in range(0, count, INSERTION_SORT_LIMIT):
        for i in range(first + 1, min(first + INSERTION_SORT_LIMIT, count)):
            index = order[i]
            j = i
            while j > first and price[order[j - 1]] < price[index]:
                order[j] = order[j - 1]
                j -= 1
            order[j] = index
    width, source, target = INSERTION_SORT_LIMIT, 0, count
    while width < count:
        for first in range(0, count, 2 * width):
            middle, end = min(first + width, count), min(first + 2 * width, count)
            left, right = first, middle
            for i in range(first, end):
                if right == end or (left < middle and price[order[source + left]] >= price[order[source + right]]):
                    order[target + i] = order[source + left]
                    left += 1
                else:
                    order[target + i] = order[source + right]
                    right += 1
        width, source, target = 2 * width, target, source
    if source > 0:
        for i in range(count):
            order[i] = order[count + i]


@lean
def collect_waiting(queue, weight, row, services, price, order, out):  # type: ignore[no-untyped-def]
    """Clears ``out``, lists the services that have a backlog in ``order``, prices them; returns their number."""
    count = 0
    for n in range(services):
        out[row, n] = 0.0
        if queue[row, n] > 0.0:
            price[n] = weight[row, n] * queue[row, n]
            order[count] = n
            count += 1
    return count


@lean
def local_core(queue, weight, row, services, slot_s, energy_weight, processor, max_hz, price, order, out):  # type: ignore[no-untyped-def]
    """Problem 3. Fills ``out`` with f^l per service; returns their sum."""
    count = collect_waiting(queue, weight, row, services, price, order, out)
    sort_by_price(price, order, count)
    total = 0.0
    for i in range(count):
        n = order[i]
        level = level_core(processor, row, price[n], energy_weight, max_hz)
        if level <= total:  # levels only fall from here on
            break
        out[row, n] = min(queue[row, n] / slot_s, level - total)
        total += out[row, n]
    return total


@lean
def transmission_core(  # type: ignore[no-untyped-def]
    queue, weight, row, services, energy_weight, slot_s, bandwidth_hz, noise, gain, max_w, radio, price, order, out
):
    """Problem 4. Fills ``out`` with r per service; returns their sum and the radiated power p that carries it."""
    count = collect_waiting(queue, weight, row, services, price, order, out)
    if count == 0 or gain <= 0.0:
        return 0.0, 0.0
    max_rate = rate_core(max_w, gain, bandwidth_hz, noise)
    max_power_ratio = 1.0 + max_w * gain / (bandwidth_hz * noise)
    sort_by_price(price, order, count)
    steepness = energy_weight * noise * LN2 / gain * radio[row, PER_RADIATED]
    bit_cost = energy_weight * radio[row, PER_BIT]
    total, worth = 0.0, 0.0
    for i in range(count):
        n = order[i]
        net = price[n] - bit_cost
        if net < 0.0:
            break
        level = max_rate
        if net < steepness * max_power_ratio:  # otherwise worth full power, and the logarithm is spared
            # log2(x) <= 0 for x <= 1: not even the first bit is worth its energy.
            level = min(max_rate, bandwidth_hz * (math.log(max(1.0, net / steepness)) / LN2))
        if level <= total:
            break
        out[row, n] = min(queue[row, n] / slot_s, level - total)
        total += out[row, n]
        worth += out[row, n] * price[n]
    if total == 0.0:
        return 0.0, 0.0
    power = max_w
    if total < max_rate:
        power = min(max_w, power_core(total, gain, bandwidth_hz, noise))
    if radio[row, CIRCUIT] > 0.0 and worth < energy_weight * radio_power_core(radio, row, power, total):
        # The slot is not worth switching the radio on.
        for n in range(services):
            out[row, n] = 0.0
        return 0.0, 0.0
    return total, power


@lean
def edge_core(queue, weight, row, services, slot_s, max_hz, price, order, out):  # type: ignore[no-untyped-def]
    """Problem 5. Fills ``out`` with f^e per service; returns their sum."""
    count = collect_waiting(queue, weight, row, services, price, order, out)
    demand = 0.0
    for i in range(count):
        out[row, order[i]] = queue[row, order[i]] / slot_s
        demand += out[row, order[i]]
    if demand <= max_hz:  # everybody gets all they can use, no need to rank them
        return demand
    sort_by_price(price, order, count)
    total = 0.0
    for i in range(count):
        n = order[i]
        out[row, n] = max(0.0, min(out[row, n], max_hz - total))
        total += out[row, n]
    return total


@njit(cache=True, error_model="numpy")
def local_rows(queue, weight, slot_s, energy_weight, processor, max_hz, out, _stamp=SOURCE_STAMP):  # type: ignore[no-untyped-def]
    """``local_core`` for each row of (B, N) arrays with (B,) parameters and (B, R) processors."""
    price = np.empty(queue.shape[1], np.float64)
    order = np.empty(2 * queue.shape[1], np.int64)
    for i in range(queue.shape[0]):
        local_core(
            queue,
            weight,
            i,
            queue.shape[1],
            slot_s[i],
            energy_weight[i],
            processor,
            max_hz[i],
            price,
            order,
            out,
        )


@njit(cache=True, error_model="numpy")
def transmission_rows(  # type: ignore[no-untyped-def]
    queue, weight, slot_s, energy_weight, bandwidth_hz, noise, gain, max_w, radio, out, power, _stamp=SOURCE_STAMP
):
    """``transmission_core`` for each row of (B, N) arrays with (B,) parameters and (B, 3) radios."""
    price = np.empty(queue.shape[1], np.float64)
    order = np.empty(2 * queue.shape[1], np.int64)
    for i in range(queue.shape[0]):
        _, power[i] = transmission_core(
            queue,
            weight,
            i,
            queue.shape[1],
            energy_weight[i],
            slot_s[i],
            bandwidth_hz[i],
            noise[i],
            gain[i],
            max_w[i],
            radio,
            price,
            order,
            out,
        )


@njit(cache=True, error_model="numpy")
def edge_rows(queue, weight, slot_s, max_hz, out, _stamp=SOURCE_STAMP):  # type: ignore[no-untyped-def]
    """``edge_core`` for each row of (B, N) arrays with (B,) parameters."""
    price = np.empty(queue.shape[1], np.float64)
    order = np.empty(2 * queue.shape[1], np.int64)
    for i in range(queue.shape[0]):
        edge_core(queue, weight, i, queue.shape[1], slot_s[i], max_hz[i], price, order, out)
