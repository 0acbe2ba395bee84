"""Settings of a training run, with where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from splitinfer.errors import InputError

PAPER_SLOTS = 5_000_000
"""2500 episodes of 200 periods of 10 slots."""

VARIANTS = ("default", "paper")
STARTS = ("auto", "expected-cost", "best-static")


@dataclass(frozen=True)
class TrainingSettings:
    """How LyaPPO is trained. ``for_variant`` has the values of both variants.

    Attributes:
        variant: ``"paper"``: one network over the whole state and all cuts of all services, as published;
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
        periods_per_rollout: steps of every environment between two updates.
        periods_per_episode: steps after which queues are emptied; the paper's 200. Near the limit of a world's
            capacity queues take minutes to settle, so the default variant lets them.
        task_price: default variant: reward lost per task in a device and period, see ``ServiceAgents``.
        most_samples: default variant: samples per pass at most.
        start: default variant: ``"expected-cost"``; ``"best-static"``, whose cuts the network first learns by
            imitation; or ``"auto"``: the former, unless the latter gets a clearly better reward in a trial.
        validations: default variant: so many times during the training the policy is tried without exploration on
            worlds of their own; the best one is kept.

    Raises:
        InputError: a value is out of range.
    """

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
    task_price: float = 0.1
    most_samples: int = 16_384
    start: str = "auto"
    validations: int = 10

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise InputError(f"variant: must be one of {', '.join(VARIANTS)}, not {self.variant!r}")
        if self.start not in STARTS:
            raise InputError(f"start: must be one of {', '.join(STARTS)}, not {self.start!r}")
        for name in (
            "slots",
            "environments",
            "hidden",
            "epochs",
            "batch_size",
            "periods_per_rollout",
            "periods_per_episode",
            "most_samples",
            "validations",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"seed: must be 0 or more, not {self.seed}")

    @classmethod
    def for_variant(cls, variant: str = "default", *, slots: int = PAPER_SLOTS, seed: int = 0) -> TrainingSettings:
        """Return the settings of a variant.

        Args:
            variant: ``"default"`` or ``"paper"``.
            slots: length of the training.
            seed: of everything random.
        """
        if variant != "paper":
            return cls(variant=variant, slots=slots, seed=seed)
        return cls(
            variant="paper",
            slots=slots,
            seed=seed,
            hidden=128,
            learning_rate=3e-4,
            learning_rate_falls=False,
            gae_lambda=0.0,
            epochs=4,
            batch_size=1600,
            periods_per_episode=200,
        )
