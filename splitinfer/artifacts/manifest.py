"""The manifest of an exported model: what its files are, and what they belong to. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from splitinfer.errors import InputError
from splitinfer.files import check_file, read_text, replacing
from splitinfer.models.card import Preprocessing
from splitinfer.records import wrong_field

MANIFEST = "manifest.json"
FORMATS = ("onnx", "pt2", "executorch")
MAX_MANIFEST_BYTES = 10_000_000


class Tensor(BaseModel):
    """Shape and dtype of a tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[int, ...]
    dtype: str


class Manifest(BaseModel):
    """What lies in a folder that ``splitinfer export`` wrote.

    Attributes:
        manifest_version: of this description.
        format: of the files.
        model: name that the edge knows it by.
        fingerprint: of the model that the halves were taken from; a request names it.
        cut_fingerprint: what a request names instead, at a set cut.
        cut, layer, num_cuts: where it was cut.
        inputs: of the head.
        crossing: what the head gives and the tail takes.
        outputs: of the tail, the leaves of what the model returns.
        head, tail: names of the files; None where that side computes nothing.
        checksums: SHA-256 of each file.
        preprocessing: from a picture to the first input, if the card has it.
        labels: names of the classes, if the card lists them.
        codec: that tensors are sent in by default.
        versions: of what wrote it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest_version: Literal[1] = 1
    format: Literal["onnx", "pt2", "executorch"]
    model: str
    fingerprint: str
    cut_fingerprint: str | None = None
    cut: int
    layer: str
    num_cuts: int
    inputs: tuple[Tensor, ...]
    crossing: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    head: str | None
    tail: str | None
    checksums: dict[str, str]
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    codec: str = "raw"
    versions: dict[str, str]

    @model_validator(mode="after")
    def _sides_fit_the_cut(self) -> Manifest:
        if self.cut < 0 or self.num_cuts < 1:
            raise ValueError(f"there is no cut {self.cut} of {self.num_cuts}")
        for side, name, has_one in (
            ("head", self.head, self.cut != 0),
            ("tail", self.tail, self.cut != self.num_cuts),
            ("tensor that crosses", self.crossing or None, self.cut != self.num_cuts),
        ):
            if (name is not None) != has_one:
                raise ValueError(f"cut {self.cut} of {self.num_cuts} {'needs a' if has_one else 'takes no'} {side}")
        return self

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        # Left out where it is not needed: older versions take no other fields than they know.
        left_out = {"cut_fingerprint"} if self.cut_fingerprint is None else set[str]()
        with replacing(folder / MANIFEST) as part:
            part.write_text(json.dumps(self.model_dump(exclude=left_out), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read the manifest of a folder and check its files.

        Raises:
            InputError: there is none, or a file is missing, damaged, or not in the folder.
        """
        where = Path(folder)
        path = where / MANIFEST
        try:
            manifest = cls.model_validate_json(read_text(path, max_bytes=MAX_MANIFEST_BYTES))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"artifact {where}: there is no {MANIFEST}; splitinfer export writes one") from None
        except OSError as error:
            raise InputError(f"artifact {where}: cannot read {MANIFEST}: {error.strerror}") from None
        except ValidationError as error:
            raise InputError(f"artifact {where}: {MANIFEST}: {wrong_field(error, cls)}") from None
        for name in (manifest.head, manifest.tail):
            if name is None:
                continue
            if Path(name).name != name:
                raise InputError(f"artifact {where}: {name!r} is not a file of the folder")
            if file_checksum(where / name) != manifest.checksums.get(name):
                raise InputError(f"artifact {where}: {name} is damaged, or not the file that the manifest is for")
        return manifest


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        check_file(path)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"artifact: cannot read {path}: {error.strerror}") from None
    return digest.hexdigest()


def is_artifact(text: str) -> bool:
    """Whether a text names a folder with a manifest, or a folder by its path, which then lacks one."""
    if not text:
        return False
    return (Path(text) / MANIFEST).exists() or (os.sep in text and Path(text).is_dir())


def describe(record: Any) -> Tensor:
    """Return shape and dtype of a ``TensorSpec``."""
    return Tensor(shape=tuple(record.shape), dtype=str(record.dtype).removeprefix("torch."))
