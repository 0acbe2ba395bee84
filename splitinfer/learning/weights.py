"""Learned networks at run time: plain matrices out of a safetensors file, applied with numpy.

A decision is a few small matrix products; this needs no torch, and no pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError

Floats = NDArray[np.float32]
Weights = Mapping[str, Floats]


def load_weights(path: Path) -> dict[str, Floats]:
    """Read a safetensors file.

    Raises:
        InputError: there is no such file, it cannot be read, or it is damaged: numbers that are not finite, or not of
            float32, decide nothing.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        weights = dict(load_file(path))
    except FileNotFoundError:
        raise InputError(f"policy: {path} does not exist") from None
    except OSError as error:
        raise InputError(f"policy: cannot read {path}: {error.strerror or error}") from None
    except (SafetensorError, KeyError, ValueError) as error:  # damaged, or of a dtype that numpy has not
        raise InputError(f"policy: {path} is damaged: {error}") from None
    for name, values in weights.items():
        if values.dtype != np.float32:
            raise InputError(f"policy: {path} is damaged: {name} is of {values.dtype}, not float32")
        if not np.isfinite(values).all():
            raise InputError(f"policy: {path} is damaged: {name} holds numbers that are not finite")
    return weights


class Perceptron:
    """Linear layers with an activation between them.

    Args:
        weights: a state dict.
        names: the layers' names in it, in order.
        activation: ``"tanh"`` or ``"relu"``.

    Raises:
        InputError: a layer is missing, or does not take what the one before gives.
    """

    def __init__(self, weights: Weights, names: list[str], *, activation: str = "tanh") -> None:
        self._is_tanh = activation == "tanh"
        try:
            self._layers = [(weights[f"{name}.weight"].T, weights[f"{name}.bias"]) for name in names]
        except KeyError as error:
            raise InputError(f"policy: the weights lack {error}") from None
        width = None
        for name, (weight, bias) in zip(names, self._layers, strict=True):
            if weight.ndim != 2 or bias.shape != weight.shape[1:] or width not in (None, weight.shape[0]):
                raise InputError(
                    f"policy: layer {name} has weights {weight.T.shape} and bias {bias.shape}, which take no "
                    f"{'vector' if width is None else width}"
                )
            width = weight.shape[1]

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self._layers[0][0].shape[0])

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return int(self._layers[-1][0].shape[1])

    def __call__(self, x: Floats) -> Floats:
        """Return the outputs for rows of inputs, (..., inputs) -> (..., outputs)."""
        for number, (weight, bias) in enumerate(self._layers):
            if number:
                x = np.tanh(x) if self._is_tanh else np.maximum(x, 0)
            x = x @ weight + bias
        return x
