"""From the name of a model to a captured model, in the same way on device and edge, so that fingerprints agree."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import splitinfer
from splitinfer.files import cache_folder, check_file
from splitinfer.graph import SplitModel
from splitinfer.models import CaptureOptions, ModelCard, load_card, load_model
from splitinfer.models.card import check_inside, inputs_explained

_LIBRARIES = {"torchvision": "torchvision", "timm": "timm", "splitinfer": "transformers"}
"""By the package of a factory, the one whose version says what it builds; ``hf:`` models are built by our own."""


def capture_card(ref: str | Path | ModelCard, options: CaptureOptions | None = None) -> SplitModel:
    """Load a model by its card and capture it at the card's input shapes, under the card's name.

    Captures of models out of libraries are kept in ``$SPLITINFER_CACHE`` (``~/.cache/splitinfer``) by everything that
    they depend on, and read again by the next start; a factory of the user's own is captured anew each time, since
    nobody knows what it reads.

    Args:
        ref: a card, its name, ``package.module:factory``, or a card file.
        options: how, if not as the card says.

    Raises:
        InputError: no such model, size, weights or engine.
        CaptureError: the model cannot be captured.
    """
    options = options or CaptureOptions()
    card = ref if isinstance(ref, ModelCard) else load_card(ref)
    keep = _kept_at(card, options)
    if keep is not None:
        split = SplitModel.reopen(keep, name=card.name, optimize=options.optimize, engine=options.engine)
        if split is not None:
            return split
    with inputs_explained(card):
        return SplitModel.capture(
            load_model(card, weights=options.weights),
            card.example_inputs(input_size=options.input_size),
            optimize=options.optimize,
            engine=options.engine,
            name=card.name,
            keep=keep,
        )


def _kept_at(card: ModelCard, options: CaptureOptions) -> Path | None:
    """File of a card's capture, named by what decides it; None where that cannot be known."""
    import torch

    library = _LIBRARIES.get(card.source.partition(":")[0].partition(".")[0])
    if library is None or (library == "transformers" and card.source != "splitinfer.models.libraries:build_hf"):
        return None
    weights = _weights_key(card, options)
    try:
        built_by = [library, version(library)]
    except PackageNotFoundError:
        return None
    if weights is None:
        return None
    package = Path(splitinfer.__file__).parent
    sources = sorted([*(package / "graph").rglob("*.py"), *(package / "models").rglob("*.py")])
    key = [
        card.model_dump(mode="json"),
        weights,
        options.input_size,
        options.optimize,
        built_by,
        torch.__version__,
        str(torch.get_default_dtype()),
        # Random weights are drawn by the kernels of this processor.
        torch.backends.cpu.get_cpu_capability(),
        [platform.machine(), platform.python_version()],
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources],
    ]
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / "captures" / f"{name}.safetensors"


def _weights_key(card: ModelCard, options: CaptureOptions) -> str | None:
    """What tells a model's weights from others: nothing for random ones, an enum's name, what a file holds."""
    from splitinfer.models.weights import is_weight_enum

    chosen = options.weights if options.weights is not None else card.weights
    if chosen is None or is_weight_enum(chosen):
        return chosen or ""
    name, _, part = chosen.partition("#")
    folder = Path() if options.weights is not None else card.folder
    if options.weights is None:
        check_inside(card, "weights", name)
    path = folder / Path(name).expanduser()
    try:
        check_file(path)
        with path.open("rb") as file:
            return f"{hashlib.file_digest(file, 'sha256').hexdigest()}#{part}"
    except OSError:
        return None
