"""Pictures of simulated runs and of weight sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from splitinfer.errors import InputError
from splitinfer.profiling.plot import check_plot_path, save_figure
from splitinfer.simulation.pareto import ParetoPoint
from splitinfer.simulation.result import SimulationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from splitinfer.simulation.stability import StabilityReport


def plot_run(
    result: SimulationResult,
    path: Path,
    *,
    services: Sequence[str],
    cut_limits: Sequence[int],
    origin: str = "simulated",
) -> None:
    """Draw queues, cuts, frequency and power over time; devices are averaged, each service has its colour.

    Args:
        result: a run with a trace.
        path: PNG, PDF or SVG.
        services: names of the services, length N.
        cut_limits: K of each service, length N.
        origin: what the title says of where the figures come from.

    Raises:
        InputError: the run has no trace, or the file cannot be written.
    """
    check_plot_path(path)
    trace = result.trace
    if trace is None:
        raise InputError("--plot: the run was made without a trace")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    time_s = trace.slot * result.slot_s
    colours = [f"C{n}" for n in range(len(services))]
    queues = [
        ("local queue", "local queue\nMcycles", 0, 1e6),
        ("transmission queue", "transmission\nqueue, Mbit", 1, 1e6),
        ("edge queue", "edge queue\nMcycles", 2, 1e6),
    ]
    # What is nothing all the time needs no panel: the line under the title says so.
    shown = [queue for queue in queues if trace.backlog[:, queue[2]].any()]
    flat = [name for name, _, stage, _ in queues if not trace.backlog[:, stage].any()]
    flat += [] if trace.power_w.any() else ["transmit power"]
    count = len(shown) + 2 + bool(trace.power_w.any())
    figure = Figure(figsize=(11, 1 + 2 * count), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(count, 1, sharex=True))
    title = (
        f"{result.scenario}, policy {result.policy}, seed {result.seed} ({origin}): "
        f"{result.energy_j * 1e3:.3f} mJ per device and slot, p95 latency {result.latency_percentile_s(95):.2f} s, "
        f"{_word(result.stability) if result.stability.stable else 'growing: ' + result.stability.growing[0]}"
    )
    figure.suptitle(title + (f"\nnothing all the time: {', '.join(flat)}" if flat else ""))
    left = iter(panels)
    for _, label, stage, unit in shown:
        axes = next(left)
        for n, colour in enumerate(colours):
            _line(axes, time_s, trace.backlog[:, stage, :, n].mean(axis=1) / unit, colour)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    axes = next(left)
    for n, colour in enumerate(colours):
        share = trace.cuts[:, :, n] / max(1, cut_limits[n])
        # Services often sit on the same cut: dashes of their own keep all of them visible.
        dashes = (0, (8, 4 * n)) if n else "-"
        _line(axes, time_s, share.mean(axis=1), colour, f"{services[n]} (K = {cut_limits[n]})", dashes)
    axes.set_ylabel("cut k / K")
    axes.set_ylim(-0.04, 1.04)
    axes = next(left)
    for n, colour in enumerate(colours):
        _line(axes, time_s, trace.service_rate[:, 0, :, n].mean(axis=1) / 1e9, colour)
    _line(axes, time_s, trace.service_rate[:, 0].sum(axis=-1).mean(axis=1) / 1e9, "black")
    axes.set_ylabel("local frequency\nGHz (black: sum)")
    axes.set_ylim(bottom=0)
    for axes in left:
        _line(axes, time_s, trace.power_w.mean(axis=1) * 1e3, "black")
        axes.set_ylabel("transmit power\nmW")
        axes.set_ylim(bottom=0)
    panels[-1].set_xlabel(
        f"time, s (means over {trace.power_w.shape[1]} devices; pale: single samples, lines: means over "
        f"{_SMOOTH_PARTS}ths of the run)"
    )
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.margins(x=0)
    figure.legend(loc="outside lower center", ncols=4)
    save_figure(figure, path, dpi=110)


_SMOOTH_PARTS = 200


def _word(stability: StabilityReport) -> str:
    return "stable" if stability.is_known else "too short to tell whether queues grow"


def _line(axes: Axes, time_s: Any, values: Any, colour: str, label: str | None = None, dashes: Any = "-") -> None:
    """A moving mean over the raw samples in a pale tone: bursts of 10 ms would fill the whole panel."""
    width = max(1, len(values) // _SMOOTH_PARTS)
    if width > 1:
        axes.plot(time_s, values, color=colour, alpha=0.12, linewidth=0.5)
        kept = len(values) // width * width
        time_s = time_s[:kept].reshape(-1, width).mean(axis=1)
        values = values[:kept].reshape(-1, width).mean(axis=1)
    axes.plot(time_s, values, color=colour, linewidth=1.4, label=label, linestyle=dashes)


def plot_pareto(points: Sequence[ParetoPoint], path: Path, *, title: str) -> None:
    """Draw energy against mean and 95th-percentile latency, the scenario's weights marked.

    Raises:
        InputError: the file cannot be written.
    """
    check_plot_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(11, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    stable = [point for point in points if point.stable]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name, label in (
        (panels[0], "latency_mean_s", "mean latency, s"),
        (panels[1], "latency_p95_s", "95th-percentile latency, s"),
    ):
        front = _front([(getattr(point, name), point.energy_j * 1e3) for point in stable])
        shown = axes.scatter(
            [getattr(point, name) for point in stable],
            [point.energy_j * 1e3 for point in stable],
            c=[np.log10(max(point.local_energy_weight, 1.0)) for point in stable],
            cmap="viridis",
            s=22,
            vmin=min((np.log10(max(p.local_energy_weight, 1.0)) for p in points if not p.scenario_weights), default=0),
        )
        axes.plot(*zip(*front, strict=True), color="black", linewidth=1, label="least energy for this delay")
        for point in points:
            if point.scenario_weights:
                axes.plot(
                    getattr(point, name),
                    point.energy_j * 1e3,
                    "*",
                    color="tab:red",
                    markersize=16,
                    label=f"scenario: U$^l$ = {point.local_energy_weight:.0e}, "
                    f"U$^t$ = {point.transmission_energy_weight:.0e}",
                )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3, which="both")
        # Labels of a logarithmic axis over less than a decade run into each other unless they are few.
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[0].set_ylabel("energy per device and slot, mJ")
    panels[1].legend(loc="best")
    figure.colorbar(shown, ax=panels, label="log$_{10}$ U$^l$")
    save_figure(figure, path, dpi=110)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (delay, energy) that none beats in both, by rising delay."""
    front: list[tuple[float, float]] = []
    for delay, energy in sorted(points):
        if not front or energy < front[-1][1]:
            front.append((delay, energy))
    return front or [(float("nan"), float("nan"))]
