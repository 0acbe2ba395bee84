"""The policy of a live run by name: those of the simulator, and trained ones from a run folder."""

from __future__ import annotations

from pathlib import Path

from splitinfer.scheduling.policy import Policy
from splitinfer.simulation.policies import policy_of
from splitinfer.simulation.scenario import Scenario

_TRAINED = "lyappo:"


def live_policy(name: str, scenario: Scenario) -> Policy:
    """Return a new policy.

    Args:
        name: as ``policy_of`` takes it (``fixed``, ``fixed:0,53``, ``random``, ``best-static``, ``myopic``); or the
            folder of a training run, also written ``lyappo:FOLDER``.
        scenario: of the run.

    Raises:
        InputError: there is no policy of that name, or the folder holds none.
    """
    folder = name.removeprefix(_TRAINED)
    if name.startswith(_TRAINED) or Path(folder).is_dir():
        from splitinfer import load_policy

        trained: Policy = load_policy(folder)
        return trained
    return policy_of(name, scenario)
