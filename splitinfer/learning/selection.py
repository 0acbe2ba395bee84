"""Which of the policies along the way is kept: decided by trial, without exploration, on worlds of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

VALIDATION_SEED = 2**29
"""Worlds of trials: neither those of training nor those of reported runs."""

TRIAL_ENVIRONMENTS = 4
TRIAL_PERIODS = 500
"""50 s of each world at Table II's periods; a scenario with a timetable is met at four points of it."""

State = dict[str, torch.Tensor]


class Selection:
    """Tries the policy as it is and keeps the best one so far.

    Args:
        trial: returns the score of the policy as it is; more is better.
        state: returns the weights that are kept with it.

    Attributes:
        history: what was tried and found, for the run's record.
        best: the weights that scored best, or None before the first trial.
    """

    def __init__(self, trial: Callable[[], float], state: Callable[[], State]) -> None:
        self._trial = trial
        self._state = state
        self.history: dict[str, Any] = {"validations": []}
        self.best: State | None = None
        self._best_score = -float("inf")

    def consider(self, slots: int) -> float:
        """Try the policy as it is after so many slots; keep it if it is the best so far. Returns its score."""
        score = self._trial()
        self.history["validations"].append([slots, score])
        if score > self._best_score:
            self._best_score = score
            self.best = {name: tensor.detach().clone() for name, tensor in self._state().items()}
            self.history |= {"kept_from_slot": slots, "kept_score": score}
        return score

    def go_on(self, history: dict[str, Any], best: State) -> None:
        """Take up where an earlier session stopped: what was kept stands against what comes."""
        self.history |= history
        self.best = best
        self._best_score = float(history["kept_score"])
