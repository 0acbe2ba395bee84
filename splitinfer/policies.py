"""A policy by name, for simulations and live runs alike: the simulator's, the shipped LyaPPO, or one you trained."""

from __future__ import annotations

from pathlib import Path

from splitinfer.errors import InputError
from splitinfer.scheduling.policy import Policy
from splitinfer.simulation.policies import policy_names, policy_of
from splitinfer.simulation.scenario import Scenario

_LYAPPO = "lyappo"


def named_policy(name: str, scenario: Scenario) -> Policy:
    """Return a new policy.

    A name means the same everywhere: it wins over a folder of that name, which is ``./lyappo`` or ``lyappo:lyappo``.

    Args:
        name: as ``policy_of`` takes it (``fixed``, ``fixed:0,53``, ``random``, ``best-static``, ``myopic``); or
            ``lyappo``, the policy that the package brings; or the folder of a training run, also ``lyappo:FOLDER``.
        scenario: whose cuts ``fixed`` takes.

    Raises:
        InputError: there is no policy of that name, or the folder holds none.
    """
    kind, colon, folder = name.partition(":")
    if name == _LYAPPO:
        from splitinfer.learning.shipped import SHIPPED_POLICY

        return _trained(SHIPPED_POLICY)
    if kind == _LYAPPO and colon:
        if not folder:
            raise InputError("policy: write lyappo:FOLDER, the folder of a training run, or lyappo alone")
        return _trained(folder)
    if kind in policy_names():
        return policy_of(name, scenario)
    if Path(name).is_dir():
        return _trained(name)
    known = ", ".join([*policy_names(), _LYAPPO])
    raise InputError(f"policy: no {name!r}; there are {known}, fixed:0,53 for given cuts, and folders of training runs")


def _trained(folder: str | Path) -> Policy:
    from splitinfer.learning.run_folder import load_policy

    policy: Policy = load_policy(folder)
    return policy
