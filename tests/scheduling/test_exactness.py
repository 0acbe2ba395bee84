"""Every rule on every power model, capped and not, one task to thousands, against linear programmes and brute force.

What is asked is the rule itself, through the seam that simulator and live runs call: no schedule and no stationary rule
found otherwise is better.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import coo_array

from splitinfer.energy.processor import cubic_row, table_row
from splitinfer.energy.transmitter import RADIATED_ROW, radio_row
from splitinfer.scheduling.rules import DriftPlusPenalty, PriceOfTime, Waiting
from splitinfer.scheduling.setting import Setting, rayleigh_quantiles

SLOT_S, SLOT = 0.01, 1000
BAND_HZ, NOISE, GAIN = 250e3, 4e-21, 2e-13
TABLE_HZ, TABLE_W = np.array([0.3e9, 0.8e9, 1.3e9, 2.8e9]), np.array([0.12, 0.28, 0.42, 1.7])
LAWS = {"cubic": (0.0, 0.0, 1e-28), "full": (0.15, 1e-10, 4e-29)}
RADIOS = {
    "paper": RADIATED_ROW,
    "circuit": radio_row(circuit_w=0.4, amplifier_efficiency=0.3),
    "measured": radio_row(circuit_w=0.2, amplifier_efficiency=np.inf, bit_j=40e-9),
    "all": radio_row(circuit_w=0.3, amplifier_efficiency=0.4, bit_j=20e-9),
}
RULES = {
    "drift-plus-penalty": (DriftPlusPenalty, 0.0, 1),
    "price": (PriceOfTime, 0.0, 1),
    "grown": (PriceOfTime, 0.3, 3),
}
"""Rule, growth time, and how many times w has grown where the oldest came 65 slots ago."""


def world(services, growth_s, **changes):
    work = np.ones((1, services, 1))
    fields = {
        "max_local_frequency_hz": 1e9,
        "max_power_w": 0.3,
        "energy_coefficient": 0.0,
        "queue_weight": 10.0 ** np.random.default_rng(services).uniform(-0.3, 0.3, (1, services)),
        "latency_price_w": 0.004,
        "price_growth_s": growth_s,
        "fading": rayleigh_quantiles(24)[None],
        "mean_gain": GAIN,
    }
    return Setting(
        slot_s=SLOT_S,
        slots_per_period=10,
        device_bandwidth_hz=BAND_HZ,
        noise_w_per_hz=NOISE,
        max_edge_frequency_hz=1e10,
        local_cycles=work,
        transmission_bits=work,
        edge_cycles=work,
        num_cuts=np.zeros((1, services), np.int64),
        **(fields | changes),
    )


def waiting(work):
    """One task in each queue; the first came 65 slots ago."""
    arrival = np.full(len(work), SLOT)
    arrival[0] = SLOT - 65
    return Waiting(work=work, tasks=np.ones(len(work), np.int64), head_work=work, head_arrival_slot=arrival, slot=SLOT)


def started(rule, setting):
    one = RULES[rule][0]()
    one.start(setting)
    return one


def speeds_of(processor, limit_hz):
    """Speeds and what each draws: a table's rows up to the limit and the mixture at it, a law on a fine grid."""
    if processor == "table":
        top = min(limit_hz, TABLE_HZ[-1])
        hz = np.append(TABLE_HZ[top > TABLE_HZ], top)
        return table_row(TABLE_HZ, TABLE_W, max_frequency_hz=limit_hz), hz, np.interp(hz, TABLE_HZ, TABLE_W)
    base, slope, delta = LAWS[processor]
    hz = np.linspace(limit_hz / 800, limit_hz, 800)
    row = cubic_row(delta, base_w=base, linear_j=slope, max_frequency_hz=limit_hz)
    return row, hz, base + slope * hz + delta * hz**3


@pytest.mark.parametrize("tasks", [1, 3, 2000])
@pytest.mark.parametrize("limit_hz", [0.9e9, 8e9], ids=["capped", "uncapped"])
@pytest.mark.parametrize("processor", ["cubic", "full", "table"])
@pytest.mark.parametrize("rule", RULES)
def test_no_speeds_are_better(rule, processor, limit_hz, tasks):
    row, hz, watts = speeds_of(processor, limit_hz)
    top = float(hz[-1])
    setting = world(
        tasks, RULES[rule][1], processor=row[None], max_local_frequency_hz=top, local_energy_weight=3e17,
        transmission_energy_weight=1.0,
    )  # fmt: skip
    backlog = np.random.default_rng(tasks).uniform(0.5, 2.0, tasks) * 2e8 / tasks**0.5
    given = started(rule, setting).local(0, waiting(backlog))
    total = given.sum()
    assert np.all(given >= 0)
    assert np.all(given <= backlog / SLOT_S * (1 + 1e-12))
    assert total <= top * (1 + 1e-12)
    if rule != "drift-plus-penalty":
        wage = tasks * RULES[rule][2] * 0.004
        per_cycle = (wage + watts_at(total, processor, hz, watts)) / total
        assert backlog.sum() / SLOT_S > top  # a queue's end plays no part
        assert per_cycle <= ((wage + watts) / hz).min() * (1 + 1e-9)
        return

    # Shares of the slot at each speed, and of each queue: -sum f v Q + U sum theta P, a linear programme.
    worth = setting.queue_weight[0] * backlog
    scale = worth.max() * top
    cost = np.concatenate([-worth * top, 3e17 * watts]) / scale
    ties = coo_array(
        (np.concatenate([np.ones(tasks), -hz / top]), (np.zeros(tasks + len(hz), int), np.arange(tasks + len(hz))))
    )
    once = coo_array((np.ones(len(hz)), (np.zeros(len(hz), int), tasks + np.arange(len(hz)))), (1, tasks + len(hz)))
    bounds = [(0, most / SLOT_S / top) for most in backlog] + [(0, 1)] * len(hz)
    best = linprog(cost, A_ub=once, b_ub=[1.0], A_eq=ties, b_eq=[0.0], bounds=bounds).fun
    ours = (-worth @ given + 3e17 * watts_at(total, processor, hz, watts, rests=True)) / scale
    assert ours <= best + 1e-9
    assert ours >= best - 1e-5  # the grid of a law leaves a little


def watts_at(total, processor, hz, watts, rests=False):
    """Mean power at a mean speed: by the law, or the cheapest mixture of rows; ``rests`` lets it be off for a while."""
    if processor != "table" and not rests:
        base, slope, delta = LAWS[processor]
        return base + slope * total + delta * total**3
    if processor != "table":
        base, slope, delta = LAWS[processor]
        thrifty = min((base / (2 * delta)) ** (1 / 3), hz[-1])
        return watts_at(max(total, thrifty), processor, hz, watts) * min(1.0, total / thrifty if thrifty else 1.0)
    speeds, draws = (np.append(0.0, hz), np.append(0.0, watts)) if rests else (hz, watts)
    mixtures = [
        draws[i] + (total - speeds[i]) * (draws[j] - draws[i]) / (speeds[j] - speeds[i])
        for i in range(len(speeds))
        for j in range(i + 1, len(speeds))
        if speeds[i] <= total * (1 + 1e-12) and total <= speeds[j] * (1 + 1e-12)
    ]
    return min(mixtures)


def drawn(radio, rate, gain):
    """Watts of a slot in which so many bits a second are sent."""
    radiated = BAND_HZ * NOISE / gain * np.expm1(rate / BAND_HZ * np.log(2))
    return np.where(rate > 0, radio[0] + radio[1] * radiated + radio[2] * rate, 0.0)


@pytest.mark.parametrize("tasks", [1, 3, 2000])
@pytest.mark.parametrize("max_w", [0.02, 20.0], ids=["capped", "uncapped"])
@pytest.mark.parametrize("radio", RADIOS)
@pytest.mark.parametrize("rule", RULES)
def test_no_rates_are_better(rule, radio, max_w, tasks):
    row = RADIOS[radio]
    setting = world(
        tasks, RULES[rule][1], radio=row[None], max_power_w=max_w, local_energy_weight=1.0,
        transmission_energy_weight=3e11,
    )  # fmt: skip
    bits = np.random.default_rng(tasks).uniform(0.5, 2.0, tasks) * 3e5
    gains = GAIN * setting.fading[0]
    most = BAND_HZ * np.log2(1 + max_w * gains / (BAND_HZ * NOISE))
    asked = started(rule, setting)
    sent, power = zip(*(asked.transmission(0, waiting(bits), float(gain)) for gain in gains), strict=True)
    total = np.array([rates.sum() for rates in sent])
    assert np.all(np.array(power) <= max_w)
    assert np.all(total <= most * (1 + 1e-12))
    grid = np.linspace(0, 1, 3001)
    if rule == "drift-plus-penalty":
        # Whom it serves is a knapsack, most worth first; how much in all is tried on a grid.
        worth = setting.queue_weight[0] * bits
        order = np.argsort(-worth, kind="stable")
        room, value = np.append(0.0, np.cumsum(bits[order] / SLOT_S)), np.append(0.0, np.cumsum((worth * bits)[order]))
        for rates, gain, limit in zip(sent, gains, most, strict=True):
            tried = grid * min(limit, room[-1])
            best = (3e11 * drawn(row, tried, gain) - np.interp(tried, room, value) / SLOT_S).min()
            ours = 3e11 * drawn(row, rates.sum(), gain) - worth @ rates
            assert ours <= best + 1e-9 * abs(best)
        return
    assert bits.sum() / SLOT_S > most.max()
    wage = tasks * RULES[rule][2] * 0.004
    ours = (wage * len(gains) + drawn(row, total, gains).sum()) / total.sum()
    rates = grid[:, None] * most
    watts = drawn(row, rates, gains)
    for level in ours * np.concatenate([np.geomspace(0.3, 3, 16), [0.99, 1.0, 1.01]]):
        pick = np.argmax(level * rates - watts, axis=0), np.arange(len(gains))
        if rates[pick].sum() > 0:
            assert ours <= (wage * len(gains) + watts[pick].sum()) / rates[pick].sum() * (1 + 1e-9)
