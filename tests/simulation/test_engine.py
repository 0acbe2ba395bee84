"""The compiled engine against a slow one in plain Python, task by task, and its own laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.errors import InputError
from splitinfer.scheduling.allocation import ClosedForm
from splitinfer.scheduling.policy import Request
from splitinfer.scheduling.setting import Setting
from splitinfer.simulation.engine import Engine
from splitinfer.simulation.records import Arrivals
from tests.simulation.slow_slots import SlowWorld


def random_world(rng, devices, services, cuts, *, load=1.0):
    """Worlds of every kind: all-local and all-edge cuts, free stages, strong and absent energy weights, padding."""
    compute = 10.0 ** rng.uniform(6.0, 8.0, (devices, services, 1)) * load
    share = np.sort(rng.random((devices, services, cuts + 1)), axis=-1)
    share[..., 0], share[..., -1] = 0.0, 1.0
    bits = 10.0 ** rng.uniform(3.0, 5.5, (devices, services, 1)) * load
    feature = rng.uniform(0.0, 1.5, (devices, services, cuts + 1)) * (rng.random((devices, services, cuts + 1)) < 0.85)
    feature[..., 0], feature[..., -1] = 1.0, 0.0
    active = rng.random((devices, services)) < 0.85
    return Setting(
        slot_s=0.01,
        slots_per_period=10,
        device_bandwidth_hz=1e6 / devices,
        noise_w_per_hz=4e-21,
        max_edge_frequency_hz=10.0 ** rng.uniform(8.5, 10.5),
        local_cycles=share * compute,
        transmission_bits=feature * bits,
        edge_cycles=(1 - share) * compute,
        num_cuts=cuts,
        max_local_frequency_hz=rng.uniform(0.5e9, 2e9, devices),
        max_power_w=rng.uniform(0.05, 0.5, devices),
        energy_coefficient=1e-28,
        local_energy_weight=rng.choice([0.0, 1e9, 1e17, 1e18], devices),
        transmission_energy_weight=rng.choice([0.0, 1e6, 1e11, 1e12], devices),
        active=active,
    )


def random_inputs(rng, world, slots, rate):
    """Cuts, gains with deep fades, and bursts of arrivals at the services that exist."""
    shape = (world.num_devices, world.num_services)
    gains = 1e-10 * rng.exponential(size=(slots, shape[0])) * (rng.random((slots, shape[0])) < 0.95)
    counts = rng.poisson(rate, (slots, *shape)) * rng.choice([1, 1, 1, 4], (slots, *shape)) * world.active
    return rng.integers(0, world.num_cuts + 1), gains, counts


def finished_tasks(statistics, environment=0):
    tasks = statistics.tasks
    columns = (tasks.device, tasks.service, tasks.arrival_slot, tasks.finish_slot, tasks.cut)
    return [row for e, *row in zip(tasks.environment, *columns, strict=True) if e == environment]


@pytest.mark.parametrize("seed", range(24))
def test_equals_the_slow_version_task_by_task(seed):
    rng = np.random.default_rng(seed)
    world = random_world(rng, *rng.integers(1, 4, 2), rng.integers(1, 6), load=(0.2, 1.0, 5.0)[seed % 3])
    engine, slow = Engine(world), SlowWorld(world)
    fast_finished, energies = [], np.zeros((2, world.num_devices))
    for _ in range(12):  # new cuts every period, with tasks of the old cuts still on their way
        slots = int(rng.integers(1, 30))
        cuts, gains, counts = random_inputs(rng, world, slots, rate=0.05)
        seen = np.zeros((3, world.num_devices, world.num_services))
        for t in range(slots):
            for stage, m, n in slow.queues:
                seen[stage, m, n] += slow.backlog(stage, m, n)
            slow.step(cuts, gains[t], counts[t])
        statistics = engine.advance(cuts, gains, counts)
        fast_finished += finished_tasks(statistics)
        energies += slots * np.array([statistics.local_energy_j[0], statistics.transmission_energy_j[0]])
        np.testing.assert_allclose(statistics.backlog[0], seen / slots, rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(
            engine.backlog[0],
            [
                [[slow.backlog(s, m, n) for n in range(world.num_services)] for m in range(world.num_devices)]
                for s in range(3)
            ],
            rtol=1e-9,
            atol=1e-6,
        )
    assert sorted(fast_finished) == sorted(list(row) for row in slow.finished)
    assert len(fast_finished) >= 5
    np.testing.assert_allclose(energies[0], slow.energy_local, rtol=1e-9)
    np.testing.assert_allclose(energies[1], slow.energy_transmission, rtol=1e-9)


def single(local, bits, edge, **changes):
    """One device, one service, one cut (0 and 1 alike); 1e9 cycles/s at both ends, 1 Mbit/s at a gain of 1."""
    fields = {
        "slot_s": 0.01,
        "slots_per_period": 10,
        "device_bandwidth_hz": 1e6,
        "noise_w_per_hz": 1e-7,
        "max_edge_frequency_hz": 1e9,
        "local_cycles": [[[local, local]]],
        "transmission_bits": [[[bits, bits]]],
        "edge_cycles": [[[edge, edge]]],
        "num_cuts": 1,
        "max_local_frequency_hz": 1e9,
        "max_power_w": 0.1,
        "energy_coefficient": 1e-28,
        "local_energy_weight": 0.0,
        "transmission_energy_weight": 0.0,
    }
    return Setting(**fields | changes)


def one_arrival(slots):
    counts = np.zeros((slots, 1, 1), np.int64)
    counts[0] = 1
    return counts


@pytest.mark.parametrize(
    ("world", "latency_slots"),
    [
        (single(2e7, 3e4, 1e7), 1 + 2 + 3 + 1),  # the arrival slot, then every stage in turn
        (single(2e7, 0.0, 0.0), 1 + 2),  # all local: nothing is sent
        (single(0.0, 3e4, 1e7), 1 + 3 + 1),  # all edge
        (single(1.0, 1.0, 1.0), 1 + 3),  # however small, a stage takes a slot
    ],
)
def test_latency_by_hand(world, latency_slots):
    statistics = Engine(world).advance([[0]], np.ones((20, 1)), one_arrival(20))
    assert statistics.tasks.latency_s == pytest.approx([latency_slots * 0.01])
    assert statistics.tasks.finish_slot.tolist() == [latency_slots - 1]
    assert statistics.arrived[0, 0, 0] == statistics.finished[0, 0, 0] == 1


def test_energy_by_hand():
    # Two slots at 1e9 Hz: 0.01·1e-28·1e27 J each. Three slots at full power of 0.1 W: 1e-3 J each.
    statistics = Engine(single(2e7, 3e4, 1e7)).advance([[0]], np.ones((20, 1)), one_arrival(20))
    assert statistics.local_energy_j[0, 0] == pytest.approx(2 * 0.01 * 0.1 / 20)
    assert statistics.transmission_energy_j[0, 0] == pytest.approx(3 * 1e-3 / 20)
    assert statistics.power_w[0, 0] == pytest.approx(3 * 0.1 / 20)
    assert statistics.service_rate[0, 1, 0].sum() == pytest.approx(3e4 / 0.2)


def test_a_task_keeps_the_cut_it_was_admitted_with():
    world = single(0.0, 0.0, 0.0, local_cycles=[[[0.0, 5e7]]], transmission_bits=[[[1e4, 0.0]]])
    engine = Engine(world)
    engine.advance([[1]], np.ones((2, 1)), one_arrival(2))
    statistics = engine.advance([[0]], np.ones((20, 1)), np.zeros((20, 1, 1), np.int64))
    assert statistics.tasks.cut.tolist() == [1]
    assert statistics.tasks.latency_s == pytest.approx([0.06])
    assert statistics.work_served[0, :, 0, 0] == pytest.approx([4e7, 0.0, 0.0])


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.floats(0.01, 0.5), st.sampled_from([0.1, 1.0, 30.0]))
def test_work_and_tasks_are_conserved(seed, rate, load):
    rng = np.random.default_rng(seed)
    world = random_world(rng, 3, 2, 4, load=load)
    engine = Engine(world)
    entered, served = 0.0, 0.0
    admitted = np.zeros((3, 3, 2))
    arrived = finished = 0
    tables = np.stack([world.local_cycles, world.transmission_bits, world.edge_cycles])
    for _ in range(5):
        cuts, gains, counts = random_inputs(rng, world, 40, rate)
        statistics = engine.advance(cuts, gains, counts)
        entered, served = entered + statistics.work_in[0], served + statistics.work_served[0]
        arrived, finished = arrived + statistics.arrived[0], finished + statistics.finished[0]
        admitted += np.take_along_axis(tables, cuts[None, ..., None], axis=-1)[..., 0] * counts.sum(0)
        np.testing.assert_allclose(entered, served + engine.backlog[0], rtol=1e-9)
        np.testing.assert_array_equal(arrived, finished + engine.in_flight[0].sum(axis=0))
        assert np.all(entered <= admitted * (1 + 1e-9))
        assert np.all(engine.backlog[0][engine.in_flight[0] == 0] == 0)
    # Once the load stops, everything admitted is done: each stage has served exactly what the cuts asked of it.
    quiet = world.replace(local_energy_weight=0.0, transmission_energy_weight=0.0, max_edge_frequency_hz=1e13)
    engine.local_energy_weight[:] = 0.0
    engine.transmission_energy_weight[:] = 0.0
    idle = np.zeros((20_000, *quiet.active.shape), np.int64)
    rest = engine.advance(cuts, np.full((20_000, 3), 1e-7), idle)
    if engine.in_flight.sum() == 0:
        np.testing.assert_allclose(served + rest.work_served[0], admitted, rtol=1e-9)
        assert finished.sum() + rest.finished.sum() == arrived.sum()
    else:
        assert load == 30.0


def test_an_overloaded_queue_grows_without_a_cap():
    world = single(1e9, 0.0, 0.0)
    engine = Engine(world)
    counts = np.full((5000, 1, 1), 7)
    statistics = engine.advance([[0]], np.ones((5000, 1)), counts)
    assert engine.in_flight.sum() == 35_000 - statistics.finished.sum()
    assert engine.backlog.sum() == pytest.approx(35_000e9 - 4999 * 1e7, rel=1e-12)
    # First come first served, a hundred slots each, seven new ones every slot.
    task = np.arange(49)
    assert statistics.tasks.arrival_slot.tolist() == (task // 7).tolist()
    assert statistics.tasks.finish_slot.tolist() == (100 * (task + 1)).tolist()


def test_several_environments_equal_each_alone():
    rng = np.random.default_rng(3)
    worlds = [random_world(rng, m, n, k) for m, n, k in ((1, 1, 1), (3, 2, 5), (2, 3, 2))]
    inputs = [random_inputs(rng, world, 60, 0.1) for world in worlds]
    cuts, gains, counts = np.zeros((3, 3, 3), np.int64), np.zeros((3, 60, 3)), np.zeros((3, 60, 3, 3), np.int64)
    for e, (c, g, a) in enumerate(inputs):
        cuts[e, : c.shape[0], : c.shape[1]] = c
        gains[e, :, : g.shape[1]] = g
        counts[e, :, : c.shape[0], : c.shape[1]] = a
    for parallel in (True, False):
        together = Engine(worlds, parallel=parallel)
        statistics = together.advance(cuts, gains, counts)
        for e, (world, (c, g, a)) in enumerate(zip(worlds, inputs, strict=True)):
            engine = Engine(world)
            alone = engine.advance(c, g, a)
            assert finished_tasks(statistics, e) == finished_tasks(alone)
            m, n = c.shape
            np.testing.assert_array_equal(statistics.backlog[e, :, :m, :n], alone.backlog[0])
            np.testing.assert_array_equal(statistics.local_energy_j[e, :m], alone.local_energy_j[0])
            np.testing.assert_array_equal(together.backlog[e, :, :m, :n], engine.backlog[0])


def test_one_long_call_equals_many_short_ones():
    rng = np.random.default_rng(4)
    world = random_world(rng, 2, 2, 3)
    cuts, gains, counts = random_inputs(rng, world, 200, 0.1)
    whole, parts = Engine(world), Engine(world)
    statistics = whole.advance(cuts, gains, counts)
    rows = []
    for start in range(0, 200, 7):
        rows += finished_tasks(parts.advance(cuts, gains[start : start + 7], counts[start : start + 7]))
    assert rows == finished_tasks(statistics)
    np.testing.assert_array_equal(whole.backlog, parts.backlog)


def test_trace_records_what_happened():
    rng = np.random.default_rng(5)
    world = random_world(rng, 2, 2, 3)
    cuts, gains, counts = random_inputs(rng, world, 50, 0.2)
    full = Engine(world).advance(cuts, gains, counts, trace_every=1)
    sparse = Engine(world).advance(cuts, gains, counts, trace_every=7)
    assert full.trace.slot[0].tolist() == list(range(50))
    np.testing.assert_allclose(full.trace.backlog.mean(axis=1), full.backlog, rtol=1e-12)
    np.testing.assert_allclose(full.trace.service_rate.mean(axis=1), full.service_rate, rtol=1e-12)
    np.testing.assert_allclose(full.trace.power_w.mean(axis=1), full.power_w, rtol=1e-12)
    np.testing.assert_array_equal(sparse.trace.backlog, full.trace.backlog[:, ::7])
    np.testing.assert_array_equal(sparse.trace.service_rate, full.trace.service_rate[:, ::7])
    assert Engine(world).advance(cuts, gains, counts).trace is None


def test_another_allocator_drives_the_same_slots():
    """The slow path, one slot and one solver call at a time, with the closed forms as the solver: the same tasks."""
    rng = np.random.default_rng(7)
    worlds = [random_world(rng, 2, 2, 3, load=0.5), random_world(rng, 1, 3, 2)]
    gains = 1e-10 * rng.exponential(size=(2, 60, 2))
    counts = np.zeros((2, 60, 2, 3), np.int64)
    counts[0, :, :, :2] = random_inputs(rng, worlds[0], 60, 0.1)[2]
    counts[1, :, :1] = random_inputs(rng, worlds[1], 60, 0.1)[2]
    compiled, slow = Engine(worlds), Engine(worlds, solver=ClosedForm())
    for cut in (0, 2):
        ours = compiled.advance(np.full((2, 3), cut), gains, counts, trace_every=4)
        theirs = slow.advance(np.full((2, 3), cut), gains, counts, trace_every=4)
        for e in range(2):
            assert finished_tasks(ours, e) == finished_tasks(theirs, e)
        np.testing.assert_allclose(ours.local_energy_j, theirs.local_energy_j, rtol=1e-9)
        np.testing.assert_allclose(ours.transmission_energy_j, theirs.transmission_energy_j, rtol=1e-9)
        np.testing.assert_allclose(ours.trace.backlog, theirs.trace.backlog, rtol=1e-9, atol=1e-3)
        np.testing.assert_allclose(ours.trace.service_rate, theirs.trace.service_rate, rtol=1e-9)
        np.testing.assert_array_equal(ours.trace.slot, theirs.trace.slot)


def test_cvxpy_in_the_loop_gives_the_same_run():
    """To the solver's tolerance: what it leaves in a queue may take a slot more, which a steady channel keeps small."""
    rng = np.random.default_rng(6)
    world = random_world(rng, 2, 2, 3, load=0.5).replace(
        active=True, local_energy_weight=1e17, transmission_energy_weight=1e11
    )
    cuts, gains, counts = random_inputs(rng, world, 40, 0.1)
    gains[:], counts[10:] = 1e-10, 0
    ours = Engine(world).advance(cuts, gains, counts)
    theirs = Engine(world, solver="cvxpy").advance(cuts, gains, counts)
    np.testing.assert_allclose(ours.local_energy_j, theirs.local_energy_j, rtol=1e-2)
    np.testing.assert_allclose(ours.transmission_energy_j, theirs.transmission_energy_j, rtol=1e-2)
    np.testing.assert_allclose(ours.work_served, theirs.work_served, rtol=1e-6)
    np.testing.assert_array_equal(ours.finished, theirs.finished)


def test_requested_resources_are_used_within_the_limits():
    world = single(2e7, 3e4, 1e7)
    # Half of everything: twice the slots of test_latency_by_hand; half the rate at SNR 1 costs sqrt(2) - 1 of it.
    request = Request([[5e8]], [0.1], [[0.5]], [[5e8]])
    statistics = Engine(world).advance([[0]], np.ones((30, 1)), one_arrival(30), request=request)
    assert statistics.tasks.latency_s == pytest.approx([0.13])
    assert statistics.transmission_energy_j[0, 0] * 30 == pytest.approx(6 * 0.01 * 0.1 * (np.sqrt(2) - 1))
    # More than the limits allow is cut down to them.
    request = Request([[1e12]], [7.0], [[3.0]], [[1e12]])
    statistics = Engine(world).advance([[0]], np.ones((30, 1)), one_arrival(30), request=request)
    assert statistics.tasks.latency_s == pytest.approx([0.07])
    assert statistics.power_w.max() * 30 == pytest.approx(3 * 0.1)


def test_weights_change_between_calls():
    engine = Engine(single(1e9, 0.0, 0.0))
    fast = engine.advance([[0]], np.ones((10, 1)), one_arrival(10)).service_rate[0, 0, 0, 0]
    engine.local_energy_weight[0, 0] = 1e20
    idle = np.zeros((10, 1, 1), np.int64)
    slow = engine.advance([[0]], np.ones((10, 1)), idle).service_rate[0, 0, 0, 0]
    engine.queue_weight[0, 0, 0] = 1e4
    weighted = engine.advance([[0]], np.ones((10, 1)), idle).service_rate[0, 0, 0, 0]
    assert fast == pytest.approx(9e8)
    assert slow < 2e8
    assert weighted == pytest.approx(1e9)


def test_reset_and_new_worlds():
    worlds = [single(1e9, 0.0, 0.0), single(1e9, 0.0, 0.0)]
    engine = Engine(worlds)
    engine.advance([[0]], np.ones((10, 1)), Arrivals.from_events([0, 3], 0, 0, environment=[1, 0]))
    assert engine.in_flight.sum() == 2
    assert engine.clock.tolist() == [10, 10]
    engine.reset([1], [single(1e7, 0.0, 0.0)])
    assert engine.in_flight[:, 0, 0, 0].tolist() == [1, 0]
    assert engine.clock.tolist() == [10, 0]
    statistics = engine.advance([[0]], np.ones((10, 1)), Arrivals.from_events([0], 0, 0, environment=1))
    assert statistics.tasks.latency_s == pytest.approx([0.02])
    with pytest.raises(InputError, match="worlds"):
        engine.reset([0], [random_world(np.random.default_rng(0), 3, 2, 4)])


def test_arrivals_in_any_order():
    counts = np.zeros((6, 2, 2), np.int64)
    counts[1, 0, 1], counts[4, 1, 0] = 2, 1
    dense = Arrivals.from_counts(counts)
    events = Arrivals.from_events([4, 1], [1, 0], [0, 1], count=[1, 2])
    for column in ("environment", "slot", "device", "service", "count"):
        np.testing.assert_array_equal(getattr(dense, column), getattr(events, column))


GAINS, NOTHING = np.ones((3, 1)), np.zeros((3, 1, 1), np.int64)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda e: e.advance([[2]], GAINS, NOTHING), "cuts"),
        (lambda e: e.advance([[-1]], GAINS, NOTHING), "cuts"),
        (lambda e: e.advance([[0.5]], GAINS, NOTHING), "cuts"),
        (lambda e: e.advance([[0, 0, 0]], GAINS, NOTHING), "cuts"),
        (lambda e: e.advance([[0]], -GAINS, NOTHING), "gains"),
        (lambda e: e.advance([[0]], np.ones((3, 2)), NOTHING), "gains"),
        (lambda e: e.advance([[0]], GAINS, np.zeros((4, 1, 1), np.int64)), "arrivals"),
        (lambda e: e.advance([[0]], GAINS, Arrivals.from_events([3], 0, 0)), "arrivals"),
        (lambda e: e.advance([[0]], GAINS, Arrivals.from_events([0], 0, 1)), "arrivals"),
        (lambda e: e.advance([[0]], GAINS, Arrivals.from_events([0], 0, 0, count=-1)), "arrivals"),
        (lambda e: e.advance([[0]], GAINS, NOTHING, trace_every=-1), "trace_every"),
        (lambda e: e.advance([[0]], GAINS, NOTHING, request=Request([[-1]], [0], [[0]], [[0]])), "local_frequency_hz"),
        (lambda e: Engine([]), "worlds"),
        (lambda e: Engine(e.worlds[0], solver="simplex"), "solver"),
        (lambda e: single(0.0, 0.0, 0.0), "local_cycles"),
        (lambda e: single(1.0, -1.0, 0.0), "transmission_bits"),
        (lambda e: single(1.0, 1.0, 1.0, slot_s=0.0), "slot_s"),
        (lambda e: single(1.0, 1.0, 1.0, num_cuts=2), "num_cuts"),
        (lambda e: single(1.0, 1.0, 1.0, max_power_w=[0.1, 0.2]), "max_power_w"),
        (lambda e: single(1.0, 1.0, 1.0, slots_per_period=0), "slots_per_period"),
    ],
)
def test_nonsense_is_refused_by_name(call, field):
    with pytest.raises(InputError, match=rf"^(request\.)?{field}"):
        call(Engine(single(1.0, 1.0, 1.0)))


def test_every_kind_of_input_runs_the_same_compiled_code():
    """Broadcast cuts, strided arrivals and read-only gains must not make numba compile the loop again."""
    from splitinfer.simulation import kernel

    engine = Engine(random_world(np.random.default_rng(0), 2, 2, 3).replace(active=True))
    engine.advance(np.zeros((2, 2), np.int64), np.ones((4, 2)), np.zeros((4, 2, 2), np.int64))
    before = len(kernel.advance_serial.signatures)
    gains = np.broadcast_to(1e-10, (4, 2))
    counts = np.ones((8, 2, 2), np.int32)[::2]
    engine.advance(2, gains, counts)
    engine.advance(np.zeros((2, 2), np.int32).T, gains[::-1], Arrivals.from_counts(counts), request=Request(1, 1, 1, 1))
    engine.advance(1, gains, Arrivals.from_events([1], [0], [0]), trace_every=2)
    assert len(kernel.advance_serial.signatures) == before
