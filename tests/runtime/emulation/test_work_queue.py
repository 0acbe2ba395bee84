"""The queue of real tasks against the simulator's compiled loop, and on its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.errors import InputError
from splitinfer.runtime.emulation import WorkQueue

works = st.floats(1e-3, 1e12)


@settings(deadline=None, derandomize=True)
@given(tasks=st.lists(works, min_size=1, max_size=30), grants=st.lists(st.floats(0, 1e12), max_size=60))
def test_work_is_conserved_and_order_kept(tasks, grants):
    queue = WorkQueue()
    for number, work in enumerate(tasks):
        queue.enter(number, work)
    done, shares = [], dict.fromkeys(range(len(tasks)), 0.0)
    for grant in grants:
        served = queue.serve(grant)
        assert sum((one.stop - one.start) * tasks[one.item] for one in served) <= grant * (1 + 1e-9) + 1e-9 * sum(tasks)
        for one in served:
            assert one.start == pytest.approx(shares[one.item], abs=1e-12)
            assert one.start <= one.stop
            shares[one.item] = one.stop
        done += [one.item for one in served if one.is_done]
    assert done == list(range(len(done)))
    assert list(queue) == list(range(len(done), len(tasks)))
    assert queue.work_in == pytest.approx(queue.work_served + queue.backlog, rel=1e-9)
    assert all(shares[number] == 1.0 for number in done)


def test_an_empty_queue_has_no_rounding_left():
    queue = WorkQueue()
    for _ in range(3):
        queue.enter("task", 0.1)
    for _ in range(3):
        queue.serve(0.1)
    assert len(queue) == 0
    assert queue.backlog == 0.0


def test_nothing_to_spend_touches_nothing():
    queue = WorkQueue()
    queue.enter("task", 1.0)
    assert queue.serve(0.0) == []
    assert queue.backlog == 1.0


@pytest.mark.parametrize("work", [0.0, -1.0, float("nan")])
def test_a_task_without_work_skips_the_queue(work):
    with pytest.raises(InputError, match="above 0"):
        WorkQueue().enter("task", work)


def test_one_station_equals_the_simulator_slot_by_slot():
    """The same arrivals through the engine (everything on the device) and through this queue: equal to the last bit."""
    from splitinfer.scheduling import allocate_local
    from splitinfer.simulation.build import setting_of
    from splitinfer.simulation.engine import Engine
    from tests.simulation.small import small_scenario

    scenario = small_scenario(num_devices=1, energy_coefficient=1e-27, local_energy_weight=1e17)
    world = setting_of(scenario)
    rng = np.random.default_rng(3)
    slots = 3000
    counts = rng.poisson(0.03, (slots, 1, 2))
    engine = Engine(world)
    trace = engine.advance(world.num_cuts, np.full((slots, 1), 1e-9), counts, trace_every=1).trace
    queues = [WorkQueue(), WorkQueue()]
    cycles = [world.local_cycles[0, n, world.num_cuts[0, n]] for n in range(2)]
    for slot in range(slots):
        backlog = np.array([queue.backlog for queue in queues])
        assert backlog.tolist() == trace.backlog[0, slot, 0, 0].tolist()
        frequency = allocate_local(
            backlog,
            slot_s=world.slot_s,
            energy_weight=world.local_energy_weight[0],
            energy_coefficient=world.energy_coefficient[0],
            max_frequency_hz=world.max_local_frequency_hz[0],
        )
        for n, queue in enumerate(queues):
            queue.serve(frequency[n] * world.slot_s)
            for _ in range(counts[slot, 0, n]):
                queue.enter("task", cycles[n])
