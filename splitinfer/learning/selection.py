"""What training starts from, and which of the policies along the way is kept: both decided by trial."""

from __future__ import annotations

from typing import Any

import torch

from splitinfer.learning.agents import ServiceAgents
from splitinfer.learning.imitation import greedy_actions, imitate
from splitinfer.learning.network import CandidateScores
from splitinfer.learning.settings import TrainingSettings
from splitinfer.simulation.scenario import Scenario

VALIDATION_SEED = 2**29
"""Worlds of trials: neither those of training nor those of reported runs."""

TRIAL_ENVIRONMENTS = 4
TRIAL_PERIODS = 500
"""50 s of each world at Table II's periods; a scenario with a timetable is met at four points of it."""

CLEARLY_BETTER = 0.05
"""By so many standard deviations must Best-static lead, or its lead is taken for noise and nothing is imitated."""

State = dict[str, torch.Tensor]


class Selection:
    """Tries policies without exploration on worlds of their own and keeps the best one.

    Scores are mean scaled rewards of ``ServiceAgents``: 0 is the policy of least expected cost, 1 is one standard
    deviation of its reward better.

    Args:
        scenario: the world.
        settings: of the training.

    Attributes:
        history: what was tried and found, for the run's record.
        best: the actor and critic that scored best, or None before the first trial.
    """

    def __init__(self, scenario: Scenario, settings: TrainingSettings) -> None:
        self._scenario = scenario
        self._settings = settings
        self._agents = ServiceAgents(
            [scenario] * TRIAL_ENVIRONMENTS,
            seed=VALIDATION_SEED + 1000 * settings.seed,
            periods_per_episode=TRIAL_PERIODS + 1,
            task_price=settings.task_price,
            calibration_periods=TRIAL_PERIODS,
        )
        self.history: dict[str, Any] = {"validations": []}
        self.best: State | None = None
        self._best_score = -float("inf")

    def start(self, network: CandidateScores) -> None:
        """Give the network its start."""
        wanted = self._settings.start
        record: dict[str, Any] = {"start": "expected-cost"}
        if wanted != "expected-cost":
            from splitinfer.simulation.search import find_best_static

            report = find_best_static(self._scenario).report
            assert report is not None, "the search leaves a report"
            record["best_static_cuts"] = report.cuts.tolist()
            target = self._agents.index_of(report.cuts)
            score = self._agents.score(lambda observed: target, TRIAL_PERIODS)
            record["best_static_score"] = score
            if wanted == "best-static" or score > CLEARLY_BETTER:
                record["start"] = "best-static"
                record["imitated"] = imitate(network, self._agents, report.cuts, seed=self._settings.seed)
        self.history |= record

    def consider(self, network: CandidateScores, slots: int) -> float:
        """Try the network as it is; keep it if it is the best so far. Returns its score."""
        score = self._agents.score(lambda observed: greedy_actions(network, observed), TRIAL_PERIODS)
        self.history["validations"].append([slots, score])
        if score > self._best_score:
            self._best_score = score
            self.best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
            self.history |= {"kept_from_slot": slots, "kept_score": score}
        return score
