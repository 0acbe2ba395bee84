"""The lower bound: below every policy, equal to exhaustive search where a task is alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from splitinfer.energy.processor import cubic_row, processor_energy_j, stack_rows, table_row
from splitinfer.energy.transmitter import radio_row
from splitinfer.errors import InputError
from splitinfer.radio import power_w, rate_bps
from splitinfer.scheduling import BestStaticCut, FixedCut, MyopicCut, PriceCut, RandomCut
from splitinfer.scheduling.setting import Setting
from splitinfer.simulation import Scenario, cost_of, lower_bound
from splitinfer.simulation.bound import alone_bound, fluid_bound
from tests.simulation.small import small_scenario

PARTS = 8  # of a stage's work, to be spread over slots


def tiny(price_w, processor, radio):
    """One device with one service: at the edge, in the middle, on the device."""
    cycles = np.array([0.0, 6e6, 2e7])
    return Setting(
        slot_s=0.01,
        slots_per_period=10,
        device_bandwidth_hz=250e3,
        noise_w_per_hz=4e-21,
        max_edge_frequency_hz=4e9,
        local_cycles=cycles[None, None],
        transmission_bits=np.array([2.4e4, 6e3, 0.0])[None, None],
        edge_cycles=(2e7 - cycles)[None, None],
        num_cuts=np.array([[2]]),
        max_local_frequency_hz=1.5e9,
        max_power_w=0.3,
        energy_coefficient=1e-28,
        local_energy_weight=1.0,
        transmission_energy_weight=1.0,
        latency_price_w=price_w,
        processor=stack_rows([processor]),
        radio=radio[None],
    )


def compositions(slots):
    """Every way to spread PARTS parts over so many slots."""
    for bars in itertools.combinations(range(PARTS + slots - 1), slots - 1):
        edges = (-1, *bars, PARTS + slots - 1)
        yield tuple(b - a - 1 for a, b in itertools.pairwise(edges))


def schedules(setting, gains, arrival, cut):
    """Every (last slot, cycles per slot, bits per slot) of one task on the grid."""
    end = len(gains)
    cycles, bits, edge = (t[0, 0, cut] for t in (setting.local_cycles, setting.transmission_bits, setting.edge_cycles))
    edge_slots = int(np.ceil(edge / (setting.max_edge_frequency_hz * setting.slot_s)))
    for local in range(1 if cycles else 0, end if cycles else 1):
        for sending in range(1 if bits else 0, end if bits else 1):
            last = arrival + local + sending + edge_slots
            if last >= end:
                continue
            for done in compositions(local) if cycles else [()]:
                if done and done[-1] == 0:
                    continue
                for sent in compositions(sending) if bits else [()]:
                    if sent and sent[-1] == 0:
                        continue
                    f, b = np.zeros(end), np.zeros(end)
                    f[arrival + 1 : arrival + 1 + local] = np.array(done) / PARTS * cycles
                    b[arrival + 1 + local : arrival + 1 + local + sending] = np.array(sent) / PARTS * bits
                    yield last, f, b


def energy_j(setting, gains, cycles, bits):
    """Joules of a schedule, or infinity where it asks too much of a slot."""
    total = 0.0
    for t, (work, size) in enumerate(zip(cycles, bits, strict=True)):
        f, r = work / setting.slot_s, size / setting.slot_s
        if f > setting.max_local_frequency_hz[0] * (1 + 1e-9):
            return np.inf
        total += processor_energy_j(setting.slot_s, setting.processor, 0, f)
        if r > 0:
            link = {"gain": gains[t], "bandwidth_hz": setting.device_bandwidth_hz, "noise_w_per_hz": 4e-21}
            if r > float(rate_bps(setting.max_power_w[0], **link)):
                return np.inf
            circuit, amplifier, per_bit = setting.radio[0]
            total += setting.slot_s * (circuit + amplifier * float(power_w(r, **link)) + per_bit * r)
    return total


DEVICES = {
    "paper": (cubic_row(1e-28), radio_row()),
    "base": (cubic_row(6e-29, base_w=0.05, max_frequency_hz=1.5e9), radio_row(amplifier_efficiency=0.4)),
    "table": (table_row([0.5e9, 1e9, 1.5e9], [0.05, 0.15, 0.4], max_frequency_hz=1.5e9), radio_row(bit_j=2e-9)),
    "circuit": (cubic_row(1e-28), radio_row(circuit_w=0.05)),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("price_w", [0.005, 0.05])
def test_a_task_alone_against_exhaustive_search(device, price_w):
    setting = tiny(price_w, *DEVICES[device])
    gains = 1e-12 * np.array([1.0, 0.4, 2.0, 0.1, 1.2, 0.8])
    counts = np.zeros((len(gains), 1), np.int64)
    counts[0] = 1
    searched = price_w * setting.slot_s * len(gains)
    for cut in range(3):
        for last, f, b in schedules(setting, gains, 0, cut):
            searched = min(searched, price_w * setting.slot_s * (last + 1) + energy_j(setting, gains, f, b))
    alone = alone_bound(setting, 0, gains, counts)
    assert alone <= searched * (1 + 1e-9)
    # What is left is the grid, and for the circuit's power the bound's own slack.
    assert alone >= (0.7 if device == "circuit" else 0.93) * searched
    assert fluid_bound(setting, 0, gains, counts) <= searched * (1 + 1e-6)


def test_two_tasks_that_meet_against_exhaustive_search():
    setting = tiny(0.02, *DEVICES["paper"])
    gains = 1e-12 * np.array([1.0, 0.4, 2.0, 0.7, 1.2])
    counts = np.zeros((len(gains), 1), np.int64)
    counts[0] = 2
    options = [one for cut in range(3) for one in schedules(setting, gains, 0, cut)][::7]
    price = 0.02 * setting.slot_s
    best = min(
        price * (a[0] + b[0] + 2) + energy_j(setting, gains, a[1] + b[1], a[2] + b[2])
        for a, b in itertools.combinations(options[:400], 2)
    )
    assert alone_bound(setting, 0, gains, counts) <= best
    assert fluid_bound(setting, 0, gains, counts) <= best


@pytest.mark.parametrize(
    "changes",
    [
        {"allocation": "price"},
        {"allocation": "price", "service_order": "oldest", "device": ("pixel6:lte", "snapdragon865:5g")},
        {"local_energy_weight": 1e18, "transmission_energy_weight": 1e13},
        {"allocation": "price", "channel": "correlated", "arrival_rate_hz": 6.0},
    ],
    ids=["price", "phones", "drift", "loaded"],
)
def test_no_policy_is_below_the_bound(changes):
    scenario = small_scenario(latency_price_w=0.02, **changes)
    floor = lower_bound(scenario, 400, seed=3)
    assert floor.tasks > 5
    assert 0 < floor.cost_j <= floor.alone_j.sum() + floor.fluid_j.sum()
    for policy in (PriceCut(), MyopicCut(), RandomCut(), BestStaticCut(), FixedCut([3, 2]), FixedCut([0, 0])):
        assert cost_of(scenario, policy, 400, seed=3).cost_j >= floor.cost_j * (1 - 1e-9)


def test_price_is_close_to_the_bound_on_table2():
    scenario = Scenario.preset("table2").replace(allocation="price", latency_price_w=0.01)
    floor = lower_bound(scenario, 1500, fluid=False)
    assert cost_of(scenario, PriceCut(), 1500).cost_j <= 1.3 * floor.cost_j


def test_the_fluid_programme_wins_under_load():
    scenario = small_scenario(latency_price_w=0.01, arrival_rate_hz=30.0, num_devices=1)
    floor = lower_bound(scenario, 200)
    assert floor.fluid_j[0] > floor.alone_j[0]


def test_an_empty_trace_costs_nothing():
    assert lower_bound(small_scenario(arrival_rate_hz=0.0), 50).cost_j == 0
    with pytest.raises(InputError, match=r"slots: must be in 1\.\.10,000,000"):
        lower_bound(small_scenario(), 0)
