"""What JSON and TOML files hold, read by kind; what is missing, of another kind or out of range is named by its place.

Numbers are finite and bounded: one that is not would turn into nonsense, or an overflow, far from the file.
"""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any

from splitinfer.errors import InputError, ScenarioError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

MOST = 10**18
"""Largest number taken, unless its reader says otherwise; it fits 64 bits."""

LEAST_REACH, MOST_REACH = 1e-60, 1e30
"""What numbers of physical things lie between: a power of three of them, and products of a few, stay finite."""

_REQUIRED: Any = object()


class Record:
    """A table of a file.

    Args:
        value: what the file holds there.
        place: of it in the file, ``""`` at its top.

    Raises:
        InputError: it is no table. All methods raise it for a value, with the value's place.
    """

    def __init__(self, value: Any, place: str = "") -> None:
        if not isinstance(value, dict):
            raise InputError(f"{place or 'it'} must be a table, not {short(value)}")
        self._values = value
        self._place = place

    def has(self, name: str) -> bool:
        """Whether there is such a value, other than null."""
        return self._values.get(name) is not None

    def plain(self) -> dict[str, Any]:
        """Return the table as the file has it."""
        return self._values

    def names(self) -> list[str]:
        """Return the names of all values."""
        return list(self._values)

    def at(self, name: str) -> str:
        """Return the place of a value."""
        return f"{self._place}.{name}" if self._place else name

    def value(self, name: str) -> Any:
        """Return whatever stands under a name."""
        if name not in self._values:
            raise InputError(f"{self.at(name)} is missing")
        return self._values[name]

    def text(self, name: str, default: str = _REQUIRED) -> str:
        """Return a text."""
        if default is not _REQUIRED and name not in self._values:
            return default
        text: str = _of_kind(self.value(name), str, "a text", self.at(name))
        return text

    def whole(self, name: str, *, least: int = 0, most: int = MOST) -> int:
        """Return a whole number."""
        return whole(self.value(name), self.at(name), least=least, most=most)

    def number(self, name: str, *, least: float = 0.0, most: float = MOST, is_above: bool = False) -> float:
        """Return a finite number; with ``is_above`` it is greater than ``least``."""
        return number(self.value(name), self.at(name), least=least, most=most, is_above=is_above)

    def wholes(self, name: str, *, most: int = MOST) -> tuple[int, ...]:
        """Return whole numbers of at least 0."""
        return tuple(whole(one, place, most=most) for place, one in self.items(name))

    def table(self, name: str) -> Record:
        """Return a table in this one."""
        return Record(self.value(name), self.at(name))

    def tables(self, name: str, *, may_lack: bool = False) -> list[Record]:
        """Return a list of tables; none where the list may be absent and is."""
        if may_lack and name not in self._values:
            return []
        return [Record(one, place) for place, one in self.items(name)]

    def items(self, name: str) -> list[tuple[str, Any]]:
        """Return the values of a list, each with its place."""
        items = _of_kind(self.value(name), (list, tuple), "a list", self.at(name))
        return [(f"{self.at(name)}[{at}]", one) for at, one in enumerate(items)]


def whole(value: Any, place: str, *, least: int = 0, most: int = MOST) -> int:
    """Return a value of a file as a whole number.

    Raises:
        InputError: it is none, or out of range.
    """
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
    if not is_whole or not least <= value <= most:
        raise InputError(f"{place} must be a whole number from {least} to {most:.0e}, not {short(value)}")
    return int(value)


def number(value: Any, place: str, *, least: float = 0.0, most: float = MOST, is_above: bool = False) -> float:
    """Return a value of a file as a finite number.

    Raises:
        InputError: it is none, or out of range.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    if not is_number or (is_above and value == least) or not math.isfinite(value):
        start = f"above {least:g}" if is_above else f"of at least {least:g}"
        raise InputError(f"{place} must be a number {start} and up to {most:.0e}, not {short(value)}")
    return float(value)


def in_reach(value: float) -> float:
    """Return a number of a physical thing, in whatever unit; for pydantic.

    Raises:
        ValueError: it is finite, but too large or too near to 0 to compute with.
    """
    if value and not LEAST_REACH <= abs(value) <= MOST_REACH:
        raise ValueError(f"must be 0 or between {LEAST_REACH:g} and {MOST_REACH:g}, not {value:g}")
    return value


def _of_kind(value: Any, kind: type | tuple[type, ...], words: str, place: str) -> Any:
    if not isinstance(value, kind):
        raise InputError(f"{place} must be {words}, not {short(value)}")
    return value


def short(value: Any) -> str:
    """Return a value of a file as an error's line shows it."""
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "a list"
    if value is None:
        return "null"
    try:
        text = repr(value)
    except ValueError:  # Python writes no more than some thousand digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


_MEMBERS = {
    *("float", "int", "str", "tuple"),
    *("poisson", "periodic", "bursty", "trace"),
    *("steady", "rayleigh", "correlated"),
}


def wrong_field(error: ValidationError, model: type[BaseModel] | None = None, given: object = None) -> str:
    """Say in one line which field is wrong, what it holds and what would be right.

    Args:
        error: what pydantic says.
        model: whose fields are named where one is not among them.
        given: what was to be read, where keys may be any words; by it a key is told from pydantic's names of types.
    """
    # Of a union's members pydantic reports each; the one that understood the most of the value says the most.
    found = error.errors(include_url=False)
    worst = max(found, key=lambda one: (not one["type"].endswith("_type"), len(one["loc"])))
    if worst["type"] == "json_invalid":
        return str(worst["msg"])
    name = (
        _name_of(worst["loc"], is_given=worst["type"] == "extra_forbidden")
        if given is None
        else _place_of(worst["loc"], given, is_missing=worst["type"] == "missing")
    )
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
        _name_of(one["loc"]) if given is None else _place_of(one["loc"], given, is_missing=False)
        for one in found
        if one["type"] == "extra_forbidden" and one["loc"][:-1] == worst["loc"][:-1]
    ]
    if worst["type"] == "missing" and beside:
        return f"{beside[0]}: no such field, and {name} is missing"
    if worst["type"] == "missing":
        return f"{name}: is missing"
    if worst["type"] in ("too_short", "too_long"):
        least = worst["type"] == "too_short"
        bound = worst["ctx"]["min_length" if least else "max_length"]
        return f"{name}: must have at {'least' if least else 'most'} {bound} values, not {len(worst['input'])}"
    message = worst["msg"].replace("Input should", "must", 1)
    message = message[0].lower() + message[1:]
    if worst["type"] == "union_tag_invalid":
        return f"{name}: kind must be {worst['ctx']['expected_tags']}, not {worst['ctx']['tag']!r}"
    return f"{name}: {message}, not {short(worst['input'])}"


def _name_of(location: tuple[int | str, ...], *, is_given: bool = False) -> str:
    # The last one is the user's own word where there is no such field.
    # Names of a union's members (float, tuple[...], tags) are noise for a user.
    where = [
        part
        for at, part in enumerate(location, 1)
        if isinstance(part, int) or (part.isidentifier() and part not in _MEMBERS) or (at == len(location) and is_given)
    ]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")


def _place_of(location: tuple[int | str, ...], given: Any, *, is_missing: bool) -> str:
    place, at = "", given
    for number, part in enumerate(location, 1):
        holds = part in at if isinstance(at, dict) else isinstance(at, list) and part in range(len(at))
        if holds:
            at = at[part]
        elif not (is_missing and number == len(location)):
            continue  # the name of a type
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return place.lstrip(".")
