"""Real pictures to run models on: a folder of the user's, or the photograph that every installation has."""

from __future__ import annotations

from pathlib import Path

from splitinfer.errors import InputError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def shipped_photo() -> Path:
    """Return a photograph that is on every machine with splitinfer: matplotlib brings one (public domain).

    Raises:
        InputError: this matplotlib does not.
    """
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    if not path.is_file():
        raise InputError("this matplotlib brings no photograph; give one with --input or --images")
    return path


def photos(folder: str | Path | None = None) -> list[Path]:
    """Return one picture, those of a folder in order of their names, or the shipped photograph.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    if folder is None:
        return [shipped_photo()]
    path = Path(folder)
    if path.is_file() and path.suffix.lower() in _SUFFIXES:
        return [path]
    if not path.is_dir():
        raise InputError(f"images: {path} is no folder and no picture")
    found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES)
    if not found:
        raise InputError(f"images: {path} has no picture ({', '.join(_SUFFIXES)})")
    return found
