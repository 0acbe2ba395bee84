"""What ways to split a model really take, against a server."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from splitinfer.errors import InputError

if TYPE_CHECKING:
    from splitinfer.graph import SplitModel
    from splitinfer.runtime.client import EdgeClient
    from splitinfer.runtime.result import InferenceResult


@dataclass(frozen=True)
class Seen:
    """Medians over the repeats, seconds.

    Attributes:
        cut: k.
        codec: empty at K.
        head_s: on this machine.
        wire_s: encoding, sending, decoding and the answer's way back.
        tail_s: at the server, with what it waited there.
        total_s: of whole inferences.
        bits: of the request.
    """

    cut: int
    codec: str
    head_s: float
    wire_s: float
    tail_s: float
    total_s: float
    bits: float


def measure_ways(
    client: EdgeClient, split: SplitModel, inputs: tuple[Any, ...], ways: Sequence[tuple[int, str]], *, repeats: int
) -> list[Seen]:
    """Run a model in several ways, a cut and a codec each.

    Args:
        client: of a server that holds the model.
        split: the model.
        inputs: that every inference takes.
        ways: cut and codec; at K the codec does not matter.
        repeats: inferences per way, after one that is not counted.

    Raises:
        InputError: a cut that there is not, or a codec that the server does not take.
        RemoteError: the server refuses, or does not answer.
    """
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, not {repeats}")
    runs: list[list[InferenceResult]] = [[] for _ in ways]
    for _ in range(repeats + 1):  # in turns, so that whatever else this machine does is shared by all
        for (cut, codec), own in zip(ways, runs, strict=True):
            own.append(client.infer(split, cut, *inputs, codec=codec or None))
    return [_medians(cut, codec, own[1:]) for (cut, codec), own in zip(ways, runs, strict=True)]


def _medians(cut: int, codec: str, runs: Sequence[InferenceResult]) -> Seen:
    times = [run.timing for run in runs]
    return Seen(
        cut,
        codec,
        statistics.median(one.head_s for one in times),
        statistics.median(one.encode_s + one.wire_s + one.decode_s for one in times),
        statistics.median(one.queue_s + one.tail_s for one in times),
        statistics.median(one.total_s for one in times),
        statistics.median(run.bytes_up for run in runs) * 8,
    )
