"""How a model is captured and computed: one object that travels from the command line to every process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from splitinfer.errors import InputError

ImageSize = int | tuple[int, int]


@dataclass(frozen=True)
class CaptureOptions:
    """What has to be equal on both ends for fingerprints to agree, and how halves are computed here.

    Attributes:
        input_size: height and width in pixels (one number for a square) instead of the card's.
        weights: a torchvision weight enum or a file, instead of the card's.
        optimize: fold batch norms into convolutions; False keeps every bit of the eager model.
        engine: what computes halves, by name; each end chooses its own.
        threads: threads inside one operation.

    Raises:
        InputError: a value is out of range.
    """

    input_size: ImageSize | None = None
    weights: str | None = None
    optimize: bool = True
    engine: str = "torch"
    threads: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.input_size, Sequence):  # a list, as JSON has it
            object.__setattr__(self, "input_size", tuple(self.input_size))
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or self.threads < 1:
            raise InputError(f"threads must be a whole number of at least 1, not {self.threads!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON, which ``CaptureOptions(**...)`` takes back."""
        return asdict(self)
