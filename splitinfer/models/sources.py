"""Where requests come from: pictures, folders, globs, videos, cameras and files of tensors."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitinfer.errors import InputError, MissingExtraError
from splitinfer.models.card import ModelCard
from splitinfer.models.pictures import check_header, open_as_it_is

if TYPE_CHECKING:
    import torch
    from PIL import Image

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".gifv")
TENSOR_SUFFIXES = (".npy", ".npz", ".safetensors")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Source:
    """One request to come.

    Attributes:
        name: what reports call it: a path, or a path and a frame.
        load: makes all of the model's inputs.
        picture: the file or frame that they are made from; None where they are tensors already.
    """

    name: str
    load: Callable[[], tuple[torch.Tensor, ...]]
    picture: Path | Image.Image | None = None


def find_sources(card: ModelCard, wanted: Sequence[str], *, max_pixels: int, frames: int | None) -> Requests:
    """Return the requests that some names stand for. Everything that can be checked beforehand is.

    Args:
        card: of the model.
        wanted: files, folders, globs, videos, ``camera:0``.
        max_pixels: of a picture.
        frames: most frames of a video or camera; all by default (of a camera: until interrupted).

    Raises:
        InputError: something is not there or not of a kind, or the card cannot make the model's inputs from it.
        MissingExtraError: a video or camera, without PyAV or OpenCV.
    """
    parts: list[tuple[int | None, Callable[[], Iterator[Source]]]] = []
    for name in wanted:
        if name.startswith("camera:"):
            parts.append((frames, _camera(card, name, frames)))
            continue
        for path in _paths(name):
            suffix = path.suffix.lower()
            if suffix in VIDEO_SUFFIXES:
                parts.append((frames, _video(card, path, frames)))
            elif suffix in TENSOR_SUFFIXES:
                parts.append((1, _tensors(card, path)))
            else:
                _check_takes_pictures(card)
                check_header(path, max_pixels=max_pixels)
                parts.append((1, _picture(card, path, max_pixels)))
    lengths = [length for length, _ in parts]
    total = None if None in lengths else sum(length for length in lengths if length is not None)
    return Requests(tuple(make for _, make in parts), total)


@dataclass(frozen=True)
class Requests:
    """Requests in order.

    Attributes:
        total: how many, at most; None where that is not known.
    """

    _parts: tuple[Callable[[], Iterator[Source]], ...]
    total: int | None

    def __iter__(self) -> Iterator[Source]:
        for part in self._parts:
            yield from part()


def _paths(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        known = (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES, *TENSOR_SUFFIXES)
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in known)
        if not found:
            raise InputError(f"--input: folder {name} holds no picture, video or file of tensors")
        return found
    if not path.exists() and glob.has_magic(name):
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - the pattern may be absolute
        found = sorted(Path(entry) for entry in matches if Path(entry).is_file())
        if not found:
            raise InputError(f"--input: nothing matches {name}")
        return found
    if not path.exists():
        raise InputError(f"--input: there is no file {name}")
    return [path]


def _check_takes_pictures(card: ModelCard) -> None:
    if card.preprocess_with is not None:
        return
    instead = "give a file of tensors (.npz), or name preprocess_with = 'module:function' in the card"
    if card.preprocessing is None:
        raise InputError(f"--input: {card.name} takes no picture: its card has no preprocessing; {instead}")
    if len(card.inputs) > 1:
        raise InputError(
            f"--input: {card.name} has {len(card.inputs)} inputs, and its card makes only the first from a picture; "
            f"{instead}, which returns all"
        )


def inputs_of(card: ModelCard, picture: Any, *, max_pixels: int) -> tuple[torch.Tensor, ...]:
    """Return all inputs of a model for one picture (a path, a PIL image or a file in memory).

    Raises:
        InputError: the card cannot make them.
    """
    _check_takes_pictures(card)
    if card.preprocess_with is None:
        return (card.preprocess(picture, max_pixels=max_pixels),)
    import torch

    from splitinfer.user_code import find_attribute, user_code

    module, _, attribute = card.preprocess_with.partition(":")
    make = find_attribute(module, attribute, f"model {card.name}: preprocess_with", kind="function")
    if isinstance(picture, BytesIO):  # their code was promised a path or a PIL image, and knows no limit
        picture = open_as_it_is(picture, max_pixels=max_pixels)
    with user_code(f"model {card.name}: {card.preprocess_with}"):
        made = make(picture)
    tensors = (made,) if isinstance(made, torch.Tensor) else made
    if not isinstance(tensors, tuple | list) or not all(isinstance(one, torch.Tensor) for one in tensors):
        raise InputError(f"model {card.name}: {card.preprocess_with} must return a tensor or a tuple of tensors")
    return tuple(tensors)


def _picture(card: ModelCard, path: Path, max_pixels: int) -> Callable[[], Iterator[Source]]:
    return lambda: iter((Source(str(path), lambda: inputs_of(card, path, max_pixels=max_pixels), path),))


def _tensors(card: ModelCard, path: Path) -> Callable[[], Iterator[Source]]:
    def load() -> tuple[torch.Tensor, ...]:
        import torch

        if path.suffix.lower() == ".safetensors":
            try:
                from safetensors.torch import load_file

                return tuple(load_file(path).values())
            except Exception as error:  # noqa: BLE001 - readers of foreign files fail in any way
                raise InputError(f"--input: {path} holds no tensors: {type(error).__name__}: {error}") from None
        return tuple(torch.from_numpy(array) for array in read_arrays(path))

    return lambda: iter((Source(str(path), load),))


def read_arrays(path: Path) -> list[Any]:
    """Return the arrays of a ``.npy`` or ``.npz`` file in order. Needs no torch.

    Raises:
        InputError: it holds none, or something else than numbers.
    """
    import numpy as np

    try:
        held = np.load(path, allow_pickle=False)
        arrays = [held] if isinstance(held, np.ndarray) else [held[key] for key in held.files]
        for array in arrays:
            if array.dtype.kind not in "biufc":
                raise TypeError(f"an array of {array.dtype}, which are no numbers")
        return [np.array(array) for array in arrays]
    except Exception as error:  # noqa: BLE001 - readers of foreign files fail in any way
        raise InputError(f"--input: {path} holds no tensors: {type(error).__name__}: {error}") from None


def input_files(wanted: Sequence[str]) -> list[Path]:
    """Return the files that names of files, folders and globs stand for.

    Raises:
        InputError: one is not there.
    """
    return [path for name in wanted for path in _paths(name)]


def _frames_of(card: ModelCard, name: str, frames: Iterator[Image.Image], most: int | None) -> Iterator[Source]:
    for index, frame in enumerate(frames):
        if most is not None and index >= most:
            return
        load = partial(inputs_of, card, frame, max_pixels=frame.width * frame.height)
        yield Source(f"{name}#{index}", load, frame)


def _video(card: ModelCard, path: Path, most: int | None) -> Callable[[], Iterator[Source]]:
    _check_takes_pictures(card)
    read = _reader()
    return lambda: _frames_of(card, str(path), read(str(path)), most)


def _camera(card: ModelCard, name: str, most: int | None) -> Callable[[], Iterator[Source]]:
    _check_takes_pictures(card)
    number = name.removeprefix("camera:")
    if re.fullmatch(r"[0-9]{1,4}", number) is None:
        raise InputError(f"--input: write camera:0 (the number of a camera), not {name!r}")
    try:
        import cv2  # noqa: F401
    except ImportError:
        raise MissingExtraError("opencv-python-headless", "camera") from None
    return lambda: _frames_of(card, name, _opencv_frames(int(number)), most)


def _reader() -> Callable[[str], Iterator[Image.Image]]:
    try:
        import av  # noqa: F401
    except ImportError:
        try:
            import cv2  # noqa: F401
        except ImportError:
            raise MissingExtraError("av", "video") from None
        return _opencv_frames
    return _pyav_frames


def _pyav_frames(path: str) -> Iterator[Image.Image]:
    import av

    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise InputError(f"--input: {path} has no video in it")
            for frame in container.decode(video=0):
                yield frame.to_image()  # type: ignore[no-untyped-call]
    except av.FFmpegError as error:
        raise InputError(f"--input: cannot read video {path}: {error}") from None


def _opencv_frames(source: str | int) -> Iterator[Image.Image]:
    import cv2
    from PIL import Image

    capture = cv2.VideoCapture(source)
    try:
        if not capture.isOpened():
            what = f"camera {source}" if isinstance(source, int) else f"video {source}"
            raise InputError(f"--input: cannot open {what}")
        while True:
            there, frame = capture.read()
            if not there:
                return
            yield Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
