"""Tensors as they arrive: packed, joined to one message's bytes, unpacked."""

from __future__ import annotations

import torch

from splitinfer.wire import WireLimits, unpack
from splitinfer.wire.tensors import pack

LIMITS = WireLimits()


def through_the_wire(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    payload = pack(tensors)
    data = b"".join(payload.buffers)
    assert len(data) == payload.size
    return unpack(payload.headers, memoryview(data), LIMITS)
