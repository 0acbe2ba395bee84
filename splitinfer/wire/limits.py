"""What a receiver accepts before it allocates or computes anything."""

from __future__ import annotations

from dataclasses import dataclass, fields

from splitinfer.errors import InputError

MIB = 1 << 20

# Past this, one length cannot be a protobuf field and torch sizes come near their 63 bits.
_LARGEST = 1 << 31


class LimitError(InputError):
    """A message or tensor is larger than a limit; the message names the limit and its value."""


@dataclass(frozen=True)
class WireLimits:
    """Limits of one end of the wire.

    Attributes:
        max_message_bytes: one whole message. The default holds a 64x224x224 float32 map (12.8 MB) five times.
        max_tensor_bytes: one tensor, in elements times their size after expansion and decoding.
        max_tensors: tensors in one message. DenseNets cross a cut with up to 25.
        max_dims: dimensions of one tensor.
        max_decoded_bytes: all tensors of a message together, as far as decoding them takes memory beside the message.
        max_header_bytes: the typed header of a message, which is parsed before anything else is known, and any request
            that has no payload.
        max_fields: protobuf fields of a message around header and payload, of which ours have three; empty ones cost
            two bytes to send and far more to read.
        max_description_bytes: what a server says of its models.
    """

    max_message_bytes: int = 64 * MIB
    max_tensor_bytes: int = 64 * MIB
    max_tensors: int = 256
    max_dims: int = 16
    max_header_bytes: int = 256 * 1024
    max_decoded_bytes: int = 256 * MIB
    max_fields: int = 1024
    max_description_bytes: int = 4 * MIB

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _LARGEST:
                raise InputError(f"{field.name} must be a whole number from 1 to 2^31 - 1, not {value!r}")
