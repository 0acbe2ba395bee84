"""The algorithms behind one interface: each builds its worlds and its Stable-Baselines3 model out of the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from stable_baselines3 import DDPG, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

from splitinfer.errors import InputError
from splitinfer.learning.actions import ActionLayout, CutActions, JointActions, RoundedCutActions
from splitinfer.learning.agents import ServiceAgents
from splitinfer.learning.imitation import greedy_actions
from splitinfer.learning.network import CandidateScores, ConsequentialBuffer, SharedPolicy
from splitinfer.learning.selection import TRIAL_ENVIRONMENTS, TRIAL_PERIODS, VALIDATION_SEED, Selection, State
from splitinfer.learning.settings import (
    DDPGSettings,
    FlatSettings,
    JointPPOSettings,
    LyaPPOSettings,
    PaperSettings,
    PPOSettings,
    TrainingSettings,
)
from splitinfer.learning.stacked import StackedSettings, stack_settings
from splitinfer.learning.start import give_start
from splitinfer.learning.vector import PeriodVecEnv
from splitinfer.learning.worlds import WorldFamily
from splitinfer.simulation.build import setting_of
from splitinfer.simulation.scenario import Scenario

TRIAL_WORLDS = 32
"""Scenarios of a family that policies are tried on; training meets none of them."""

TRAINING_SEED = 2**30
"""Worlds of training start from this seed on; runs that are reported use small ones."""


class Learner(Protocol):
    """What ``train`` drives.

    Attributes:
        worlds: the environments, before any wrapper.
        model: the algorithm, on them.
        selection: keeps the best policy along the way, or None: the last one is the result.
    """

    worlds: ServiceAgents | PeriodVecEnv
    model: BaseAlgorithm
    selection: Selection | None

    def begin(self) -> dict[str, Any]:
        """Give the networks their start; returns what was chosen, for the record."""

    def actor(self) -> State:
        """Return the weights that ``policy.safetensors`` holds: those kept, if there is a selection."""

    def extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides the model's parameters and what the selection kept."""

    def take_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from it."""

    def note_step(self) -> None:
        """Called after every step of the environments."""


def learner(world: Scenario | WorldFamily, settings: TrainingSettings, *, done: int = 0) -> Learner:
    """Build the learner of these settings.

    Args:
        world: one scenario, or a family of them.
        settings: of the training.
        done: slots that earlier sessions have trained.

    Raises:
        InputError: a flat policy cannot be trained over a family.
    """
    if isinstance(settings, LyaPPOSettings):
        return SharedLearner(world, settings, done)
    if isinstance(world, WorldFamily):
        raise InputError(f"worlds: {settings.name} fits the services of one scenario; only lyappo trains over many")
    if isinstance(settings, FlatSettings):
        return FlatLearner(world, settings, done)
    raise InputError(f"settings: {type(settings).__name__} is of no algorithm; take those of for_algorithm()")


class SharedLearner:
    """LyaPPO's default variant: PPO over one network that all services share."""

    def __init__(self, world: Scenario | WorldFamily, settings: LyaPPOSettings, done: int) -> None:
        self._world = world
        self._settings = settings
        if isinstance(world, WorldFamily):
            # Other worlds in every session: a resumed run sees more of them.
            scenarios = world.draw_many(settings.environments, seed=2 * (settings.seed + done))
            trials = world.draw_many(TRIAL_WORLDS, seed=2 * settings.seed + 1)
        else:
            scenarios = [world] * settings.environments
            trials = [world] * TRIAL_ENVIRONMENTS
        self.worlds: ServiceAgents | PeriodVecEnv = ServiceAgents(
            scenarios,
            seed=_world_seed(settings, done),
            periods_per_episode=settings.periods_per_episode,
            task_price=settings.task_price,
            energy_emphasis=settings.energy_emphasis,
        )
        rollout = settings.periods_per_rollout * self.worlds.num_envs
        self.model: BaseAlgorithm = PPO(
            SharedPolicy,
            self.worlds,
            batch_size=_divisor(rollout, settings.batch_size),
            policy_kwargs={"hidden": settings.hidden},
            rollout_buffer_class=ConsequentialBuffer,
            rollout_buffer_kwargs={"most_samples": settings.most_samples},
            target_kl=0.03,
            normalize_advantage=False,  # the buffer does, over the actions that mattered
            **_ppo_settings(settings, done),
        )
        self._trials = ServiceAgents(
            trials,
            seed=VALIDATION_SEED + 1000 * settings.seed,
            periods_per_episode=TRIAL_PERIODS + 1,
            task_price=settings.task_price,
            energy_emphasis=settings.energy_emphasis,
            calibration_periods=TRIAL_PERIODS,
        )
        self.selection: Selection | None = None
        if settings.validations:
            self.selection = Selection(self._trial, lambda: self._network.state_dict())

    @property
    def _network(self) -> CandidateScores:
        network: CandidateScores = self.model.policy.mlp_extractor  # type: ignore[assignment]
        return network

    def begin(self) -> dict[str, Any]:
        if isinstance(self._world, WorldFamily):
            if self._settings.start == "best-static":
                raise InputError("start: Best-static is of one scenario; many worlds start from the expected cost")
            return {"start": "expected-cost"}
        return give_start(self._network, self._trials, self._world, self._settings)

    def _trial(self) -> float:
        """Mean scaled reward: 0 is the policy of least expected cost, 1 one standard deviation of its reward better."""
        return self._trials.score(lambda observed: greedy_actions(self._network, observed), TRIAL_PERIODS)

    def actor(self) -> State:
        kept = self._network.state_dict() if self.selection is None else self.selection.best
        assert kept is not None, "a policy is tried before the first rollout"
        return {name: tensor for name, tensor in kept.items() if name.startswith("actor.")}

    def extra_state(self) -> dict[str, Any]:
        return {}

    def take_extra_state(self, state: dict[str, Any]) -> None:
        pass

    def note_step(self) -> None:
        assert isinstance(self.worlds, ServiceAgents)
        buffer = self.model.rollout_buffer  # type: ignore[attr-defined]
        buffer.consequential[buffer.pos] = self.worlds.arrived


class FlatLearner:
    """One network over the whole state (25): the paper's LyaPPO, joint PPO, and DDPG-Cov.

    Attributes:
        layout: what an action means.
    """

    def __init__(self, scenario: Scenario, settings: FlatSettings, done: int) -> None:
        layout = _layout(settings)
        self.layout = layout(stack_settings([setting_of(scenario)]))
        self.worlds: ServiceAgents | PeriodVecEnv = PeriodVecEnv(
            [scenario] * settings.environments,
            layout,
            seed=_world_seed(settings, done),
            periods_per_episode=settings.periods_per_episode,
        )
        self._scaled = (
            VecNormalize(self.worlds, norm_obs=False, gamma=settings.gamma) if settings.reward_scaled else None
        )
        environment: VecEnv = self.worlds if self._scaled is None else self._scaled
        self.model: BaseAlgorithm = (
            _ddpg(environment, settings, done)
            if isinstance(settings, DDPGSettings)
            else _flat_ppo(environment, settings, done)
        )
        self._actor_layers = _ACTOR_LAYERS[settings.algorithm]
        self.selection: Selection | None = None
        if settings.validations:
            self._trials = PeriodVecEnv(
                [scenario] * TRIAL_ENVIRONMENTS,
                layout,
                seed=VALIDATION_SEED + 1000 * settings.seed,
                periods_per_episode=TRIAL_PERIODS + 1,
            )
            self.selection = Selection(self._trial, self._actor_now)

    def begin(self) -> dict[str, Any]:
        return {}

    def _trial(self) -> float:
        """Mean reward (34) of a period."""
        observed: Any = self._trials.reset()
        total = 0.0
        for _ in range(TRIAL_PERIODS):
            actions, _ = self.model.predict(observed, deterministic=True)
            self._trials.step_async(actions)
            observed, rewards, _, _ = self._trials.step_wait()
            total += float(rewards.mean())
        return total / TRIAL_PERIODS

    def actor_names(self) -> list[str]:
        """Return the names of the actor's weights in the model's policy, in the order of ``actor``."""
        return [f"{name}.{part}" for name in self._actor_layers for part in ("weight", "bias")]

    def _actor_now(self) -> State:
        """The actor's weights, under the names that flat policies read."""
        state = self.model.policy.state_dict()
        kept = [f"layer.{number}.{part}" for number in range(len(self._actor_layers)) for part in ("weight", "bias")]
        return {own: state[theirs] for own, theirs in zip(kept, self.actor_names(), strict=True)}

    def actor(self) -> State:
        kept = self._actor_now() if self.selection is None else self.selection.best
        assert kept is not None, "a policy is tried before the first rollout"
        return kept

    def extra_state(self) -> dict[str, Any]:
        if self._scaled is None:
            return {}
        returns = self._scaled.ret_rms
        return {"return_scale": [float(returns.mean), float(returns.var), float(returns.count)]}

    def take_extra_state(self, state: dict[str, Any]) -> None:
        if self._scaled is not None:
            returns = self._scaled.ret_rms
            returns.mean, returns.var, returns.count = state["return_scale"]

    def note_step(self) -> None:
        pass


_ACTOR_LAYERS = {
    "lyappo": ("mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2", "action_net"),
    "ppo": ("mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2", "action_net"),
    "ddpg": ("actor.mu.0", "actor.mu.2", "actor.mu.4"),
}


def _layout(settings: FlatSettings) -> Callable[[StackedSettings], ActionLayout]:
    kinds: dict[str, Callable[[StackedSettings, str], ActionLayout]] = {
        "lyappo": CutActions,
        "ppo": JointActions,
        "ddpg": RoundedCutActions,
    }
    kind = kinds[settings.algorithm]
    return lambda stacked: kind(stacked, settings.candidates)


def _world_seed(settings: TrainingSettings, done: int) -> int:
    # A resumed run must not see the same worlds again.
    return TRAINING_SEED + 1000 * settings.seed + 7919 * done


def _falling_rate(settings: TrainingSettings, done: int) -> Callable[[float], float]:
    def rate(left: float) -> float:
        falls = 0.1 + 0.9 * left * (1 - done / max(settings.slots, 1))
        return settings.learning_rate * (falls if settings.learning_rate_falls else 1.0)

    return rate


def _ppo_settings(settings: PPOSettings, done: int) -> dict[str, Any]:
    return {
        "learning_rate": _falling_rate(settings, done),
        "n_steps": settings.periods_per_rollout,
        "n_epochs": settings.epochs,
        "gamma": settings.gamma,
        "gae_lambda": settings.gae_lambda,
        "clip_range": settings.clip,
        "ent_coef": settings.entropy_weight,
        "seed": settings.seed,
        "device": "cpu",
    }


def _flat_ppo(environment: VecEnv, settings: PaperSettings | JointPPOSettings, done: int) -> BaseAlgorithm:
    rollout = settings.periods_per_rollout * environment.num_envs
    policy: dict[str, Any] = {"net_arch": [settings.hidden, settings.hidden]}
    if isinstance(settings, JointPPOSettings):
        policy["log_std_init"] = float(np.log(settings.initial_deviation))
    return PPO(
        "MlpPolicy",
        environment,
        batch_size=_divisor(rollout, settings.batch_size),
        policy_kwargs=policy,
        **_ppo_settings(settings, done),
    )


def _ddpg(environment: VecEnv, settings: DDPGSettings, done: int) -> BaseAlgorithm:
    size = environment.action_space.shape
    assert size is not None, "rounded cuts are a box"
    return DDPG(
        "MlpPolicy",
        environment,
        learning_rate=_falling_rate(settings, done),
        buffer_size=settings.replay_periods,
        learning_starts=settings.warm_up_periods,
        batch_size=settings.batch_size,
        tau=settings.target_rate,
        gamma=settings.gamma,
        train_freq=1,
        gradient_steps=settings.gradient_steps,
        action_noise=NormalActionNoise(np.zeros(size), np.full(size, settings.noise)),
        policy_kwargs={"net_arch": [settings.hidden, settings.hidden], "activation_fn": nn.ReLU},
        seed=settings.seed,
        device="cpu",
    )


def _divisor(whole: int, most: int) -> int:
    """The largest divisor of ``whole`` that is at most ``most``: no truncated minibatches."""
    return max(size for size in range(1, min(whole, most) + 1) if whole % size == 0)
