"""Live runs on loopback against the simulator: the same slots, the same tasks, the whole models' bits.

Processes where what runs is a policy or what goes wrong is a process; threads where only the world differs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from splitinfer import load_policy
from splitinfer.errors import EdgeUnavailableError, InputError, RemoteError, ScenarioError
from splitinfer.policies import named_policy
from splitinfer.profiling import profile
from splitinfer.runtime.batch_sizes import BATCH_TOLERANCE
from splitinfer.runtime.events import BatchReleased, DeviceLost, PeriodEnded
from splitinfer.runtime.loop import LocalProcesses, LoopSettings, read_trace, run_edge, run_locally
from splitinfer.runtime.loop.services import ServiceLoader
from splitinfer.runtime.loop.world import card_files
from splitinfer.simulation import Scenario, simulate
from splitinfer.simulation.identity import digest
from tests.runtime.loop.conftest import write_joint_run
from tests.runtime.loop.in_process import run_here

# Time stands still for late work: whatever this machine is busy with, the run is the simulator's, slot by slot.
PATIENT = 60.0


def tasks_of(result):
    tasks = result.tasks
    columns = (tasks.device, tasks.service, tasks.arrival_slot, tasks.finish_slot, tasks.cut)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def test_a_run_with_a_thousand_recuts_is_the_simulators_task_by_task(tiny, tiny_cards, tmp_path):
    """Four services are cut anew every 5 slots: 1,200 cuts in 1,500 slots, at random, tasks of old cuts under way."""
    slots, seed = 1500, 5
    lines = []
    settings = LoopSettings(slots=slots, seed=seed, time_scale=0.05, patience_s=PATIENT, p95_target_s=0.5)
    record = run_locally(tiny, "random", settings, cards=tiny_cards, observer=lines.append)
    assert lines[0].targets_s == [[0.5] * count for count in tiny.num_services]
    live = record.result(tiny)
    simulated = simulate(tiny, named_policy("random", tiny), slots=slots, seed=seed)
    figures = live.figures

    assert live.is_right
    assert live.checked == figures.finished > 300
    assert (live.wrong, live.unexpected) == (0, 0)
    assert figures.arrived == simulated.arrived == figures.finished + live.unanswered
    assert tasks_of(figures) == tasks_of(simulated)
    assert len({task[4] for task in tasks_of(figures)}) == 5  # every cut of the larger model was in use
    assert figures.energy_local_j == pytest.approx(simulated.energy_local_j, rel=1e-9)
    assert figures.energy_transmission_j == pytest.approx(simulated.energy_transmission_j, rel=1e-9)
    assert figures.mean_queue == pytest.approx(simulated.mean_queue, rel=1e-9)
    assert figures.latency_s.mean() == pytest.approx(simulated.latency_s.mean())

    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps(line.to_dict()) + "\n" for line in lines))
    assert read_trace(trace).result(tiny).to_dict() == live.to_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"allocation": "price", "service_order": "shortest"},
        {"allocation": "price", "service_order": "oldest", "device": ("pixel6:lte", "snapdragon865:5g")},
        {"allocation": "price", "price_growth_s": 0.05},
        {"device": "pixel6:lte", "local_energy_weight": 1e13, "transmission_energy_weight": 1e7},
        {"allocation": "tests.runtime.loop.own_rule:Halves"},
    ],
    ids=["price", "price-phones", "price-growing", "phones", "own"],
)
def test_every_rule_and_card_is_the_simulators_task_by_task(tiny, loader, changes):
    world = tiny.replace(arrival_rate_hz=6.0, latency_price_w=0.05, **changes)
    settings = LoopSettings(slots=600, seed=4, time_scale=0.05, patience_s=PATIENT)
    live = run_here(world, "random", settings, loader)
    simulated = simulate(world, named_policy("random", world), slots=600, seed=4)
    assert live.is_right
    assert live.figures.finished > 40
    assert tasks_of(live.figures) == tasks_of(simulated)
    assert live.figures.energy_local_j == pytest.approx(simulated.energy_local_j, rel=1e-9)
    assert live.figures.energy_transmission_j == pytest.approx(simulated.energy_transmission_j, rel=1e-9)


def test_set_cuts_are_run_and_are_the_simulators_task_by_task(tiny, tmp_path):
    card = tmp_path / "towers.toml"
    card.write_text('source = "tests.graph.towers:Towers"\n[[inputs]]\nshape = [16]\n[[inputs]]\nshape = [256]\n')
    world = tiny.replace(services=(profile(card),), num_devices=1, cuts="sets", cycles_per_mac=2000.0)
    settings = LoopSettings(slots=600, seed=3, time_scale=0.05, patience_s=PATIENT)
    live = run_here(world, "random", settings, ServiceLoader(card_files([card])))
    simulated = simulate(world, named_policy("random", world), slots=600, seed=3)
    assert live.is_right
    assert tasks_of(live.figures) == tasks_of(simulated)
    used = {world.choices[0][0][task[4]].cut for task in tasks_of(simulated)}
    assert {cut.index for cut in world.profiles[0][0].set_cuts} <= used


def test_batches_at_the_edge_change_no_slot_and_answers_by_rounding_alone(tiny, loader):
    events = []
    world = tiny.replace(arrival_rate_hz=30.0)
    settings = LoopSettings(slots=400, seed=2, time_scale=0.05, patience_s=PATIENT, batch=4)
    live = run_here(world, "random", settings, loader, events.append)
    assert live.is_right
    assert live.tolerance == BATCH_TOLERANCE
    assert tasks_of(live.figures) == tasks_of(simulate(world, named_policy("random", world), slots=400, seed=2))
    batches = [event for event in events if isinstance(event, BatchReleased)]
    with_tails = sum(task[4] < world.profiles[task[0]][task[1]].num_cuts for task in tasks_of(live.figures))
    assert sum(batch.size for batch in batches) >= with_tails > 50


@pytest.fixture(scope="module")
def uneasy(tiny):
    """Channels that come and go and an edge that is soon full: policies that observe change their cuts all the time."""
    return tiny.replace(arrival_rate_hz=6.0, channel="correlated", energy_coefficient=3e-26)


@pytest.fixture(scope="module")
def processes(uneasy, tiny_cards):
    with LocalProcesses(uneasy, cards=tiny_cards) as processes:
        yield processes


@pytest.mark.parametrize("policy", ["myopic", "lyappo"])
def test_policies_that_observe_see_what_they_see_in_the_simulator(policy, uneasy, processes):
    """Cuts follow from the observations, lyappo's from all before, too: equal tasks mean equal observations in order.

    Equal to the task is more than the bounds that a run without patience is held to by ``benchmarks.agreement``.
    """
    settings = LoopSettings(slots=1000, seed=1, time_scale=0.05, patience_s=PATIENT)
    live = processes.run(policy, settings).result(uneasy)
    simulated = simulate(uneasy, named_policy(policy, uneasy), slots=1000, seed=1)
    figures = live.figures
    assert live.is_right
    assert tasks_of(figures) == tasks_of(simulated)
    for device in range(2):
        # More cuts in use than services: the policy did re-cut.
        assert len({task[1::3] for task in tasks_of(figures) if task[0] == device}) > 2
    assert figures.energy_j == pytest.approx(simulated.energy_j, rel=1e-9)
    assert figures.latency_s.mean() == pytest.approx(simulated.latency_s.mean())
    assert figures.mean_queue == pytest.approx(simulated.mean_queue, rel=1e-9)


def test_a_codec_that_rounds_is_sent_counted_and_checked(tiny, loader):
    """The bits of the codec's estimate queue, its bytes are sent, and answers are the tail's on what it leaves."""
    world = tiny.replace(codecs="float16", arrival_rate_hz=4.0)
    settings = LoopSettings(slots=600, seed=3, time_scale=0.05, patience_s=PATIENT)
    live = run_here(world, "random", settings, loader)
    assert live.is_right
    assert (live.checked, live.wrong) == (live.figures.finished, 0)
    assert live.figures.finished > 40
    assert tasks_of(live.figures) == tasks_of(simulate(world, named_policy("random", world), slots=600, seed=3))


def test_a_policy_chooses_the_codec_with_the_cut_from_a_set_for_each_service(tiny, loader):
    """The pair goes over the wire as it was chosen, and the run stays what the simulator computes, task by task."""
    sets = (("raw", "int8", "int2+ans"), ("int2+zstd", "float16"))
    world = tiny.replace(codecs=sets, arrival_rate_hz=4.0)
    settings = LoopSettings(slots=600, seed=3, time_scale=0.05, patience_s=PATIENT)
    live = run_here(world, "random", settings, loader)
    assert live.is_right
    assert (live.checked, live.wrong) == (live.figures.finished, 0)
    tasks = live.figures.tasks
    used = {
        (service, world.choices[device][service][place].codec)
        for device, service, place in zip(tasks.device, tasks.service, tasks.cut, strict=True)
    }
    assert len(used) > 4
    assert all(codec in ("", *sets[service]) for service, codec in used)
    assert tasks_of(live.figures) == tasks_of(simulate(world, named_policy("random", world), slots=600, seed=3))


class Recording:
    """Passes observations on, and keeps them."""

    def __init__(self, policy):
        self.name = policy.name
        self.seen = []
        self._policy = policy

    def reset(self, setting, rng):
        self._policy.reset(setting, rng)

    def cuts(self, observation):
        self.seen.append(observation)
        return self._policy.cuts(observation)

    def __deepcopy__(self, memo):  # the simulator works on copies
        return self


def test_observations_are_the_simulators_one_by_one(uneasy, loader):
    """The edge in this process, to look into what its policy is shown."""
    slots, seed = 300, 2
    recorders = [Recording(named_policy("lyappo", uneasy)) for _ in range(2)]
    live, simulated = recorders
    run_here(uneasy, live, LoopSettings(slots=slots, seed=seed, time_scale=0.05, patience_s=PATIENT), loader)
    simulate(uneasy, simulated, slots, seed)
    assert len(live.seen) == len(simulated.seen) == slots // uneasy.slots_per_period
    for here, there in zip(live.seen, simulated.seen, strict=True):
        for name, value in vars(there.period).items():
            np.testing.assert_allclose(getattr(here.period, name), value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_processes_refuse_a_mistake_and_live_on(uneasy, processes):
    with pytest.raises(InputError, match=r"policy: no 'mystic'"):
        processes.run("mystic", LoopSettings(slots=10))
    with pytest.raises(InputError, match=r"torch_threads: these processes have 1, not 2"):
        processes.run("fixed", LoopSettings(slots=10, torch_threads=2))
    settings = LoopSettings(slots=100, time_scale=0.05, patience_s=PATIENT)
    assert processes.run("fixed", settings).result(uneasy).is_right


def test_processes_are_gone_after_the_end_or_a_failure(tiny, tiny_cards, tmp_path):
    gone = {name: str(tmp_path / f"{name}.toml") for name in tiny_cards}  # files that the processes do not find
    with LocalProcesses(tiny, cards=gone) as processes:
        with pytest.raises(InputError, match=r"(edge|device [01]): cannot read model card"):
            processes.run("fixed", LoopSettings(slots=10))
        with pytest.raises(InputError, match="are gone"):
            processes.run("fixed", LoopSettings(slots=10))


def test_a_policy_that_allocates_for_itself_is_refused(tiny, tiny_cards, tmp_path):
    joint_run = write_joint_run(tmp_path)
    with pytest.raises(InputError, match="policy: ppo allocates for itself; live runs allocate by a rule"):
        run_locally(tiny, str(joint_run), LoopSettings(slots=10), cards=tiny_cards)
    with pytest.raises(InputError, match="policy: ppo allocates for itself; live runs allocate by a rule"):
        run_edge(tiny, load_policy(joint_run), [], LoopSettings(slots=10))


def test_a_wrong_policy_is_one_clear_line(tiny, tiny_cards):
    with pytest.raises(InputError, match=r"policy: no 'mystic'"):
        run_locally(tiny, "mystic", LoopSettings(slots=10), cards=tiny_cards)


def test_a_latency_target_is_refused(tiny):
    with pytest.raises(ScenarioError, match="p95_latency_s"):
        run_locally(tiny.replace(p95_latency_s=1.0), "fixed", LoopSettings(slots=10))


def test_missing_devices_end_the_wait(tiny, tiny_cards):
    settings = LoopSettings(slots=10, join_s=0.05)
    with pytest.raises(RemoteError, match="devices 0, 1 did not come"):
        run_edge(tiny, named_policy("fixed", tiny), ServiceLoader(tiny_cards).models(tiny), settings)


@pytest.mark.parametrize(
    ("field", "value"),
    [("slots", 0), ("seed", -1), ("time_scale", 0.0), ("patience_s", -1.0), ("tail_workers", 0), ("join_s", 0.0)],
)
def test_settings_name_what_is_wrong(field, value):
    with pytest.raises(InputError, match=field):
        LoopSettings(**({"slots": 10} | {field: value}))


def test_a_profile_of_another_model_is_refused(tiny, tiny_cards):
    swapped = dict(zip(tiny_cards, reversed(tiny_cards.values()), strict=True))
    with pytest.raises(ScenarioError, match="profile it anew"):
        ServiceLoader(swapped).models(tiny)


def test_both_ends_need_the_same_world(tiny):
    assert digest(tiny) == digest(Scenario(**{name: getattr(tiny, name) for name in tiny.model_fields_set}))
    for change in ({"arrival_rate_hz": 7.0}, {"seed": 1}, {"channel": "steady"}, {"distances_m": (150.0, 251.0)}):
        assert digest(tiny.replace(**change)) != digest(tiny)


def kill_child(module: str) -> None:
    """Kill the youngest child that runs a module: older ones are those that other tests of this module share."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            after_name = (process / "stat").read_text().rpartition(")")[2].split()
            parent, started = int(after_name[1]), int(after_name[19])
            if parent == os.getpid() and module in (process / "cmdline").read_text():
                found.append((started, int(process.name)))
    os.kill(max(found)[1], signal.SIGKILL)


def test_a_run_outlives_a_device_and_then_its_edge(tiny, tiny_cards):
    """Device 1's process is killed: the run goes on. Then the edge's is: device 0 finishes alone, and `run` says so."""
    lost = []

    def kill(event):
        if isinstance(event, DeviceLost):
            lost.append(event.device)
            kill_child("loop.edge_child")
        if isinstance(event, PeriodEnded) and event.first_slot == 10:
            kill_child("loop.device_child")

    # Slots in real time, long after the lease: what is left of the run has to outlast the signals.
    settings = LoopSettings(slots=500, time_scale=1.0, lease_s=1.0)
    said = r"1 of 2 devices finished it alone: [1-9]\d* answers checked, 0 wrong"
    with pytest.raises(EdgeUnavailableError, match=said):
        run_locally(tiny, "random", settings, cards=tiny_cards, on_failure="fallback", observer=kill)
    assert lost == [1]
    with pytest.raises(InputError, match="do not wait"):
        run_locally(tiny, "random", settings, cards=tiny_cards, on_failure="wait")
