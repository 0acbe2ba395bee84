"""From what a scenario names as a service to its profile. Reads JSON only; torch is never needed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from splitinfer.data import data_folder
from splitinfer.errors import InputError
from splitinfer.profiling.profile import Profile


def profile_of(service: str | Profile) -> Profile:
    """Return the profile of one service.

    Args:
        service: a profile; the name of a model card whose profile is shipped; or the path of a profile's JSON file.

    Raises:
        InputError: no such shipped profile or file, or the file is not a profile.
    """
    if isinstance(service, Profile):
        return service
    if service.endswith(".json"):
        path = Path(service)
        stamp = path.stat().st_mtime_ns if path.is_file() else 0
        return _load(path, stamp)
    path = data_folder("profiles") / f"{service}.json"
    if not path.is_file():
        known = ", ".join(shipped_profiles()) or "none is shipped"
        raise InputError(
            f"no profile for {service!r}; known: {known}; or give the path of a JSON file made by 'splitinfer profile'"
        )
    return _load(path, path.stat().st_mtime_ns)


def shipped_profiles() -> list[str]:
    """Return the names of the models whose profiles are shipped, sorted."""
    return sorted(path.stem for path in data_folder("profiles").glob("*.json"))


@lru_cache(maxsize=256)
def _load(path: Path, modified_ns: int) -> Profile:
    # modified_ns is part of the key so that a file profiled anew is read anew.
    return Profile.load(path)
