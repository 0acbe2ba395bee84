"""``splitinfer train``: train a policy into a run folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from splitinfer.errors import InputError, MissingExtraError

_ALGORITHMS = ("lyappo",)


def train(
    algorithm: Annotated[str, typer.Argument(help="What to train: lyappo.")],
    scenario: Annotated[str, typer.Option(help="A preset (table2, busy, xr, drifting) or a TOML file.")] = "table2",
    variant: Annotated[
        str, typer.Option(help="default (a network shared by all services), or paper (the published one).")
    ] = "default",
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, actions and worlds.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Length in slots; the paper's is 5,000,000.")] = 5_000_000,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/ALGORITHM-SCENARIO-SEED by default.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the folder, up to --steps.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch; the networks are small.")] = 1,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the scenario.")
    ] = None,
) -> None:
    """Train a partition policy and leave a run folder: policy, curves, checkpoint, TensorBoard logs.

    Load the policy with splitinfer.load_policy(FOLDER); it works in simulate and in the live runtime.

    Example:
      splitinfer train lyappo --scenario busy --steps 1000000 --out runs/busy
      splitinfer train lyappo --scenario table2 --variant paper --seed 1
      splitinfer train lyappo --out runs/busy --resume --steps 2000000
    """
    if algorithm not in _ALGORITHMS:
        raise InputError(f"algorithm: there is {', '.join(_ALGORITHMS)}, not {algorithm!r}")
    for package in ("gymnasium", "stable_baselines3", "tensorboard"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "learn")
    from splitinfer.learning.run_folder import read_run, settings_of
    from splitinfer.learning.settings import TrainingSettings
    from splitinfer.simulation import find_scenario, with_settings

    wanted = TrainingSettings.for_variant(variant, slots=steps, seed=seed)
    world = with_settings(find_scenario(scenario), settings or [])
    folder = Path("runs") / f"{algorithm}-{world.name}-{variant}-{seed}" if out is None else out
    if resume:
        done = settings_of(read_run(folder))
        print(f"going on with {folder}: scenario and settings are the folder's (variant {done.variant})")

    import torch

    from splitinfer.cli.output import progress_bar
    from splitinfer.learning.training import train_lyappo

    torch.set_num_threads(threads)
    with progress_bar("training, slots") as progress:
        train_lyappo(world, wanted, folder, resume=resume, progress=progress)
    record = read_run(folder)
    rate = record["slots_done"] / max(record["training_seconds"], 1e-9)
    print(f"trained {algorithm} ({record['settings']['variant']}) on {record['scenario']}: ", end="")
    print(f"{record['slots_done']:,} slots in {record['training_seconds']:.0f} s ({rate:,.0f} slots/s)")
    print(f"wrote {folder}; use it with splitinfer.load_policy({str(folder)!r})")
