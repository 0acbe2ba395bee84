"""The closed forms of Problems 3, 4 and 5, held against CVXPY, brute force and their own optimality conditions."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.errors import InputError
from splitinfer.scheduling import allocate_edge, allocate_local, allocate_transmission, slot_allocator
from splitinfer.scheduling.reference import CvxpyAllocator

SLOT_S = 0.01
LOCAL = {"slot_s": SLOT_S, "energy_weight": 1e18, "energy_coefficient": 1e-28, "max_frequency_hz": 1.5e9}
RADIO = {
    "slot_s": SLOT_S,
    "energy_weight": 1e12,
    "bandwidth_hz": 250e3,
    "noise_w_per_hz": 4e-21,
    "channel_gain": 1e-10,
    "max_power_w": 0.3,
}
EDGE = {"slot_s": SLOT_S, "max_frequency_hz": 20e9}

cvxpy = CvxpyAllocator()


def local_objective(f, queue, *, slot_s, energy_weight, energy_coefficient, max_frequency_hz, queue_weight=1.0):
    return -slot_s * np.sum(f * queue_weight * queue, -1) + energy_weight * slot_s * energy_coefficient * f.sum(-1) ** 3


def transmission_objective(r, p, queue, *, slot_s, energy_weight, queue_weight=1.0, **_):
    return -slot_s * np.sum(r * queue_weight * queue, -1) + energy_weight * slot_s * p


def edge_objective(f, queue, *, slot_s, queue_weight=1.0, **_):
    return -slot_s * np.sum(f * queue_weight * queue, -1)


def power_for(rate, *, bandwidth_hz, noise_w_per_hz, channel_gain, **_):
    return bandwidth_hz * noise_w_per_hz / channel_gain * np.expm1(rate / bandwidth_hz * np.log(2))


def assert_feasible(allocated, queue, limit, slot_s=SLOT_S):
    tolerance = 1 + 1e-9
    assert np.all(allocated >= 0)
    assert np.all(allocated <= queue / slot_s * tolerance)
    assert np.all(allocated.sum(-1) <= limit * tolerance)


def assert_no_worse(ours, theirs, scale):
    """Ours is not above the solver's value by more than 1e-6; below it only by what the solver's tolerance leaves."""
    assert ours <= theirs + 1e-6 * max(abs(theirs), 1e-12 * scale)
    assert ours >= theirs - 1e-6 * max(abs(theirs), scale)


def queues(rng, kind, services, scale):
    """Backlogs of one device; degenerate and adversarial kinds by name."""
    if kind == "random":
        return scale * rng.exponential(size=services)
    if kind == "wide":
        return scale * 10.0 ** rng.uniform(-9, 2, services)
    if kind == "empty":
        return np.zeros(services)
    if kind == "some empty":
        return scale * rng.exponential(size=services) * (rng.random(services) < 0.4)
    if kind == "equal":
        return np.full(services, scale * 0.7)
    if kind == "nearly equal":
        return scale * (1 + 1e-13 * rng.standard_normal(services))
    if kind == "one giant":
        queue = scale * 1e-6 * rng.random(services)
        queue[rng.integers(services)] = 1e4 * scale
        return queue
    raise AssertionError(kind)


KINDS = ("random", "wide", "empty", "some empty", "equal", "nearly equal", "one giant")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("services", [1, 2, 7])
@pytest.mark.parametrize("energy_weight", [0.0, 1e9, 1e18, 1e22])
def test_local_equals_cvxpy(kind, services, energy_weight):
    rng = np.random.default_rng([services, int(np.log10(energy_weight + 1)), KINDS.index(kind)])
    queue = queues(rng, kind, services, 1e8)
    setting = LOCAL | {"energy_weight": energy_weight}
    ours = allocate_local(queue, **setting)
    theirs = cvxpy.allocate_local(queue, **setting)
    assert_feasible(ours, queue, setting["max_frequency_hz"])
    assert_feasible(theirs, queue, setting["max_frequency_hz"])
    scale = SLOT_S * setting["max_frequency_hz"] * queue.max()
    assert_no_worse(local_objective(ours, queue, **setting), local_objective(theirs, queue, **setting), scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("services", [1, 2, 7])
@pytest.mark.parametrize("energy_weight", [0.0, 1e6, 1e12, 1e16])
@pytest.mark.parametrize("gain", [1e-10, 1e-13])
def test_transmission_equals_cvxpy(kind, services, energy_weight, gain):
    rng = np.random.default_rng([services, int(np.log10(energy_weight + 1)), KINDS.index(kind)])
    queue = queues(rng, kind, services, 1e6)
    setting = RADIO | {"energy_weight": energy_weight, "channel_gain": gain}
    ours, power = allocate_transmission(queue, **setting)
    theirs, their_power = cvxpy.allocate_transmission(queue, **setting)
    limit = setting["bandwidth_hz"] * np.log2(1 + setting["max_power_w"] * gain / (250e3 * 4e-21))
    for rates, watts in ((ours, power), (theirs, their_power)):
        assert_feasible(rates, queue, limit)
        assert 0 <= watts <= setting["max_power_w"]
        assert watts == pytest.approx(power_for(rates.sum(), **setting), rel=1e-9)
    scale = SLOT_S * limit * queue.max()
    assert_no_worse(
        transmission_objective(ours, power, queue, **setting),
        transmission_objective(theirs, their_power, queue, **setting),
        scale,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("services", [1, 2, 7])
@pytest.mark.parametrize("limit", [0.0, 1e9, 20e9, 1e13])
def test_edge_equals_cvxpy(kind, services, limit):
    rng = np.random.default_rng([services, KINDS.index(kind)])
    queue = queues(rng, kind, services, 1e8)
    setting = EDGE | {"max_frequency_hz": limit}
    ours, theirs = allocate_edge(queue, **setting), cvxpy.allocate_edge(queue, **setting)
    assert_feasible(ours, queue, limit)
    assert_feasible(theirs, queue, limit)
    scale = SLOT_S * limit * queue.max()
    assert_no_worse(edge_objective(ours, queue, **setting), edge_objective(theirs, queue, **setting), scale)


def test_thousands_of_services_equal_cvxpy():
    rng = np.random.default_rng(5)
    services = 3000
    queue = queues(rng, "wide", services, 1e6)
    local, theirs = allocate_local(queue, **LOCAL), cvxpy.allocate_local(queue, **LOCAL)
    assert_feasible(local, queue, LOCAL["max_frequency_hz"])
    assert local_objective(local, queue, **LOCAL) == pytest.approx(local_objective(theirs, queue, **LOCAL), rel=1e-6)
    edge, theirs = allocate_edge(queue, **EDGE), cvxpy.allocate_edge(queue, **EDGE)
    assert edge_objective(edge, queue, **EDGE) == pytest.approx(edge_objective(theirs, queue, **EDGE), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("services", [1, 30, 3000, 100_000])
@pytest.mark.parametrize("scale", [1e1, 1e3, 1e6])
def test_transmission_meets_its_dual_bound(kind, services, scale):
    """Weak duality proves optimality at sizes where interior-point solvers fail on the exponential.

    p is convex, so it lies above its tangent at any s0; with any multiplier nu >= 0 for ``sum r <= R``, no feasible
    point is below the bound computed here.
    """
    rng = np.random.default_rng([services, KINDS.index(kind)])
    queue = queues(rng, kind, services, scale)
    rate, power = allocate_transmission(queue, **RADIO)
    total = rate.sum()
    limit = 250e3 * np.log2(1 + 0.3 * 1e-10 / (250e3 * 4e-21))
    assert_feasible(rate, queue, limit)
    slope = 1e12 * 4e-21 * np.log(2) / 1e-10 * 2 ** (total / 250e3)  # U^t·p'(s)
    last = queue[rate > 0].min() if total > 0 else 0.0
    nu = max(0.0, last - slope) if total > limit * (1 - 1e-9) else 0.0
    surplus = np.sum(queue / SLOT_S * np.maximum(0.0, queue - slope - nu))
    bound = SLOT_S * (1e12 * power_for(total, **RADIO) - slope * total - nu * limit - surplus)
    ours = transmission_objective(rate, power, queue, **RADIO)
    assert ours == pytest.approx(bound, rel=1e-6, abs=1e-6)


def test_queue_weights_equal_cvxpy():
    rng = np.random.default_rng(6)
    queue, weight = rng.exponential(size=(20, 3)), 10.0 ** rng.uniform(-2, 2, (20, 3))
    weight[3] = 0.0
    scale = {"cycles": 1e7, "bits": 1e5}
    setting = LOCAL | {"queue_weight": weight}
    ours, theirs = (a(queue * scale["cycles"], **setting) for a in (allocate_local, cvxpy.allocate_local))
    np.testing.assert_allclose(
        local_objective(ours, queue * scale["cycles"], **setting),
        local_objective(theirs, queue * scale["cycles"], **setting),
        rtol=1e-6,
        atol=1e-3,
    )
    setting = RADIO | {"queue_weight": weight}
    ours, theirs = (a(queue * scale["bits"], **setting) for a in (allocate_transmission, cvxpy.allocate_transmission))
    np.testing.assert_allclose(
        transmission_objective(*ours, queue * scale["bits"], **setting),
        transmission_objective(*theirs, queue * scale["bits"], **setting),
        rtol=1e-6,
        atol=1e-3,
    )
    setting = {"slot_s": SLOT_S, "max_frequency_hz": 1e9, "queue_weight": weight}
    ours, theirs = (a(queue * scale["cycles"], **setting) for a in (allocate_edge, cvxpy.allocate_edge))
    np.testing.assert_allclose(
        edge_objective(ours, queue * scale["cycles"], **setting),
        edge_objective(theirs, queue * scale["cycles"], **setting),
        rtol=1e-6,
        atol=1e-3,
    )


@pytest.mark.parametrize("seed", range(20))
def test_local_beats_every_point_of_a_grid_and_every_greedy_order(seed):
    rng = np.random.default_rng(seed)
    queue = 10.0 ** rng.uniform(6, 8, 3)
    setting = LOCAL | {"energy_weight": 10.0 ** rng.uniform(16, 19)}
    best = local_objective(allocate_local(queue, **setting), queue, **setting)
    limit = setting["max_frequency_hz"]
    for shares in product(np.linspace(0, 1, 13), repeat=3):
        f = np.minimum(np.array(shares) * limit, queue / SLOT_S)
        if f.sum() <= limit:
            assert best <= local_objective(f, queue, **setting) + 1e-9 * abs(best)
    for order in permutations(range(3)):
        f, total = np.zeros(3), 0.0
        for n in order:
            level = min(limit, np.sqrt(queue[n] / (3 * setting["energy_weight"] * setting["energy_coefficient"])))
            f[n] = min(queue[n] / SLOT_S, max(0.0, level - total))
            total += f[n]
        assert best <= local_objective(f, queue, **setting) + 1e-9 * abs(best)


@pytest.mark.parametrize("seed", range(20))
def test_transmission_beats_every_point_of_a_grid(seed):
    rng = np.random.default_rng(seed)
    queue = 10.0 ** rng.uniform(2, 5, 3)
    setting = RADIO | {"energy_weight": 10.0 ** rng.uniform(10, 14), "channel_gain": 1e-10 * rng.exponential()}
    rate, power = allocate_transmission(queue, **setting)
    best = transmission_objective(rate, power, queue, **setting)
    snr = setting["max_power_w"] * setting["channel_gain"] / (setting["bandwidth_hz"] * setting["noise_w_per_hz"])
    limit = setting["bandwidth_hz"] * np.log2(1 + snr)
    for shares in product(np.linspace(0, 1, 13), repeat=3):
        r = np.minimum(np.array(shares) * limit, queue / SLOT_S)
        if r.sum() <= limit:
            value = transmission_objective(r, power_for(r.sum(), **setting), queue, **setting)
            assert best <= value + 1e-9 * abs(best)


def test_worked_by_hand():
    # One service, level sqrt(3e7 / (3·1e18·1e-28)) = 3.1623e8 Hz, below its backlog of 3e9 Hz and below F^l.
    assert allocate_local([3e7], **LOCAL) == pytest.approx([np.sqrt(1e17)])
    # Two services at U = 0: the larger takes F^l first, and all of it.
    assert allocate_local([1e8, 2e8], **LOCAL | {"energy_weight": 0.0}).tolist() == [0.0, 1.5e9]
    # Table II's weight: flat out. The larger queue can use only 1e9 Hz, the other gets the remainder.
    assert allocate_local([9e6, 1e7], **LOCAL | {"energy_weight": 1e9}).tolist() == [5e8, 1e9]
    # SNR of 3 at full power: 2 bit/s/Hz; an empty price on energy uses all of it.
    setting = RADIO | {"energy_weight": 0.0, "channel_gain": 3 * 250e3 * 4e-21 / 0.3}
    rate, power = allocate_transmission([1e6, 2e6], **setting)
    assert rate == pytest.approx([0.0, 500e3])
    assert power == pytest.approx(0.3)
    # Everybody gets what they can use; then the largest first, and the remainder to the next, not to the last.
    assert allocate_edge([1e7, 2e7, 3e7], **EDGE).tolist() == [1e9, 2e9, 3e9]
    assert allocate_edge([1e7, 2e7, 3e7], slot_s=SLOT_S, max_frequency_hz=4e9).tolist() == [0.0, 1e9, 3e9]


def test_local_frequency_of_one_long_queue_is_lydroos():
    """LyDROO's closed local frequency sqrt(a / (3·phi·k·Y)), with a = Q, phi·Y = U and k = delta."""
    queue, energy_price, coefficient = 1e12, 4e18, 2e-28
    expected = np.sqrt(queue / (3 * energy_price * coefficient))
    setting = {"slot_s": SLOT_S, "energy_weight": energy_price, "energy_coefficient": coefficient}
    assert allocate_local([queue], max_frequency_hz=1e13, **setting) == pytest.approx([expected], rel=1e-14)
    assert allocate_local([queue], max_frequency_hz=expected / 2, **setting) == pytest.approx([expected / 2])


def test_deep_fade_sends_nothing():
    rate, power = allocate_transmission([1e6, 1e9], **RADIO | {"channel_gain": 0.0})
    assert rate.tolist() == [0.0, 0.0]
    assert power == 0.0
    rate, power = allocate_transmission([1e6], **RADIO | {"channel_gain": 1e-300})
    assert rate.tolist() == [0.0]
    assert power == 0.0


def test_a_hundred_thousand_services():
    rng = np.random.default_rng(0)
    queue = 1e3 * rng.exponential(size=100_000)
    frequency = allocate_edge(queue, slot_s=SLOT_S, max_frequency_hz=1e9)
    assert_feasible(frequency, queue, 1e9)
    assert frequency.sum() == pytest.approx(1e9)
    assert queue[frequency > 0].min() >= queue[frequency == 0].max()
    assert_feasible(allocate_local(queue, **LOCAL), queue, 1.5e9)


backlog = st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1e12)), min_size=1, max_size=40)
weights = st.one_of(st.just(0.0), st.floats(1e3, 1e24))
PROPERTY = settings(derandomize=True, deadline=None, max_examples=150)


def allocations(queue, weight):
    """Each problem's allocation, its limit, and its objective as a function of the allocation."""
    queue = np.asarray(queue)
    local, radio = LOCAL | {"energy_weight": weight}, RADIO | {"energy_weight": weight * 1e-6}
    rate_limit = 250e3 * np.log2(1 + 0.3 * 1e-10 / (250e3 * 4e-21))
    rate, _ = allocate_transmission(queue, **radio)
    return (
        (allocate_local(queue, **local), 1.5e9, lambda f: local_objective(f, queue, **local)),
        (rate, rate_limit, lambda r: transmission_objective(r, power_for(r.sum(), **radio), queue, **radio)),
        (allocate_edge(queue, **EDGE), 20e9, lambda f: edge_objective(f, queue, **EDGE)),
    )


@PROPERTY
@given(backlog, weights)
def test_always_feasible(queue, weight):
    for allocated, limit, _ in allocations(queue, weight):
        assert_feasible(allocated, np.asarray(queue), limit)


@PROPERTY
@given(backlog, weights, st.data())
def test_moving_a_little_between_services_never_helps(queue, weight, data):
    n = data.draw(st.integers(0, len(queue) - 1))
    other = data.draw(st.integers(0, len(queue) - 1))
    share = data.draw(st.sampled_from([1e-6, 1e-3, 0.5]))
    for allocated, limit, objective in allocations(queue, weight):
        room = min(queue[other] / SLOT_S - allocated[other], limit - allocated.sum() + allocated[n])
        moves = []
        if n != other:  # from n to other
            step = share * max(0.0, min(allocated[n], room))
            moves.append(allocated + step * (np.eye(len(queue))[other] - np.eye(len(queue))[n]))
        step = share * max(0.0, min(room, limit - allocated.sum()))
        moves.append(allocated + step * np.eye(len(queue))[other])  # a little more
        moves.append(allocated * (1 - share * np.eye(len(queue))[n]))  # a little less
        before = objective(allocated)
        for moved in moves:
            assert objective(moved) >= before - 1e-9 * abs(before) - 1e-12


@PROPERTY
@given(backlog, weights, st.data(), st.floats(1.0, 100.0))
def test_monotone_in_own_backlog(queue, weight, data, factor):
    n = data.draw(st.integers(0, len(queue) - 1))
    grown = list(queue)
    grown[n] = queue[n] * factor + data.draw(st.sampled_from([0.0, 1.0, 1e6]))
    for (before, *_), (after, *_) in zip(allocations(queue, weight), allocations(grown, weight), strict=True):
        assert after[n] >= before[n] * (1 - 1e-12)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_a_batch_equals_its_members(seed):
    rng = np.random.default_rng(seed)
    queue = 10.0 ** rng.uniform(3, 9, (3, 2, 5)) * (rng.random((3, 2, 5)) < 0.8)
    energy_weight, gain = 10.0 ** rng.uniform(6, 20, (3, 2)), 1e-10 * rng.exponential(size=(3, 2))
    local = LOCAL | {"energy_weight": energy_weight}
    radio = RADIO | {"energy_weight": energy_weight[:, :1], "channel_gain": gain}
    frequency = allocate_local(queue, **local)
    rate, power = allocate_transmission(queue, **radio)
    edge = allocate_edge(queue.reshape(3, 10), **EDGE | {"max_frequency_hz": [1e9, 5e9, 20e9]})
    assert frequency.shape == rate.shape == queue.shape
    assert power.shape == (3, 2)
    for i in range(3):
        single = allocate_edge(queue[i].ravel(), **EDGE | {"max_frequency_hz": [1e9, 5e9, 20e9][i]})
        np.testing.assert_array_equal(single, edge[i])
        for j in range(2):
            single = allocate_local(queue[i, j], **LOCAL | {"energy_weight": energy_weight[i, j]})
            np.testing.assert_array_equal(single, frequency[i, j])
            setting = RADIO | {"energy_weight": energy_weight[i, 0], "channel_gain": gain[i, j]}
            single, watts = allocate_transmission(queue[i, j], **setting)
            np.testing.assert_array_equal(single, rate[i, j])
            assert watts == power[i, j]


@pytest.mark.parametrize("services", [1, 2, 31, 32, 33, 64, 65, 97, 200, 1025])
def test_services_are_ranked_as_a_stable_sort_ranks_them(services):
    rng = np.random.default_rng(services)
    queue = rng.integers(1, 5, (20, services)).astype(float)  # many equal backlogs, which keep their order
    limit = queue.sum(-1) / SLOT_S / 2
    expected = np.zeros_like(queue)
    for row, left, out in zip(queue, limit.copy(), expected, strict=True):
        for n in np.argsort(-row, kind="stable"):
            out[n] = max(0.0, min(row[n] / SLOT_S, left))
            left -= out[n]
    np.testing.assert_allclose(allocate_edge(queue, slot_s=SLOT_S, max_frequency_hz=limit), expected, atol=1e-6)


def test_inputs_are_left_alone():
    queue = np.array([1e7, 2e7])
    queue.setflags(write=False)
    allocate_local(queue, **LOCAL)
    allocate_transmission(queue, **RADIO)
    allocate_edge(queue, **EDGE)
    assert queue.tolist() == [1e7, 2e7]


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: allocate_local([-1.0], **LOCAL), "queue_cycles"),
        (lambda: allocate_local([np.nan], **LOCAL), "queue_cycles"),
        (lambda: allocate_local(3.0, **LOCAL), "queue_cycles"),
        (lambda: allocate_local(["many"], **LOCAL), "queue_cycles"),
        (lambda: allocate_local([1.0], **LOCAL | {"slot_s": 0.0}), "slot_s"),
        (lambda: allocate_local([1.0], **LOCAL | {"energy_weight": -1.0}), "energy_weight"),
        (lambda: allocate_local([1.0], **LOCAL | {"energy_weight": [1.0, 2.0]}), "energy_weight"),
        (lambda: allocate_local([1.0, 2.0], **LOCAL, queue_weight=[1.0, 2.0, 3.0]), "queue_weight"),
        (lambda: allocate_transmission([1.0], **RADIO | {"channel_gain": -1e-10}), "channel_gain"),
        (lambda: allocate_transmission([1.0], **RADIO | {"bandwidth_hz": 0.0}), "bandwidth_hz"),
        (lambda: allocate_transmission([1.0], **RADIO | {"max_power_w": np.inf}), "max_power_w"),
        (lambda: allocate_edge([1.0], **EDGE | {"max_frequency_hz": -1.0}), "max_frequency_hz"),
        (lambda: slot_allocator("simplex"), "solver"),
    ],
)
def test_nonsense_is_refused_by_name(call, field):
    with pytest.raises(InputError, match=rf"^{field} "):
        call()
