"""From what a scenario names as a service to its profile. Shipped ones are read; torch is for measuring others."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from splitinfer.data import data_folder
from splitinfer.errors import InputError
from splitinfer.profiling.profile import Profile


def profile_of(service: str | Profile) -> Profile:
    """Return the profile of one service.

    Args:
        service: a profile; the name of a model card whose profile is shipped; the path of a profile's JSON file; or a
            model that is measured now (which takes torch and some seconds, once): any other name that ``load_model``
            knows, a card file (``.toml``) or ``package.module:factory``.

    Raises:
        InputError: no such profile, file or model.
    """
    if isinstance(service, Profile):
        return service
    if service.endswith(".json"):
        path = Path(service)
        stamp = path.stat().st_mtime_ns if path.is_file() else 0
        return _load(path, stamp)
    path = data_folder("profiles") / f"{service}.json"
    if path.is_file():
        return _load(path, path.stat().st_mtime_ns)
    return _measured(service, Path(service).stat().st_mtime_ns if Path(service).is_file() else 0)


def model_ref(service: str | Profile) -> str | None:
    """Return what ``load_model`` takes for a service; None where there is only a profile.

    A profile without its model serves a simulation; a live run needs the model.
    """
    if isinstance(service, Profile) or service.endswith(".json"):
        name = profile_of(service).model
        return name if (data_folder("models") / f"{name}.toml").is_file() else None
    return service


@lru_cache(maxsize=64)
def _measured(service: str, modified_ns: int) -> Profile:
    from splitinfer.profiling.measure import profile_named_in_file

    try:
        return profile_named_in_file(service)
    except InputError as error:
        if "unknown model" not in str(error):
            raise
        known = ", ".join(shipped_profiles()) or "none is shipped"
        raise InputError(
            f"no profile for {service!r}; known: {known}; or give a card file, package.module:factory, or the JSON "
            "file of 'splitinfer profile --save'"
        ) from None


def shipped_profiles() -> list[str]:
    """Return the names of the models whose profiles are shipped, sorted."""
    return sorted(path.stem for path in data_folder("profiles").glob("*.json"))


@lru_cache(maxsize=256)
def _load(path: Path, modified_ns: int) -> Profile:
    # modified_ns is part of the key so that a file profiled anew is read anew.
    return Profile.load(path)
