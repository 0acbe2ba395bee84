"""What ways to split a model really take against a server, and what their parts take alone.

Every round runs each way as a whole and each of its parts by itself, one after the other, so that whatever else the
machines do is shared by all. Medians over the rounds count: whoever shares the machines makes the whole and its parts
slower alike, while the quickest round of a sum is slower than the sum of the quickest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from splitinfer.errors import InputError

if TYPE_CHECKING:
    from splitinfer.graph import SplitModel
    from splitinfer.runtime.client import EdgeClient
    from splitinfer.runtime.result import InferenceResult

_PAUSE_S = 0.02


@dataclass(frozen=True)
class Seen:
    """Medians over the rounds, seconds.

    Attributes:
        cut: k.
        codec: empty at K.
        head_s: on this machine.
        wire_s: encoding, sending, decoding and the answer's way back.
        tail_s: at the server, with what it waited there.
        total_s: of whole inferences.
        bits: of the request.
        parts_s: what makes a whole inference: its head alone here, the rest as the server does it that is asked without
            the link, and these bits over the link as it is said to be.
    """

    cut: int
    codec: str
    head_s: float
    wire_s: float
    tail_s: float
    total_s: float
    bits: float
    parts_s: float


def measure_ways(
    client: EdgeClient,
    split: SplitModel,
    inputs: tuple[Any, ...],
    ways: Sequence[tuple[int, str]],
    *,
    bandwidth_bps: float,
    rtt_s: float,
    repeats: int,
    direct: EdgeClient | None = None,
) -> list[Seen]:
    """Run a model in several ways, a cut and a codec each.

    Args:
        client: of a server that holds the model.
        split: the model.
        inputs: that every inference takes.
        ways: cut and codec; at K the codec does not matter.
        bandwidth_bps, rtt_s: what the link is said to be.
        repeats: rounds that count, after one that does not.
        direct: of the same server without the link, where there is such a way: what gRPC takes on its own is then part
            of what is expected.

    Raises:
        InputError: a cut that there is not, or a codec that the server does not take.
        RemoteError: the server refuses, or does not answer.
    """
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, not {repeats}")
    runs: list[list[tuple[float, float, InferenceResult]]] = [[] for _ in ways]
    for turn in range(repeats + 1):
        for (cut, codec), own in zip(ways, runs, strict=True):
            # A processor that others use too is given first to whom has waited: each begins after a pause, and which
            # comes first changes.
            whole = _whole(client, split, cut, codec, inputs) if turn % 2 else None
            time.sleep(_PAUSE_S)
            began_s = time.perf_counter()
            split.run_head(cut, *inputs)
            head_s, rest_s = time.perf_counter() - began_s, 0.0
            if cut != split.num_cuts:
                timing = _whole(direct or client, split, cut, codec, inputs).timing
                rest_s = timing.encode_s + timing.queue_s + timing.tail_s + timing.decode_s
                rest_s += timing.wire_s if direct is not None else 0.0
            own.append((head_s, rest_s, whole or _whole(client, split, cut, codec, inputs)))
    found = []
    for (cut, codec), own in zip(ways, runs, strict=True):
        counted = own[1:]
        times = [run.timing for _, _, run in counted]
        bits = counted[0][2].bytes_up * 8
        link_s = 0.0 if cut == split.num_cuts else bits / bandwidth_bps + rtt_s
        found.append(
            Seen(
                cut,
                codec,
                median(one.head_s for one in times),
                median(one.encode_s + one.wire_s + one.decode_s for one in times),
                median(one.queue_s + one.tail_s for one in times),
                median(one.total_s for one in times),
                bits,
                link_s + median(head_s + rest_s for head_s, rest_s, _ in counted),
            )
        )
    return found


def _whole(client: EdgeClient, split: SplitModel, cut: int, codec: str, inputs: tuple[Any, ...]) -> InferenceResult:
    time.sleep(_PAUSE_S)
    return client.infer(split, cut, *inputs, codec=codec or None)
