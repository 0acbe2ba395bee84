"""Number types of a scenario's fields, and how a value per service or per device is spread over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError

from splitinfer.errors import ScenarioError
from splitinfer.records import in_reach, wrong_field

Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False), AfterValidator(in_reach)]
NonNegative = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False), AfterValidator(in_reach)]
Count = Annotated[int, Strict(), Field(ge=1)]
PerDevice = Positive | tuple[Positive, ...]
"""One number for every device, or one per device."""
PerService = NonNegative | tuple[NonNegative, ...] | tuple[tuple[NonNegative, ...], ...]
"""One number for every service, one per service (the same on every device), or one list per device."""


class Settings(BaseModel):
    """Base of every part of a scenario: frozen, unknown fields refused, errors in one line that names the field."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**{name: _plain(value) for name, value in values.items()})
        except ValidationError as error:
            raise ScenarioError(wrong_field(error, type(self))) from None


def spread_over_devices(value: float | Sequence[float], devices: int, field: str) -> NDArray[np.float64]:
    """Return one value per device, shape (M,)."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim and len(array) != devices:
        raise ScenarioError(f"{field}: needs one value or {devices} (one per device), not {len(array)}")
    return np.broadcast_to(array, (devices,)).copy()


def spread_over_services(
    value: float | Sequence[float] | Sequence[Sequence[float]],
    services: Sequence[int],
    field: str,
) -> NDArray[np.float64]:
    """Return one value per service, shape (M, N), zero where a device has fewer than N services.

    Args:
        value: one number, one per service, or one list per device.
        services: number of services on each device, length M.
        field: name for the error.

    Raises:
        ScenarioError: the lengths do not fit.
    """
    spread = np.zeros((len(services), max(services)))
    nested = isinstance(value, Sequence) and len(value) > 0 and isinstance(value[0], Sequence)
    if nested and len(value) != len(services):  # type: ignore[arg-type]
        raise ScenarioError(f"{field}: has lists for {len(value)} devices, but num_devices is {len(services)}")  # type: ignore[arg-type]
    for device, count in enumerate(services):
        own = value[device] if nested else value  # type: ignore[index]
        if isinstance(own, Sequence) and len(own) != count:
            raise ScenarioError(f"{field}: device {device} has {count} services, but {len(own)} values are given")
        spread[device, :count] = own
    return spread


def _plain(value: Any) -> Any:
    """Turn NumPy numbers and arrays, which come out of sweeps, into Python's own."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
