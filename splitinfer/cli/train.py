"""``splitinfer train``: train a policy into a run folder."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from splitinfer.cli.options import Allocation, Changes, DeviceName, LatencyPrice, ScenarioName, scenario_from
from splitinfer.errors import InputError, MissingExtraError
from splitinfer.threads import MAX_THREADS

_ALGORITHMS = ("lyappo", "ppo", "ddpg")


def train(
    ctx: typer.Context,
    algorithm: Annotated[str, typer.Argument(help="lyappo; or a baseline: ppo (cuts and resources), ddpg.")],
    scenario: ScenarioName = "table2",
    many_worlds: Annotated[
        bool, typer.Option("--many-worlds", help="Of lyappo: one policy over randomised scenarios, for any headset.")
    ] = False,
    variant: Annotated[
        str,
        typer.Option(
            help="Of lyappo: default (a network shared by all services), paper (the published one, with generalised "
            "advantages, over the Pareto cuts), or paper-exact (to the letter, over all cuts)."
        ),
    ] = "default",
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, actions and worlds.")] = 0,
    steps: Annotated[
        int,
        typer.Option(
            min=1, max=10**12, help="Length in slots, rounded up to whole rollouts; the paper's is 5,000,000."
        ),
    ] = 5_000_000,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/ALGORITHM-SCENARIO-SEED by default.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the folder, up to --steps.")] = False,
    threads: Annotated[int, typer.Option(min=1, max=MAX_THREADS, help="Threads of torch; the networks are small.")] = 1,
    hyper: Annotated[
        list[str] | None,
        typer.Option(
            "--hyper",
            metavar="NAME=VALUE|FILE",
            help="Change a setting of the training (learning_rate=1e-3), or those of a TOML file; also several times.",
        ),
    ] = None,
    settings: Changes = None,
    allocation: Allocation = None,
    latency_price: LatencyPrice = None,
    device: DeviceName = None,
) -> None:
    """Train a partition policy and leave a run folder: policy, curves, checkpoint, TensorBoard logs.

    Load the policy with splitinfer.load_policy(FOLDER); it works in simulate and in the live runtime.

    Example:
      splitinfer train lyappo --scenario busy --steps 1000000 --out runs/busy
      splitinfer train lyappo --scenario table2 --variant paper --seed 1
      splitinfer train lyappo --scenario busy --allocation price --latency-price 0.01
      splitinfer train lyappo --many-worlds --out runs/any
      splitinfer train ddpg --scenario table2 --steps 500000
      splitinfer train lyappo --scenario busy --hyper learning_rate=1e-3 --hyper hidden=128
      splitinfer train lyappo --out runs/busy --resume --steps 2000000
    """
    if algorithm not in _ALGORITHMS:
        raise InputError(f"algorithm: there is {', '.join(_ALGORITHMS)}, not {algorithm!r}")
    for package in ("gymnasium", "stable_baselines3", "tensorboard"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "learn")
    from splitinfer.learning.run_folder import RUN_FILE, read_run, settings_of
    from splitinfer.learning.settings import VARIANTS, TrainingSettings
    from splitinfer.learning.worlds import TRAINING_WORLDS, WorldFamily
    from splitinfer.simulation import Scenario

    if variant not in VARIANTS or (algorithm != "lyappo" and variant != "default"):
        raise InputError(f"variant: lyappo has {', '.join(VARIANTS)}, the baselines have no other; not {variant!r}")
    name = algorithm if variant == "default" else f"{algorithm}-{variant}"
    wanted = TrainingSettings.for_algorithm(name, slots=steps, seed=seed)
    world: Scenario | WorldFamily = scenario_from(
        scenario, settings, allocation=allocation, latency_price=latency_price, device=device
    )
    changed = [
        option
        for option, value in (
            ("--set", settings),
            ("--allocation", allocation),
            ("--latency-price", latency_price),
            ("--device", device),
        )
        if value is not None and value != []
    ]
    if many_worlds:
        if name != "lyappo":
            raise InputError(f"--many-worlds: {name} fits the services of one scenario; only lyappo trains over many")
        about_one = [option for option in changed if option != "--allocation"]
        if about_one or _is_given(ctx, "scenario"):
            option = about_one[0] if about_one else "--scenario"
            raise InputError(f"{option}: is about one scenario; --many-worlds draws its own")
        wanted = TrainingSettings.for_many_worlds(slots=steps, seed=seed)
        world = replace(TRAINING_WORLDS, allocation=world.allocation)
    if hyper:
        wanted = wanted.changed(_hyper(hyper))
        changed.append("--hyper")
    folder = Path("runs") / f"{name}-{world.name}-{seed}" if out is None else out
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out: {folder} is a file, and a run is a folder")
    if resume:
        record = read_run(folder)
        done = settings_of(record)
        for option, theirs, given in (
            ("algorithm", done.algorithm, algorithm),
            ("variant", done.variant, variant if _is_given(ctx, "variant") else done.variant),
            ("seed", done.seed, seed if _is_given(ctx, "seed") else done.seed),
            ("scenario", record["scenario"], world.name if _is_given(ctx, "scenario") else record["scenario"]),
            ("many-worlds", record["worlds"] is not None, many_worlds or record["worlds"] is not None),
        ):
            if given != theirs:
                raise InputError(f"--resume: the run in {folder} has {option} {theirs}, not {given}")
        if changed:
            raise InputError(f"{changed[0]}: the run in {folder} has its scenario; it cannot be changed on the way")
        print(f"going on with {folder}: scenario and settings are the folder's ({done.name})")
        if record["slots_done"] >= max(steps, done.slots):
            print(f"it has {record['slots_done']:,} slots already; ask for more with --steps")
            return

    import torch

    from splitinfer.cli.output import progress_bar
    from splitinfer.learning.training import train as train_policy

    torch.set_num_threads(threads)
    try:
        with progress_bar("training, slots") as progress:
            train_policy(world, wanted, folder, resume=resume, progress=progress)
    except KeyboardInterrupt:
        if (folder / RUN_FILE).exists():
            print(f"interrupted; go on from the last checkpoint with --resume --out {folder}", file=sys.stderr)
        raise
    record = read_run(folder)
    if record["slots_done"] > steps:
        print(f"rounded {steps:,} slots up to whole rollouts")
    rate = record["slots_done"] / max(record["training_seconds"], 1e-9)
    print(f"trained {settings_of(record).name} on {record['scenario']}: ", end="")
    print(f"{record['slots_done']:,} slots in {record['training_seconds']:.0f} s ({rate:,.0f} slots/s)")
    print(f"wrote {folder}; use it with splitinfer.load_policy({str(folder)!r})")


def _hyper(given: list[str]) -> dict[str, Any]:
    """Return the settings that options or files name; later ones win."""
    from splitinfer.files import read_toml, toml_of

    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals and not text.endswith(".toml"):
            raise InputError(f"--hyper: write NAME=VALUE, for example learning_rate=1e-3, or a TOML file, not {text!r}")
        try:
            found |= read_toml(Path(text)) if not equals else {name.strip(): toml_of(f"it = {value}")["it"]}
        except OSError as error:
            raise InputError(f"--hyper: cannot read {text}: {error.strerror}") from None
        except ValueError as error:
            raise InputError(f"--hyper: {text}: {error}; text is written in quotes") from None
    for name, option in (("slots", "--steps"), ("seed", "--seed")):
        if name in found:
            raise InputError(f"--hyper: {name} is the option {option}")
    return found


def _is_given(ctx: typer.Context, option: str) -> bool:
    """Whether an option stands on the command line, rather than having its default."""
    source = ctx.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"
