"""What the verbs of live runs say at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitinfer.cli.cuts import cuts_used, fullest_device
from splitinfer.errors import CheckFailedError

if TYPE_CHECKING:
    from splitinfer.runtime.loop import LiveResult
    from splitinfer.simulation import Scenario


def tell(
    scenario: Scenario,
    result: LiveResult,
    policy: str,
    *,
    trace: Path | None = None,
    plot: Path | None = None,
    compare: bool = False,
    as_json: bool = False,
    host: tuple[float | None, str] | None = None,
) -> None:
    """Print the report of a run, or one JSON object; draw it and simulate it too where that was asked for.

    Args:
        scenario: the world.
        result: of the run.
        policy: by name, to simulate the same run.
        trace: the file that was written.
        plot: where to draw.
        compare: whether to simulate.
        as_json: whether to print JSON and nothing else.
        host: joules that the host spent (None: it cannot tell), and what was measured; None if nobody asked.

    Raises:
        CheckFailedError: an answer is wrong, or a task is lost.
    """
    simulated = _simulated(scenario, policy, result) if compare else None
    if plot is not None:
        _draw(scenario, result, plot)
    joules, about = host or (None, "")
    if as_json:
        extra = ({"simulated": simulated} if simulated else {}) | {"host_energy_j": joules}
        print(json.dumps(result.to_dict() | extra))
    else:
        print_report(scenario, result)
        if joules is not None:
            print(f"measured meanwhile: {joules:.1f} J, {about}, whatever else it did")
        elif host is not None:
            print(about)
        if simulated is not None:
            _show_both(result, simulated)
        for path in (trace, plot):
            if path is not None:
                print(f"wrote {path}")
    if not result.is_right:
        raise CheckFailedError(f"{result.wrong} of {result.checked} answers are wrong, or a task is lost")


def print_report(scenario: Scenario, result: LiveResult) -> None:
    """Print energies per device and task, latencies, queues, answers checked, and where this machine was too slow."""
    figures = result.figures
    print(
        f"{figures.scenario}, policy {figures.policy}, seed {figures.seed}: {figures.slots:,} slots of "
        f"{figures.slot_s * 1e3:g} ms at time scale {result.time_scale:g}, run on real processes"
    )
    print(
        f"{figures.arrived} requests, {figures.finished} answered, {figures.in_flight} under way at the end; "
        f"energy per device and slot {figures.energy_j * 1e3:.4f} mJ ({figures.energy_local_j * 1e3:.4f} local, "
        f"{figures.energy_transmission_j * 1e3:.4f} transmission), from the model"
    )
    print()
    _print_devices(result)
    print()
    _print_services(scenario, result)
    print()
    print(_stability(result))
    print(_answers(scenario, result))
    for line in result.lost:
        print(line)
    for device, retries in result.retries.items():
        print(
            f"device {device} was without its edge; tries to return: {retries}, "
            f"tasks finished by itself: {sum(result.fallbacks[device])}"
        )
    for line in _lateness(result):
        print(line)


def _print_devices(result: LiveResult) -> None:
    from splitinfer.cli.output import print_table

    figures = result.figures
    rows = []
    for device, (local_j, sent_j) in enumerate(
        zip(figures.device_energy_local_j, figures.device_energy_transmission_j, strict=True)
    ):
        total_j = (local_j + sent_j) * figures.slots
        done = int(figures.finished_by_service[device].sum())
        rows.append(
            [
                str(device),
                str(done),
                f"{total_j * 1e3:.1f}",
                f"{local_j * figures.slots * 1e3:.1f}",
                f"{sent_j * figures.slots * 1e3:.1f}",
                f"{total_j / done * 1e3:.1f}" if done else "-",
                f"{figures.utilisation.local[device]:.0%}",
                f"{figures.utilisation.link[device]:.0%}",
            ]
        )
    print_table(["device", "tasks", "energy mJ", "local mJ", "sending mJ", "mJ/task", "CPU", "link"], rows)


def _print_services(scenario: Scenario, result: LiveResult) -> None:
    import numpy as np

    from splitinfer.cli.output import print_table

    figures = result.figures
    rows = []
    for device, profiles in enumerate(scenario.profiles):
        for service, profile in enumerate(profiles):
            latency_s = figures.service_latency_s(device, service)
            cells = ["-"] * 4
            if len(latency_s):
                values = [float(latency_s.mean()), *np.percentile(latency_s, [50, 95, 99]).tolist()]
                cells = [f"{value * 1e3:.0f}" for value in values]
            shown = cuts_used(scenario, figures.tasks, device, service)
            rows.append([str(device), profile.model, str(len(latency_s)), *cells, shown])
    columns = ["device", "service", "tasks", "mean ms", "p50 ms", "p95 ms", "p99 ms", "cuts"]
    print_table(columns, rows, left=("service", "cuts"))
    wall = result.wall_latency_s
    if len(wall):
        print(
            f"latency counted in slots: mean {figures.latency_s.mean() * 1e3:.0f} ms; on the wall clock, until the "
            f"answer was on the device: mean {wall.mean() * 1e3:.0f} ms, p95 {np.percentile(wall, 95) * 1e3:.0f} ms"
        )


def _stability(result: LiveResult) -> str:
    stability = result.figures.stability
    if not stability.is_known:
        return "too short a run to tell whether they grow"
    return "no queue grows" if stability.stable else f"GROWING: {', '.join(stability.growing)}"


def _answers(scenario: Scenario, result: LiveResult) -> str:
    if result.is_right:
        how = f"to {result.tolerance:g}" if result.tolerance else "bit for bit"
        rounding = _rounding_codecs(scenario, result)
        whose = f"the tail's on what {', '.join(rounding)} leaves" if rounding else "the whole model's"
        return f"all {result.checked} answers equal {whose}, {how}; no task is lost or repeated"
    return (
        f"WRONG: {result.checked} answers checked, {result.wrong} wrong, {result.unexpected} unexpected, "
        f"{result.figures.finished} tasks finished, {result.unanswered} unanswered where {result.figures.in_flight} "
        "should be"
    )


def _rounding_codecs(scenario: Scenario, result: LiveResult) -> list[str]:
    """Return the codecs that change bits and that something was sent in."""
    from splitinfer.wire.codecs import CODECS

    tasks = result.figures.tasks
    places = zip(tasks.device, tasks.service, tasks.cut, strict=True)
    used = {scenario.choices[device][service][place].codec for device, service, place in places}
    return [codec.name for codec in CODECS if codec.name in used and not codec.exact]


def _lateness(result: LiveResult) -> list[str]:
    lines = []
    slots = result.figures.slots
    for one in result.lateness:
        parts = []
        if one.slot_overruns:
            parts.append(f"{one.slot_overruns} of {slots} slots overran")
        if one.late_cuts:
            parts.append(f"{one.late_cuts} cuts came late")
        if one.late_jobs:
            work = "tails" if one.who == "edge" else "heads"
            parts.append(
                f"{one.late_jobs} of {one.jobs} {work} were slower here than on the emulated processor, by "
                f"{one.late_s / one.late_jobs * 1e3:.0f} ms on average and {one.worst_s * 1e3:.0f} ms at most "
                f"({one.late_slots} slots in all)"
            )
        if parts:
            lines.append(f"{one.who}: {'; '.join(parts)}")
    return lines or ["every slot was on time, and this machine was as fast as the emulated processors"]


def _draw(scenario: Scenario, result: LiveResult, path: Path) -> None:
    """Draw a run as ``simulate --plot`` draws a simulated one."""
    from splitinfer.simulation.plot import plot_run

    services, limits = fullest_device(scenario)
    plot_run(result.figures, path, services=services, cut_limits=limits, origin="run on real processes")


def _simulated(scenario: Scenario, policy: str, result: LiveResult) -> dict[str, Any]:
    from splitinfer.policies import named_policy
    from splitinfer.simulation import simulate

    figures = result.figures
    return simulate(scenario, named_policy(policy, scenario), figures.slots, figures.seed).to_dict()


def _show_both(result: LiveResult, simulated: dict[str, Any]) -> None:
    from splitinfer.cli.output import print_table

    live = result.figures.to_dict()

    def cells(figures: dict[str, Any]) -> list[str]:
        latency = figures["latency_s"]
        return [
            f"{figures['energy_j'] * 1e3:.4f}",
            f"{(latency['mean'] or 0) * 1e3:.1f}",
            f"{(latency['p95'] or 0) * 1e3:.1f}",
            str(figures["finished"]),
        ]

    print()
    print_table(
        ["", "energy mJ", "latency ms", "p95 ms", "finished"],
        [["run", *cells(live)], ["simulated", *cells(simulated)]],
        left=("",),
    )
