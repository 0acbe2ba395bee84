"""A device's part of a period as a message to its edge, and back."""

from __future__ import annotations

from typing import Any

from splitinfer.scheduling.period import PER_DEVICE, Period
from splitinfer.wire import splitinfer_pb2 as pb

_PER_SERVICE = {
    "local_queue_cycles": ("backlog", 0),
    "transmission_queue_bits": ("backlog", 1),
    "local_frequency_hz": ("service_rate", 0),
    "rate_bps": ("service_rate", 1),
}
"""What a device measures per service: which array of ``Period``, and which stage of it."""


def to_message(period: Period) -> pb.Telemetry:
    """Return the message of one device's period, arrays of one device."""
    measured: dict[str, Any] = {
        name: getattr(period, array)[stage, 0].tolist() for name, (array, stage) in _PER_SERVICE.items()
    }
    measured |= {name: float(getattr(period, name)[0]) for name in PER_DEVICE}
    return pb.Telemetry(slots=period.slots, **measured)


def take(message: pb.Telemetry, period: Period, device: int) -> None:
    """Put a device's message into its row of the period of all devices."""
    for name, (array, stage) in _PER_SERVICE.items():
        numbers = getattr(message, name)
        getattr(period, array)[stage, device, : len(numbers)] = numbers
    for name in PER_DEVICE:
        getattr(period, name)[device] = getattr(message, name)
