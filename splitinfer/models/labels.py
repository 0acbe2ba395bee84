"""Names of a model's classes."""

from __future__ import annotations

from splitinfer.errors import InputError
from splitinfer.files import read_text
from splitinfer.models.card import ModelCard, check_inside


def class_names(card: ModelCard) -> tuple[str, ...] | None:
    """Return the card's class names in order of the model's output, or None if it has none.

    Raises:
        InputError: the card names a file or torchvision enum that does not exist.
    """
    if card.labels is None or isinstance(card.labels, tuple):
        return card.labels
    from splitinfer.models.weights import is_weight_enum, weight_enum

    if is_weight_enum(card.labels):
        return tuple(weight_enum(card.labels).meta["categories"])
    check_inside(card, "labels", card.labels)
    path = card.folder / card.labels
    try:
        return tuple(read_text(path).splitlines())
    except UnicodeDecodeError:
        raise InputError(f"model {card.name}: labels: {path} is no UTF-8 text") from None
    except OSError as error:
        raise InputError(f"model {card.name}: labels: cannot read {path}: {error.strerror}") from None
