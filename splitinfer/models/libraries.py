"""Models by name out of the libraries that have them: torchvision, timm (``timm:NAME``) and transformers (``hf:NAME``).

A card is made from what the library says of the model: its usual input, preprocessing and class names. Nothing is
downloaded: weights are random from the card's seed unless a file is given, and ``hf:`` builds a default configuration.
"""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from splitinfer.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import torch

TEXT_TOKENS = 32
"""Length of the text that a language model is captured at."""

_INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


def library_card(name: str) -> dict[str, Any] | None:
    """Return the fields of a card for a library's model; None where no library speaks of such a name.

    Raises:
        InputError: the library has no such model, or one whose input a card cannot say.
        MissingExtraError: the library is not installed.
    """
    if name.startswith("timm:"):
        return _timm_card(name.removeprefix("timm:"))
    if name.startswith("hf:"):
        return _hf_card(name.removeprefix("hf:"))
    return _torchvision_card(name)


def library_names() -> dict[str, list[str]]:
    """Return the models of each installed library, by its name."""
    names: dict[str, list[str]] = {}
    if find_spec("torchvision") is not None:
        from splitinfer.torchvision_compat import import_torchvision

        names["torchvision"] = list(import_torchvision().models.list_models())
    if find_spec("timm") is not None:
        timm = _import_timm()
        names["timm"] = [f"timm:{name}" for name in timm.list_models()]
    if find_spec("transformers") is not None:
        from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

        names["hf"] = [f"hf:{name}" for name in sorted(MODEL_MAPPING_NAMES)]
    return names


def _torchvision_card(name: str) -> dict[str, Any] | None:
    if find_spec("torchvision") is None:
        return None
    from splitinfer.torchvision_compat import import_torchvision

    models = import_torchvision().models
    try:
        builder = models.get_model_builder(name)
    except ValueError:
        return None
    module = builder.__module__
    if module.startswith("torchvision.models.detection"):
        raise InputError(
            f"model {name}: a detector takes a list of pictures and its size depends on what it sees; "
            "docs/capture.md shows how to split its backbone"
        )
    card: dict[str, Any] = {"source": f"{module}:{builder.__name__}", "description": f"{name} of torchvision"}
    if name in ("inception_v3", "googlenet"):
        card["kwargs"] = {"init_weights": False}  # their own initialisation takes long and says so
    weights = models.get_model_weights(name)
    rules = weights.DEFAULT.transforms() if len(weights) else None
    if rules is None or not hasattr(rules, "mean"):
        return card
    size = getattr(rules, "crop_size", None) or getattr(rules, "resize_size", None)
    side = list(size) if isinstance(size, list | tuple) else [size]
    height, width = side if len(side) == 2 else (side[0], side[0])
    if module.startswith("torchvision.models.video"):
        frames = getattr(weights.DEFAULT, "meta", {}).get("min_temporal_size") or 16
        return card | {"inputs": [{"shape": [len(rules.mean), frames, height, width]}]}
    resize = getattr(rules, "resize_size", None) or size
    resize = list(resize) if isinstance(resize, list | tuple) else [resize]
    is_dense = module.startswith("torchvision.models.segmentation")
    return card | {
        "inputs": [{"shape": [len(rules.mean), height, width]}],
        "preprocessing": {
            "resize": [height, width] if is_dense else resize if len(resize) == 2 else resize[0],
            "mean": list(rules.mean),
            "std": list(rules.std),
            "interpolation": getattr(rules.interpolation, "value", "bilinear"),
        },
        "labels": f"{weights.__name__}.DEFAULT" if "categories" in weights.DEFAULT.meta else None,
    }


def _import_timm() -> Any:
    if find_spec("timm") is None:
        raise MissingExtraError("timm", "timm")
    from splitinfer.torchvision_compat import prepare_torchvision

    prepare_torchvision()
    import timm

    return timm


def _timm_card(name: str) -> dict[str, Any]:
    timm = _import_timm()
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(f"timm has no model {name!r}; splitinfer models --all lists them")
    rules = timm.get_pretrained_cfg(name, allow_unregistered=True)
    shape = list(getattr(rules, "input_size", None) or (3, 224, 224))
    card: dict[str, Any] = {
        "source": "timm:create_model",
        "kwargs": {"model_name": name},
        "description": f"{name} of timm",
        "inputs": [{"shape": shape}],
    }
    mean, std = (list(getattr(rules, part, None) or ()) for part in ("mean", "std"))
    if len(mean) != shape[0] or len(std) != shape[0] or len(mean) not in (1, 3):
        return card
    crop = getattr(rules, "crop_pct", None) or 1.0
    how = getattr(rules, "interpolation", "bicubic")
    return card | {
        "preprocessing": {
            "resize": round(max(shape[1:]) / crop) if shape[1] == shape[2] else shape[1:],
            "mean": mean,
            "std": std,
            "interpolation": how if how in _INTERPOLATIONS else "bicubic",
        }
    }


def _hf_card(name: str) -> dict[str, Any]:
    make, config = _hf_model(name)
    vision = getattr(config, "image_size", None)
    model_class = make if inspect.isclass(make) else None
    main = getattr(model_class, "main_input_name", None) or _main_input(config)
    if main == "pixel_values":
        channels = getattr(config, "num_channels", 3)
        side = vision if vision is not None else 224
        height, width = side if isinstance(side, list | tuple) else (side, side)
        inputs: dict[str, Any] = {"shape": [channels, height, width]}
    elif main == "input_ids":
        vocabulary = int(getattr(config, "vocab_size", 0) or getattr(config.get_text_config(), "vocab_size", 1000))
        inputs = {"shape": [TEXT_TOKENS], "dtype": "int64", "high": vocabulary}
    else:
        raise InputError(
            f"model hf:{name}: its first input is {main}, which a name does not say the size of; write a card with "
            "[[inputs]] and a factory of your own"
        )
    return {
        "source": "splitinfer.models.libraries:build_hf",
        "kwargs": {"name": name, "main": main},
        "description": f"{name} of transformers, at its configuration's default",
        "inputs": [inputs],
    }


def _main_input(config: Any) -> str:
    from transformers import MODEL_MAPPING

    found: Any = MODEL_MAPPING[type(config)]
    return str((found[0] if isinstance(found, tuple) else found).main_input_name)


def _hf_model(name: str) -> tuple[Any, Any]:
    """What makes the model, and the configuration it is made from."""
    if find_spec("transformers") is None:
        raise MissingExtraError("transformers", "hf")
    from splitinfer.torchvision_compat import prepare_torchvision

    if find_spec("torchvision") is not None:
        prepare_torchvision()
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    found: Any = getattr(transformers, name, None)
    bases = inspect.getmro(found) if inspect.isclass(found) else ()
    if transformers.PreTrainedConfig in bases:
        return transformers.AutoModel.from_config, found()
    if transformers.PreTrainedModel in bases:
        return found, found.config_class()
    if name in CONFIG_MAPPING:
        return transformers.AutoModel.from_config, CONFIG_MAPPING[name]()
    raise InputError(
        f"transformers has no model type, configuration or model class {name!r}; for example hf:bert, hf:ViTConfig, "
        "hf:ViTForImageClassification"
    )


def build_hf(name: str, main: str) -> torch.nn.Module:
    """Build a model of transformers from its default configuration, without a cache, with one positional input."""
    make, config = _hf_model(name)
    if hasattr(config, "use_cache"):
        config.use_cache = False  # a cache is state between calls, which no split can carry
    model: torch.nn.Module = make(config)
    first = next(iter(inspect.signature(model.forward).parameters), None)
    return model if first == main else _named_input(model, main)


def _named_input(model: torch.nn.Module, main: str) -> torch.nn.Module:
    import torch

    class NamedInput(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, value: torch.Tensor) -> Any:
            return self.model(**{main: value})

    return NamedInput()
