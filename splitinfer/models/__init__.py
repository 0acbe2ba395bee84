"""Model cards to modules, inputs and weights. Reading a card needs no torch; the cards lie in ``models/``."""

from __future__ import annotations

from splitinfer.models.card import InputTensor, ModelCard, Preprocessing, card_names, list_cards, load_card
from splitinfer.models.loading import load_model
from splitinfer.models.options import CaptureOptions

__all__ = [
    "CaptureOptions",
    "InputTensor",
    "ModelCard",
    "Preprocessing",
    "card_names",
    "list_cards",
    "load_card",
    "load_model",
]
