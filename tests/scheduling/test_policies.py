"""Policies by themselves: what they choose from a given setting and observation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.errors import InputError
from splitinfer.scheduling import BestStaticCut, FixedCut, MyopicCut, Observation, RandomCut, Setting, pareto_cuts
from splitinfer.scheduling.best_static import Trial
from splitinfer.scheduling.period import Period

# Device 0 has two services, device 1 one. Cuts: (local cycles, bits, edge cycles).
LOCAL = np.array([[[0.0, 2e8, 5e8], [0.0, 1e7, 3e7]], [[0.0, 2e8, 5e8], [0.0, 0.0, 0.0]]])
BITS = np.array([[[8e5, 1e5, 0.0], [8e5, 2e5, 0.0]], [[8e5, 1e5, 0.0], [0.0, 0.0, 0.0]]])
EDGE = LOCAL.max(axis=2, keepdims=True) - LOCAL


def setting(**changes):
    base = Setting(
        active=np.array([[True, True], [True, False]]),
        num_cuts=np.array([[2, 2], [2, 0]]),
        local_cycles=LOCAL,
        transmission_bits=BITS,
        edge_cycles=EDGE,
        arrival_rate_hz=np.array([[1.0, 1.0], [1.0, 0.0]]),
        slot_s=0.01,
        slots_per_period=10,
        max_local_frequency_hz=np.array([1.5e9, 1.5e9]),
        max_power_w=np.array([0.3, 0.3]),
        max_edge_frequency_hz=20e9,
        device_bandwidth_hz=250e3,
        noise_w_per_hz=4e-21,
        energy_coefficient=np.array([1e-28, 1e-28]),
        local_energy_weight=np.array([1e9, 1e9]),
        transmission_energy_weight=np.array([1e6, 1e6]),
        queue_weights=(0.6, 0.2, 0.2),
        queue_scale_cycles=1e9,
        queue_scale_bits=1e6,
        reward_energy_weight=1e3,
        reward_queue_weight=1.0,
    )
    return replace(base, **changes)


def observation(*, local=0.0, link=0.0, edge=0.0, rate=3e6, cuts=2):
    period = Period.empty(np.where([[True, True], [True, False]], cuts, 0))
    period.backlog[:, :, 0] = np.array([local, link, edge])[:, None]
    period.max_rate_bps[:] = rate
    return Observation(setting(), period)


def started(policy, **changes):
    policy.reset(setting(**changes), np.random.default_rng(0))
    return policy


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=12))
def test_pareto_cuts_are_those_that_no_other_beats(inner):
    bits = np.array([25.0, *inner, 0.0])
    work = np.arange(len(bits), dtype=float)
    beaten = [any(bits[j] <= bits[k] and work[j] < work[k] for j in range(k)) for k in range(len(bits))]
    assert pareto_cuts(work, bits).tolist() == [k for k in range(len(bits)) if not beaten[k]]


def test_fixed_cuts_are_the_same_on_every_device_or_given_for_each():
    assert started(FixedCut([1, 2])).cuts(observation()).tolist() == [[1, 2], [1, 0]]
    assert started(FixedCut([[0, 1], [2, 0]])).cuts(observation()).tolist() == [[0, 1], [2, 0]]
    assert started(FixedCut()).cuts(observation()).tolist() == [[2, 2], [2, 0]]


@pytest.mark.parametrize("cuts", [[1], [3, 0], [-1, 0], [0.0, 1.0], [[1, 1]]])
def test_fixed_cuts_that_do_not_fit_are_refused(cuts):
    with pytest.raises(InputError, match="cuts"):
        started(FixedCut(cuts))


def test_random_cuts_are_uniform_and_repeat_with_the_seed():
    policy = started(RandomCut())
    drawn = np.array([policy.cuts(observation()) for _ in range(3000)])
    counts = np.bincount(drawn[:, 0, 0], minlength=3)
    assert np.all(np.abs(counts - 1000) < 120)
    assert set(drawn[:, 1, 1]) == {0}
    again = started(RandomCut())
    np.testing.assert_array_equal(drawn, [again.cuts(observation()) for _ in range(3000)])


def test_myopic_follows_the_backlog():
    policy = MyopicCut(energy_weight_s2_per_j=0.0)
    # Only the link is loaded: stay local. Only the processor is loaded: send at once.
    assert started(policy).cuts(observation(link=5e7)).tolist() == [[2, 2], [2, 0]]
    assert started(policy).cuts(observation(local=2e10)).tolist() == [[0, 0], [0, 0]]
    # A full edge keeps everything here.
    assert started(policy).cuts(observation(edge=1e13)).tolist() == [[2, 2], [2, 0]]


def test_myopic_counts_what_is_on_its_way():
    # Much local work of tasks that will send at cut 1: the link is as good as full already.
    policy = started(MyopicCut(energy_weight_s2_per_j=0.0))
    coming = policy.cuts(observation(local=2e9, rate=1.5e6, cuts=1))
    gone = started(MyopicCut(energy_weight_s2_per_j=0.0)).cuts(observation(local=2e9, rate=1.5e6, cuts=2))
    # Cut 0 costs 0.53^2 / 2 on a free link, 0.53 (0.67 + 0.27) behind what comes; cut 1 costs 0.19 and 0.23.
    assert (gone[0, 0], coming[0, 0]) == (0, 1)


def test_myopic_saves_energy_when_nothing_waits():
    # On empty queues and with energy all that counts: 5e8 cycles at delta F^2 cost 0.1125 J; 8e5 bits at 0.3 W 0.08 J.
    frugal = MyopicCut(energy_weight_s2_per_j=1e6)
    assert started(frugal).cuts(observation(rate=3e6))[0, 0] == 1  # 0.045 J and 0.01 J
    assert started(frugal).cuts(observation(rate=2e4))[0, 0] == 2
    assert started(frugal, max_power_w=np.full(2, 1e-4)).cuts(observation(rate=3e6))[0, 0] == 0


def test_myopic_never_takes_a_beaten_cut():
    bits = BITS.copy()
    bits[..., 1] = 9e5  # more bits and more local work than cut 0
    policy = started(MyopicCut(), transmission_bits=np.where(BITS > 0, bits, 0.0))
    rng = np.random.default_rng(1)
    for _ in range(200):
        local, link, edge = 10.0 ** rng.uniform(5, 11, 3)
        assert not np.any(policy.cuts(observation(local=local, link=link, edge=edge)) == 1)


def test_best_static_needs_a_search():
    with pytest.raises(InputError, match="find_best_static"):
        started(BestStaticCut())


def test_best_static_finds_the_least_energy_among_the_stable():
    # Made-up costs: energy falls with every cut, but cut 0 of either service on a device is unstable there.
    def evaluate(cuts, slots):
        energy = (cuts * setting().active).sum(axis=2).astype(float)
        steady = ~np.any((cuts == 0) & setting().active, axis=2)
        return Trial(energy_j=energy, scaled_queue=energy, stable=steady, growth_s=np.where(steady, 0.0, 1.0))

    for policy in (BestStaticCut(), BestStaticCut(max_candidates=1)):
        report = policy.prepare(setting(), evaluate)
        assert report.cuts.tolist() == [[1, 1], [1, 0]]
        assert report.stable
        assert report.device_slots > 0
        assert started(policy).cuts(observation()).tolist() == [[1, 1], [1, 0]]
    with pytest.raises(InputError, match="same services"):
        BestStaticCut(per_device=False).prepare(setting(), evaluate)
