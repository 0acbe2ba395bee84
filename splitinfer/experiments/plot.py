"""The paper's panels, drawn from the rows of a figure's CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from splitinfer.experiments.report import OURS
from splitinfer.experiments.rows import Row
from splitinfer.experiments.summary import at_point, band, curve, is_stable, mean_of, of_policy, points_of
from splitinfer.experiments.sweep import Sweep
from splitinfer.policies import POLICIES, in_order, policy_label
from splitinfer.profiling.plot import check_plot_path, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG_SPAN = 20.0
"""An energy axis whose largest value is so many times its least is logarithmic."""
NEAR = 1.5
"""The axis of energies over LyaPPO's shows what is within this factor."""


def plot_figure(
    sweep: Sweep, rows: Sequence[Row], curves: Sequence[Row], path: Path, *, world: str, warning: str = ""
) -> None:
    """Draw a figure's panels.

    Lines are means over all seeds, bands their 95 % interval (over trainings and evaluation seeds); in training curves
    the range over trainings. A hollow marker is a point where the policy's queues grow.

    Args:
        sweep: says which panels.
        rows: of the simulated runs.
        curves: of the trainings, for those panels that show them.
        path: PNG, PDF or SVG.
        world: name of the scenario.
        warning: what the title ends with.

    Raises:
        InputError: the file cannot be written.
    """
    check_plot_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(sweep.panels)
    across = min(count, 2)
    figure = Figure(figsize=(5.8 * across, 4.2 * -(-count // across) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"{sweep.figure}: {sweep.title}, scenario {world} (simulated){warning}\n"
        "means over all seeds; bands: 95 % (training curves: range over trainings); hollow markers: queues grow",
        fontsize="medium",
    )
    panels = figure.subplots(-(-count // across), across, squeeze=False).ravel()
    for letter, axes, panel in zip("abcdefgh", panels, sweep.panels, strict=False):
        _DRAW[panel](axes, sweep, curves if panel.endswith("curve") else rows, rows)
        axes.set_title(f"({letter}) {_TITLES[panel]}", fontsize="medium")
        axes.grid(alpha=0.3)
    for axes in panels[count:]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    save_figure(figure, path, dpi=110)


_TITLES = {
    "energy": "total energy",
    "local energy": "local energy",
    "transmission energy": "transmission energy",
    "queues and cuts": "queues and cut points of LyaPPO",
    "relative energy": "total energy over LyaPPO's",
    "reward curve": "reward while training",
    "energy curve": "energy while training",
}


def _energies(column: str) -> Callable[..., None]:
    def draw(axes: Axes, sweep: Sweep, rows: Sequence[Row], every: Sequence[Row]) -> None:
        seen: list[float] = []
        for policy in _present(rows):
            means = _bands(axes, sweep, of_policy(rows, policy), policy, column, 1e3)
            seen += means
        axes.set_ylabel("energy per device and slot, mJ")
        least = min((mean for mean in seen if mean > 0), default=1.0)
        if max(seen) <= LOG_SPAN * least:
            axes.set_ylim(bottom=0)
        elif min(seen) > 0:
            axes.set_yscale("log")
            axes.set_ylim(bottom=least / 2)  # a band that reaches 0 would stretch the axis without end
        else:  # a policy that sends nothing stands at 0
            axes.set_yscale("symlog", linthresh=10 ** np.floor(np.log10(least)))
            axes.set_ylim(bottom=0)
        _swept_axis(axes, sweep, rows)

    return draw


def _bands(axes: Axes, sweep: Sweep, own: Sequence[Row], policy: str, column: str, factor: float) -> list[float]:
    values = points_of(own)
    x = _places(sweep, values)
    bands = [band(at_point(own, value), column) for value in values]
    means = np.array([one.mean for one in bands]) * factor
    half = np.nan_to_num(np.array([one.half_width for one in bands])) * factor
    colour = _colour(policy)
    axes.fill_between(x, np.maximum(means - half, 0), means + half, color=colour, alpha=0.15, linewidth=0)
    width = 2.2 if policy in OURS[:1] else 1.2
    order = 3 if policy in OURS[:1] else 2
    style: dict[str, Any] = {"color": colour, "marker": _marker(policy), "markersize": 6}
    axes.plot(x, means, linewidth=width, label=policy_label(policy), zorder=order, **style)
    for place, mean, value in zip(x, means, values, strict=True):
        if not is_stable(at_point(own, value)):
            axes.plot(place, mean, markerfacecolor="white", zorder=4, **style)
    return list(means)


def _queues_and_cuts(axes: Axes, sweep: Sweep, rows: Sequence[Row], every: Sequence[Row]) -> None:
    own = of_policy(rows, OURS[0])
    if not own:
        axes.set_axis_off()
        return
    values = points_of(own)
    x = _places(sweep, values)
    for column, label, colour in (
        ("queue_local_scaled", "local queue / V$_1$", "C0"),
        ("queue_transmission_scaled", "transmission queue / V$_2$", "C1"),
        ("queue_edge_scaled", "edge queue / V$_1$", "C2"),
    ):
        bands = [band(at_point(own, value), column) for value in values]
        means = np.array([one.mean for one in bands])
        half = np.nan_to_num(np.array([one.half_width for one in bands]))
        axes.fill_between(x, np.maximum(means - half, 0), means + half, color=colour, alpha=0.15, linewidth=0)
        axes.plot(x, means, "o-", color=colour, label=label)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("mean queue per device, normalised")
    cuts = axes.twinx()
    bands = [band(at_point(own, value), "cut_share") for value in values]
    cuts.errorbar(
        x,
        [one.mean for one in bands],
        yerr=np.nan_to_num([one.half_width for one in bands]),
        fmt="s--",
        color="black",
        capsize=3,
        label="mean cut k/K",
    )
    cuts.set_ylim(-0.04, 1.04)
    cuts.set_ylabel("mean cut k/K")
    (queues, names), (shares, more) = axes.get_legend_handles_labels(), cuts.get_legend_handles_labels()
    _swept_axis(axes, sweep, rows)
    # Below, where no line of either axis can be.
    axes.legend(
        [*queues, *shares], [*names, *more], loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize="small"
    )


def _relative(axes: Axes, sweep: Sweep, rows: Sequence[Row], every: Sequence[Row]) -> None:
    """Each policy's mean over LyaPPO's at the same point, named at its line's end; those far off by a number alone."""
    present = _present(rows)
    ours = next((policy for policy in OURS if policy in present), None)
    if ours is None:
        axes.set_axis_off()
        return
    own = of_policy(rows, ours)
    base = {value: mean_of(at_point(own, value), "energy_j") for value in points_of(own)}
    seen: list[float] = []
    ends: list[tuple[float, str]] = []
    for policy in present:
        theirs = of_policy(rows, policy)
        values = [value for value in points_of(theirs) if base.get(value, 0.0) > 0]
        if values:
            ratios = [mean_of(at_point(theirs, value), "energy_j") / base[value] for value in values]
            axes.plot(_places(sweep, values), ratios, color=_colour(policy), marker=_marker(policy), markersize=5)
            seen += ratios
            ends.append((ratios[-1], policy))
    near = [ratio for ratio in seen if 1 / NEAR <= ratio <= NEAR] or [1.0]
    margin = 0.1 * (max(near) - min(near)) + 0.01
    low, high = min(near) - margin, max(near) + margin
    axes.set_ylim(low, high)
    heights = np.linspace(low, high, len(ends) + 2)[1:-1]
    for height, (ratio, policy) in zip(heights, sorted(ends), strict=True):
        away = "" if low <= ratio <= high else f" ×{ratio:.2g}"
        axes.annotate(
            policy_label(policy) + away,
            xy=(1.0, min(max(ratio, low), high)),
            xytext=(1.08, height),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            color=_colour(policy),
            fontsize="small",
            va="center",
            arrowprops={"arrowstyle": "-", "color": _colour(policy), "linewidth": 0.6, "relpos": (0.0, 0.5)},
        )
    axes.set_ylabel("energy over LyaPPO's")
    _swept_axis(axes, sweep, rows)


def _curves(column: str, label: str, factor: float) -> Callable[..., None]:
    def draw(axes: Axes, sweep: Sweep, curves: Sequence[Row], every: Sequence[Row]) -> None:
        for policy in _present(curves):
            lines = curve(of_policy(curves, policy), column)
            values, colour = lines.values * factor, _colour(policy)
            marker = _marker(policy) if len(lines.slots) < 12 else None
            axes.fill_between(
                lines.slots, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0
            )
            axes.plot(
                lines.slots, values.mean(axis=0), marker=marker, color=colour, linewidth=1.4, label=policy_label(policy)
            )
        trained = _present(curves)
        for policy in _present(every):
            if policy not in trained:
                height = mean_of(of_policy(every, policy), column) * factor
                axes.axhline(height, color=_colour(policy), linestyle="--", linewidth=1.2, label=policy_label(policy))
        axes.set_xlabel("slots of training")
        axes.set_ylabel(label)

    return draw


_DRAW: dict[str, Callable[..., None]] = {
    "energy": _energies("energy_j"),
    "local energy": _energies("energy_local_j"),
    "transmission energy": _energies("energy_transmission_j"),
    "queues and cuts": _queues_and_cuts,
    "relative energy": _relative,
    "reward curve": _curves("reward", "reward (34) per period", 1.0),
    "energy curve": _curves("energy_j", "energy per device and slot, mJ", 1e3),
}


def _present(rows: Sequence[Row]) -> list[str]:
    return in_order(row["policy"] for row in rows)


def _places(sweep: Sweep, values: Sequence[float | None]) -> Any:
    return np.array([0.0 if value is None else value / sweep.unit for value in values])


def _swept_axis(axes: Axes, sweep: Sweep, rows: Sequence[Row]) -> None:
    if sweep.log_axis:
        axes.set_xscale("log")
    axes.set_xlabel(sweep.axis)
    places = _places(sweep, points_of(rows))
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()


def _marker(policy: str) -> str:
    return POLICIES[policy].marker if policy in POLICIES else "h"


def _colour(policy: str) -> str:
    """The same colour for a policy in every picture; those of the user's own share what is left of the cycle."""
    known = list(POLICIES)
    return f"C{known.index(policy)}" if policy in known else f"C{len(known) + sum(policy.encode()) % 2}"
