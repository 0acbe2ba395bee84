"""Long messages in pieces, each written while the one before is on its way.

gRPC copies a message whole several times at each end, and only then hands it on. In pieces of a megabyte these copies
stay in a processor's cache, and both ends work at the same time. Pieces of one message are as long as each other: a
short last one would cost as many steps as a long one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from splitinfer.errors import InputError
from splitinfer.wire.envelope import CONTENT_REMAINDER, PAYLOAD_ALIGNMENT, read_varint, varint
from splitinfer.wire.limits import LimitError, WireLimits

_WHOLE_BYTES, _PIECE = 0x20, 0x2A
"""Tags of ``InferRequest.whole_bytes``, which stands in the first piece, and ``InferRequest.piece``."""

_STARTS = (bytes([_WHOLE_BYTES]), bytes([_PIECE]))


class InPieces(NamedTuple):
    """Which messages go in pieces: those of at least ``from_bytes``, in pieces of at most ``piece_bytes``."""

    from_bytes: int
    piece_bytes: int


@dataclass(frozen=True, eq=False, slots=True)
class LongMessage:
    """A message that is sent in pieces. ``bytes()`` gives it as one.

    Attributes:
        buffers: its content, in order, rows of arrays one behind the other; their memory must stay as it is until the
            last piece was made.
        size: of all of them, bytes.
        piece_bytes: largest content of a piece. There are as few as this allows, equally long but for the last, which
            may be a few bytes shorter.
    """

    buffers: Sequence[Any]
    size: int
    piece_bytes: int

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> bytes:
        return b"".join(self.buffers)

    def pieces(self) -> Iterator[bytes]:
        """Yield the messages to send."""
        parts: list[memoryview] = []
        ready = sent = 0
        pieces = -(-self.size // self.piece_bytes)
        piece_bytes = -(-self.size // max(1, pieces))
        for buffer in self.buffers:
            view = memoryview(buffer).cast("B")
            while view:
                part = view[: piece_bytes - ready]
                view = view[len(part) :]
                parts.append(part)
                ready += len(part)
                if ready == piece_bytes or sent + ready == self.size:
                    whole = b"" if sent else _STARTS[0] + varint(self.size)
                    yield b"".join((whole, _STARTS[1], varint(ready), *parts))
                    sent, ready = sent + ready, 0
                    parts.clear()


def is_piece(data: bytes, *, of_one_begun: bool = False) -> bool:
    """Whether a message is a piece of a longer one; ``of_one_begun``, not its first."""
    return data[:1] in (_STARTS[1:] if of_one_begun else _STARTS)


def whole_message(first: bytes, others: Iterable[bytes], limits: WireLimits) -> memoryview | None:
    """Put a message together.

    Args:
        first: its first piece.
        others: gives the others; nothing is taken from it once the message is whole.
        limits: ``max_message_bytes`` is checked before memory is taken.

    Returns:
        The message, where a message's tensors lie as in one of ``bytes``; None if ``others`` ends before it is whole.

    Raises:
        InputError: these are no pieces of one message.
        LimitError: it is too long.
    """
    size, piece = _read(first)
    if size is None:
        raise InputError("malformed message: a piece of nothing; the first one says how long the message is")
    if size > limits.max_message_bytes:
        raise LimitError(f"a message of {size} bytes; max_message_bytes is {limits.max_message_bytes}")
    memory = np.empty(size + PAYLOAD_ALIGNMENT, np.uint8)
    start = (CONTENT_REMAINDER - memory.ctypes.data) % PAYLOAD_ALIGNMENT
    whole = memory.data[start : start + size]
    got = 0
    rest = iter(others)
    while True:
        if not piece or got + len(piece) > size:
            raise InputError(f"malformed message: a piece of {len(piece)} bytes where {size - got} are left")
        whole[got : got + len(piece)] = piece
        got += len(piece)
        if got == size:
            return whole.toreadonly()
        following = next(rest, None)
        if following is None:
            return None
        again, piece = _read(following)
        if again is not None:
            raise InputError("malformed message: it begins before the one before has ended")


def _read(data: bytes) -> tuple[int | None, memoryview]:
    """Return the message's size, if this is its first piece, and the piece."""
    size, at = None, 0
    if data[:1] == _STARTS[0]:
        size, at = read_varint(data, 1)
    if data[at : at + 1] != _STARTS[1]:
        raise InputError("malformed message: it ends before its last piece")
    length, start = read_varint(data, at + 1)
    if start + length != len(data):
        raise InputError(f"malformed message: a piece claims {length} bytes and has {len(data) - start}")
    return size, memoryview(data)[start:]
