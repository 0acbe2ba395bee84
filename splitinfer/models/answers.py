"""Answers of a model: described in a line per tensor, and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from splitinfer.errors import InputError
from splitinfer.files import replacing

SUFFIXES = (".json", ".jsonl", ".npz")

TOP = 5
"""Classes that are named of a classifier's answer."""


def leaves(answer: Any, name: str = "") -> list[tuple[str, Any]]:
    """Return the parts of a nested answer with their names: ``out``, ``boxes[0]``, ``""`` for a lone tensor."""
    if isinstance(answer, dict):
        return [leaf for key, value in answer.items() for leaf in leaves(value, f"{name}.{key}" if name else str(key))]
    if isinstance(answer, list | tuple):
        names = getattr(answer, "_fields", None)
        parts = enumerate(answer) if names is None else zip(names, answer, strict=True)
        join = f"{name}." if name and names is not None else name
        return [leaf for key, value in parts for leaf in leaves(value, f"{join}{key}" if names else f"{name}[{key}]")]
    return [(name, answer)]


def describe(answer: Any) -> list[dict[str, str]]:
    """Return name, dtype, shape and range of every part of an answer."""
    rows = []
    for name, value in leaves(answer):
        if not _is_tensor(value):
            rows.append({"name": name or "answer", "dtype": type(value).__name__, "shape": "", "range": repr(value)})
            continue
        span, numbers = "empty", _array(value)
        if numbers.size:
            numbers = (abs(numbers) if numbers.dtype.kind == "c" else numbers).astype("float64")
            span = f"{numbers.min():.4g} to {numbers.max():.4g}, mean {numbers.mean():.4g}"
        shape = "x".join(map(str, value.shape)) or "one number"
        rows.append({"name": name or "answer", "dtype": _dtype(value), "shape": shape, "range": span})
    return rows


def most_probable(answer: Any, names: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return the most probable classes where the answer is one row of scores, as a classifier's is; else nothing."""
    import numpy as np

    scores = _array(answer) if _is_tensor(answer) else None
    if scores is None or scores.ndim != 2 or scores.shape[0] != 1 or scores.dtype.kind != "f" or not scores.size:
        return []
    shares = np.exp(scores[0].astype(np.float64) - scores[0].max())
    shares /= shares.sum()
    best = np.argsort(-shares, kind="stable")[:TOP]
    return [
        {"class": int(i), "name": names[i] if names and i < len(names) else None, "probability": float(shares[i])}
        for i in best
    ]


def _is_tensor(value: Any) -> bool:
    """A tensor of torch or an array of numpy, either without importing it."""
    return hasattr(value, "dtype") and hasattr(value, "tolist")


def _dtype(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.")


def _array(value: Any) -> Any:
    if hasattr(value, "detach"):
        value = value.detach()
        value = (value.float() if _dtype(value) == "bfloat16" else value).numpy()
    return value


class AnswerFile:
    """Keeps answers as they come: ``.jsonl`` line by line, ``.json`` and ``.npz`` at the end.

    JSON has for every input its name, the most probable classes of a classifier, and each part of the answer as
    numbers; NPZ has an array ``NUMBER/PART`` for each part of each answer, and ``inputs``, their names.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: list[dict[str, Any]] = []
        self._arrays: dict[str, Any] = {}
        self._lines = path.open("w", encoding="utf-8") if path.suffix == ".jsonl" else None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Begin a file.

        Raises:
            InputError: another suffix, or it cannot be written.
        """
        if path.suffix not in SUFFIXES:
            raise InputError(f"--output: write a file that ends in {', '.join(SUFFIXES)}, not {path}")
        try:
            is_new = not path.exists()
            with path.open("a", encoding="utf-8"):
                pass
            if is_new:
                path.unlink()
            return cls(path)
        except OSError as error:
            raise InputError(f"--output: cannot write {path}: {error.strerror}") from None

    def add(self, name: str, answer: Any, top: list[dict[str, Any]]) -> None:
        """Keep one answer.

        Raises:
            InputError: the file cannot be written.
        """
        parts = [(part or "answer", value) for part, value in leaves(answer)]
        if self._path.suffix == ".npz":
            number = len(self._records)
            self._records.append({"input": name})
            for part, value in parts:
                if _is_tensor(value):
                    self._arrays[f"{number}/{part}"] = _array(value).copy()
            return
        record = {
            "input": name,
            "top": top,
            "answer": {
                part: {"dtype": _dtype(value), "shape": list(value.shape), "values": value.tolist()}
                if _is_tensor(value)
                else value
                for part, value in parts
            },
        }
        if self._lines is None:
            self._records.append(record)
            return
        self._write(lambda: self._lines.write(json.dumps(record) + "\n"))

    def close(self) -> None:
        """Finish the file.

        Raises:
            InputError: it cannot be written.
        """
        import numpy as np

        if self._lines is not None:
            self._write(self._lines.close)
        elif self._path.suffix == ".json":
            self._replace(lambda part: part.write_text(json.dumps(self._records), encoding="utf-8"))
        else:
            names = np.array([record["input"] for record in self._records])
            self._replace(lambda part: np.savez(part, inputs=names, **self._arrays))

    def _replace(self, write: Callable[[Path], Any]) -> None:
        def whole() -> None:
            with replacing(self._path) as part:
                write(part)

        self._write(whole)

    def _write(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            raise InputError(f"--output: cannot write {self._path}: {error.strerror}") from None
