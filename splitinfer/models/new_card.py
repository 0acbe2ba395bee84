"""A model card written for a model of the user's own, held to the model before it is written."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from splitinfer.errors import InputError
from splitinfer.models.card import card_from
from splitinfer.models.loading import load_model
from splitinfer.user_code import user_code

_PICTURE = "3x224x224"
_DIMENSIONS_OF_PICTURE = 3
_MORE_FIELDS = """\
# Fields that a card may have besides; the page on model cards has all of them.
# task = "what it is for"
# weights = "model.safetensors"                 # beside this file; random ones from `seed` without it
# labels = ["one", "two"]                       # or a text file with a name per line
# preprocess_with = "package.module:function"   # from a picture to all inputs, instead of [preprocessing]
"""


def new_card(source: str, inputs: Sequence[str] | None = None) -> str:
    """Return the text of a card, after the model has run once on inputs of its shapes.

    Args:
        source: ``package.module:factory``.
        inputs: of each positional input ``[dtype:]shape`` without the batch dimension, ``3x224x224`` or ``int64:16``;
            one picture of 3x224x224 by default.

    Raises:
        InputError: there is no such factory, a shape makes no sense, or the model does not take such inputs.
    """
    if ":" not in source:
        raise InputError(f"card: {source!r} is no factory; write PACKAGE.MODULE:FACTORY, for example mynet:build")
    model = load_model(card_from({"source": source}, name=source, folder=Path(), where="card"))
    takes = [
        parameter.name
        for parameter in inspect.signature(model.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    if not inputs and len(takes) > 1:
        example = " ".join(f"--input {_PICTURE if index == 0 else 'int64:16'}" for index in range(len(takes)))
        raise InputError(f"{source} takes {', '.join(takes)}: give the shape of each, for example {example}")
    record: dict[str, Any] = {
        "source": source,
        "description": "a model of my own",
        "inputs": [_input(text) for text in inputs or [_PICTURE]],
    }
    # Pictures make several inputs by code of the user's own alone.
    if len(record["inputs"]) == 1 and len(record["inputs"][0]["shape"]) == _DIMENSIONS_OF_PICTURE:
        channels, height, width = record["inputs"][0]["shape"]
        if channels in (1, 3):
            half = [0.5] * channels
            record["preprocessing"] = {"resize": [height, width], "mean": half, "std": half}
    card = card_from(record, name="new", folder=Path(), where="card")
    with user_code(f"card: running {source} on {', '.join(inputs or [_PICTURE])}"):
        model(*card.example_inputs())
    text = re.sub(r"\[\n\s+([^\]]*?),\n\]", lambda found: f"[{' '.join(found[1].split())}]", tomli_w.dumps(record))
    head, tables, rest = text.partition("[[inputs]]")
    return f"{head}{_MORE_FIELDS}\n{tables}{rest}"


def _input(text: str) -> dict[str, object]:
    dtype, colon, shape = text.rpartition(":")
    try:
        sizes = [int(size) for size in shape.lower().split("x")]
    except ValueError:
        raise InputError(f"--input: write [DTYPE:]SHAPE, for example 3x224x224 or int64:16, not {text!r}") from None
    return {"shape": sizes, "dtype": dtype} if colon else {"shape": sizes}
