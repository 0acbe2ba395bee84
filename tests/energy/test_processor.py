"""How power follows frequency, against brute force over fine grids and linear programmes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from splitinfer.energy.processor import (
    cubic_row,
    local_energy_j,
    processor_cruise_hz,
    processor_energy_j,
    processor_level_hz,
    processor_power_w,
    stack_rows,
    table_row,
)
from splitinfer.errors import InputError

TOP_HZ = 2e9


@st.composite
def processors(draw):
    """A row of any kind, and the power of each of its speeds that a processor can really run at."""
    kind = draw(st.sampled_from(["paper", "base", "full", "linear", "table"]))
    delta = draw(st.floats(1e-29, 1e-27)) if kind != "linear" else 0.0
    base = draw(st.floats(0.01, 1.0)) if kind in ("base", "full", "linear") else 0.0
    slope = draw(st.floats(1e-11, 1e-9)) if kind in ("full", "linear") else 0.0
    if kind == "table":
        count = draw(st.integers(1, 7))
        hz = draw(st.lists(st.floats(1e8, TOP_HZ), min_size=count, max_size=count, unique=True))
        watts = draw(st.lists(st.floats(0.05, 5.0), min_size=count, max_size=count))
        return table_row(hz, watts, max_frequency_hz=max(hz)), np.array(hz), np.array(watts)
    hz = np.linspace(1e6, TOP_HZ, 4000)
    return cubic_row(delta, base_w=base, linear_j=slope, max_frequency_hz=TOP_HZ), hz, base + slope * hz + delta * hz**3


def hull_power_w(at_hz, hz, watts):
    """The least mean power of a mixture of speeds, off among them, that comes to ``at_hz``."""
    costs, speeds = np.append(0.0, watts), np.append(0.0, hz)
    scale = watts[hz >= at_hz].min()  # the solver's tolerance is absolute
    solution = linprog(
        costs / scale, A_eq=np.array([speeds / TOP_HZ, np.ones(len(speeds))]), b_eq=[at_hz / TOP_HZ, 1.0]
    )
    return solution.fun * scale


@settings(deadline=None, max_examples=60)
@given(processors(), st.floats(0.02, 1.0))
def test_power_is_the_cheapest_mixture_of_speeds(processor, share):
    row, hz, watts = processor
    at = share * hz.max()
    assert processor_power_w(row[None], 0, at) == pytest.approx(hull_power_w(at, hz, watts), rel=2e-3, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(processors(), st.floats(-3, 3))
def test_the_level_minimises_cost_minus_worth(processor, log_worth):
    row, hz, _ = processor
    rows, cap = row[None], float(hz.max())
    worth, weight = 1e-9 * 10.0**log_worth, 2.0
    level = processor_level_hz(rows, 0, worth, weight, cap)

    def value(f):
        return weight * processor_power_w(rows, 0, float(f)) - worth * f

    best = min(value(f) for f in np.linspace(0, cap, 3000))
    assert 0 <= level <= cap
    assert value(level) <= best + 1e-9 * (abs(best) + worth * cap)


@settings(deadline=None, max_examples=100)
@given(processors(), st.floats(-4, 2))
def test_the_cruising_speed_makes_a_cycle_cheapest(processor, log_wage):
    row, hz, _ = processor
    rows, wage = row[None], 10.0**log_wage
    cap = float(hz.max())
    speed = processor_cruise_hz(rows, 0, wage, cap)

    def per_cycle(f):
        return (wage + processor_power_w(rows, 0, float(f))) / f

    assert 0 < speed <= cap
    assert per_cycle(speed) <= min(per_cycle(f) for f in np.linspace(1e6, cap, 3000)) * (1 + 1e-9)


def test_the_cruising_speed_of_the_papers_law_is_the_closed_form():
    for tasks in (1, 2, 7, 3000):
        w, delta = 0.004, 1e-28
        expected = min(1.5e9, (tasks * w / (2 * delta)) ** (1 / 3))
        assert processor_cruise_hz(cubic_row(delta)[None], 0, tasks * w, 1.5e9) == pytest.approx(expected, rel=1e-12)


def test_the_papers_law_keeps_its_bits():
    rows = cubic_row(1e-28)[None]
    for f in np.random.default_rng(0).uniform(0, 1.5e9, 200):
        assert processor_energy_j(0.01, rows, 0, float(f)) == local_energy_j(0.01, 1e-28, float(f))


def test_a_limit_between_two_rows_is_time_shared():
    row = table_row([1e9, 2e9], [1.0, 4.0], max_frequency_hz=1.5e9)
    assert row.tolist() == [0, 0, 0, 0, 2, 1e9, 1.5e9, 1.0, 2.5]
    rows = stack_rows([cubic_row(1e-28), row])
    assert processor_power_w(rows, 1, 1.25e9) == pytest.approx(1.75)
    assert processor_power_w(rows, 0, 1e9) == pytest.approx(0.1)


def test_rows_that_mixtures_beat_are_left_out():
    row = table_row([0.5e9, 1e9, 2e9], [1.5, 2.0, 3.0], max_frequency_hz=2e9)
    assert row[4] == 1, "off and 2 GHz in turn beat both slower rows"
    assert processor_level_hz(row[None], 0, 1.6e-9, 1.0, 2e9) == 2e9
    assert processor_level_hz(row[None], 0, 1.4e-9, 1.0, 2e9) == 0


@pytest.mark.parametrize(
    ("hz", "watts"), [([], []), ([1e9], [1.0, 2.0]), ([0.0], [1.0]), ([1e9], [-1.0]), ([float("nan")], [1.0])]
)
def test_tables_that_are_none_are_refused(hz, watts):
    with pytest.raises((InputError, ValueError)):
        table_row(hz, watts, max_frequency_hz=1e9)
