"""A policy by name, for simulations and live runs alike: the simulator's, or a trained one from its run folder."""

from __future__ import annotations

from pathlib import Path

from splitinfer.scheduling.policy import Policy
from splitinfer.simulation.policies import policy_of
from splitinfer.simulation.scenario import Scenario

_TRAINED = "lyappo:"


def named_policy(name: str, scenario: Scenario) -> Policy:
    """Return a new policy.

    Args:
        name: as ``policy_of`` takes it (``fixed``, ``fixed:0,53``, ``random``, ``best-static``, ``myopic``); or the
            folder of a training run, also written ``lyappo:FOLDER``.
        scenario: whose cuts ``fixed`` takes.

    Raises:
        InputError: there is no policy of that name, or the folder holds none.
    """
    folder = name.removeprefix(_TRAINED)
    if name.startswith(_TRAINED) or Path(folder).is_dir():
        from splitinfer import load_policy

        trained: Policy = load_policy(folder)
        return trained
    return policy_of(name, scenario)
