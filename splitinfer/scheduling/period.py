"""What one partition period brought: the engine returns it, devices' telemetry fills it, policies read it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from splitinfer.scheduling.setting import PerDevice

PerStage = Annotated[NDArray[np.float64], "3mn"]


@dataclass(frozen=True, eq=False)
class Period:
    """Means over the slots of a period. Of one world the shapes are as given; of E of them there is a leading axis E.

    Attributes:
        slots: how many there were.
        cuts: (M, N), in force.
        backlog: (3, M, N), Q^l (cycles), Q^t (bits) and Q^e (cycles) at a slot's start.
        service_rate: (3, M, N), f^l (cycles/s), r (bit/s) and f^e (cycles/s).
        power_w: (M,), p.
        max_rate_bps: (M,), R at full power: what the channel would carry. (R at the power that was spent is the sum of
            r.) 0 before the first period.
        local_energy_j: (M,), E^l of a slot.
        transmission_energy_j: (M,), E^t of a slot.
    """

    slots: int
    cuts: NDArray[np.int64]
    backlog: PerStage
    service_rate: PerStage
    power_w: PerDevice
    max_rate_bps: PerDevice
    local_energy_j: PerDevice
    transmission_energy_j: PerDevice

    @classmethod
    def empty(cls, cuts: NDArray[np.int64], **more: Any) -> Any:
        """Return a period of no slots with these cuts: zeros everywhere, to be filled or to begin with."""
        devices = cuts.shape[:-1]
        numbers = {name: np.zeros(devices) for name in PER_DEVICE}
        stages = {name: np.zeros((*devices[:-1], 3, *cuts.shape[-2:])) for name in PER_STAGE}
        return cls(slots=0, cuts=np.asarray(cuts, np.int64), **numbers, **stages, **more)

    def row(self, environment: int) -> Period:
        """Return the period of one environment out of E."""
        return Period(self.slots, **{name: getattr(self, name)[environment] for name in _ARRAYS})

    def stacked(self) -> Period:
        """Return the period of one world as that of E = 1."""
        return Period(self.slots, **{name: getattr(self, name)[None] for name in _ARRAYS})


_AXES = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Period, include_extras=True).items()
    if hasattr(hint, "__metadata__")
}
PER_DEVICE = tuple(name for name, axes in _AXES.items() if axes == "m")
"""Numbers with one value per device."""
PER_STAGE = tuple(name for name, axes in _AXES.items() if axes == "3mn")
_ARRAYS = tuple(field.name for field in fields(Period) if field.name != "slots")
