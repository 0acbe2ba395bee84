"""What callers hand to the clients, held to what it has to be: one line names the argument that is something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from splitinfer.errors import InputError
from splitinfer.runtime.perseverance import checked_on_failure
from splitinfer.runtime.settings import ClientSettings, ServerSettings

if TYPE_CHECKING:
    from splitinfer.graph import SplitModel
    from splitinfer.models import ModelCard

_Inputs = TypeVar("_Inputs")
_Settings = TypeVar("_Settings", ClientSettings, ServerSettings)


def checked_settings(settings: _Settings | None, kind: type[_Settings]) -> _Settings:
    """Return the settings, by default those of their kind.

    Raises:
        InputError: they are something else.
    """
    if settings is None:
        return kind()
    if not isinstance(settings, kind):
        raise InputError(f"settings must be {kind.__name__}, not {type(settings).__name__}")
    return settings


def checked_split(split: SplitModel) -> SplitModel:
    """Return the model. Its class is not asked for, which would import torch.

    Raises:
        InputError: it cannot be cut.
    """
    if not hasattr(split, "find_cut"):
        raise InputError(f"split must be a SplitModel (SplitModel.capture makes one), not {type(split).__name__}")
    return split


def checked_tensors(tensors: Sequence[Any]) -> Sequence[Any]:
    """Return what crosses a cut.

    Raises:
        InputError: it is no sequence of tensors, but one of them, for example.
    """
    if not isinstance(tensors, Sequence) or isinstance(tensors, str | bytes):
        what = type(tensors).__name__
        raise InputError(f"tensors must be a tuple of what crosses the cut, as run_head returns it, not {what}")
    return tensors


def checked_card(card: ModelCard) -> ModelCard:
    """Return the card.

    Raises:
        InputError: it is something else.
    """
    if not hasattr(card, "preprocess_with"):
        raise InputError(f"card must be a ModelCard (splitinfer.models.load_card reads one), not {type(card).__name__}")
    return card


def check_choices(codec: str | None, on_failure: str | None) -> None:
    """Refuse what is neither None nor a name.

    Raises:
        InputError: a codec that is no text, or no such ``on_failure``.
    """
    if codec is not None and not (isinstance(codec, str) and codec):
        raise InputError(f"codec must be a name such as 'int8', not {codec!r}")
    if on_failure is not None:
        checked_on_failure(on_failure)


def checked_window(window: Any) -> int:
    """Return how many requests may be under way at once.

    Raises:
        InputError: it is no whole number from 1 on.
    """
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        raise InputError(f"window must be at least 1, a whole number, not {window!r}")
    return window


def checked_inputs(inputs: _Inputs) -> _Inputs:
    """Return the inputs of a stream.

    Raises:
        InputError: they are no series.
    """
    if not hasattr(inputs, "__iter__") and not hasattr(inputs, "__aiter__"):
        raise InputError(f"inputs must be a series, of one input or a tuple for each inference, not {inputs!r}")
    return inputs
