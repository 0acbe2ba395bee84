"""Model cards: which model, which inputs, how an image becomes one, which weights. TOML in, frozen objects out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from splitinfer.data import data_folder
from splitinfer.errors import InputError
from splitinfer.files import read_toml
from splitinfer.models.options import ImageSize
from splitinfer.records import wrong_field

if TYPE_CHECKING:
    import torch
    from PIL import Image

Dtype = Literal["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool"]
Positive = Annotated[int, Field(gt=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputTensor(_Frozen):
    """One input of the model.

    Attributes:
        shape: shape of one request without the batch dimension, ``[3, 224, 224]`` for an image.
        dtype: dtype of the tensor.
        high: integers of example inputs are drawn from 0..high-1 (a vocabulary's size, say).
    """

    shape: tuple[Positive, ...]
    dtype: Dtype = "float32"
    high: Positive = 2


class Preprocessing(_Frozen):
    """How a picture becomes the model's input: resize, centre crop, scale to 0..1, subtract mean, divide by std.

    Attributes:
        resize: length of the shorter side in pixels, or ``[height, width]``.
        mean, std: per channel.
        interpolation: of the resize.
    """

    resize: Positive | tuple[Positive, Positive]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"

    @model_validator(mode="after")
    def _same_channels(self) -> Preprocessing:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError("mean and std need one number per channel: 3, or 1 for grey pictures")
        return self


class ModelCard(_Frozen):
    """What splitinfer needs to know of a model.

    Attributes:
        name: what people call it: the card file's name without ``.toml``.
        source: ``"package.module:factory"``; calling the factory returns a ``torch.nn.Module``.
        kwargs: keyword arguments of the factory.
        description: one line on the model.
        task: the XR task that it stands for.
        inputs: the model's positional inputs.
        preprocessing: from a picture to the first input; absent where pictures make no sense.
        preprocess_with: ``"package.module:function"`` of your own instead: takes a picture (a path or a PIL image) and
            returns the model's input, or a tuple of all of them. Like ``source``, this is code.
        weights: a torchvision weight enum (``"ResNet18_Weights.DEFAULT"``, downloaded once), or the path of a
            safetensors or state-dict file relative to the card. Random weights from ``seed`` if absent.
        seed: seed of random weights.
        labels: names of the classes: a torchvision weight enum, the path of a text file with one name per line
            relative to the card, or a list.
    """

    name: str = Field(min_length=1)
    source: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    kwargs: dict[str, Any] = {}
    description: str = ""
    task: str = ""
    inputs: tuple[InputTensor, ...] = Field(default=(InputTensor(shape=(3, 224, 224)),), min_length=1)
    preprocessing: Preprocessing | None = None
    preprocess_with: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    weights: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    labels: str | tuple[str, ...] | None = None
    _folder: Path = PrivateAttr(default_factory=Path)

    @property
    def folder(self) -> Path:
        """Folder that relative paths in the card start from."""
        return self._folder

    def example_inputs(
        self, batch: int = 1, input_size: ImageSize | None = None, seed: int = 0
    ) -> tuple[torch.Tensor, ...]:
        """Return random inputs of the card's shapes; the same seed gives the same values.

        Args:
            batch: size of the leading dimension.
            input_size: height and width in pixels (one number for a square) instead of the card's.
            seed: of the values.

        Raises:
            InputError: the batch or size makes no sense for this model.
        """
        from splitinfer.models.inputs import random_inputs

        return random_inputs(self, batch=batch, input_size=input_size, seed=seed)

    def preprocess(
        self,
        image: Image.Image | str | Path | BytesIO,
        input_size: ImageSize | None = None,
        *,
        max_pixels: int = 100_000_000,
    ) -> torch.Tensor:
        """Turn one picture into the model's first input, shape ``(1, channels, height, width)``.

        Args:
            image: a PIL image, or the path of a picture; the orientation in its EXIF data is applied.
            input_size: height and width in pixels instead of the card's.
            max_pixels: largest picture that is decoded.

        Raises:
            InputError: the card has no preprocessing, or the file is no picture, damaged, too large, or of a kind whose
                8 bits are not known.
        """
        from splitinfer.models.inputs import preprocess

        return preprocess(self, image, input_size=input_size, max_pixels=max_pixels)

    def class_names(self) -> tuple[str, ...] | None:
        """Return the names of the classes in order of the model's output, or None if the card has none."""
        from splitinfer.models.labels import class_names

        return class_names(self)


def load_card(ref: str | Path, *, in_file: bool = False) -> ModelCard:
    """Return the card of a model.

    Args:
        ref: the name of a shipped card; the path of a card file (``.toml``); a model's name in torchvision,
            ``timm:NAME`` or ``hf:NAME``, at the library's own input and preprocessing; or
            ``"package.module:factory"``, which means a model that takes one float32 image of 3x224x224.
        in_file: the name stands in a file, as a scenario's services do: a factory is held to what a card may name.

    Raises:
        InputError: there is no such card, or a field of it is wrong; the message names the field.
    """
    text = str(ref)
    if isinstance(ref, Path) or text.endswith(".toml"):
        return _read_card(Path(ref))
    if ".py:" in text:
        raise InputError(f"model {text!r}: write the module's name, {_module_of(text)}")
    if text.endswith(".py"):
        raise InputError(f"model {text!r}: name the factory in it, {_module_of(text + ':FACTORY')}")
    if text.startswith(("timm:", "hf:")):
        from splitinfer.models.libraries import library_card

        return card_from(library_card(text) or {}, name=text, folder=Path(), where=text)
    if ":" in text:
        record = {"source": text, "description": "a factory without a card"}
        _say_what_is_assumed(text)
        return card_from(record, name=text, folder=Path.cwd() if in_file else Path(), where=text)
    path = data_folder("models") / f"{text}.toml"
    if not text or Path(text).name != text or not path.is_file():
        from splitinfer.models.libraries import library_card

        made = library_card(text) if text.isidentifier() else None
        if made is not None:
            return card_from(made, name=text, folder=Path(), where=text)
        if Path(text).is_file():
            raise InputError(f"model {text!r}: the name of a card file ends in .toml")
        raise InputError(
            f"unknown model {text!r}; known: {', '.join(card_names())}; or give another name of torchvision, "
            "timm:NAME, hf:NAME, package.module:factory or a card file (splitinfer models --all)"
        )
    return _read_card(path)


@cache
def _say_what_is_assumed(source: str) -> None:
    """Say once that a factory has no card: a wrong input that happens to fit gives wrong tables without a word."""
    logging.getLogger("splitinfer.progress").info(
        "%s has no card, so it is taken to want one picture of 3x224x224; splitinfer card new %s --input SHAPE writes "
        "a card",
        source,
        source,
    )


@contextmanager
def inputs_explained(card: ModelCard) -> Iterator[None]:
    """Add to "the example inputs do not fit" where a model's inputs are said, for a factory that has no card.

    Raises:
        InputError: the block raised one.
    """
    try:
        yield
    except InputError as error:
        if card.name != card.source or "example inputs do not fit" not in str(error):
            raise
        raise InputError(
            f"{error}; a factory without a card is taken to want one picture of 3x224x224: write a card with [[inputs]]"
        ) from None


def check_inside(card: ModelCard, field: str, path: str) -> None:
    """Refuse a file of a card that lies outside the card's folder: a card from elsewhere names what it brings.

    Raises:
        InputError: it does.
    """
    target = (card.folder / Path(path).expanduser()).resolve()
    if card.folder.parts and not target.is_relative_to(card.folder.resolve()):
        raise InputError(
            f"model {card.name}: {field}: {path} lies outside the card's folder; put it beside the card"
            + (", or name the file yourself (load_model(..., weights=FILE))" if field == "weights" else "")
        )


def card_names() -> list[str]:
    """Return the names of the shipped cards, sorted."""
    return sorted(path.stem for path in data_folder("models").glob("*.toml"))


def list_cards() -> list[ModelCard]:
    """Return every shipped card, sorted by name."""
    return [load_card(name) for name in card_names()]


def _read_card(path: Path) -> ModelCard:
    try:
        record = read_toml(path)
    except OSError as error:
        raise InputError(f"cannot read model card {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"model card {path} is not TOML: {error}") from None
    if "name" in record:
        raise InputError(f"model card {path}: name: the file's name is the model's name; remove the field")
    return card_from(record, name=path.stem, folder=path.resolve().parent, where=f"model card {path}")


def card_from(record: dict[str, Any], *, name: str, folder: Path, where: str) -> ModelCard:
    """Return the card that a file's fields describe.

    Args:
        record: the fields.
        name: of the model.
        folder: that relative paths start from.
        where: the start of an error's line.

    Raises:
        InputError: a field is wrong; the message names it.
    """
    try:
        card = ModelCard(name=name, **record)
    except ValidationError as error:
        raise InputError(f"{where}: {wrong_field(error, ModelCard, record)}") from None
    card._folder = folder
    return card


def _module_of(text: str) -> str:
    """Of ``nets/mine.py:build`` the name to write; of a file elsewhere the folder to write it in as well."""
    file, _, factory = text.partition(".py:")
    path = Path(file)
    if path.is_absolute() or ".." in path.parts:
        return f"{path.name}:{factory}, in the folder {path.parent}"
    return f"{'.'.join(path.parts)}:{factory}"
