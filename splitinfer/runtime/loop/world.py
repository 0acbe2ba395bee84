"""What one device meets in a run: its channel gains and its requests, the same ones that ``simulate`` draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError, ScenarioError
from splitinfer.models import load_card
from splitinfer.runtime.perseverance import checked_on_failure
from splitinfer.scheduling.policy import Policy, is_static, sets_resources
from splitinfer.scheduling.rules import AllocationRule, Waiting, is_compiled
from splitinfer.scheduling.setting import Setting
from splitinfer.simulation.build import setting_of
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.surroundings import Surroundings

_BLOCK = 1000


class DeviceWorld:
    """Gains and requests of one device, slot after slot.

    Args:
        scenario: the world.
        seed: of the run.
        device: m.
    """

    def __init__(self, scenario: Scenario, seed: int, device: int) -> None:
        self._surroundings = Surroundings(scenario, seed)
        self._device = device
        self._first = 0
        self._gains: NDArray[np.float64] = np.empty(0)
        self._requests: NDArray[np.int64] = np.empty((0, 0), np.int64)

    def gain(self, slot: int) -> float:
        """Return h of a slot. Slots are asked for in order; the one before may be asked for again."""
        self._draw_until(slot)
        return float(self._gains[slot - self._first])

    def requests(self, slot: int) -> NDArray[np.int64]:
        """Return the requests that arrive in a slot, shape (N,)."""
        self._draw_until(slot)
        own: NDArray[np.int64] = self._requests[slot - self._first]
        return own

    def _draw_until(self, slot: int) -> None:
        while slot >= self._first + len(self._gains):
            gains, requests = self._surroundings.draw(_BLOCK)
            keep = self._gains[-1:], self._requests[-1:]
            self._first += max(0, len(self._gains) - 1)
            self._gains = np.concatenate([keep[0], gains[:, self._device]])
            own = requests[:, self._device]
            self._requests = np.concatenate([keep[1], own]) if len(keep[1]) else own


def card_files(files: Sequence[str | Path]) -> dict[str, str]:
    """Return card files by the names of their models.

    Raises:
        InputError: one is no card.
    """
    return {load_card(Path(file)).name: str(file) for file in files}


def check_models(scenario: Scenario, cards: Mapping[str, str]) -> None:
    """Refuse services of which there is only a profile, before anything is started.

    Args:
        scenario: the world.
        cards: card files by model name.

    Raises:
        ScenarioError: there is one.
    """
    for name, ref in scenario.model_refs().items():
        if ref is None and name not in cards:
            raise ScenarioError(
                f"services: {name} is a profile without its model, which a live run needs; name the card file or "
                "package.module:factory as the service, or give --card FILE"
            )


def check_live(scenario: Scenario) -> None:
    """Refuse what a live run cannot do.

    Raises:
        ScenarioError: the field that is in the way.
    """
    if scenario.latency_targets_s() is not None:
        raise ScenarioError(
            "p95_latency_s: a live run keeps the scenario's energy weights; remove the target (--p95-target-s shows "
            "one without steering), or use simulate"
        )
    if scenario.downlink_bps is not None:
        raise ScenarioError(
            "downlink_bps: the answers of a live run come back over its real connection, at once on the emulated "
            "clock; remove it, or use simulate"
        )


def check_policy(policy: Policy, scenario: Scenario) -> None:
    """Refuse a policy that a live run cannot obey, before anything is started.

    Raises:
        InputError: it sets frequencies and powers itself, or does not fit the scenario.
    """
    if sets_resources(policy):
        raise InputError(f"policy: {policy.name} allocates for itself; live runs allocate by a rule. Use simulate")
    if not is_static(policy):  # those may have to be searched first
        policy.reset(setting_of(scenario), np.random.default_rng(0))


def check_slots_go_on(on_failure: str) -> None:
    """Refuse what a device of a live run cannot do where its edge fails.

    Raises:
        InputError: it is neither ``fallback`` nor ``fail``.
    """
    if checked_on_failure(on_failure) == "wait":
        raise InputError("on_failure: the slots of a live run do not wait for an edge; take fallback or fail")


def warm_allocation(rule: AllocationRule, setting: Setting) -> None:
    """Load the compiled parts of a rule now rather than in the first slot. It is started anew afterwards."""
    one = np.ones(setting.num_services)
    tasks = np.ones(setting.num_services, np.int64)
    waiting = Waiting(one, tasks, one, tasks, 0)
    if is_compiled(rule):
        rule.start(setting)
        rule.observe(0, 1e-9)
        rule.local(0, waiting)
        rule.transmission(0, waiting, 1e-9)
        shape = setting.active.shape
        rule.edge(Waiting(np.ones(shape), np.ones(shape, np.int64), np.ones(shape), np.ones(shape, np.int64), 0))
    rule.start(setting)
