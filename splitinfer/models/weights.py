"""Weights from a torchvision enum, a safetensors file or a state-dict file. No pickle is ever executed."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from splitinfer.errors import InputError

_ENUM = re.compile(r"^[A-Za-z_]\w*_Weights\.\w+$")
# torchvision's DenseNet files still have the layer names of 2017: "denselayer1.norm.1.weight".
_DENSENET_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d\.)")
_SHOWN_KEYS = 3

StateDict = dict[str, torch.Tensor]


def read_weights(weights: str, folder: Path) -> StateDict:
    """Return a state dict.

    Args:
        weights: ``"ResNet18_Weights.DEFAULT"`` (downloaded once into torch's cache) or the path of a file: safetensors,
            what ``torch.save(model.state_dict(), ...)`` wrote, or a checkpoint that holds such a state dict under one
            of its keys (``{"epoch": 3, "model": ...}``); with several, ``file.pt#KEY`` says which.
        folder: where a relative path starts.

    Raises:
        InputError: no such enum or file, the download fails, or the file holds anything but tensors by name.
    """
    if _ENUM.match(weights):
        return _download(weights)
    name, _, part = weights.partition("#")
    path = folder / Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"weights {weights!r}: there is no file {path}; a torchvision name is Model_Weights.DEFAULT")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_state_dict(path, part)


def load_weights(model: torch.nn.Module, state: StateDict, *, source: str) -> None:
    """Put a state dict into a model; every name and shape has to fit.

    Of torchvision's published weights, heads that exist for training only (``aux``) may be absent from the model.

    Raises:
        InputError: a name is missing, unknown, or of another shape; the message names the first ones.
    """
    own = model.state_dict()
    state = _without_wrapper(state, own)
    if is_weight_enum(source):
        state = {name: value for name, value in state.items() if name in own or not name.startswith("aux")}
    problems = []
    if missing := [name for name in own if name not in state]:
        problems.append(f"lack {_some(missing)}")
    if unknown := [name for name in state if name not in own]:
        problems.append(f"have unknown {_some(unknown)}")
    wrong = [
        f"{name} ({tuple(state[name].shape)} instead of {tuple(own[name].shape)})"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if wrong:
        problems.append(f"have another shape in {_some(wrong)}")
    kinds = [
        f"{name} ({state[name].dtype} instead of {own[name].dtype})"
        for name in own
        if name in state and state[name].is_floating_point() != own[name].is_floating_point()
    ]
    if kinds:
        problems.append(f"have another kind of numbers in {_some(kinds)}")
    if problems:
        raise InputError(f"weights {source} do not fit {type(model).__name__}: they {'; they '.join(problems)}")
    model.load_state_dict(state)


def _without_wrapper(state: StateDict, own: StateDict) -> StateDict:
    """Names as the bare model has them: data parallelism and compilation put a prefix before each."""
    for prefix in ("module.", "_orig_mod."):
        if (
            state
            and all(name.startswith(prefix) for name in state)
            and not any(name.startswith(prefix) for name in own)
        ):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def weight_enum(name: str) -> Any:
    """Return a torchvision weight enum by its name, ``"ResNet18_Weights.DEFAULT"``.

    Raises:
        InputError: torchvision has no such weights.
    """
    from splitinfer.torchvision_compat import import_torchvision

    torchvision = import_torchvision()
    try:
        return torchvision.models.get_weight(name)
    except (ValueError, AttributeError, KeyError):
        raise InputError(
            f"torchvision has no weights named {name!r}; a name is like ResNet18_Weights.DEFAULT"
        ) from None


def is_weight_enum(text: str) -> bool:
    """True when the text has the form of a torchvision weight enum's name."""
    return bool(_ENUM.match(text))


def _download(name: str) -> StateDict:
    enum = weight_enum(name)
    try:
        state = enum.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"cannot download {name} from {enum.url}: {error}; save the weights as a file and give its path instead"
        ) from error
    return {_DENSENET_OLD_NAME.sub(r"\1\2", key): value for key, value in state.items()}


def _read_safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"weights {path} are not a safetensors file: {error}") from error


def _read_state_dict(path: Path, part: str) -> StateDict:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"weights {path} are refused: the file holds more than tensors, or is none of torch's; "
            "save model.state_dict() with torch.save, or use safetensors"
        ) from error
    except Exception as error:  # what is no file of torch's fails in its reader in any way
        raise InputError(f"weights {path} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(state, dict):
        raise InputError(f"weights {path} are refused: they hold a {type(state).__name__}, not names with tensors")
    if part:
        if not _is_state_dict(state.get(part)):
            raise InputError(f"weights {path}: {part!r} is no state dict in it; it holds {_keys(state)}")
        return dict(state[part])
    if not state or _is_state_dict(state):
        return dict(state)
    inner = [key for key, value in state.items() if _is_state_dict(value)]
    if len(inner) != 1:
        which = f"several state dicts ({', '.join(map(str, inner))}); name one" if inner else "no state dict"
        raise InputError(
            f"weights {path} are refused: they hold {which}; the keys are {_keys(state)} ({path.name}#KEY)"
        )
    return dict(state[inner[0]])


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items())
    )


def _keys(state: dict[Any, Any]) -> str:
    return _some([str(key) for key in state]) or "nothing"


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN_KEYS
    return ", ".join(names[:_SHOWN_KEYS]) + (f" and {rest} more" if rest > 0 else "")
