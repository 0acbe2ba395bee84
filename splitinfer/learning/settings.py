"""Settings of a training run, with where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from splitinfer.errors import InputError

PAPER_SLOTS = 5_000_000
"""2500 episodes of 200 periods of 10 slots."""

ALGORITHMS = ("lyappo", "ppo", "ddpg")
VARIANTS = ("default", "paper", "paper-exact")
STARTS = ("auto", "expected-cost", "best-static")
CANDIDATES = ("all", "pareto")

PAPER_GAE_LAMBDA = 0.95
"""Of the paper's variant: with the one-step advantage of (37) it does not learn (``docs/learning.md``)."""

EMPHASIS = 2.0
"""Beside a price per task, which (34) lacks, energy needs more weight to be worth what it is in (34)."""

MANY_WORLDS_EMPHASIS = 8.0
"""In worlds where queues weigh much more than joules, (34) hardly asks for energy; a policy for all of them should."""

TRAINABLE = ("lyappo", "lyappo-paper", "lyappo-paper-exact", "ppo", "ddpg")
"""What can be trained, by the names that tables use."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a policy is trained. ``for_algorithm`` has the values of each.

    "Flat" policies are those with one network over the whole state: the paper's variant, ``ppo`` and ``ddpg``.

    Attributes:
        algorithm: ``"lyappo"``; ``"ppo"``, cuts and resources jointly; or ``"ddpg"``, DDPG-Cov.
        variant: of lyappo. ``"paper"``: one network over the whole state and all cuts of all services, as published,
            with generalised advantages; ``"paper-exact"``: the same with the one-step advantage of (37), to the letter;
            ``"default"``: one network per service over its Pareto cuts, started from their expected cost.
        slots: length of the training in slots, all environments together.
        seed: of the weights, the actions and the worlds.
        environments: worlds that step together.
        hidden: width of both hidden layers; the paper's is 128.
        learning_rate: Adam's; the paper's is 3e-4.
        learning_rate_falls: whether it falls linearly to a tenth over the training.
        gamma: discount per period.
        gae_lambda: 0 is the one-step TD error of (37).
        clip: PPO's clip range.
        epochs: passes over a rollout.
        batch_size: samples per gradient step.
        entropy_weight: of the entropy bonus.
        periods_per_rollout: steps of every environment between two updates; for ddpg between two rows of the curve.
        periods_per_episode: steps after which queues are emptied; the paper's 200. Near the limit of a world's
            capacity queues take minutes to settle, so the default variant lets them.
        task_price: default variant: reward lost per task in a device and period, see ``ServiceAgents``.
        energy_emphasis: default variant: factor on w1 of (34) in what is learned.
        most_samples: default variant: samples per pass at most.
        start: default variant: ``"expected-cost"``; ``"best-static"``, whose cuts the network first learns by
            imitation; or ``"auto"``: the former, unless the latter gets a clearly better reward in a trial.
        validations: so many times during the training the policy is tried without exploration on worlds of their own;
            the best one is kept. 0 keeps the last one, as the paper does.
        candidates: flat policies: the cuts they choose from, ``"all"`` or ``"pareto"``.
        reward_scaled: flat policies: whether rewards are divided by the running deviation of their discounted sum.
        initial_deviation: ppo: standard deviation of the first actions, which lie in [-1, 1].
        noise: ddpg: standard deviation of the noise on actions, which lie in [-1, 1].
        replay_periods: ddpg: size of the replay buffer.
        warm_up_periods: ddpg: random steps before learning starts.
        gradient_steps: ddpg: gradient steps after each step of all environments.
        target_rate: ddpg: share of the networks that goes into the target networks each gradient step.

    Raises:
        InputError: a value is out of range.
    """

    algorithm: str = "lyappo"
    variant: str = "default"
    slots: int = PAPER_SLOTS
    seed: int = 0
    environments: int = 32
    hidden: int = 64
    learning_rate: float = 3e-4
    learning_rate_falls: bool = True
    gamma: float = 0.98
    gae_lambda: float = 0.9
    clip: float = 0.2
    epochs: int = 6
    batch_size: int = 1024
    entropy_weight: float = 0.0
    periods_per_rollout: int = 200
    periods_per_episode: int = 5000
    task_price: float = 0.3
    energy_emphasis: float = 1.0
    most_samples: int = 8_192
    start: str = "auto"
    validations: int = 10
    candidates: str = "all"
    reward_scaled: bool = False
    initial_deviation: float = 1.0
    noise: float = 0.2
    replay_periods: int = 200_000
    warm_up_periods: int = 2_000
    gradient_steps: int = 2
    target_rate: float = 0.005

    def __post_init__(self) -> None:
        for name, known in (
            ("algorithm", ALGORITHMS),
            ("variant", VARIANTS),
            ("start", STARTS),
            ("candidates", CANDIDATES),
        ):
            value = getattr(self, name)
            if value not in known:
                raise InputError(f"{name}: must be one of {', '.join(known)}, not {value!r}")
        if self.algorithm != "lyappo" and self.variant != "default":
            raise InputError(f"variant: {self.algorithm} has no other than the default one")
        for name in (
            "slots",
            "environments",
            "hidden",
            "epochs",
            "batch_size",
            "periods_per_rollout",
            "periods_per_episode",
            "most_samples",
            "replay_periods",
            "gradient_steps",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: must be at least 1, not {getattr(self, name)}")
        for name in ("seed", "validations", "warm_up_periods"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: must be 0 or more, not {getattr(self, name)}")

    @property
    def name(self) -> str:
        """What tables call it, one of ``TRAINABLE``."""
        return self.algorithm if self.variant == "default" else f"{self.algorithm}-{self.variant}"

    @classmethod
    def for_many_worlds(cls, *, slots: int = PAPER_SLOTS, seed: int = 0) -> TrainingSettings:
        """Return the settings for one LyaPPO policy over a family of worlds.

        Args:
            slots: length of the training, all worlds together.
            seed: of everything random, the choice of worlds included.
        """
        return cls(
            slots=slots,
            seed=seed,
            environments=64,
            start="expected-cost",
            energy_emphasis=MANY_WORLDS_EMPHASIS,
            most_samples=16_384,
        )

    @classmethod
    def for_algorithm(cls, name: str = "lyappo", *, slots: int = PAPER_SLOTS, seed: int = 0) -> TrainingSettings:
        """Return the settings of an algorithm; how those of the baselines were found is in ``docs/learning.md``.

        Args:
            name: one of ``TRAINABLE``.
            slots: length of the training.
            seed: of everything random.

        Raises:
            InputError: there is no such algorithm.
        """
        if name == "lyappo":
            return cls(slots=slots, seed=seed, energy_emphasis=EMPHASIS)
        if name in ("lyappo-paper", "lyappo-paper-exact"):
            return cls(
                variant=name.removeprefix("lyappo-"),
                slots=slots,
                seed=seed,
                hidden=128,
                learning_rate=3e-4,
                learning_rate_falls=False,
                gae_lambda=0.0 if name == "lyappo-paper-exact" else PAPER_GAE_LAMBDA,
                epochs=4,
                batch_size=1600,
                periods_per_episode=200,
                validations=0,
            )
        if name == "ppo":
            return cls(
                algorithm="ppo",
                slots=slots,
                seed=seed,
                hidden=128,
                learning_rate=3e-4,
                gamma=0.9,
                gae_lambda=0.9,
                epochs=6,
                batch_size=800,
                periods_per_rollout=100,
                periods_per_episode=1000,
                reward_scaled=True,
                initial_deviation=0.4,
                candidates="pareto",
            )
        if name == "ddpg":
            return cls(
                algorithm="ddpg",
                slots=slots,
                seed=seed,
                hidden=128,
                learning_rate=3e-4,
                batch_size=256,
                periods_per_rollout=100,
                periods_per_episode=1000,
                reward_scaled=True,
                candidates="pareto",
            )
        raise InputError(f"algorithm: must be one of {', '.join(TRAINABLE)}, not {name!r}")
