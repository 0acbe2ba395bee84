"""From a model card to a module in evaluation mode, with given weights or seeded random ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitinfer.errors import InputError
from splitinfer.models.card import ModelCard, check_inside, load_card
from splitinfer.user_code import find_attribute, user_code

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
    if weights is None and chosen is not None:
        check_inside(card, "weights", chosen.partition("#")[0])
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
    with user_code(f"model {card.name}: {card.source}"):
        model = factory(**kwargs)
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model {card.name}: {card.source} returned {type(model).__name__}, not a torch.nn.Module")
    lazy = next((name for name, part in model.named_parameters() if torch.nn.parameter.is_lazy(part)), None)
    if lazy is not None:
        raise InputError(
            f"model {card.name}: {lazy} has no shape yet: run the model once in {card.source} before it is returned"
        )
    return model


def _factory(card: ModelCard) -> Callable[..., Any]:
    from splitinfer.torchvision_compat import prepare_torchvision

    module, _, attribute = card.source.partition(":")
    prepare_torchvision()  # also a module of the user's own may import it

    def fits(target: Any) -> bool:
        # Who types a factory's name gives it no arguments; a card does, and may come from elsewhere.
        return not card.folder.parts or _only_builds(target, card)

    factory: Callable[..., Any] = find_attribute(module, attribute, f"model {card.name}", kind="factory", fits=fits)
    return factory


def _only_builds(target: Any, card: ModelCard) -> bool:
    """Whether an installed factory does nothing but make a model, whatever a card has it called with."""
    import torch

    from splitinfer.models.libraries import build_hf

    if inspect.isclass(target):
        return issubclass(target, torch.nn.Module)
    home = getattr(target, "__module__", None) or ""
    if home.startswith("timm."):  # these load files and configurations of others
        names = str(card.kwargs.get("model_name", ""))
        return ":" not in names and not {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"} & {*card.kwargs}
    return home.startswith("torchvision.models.") or target is build_hf


def _draw_zero_weights(model: torch.nn.Module) -> None:
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.is_floating_point() and not parameter.any():
                parameter.normal_(std=_RANDOM_STD)
