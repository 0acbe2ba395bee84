"""Names of a model's classes."""

from __future__ import annotations

import contextlib
import json
from importlib.metadata import PackageNotFoundError, version

from splitinfer.errors import InputError
from splitinfer.files import cache_folder, is_ours, read_json, read_text, replacing
from splitinfer.models.card import ModelCard, check_inside


def class_names(card: ModelCard) -> tuple[str, ...] | None:
    """Return the card's class names in order of the model's output, or None if it has none.

    Raises:
        InputError: the card names a file or torchvision enum that does not exist.
    """
    if card.labels is None or isinstance(card.labels, tuple):
        return card.labels
    from splitinfer.models.weights import is_weight_enum

    if is_weight_enum(card.labels):
        return _torchvision_names(card.labels)
    check_inside(card, "labels", card.labels)
    path = card.folder / card.labels
    try:
        return tuple(read_text(path).splitlines())
    except OSError as error:
        raise InputError(f"model {card.name}: labels: cannot read {path}: {error.strerror}") from None


def _torchvision_names(weights: str) -> tuple[str, ...]:
    """Return the names that belong to a weight enum; kept between starts, since importing torchvision takes as long as
    importing torch."""
    try:
        kept = cache_folder() / "labels" / f"{weights}-{version('torchvision')}.json"
    except PackageNotFoundError:
        kept = None
    with contextlib.suppress(OSError, ValueError, TypeError):
        if kept is not None and is_ours(kept):
            return tuple(map(str, read_json(kept)))
    from splitinfer.models.weights import weight_enum

    names = tuple(weight_enum(weights).meta["categories"])
    with contextlib.suppress(OSError):
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with replacing(kept) as part:
                part.write_text(json.dumps(names), encoding="utf-8")
                part.chmod(0o600)
    return names
