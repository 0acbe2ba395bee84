"""How a processor's power follows its frequency: one model for the paper's cubic law, for real cores, and for tables.

``P(f) = P0 + a f + delta f^3`` while busy and nothing while idle; or a table of (frequency, watts), between whose rows
a processor shares its time. Where running slower costs more per cycle, it runs at the cheaper frequency for a part of
the slot instead and is off for the rest, so the power of an average frequency is the lower convex hull through (0, 0).
The paper's law (5) is ``P0 = a = 0``, which is its own hull.

One processor is one *row* of numbers, so that the compiled slot loop reads thousands of them: ``[P0, a, delta, F, L,
f_1 .. f_L, P_1 .. P_L]`` with F the highest frequency (0 where it does not matter), L = 0 for the law and the hull's
corners otherwise. The functions below take an array of rows (M, R) and a row's index; they are plain numbers in and
out, and compiled where they are hot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError

Floats = NDArray[np.float64]
Number = TypeVar("Number", float, NDArray[np.float64])

BASE, LINEAR, CUBIC, TOP, LEVELS, FIRST = 0, 1, 2, 3, 4, 5


def cubic_row(
    energy_coefficient: float, *, base_w: float = 0.0, linear_j: float = 0.0, max_frequency_hz: float = 0.0
) -> Floats:
    """Return the row of ``P0 + a f + delta f^3``.

    Args:
        energy_coefficient: delta, W s^3.
        base_w: P0, watts, paid while the processor is busy.
        linear_j: a, joules per cycle.
        max_frequency_hz: F; without a P0 it does not matter.
    """
    return np.array([base_w, linear_j, energy_coefficient, max_frequency_hz, 0.0])


def table_row(frequency_hz: Sequence[float], watts: Sequence[float], *, max_frequency_hz: float) -> Floats:
    """Return the row of a table: the corners of its lower convex hull through (0, 0), up to ``max_frequency_hz``.

    Args:
        frequency_hz: of the table's rows, above 0, in any order.
        watts: power at each, busy.
        max_frequency_hz: F; a limit between two rows is a corner of its own, time-shared between them.

    Raises:
        InputError: no rows, lengths that differ, or a value that is not finite and above 0.
    """
    points = sorted(zip(map(float, frequency_hz), map(float, watts), strict=True)) if len(watts) else []
    if not points or len(frequency_hz) != len(watts):
        raise InputError("processor: a table needs as many watts as frequencies, at least one")
    if not all(math.isfinite(f) and math.isfinite(w) and f > 0 and w > 0 for f, w in points):
        raise InputError("processor: frequencies and watts of a table must be finite and above 0")
    hull: list[tuple[float, float]] = [(0.0, 0.0)]
    for point in points:
        while len(hull) > 1 and _turns_down(hull[-2], hull[-1], point):
            hull.pop()
        if point[0] == hull[-1][0]:  # two rows of one frequency: the cheaper one came first
            continue
        hull.append(point)
    corners = hull[1:]
    if max_frequency_hz < corners[-1][0]:
        top = max(max_frequency_hz, 0.0)
        inner = [corner for corner in corners if corner[0] < top]
        below, above = inner[-1] if inner else (0.0, 0.0), corners[len(inner)]
        share = (top - below[0]) / (above[0] - below[0])
        corners = [*inner, (top, below[1] + share * (above[1] - below[1]))]
    return np.array([0.0, 0.0, 0.0, 0.0, len(corners), *(f for f, _ in corners), *(w for _, w in corners)])


def _turns_down(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


def stack_rows(rows: Sequence[Floats]) -> Floats:
    """Return rows of different lengths as one array (M, R)."""
    levels = max(int(row[LEVELS]) for row in rows)
    stacked = np.zeros((len(rows), FIRST + 2 * levels))
    for out, row in zip(stacked, rows, strict=True):
        widen_row(row, out)
    return stacked


def widen_row(row: Floats, out: Floats) -> None:
    """Copy a row into a longer one: the watts begin where the row's own frequencies end, so nothing moves."""
    count = FIRST + 2 * int(row[LEVELS])
    out[:count] = row[:count]


def local_energy_j(slot_s: float, energy_coefficient: Number, frequency_hz: Number) -> Number:
    """E^l = tau·delta·f³, equation (5); numbers or arrays, shapes broadcast.

    Args:
        slot_s: tau, seconds.
        energy_coefficient: delta, W·s³.
        frequency_hz: total frequency of the device, the sum of f^l over its services, cycles/s.

    Returns:
        Joules spent on computing in one slot.
    """
    return slot_s * energy_coefficient * (frequency_hz * frequency_hz * frequency_hz)


def processor_energy_j(slot_s: float, rows: Any, m: int, frequency_hz: float) -> float:
    """Joules of a slot at an average frequency. The cubic part is written as in (5), which keeps its bits."""
    if frequency_hz <= 0.0:
        return 0.0
    levels = int(rows[m, LEVELS])
    if levels == 0:
        base, cubic = rows[m, BASE], rows[m, CUBIC]
        share, hz = 1.0, frequency_hz
        if base > 0.0:
            thrifty = rows[m, TOP]
            if cubic > 0.0:
                thrifty = (base / (2.0 * cubic)) ** (1.0 / 3.0)
                if 0.0 < rows[m, TOP] < thrifty:
                    thrifty = rows[m, TOP]
            if frequency_hz < thrifty:  # on at the thriftiest frequency for a part of the slot
                share, hz = frequency_hz / thrifty, thrifty
        return share * (slot_s * cubic * (hz * hz * hz) + slot_s * (base + rows[m, LINEAR] * hz))  # type: ignore[no-any-return]
    below_hz, below_w = 0.0, 0.0
    for i in range(levels):
        above_hz, above_w = rows[m, FIRST + i], rows[m, FIRST + levels + i]
        if frequency_hz <= above_hz:
            share = (frequency_hz - below_hz) / (above_hz - below_hz)
            return slot_s * (below_w + (above_w - below_w) * share)  # type: ignore[no-any-return]
        below_hz, below_w = above_hz, above_w
    return slot_s * below_w * (frequency_hz / below_hz)


def processor_power_w(rows: Any, m: int, frequency_hz: float) -> float:
    """P at an average frequency of a slot, watts."""
    return processor_energy_j(1.0, rows, m, frequency_hz)


def processor_level_hz(rows: Any, m: int, worth: float, weight: float, max_hz: float) -> float:
    """The largest f in 0..``max_hz`` that minimises ``weight P(f) - worth f``: where P's slope meets the worth."""
    levels = int(rows[m, LEVELS])
    if levels > 0:
        below_hz, below_w, level = 0.0, 0.0, 0.0
        for i in range(levels):
            above_hz, above_w = rows[m, FIRST + i], rows[m, FIRST + levels + i]
            if weight * (above_w - below_w) > worth * (above_hz - below_hz):
                break
            level = above_hz
            below_hz, below_w = above_hz, above_w
        return min(max_hz, level)
    steepness = 3.0 * weight * rows[m, CUBIC]
    base, net = rows[m, BASE], worth - weight * rows[m, LINEAR]
    if net < 0.0:
        return 0.0
    level = max_hz
    if steepness > 0.0:
        level = min(max_hz, math.sqrt(net / steepness))
    if base > 0.0 and weight > 0.0:
        thrifty = max_hz
        if rows[m, CUBIC] > 0.0:
            thrifty = min(max_hz, (base / (2.0 * rows[m, CUBIC])) ** (1.0 / 3.0))
        cost = base + rows[m, LINEAR] * thrifty + rows[m, CUBIC] * (thrifty * thrifty * thrifty)
        if worth * thrifty < weight * cost:  # not even the thriftiest cycle is worth its energy
            return 0.0
        level = max(level, thrifty)
    return level


def processor_cruise_hz(rows: Any, m: int, wage_w: float, max_hz: float) -> float:
    """The f in 0..``max_hz`` at which a cycle costs least, ``(wage + P(f)) / f``: the speed at a price of time."""
    levels = int(rows[m, LEVELS])
    if levels == 0:
        if rows[m, CUBIC] <= 0.0:
            return max_hz
        return min(max_hz, ((wage_w + rows[m, BASE]) / (2.0 * rows[m, CUBIC])) ** (1.0 / 3.0))  # type: ignore[no-any-return]
    best_hz, best = 0.0, np.inf
    for i in range(levels):
        hz = rows[m, FIRST + i]
        cost = (wage_w + rows[m, FIRST + levels + i]) / hz if hz > 0.0 else np.inf
        if cost <= best:  # of equal ones the faster
            best_hz, best = hz, cost
    return min(best_hz, max_hz)
