"""Training of LyaPPO with Stable-Baselines3's PPO, into a run folder."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from splitinfer.errors import InputError
from splitinfer.learning.actions import CutActions
from splitinfer.learning.agents import ServiceAgents
from splitinfer.learning.network import CandidateScores, ConsequentialBuffer, SharedPolicy
from splitinfer.learning.outlook import FEATURES
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
from splitinfer.learning.selection import Selection
from splitinfer.learning.settings import TrainingSettings
from splitinfer.learning.vector import PeriodVecEnv
from splitinfer.simulation.scenario import Scenario

TRAINING_SEED = 2**30
"""Worlds of training start from this seed on; runs that are reported use small ones."""

CHECKPOINT_SECONDS = 30.0

_CURVE_COLUMNS = ("slots", "seconds", "energy_j", "latency_s", "reward")

Progress = Callable[[int, int], None]


def train_lyappo(
    scenario: Scenario,
    settings: TrainingSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train LyaPPO on a scenario and leave a run folder behind.

    Args:
        scenario: the world; a latency target must be left out.
        settings: of the training; with ``resume`` those of the folder hold, except for a larger ``slots``.
        folder: where to; it is made if need be.
        resume: go on from the folder's checkpoint. Weights and optimiser continue exactly; worlds and random draws
            begin anew from a seed of their own.
        progress: called with (slots done, slots to do).

    Returns:
        The folder.

    Raises:
        InputError: a setting is wrong, the folder holds another run already, or there is nothing to resume.
    """
    folder = Path(folder)
    done, seconds = 0, 0.0
    if resume:
        record = read_run(folder)
        slots, settings = settings.slots, settings_of(record)
        settings = TrainingSettings(**{**settings.__dict__, "slots": max(slots, settings.slots)})
        done, seconds = int(record["slots_done"]), float(record["training_seconds"])
        scenario = Scenario.load(folder / SCENARIO_FILE)
    elif (folder / RUN_FILE).exists():
        raise InputError(f"out: {folder} holds a training run already; go on with it (--resume) or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment(scenario, settings, done)
    model = _model(environment, settings, done)
    selection = None if settings.variant == "paper" else Selection(scenario, settings)
    if resume:
        if selection is not None:
            # The policy kept so far stands against what comes.
            kept = CandidateScores(len(FEATURES), settings.hidden)
            kept.load_state_dict(torch.load(folder / CHECKPOINT_FILE, weights_only=True)["kept"])
            selection.history |= record["history"]
            selection.consider(kept, done)
        _restore(model, folder / CHECKPOINT_FILE)
    else:
        scenario.save(folder / SCENARIO_FILE)
        if selection is not None:
            selection.start(_network(model))
    # With `resume` the curve goes on; TensorBoard keeps every session's file.
    model.set_logger(configure(str(folder / "tensorboard"), ["tensorboard"]))
    keeper = _Keeper(environment, selection, scenario, settings, folder, done, seconds, progress)
    if done < settings.slots:
        steps = (settings.slots - done) * environment.num_envs // (settings.environments * scenario.slots_per_period)
        model.learn(max(1, steps), callback=keeper)
        keeper.save(model)
    return folder


def _environment(scenario: Scenario, settings: TrainingSettings, done: int) -> ServiceAgents | PeriodVecEnv:
    # A resumed run must not see the same worlds again.
    seed = TRAINING_SEED + 1000 * settings.seed + 7919 * done
    worlds = [scenario] * settings.environments
    if settings.variant == "paper":
        return PeriodVecEnv(worlds, CutActions, seed=seed, periods_per_episode=settings.periods_per_episode)
    return ServiceAgents(
        worlds, seed=seed, periods_per_episode=settings.periods_per_episode, task_price=settings.task_price
    )


def _model(environment: VecEnv, settings: TrainingSettings, done: int) -> PPO:
    def rate(left: float) -> float:
        falls = 0.1 + 0.9 * left * (1 - done / max(settings.slots, 1))
        return settings.learning_rate * (falls if settings.learning_rate_falls else 1.0)

    common: dict[str, Any] = {
        "env": environment,
        "learning_rate": rate,
        "n_steps": settings.periods_per_rollout,
        "n_epochs": settings.epochs,
        "gamma": settings.gamma,
        "gae_lambda": settings.gae_lambda,
        "clip_range": settings.clip,
        "ent_coef": settings.entropy_weight,
        "seed": settings.seed,
        "device": "cpu",
    }
    rollout = settings.periods_per_rollout * environment.num_envs
    if settings.variant == "paper":
        layers = [settings.hidden, settings.hidden]
        batch = _divisor(rollout, settings.batch_size)
        return PPO("MlpPolicy", batch_size=batch, policy_kwargs={"net_arch": layers}, **common)
    return PPO(
        SharedPolicy,
        batch_size=_divisor(rollout, settings.batch_size),
        policy_kwargs={"hidden": settings.hidden},
        rollout_buffer_class=ConsequentialBuffer,
        rollout_buffer_kwargs={"most_samples": settings.most_samples},
        target_kl=0.03,
        **common,
    )


def _divisor(whole: int, most: int) -> int:
    """The largest divisor of ``whole`` that is at most ``most``: no truncated minibatches."""
    return max(size for size in range(1, min(whole, most) + 1) if whole % size == 0)


def _restore(model: PPO, path: Path) -> None:
    try:
        state = torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"resume: {path} does not exist") from None
    model.policy.load_state_dict(state["policy"])
    model.policy.optimizer.load_state_dict(state["optimizer"])


def _network(model: Any) -> CandidateScores:
    network = model.policy.mlp_extractor
    assert isinstance(network, CandidateScores), "only the default variant is tried along the way"
    return network


def _flat_weights(model: PPO) -> dict[str, torch.Tensor]:
    """The actor's weights of the paper's variant, under the names that ``FlatCutPolicy`` reads."""
    state = model.policy.state_dict()
    layers = {"mlp_extractor.policy_net.0": 0, "mlp_extractor.policy_net.2": 1, "action_net": 2}
    return {
        f"layer.{number}.{part}": state[f"{name}.{part}"]
        for name, number in layers.items()
        for part in ("weight", "bias")
    }


class _Keeper(BaseCallback):
    """Notes what mattered, writes the curve and the checkpoints, and tells the progress."""

    def __init__(
        self,
        environment: ServiceAgents | PeriodVecEnv,
        selection: Selection | None,
        scenario: Scenario,
        settings: TrainingSettings,
        folder: Path,
        done: int,
        seconds: float,
        progress: Progress | None,
    ) -> None:
        super().__init__()
        self._environment = environment
        self._selection = selection
        self._next_trial = done
        self._scenario = scenario
        self._settings = settings
        self._folder = folder
        self._slots = done
        self._seconds = seconds
        self._progress = progress
        self._began = self._saved = time.monotonic()
        self._forget()
        if not done:
            self._write_row(_CURVE_COLUMNS, "w")

    def _forget(self) -> None:
        self._energy_j: list[float] = []
        self._latency_s: list[Any] = []
        self._reward: list[float] = []

    def _on_rollout_start(self) -> None:
        if self._selection is not None and self._slots >= self._next_trial:
            score = self._selection.consider(_network(self.model), self._slots)
            self.logger.record("validation/score", score)
            self._next_trial = self._slots + self._settings.slots // self._settings.validations

    def _on_training_end(self) -> None:
        if self._selection is not None:
            self._selection.consider(_network(self.model), self._slots)

    def _on_step(self) -> bool:
        environment = self._environment
        if isinstance(environment, ServiceAgents):
            buffer = self.model.rollout_buffer  # type: ignore[attr-defined]
            buffer.consequential[buffer.pos] = environment.arrived
        self._energy_j.append(environment.energy_j)
        self._latency_s.append(environment.latency_s)
        self._reward.append(environment.mean_reward)
        self._slots += self._settings.environments * self._scenario.slots_per_period
        return True

    def _on_rollout_end(self) -> None:
        latency = np.concatenate(self._latency_s)
        row = (
            self._slots,
            round(self._seconds + time.monotonic() - self._began, 2),
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
            self.save(self.model)

    def _write_row(self, row: tuple[Any, ...], mode: str) -> None:
        with (self._folder / CURVE_FILE).open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)

    def save(self, model: Any) -> None:
        """Write policy, checkpoint and record, each whole or not at all."""
        from safetensors.torch import save_file

        self._saved = time.monotonic()
        state = {"policy": model.policy.state_dict(), "optimizer": model.policy.optimizer.state_dict()}
        history = None
        if self._selection is None:
            weights = _flat_weights(model)
        else:
            kept = self._selection.best
            assert kept is not None, "a policy is tried before the first rollout"
            weights = {name: tensor for name, tensor in kept.items() if name.startswith("actor.")}
            state["kept"] = kept
            history = self._selection.history
        weights = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
        for name, write in (
            (POLICY_FILE, lambda path: save_file(weights, path)),
            (CHECKPOINT_FILE, lambda path: torch.save(state, path)),
        ):
            unfinished = self._folder / f"{name}.part"
            write(unfinished)
            unfinished.replace(self._folder / name)
        write_run(
            self._folder,
            self._settings,
            scenario=self._scenario.name,
            slots_done=self._slots,
            seconds=self._seconds + self._saved - self._began,
            history=history,
        )
