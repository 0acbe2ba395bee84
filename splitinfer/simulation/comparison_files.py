"""A comparison of policies as a file for a paper or a notebook: CSV, Markdown or LaTeX, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splitinfer.errors import InputError
from splitinfer.files import replacing
from splitinfer.profiling.plot import check_plot_path, save_figure
from splitinfer.simulation.comparison import Estimate, PolicySummary

_COLUMNS = (
    ("energy_j", "energy, mJ", 1e3, 4),
    ("energy_local_j", "local, mJ", 1e3, 4),
    ("energy_transmission_j", "transmission, mJ", 1e3, 4),
    ("energy_per_task_j", "per task, mJ", 1e3, 2),
    ("latency_mean_s", "latency, ms", 1e3, 0),
    ("latency_p95_s", "p95, ms", 1e3, 0),
)
_LOG_SPAN = 20.0
_SUFFIXES = (".csv", ".md", ".tex")
_SPECIAL = str.maketrans({char: f"\\{char}" for char in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\~{}"})


def check_table_path(path: Path) -> None:
    """Find out whether a comparison can be written there.

    Raises:
        InputError: unknown kind of file, or no such folder.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"--save: {path} must end in {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"--save: there is no folder {path.parent}")


def write_comparison(summaries: Sequence[PolicySummary], path: Path) -> None:
    """Write a comparison as the file's name says.

    ``.csv`` has a row a run, in joules and seconds, with policy and seed; ``.md`` and ``.tex`` (needs booktabs) have a
    row a policy with the half width of its 95 % interval.

    Raises:
        InputError: unknown kind of file, or no such folder.
    """
    check_table_path(path)
    if path.suffix.lower() == ".csv":
        _write_runs(summaries, path)
        return
    latex = path.suffix.lower() == ".tex"
    header = ["policy", *(title for _, title, _, _ in _COLUMNS), "stable"]
    rows = [
        [
            summary.policy.translate(_SPECIAL) if latex else summary.policy,
            *(_cell(getattr(summary, name), factor, digits, latex) for name, _, factor, digits in _COLUMNS),
            summary.stable_share,
        ]
        for summary in summaries
    ]
    if latex:
        lines = [f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", "\\toprule"]
        lines += [" & ".join(header) + r" \\", "\\midrule"]
        lines += [" & ".join(row) + r" \\" for row in rows]
        lines += ["\\bottomrule", "\\end{tabular}"]
    else:
        lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
    with replacing(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_runs(summaries: Sequence[PolicySummary], path: Path) -> None:
    energies = ["energy_j", "energy_local_j", "energy_transmission_j", "energy_per_task_j"]
    counts = ["arrived", "finished"]
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        latencies = ["latency_mean_s", "latency_p95_s"]
        rows.writerow(["policy", "scenario", "seed", "slots", *energies, *latencies, *counts, "stable"])
        for summary in summaries:
            for run in summary.runs:
                key = [summary.policy, run.scenario, run.seed, run.slots]
                mean_s = float(run.latency_s.mean()) if run.finished else float("nan")
                figures = [getattr(run, name) for name in energies] + [mean_s, run.latency_percentile_s(95)]
                rows.writerow([*key, *figures, run.arrived, run.finished, int(run.stability.stable)])


def _cell(estimate: Estimate, factor: float, digits: int, latex: bool) -> str:
    mean = f"{estimate.mean * factor:.{digits}f}"
    if not np.isfinite(estimate.half_width):
        return mean
    half = f"{estimate.half_width * factor:.{digits}f}"
    return f"${mean} \\pm {half}$" if latex else f"{mean} ± {half}"


def plot_comparison(summaries: Sequence[PolicySummary], path: Path, *, title: str, width_in: float = 7.0) -> None:
    """Draw each policy's energy, local and transmission, and its mean and 95th-percentile latency, with 95 % intervals.

    Args:
        summaries: the policies.
        path: PNG, PDF or SVG.
        title: of the picture.
        width_in: width in inches: 3.5 is a column of a two-column paper, 7 both.

    Raises:
        InputError: the file cannot be written, or the width makes no sense.
    """
    check_plot_path(path)
    if not 2 <= width_in <= 40:
        raise InputError(f"--width: must be 2 to 40 inches, not {width_in:g}")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    narrow = width_in < 5
    with matplotlib.rc_context({"font.size": 8.0 if width_in < 8 else 10.0}):
        height = (0.9 + 0.28 * len(summaries)) * (2 if narrow else 1) + 0.4
        figure = Figure(figsize=(width_in, height), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize="medium", wrap=True)
        energy, latency = figure.subplots(*((2, 1) if narrow else (1, 2)), sharey=True)
        places = np.arange(len(summaries))[::-1]
        left = np.zeros(len(summaries))
        for name, label, colour in (
            ("energy_local_j", "local", "C0"),
            ("energy_transmission_j", "transmission", "C1"),
        ):
            means = np.array([getattr(summary, name).mean for summary in summaries]) * 1e3
            energy.barh(places, means, left=left, color=colour, label=label, height=0.6)
            left += means
        halves = np.nan_to_num([summary.energy_j.half_width for summary in summaries]) * 1e3
        energy.errorbar(left, places, xerr=halves, fmt="none", color="black", capsize=2)
        energy.set_xlabel("energy per device and slot, mJ")
        for name, label, marker in (("latency_mean_s", "mean", "o"), ("latency_p95_s", "p95", ">")):
            means = np.array([getattr(summary, name).mean for summary in summaries])
            halves = np.nan_to_num([getattr(summary, name).half_width for summary in summaries])
            latency.errorbar(means, places, xerr=halves, fmt=marker, color="black", capsize=2, label=label)
        latency.set_xlabel("latency, s")
        shown = [getattr(one, name).mean for one in summaries for name in ("latency_mean_s", "latency_p95_s")]
        if np.nanmax(shown) > _LOG_SPAN * np.nanmin(shown):
            latency.set_xscale("log")
        else:
            latency.set_xlim(left=0)
        energy.set_yticks(
            places,
            [
                summary.policy + ("" if summary.stable_runs == len(summary.runs) else " (queues grow)")
                for summary in summaries
            ],
        )
        for axes in (energy, latency):
            axes.grid(alpha=0.3, axis="x")
            axes.legend(
                fontsize="small", ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, frameon=False
            )
        save_figure(figure, path, dpi=200)
