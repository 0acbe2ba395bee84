"""The price of a bit and who is served, against numerical search, CVXPY and brute force."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from splitinfer.energy.transmitter import RADIATED_ROW, radio_row
from splitinfer.radio import power_w, rate_bps
from splitinfer.scheduling.pricing import edge_price_row, price_of_bit
from splitinfer.scheduling.setting import rayleigh_quantiles
from splitinfer.scheduling.task_prices import WaitingTasks

LINK = {"bandwidth_hz": 250e3, "noise": 4e-21, "max_w": 0.3}
GAIN = 2e-13


def price(wage_w, radio=RADIATED_ROW, *, fading=None, gain=GAIN, **changes):
    link = LINK | changes
    fading = rayleigh_quantiles()[None] if fading is None else fading[None]
    return price_of_bit(wage_w, fading, gain, radio[None], 0, link["bandwidth_hz"], link["noise"], link["max_w"])


def price_of_level(level, wage_w, radio, fading, max_w=LINK["max_w"]):
    """What a bit costs when every slot sends to the level, found slot by slot by a bounded numerical search."""
    total_w, total_bps = 0.0, 0.0
    for h in GAIN * fading:
        link = {"gain": h, "bandwidth_hz": LINK["bandwidth_hz"], "noise_w_per_hz": LINK["noise"]}
        most = float(rate_bps(max_w, **link))

        def draw(r, link=link):
            p = float(power_w(r, **link))
            return p * radio[1] + radio[2] * r + (radio[0] if r > 0 else 0.0)

        found = minimize_scalar(
            lambda r: draw(r) - level * r, bounds=(0, most), method="bounded", options={"xatol": 1e-3}
        )
        r = max((found.x, most), key=lambda r: level * r - draw(r))
        if level * r - draw(r) > 0:
            total_w, total_bps = total_w + draw(r), total_bps + r
    return (wage_w * len(fading) + total_w) / total_bps if total_bps else np.inf


RADIOS = {
    "paper": RADIATED_ROW,
    "amplifier": radio_row(circuit_w=0.2, amplifier_efficiency=0.3),
    "circuit": radio_row(circuit_w=1.0),
    "measured": radio_row(circuit_w=0.5, amplifier_efficiency=np.inf, bit_j=77e-9),
    "all": radio_row(circuit_w=0.3, amplifier_efficiency=0.4, bit_j=20e-9),
}


@pytest.mark.parametrize("name", RADIOS)
@pytest.mark.parametrize("tasks", [1, 4, 3000])
def test_the_price_of_a_bit_is_the_least_over_all_levels(name, tasks):
    fading = rayleigh_quantiles(24)
    wage = tasks * 0.003
    ours = price(wage, RADIOS[name], fading=fading)
    levels = ours * np.concatenate([np.geomspace(0.3, 3, 25), [0.999, 1.001]])
    searched = [price_of_level(level, wage, RADIOS[name], fading) for level in levels]
    assert ours <= min(searched) * (1 + 1e-6)
    assert price_of_level(ours * (1 + 1e-9), wage, RADIOS[name], fading) == pytest.approx(ours, rel=1e-5)


def test_the_price_solves_the_convex_programme_of_the_paper_radio():
    """Perspective of the fractional programme: bits normalised to one, time as a variable."""
    fading = rayleigh_quantiles(12)
    noise_w = LINK["bandwidth_hz"] * LINK["noise"] / (GAIN * fading)
    for wage, cap in ((0.003, 0.3), (0.3, 0.3), (0.01, 5.0)):
        time = cp.Variable(nonneg=True)
        bits = cp.Variable(len(fading), nonneg=True)  # per slot, in units of the bandwidth
        spent = cp.Variable(len(fading), nonneg=True)  # watts times time, over the noise
        constraints = [cp.sum(bits) == 1, spent <= cap / noise_w * time]
        for i in range(len(fading)):
            # time * (2^(bits / time) - 1) <= spent: exponential cone
            constraints.append(cp.constraints.ExpCone(np.log(2) * bits[i], time, spent[i] + time))
        cost = wage * len(fading) * time + noise_w @ spent
        cp.Problem(cp.Minimize(cost), constraints).solve(solver=cp.CLARABEL)
        ours = price(wage, fading=fading, max_w=cap) * LINK["bandwidth_hz"]
        assert ours == pytest.approx(float(cost.value), rel=1e-5)


def test_prices_rise_with_the_wage_and_a_dead_channel_has_none():
    prices = [price(wage) for wage in np.geomspace(1e-5, 1e2, 40)]
    assert np.all(np.diff(prices) > 0)
    assert price(0.01, gain=0.0) == np.inf
    assert price(0.01, max_w=0.0) == np.inf


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_serving_in_order_spends_the_budget_on_the_first_heads(data):
    count = data.draw(st.integers(1, 6))
    numbers = st.floats(0.0, 1e9)
    queue = np.array([data.draw(numbers) for _ in range(count)])
    head = queue * np.array([data.draw(st.floats(0.1, 1.0)) for _ in range(count)])
    rank = np.array([float(data.draw(st.integers(0, 3))) for _ in range(count)])
    budget, slot_s = data.draw(st.floats(0.0, 1e11)), 0.01
    out = np.zeros((1, count))
    edge_price_row(queue[None].copy(), head[None].copy(), rank[None].copy(), slot_s, budget, out)
    given_ = out[0]
    assert given_.sum() == pytest.approx(min(budget, queue.sum() / slot_s), rel=1e-9, abs=1e-6)
    assert np.all(given_ <= queue / slot_s * (1 + 1e-12))
    waiting = np.flatnonzero(queue > 0)
    for a in waiting:
        for b in waiting:
            # Nobody gets anything while the head of a line before it is not done.
            if (rank[a], a) < (rank[b], b) and given_[b] > 0:
                assert given_[a] >= min(head[a], queue[a]) / slot_s * (1 - 1e-9)


def test_waiting_tasks_are_counted_where_the_cut_changes():
    """Five tasks of 8 units are queued at a link, then the cut sends nothing, then 2 units."""
    line = WaitingTasks(followed_load=0.0)
    full = np.array([[1e9], [10.0], [1e9]])

    def after(sent, queued, served):
        work = np.array([1.0, sent, 1.0]).reshape(3, 1, 1)
        backlog, rate = (np.array([0.0, value, 0.0]).reshape(3, 1, 1) for value in (queued, served))
        return float(line.follow(work, backlog, rate, full, 1.0)[1, 0])

    assert after(8.0, 40.0, 0.0) == 5.0
    assert after(0.0, 36.0, 4.0) == pytest.approx(4.5)  # half of the first is left
    assert after(0.0, 32.0, 4.0) == pytest.approx(4.0)
    assert after(2.0, 34.0, 4.0) == pytest.approx(28 / 8 + 6 / 2)  # three came and the old ones go first
    assert after(2.0, 4.0, 30.0) == pytest.approx(2.0)
    assert after(0.0, 0.0, 4.0) == 0.0
    idle = WaitingTasks(followed_load=2.0)
    work = np.ones((3, 1, 1))
    assert idle.follow(work, 3 * work, 0 * work, full, 1.0)[1, 0] == 3.0
    assert idle.follow(0 * work, 3 * work, 0 * work, full, 1.0)[1, 0] == 0.0
