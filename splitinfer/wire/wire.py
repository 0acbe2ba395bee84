"""What one end of the wire sends and accepts, as one value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from splitinfer.wire.codecs import CODECS, RAW, Codec, codecs_named
from splitinfer.wire.limits import WireLimits


@dataclass(frozen=True)
class Wire:
    """Handed through every encode and decode.

    Attributes:
        limits: of messages in both directions.
        codec: that tensors are sent with.
        accepts: codecs that are decoded.
    """

    limits: WireLimits = field(default_factory=WireLimits)
    codec: Codec = RAW
    accepts: tuple[Codec, ...] = CODECS

    @classmethod
    def accepting(cls, limits: WireLimits, names: Iterable[str]) -> Self:
        """Return an end that accepts the codecs of these names, or all for none. Raw is always accepted.

        Raises:
            InputError: there is no codec of a name.
        """
        names = tuple(names)
        return cls(limits, accepts=codecs_named((RAW.name, *names)) if names else CODECS)
