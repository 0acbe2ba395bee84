"""What a flat policy may do in a period: the action spaces, and how an action becomes cuts and resources.

A layout belongs to scenarios with the same services; arrays of actions have a leading axis E.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from splitinfer.learning.stacked import StackedSettings
from splitinfer.scheduling.policy import Request, pareto_cuts

Ints = NDArray[np.int64]


class ActionLayout(Protocol):
    """Describes an action space and decodes actions."""

    def space(self) -> Any:
        """Return the Gymnasium space of one environment's action."""

    def decode(self, actions: NDArray[Any]) -> tuple[Ints, Request | None]:
        """Return cuts (E, M, N), and the resources if the action sets them."""


def candidate_cuts(settings: StackedSettings, cuts: str, environment: int = 0) -> list[list[Ints]]:
    """Return the cuts to choose from, per device and service: ``"all"`` of them or the ``"pareto"`` ones.

    Why the Pareto cuts are enough: whatever the frequency and the power, a device's energy and both of its queues rise
    with the cycles before the cut and with the bits crossing it, so a cut that another one beats in both costs the
    device more, arrival by arrival. Only the edge can gain from it: it has ``(c^j - c^k) C rho`` cycles less there than
    the cut k that beats it. A device can relieve the edge no further than by k = K, which is always a Pareto cut, and
    what is lost is at most the delay that those cycles take at F^e: 25 ms for all of ResNet-50 at Table II's 20 GHz.
    """
    active, num_cuts = settings.active[environment], settings.num_cuts[environment]
    work = settings.work[environment]
    table: list[list[Ints]] = []
    for device in range(active.shape[0]):
        row = []
        for service in np.flatnonzero(active[device]).tolist():
            count = int(num_cuts[device, service]) + 1
            if cuts == "all":
                row.append(np.arange(count))
            else:
                row.append(pareto_cuts(work[0, device, service, :count], work[1, device, service, :count]))
        table.append(row)
    return table


def services_digest(settings: StackedSettings) -> str:
    """Return a hash of what the cuts of every device and service stand for, in order: shares of the work, and bits.

    Outputs of a flat network mean cuts by their place, so it fits only where every place holds what it held in
    training. How fast or dear the stations are is not in it: the state is scaled by that, and worlds may move.

    Args:
        settings: of environments with the same services.
    """
    work = settings.work[0]
    parts = [str(settings.shape[1:])]
    for device, service in np.argwhere(settings.active[0]).tolist():
        cuts = int(settings.num_cuts[0, device, service]) + 1
        local, bits, edge = work[:, device, service, :cuts]
        whole = local[-1] + edge[-1]
        # Six digits: the same table is the same on any machine, and no two models are that alike.
        numbers = [*(local / (whole if whole > 0 else 1.0)), *bits]
        parts.append(f"{device} {service} " + " ".join(f"{number:.6g}" for number in numbers))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class _Cuts:
    """Candidate cuts of every service, and the way from an index into them to a table of cuts."""

    def __init__(self, settings: StackedSettings, cuts: str) -> None:
        self.active = settings.active[0]
        rows = [own for device in candidate_cuts(settings, cuts) for own in device]
        self.counts = np.array([len(row) for row in rows])
        self._table = np.array([np.pad(row, (0, self.counts.max() - len(row)), mode="edge") for row in rows])

    def at(self, index: Ints) -> Ints:
        """Cuts (E, M, N) from indices (E, services)."""
        cuts = np.zeros((len(index), *self.active.shape), np.int64)
        cuts[:, self.active] = self._table[np.arange(len(self._table)), index]
        return cuts


class CutActions:
    """One index into its candidate cuts per service (MultiDiscrete). With all cuts the index is the cut.

    Args:
        settings: of environments with the same services.
        cuts: ``"all"`` or ``"pareto"``.
    """

    def __init__(self, settings: StackedSettings, cuts: str = "all") -> None:
        self._cuts = _Cuts(settings, cuts)

    @property
    def counts(self) -> Ints:
        """Number of candidates of each service."""
        return self._cuts.counts

    def space(self) -> Any:
        from gymnasium.spaces import MultiDiscrete

        return MultiDiscrete(self._cuts.counts)

    def decode(self, actions: NDArray[Any]) -> tuple[Ints, Request | None]:
        return self._cuts.at(np.asarray(actions, np.int64)), None


class RoundedCutActions:
    """One number in [-1, 1] per service, rounded to the nearest candidate (what DDPG needs).

    Args:
        settings: of environments with the same services.
        cuts: ``"all"`` or ``"pareto"``.
    """

    def __init__(self, settings: StackedSettings, cuts: str = "all") -> None:
        self._cuts = _Cuts(settings, cuts)

    @property
    def size(self) -> int:
        """Length of an action."""
        return len(self._cuts.counts)

    def space(self) -> Any:
        return _unit_box(self.size)

    def decode(self, actions: NDArray[Any]) -> tuple[Ints, Request | None]:
        return self._cuts.at(_rounded(actions, self._cuts.counts)), None


class JointActions:
    """Cuts and resources at once, all in [-1, 1], held for the whole period.

    Per service four numbers: cut (rounded), share of F^l, share of the rate, share of F^e; then one per device: share
    of p_max. Where shares of a limit add up to more than all of it, the engine scales them down together.

    Args:
        settings: of environments with the same services.
        cuts: ``"all"`` or ``"pareto"``.
    """

    def __init__(self, settings: StackedSettings, cuts: str = "all") -> None:
        self._cuts = _Cuts(settings, cuts)
        self._settings = settings

    @property
    def size(self) -> int:
        """Length of an action."""
        return 4 * len(self._cuts.counts) + self._settings.shape[1]

    def space(self) -> Any:
        return _unit_box(self.size)

    def decode(self, actions: NDArray[Any]) -> tuple[Ints, Request | None]:
        settings = self._settings
        services = len(self._cuts.counts)
        per_service = np.asarray(actions)[:, : 4 * services].reshape(len(actions), 4, services)
        share = np.zeros((3, *settings.shape))
        for table, part in zip(share, np.moveaxis(_unit(per_service[:, 1:]), 1, 0), strict=True):
            table[:, self._cuts.active] = part
        request = Request(
            local_frequency_hz=share[0] * settings.max_local_frequency_hz[..., None],
            power_w=_unit(np.asarray(actions)[:, 4 * services :]) * settings.max_power_w,
            rate_share=share[1],
            edge_frequency_hz=share[2] * settings.max_edge_frequency_hz[:, None, None],
        )
        return self._cuts.at(_rounded(per_service[:, 0], self._cuts.counts)), request


def _unit_box(size: int) -> Any:
    from gymnasium.spaces import Box

    return Box(-1.0, 1.0, (size,), np.float32)


def _unit(actions: NDArray[Any]) -> NDArray[np.float64]:
    return np.clip((np.asarray(actions, np.float64) + 1) / 2, 0.0, 1.0)


def _rounded(actions: NDArray[Any], counts: Ints) -> Ints:
    # Equal parts of [-1, 1] for every candidate, the ends included.
    return np.minimum((_unit(actions) * counts).astype(np.int64), counts - 1)
