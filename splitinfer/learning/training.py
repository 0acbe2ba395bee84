"""Training with Stable-Baselines3, into a run folder that can be gone on with."""

from __future__ import annotations

import csv
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from splitinfer.errors import InputError
from splitinfer.files import alone_in, replacing
from splitinfer.learning.actions import services_digest
from splitinfer.learning.learners import Learner, learner
from splitinfer.learning.run_folder import (
    CHECKPOINT_FILE,
    CURVE_FILE,
    POLICY_FILE,
    RUN_FILE,
    SCENARIO_FILE,
    read_run,
    settings_of,
    write_run,
)
from splitinfer.learning.settings import TrainingSettings
from splitinfer.learning.stacked import stack_settings
from splitinfer.learning.worlds import WorldFamily
from splitinfer.simulation.build import setting_of
from splitinfer.simulation.scenario import Scenario

CHECKPOINT_SECONDS = 30.0

_CURVE_COLUMNS = ("slots", "seconds", "energy_j", "latency_s", "reward")

Progress = Callable[[int, int], None]


def train(
    world: Scenario | WorldFamily,
    settings: TrainingSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a policy on a scenario, or over many worlds, and leave a run folder behind.

    Args:
        world: the scenario, without a latency target; or a family to draw scenarios from (LyaPPO's default variant).
        settings: of the training; with ``resume`` those of the folder hold, except for a larger ``slots``.
        folder: where to; it is made if need be.
        resume: go on from the folder's checkpoint, if it has fewer slots than are wanted. Weights and optimiser
            continue exactly; worlds, random draws and ddpg's replay buffer begin anew, from a seed of their own.
        progress: called with (slots done, slots to do).

    Returns:
        The folder.

    Raises:
        InputError: a setting is wrong, the folder holds another run already, or there is nothing to resume.
    """
    began = time.monotonic()
    folder = Path(folder)
    done, seconds = 0, 0.0
    if resume:
        record = read_run(folder)
        slots, settings = settings.slots, settings_of(record)
        settings = replace(settings, slots=max(slots, settings.slots))
        done, seconds = int(record["slots_done"]), float(record["training_seconds"])
        world = _world_of(folder, record)
        if record.get("services") not in (None, _services_of(world)):
            raise InputError(f"resume: the profiles behind {folder / SCENARIO_FILE} changed since; train anew")
    elif (folder / RUN_FILE).exists():
        raise InputError(f"out: {folder} holds a training run already; go on with it (--resume) or name another folder")
    if resume and done >= settings.slots:
        return folder
    student = learner(world, settings, done=done)
    with _alone_in(folder):
        if not resume and (folder / RUN_FILE).exists():  # made by somebody while we prepared
            raise InputError(f"out: {folder} holds a training run already; name another folder")
        if resume:
            _restore(student, folder / CHECKPOINT_FILE, record["history"])
            history = record["history"]
        else:
            if isinstance(world, Scenario):
                world.save(folder / SCENARIO_FILE)
            history = student.begin()
        # With `resume` the curve goes on; TensorBoard keeps every session's file.
        student.model.set_logger(configure(str(folder / "tensorboard"), ["tensorboard"]))
        keeper = _Keeper(student, world, settings, folder, done, began - seconds, history, progress)
        worlds = student.worlds
        steps = (settings.slots - done) * worlds.num_envs // (settings.environments * worlds.slots_per_period)
        student.model.learn(max(1, steps), callback=keeper)
        keeper.save()
    return folder


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make a folder, and keep others from training into it in this block.

    Raises:
        InputError: another process does.
    """
    try:
        with alone_in(folder):
            yield
    except BlockingIOError:
        raise InputError(f"out: another training writes into {folder} now; name another folder") from None


def _world_of(folder: Path, record: dict[str, Any]) -> Scenario | WorldFamily:
    if record.get("worlds") is None:
        return Scenario.load(folder / SCENARIO_FILE)
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record["worlds"].items()
    }
    try:
        return WorldFamily(**fields)
    except TypeError as error:
        raise InputError(f"{RUN_FILE}: worlds: {error}") from None


def _services_of(world: Scenario | WorldFamily) -> str | None:
    return services_digest(stack_settings([setting_of(world)])) if isinstance(world, Scenario) else None


def _restore(student: Learner, path: Path, history: dict[str, Any]) -> None:
    try:
        state = torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"resume: {path} does not exist") from None
    except (RuntimeError, EOFError, pickle.UnpicklingError):  # what torch says of a damaged file is pages long
        raise InputError(f"resume: {path} is damaged; train anew in another folder") from None
    try:
        student.model.set_parameters(state["parameters"], device="cpu")
        student.take_extra_state(state)
        if student.selection is not None:
            student.selection.go_on(history, state["kept"])
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise InputError(f"resume: {path} does not belong to the settings in {RUN_FILE}") from None


class _Keeper(BaseCallback):
    """Has the policy tried, writes the curve and the checkpoints, and tells the progress."""

    def __init__(
        self,
        student: Learner,
        world: Scenario | WorldFamily,
        settings: TrainingSettings,
        folder: Path,
        done: int,
        began: float,
        history: dict[str, Any],
        progress: Progress | None,
    ) -> None:
        super().__init__()
        self._student = student
        self._next_trial = done
        self._world = world
        self._settings = settings
        self._folder = folder
        self._slots = done
        self._history = history
        self._progress = progress
        self._began = began
        self._saved = time.monotonic()
        self._forget()
        if not done:
            self._write_row(_CURVE_COLUMNS, "w")

    def _forget(self) -> None:
        self._energy_j: list[float] = []
        self._latency_s: list[Any] = []
        self._reward: list[float] = []

    def _on_rollout_start(self) -> None:
        selection = self._student.selection
        if selection is not None and self._slots >= self._next_trial:
            self.logger.record("validation/score", selection.consider(self._slots))
            self._next_trial = self._slots + self._settings.slots // self._settings.validations

    def _on_training_end(self) -> None:
        if self._student.selection is not None:
            self._student.selection.consider(self._slots)

    def _on_step(self) -> bool:
        worlds = self._student.worlds
        self._student.note_step()
        self._energy_j.append(worlds.energy_j)
        self._latency_s.append(worlds.latency_s)
        self._reward.append(worlds.mean_reward)
        self._slots += self._settings.environments * worlds.slots_per_period
        if len(self._reward) == self._settings.periods_per_rollout:
            self._report()
        return True

    def _report(self) -> None:
        latency = np.concatenate(self._latency_s)
        row = (
            self._slots,
            round(time.monotonic() - self._began, 2),
            float(np.mean(self._energy_j)),
            float(latency.mean()) if len(latency) else float("nan"),
            float(np.mean(self._reward)),
        )
        self._write_row(row, "a")
        for name, value in zip(_CURVE_COLUMNS[2:], row[2:], strict=True):
            self.logger.record(f"world/{name}", value)
        self._forget()
        if self._progress is not None:
            self._progress(min(self._slots, self._settings.slots), self._settings.slots)
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self.save()

    def _write_row(self, row: tuple[Any, ...], mode: str) -> None:
        with (self._folder / CURVE_FILE).open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)

    def save(self) -> None:
        """Write policy, checkpoint and record, each whole or not at all."""
        from safetensors.torch import save

        student = self._student
        self._saved = time.monotonic()
        state = {"parameters": student.model.get_parameters()} | student.extra_state()
        history = self._history
        if student.selection is not None:
            state["kept"] = student.selection.best
            history = history | student.selection.history
        weights = {name: tensor.detach().contiguous() for name, tensor in student.actor().items()}
        for name, write in (
            (POLICY_FILE, lambda path: path.write_bytes(save(weights))),  # save_file keeps others from reading it
            (CHECKPOINT_FILE, lambda path: torch.save(state, path)),
        ):
            with replacing(self._folder / name) as part:
                write(part)
        write_run(
            self._folder,
            self._settings,
            scenario=self._world.name,
            allocation=self._world.allocation,
            services=_services_of(self._world),
            worlds=asdict(self._world) if isinstance(self._world, WorldFamily) else None,
            slots_done=self._slots,
            seconds=self._saved - self._began,
            history=history,
        )
