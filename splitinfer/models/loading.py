"""From a model card to a module in evaluation mode, with given weights or seeded random ones."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitinfer.errors import InputError
from splitinfer.models.card import ModelCard, load_card

if TYPE_CHECKING:
    import torch

# Spread of the weights that replace all-zero ones in a random model.
_RANDOM_STD = 0.02


def load_model(
    ref: str | Path | ModelCard, *, weights: str | Path | None = None, seed: int | None = None
) -> torch.nn.Module:
    """Return a model in evaluation mode.

    Without weights (in the card or given here) the model has random ones. They depend on the seed alone, so that two
    machines with the same card hold the same model, and the caller's random state is left as it was. Layers that a
    factory starts at exactly zero (the classifier of a ViT) are drawn too, so that the output depends on the input.

    Args:
        ref: a model card or its name, ``"package.module:factory"``, or the path of a card file.
        weights: a torchvision weight enum or a file of weights, instead of the card's.
        seed: of random weights, instead of the card's.

    Raises:
        InputError: no such model or weights, the factory fails, or the weights do not fit the model.
    """
    import torch

    from splitinfer.models.weights import load_weights, read_weights

    card = ref if isinstance(ref, ModelCard) else load_card(ref)
    chosen = str(weights) if weights is not None else card.weights
    folder = Path() if weights is not None else card.folder
    state = read_weights(chosen, folder) if chosen is not None else None  # a wrong name fails before a slow build
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(card.seed if seed is None else seed)
        model = _build(card)
        if state is None:
            _draw_zero_weights(model)
    if state is not None:
        load_weights(model, state, source=str(chosen))
    return model.eval()


def load_structure(ref: str | Path | ModelCard) -> torch.nn.Module:
    """Return the model without values in its weights where that is possible, to count what it does in less time.

    Its tensors are on torch's ``meta`` device; a factory that looks at values gets real random weights instead.

    Raises:
        InputError: no such model, or the factory fails.
    """
    import torch

    card = ref if isinstance(ref, ModelCard) else load_card(ref)
    try:
        with torch.device("meta"):
            return _build(card).eval()
    except InputError:
        return load_model(card)


def _build(card: ModelCard) -> torch.nn.Module:
    import torch

    factory = _factory(card)
    kwargs = dict(card.kwargs)
    if card.source.startswith("torchvision.") and "weights_backbone" in inspect.signature(factory).parameters:
        # torchvision's segmentation models download a backbone unless told not to, and TOML cannot say None.
        kwargs.setdefault("weights_backbone", None)
    try:
        model = factory(**kwargs)
    except Exception as error:  # the factory is the user's code and may raise anything
        raise InputError(f"model {card.name}: {card.source} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model {card.name}: {card.source} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _factory(card: ModelCard) -> Callable[..., Any]:
    module_name, _, attribute = card.source.partition(":")
    if module_name.partition(".")[0] == "torchvision":
        from splitinfer.torchvision_compat import import_torchvision

        import_torchvision()
    # A console script does not have the working folder on its path, and a user's factory is usually there.
    here = os.fspath(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise InputError(f"model {card.name}: cannot import {module_name}: {error}") from error
    target: Any = module
    for part in attribute.split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise InputError(f"model {card.name}: {module_name} has no factory {attribute!r}")
    factory: Callable[..., Any] = target
    return factory


def _draw_zero_weights(model: torch.nn.Module) -> None:
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.is_floating_point() and not parameter.any():
                parameter.normal_(std=_RANDOM_STD)
