"""What codecs make of the tensors that really cross a model's cuts: bits, time, error, changed answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from splitinfer.errors import InputError
from splitinfer.graph import SplitModel
from splitinfer.models import ModelCard
from splitinfer.models.sent_pictures import PictureCodec, Preparation, wanted_picture_codec
from splitinfer.profiling.profile import CodecRecord
from splitinfer.wire.codecs import INSTALLED, Buffer, Codec, codecs_named
from splitinfer.wire.codecs.zstd import ZstdCodec
from splitinfer.wire.dtypes import Array
from splitinfer.wire.layout import ArraySpec, dense
from splitinfer.wire.torch_tensors import from_torch, to_torch

T = TypeVar("T")

PICTURE_CODECS = ("uint8", "uint8+zstd", "jpeg", "jpeg:75", "webp:75")
"""Of the pictures themselves at cut 0; ``jpeg`` is the file as it is."""


def sample_photos(folder: Path | None = None) -> list[Path]:
    """Return pictures to measure on: a folder's, scikit-learn's two photographs, or the one that is always there.

    Raises:
        InputError: the folder has none.
    """
    from splitinfer.models.photos import photos

    if folder is not None:
        return list(photos(folder))
    return list(two_photographs() or photos())


def two_photographs() -> list[Path]:
    """Return the files of scikit-learn's two photographs; none where it is not installed."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        return []
    return sorted(Path(name) for name in load_sample_images().filenames)


def described(pictures: Sequence[Path], card: ModelCard, weights: str | None = None) -> str:
    """Return what codecs were measured on, in a line: the pictures, and the weights."""
    names = [path.name for path in pictures]
    shown = f"{', '.join(names[:2])} and {len(names) - 2} more" if len(names) > 3 else ", ".join(names)
    return f"pictures: {shown}; weights: {weights or card.weights or f'drawn from seed {card.seed}, not trained'}"


def measure_codecs(
    split: SplitModel,
    card: ModelCard,
    pictures: Sequence[Any],
    *,
    cuts: Sequence[int],
    codecs: Sequence[Codec] = INSTALLED,
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


def measure_picture_codecs(
    split: SplitModel, card: ModelCard, pictures: Sequence[Path], *, codecs: Sequence[str] = PICTURE_CODECS
) -> tuple[CodecRecord, ...]:
    """Measure pictures that are sent themselves, at cut 0: decoding is what the edge makes a model's input with.

    Args:
        split: the model.
        card: how a picture becomes its input.
        pictures: files.
        codecs: of pictures.

    Raises:
        InputError: a picture cannot be read, or the card takes none.
    """
    prepare = Preparation(card)
    answers = [_first(split(card.preprocess(picture))) for picture in pictures]
    records = []
    for name in codecs:
        codec, measured = wanted_picture_codec(name), []
        (wire,) = codecs_named([codec.wire])
        for picture, answer in zip(pictures, answers, strict=True):
            (data, spec), encode_s = _timed(_encoded_picture, codec, wire, picture)
            inputs, decode_s = _timed(_opened_picture, prepare, wire, data, spec)
            error, same = _compared(_first(split(*inputs)), answer)
            measured.append((8.0 * data.nbytes, encode_s, decode_s, error, same))
        columns = (float(np.mean(column)) for column in zip(*measured, strict=True))
        records.append(CodecRecord(0, name, *columns))
    return tuple(records)


def measure_codec_bits(
    split: SplitModel, card: ModelCard, pictures: Sequence[Path], *, codecs: Sequence[Codec] = INSTALLED
) -> tuple[CodecRecord, ...]:
    """Return the bits of every codec at every cut, means over some pictures, to a ten-thousandth of a bit an element.

    At cut 0 they are those of the pictures themselves as well, in their whole size.

    Args:
        split: the model.
        card: how a picture becomes its input.
        pictures: files.
        codecs: which.

    Raises:
        InputError: a picture cannot be read, or the card takes none.
    """
    inputs = [card.preprocess(picture) for picture in pictures]
    records = []
    for name in PICTURE_CODECS:
        codec, sent = wanted_picture_codec(name), []
        for picture in pictures:
            spec, stored = dense(codec.encode(picture))
            sent += [size for _, size in _encoded_bits(codecs_named([codec.wire]), stored, spec)]
        records.append(_rounded(0, name, sent, inputs[0].numel()))
    for cut in (*split.cuts[:-1], *split.set_cuts):
        crossing = [[dense(from_torch(one)) for one in split.run_head(cut.index, picture)] for picture in inputs]
        elements = sum(spec.elements for spec, _ in crossing[0])
        bits = {codec.name: [0] * len(inputs) for codec in codecs}
        for place, tensors in enumerate(crossing):
            for spec, stored in tensors:
                for name, size in _encoded_bits(codecs, stored, spec):
                    bits[name][place] += size
        records += [_rounded(cut.index, name, found, elements) for name, found in bits.items()]
    return tuple(records)


def _rounded(cut: int, codec: str, bits: Sequence[int], elements: int) -> CodecRecord:
    """As a profile's file holds it."""
    return CodecRecord(cut, codec, round(float(np.mean(bits)) / elements, 4) * elements)


def _encoded_bits(codecs: Sequence[Codec], stored: Array, spec: ArraySpec) -> Iterator[tuple[str, int]]:
    """The bits of one tensor by codec; what is only compressed after another is encoded once."""
    plain: dict[str, Buffer | None] = {}
    for codec in codecs:
        inner = codec.inner if isinstance(codec, ZstdCodec) else codec
        if inner.name not in plain:
            plain[inner.name] = inner.encode(stored, spec) if inner.takes(spec.dtype) else None
        data = plain[inner.name]
        if data is not None and isinstance(codec, ZstdCodec):
            data = codec.compressed(data)
        yield codec.name, 8 * (spec.nbytes if data is None else len(data))


def _through(
    split: SplitModel, k: int, codec: Codec, tensors: tuple[torch.Tensor, ...], answer: torch.Tensor
) -> tuple[float, float, float, float, float]:
    """Bits, seconds to encode and decode, relative error of the answer, and whether its largest entry is the same."""
    bits, encode_s, decode_s, received = 0, 0.0, 0.0, []
    for tensor in tensors:
        spec, stored = dense(from_torch(tensor))
        data = None
        if codec.takes(spec.dtype):
            data, took_s = _timed(codec.encode, stored, spec)
            encode_s += took_s
        if data is None:
            bits += spec.nbytes * 8
            received.append(tensor)
            continue
        bits += len(data) * 8
        flat, took_s = _timed(codec.decode, memoryview(data), spec)
        decode_s += took_s
        received.append(to_torch(spec.arrange(np.array(flat))))
    error, same = _compared(_first(split.run_tail(k, *received)), answer)
    return float(bits), encode_s, decode_s, error, same


def _encoded_picture(codec: PictureCodec, wire: Codec, picture: Path) -> tuple[memoryview, ArraySpec]:
    spec, stored = dense(codec.encode(picture))
    data = wire.encode(stored, spec)
    assert data is not None  # bytes are never refused
    return memoryview(data).cast("B"), spec


def _opened_picture(prepare: Preparation, wire: Codec, data: memoryview, spec: ArraySpec) -> tuple[Any, ...]:
    return prepare(np.array(wire.decode(data, spec)).reshape(spec.shape))


def _timed(work: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    """The result, and the middle of three times: the first call of its kind takes many times as long."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        result = work(*arguments)
        times.append(time.perf_counter() - start)
    return result, sorted(times)[1]


def _compared(found: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """Relative error of an answer, and whether its largest entry is the same."""
    found, expected = found.double(), expected.double()
    scale = float(expected.pow(2).mean().sqrt()) or 1.0
    error = float((found - expected).pow(2).mean().sqrt()) / scale
    same = (
        float((found.flatten(1).argmax(1) == expected.flatten(1).argmax(1)).double().mean()) if found.dim() > 1 else 1.0
    )
    return error, same


def _first(output: Any) -> torch.Tensor:
    from torch.utils import _pytree as pytree

    tensors = [
        leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    ]
    if not tensors:
        raise InputError("codecs: the model returns no floating-point tensor to compare")
    return tensors[0]
