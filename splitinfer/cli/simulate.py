"""``splitinfer simulate``: run policies in a scenario and show what they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitinfer.cli.cuts import cuts_used, fullest_device
from splitinfer.cli.options import (
    MAX_SEEDS,
    Allocation,
    AsJson,
    Changes,
    DeviceName,
    LatencyPrice,
    PolicyName,
    ScenarioName,
    scenario_from,
)
from splitinfer.errors import InputError

if TYPE_CHECKING:
    from splitinfer.scheduling.best_static import SearchReport
    from splitinfer.simulation import Scenario, SimulationResult
    from splitinfer.simulation.comparison import Estimate, PolicySummary

_TRACE_SAMPLES = 4000

_WIDTHS_IN = (0.5, 100.0)
"""Of pictures."""


def simulate(
    scenario: ScenarioName = "table2",
    policy: PolicyName = "fixed",
    slots: Annotated[int, typer.Option(min=1, help="Length of a run in slots.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="First seed.")] = 0,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_SEEDS, help="Number of seeds; more than one gives confidence intervals."),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="POLICY,POLICY", help="Compare these policies, by default over 5 seeds.")
    ] = None,
    settings: Changes = None,
    allocation: Allocation = None,
    latency_price: LatencyPrice = None,
    device: DeviceName = None,
    solver: Annotated[str, typer.Option(help="closed-form, or cvxpy (the slow reference).")] = "closed-form",
    plot: Annotated[
        Path | None,
        typer.Option(help="PNG, PDF or SVG: one run over time, or a comparison's energies and latencies."),
    ] = None,
    width: Annotated[float, typer.Option(metavar="INCHES", help="Of a comparison's picture; 3.5 is a column.")] = 7.0,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep a comparison: .csv (a row a run), .md or .tex (a row a policy)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a scenario under one policy, or compare several.

    Energies are per device and slot, means over both, split into local computing and transmission.

    Example:
      splitinfer simulate --scenario busy --policy myopic --plot busy.png
      splitinfer simulate --scenario xr --compare fixed,random,best-static,myopic,lyappo
      splitinfer simulate --scenario busy --compare fixed,myopic,price --save table.tex --plot table.pdf --width 3.5
      splitinfer simulate --scenario busy --policy price --allocation price --latency-price 0.01
      splitinfer simulate --scenario table2 --set p95_latency_s=1.0 --slots 100000
    """
    world = scenario_from(scenario, settings, allocation=allocation, latency_price=latency_price, device=device)
    if not _WIDTHS_IN[0] <= width <= _WIDTHS_IN[1]:
        raise InputError(f"--width must be from {_WIDTHS_IN[0]:g} to {_WIDTHS_IN[1]:g} inches, not {width:g}")
    if compare is not None or (seeds is not None and seeds > 1):
        if solver != "closed-form":
            raise InputError("--solver is for one run; leave out --compare and --seeds")
        names = [policy] if compare is None else policy_list(compare)
        _compare(world, names, slots, range(seed, seed + (seeds or 5)), as_json, save=save, plot=plot, width=width)
    else:
        if save is not None:
            raise InputError("--save keeps a comparison; add --compare or --seeds, or take --json")
        _single(world, policy, slots, seed, solver, plot, as_json)


def policy_list(text: str) -> list[str]:
    """Split at commas, but keep the cuts of ``fixed:0,53`` together."""
    names: list[str] = []
    for part in text.split(","):
        if part.strip().isdigit() and names and names[-1].startswith("fixed:"):
            names[-1] += f",{part.strip()}"
        else:
            names.append(part.strip())
    names = [name for name in names if name]
    if not names:
        raise InputError("--compare needs policies separated by commas, for example fixed,random,lyappo")
    return names


def _single(world: Scenario, name: str, slots: int, seed: int, solver: str, plot: Path | None, as_json: bool) -> None:
    from splitinfer.policies import named_policy
    from splitinfer.simulation import simulate as run_simulation
    from splitinfer.simulation.plot import check_plot_path, plot_run

    if plot is not None:
        check_plot_path(plot)
    policy = named_policy(name, world)
    trace = max(1, slots // _TRACE_SAMPLES) if plot is not None else None
    result = run_simulation(world, policy, slots, seed, trace=trace, solver=solver)
    if plot is not None:
        services, limits = fullest_device(world)
        plot_run(result, plot, services=services, cut_limits=limits)
    report = getattr(policy, "report", None)
    if as_json:
        record = result.to_dict()
        if report is not None:
            record["search"] = _search_dict(report, world)
        print(json.dumps(record))
        return
    _show(world, result)
    if report is not None:
        print(_search_line(report, world))
    if plot is not None:
        print(f"wrote {plot}")


def _show(world: Scenario, result: SimulationResult) -> None:
    import numpy as np

    from splitinfer.cli.output import print_table

    print(
        f"{result.scenario}, policy {result.policy}, seed {result.seed}: "
        f"{result.slots:,} slot{'s' * (result.slots > 1)} of {result.slot_s * 1e3:g} ms, simulated"
    )
    total = result.energy_j
    share = result.energy_transmission_j / total if total else 0.0
    print(
        f"energy   {total * 1e3:.4f} mJ per device and slot = {result.energy_local_j * 1e3:.4f} local "
        f"+ {result.energy_transmission_j * 1e3:.4f} transmission ({share:.0%}); "
        + (f"{result.energy_per_task_j * 1e3:.2f} mJ per task" if result.finished else "no task finished")
    )
    print(f"tasks    {result.arrived:,} in, {result.finished:,} out, {result.in_flight:,} under way at the end")
    use = result.utilisation
    print(f"load     local {_range(use.local)}, link {_range(use.link)}, edge {use.edge:.1%}")
    print(f"queues   {_stability_line(result)}")
    print()
    columns = [
        "device",
        "service",
        "latency ms: mean",
        "p50",
        "p95",
        "p99",
        "Q^l Mcycles",
        "Q^t kbit",
        "Q^e Mcycles",
        "cuts",
    ]
    targets = world.latency_targets_s()
    if targets is not None:
        columns.append("p95 / target")
    rows = []
    for device, profiles in enumerate(world.profiles):
        for service, profile in enumerate(profiles):
            latency_s = result.service_latency_s(device, service)
            figures = [float("nan")] * 4
            if len(latency_s):
                figures = [float(latency_s.mean()), *np.percentile(latency_s, [50, 95, 99]).tolist()]
            queue = result.mean_queue[:, device, service] / (1e6, 1e3, 1e6)
            row = [str(device), profile.model, *(f"{f * 1e3:.0f}" for f in figures), *(f"{q:.2f}" for q in queue)]
            row.append(cuts_used(world, result.tasks, device, service))
            if targets is not None:
                target = targets[device, service]
                row.append(f"{figures[2] / target:.2f}" if target else "-")
            rows.append(row)
    print_table(columns, rows, left=("service",))
    for note in result.notes:
        print(f"note: {note}")
    if isinstance(world.codecs, tuple) and world.min_accuracy is None:
        print(
            "note: codecs were chosen by bits and work alone; min_accuracy judges them by what the profile measured "
            "(splitinfer profile NAME --codecs --save FILE)"
        )


def _compare(
    world: Scenario,
    names: list[str],
    slots: int,
    seeds: range,
    as_json: bool,
    *,
    save: Path | None,
    plot: Path | None,
    width: float,
) -> None:
    from splitinfer.cli.output import print_table, progress_bar
    from splitinfer.policies import named_policy
    from splitinfer.profiling.plot import check_plot_path
    from splitinfer.simulation.comparison import compare as run_comparison
    from splitinfer.simulation.comparison_files import check_table_path, plot_comparison, write_comparison

    if save is not None:
        check_table_path(save)
    if plot is not None:
        check_plot_path(plot)

    policies = [named_policy(name, world) for name in names]
    summaries: list[PolicySummary] = []
    with progress_bar("simulating") as progress:
        for done, policy in enumerate(policies):
            progress(done, len(policies))
            summaries += run_comparison(world, [policy], seeds=list(seeds), slots=slots)
    reports = [report for policy in policies if (report := getattr(policy, "report", None)) is not None]
    if save is not None:
        write_comparison(summaries, save)
    if plot is not None:
        title = f"{world.name}: {len(seeds)} seeds of {slots:,} slots (simulated)"
        plot_comparison(summaries, plot, title=title, width_in=width)
    if as_json:
        record = {"scenario": world.name, "slots": slots, "policies": [summary.to_dict() for summary in summaries]}
        print(json.dumps(record | {"searches": [_search_dict(report, world) for report in reports]}))
        return
    print(
        f"{world.name}: {len(seeds)} seeds of {slots:,} slots of {world.slot_s * 1e3:g} ms, simulated; "
        "means ± half the 95 % confidence interval; energies per device and slot"
    )
    print()
    rows = [
        [
            summary.policy,
            _plus_minus(summary.energy_j, 1e3, 4),
            _plus_minus(summary.energy_local_j, 1e3, 4),
            _plus_minus(summary.energy_transmission_j, 1e3, 4),
            _plus_minus(summary.energy_per_task_j, 1e3, 2),
            _plus_minus(summary.latency_mean_s, 1e3, 0),
            _plus_minus(summary.latency_p95_s, 1e3, 0),
            summary.stable_share,
            f"{summary.finished:,}/{summary.arrived:,}",
        ]
        for summary in summaries
    ]
    columns = [
        "policy",
        "energy mJ",
        "local mJ",
        "transmission mJ",
        "mJ/task",
        "latency ms",
        "p95 ms",
        "stable",
        "done",
    ]
    print_table(columns, rows, left=("policy",))
    free = [summary.policy for summary in summaries if not summary.depends_on_seed]
    if free:
        print(f"{', '.join(free)}: every seed gives the same run, so this is one run and has no interval")
    for note in dict.fromkeys(note for summary in summaries for run in summary.runs for note in run.notes):
        print(f"note: {note}")
    for report in reports:
        print(_search_line(report, world))
    for file in (save, plot):
        if file is not None:
            print(f"wrote {file}")


def _plus_minus(estimate: Estimate, factor: float, digits: int) -> str:
    mean = f"{estimate.mean * factor:.{digits}f}"
    return mean if estimate.half_width != estimate.half_width else f"{mean} ±{estimate.half_width * factor:.{digits}f}"


def _range(values: object) -> str:
    import numpy as np

    low, high = float(np.min(values)), float(np.max(values))  # type: ignore[call-overload]
    return f"{low:.1%}" if f"{low:.1%}" == f"{high:.1%}" else f"{low:.1%} to {high:.1%}"


def _stability_line(result: SimulationResult) -> str:
    from splitinfer.simulation.stability import LEAST_BATCHES

    report = result.stability
    worst = int(report.statistic.argmax())
    if not report.is_known:
        return f"too short a run to tell whether they grow ({LEAST_BATCHES} partition periods at least)"
    if report.stable:
        return f"stable (largest growth statistic {report.statistic[worst]:.1f}, {report.stations[worst]})"
    names = report.growing
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"GROWING: {names[0]}{more} (growth statistic {report.statistic[worst]:.1f})"


def _search_line(report: SearchReport, world: Scenario) -> str:
    found = [",".join(map(str, device)) for device in world.chosen(report.cuts)]
    cuts = "; ".join(found) if len(set(found)) > 1 else f"{found[0]} on every device"
    return (
        f"best-static found cuts {cuts}: {report.candidates} candidates a device, "
        f"{report.device_slots:,} device-slots in {report.seconds:.1f} s"
        + ("" if report.stable else "; no candidate was stable")
    )


def _search_dict(report: SearchReport, world: Scenario) -> dict[str, object]:
    chosen = world.chosen(report.cuts)
    return {
        "cuts": [[one.cut for one in device] for device in chosen],
        "codecs": [[one.codec for one in device] for device in chosen],
        "stable": report.stable,
        "candidates": report.candidates,
        "device_slots": report.device_slots,
        "seconds": report.seconds,
        "per_device": report.per_device,
    }
