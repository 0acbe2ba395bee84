"""``splitinfer reproduce``: the paper's figures from our own simulator."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from splitinfer.cli.options import MAX_SEEDS
from splitinfer.errors import InputError, MissingExtraError


def reproduce(
    figure: Annotated[str, typer.Argument(help="fig3 to fig7, all, or a TOML file of your own.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer points and seeds, short trainings; minutes. Not for conclusions.")
    ] = False,
    scenario: Annotated[
        str | None,
        typer.Option(metavar="PRESET|FILE", help="Sweep over this world as it is, not over table2 with other weights."),
    ] = None,
    cuts: Annotated[
        str | None,
        typer.Option(
            metavar="all|blocks|pareto", help="Cuts there are to choose from: papers mostly take those after blocks."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of results; what is done there is not done again.")] = Path(
        "reproduction"
    ),
    picture: Annotated[str, typer.Option("--format", metavar="png|pdf|svg", help="Kind of the pictures.")] = "png",
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    policies: Annotated[str | None, typer.Option(metavar="NAME,...", help="Only these policies.")] = None,
    training_slots: Annotated[int | None, typer.Option(min=1, help="Slots of each training.")] = None,
    training_seeds: Annotated[
        int | None, typer.Option(min=1, max=MAX_SEEDS, help="Trainings per point, seeds 0, 1, ...")
    ] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Slots of each simulated run.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=MAX_SEEDS, help="Simulated runs per policy and point, seeds 0, 1, ...")
    ] = None,
) -> None:
    """Reproduce a figure of the paper: train and simulate every policy at every point, then draw and compare.

    Writes a CSV with every run, a picture, and the printed tables as Markdown; with other policies or lengths than
    the figure's, under a name of their own. An interrupted sweep goes on where it stopped when the command is given
    again. What is swept is in splitinfer/experiments/sweeps.

    Example:
      splitinfer reproduce fig5 --quick
      splitinfer reproduce all
      splitinfer reproduce all --quick --cuts blocks
      splitinfer reproduce fig7 --scenario busy --policies lyappo,random,best-static
    """
    from splitinfer.experiments.sweep import figure_names, load_sweep

    sweeps = tuple(load_sweep(name) for name in (figure_names() if figure == "all" else [figure]))
    for package in ("gymnasium", "stable_baselines3", "tensorboard"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "learn")
    from splitinfer.cli.output import print_table, progress_bar
    from splitinfer.experiments.reproduce import Plan
    from splitinfer.experiments.reproduce import reproduce as run
    from splitinfer.simulation import find_scenario

    plan = Plan(
        sweeps,
        base=None if scenario is None else find_scenario(scenario),
        cuts=_known_cuts(cuts),
        quick=quick,
        picture=picture,
        policies=None if policies is None else tuple(name.strip() for name in policies.split(",") if name.strip()),
        changes={
            name: value
            for name, value in (
                ("training_slots", training_slots),
                ("training_seeds", None if training_seeds is None else tuple(range(training_seeds))),
                ("evaluation_slots", slots),
                ("evaluation_seeds", None if seeds is None else tuple(range(seeds))),
            )
            if value is not None
        },
    )
    try:
        with progress_bar("policies, trained and simulated") as progress:
            outcome = run(plan, out, processes=jobs, progress=progress)
    except KeyboardInterrupt:
        print(f"interrupted; finished jobs are in {out}, give the same command again to go on", file=sys.stderr)
        raise
    for table in outcome.tables:
        print(f"{table.title}\n")
        print_table(table.columns, table.rows, left=table.columns[:1])
        print()
    reused = outcome.jobs - outcome.jobs_run
    print(f"ran {outcome.jobs_run} of {outcome.jobs} jobs" + (f", {reused} were there already" if reused else ""))
    print("\n".join(f"wrote {file}" for file in outcome.files))
    if any(table.notes for table in outcome.tables):
        print("what each table shows, in sentences, is in the .md files")


def _known_cuts(cuts: str | None) -> str | None:
    from splitinfer.simulation.choices import CUT_SETS

    if cuts is not None and cuts not in CUT_SETS:
        raise InputError(f"--cuts: must be {', '.join(CUT_SETS)}, not {cuts!r}")
    return cuts
