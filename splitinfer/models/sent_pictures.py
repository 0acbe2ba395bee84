"""A picture itself as what crosses cut 0: its file, the file encoded anew, or its pixels. The edge preprocesses it.

Pictures are 20 to 150 KiB as files and several times that as the float32 input of a model.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.models.pictures import MAX_PIXELS, open_picture
from splitinfer.user_code import own_source_digest

if TYPE_CHECKING:
    from PIL import Image

    from splitinfer.models.card import ModelCard

Bytes = NDArray[np.uint8]

USUAL_QUALITY = 90
MAX_SCANS = 100
"""Passes over a progressive JPEG; encoders make about ten, and each costs the decoder the whole picture once more."""
_FORMATS = {"jpeg": "JPEG", "webp": "WEBP"}
_NAMES = "uint8, uint8+zstd, jpeg, jpeg:Q, webp, webp:Q"
_TAKEN = ("JPEG", "WEBP", "PNG")
_JPEG, _START_OF_SCAN = b"\xff\xd8\xff", b"\xff\xda"


@dataclass(frozen=True)
class PictureCodec:
    """How a picture is sent at cut 0.

    Attributes:
        name: as it was asked for: ``uint8``, ``uint8+zstd``, ``jpeg``, ``jpeg:Q``, ``webp``, ``webp:Q``.
        kind: ``uint8``, ``jpeg`` or ``webp``.
        quality: of the encoding, 1..100; None sends a file of that kind as it is, and encodes others at
            ``USUAL_QUALITY``.
        wire: the wire's codec for these bytes.
    """

    name: str
    kind: str
    quality: int | None
    wire: str

    def encode(self, picture: str | Path | Image.Image, *, max_pixels: int = MAX_PIXELS) -> Bytes:
        """Return what is sent: pixels (height, width, 3), or the bytes of a file (n,).

        Raises:
            InputError: no picture, too large, or wider or higher than the format can be.
        """
        if isinstance(picture, str):
            picture = Path(picture)
        if not isinstance(picture, Path) and not hasattr(picture, "convert"):  # PIL's, which is imported when needed
            raise InputError(f"a picture is a file's path or a picture of PIL, not {type(picture).__name__}")
        if self.kind == "uint8":
            return np.asarray(open_picture(picture, "RGB", max_pixels=max_pixels), np.uint8)
        if self.quality is None and isinstance(picture, Path):
            from splitinfer.models.pictures import check_header

            check_header(picture, max_pixels=max_pixels)
            data = picture.read_bytes()
            if _kind_of(data) == _FORMATS[self.kind]:
                return np.frombuffer(data, np.uint8)
        out = io.BytesIO()
        opened = open_picture(picture, "RGB", max_pixels=max_pixels)
        try:
            opened.save(out, _FORMATS[self.kind], quality=self.quality or USUAL_QUALITY)
        except (OSError, ValueError) as error:
            size = f"{opened.width} x {opened.height}"
            raise InputError(f"codec: a picture of {size} pixels cannot be sent as {self.kind}: {error}") from None
        return np.frombuffer(out.getvalue(), np.uint8)


@dataclass(frozen=True)
class Preparation:
    """How an edge makes a model's inputs from a picture that was sent.

    Attributes:
        card: of the model, whose preprocessing it is.
        max_pixels: most of a picture.
        max_scans: most of a JPEG.
    """

    card: ModelCard
    max_pixels: int = MAX_PIXELS
    max_scans: int = MAX_SCANS

    @property
    def digest(self) -> str:
        """Equal on two ends exactly if they make the same of a picture."""
        return preprocessing_digest(self.card)

    def __call__(self, sent: Any) -> tuple[Any, ...]:
        from splitinfer.models.sources import inputs_of

        picture = decode_picture(sent, max_pixels=self.max_pixels, max_scans=self.max_scans)
        return inputs_of(self.card, picture, max_pixels=self.max_pixels)


def preprocessing_digest(card: ModelCard) -> str:
    """Return a hash of what a card makes of a picture: its steps and numbers, or the source of the user's own code."""
    own = card.preprocess_with
    steps = None if card.preprocessing is None else card.preprocessing.model_dump(mode="json")
    inputs = [each.model_dump(mode="json") for each in card.inputs]
    record = [steps, own, own and own_source_digest(own, "preprocess_with"), inputs]
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def picture_codec(name: str) -> PictureCodec | None:
    """Return the codec of a name, None for the codecs of tensors.

    Raises:
        InputError: a quality that is none, or another addition that pictures do not take.
    """
    if name in ("uint8", "uint8+zstd"):
        return PictureCodec(name, "uint8", None, "raw" + name.removeprefix("uint8"))
    kind, _, quality = name.partition(":")
    if kind not in _FORMATS:
        if re.split(r"[:+]", name, maxsplit=1)[0] in ("uint8", *_FORMATS):
            raise InputError(f"codec: there is no {name!r}; pictures go as {_NAMES}")
        return None
    if not quality and ":" not in name:
        return PictureCodec(name, kind, None, "raw")
    if not re.fullmatch(r"[1-9]\d?|100", quality):
        raise InputError(f"codec: the quality of {kind} is a whole number from 1 to 100, not {quality!r}")
    return PictureCodec(name, kind, int(quality), "raw")


def wanted_picture_codec(name: str) -> PictureCodec:
    """Return the picture codec of a name.

    Raises:
        InputError: it is none.
    """
    found = picture_codec(name) if isinstance(name, str) else None
    if found is None:
        raise InputError(f"codec: {name!r} sends no picture; known: {_NAMES}")
    return found


def decode_picture(sent: Any, *, max_pixels: int = MAX_PIXELS, max_scans: int = MAX_SCANS) -> Image.Image | io.BytesIO:
    """Return the picture of what ``encode`` made, or its file, for a card's preprocessing. Nothing is decoded here.

    Raises:
        InputError: the bytes are no JPEG, WebP or PNG, pixels are more than ``max_pixels``, or scans of a JPEG more
            than ``max_scans``.
    """
    from PIL import Image

    array = np.asarray(sent)
    if array.ndim == 3:
        if array.shape[2] != 3:
            raise InputError(f"pixels of a picture have three channels, not {array.shape[2]}")
        if array.shape[0] * array.shape[1] > max_pixels or 0 in array.shape:
            raise InputError(f"a picture of {array.shape[1]} x {array.shape[0]} pixels; at most {max_pixels} are taken")
        return Image.fromarray(np.ascontiguousarray(array))
    data = array.tobytes()
    if _kind_of(data) not in _TAKEN:
        raise InputError("the bytes are no JPEG, WebP or PNG picture")
    # Inside a scan this pair of bytes cannot occur.
    if data.startswith(_JPEG) and (scans := data.count(_START_OF_SCAN)) > max_scans:
        raise InputError(f"a JPEG of {scans} scans; at most {max_scans} are taken")
    return io.BytesIO(data)


def _kind_of(data: bytes) -> str:
    if data.startswith(_JPEG):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return "PNG" if data.startswith(b"\x89PNG\r\n\x1a\n") else ""
