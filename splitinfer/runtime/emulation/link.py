"""A transmitter whose rate is set per slot, and its emulation over a connection that is faster than any radio."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from splitinfer.runtime.emulation.work_queue import Line, WorkQueue

Floats = NDArray[np.float64]

_KEY = itemgetter(0)


@dataclass(frozen=True, eq=False)
class Piece:
    """Bytes of one message that leave in one slot.

    Attributes:
        key: whose message it is.
        data: the bytes.
        offset: of ``data`` in the message.
        message_bytes: size of the whole message.
    """

    key: Any
    data: memoryview
    offset: int
    message_bytes: int

    @property
    def is_last(self) -> bool:
        return self.offset + len(self.data) == self.message_bytes


class Link(Protocol):
    """A transmitter with one queue of messages per service, sent first come first served.

    A radio would set its power in ``open_slot`` and report as backlog what is still unsent.
    """

    def backlog_bits(self) -> Floats:
        """Bits left per queue."""

    def lines(self) -> list[Line]:
        """What waits in each queue."""

    def submit(self, queue: int, key: Any, data: bytes, bits: float) -> None:
        """Put a message at the end of a queue; it can be sent from the next slot on."""

    def clear(self) -> None:
        """Forget every message that has not been sent."""

    def open_slot(self, rate_bps: Floats, power_w: float) -> list[Piece]:
        """Send at these rates, one per queue, for one slot; returns the bytes that leave in it, in order."""


class MakeLink(Protocol):
    """What makes the link of a run, as ``EmulatedLink`` does: the arguments are its own."""

    def __call__(self, queues: int, *, slot_s: float) -> Link: ...


class EmulatedLink:
    """A token bucket per slot and queue, in virtual bits: each slot adds ``rate·tau`` bits, and none are kept.

    A scenario says how many bits a message counts on the radio (bits per element). The real message may
    have another size, since it carries the tensors' own dtypes and a header; its bytes leave in the same proportion.

    Args:
        queues: number of queues.
        slot_s: virtual length of a slot, seconds.
    """

    def __init__(self, queues: int, *, slot_s: float) -> None:
        self._queues: list[WorkQueue[tuple[Any, memoryview]]] = [WorkQueue() for _ in range(queues)]
        self._slot_s = slot_s

    def backlog_bits(self) -> Floats:
        return np.array([queue.backlog for queue in self._queues])

    def lines(self) -> list[Line]:
        return [queue.line(_KEY) for queue in self._queues]

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues)

    def submit(self, queue: int, key: Any, data: bytes, bits: float) -> None:
        self._queues[queue].enter((key, memoryview(data)), bits)

    def clear(self) -> None:
        self._queues = [WorkQueue() for _ in self._queues]

    def open_slot(self, rate_bps: Floats, power_w: float) -> list[Piece]:
        pieces = []
        for index, queue in enumerate(self._queues):
            if not len(queue):
                continue
            for served in queue.serve(float(rate_bps[index]) * self._slot_s):
                key, data = served.item
                size = len(data)
                first = min(int(size * served.start), size - 1)
                # The last byte is for the slot in which the last bit leaves: a message is never complete too soon.
                stop = size if served.is_done else min(int(size * served.stop), size - 1)
                if stop > first:
                    pieces.append(Piece(key, data[first:stop], first, size))
        return pieces
