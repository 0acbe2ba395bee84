"""What training of the shared network starts from: the expected cost as it is, or the best fixed cuts, imitated."""

from __future__ import annotations

from typing import Any

from splitinfer.learning.agents import ServiceAgents
from splitinfer.learning.imitation import imitate
from splitinfer.learning.network import CandidateScores
from splitinfer.learning.selection import TRIAL_PERIODS
from splitinfer.learning.settings import LyaPPOSettings
from splitinfer.simulation.scenario import Scenario

CLEARLY_BETTER = 0.05
"""By so many standard deviations must Best-static lead, or its lead is taken for noise and nothing is imitated."""


def give_start(
    network: CandidateScores, agents: ServiceAgents, scenario: Scenario, settings: LyaPPOSettings
) -> dict[str, Any]:
    """Give the network its start.

    Args:
        network: untrained: it takes the candidate of least expected cost.
        agents: worlds of trials, all of the scenario.
        scenario: the world.
        settings: of the training; ``start`` says what is wanted.

    Returns:
        What was tried and chosen, for the run's record. Scores are those of ``ServiceAgents.score``.
    """
    if settings.start == "expected-cost":
        return {"start": "expected-cost"}
    from splitinfer.simulation.search import find_best_static

    report = find_best_static(scenario).report
    assert report is not None, "the search leaves a report"
    target = agents.index_of(report.cuts)
    score = agents.score(lambda observed: target, TRIAL_PERIODS)
    record = {"start": "expected-cost", "best_static_cuts": report.cuts.tolist(), "best_static_score": score}
    if settings.start == "best-static" or score > CLEARLY_BETTER:
        record["start"] = "best-static"
        record["imitated"] = imitate(network, agents, report.cuts, seed=settings.seed)
    return record
