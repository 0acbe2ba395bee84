"""From the name of a model to a captured model, in the same way on device and edge, so that fingerprints agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from splitinfer.graph import SplitModel
from splitinfer.models import ModelCard, load_card, load_model

if TYPE_CHECKING:
    from splitinfer.models.card import ImageSize


def capture_card(
    ref: str | Path | ModelCard, *, input_size: ImageSize | None = None, weights: str | None = None
) -> SplitModel:
    """Load a model by its card and capture it at the card's input shapes, under the card's name.

    Args:
        ref: a card, its name, ``package.module:factory``, or a card file.
        input_size: height and width in pixels instead of the card's.
        weights: a torchvision weight enum or a file, instead of the card's.

    Raises:
        InputError: no such model, size or weights.
        CaptureError: the model cannot be captured.
    """
    card = ref if isinstance(ref, ModelCard) else load_card(ref)
    return SplitModel.capture(
        load_model(card, weights=weights), card.example_inputs(input_size=input_size), name=card.name
    )
