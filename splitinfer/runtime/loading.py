"""From the name of a model to a captured model, in the same way on device and edge, so that fingerprints agree."""

from __future__ import annotations

from pathlib import Path

from splitinfer.graph import SplitModel
from splitinfer.models import CaptureOptions, ModelCard, load_card, load_model
from splitinfer.models.card import inputs_explained


def capture_card(ref: str | Path | ModelCard, options: CaptureOptions | None = None) -> SplitModel:
    """Load a model by its card and capture it at the card's input shapes, under the card's name.

    Args:
        ref: a card, its name, ``package.module:factory``, or a card file.
        options: how, if not as the card says.

    Raises:
        InputError: no such model, size, weights or engine.
        CaptureError: the model cannot be captured.
    """
    options = options or CaptureOptions()
    card = ref if isinstance(ref, ModelCard) else load_card(ref)
    with inputs_explained(card):
        return SplitModel.capture(
            load_model(card, weights=options.weights),
            card.example_inputs(input_size=options.input_size),
            optimize=options.optimize,
            engine=options.engine,
            name=card.name,
        )
