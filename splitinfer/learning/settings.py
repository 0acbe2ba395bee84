"""Settings of a training run, a class per algorithm, with where they come from."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar

from splitinfer.errors import InputError

PAPER_SLOTS = 5_000_000
"""2500 episodes of 200 periods of 10 slots."""

VARIANTS = ("default", "paper", "paper-exact")
STARTS = ("auto", "expected-cost", "best-static")
CANDIDATES = ("all", "pareto")

PAPER_GAE_LAMBDA = 0.95
"""Of the paper's variant: with the one-step advantage of (37) it does not learn (``docs/learning.md``)."""

EMPHASIS = 2.0
"""Beside a price per task, which (34) lacks, energy needs more weight to be worth what it is in (34)."""

MANY_WORLDS_EMPHASIS = 8.0
"""In worlds where queues weigh much more than joules, (34) hardly asks for energy; a policy for all of them should."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What every training has. ``for_algorithm`` makes the settings of one algorithm, an instance of its class.

    Attributes:
        slots: length of the training in slots, all environments together.
        seed: of the weights, the actions and the worlds.
        environments: worlds that step together.
        hidden: width of both hidden layers; the paper's is 128.
        learning_rate: Adam's; the paper's is 3e-4.
        learning_rate_falls: whether it falls linearly to a tenth over the training.
        gamma: discount per period.
        batch_size: samples per gradient step.
        periods_per_rollout: steps of every environment between two updates; for ddpg between two rows of the curve.
        periods_per_episode: steps after which queues are emptied; the paper's 200. Near the limit of a world's
            capacity queues take minutes to settle, so LyaPPO's default variant lets them.
        validations: so many times during the training the policy is tried without exploration on worlds of their own;
            the best one is kept. 0 keeps the last one, as the paper does.

    Raises:
        InputError: a value is out of range.
    """

    algorithm: ClassVar[str]
    variant: ClassVar[str] = "default"

    slots: int = PAPER_SLOTS
    seed: int = 0
    environments: int = 32
    hidden: int = 128
    learning_rate: float = 3e-4
    learning_rate_falls: bool = True
    gamma: float = 0.98
    batch_size: int = 1024
    periods_per_rollout: int = 200
    periods_per_episode: int = 5000
    validations: int = 10

    def __post_init__(self) -> None:
        for name, known in (("start", STARTS), ("candidates", CANDIDATES)):
            value = getattr(self, name, known[0])
            if value not in known:
                raise InputError(f"{name}: must be one of {', '.join(known)}, not {value!r}")
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in _MAY_BE_ZERO else 1
            if isinstance(field.default, int) and not isinstance(field.default, bool) and value < least:
                raise InputError(f"{field.name}: must be {'0 or more' if least == 0 else 'at least 1'}, not {value}")
        if self.seed > MAX_SEED:
            raise InputError(f"seed: must be at most {MAX_SEED}, not {self.seed}")

    @classmethod
    def algorithm_name(cls) -> str:
        """Return what tables call it, one of ``TRAINABLE``."""
        return cls.algorithm if cls.variant == "default" else f"{cls.algorithm}-{cls.variant}"

    @property
    def name(self) -> str:
        """What tables call it, one of ``TRAINABLE``."""
        return self.algorithm_name()

    @staticmethod
    def for_many_worlds(*, slots: int = PAPER_SLOTS, seed: int = 0) -> LyaPPOSettings:
        """Return the settings for one LyaPPO policy over a family of worlds.

        Args:
            slots: length of the training, all worlds together.
            seed: of everything random, the choice of worlds included.
        """
        return LyaPPOSettings(
            slots=slots,
            seed=seed,
            environments=64,
            start="expected-cost",
            energy_emphasis=MANY_WORLDS_EMPHASIS,
            most_samples=16_384,
        )

    @staticmethod
    def for_algorithm(name: str = "lyappo", *, slots: int = PAPER_SLOTS, seed: int = 0) -> TrainingSettings:
        """Return the settings of an algorithm; how those of the baselines were found is in ``docs/learning.md``.

        Args:
            name: one of ``TRAINABLE``.
            slots: length of the training.
            seed: of everything random.

        Raises:
            InputError: there is no such algorithm.
        """
        return _class_of(name)(slots=slots, seed=seed)

    def changed(self, changes: dict[str, Any]) -> TrainingSettings:
        """Return the settings with some fields changed.

        Raises:
            InputError: there is no such field, or a value is out of range or of the wrong type.
        """
        own = self.record()
        for name in changes:
            if name not in own or name in ("algorithm", "variant"):
                there = ", ".join(field.name for field in fields(self))
                raise InputError(f"{name}: {self.name} has no such setting; there are {there}")
        return self.from_record(own | changes)

    def record(self) -> dict[str, Any]:
        """Return what a run folder keeps: the algorithm, its variant and every field."""
        return {"algorithm": self.algorithm, "variant": self.variant} | asdict(self)

    @staticmethod
    def from_record(record: dict[str, Any]) -> TrainingSettings:
        """Return the settings that ``record`` came from; fields of other algorithms, kept by older runs, are let go.

        Raises:
            InputError: a value is out of range, missing or of the wrong type.
        """
        algorithm, variant = record.get("algorithm"), record.get("variant", "default")
        kind = _class_of(f"{algorithm}" if variant == "default" else f"{algorithm}-{variant}")
        given = {field.name: record.get(field.name, MISSING) for field in fields(kind)}
        for field in fields(kind):
            right = (int, float) if isinstance(field.default, float) else type(field.default)
            value = given[field.name]
            if not isinstance(value, right) or (isinstance(value, bool) and right is not bool):
                said = "is missing" if value is MISSING else f"is of the wrong type: {value!r}"
                raise InputError(f"{field.name}: {said}")
        return kind(**given)


@dataclass(frozen=True, kw_only=True)
class PPOSettings(TrainingSettings):
    """What every training by proximal policy optimisation has besides.

    Attributes:
        gae_lambda: of generalised advantages; 0 is the one-step TD error of (37).
        clip: PPO's clip range.
        epochs: passes over a rollout.
        entropy_weight: of the entropy bonus.
    """

    gae_lambda: float = 0.9
    clip: float = 0.2
    epochs: int = 6
    entropy_weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LyaPPOSettings(PPOSettings):
    """LyaPPO, the default variant: one network per service over its Pareto cuts, started from their expected cost.

    Attributes:
        task_price: reward lost per task in a device and period, see ``ServiceAgents``.
        energy_emphasis: factor on w1 of (34) in what is learned.
        most_samples: samples per pass at most.
        start: ``"expected-cost"``; ``"best-static"``, whose cuts the network first learns by imitation; or ``"auto"``:
            the former, unless the latter gets a clearly better reward in a trial.
    """

    algorithm: ClassVar[str] = "lyappo"

    hidden: int = 64
    task_price: float = 0.3
    energy_emphasis: float = EMPHASIS
    most_samples: int = 8_192
    start: str = "auto"


@dataclass(frozen=True, kw_only=True)
class PaperSettings(PPOSettings):
    """LyaPPO as published: one network over the whole state and the cuts of all services, by generalised advantages.

    The paper does not say which cuts it offers; here they are the Pareto cuts, as for the baselines.

    Attributes:
        candidates: the cuts it chooses from, ``"all"`` or ``"pareto"``.
        reward_scaled: whether rewards are divided by the running deviation of their discounted sum.
    """

    algorithm: ClassVar[str] = "lyappo"
    variant: ClassVar[str] = "paper"

    learning_rate_falls: bool = False
    gae_lambda: float = PAPER_GAE_LAMBDA
    epochs: int = 4
    batch_size: int = 1600
    periods_per_episode: int = 200
    validations: int = 0
    candidates: str = "pareto"
    reward_scaled: bool = False


@dataclass(frozen=True, kw_only=True)
class ExactPaperSettings(PaperSettings):
    """The same over all cuts and with the one-step advantage of (37), to the letter."""

    variant: ClassVar[str] = "paper-exact"

    gae_lambda: float = 0.0
    candidates: str = "all"


@dataclass(frozen=True, kw_only=True)
class JointPPOSettings(PPOSettings):
    """PPO over cuts, frequencies and powers jointly, with one network over the whole state.

    Attributes:
        candidates: the cuts it chooses from, ``"all"`` or ``"pareto"``.
        reward_scaled: whether rewards are divided by the running deviation of their discounted sum.
        initial_deviation: standard deviation of the first actions, which lie in [-1, 1].
    """

    algorithm: ClassVar[str] = "ppo"

    gamma: float = 0.9
    batch_size: int = 800
    periods_per_rollout: int = 100
    periods_per_episode: int = 1000
    candidates: str = "pareto"
    reward_scaled: bool = True
    initial_deviation: float = 0.4


@dataclass(frozen=True, kw_only=True)
class DDPGSettings(TrainingSettings):
    """DDPG-Cov: deterministic policy gradients over rounded cuts, with one network over the whole state.

    Attributes:
        candidates: the cuts it chooses from, ``"all"`` or ``"pareto"``.
        reward_scaled: whether rewards are divided by the running deviation of their discounted sum.
        noise: standard deviation of the noise on actions, which lie in [-1, 1].
        replay_periods: size of the replay buffer.
        warm_up_periods: random steps before learning starts.
        gradient_steps: gradient steps after each step of all environments.
        target_rate: share of the networks that goes into the target networks each gradient step.
    """

    algorithm: ClassVar[str] = "ddpg"

    batch_size: int = 256
    periods_per_rollout: int = 100
    periods_per_episode: int = 1000
    candidates: str = "pareto"
    reward_scaled: bool = True
    noise: float = 0.2
    replay_periods: int = 200_000
    warm_up_periods: int = 2_000
    gradient_steps: int = 2
    target_rate: float = 0.005


MAX_SEED = 2**32 - 1
"""Largest seed of a training; generators of random numbers in the learning libraries take 32 bits."""

FlatSettings = PaperSettings | JointPPOSettings | DDPGSettings
"""Of policies with one network over the whole state."""

_MAY_BE_ZERO = ("seed", "validations", "warm_up_periods")

_CLASSES: dict[str, type[TrainingSettings]] = {
    kind.algorithm_name(): kind
    for kind in (LyaPPOSettings, PaperSettings, ExactPaperSettings, JointPPOSettings, DDPGSettings)
}

TRAINABLE = tuple(_CLASSES)
"""What can be trained, by the names that tables use."""


def _class_of(name: str) -> type[TrainingSettings]:
    if name not in _CLASSES:
        raise InputError(f"algorithm: must be one of {', '.join(TRAINABLE)}, not {name!r}")
    return _CLASSES[name]
