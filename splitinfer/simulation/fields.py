"""Number types of a scenario's fields, and how a value per service or per device is spread over all of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError

from splitinfer.errors import ScenarioError
from splitinfer.records import in_reach

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
            raise ScenarioError(one_line(error, type(self))) from None


def one_line(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Say in one line which field is wrong, what it holds and what would be right.

    Args:
        error: what pydantic says.
        model: whose fields are named where one is not among them.
    """
    # Of a union's members pydantic reports each; the one that understood the most of the value says the most.
    found = error.errors(include_url=False)
    worst = max(found, key=lambda one: (not one["type"].endswith("_type"), len(one["loc"])))
    name = _name_of(worst["loc"], is_given=worst["type"] == "extra_forbidden")
    reason = worst.get("ctx", {}).get("error")
    if isinstance(reason, ScenarioError):
        return f"{name}.{reason}" if name else str(reason)
    if reason is not None:
        return f"{name}: {reason}" if name else str(reason)
    if worst["type"] == "extra_forbidden":
        known = list(model.model_fields) if model is not None and len(worst["loc"]) == 1 else []
        near = difflib.get_close_matches(str(worst["loc"][-1]), known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        return f"{name}: no such field" + (f"; {hint}" if known else "")
    if worst["type"] == "missing" and isinstance(worst["loc"][-1], int):
        return f"{name.rpartition('[')[0]}: has too few values"
    beside = [
        _name_of(one["loc"])
        for one in found
        if one["type"] == "extra_forbidden" and one["loc"][:-1] == worst["loc"][:-1]
    ]
    if worst["type"] == "missing" and beside:
        return f"{beside[0]}: no such field, and {name} is missing"
    message = worst["msg"][0].lower() + worst["msg"][1:]
    if worst["type"] == "union_tag_invalid":
        return f"{name}: kind must be {worst['ctx']['expected_tags']}, not {worst['ctx']['tag']!r}"
    return f"{name}: {message}" if worst["type"] == "missing" else f"{name}: {message}, not {_short(worst['input'])}"


def _name_of(location: tuple[int | str, ...], *, is_given: bool = False) -> str:
    # The last one is the user's own word where there is no such field.
    # Names of a union's members (float, tuple[...], tags) are noise for a user.
    where = [
        part
        for at, part in enumerate(location, 1)
        if isinstance(part, int) or (part.isidentifier() and part not in _MEMBERS) or (at == len(location) and is_given)
    ]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")


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


_MEMBERS = {
    *("float", "int", "str", "tuple"),
    *("poisson", "periodic", "bursty", "trace"),
    *("steady", "rayleigh", "correlated"),
}


def _plain(value: Any) -> Any:
    """Turn NumPy numbers and arrays, which come out of sweeps, into Python's own."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
