"""Tables and sentences about a figure's results, for a terminal and as Markdown. Every number comes from the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splitinfer.experiments.rows import Row
from splitinfer.experiments.summary import (
    MOST_UNFINISHED,
    SETTLED_WITHIN,
    Reduction,
    at_point,
    curve,
    mean_of,
    of_policy,
    points_of,
    reduction,
    unstable_points,
)
from splitinfer.experiments.sweep import NUM_MODELS, Effort, Sweep
from splitinfer.policies import POLICIES, in_order, policy_label

OURS = tuple(name for name, spec in POLICIES.items() if spec.is_ours)

PAPER_SETTLED_SLOTS = 2_000_000
PAPER_SLOTS = 5_000_000
"""Fig. 3 of the paper: about 1000 of 2500 episodes of 200 periods of 10 slots."""

CLOSE_PERCENT = 2.0
"""Two energies this close are called equal."""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: a line above it.
        columns: names; the first column holds words, the others numbers.
        rows: the cells.
        notes: sentences under it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Return it as Markdown, notes as a list."""
        lines = [
            f"**{self.title}**",
            "",
            "| " + " | ".join(self.columns) + " |",
            "| --- |" + " ---: |" * (len(self.columns) - 1),
            *("| " + " | ".join(row) + " |" for row in self.rows),
        ]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"


def tables_of(sweep: Sweep, rows: Sequence[Row], curves: Sequence[Row], *, world: str, effort: Effort) -> list[Table]:
    """Return the tables of one figure.

    Args:
        sweep: the figure.
        rows: of the simulated runs.
        curves: of the trainings; empty where none are drawn.
        world: name of the scenario, or a few words about it.
        effort: what was spent.
    """
    about = f"{sweep.figure}, {sweep.title}, scenario {world}"
    tables = [_means(sweep, rows, about, effort)]
    if sweep.field is not None and any(policy in OURS for policy in _present(rows)):
        tables.insert(0, _reductions(sweep, rows, about))
    if curves:
        tables.insert(0, _trainings(rows, curves, about))
    return tables


def _present(rows: Sequence[Row]) -> list[str]:
    return in_order(row["policy"] for row in rows)


def _reductions(sweep: Sweep, rows: Sequence[Row], about: str) -> Table:
    present = _present(rows)
    ours = [policy for policy in OURS if policy in present]
    baselines = [policy for policy in present if policy not in OURS]
    lines = []
    for policy in ours:
        cells = []
        for baseline in baselines:
            found = reduction(rows, policy, baseline)
            doubtful = found.unstable_points or unstable_points(rows, policy)
            cells.append(f"{found.percent:.2f} %" + (" *" if doubtful else ""))
        lines.append((policy_label(policy), *cells))
    paper = sweep.paper_reduction_percent
    lines.append(("the paper", *(f"{paper[name]:.2f} %" if name in paper else "-" for name in baselines)))
    return Table(
        f"Reduction of total energy against each baseline ({about})",
        ("", *(policy_label(policy) for policy in baselines)),
        tuple(lines),
        tuple(_notes(sweep, rows, ours[0], baselines)),
    )


def _notes(sweep: Sweep, rows: Sequence[Row], ours: str, baselines: Sequence[str]) -> list[str]:
    points = len(points_of(rows))
    notes = [
        f"Mean over the {points} points of the reduction at each, 1 - E/E_baseline; E is the mean over all trainings "
        "and evaluation seeds."
    ]
    for policy in _present(rows):
        growing = unstable_points(rows, policy)
        if growing:
            notes.append(_growing(sweep, rows, policy, growing, ours))
    notes += [_difference(sweep, rows, ours, baseline) for baseline in baselines]
    if unstable := [policy for policy in baselines if unstable_points(rows, policy)]:
        notes[1:1] = [
            f"*: at some points queues grow, see below ({', '.join(policy_label(name) for name in unstable)})."
        ]
    notes.append(_course(sweep, rows, ours))
    notes.append(
        "The paper names neither its models, w1 and w2, its fixed cut, nor the sweep's values; ours are in "
        f"splitinfer/experiments/sweeps/{sweep.figure}.toml and the scenario."
    )
    return notes


def _growing(sweep: Sweep, rows: Sequence[Row], policy: str, growing: Sequence[float | None], ours: str) -> str:
    own = of_policy(rows, policy)
    where = ", ".join(_value(sweep, value) for value in growing)
    points = len(points_of(own))
    done = sum(row["finished"] for row in own if row["value"] in growing)
    come = sum(row["arrived"] for row in own if row["value"] in growing)
    note = (
        f"{policy_label(policy)}: growing queues at {len(growing)} of {points} points ({where}), where it finished "
        f"{done / come:.0%} of its requests, so its energy understates its cost"
    )
    if policy == ours:
        return note + "."
    kept = reduction(rows, ours, policy).stable_percent
    if np.isnan(kept):
        return note + "; there is no point to compare it at."
    return note + f"; where both are stable {policy_label(ours)}'s reduction is {kept:.2f} %."


def _difference(sweep: Sweep, rows: Sequence[Row], ours: str, baseline: str) -> str:
    found, lya = reduction(rows, ours, baseline), policy_label(ours)
    if found.unstable_points == found.points:
        return (
            f"{policy_label(baseline)} is stable nowhere here, so its energy is no measure of {policy_label(ours)}'s."
        )
    mine, theirs = of_policy(rows, ours), of_policy(rows, baseline)
    lya = policy_label(ours)
    paper = sweep.paper_reduction_percent.get(baseline)
    if abs(found.percent) < CLOSE_PERCENT:
        head = f"{policy_label(baseline)} takes as much energy as {lya}, to {CLOSE_PERCENT:g} %"
    elif found.percent > 0:
        head = f"{lya} takes {found.percent:.1f} % less energy than {policy_label(baseline)}"
    else:
        head = f"{policy_label(baseline)} takes less energy than {lya}: the reduction is {found.percent:.1f} %"
    if paper is not None:
        gap = found.percent - paper
        where = f"{abs(gap):.1f} points {'more' if gap > 0 else 'less'} than in the paper"
        head += f", {where if abs(gap) >= 0.05 else 'as in the paper'}"
    latency = mean_of(theirs, "latency_mean_s") / mean_of(mine, "latency_mean_s")
    speed = mean_of(theirs, "speed_local"), mean_of(mine, "speed_local")
    return (
        f"{head}{_range(sweep, found)}. Its mean cut lies at {mean_of(theirs, 'cut_share'):.2f} K "
        f"({lya}: {mean_of(mine, 'cut_share'):.2f} K), transmission is {_share(theirs):.0%} of its energy "
        f"({_share(mine):.0%}), it computes at {speed[0]:.2f} F^l ({speed[1]:.2f} F^l), its mean latency is "
        f"{latency:.2f} times {lya}'s."
    )


def _range(sweep: Sweep, found: Reduction) -> str:
    if len(found.by_point) < 2:
        return ""
    low, high = (pick(found.by_point, key=lambda point: point[1]) for pick in (min, max))
    if f"{low[1]:.1f}" == f"{high[1]:.1f}":
        return " (at every point)"
    return f" (from {low[1]:.1f} % at {_value(sweep, low[0])} to {high[1]:.1f} % at {_value(sweep, high[0])})"


def _share(rows: Sequence[Row]) -> float:
    total = mean_of(rows, "energy_j")
    return mean_of(rows, "energy_transmission_j") / total if total else float("nan")


_STATION = {"max_local_frequency_hz": "local", "max_power_w": "link", "max_edge_frequency_hz": "edge"}


def _course(sweep: Sweep, rows: Sequence[Row], ours: str) -> str:
    """How the swept field moves LyaPPO's energy, and how busy what it limits is."""
    own = of_policy(rows, ours)
    values = points_of(own)
    energy = [mean_of(at_point(own, value), "energy_j") * 1e3 for value in values]
    note = (
        f"{policy_label(ours)}'s energy goes from {energy[0]:.4f} mJ at {_value(sweep, values[0])} to "
        f"{energy[-1]:.4f} mJ at {_value(sweep, values[-1])} per device and slot"
    )
    station = _STATION.get(sweep.field or "")
    if station is not None:
        busy = [mean_of(at_point(own, value), f"busy_{station}") for value in (values[0], values[-1])]
        what = {"local": "local processors are", "link": "links are", "edge": "edge is"}[station]
        note += f"; its {what} busy {busy[0]:.1%} and {busy[1]:.1%} of the time there"
    return note + "."


def _value(sweep: Sweep, value: float | None) -> str:
    if value is None:
        return ""
    return f"N_m = {value:g}" if sweep.field == NUM_MODELS else f"{value / sweep.unit:g}{_UNITS[sweep.field or '']}"


_UNITS = {
    "max_local_frequency_hz": " GHz",
    "max_power_w": " W",
    "max_edge_frequency_hz": " GHz",
}


def _means(sweep: Sweep, rows: Sequence[Row], about: str, effort: Effort) -> Table:
    points = len(points_of(rows))
    lines = []
    for policy in _present(rows):
        own = of_policy(rows, policy)
        stable = points - len(unstable_points(rows, policy))
        lines.append(
            (
                policy_label(policy),
                f"{mean_of(own, 'energy_j') * 1e3:.4f}",
                f"{mean_of(own, 'energy_local_j') * 1e3:.4f}",
                f"{mean_of(own, 'energy_transmission_j') * 1e3:.4f}",
                f"{mean_of(own, 'latency_mean_s') * 1e3:.0f}",
                f"{mean_of(own, 'latency_p95_s') * 1e3:.0f}",
                f"{mean_of(own, 'qbar'):.4f}",
                f"{mean_of(own, 'cost'):.4f}",
                f"{mean_of(own, 'cut_share'):.2f}",
                f"{mean_of(own, 'speed_local'):.2f}",
                f"{stable}/{points}",
            )
        )
    columns = (
        *("policy", "energy mJ", "local", "transmission", "latency ms", "p95 ms"),
        *("Qbar", "cost (34)", "cut/K", "f/F^l", "stable points"),
    )
    trainings, seeds = len(effort.training_seeds), len(effort.evaluation_seeds)
    notes = (
        f"Means over {points} point{'s' if points > 1 else ''} and all seeds, simulated: {trainings} "
        f"training{'s' if trainings > 1 else ''} of {effort.training_slots:,} slots per learned policy and point, "
        f"{seeds} held-out seed{'s' if seeds > 1 else ''} of {effort.evaluation_slots:,} slots. Energies per device "
        "and slot; Qbar and the cost (34), w1 E + w2 Qbar, per device; f/F^l says at which share of the highest "
        "frequency local work was done.",
        "A point is stable where no queue grows in most runs and no more than "
        f"{MOST_UNFINISHED:.0%} of the requests are under way at the end.",
    )
    return Table(f"Every policy ({about})", columns, tuple(lines), notes)


def _trainings(rows: Sequence[Row], curves: Sequence[Row], about: str) -> Table:
    lines = []
    for policy in _present(curves):
        own = of_policy(curves, policy)
        reward, energy = curve(own, "reward"), curve(own, "energy_j")
        last = int(reward.slots[-1])
        lines.append(
            (
                policy_label(policy),
                str(len(reward.values)),
                f"{last:,}",
                f"{reward.settled_slots:,}",
                f"{reward.settled_slots / last:.0%}",
                f"{reward.end:.4f}",
                f"{energy.end * 1e3:.4f}",
                f"{mean_of(of_policy(rows, policy), 'reward'):.4f}",
                f"{mean_of(of_policy(rows, policy), 'energy_j') * 1e3:.4f}",
            )
        )
    lines.append(("the paper", "-", f"{PAPER_SLOTS:,}", f"{PAPER_SETTLED_SLOTS:,}", "40%", "-", "-", "-", "-"))
    columns = (
        *("algorithm", "trainings", "slots", "settled after", "of all"),
        *("reward at the end", "energy mJ at the end", "evaluated: reward", "energy mJ"),
    )
    notes = (
        f"Settled: from there on the reward stays within {SETTLED_WITHIN:.0%} of where it ends; the curve is a moving "
        "mean over a tenth of the training, over all training seeds. No number is earlier than the first such mean.",
        "Curves are of the exploring policy, the last two columns of the one that was kept, without exploration. The "
        "reward is (34), the sum over the devices.",
    )
    return Table(f"Training ({about})", columns, tuple(lines), notes)


def overview(sweeps: Sequence[Sweep], rows: dict[str, list[Row]]) -> Table | None:
    """Return LyaPPO's reductions in all sweeps beside the paper's, or None if there is nothing to compare."""
    compared = [sweep for sweep in sweeps if sweep.paper_reduction_percent]
    marked = False
    lines = []
    baselines = list(dict.fromkeys(name for sweep in compared for name in sweep.paper_reduction_percent))
    for sweep in compared:
        present = _present(rows[sweep.figure])
        if OURS[0] not in present:
            return None
        cells = []
        for baseline in baselines:
            if baseline not in present:
                cells.append("-")
                continue
            found = reduction(rows[sweep.figure], OURS[0], baseline)
            mark = " *" if found.unstable_points else ""
            marked = marked or bool(mark)
            cells.append(f"{found.percent:.2f}{mark} / {sweep.paper_reduction_percent[baseline]:.2f} %")
        lines.append((f"{sweep.figure}, {sweep.title}", *cells))
    if len(lines) < 2:
        return None
    return Table(
        "LyaPPO's mean reduction of total energy, ours / the paper's",
        ("sweep", *(policy_label(name) for name in baselines)),
        tuple(lines),
        ("*: the baseline's queues grow at some of the points; see the figure's own table.",) if marked else (),
    )
