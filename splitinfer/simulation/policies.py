"""Policies by name, as a command line or a table names them."""

from __future__ import annotations

from collections.abc import Callable

from splitinfer.errors import InputError
from splitinfer.scheduling.best_static import BestStaticCut
from splitinfer.scheduling.fixed import FixedCut, RandomCut
from splitinfer.scheduling.myopic import MyopicCut
from splitinfer.scheduling.policy import Policy
from splitinfer.simulation.scenario import Scenario

_MAKERS: dict[str, Callable[[Scenario], Policy]] = {
    "fixed": lambda scenario: FixedCut(scenario.cut_array(scenario.fixed_cuts)),
    "random": lambda scenario: RandomCut(),
    "best-static": lambda scenario: BestStaticCut(),
    "myopic": lambda scenario: MyopicCut(),
}


def policy_names() -> list[str]:
    """Return the names that ``policy_of`` knows."""
    return list(_MAKERS)


def policy_of(name: str, scenario: Scenario) -> Policy:
    """Return a new policy for a scenario.

    Args:
        name: one of ``policy_names()``; or ``"fixed:0,53"``: these cuts instead of the scenario's.
        scenario: whose cuts ``fixed`` takes.

    Raises:
        InputError: there is no policy of that name, or a cut is wrong.
    """
    kind, _, detail = name.partition(":")
    if kind == "fixed" and detail:
        try:
            cuts = [int(cut) for cut in detail.split(",")]
        except ValueError:
            raise InputError(f"policy: write fixed:0,53 (one cut per service), not {name!r}") from None
        return FixedCut(scenario.cut_array(cuts, field="policy"), name=name)
    if name not in _MAKERS:
        raise InputError(f"policy: no {name!r}; there are {', '.join(_MAKERS)}, and fixed:0,53 for given cuts")
    return _MAKERS[name](scenario)
