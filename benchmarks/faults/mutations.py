"""Small changes of bytes, as a fuzzer makes them."""

from __future__ import annotations

import random

MOST_BYTES = 1 << 16


def mutated(draw: random.Random, data: bytes) -> bytes:
    """Return the bytes with a few changes: turned bits, cut, repeated, inserted."""
    changed = bytearray(data)
    for _ in range(draw.randrange(1, 8)):
        at = draw.randrange(len(changed) + 1)
        kind = draw.randrange(5)
        if kind == 0 and changed:
            changed[at % len(changed)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[at:at] = draw.randbytes(draw.randrange(1, 16))
        elif kind == 2:
            del changed[at : at + draw.randrange(1, 64)]
        elif kind == 3:
            changed[at:at] = changed[at : at + draw.randrange(1, 64)] * draw.randrange(1, 64)
        else:
            changed[at:at] = draw.choice((b"\xff" * 9 + b"\x01", b"\x00" * 8, b"\x80" * 10, b"[" * 100, b"-1", b"nan"))
    return bytes(changed[:MOST_BYTES])
