"""The network that all services share, as a Stable-Baselines3 policy, and the rollout buffer that goes with it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import RolloutBufferSamples, Schedule
from torch import nn

from splitinfer.learning.policies import FARTHEST, PRIOR_SHARPNESS


class CandidateScores(nn.Module):
    """Scores each candidate cut of a service and values the service's state.

    The actor is one network applied to each candidate alone; its last layer starts at zero, so that training starts
    from the policy that takes the candidate of least expected cost. The critic sees the cheapest candidate's features
    and the mean of all.

    Args:
        features: F.
        hidden: width of both hidden layers.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.features = features
        self.latent_dim_pi = hidden
        self.latent_dim_vf = hidden
        self.actor = nn.Sequential(
            nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
        )
        nn.init.zeros_(self.actor[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.actor[-1].bias)  # type: ignore[arg-type]
        self.critic = nn.Sequential(nn.Linear(2 * features, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())

    def forward(self, observed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(observed), self.forward_critic(observed)

    def forward_actor(self, observed: torch.Tensor) -> torch.Tensor:
        """Return logits, (B, C)."""
        features, relative, valid = self._parts(observed)
        prior = -(PRIOR_SHARPNESS * relative).clamp(max=FARTHEST)
        logits = prior + self.actor(features).squeeze(-1)
        masked: torch.Tensor = logits.masked_fill(~valid, -1e8)
        return masked

    def forward_critic(self, observed: torch.Tensor) -> torch.Tensor:
        features, relative, valid = self._parts(observed)
        cheapest = relative.masked_fill(~valid, torch.inf).argmin(dim=1)
        best = features[torch.arange(len(features), device=features.device), cheapest]
        mean = features.sum(dim=1) / valid.sum(dim=1, keepdim=True).clamp(min=1)
        out: torch.Tensor = self.critic(torch.cat([best, mean], dim=1))
        return out

    def _parts(self, observed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return observed[..., : self.features], observed[..., -2], observed[..., -1] > 0.5


class _AsItIs(BaseFeaturesExtractor):
    """Keeps the (C, F + 2) table of an observation as it is."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, features_dim=int(np.prod(space.shape)))

    def forward(self, observed: torch.Tensor) -> torch.Tensor:
        return observed


class SharedPolicy(ActorCriticPolicy):
    """Stable-Baselines3's actor-critic around ``CandidateScores``: its outputs are the action's logits already."""

    def __init__(self, *args: Any, hidden: int = 64, **kwargs: Any) -> None:
        self._hidden = hidden
        super().__init__(*args, **{**kwargs, "features_extractor_class": _AsItIs, "ortho_init": False})

    def _build(self, lr_schedule: Schedule) -> None:
        self.mlp_extractor: Any = CandidateScores(self.observation_space.shape[1] - 2, self._hidden)  # type: ignore[index]
        self.action_net = nn.Identity()
        self.value_net = nn.Linear(self._hidden, 1)
        make: Any = self.optimizer_class
        self.optimizer = make(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)


class ConsequentialBuffer(RolloutBuffer):
    """A rollout buffer whose policy loss is over the actions that mattered, and whose value loss is over all steps.

    A cut matters to tasks that arrive in its period and to nothing else. With 0.2 requests/s and periods of 0.1 s that
    is one action in fifty; the other 49 have no effect, an expected gradient of zero, and all of the noise. So every
    minibatch has two halves:

    - actions of consequence, for the policy. Their advantages hold the cost of the task that came, which no action
      could have spared and which is larger for some services than for others; the mean over the same agent's other
      such actions is taken off. Their value target is the value that they had.
    - steps drawn evenly from all, for the value. Taught on the former alone it would expect a task in every period,
      and charge each queue for tasks that mostly do not come.

    PPO must not normalise advantages again, as the second half's are zero.

    Attributes:
        consequential: (steps, agents), set by the training callback.
        most_samples: a pass takes at most so many actions of consequence, drawn anew each time.
    """

    def __init__(self, *args: Any, most_samples: int = 16_384, **kwargs: Any) -> None:
        self.most_samples = most_samples
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        super().reset()
        self.consequential = np.zeros((self.buffer_size, self.n_envs), np.bool_)

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        if not self.generator_ready:
            self._prepare()
        rng = np.random.default_rng(np.random.randint(2**31))  # noqa: NPY002 - the library's own, seeded by it
        chosen = rng.permutation(self._chosen)[: self.most_samples]
        every = rng.integers(self.buffer_size * self.n_envs, size=max(len(chosen), 1))
        size = 2 * len(every) if batch_size is None else batch_size
        # A last batch of a few samples would be noisy; it is shared out over the others.
        batches = max(1, 2 * len(every) // size)
        for acted, seen in zip(np.array_split(chosen, batches), np.array_split(every, batches), strict=True):
            policy, value = self._get_samples(acted), self._get_samples(seen)
            yield RolloutBufferSamples(
                observations=torch.cat([policy.observations, value.observations]),
                actions=torch.cat([policy.actions, value.actions]),
                old_values=torch.cat([policy.old_values, value.old_values]),
                old_log_prob=torch.cat([policy.old_log_prob, value.old_log_prob]),
                advantages=torch.cat([2 * policy.advantages, torch.zeros_like(value.advantages)]),
                returns=torch.cat([policy.old_values, value.returns]),
            )

    def _prepare(self) -> None:
        self._centre()
        for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
            self.__dict__[name] = self.swap_and_flatten(self.__dict__[name])
        self._chosen = np.flatnonzero(self.consequential.swapaxes(0, 1).reshape(-1))
        self.generator_ready = True

    def _centre(self) -> None:
        """Take the mean of each agent's other advantages of consequence off each; scale all by one deviation."""
        acted = self.consequential
        count = acted.sum(axis=0)
        total = np.where(acted, self.advantages, 0.0).sum(axis=0)
        others = (total - self.advantages) / np.maximum(count - 1, 1)
        centred = np.where(acted & (count > 1), self.advantages - others, 0.0)
        deviation = float(centred[acted].std()) if acted.any() else 0.0
        self.advantages = (centred / max(deviation, 1e-8)).astype(np.float32)
