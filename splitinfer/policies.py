"""Policies by name: the one table of those that come with the package, and how others are found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from splitinfer.errors import InputError
from splitinfer.user_code import is_own, make_own, own_source_digest

if TYPE_CHECKING:
    from splitinfer.scheduling.policy import Policy
    from splitinfer.simulation.scenario import Scenario


def _fixed(scenario: Scenario) -> Policy:
    from splitinfer.scheduling.fixed import FixedCut

    return FixedCut(scenario.cut_array(scenario.fixed_cuts))


def _random(scenario: Scenario) -> Policy:
    from splitinfer.scheduling.fixed import RandomCut

    return RandomCut()


def _best_static(scenario: Scenario) -> Policy:
    from splitinfer.simulation.search import best_static_of

    return best_static_of(scenario)


def _myopic(scenario: Scenario) -> Policy:
    from splitinfer.scheduling.myopic import MyopicCut

    return MyopicCut()


def _price(scenario: Scenario) -> Policy:
    from splitinfer.scheduling.price_cut import PriceCut

    return PriceCut()


def _shipped(scenario: Scenario) -> Policy:
    from splitinfer.learning.shipped import SHIPPED_POLICY

    return _trained(SHIPPED_POLICY)


@dataclass(frozen=True)
class PolicySpec:
    """One policy of the package.

    Attributes:
        name: as users write it.
        label: what tables and pictures call it.
        make: a new one for a scenario; None where it has to be trained first.
        learned: sweeps train it at every point.
        relative_cost: about how long a sweep's job takes, to begin with the longest.
        marker: in pictures.
        is_ours: one of the policies that the paper proposes, which tables compare the others with.
    """

    name: str
    label: str
    make: Callable[[Scenario], Policy] | None
    learned: bool
    relative_cost: float
    marker: str
    is_ours: bool = False


POLICIES: dict[str, PolicySpec] = {
    spec.name: spec
    for spec in (
        PolicySpec("lyappo", "LyaPPO", _shipped, True, 1.5, "o", is_ours=True),
        PolicySpec("lyappo-paper", "LyaPPO (paper)", None, True, 2.0, "s", is_ours=True),
        PolicySpec("ppo", "PPO", None, True, 3.0, "D"),
        PolicySpec("ddpg", "DDPG-Cov", None, True, 8.0, "^"),
        PolicySpec("random", "Random-Cov", _random, False, 0.1, "v"),
        PolicySpec("fixed", "Fix-Cov", _fixed, False, 0.1, "P"),
        PolicySpec("best-static", "Best-static", _best_static, False, 0.3, "X"),
        PolicySpec("myopic", "Myopic", _myopic, False, 0.2, "*"),
        PolicySpec("price", "Price", _price, False, 0.2, "h"),
    )
}
"""By name, in the order of tables."""

POLICY_HELP = (
    "fixed (the scenario's), fixed:0,53 (these), random, best-static, myopic, price, lyappo (ready trained), the "
    "folder of a training run, or your own package.module:Class, also with arguments: module:Class(k=3)."
)
"""For the options of every verb that takes a policy."""


def policy_names() -> list[str]:
    """Return the names that need nothing but a scenario."""
    return [spec.name for spec in POLICIES.values() if spec.make is not None]


def policy_label(name: str) -> str:
    """Return what tables call a policy; one of the user's own goes by its class and arguments."""
    return POLICIES[name].label if name in POLICIES else name.partition(":")[2] or name


def in_order(names: Iterable[str]) -> list[str]:
    """Return policies in the order of tables, each once; the user's own come last, by name."""
    found = set(names)
    return [name for name in POLICIES if name in found] + sorted(found - POLICIES.keys())


def is_own_policy(name: str) -> bool:
    """Whether a name means a class of the user's own: ``package.module:Class``."""
    return name.partition(":")[0] not in ("fixed", "lyappo") and is_own(name)


def named_policy(name: str, scenario: Scenario) -> Policy:
    """Return a new policy.

    A name means the same everywhere: it wins over a folder of that name, which is ``./lyappo`` or ``lyappo:lyappo``.

    Args:
        name: one of ``policy_names()``; ``fixed:0,53``, these cuts instead of the scenario's; the folder of a training
            run, also ``lyappo:FOLDER``; or ``package.module:Class``, a policy of the user's own, with literal
            arguments where it needs some: ``module:Class(k=3)``. That runs the module's code.
        scenario: whose cuts ``fixed`` takes.

    Raises:
        InputError: there is no policy of that name, or the folder or the module holds none.
    """
    kind, colon, detail = name.partition(":")
    if kind == "fixed" and colon:
        from splitinfer.scheduling.fixed import FixedCut

        try:
            cuts = [int(cut) for cut in detail.split(",")]
        except ValueError:
            raise InputError(f"policy: write fixed:0,53 (one cut per service), not {name!r}") from None
        return FixedCut(scenario.cut_array(cuts, field="policy"), name=name)
    if kind == "lyappo" and colon:
        if not detail:
            raise InputError("policy: write lyappo:FOLDER, the folder of a training run, or lyappo alone")
        return _trained(detail)
    spec = POLICIES.get(name)
    if spec is not None:
        if spec.make is None:
            raise InputError(f"policy: {name} has to be trained: splitinfer train, then give its folder")
        return spec.make(scenario)
    if is_own_policy(name) and not Path(name).is_dir():
        return _own(name)
    if Path(name).is_dir():
        return _trained(name)
    raise InputError(
        f"policy: no {name!r}; there are {', '.join(policy_names())}, fixed:0,53 for given cuts, folders of training "
        "runs, and package.module:Class"
    )


def own_policy_digest(name: str) -> str:
    """Return a hash of the source file of a user's own policy, which is part of what its results depend on.

    Raises:
        InputError: as ``named_policy``.
    """
    return own_source_digest(name, "policy")


_METHODS = ("reset", "cuts")


def _own(name: str) -> Policy:
    policy: Policy = make_own(name, "policy", _METHODS)
    missing = [method for method in _METHODS if not callable(getattr(policy, method, None))]
    if missing:
        raise InputError(f"policy: {name} is no policy: it has no method {' and no '.join(missing)}")
    if not isinstance(getattr(policy, "name", None), str):
        policy.name = name.partition(":")[2]
    return policy


def _trained(folder: str | Path) -> Policy:
    from splitinfer.learning.run_folder import load_run

    return load_run(folder)
