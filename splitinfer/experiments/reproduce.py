"""One figure or several, from sweep files to CSV, picture and tables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from splitinfer.errors import InputError
from splitinfer.experiments.jobs import Job, Store, distinct, learns
from splitinfer.experiments.plot import plot_figure
from splitinfer.experiments.pool import Progress, run_jobs
from splitinfer.experiments.report import Table, overview, tables_of
from splitinfer.experiments.rows import Row, curve_of, read_rows, rows_of, write_rows
from splitinfer.experiments.sweep import Effort, Sweep
from splitinfer.files import replacing
from splitinfer.policies import POLICIES, is_own_policy
from splitinfer.simulation.scenario import Scenario

QUICK = " (quick: not for conclusions)"
PICTURES = ("png", "pdf", "svg")


@dataclass(frozen=True)
class Plan:
    """What is to be reproduced, and how much is spent on it.

    Attributes:
        sweeps: the figures.
        base: a scenario in place of the sweeps' own.
        cuts: which cuts there are to choose from: ``all``, ``blocks`` or ``pareto``; None for what the world says.
        quick: the quick values and effort of each sweep, which are not for conclusions.
        picture: kind of picture: png, pdf or svg.
        policies: only these, where a figure has them, and the user's own; None for all of a figure.
        changes: fields of the sweeps' effort that are different.

    Raises:
        InputError: a policy or kind of picture is unknown, or a figure would have no policy.
    """

    sweeps: tuple[Sweep, ...]
    base: Scenario | None = None
    cuts: str | None = None
    quick: bool = False
    picture: str = "png"
    policies: tuple[str, ...] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.picture not in PICTURES:
            raise InputError(f"--format: must be {', '.join(PICTURES)}, not {self.picture!r}")
        for policy in self.policies or ():
            if policy not in POLICIES and not is_own_policy(policy):
                raise InputError(f"policies: there are {', '.join(POLICIES)} and package.module:Class, not {policy!r}")
        for sweep in self.sweeps:
            if not self.policies_of(sweep):
                raise InputError(f"policies: {sweep.figure} has {', '.join(sweep.policies)}")

    def policies_of(self, sweep: Sweep) -> list[str]:
        """Return the policies that are compared in a figure: of its own those asked for, and the user's."""
        if self.policies is None:
            return list(sweep.policies)
        own = [name for name in self.policies if is_own_policy(name) and name not in sweep.policies]
        return [name for name in sweep.policies if name in self.policies] + own

    def effort_of(self, sweep: Sweep) -> Effort:
        """Return what is spent on each point of a figure."""
        own = sweep.quick if self.quick else sweep.full
        return Effort(**(own.model_dump() | dict(self.changes)))

    def base_of(self, sweep: Sweep) -> Scenario:
        """Return the world that a figure changes."""
        base = sweep.base() if self.base is None else self.base
        return base if self.cuts is None else base.replace(name=base.name, cuts=self.cuts)

    def about_base(self, sweep: Sweep) -> str:
        """Return the name of that world, with what the sweep file changes in it."""
        base = sweep.scenario if self.base is None else self.base.name
        changed = ({} if self.base is not None else dict(sweep.changes)) | (
            {} if self.cuts is None else {"cuts": self.cuts}
        )
        changes = [
            f"{name} = {value:g}" if isinstance(value, (int, float)) else f"{name} = {value}"
            for name, value in changed.items()
        ]
        return f"{base} with {', '.join(changes)}" if changes else base

    def jobs_of(self, sweep: Sweep) -> list[tuple[float | None, Job]]:
        """Return a figure's points and what is to be done at each; points of several figures may be the same job."""
        effort = self.effort_of(sweep)
        jobs = []
        for value in sweep.points(quick=self.quick):
            world = sweep.world(self.base_of(sweep), value)
            for policy in self.policies_of(sweep):
                learned = learns(policy)
                own = sweep.policy_changes.get(policy, {})
                met = world.replace(name=world.name, **own) if own else world
                for seed in effort.training_seeds if learned else (None,):
                    slots = effort.training_slots if learned else None
                    job = Job(met, policy, slots, seed, effort.evaluation_seeds, effort.evaluation_slots)
                    jobs.append((value, job))
        return jobs

    def stem(self, sweep: Sweep) -> str:
        """Return the name of a figure's files, without a suffix: another plan has another."""
        parts = [sweep.figure] if self.base is None else [sweep.figure, self.base.name]
        parts += [] if self.cuts is None else [self.cuts]
        parts += ["quick"] if self.quick else []
        if self.policies is not None or self.changes:
            asked = repr((sorted(self.policies_of(sweep)), sorted(self.changes.items())))
            parts.append(hashlib.sha256(asked.encode()).hexdigest()[:6])
        return "-".join(parts)


@dataclass(frozen=True)
class Outcome:
    """What a reproduction left.

    Attributes:
        tables: of every figure, and an overview where there are several.
        files: what was written, in order.
        jobs: how many different jobs there were.
        jobs_run: how many were run; the others had been done before.
    """

    tables: tuple[Table, ...]
    files: tuple[Path, ...]
    jobs: int
    jobs_run: int


def reproduce(plan: Plan, folder: Path, *, processes: int | None = None, progress: Progress | None = None) -> Outcome:
    """Run what has not been run, then write every figure's CSV, picture and tables.

    An interrupted call leaves what it finished in ``folder``; the next one goes on from there.

    Args:
        plan: what to do.
        folder: where results go.
        processes: how many jobs at a time; by default as many as there are cores.
        progress: called with (jobs done, jobs there are).

    Raises:
        InputError: a world cannot be trained on or simulated, or the folder cannot be written.
    """
    store = Store(folder)
    jobs = {sweep.figure: plan.jobs_of(sweep) for sweep in plan.sweeps}
    everything = [job for own in jobs.values() for _, job in own]
    jobs_run = run_jobs(everything, store, processes=processes or cores(), progress=progress)
    tables: list[Table] = []
    files: list[Path] = []
    warning = QUICK if plan.quick else ""
    rows_by_figure: dict[str, list[Row]] = {}
    for sweep in plan.sweeps:
        stem = folder / plan.stem(sweep)
        rows = []
        for value, job in jobs[sweep.figure]:
            runs = store.read(job)
            if runs is None:
                raise InputError(f"out: {folder} was changed while the sweep ran")
            rows += rows_of(sweep, value, job, runs)
        own_files = [stem.with_name(f"{stem.name}.csv")]
        write_rows(own_files[0], rows)
        # What is drawn and told is what the file says.
        rows = rows_by_figure[sweep.figure] = read_rows(own_files[0])
        curves: list[Row] = []
        trained = [job for _, job in jobs[sweep.figure] if job.training is not None]
        if any(panel.endswith("curve") for panel in sweep.panels) and trained:
            own_files.append(stem.with_name(f"{stem.name}-curves.csv"))
            write_rows(own_files[-1], [row for job in trained for row in curve_of(job, store.run_folder(job))])
            curves = read_rows(own_files[-1])
        world = plan.about_base(sweep)
        picture, text = stem.with_name(f"{stem.name}.{plan.picture}"), stem.with_name(f"{stem.name}.md")
        plot_figure(sweep, rows, curves, picture, world=world, warning=warning)
        own_tables = tables_of(sweep, rows, curves, world=world, effort=plan.effort_of(sweep))
        own_tables = [replace(table, title=table.title + warning) for table in own_tables]
        _write_tables(text, own_tables)
        tables += own_tables
        files += [*own_files, picture, text]
    summary = overview(plan.sweeps, rows_by_figure)
    if summary is not None:
        summary = replace(summary, title=summary.title + warning)
        name = plan.stem(plan.sweeps[0]).replace(plan.sweeps[0].figure, "overview", 1)
        files.append(folder / f"{name}.md")
        _write_tables(files[-1], [summary])
        tables.append(summary)
    return Outcome(tuple(tables), tuple(files), len(distinct(everything)), jobs_run)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_tables(path: Path, tables: Sequence[Table]) -> None:
    with replacing(path) as part:
        part.write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")
