"""What codecs make of the tensors that really cross a model's cuts: bits, time, error, changed answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splitinfer.errors import InputError
from splitinfer.graph import SplitModel
from splitinfer.models import ModelCard
from splitinfer.profiling.profile import CodecRecord
from splitinfer.wire.codecs import CODECS, Codec
from splitinfer.wire.layout import dense
from splitinfer.wire.torch_tensors import from_torch, to_torch


def sample_photos(folder: Path | None = None) -> list[Any]:
    """Return pictures to measure on: a folder's, scikit-learn's two photographs, or the one that is always there.

    Raises:
        InputError: the folder has none.
    """
    from splitinfer.models.photos import photos

    if folder is not None:
        return list(photos(folder))
    try:
        from PIL import Image
        from sklearn.datasets import load_sample_images

        return [Image.fromarray(image) for image in load_sample_images().images]
    except ImportError:
        return list(photos())


def measure_codecs(
    split: SplitModel,
    card: ModelCard,
    pictures: Sequence[Any],
    *,
    cuts: Sequence[int],
    codecs: Sequence[Codec] = CODECS,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[CodecRecord, ...]:
    """Measure every codec at some cuts, over some pictures.

    Args:
        split: the model.
        card: how a picture becomes its input; random inputs where it does not say.
        pictures: paths or PIL images.
        cuts: below K.
        codecs: which.
        progress: called with (done, to do).

    Raises:
        InputError: a cut sends nothing, or a picture cannot be read.
    """
    if any(k not in split.tails for k in cuts):
        raise InputError(f"cuts: codecs are about cuts that send something, 0..{split.num_cuts - 1}")
    if card.preprocessing is not None and len(card.inputs) == 1:
        inputs: list[tuple[torch.Tensor, ...]] = [(card.preprocess(picture),) for picture in pictures]
    else:
        inputs = [card.example_inputs(seed=seed) for seed in range(2)]
    answers = [_first(split(*one)) for one in inputs]
    records = []
    for done, k in enumerate(cuts):
        crossing = [split.run_head(k, *one) for one in inputs]
        for codec in codecs:
            measured = [
                _through(split, k, codec, tensors, answer) for tensors, answer in zip(crossing, answers, strict=True)
            ]
            bits, encode_s, decode_s, error, same = (float(np.mean(column)) for column in zip(*measured, strict=True))
            records.append(CodecRecord(k, codec.name, bits, encode_s, decode_s, error, same))
        if progress is not None:
            progress(done + 1, len(cuts))
    return tuple(records)


def _through(
    split: SplitModel, k: int, codec: Codec, tensors: tuple[torch.Tensor, ...], answer: torch.Tensor
) -> tuple[float, float, float, float, float]:
    """Bits, seconds to encode and decode, relative error of the answer, and whether its largest entry is the same."""
    bits, encode_s, decode_s, received = 0, 0.0, 0.0, []
    for tensor in tensors:
        spec, stored = dense(from_torch(tensor))
        data = None
        if codec.takes(spec.dtype):
            start = time.perf_counter()
            data = codec.encode(stored, spec)
            encode_s += time.perf_counter() - start
        if data is None:
            bits += spec.nbytes * 8
            received.append(tensor)
            continue
        bits += len(data) * 8
        start = time.perf_counter()
        flat = codec.decode(memoryview(data), spec)
        decode_s += time.perf_counter() - start
        received.append(to_torch(spec.arrange(np.array(flat))))
    found = _first(split.run_tail(k, *received)).double()
    expected = answer.double()
    scale = float(expected.pow(2).mean().sqrt()) or 1.0
    error = float((found - expected).pow(2).mean().sqrt()) / scale
    same = (
        float((found.flatten(1).argmax(1) == expected.flatten(1).argmax(1)).double().mean()) if found.dim() > 1 else 1.0
    )
    return float(bits), encode_s, decode_s, error, same


def _first(output: Any) -> torch.Tensor:
    from torch.utils import _pytree as pytree

    tensors = [
        leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    ]
    if not tensors:
        raise InputError("codecs: the model returns no floating-point tensor to compare")
    return tensors[0]
