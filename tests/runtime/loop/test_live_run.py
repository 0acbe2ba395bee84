"""Real processes on loopback against the simulator: the same slots, the same tasks, the whole models' bits."""

from __future__ import annotations

import json

import pytest

from splitinfer.errors import InputError, RemoteError, ScenarioError
from splitinfer.runtime.loop import LoopSettings, read_trace, run_locally
from splitinfer.simulation import Scenario, simulate
from splitinfer.simulation.policies import policy_of

# Time stands still for late work: whatever this machine is busy with, the run is the simulator's, slot by slot.
PATIENT = 60.0


def tasks_of(result):
    tasks = result.tasks
    columns = (tasks.device, tasks.service, tasks.arrival_slot, tasks.finish_slot, tasks.cut)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def test_a_run_with_thousands_of_recuts_is_the_simulators_task_by_task(tiny, tiny_cards, tmp_path):
    """Four services are cut anew every 5 slots: 1,600 cuts in 2,000 slots, at random, tasks of old cuts under way."""
    slots, seed = 2000, 5
    lines = []
    settings = LoopSettings(slots=slots, seed=seed, time_scale=0.05, patience_s=PATIENT)
    record = run_locally(tiny, "random", settings, cards=tiny_cards, on_event=lines.append)
    live = record.result(tiny)
    simulated = simulate(tiny, policy_of("random", tiny), slots=slots, seed=seed)
    figures = live.figures

    assert live.is_right
    assert live.checked == figures.finished > 400
    assert (live.wrong, live.unexpected) == (0, 0)
    assert figures.arrived == simulated.arrived == figures.finished + live.unanswered
    assert tasks_of(figures) == tasks_of(simulated)
    assert len({task[4] for task in tasks_of(figures)}) == 5  # every cut of the larger model was in use
    assert figures.energy_local_j == pytest.approx(simulated.energy_local_j, rel=1e-9)
    assert figures.energy_transmission_j == pytest.approx(simulated.energy_transmission_j, rel=1e-9)
    assert figures.mean_queue == pytest.approx(simulated.mean_queue, rel=1e-9)
    assert figures.latency_s.mean() == pytest.approx(simulated.latency_s.mean())

    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_trace(trace).result(tiny).to_dict() == live.to_dict()


def test_the_myopic_policy_sees_what_it_sees_in_the_simulator(tiny, tiny_cards):
    """Its cuts follow from the observations, so equal tasks mean equal observations."""
    scenario = tiny.replace(arrival_rate_hz=4.0, channel="correlated")
    settings = LoopSettings(slots=600, seed=1, time_scale=0.05, patience_s=PATIENT)
    live = run_locally(scenario, "myopic", settings, cards=tiny_cards).result(scenario)
    simulated = simulate(scenario, policy_of("myopic", scenario), slots=600, seed=1)
    assert live.is_right
    assert tasks_of(live.figures) == tasks_of(simulated)
    assert len({task[4] for task in tasks_of(live.figures)}) > 1


def test_a_wrong_policy_is_one_clear_line(tiny, tiny_cards):
    with pytest.raises(InputError, match=r"policy: no 'mystic'"):
        run_locally(tiny, "mystic", LoopSettings(slots=10), cards=tiny_cards)


def test_what_a_process_refuses_is_said_with_its_name(tiny):
    with pytest.raises(InputError, match=r"(edge|device [01]): unknown model"):
        run_locally(tiny, "fixed", LoopSettings(slots=10))


def test_a_latency_target_is_refused(tiny):
    with pytest.raises(ScenarioError, match="p95_latency_s"):
        run_locally(tiny.replace(p95_latency_s=1.0), "fixed", LoopSettings(slots=10))


def test_missing_devices_end_the_wait(tiny, tiny_cards):
    from splitinfer.runtime.loop import run_edge
    from splitinfer.runtime.loop.services import ServiceLoader

    settings = LoopSettings(slots=10, join_s=0.05)
    with pytest.raises(RemoteError, match="devices 0, 1 did not come"):
        run_edge(tiny, policy_of("fixed", tiny), ServiceLoader(tiny_cards).models(tiny), settings)


@pytest.mark.parametrize(
    ("field", "value"),
    [("slots", 0), ("seed", -1), ("time_scale", 0.0), ("patience_s", -1.0), ("tail_workers", 0), ("join_s", 0.0)],
)
def test_settings_name_what_is_wrong(field, value):
    with pytest.raises(InputError, match=field):
        LoopSettings(**({"slots": 10} | {field: value}))


def test_a_profile_of_another_model_is_refused(tiny, tiny_cards):
    from splitinfer.runtime.loop.services import ServiceLoader

    swapped = dict(zip(tiny_cards, reversed(tiny_cards.values()), strict=True))
    with pytest.raises(ScenarioError, match="profile it anew"):
        ServiceLoader(swapped).models(tiny)


def test_both_ends_need_the_same_world(tiny):
    from splitinfer.runtime.loop.world import digest

    assert digest(tiny) == digest(Scenario(**{name: getattr(tiny, name) for name in tiny.model_fields_set}))
    for change in ({"arrival_rate_hz": 7.0}, {"seed": 1}, {"channel": "steady"}, {"distances_m": (150.0, 251.0)}):
        assert digest(tiny.replace(**change)) != digest(tiny)
