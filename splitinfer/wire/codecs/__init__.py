"""Codecs: how the elements of one tensor become bytes; and what one end of the wire sends and accepts.

A codec has a number and a version that travel with every tensor, so that a new codec, or a changed one, is refused by
a peer that does not know it instead of being misread. To add one, write its class in a module here and add it to
``CODECS`` (``docs/wire.md`` shows how). A changed codec gets another version and stands beside the one before for as
long as peers send that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from splitinfer.errors import InputError, MissingExtraError
from splitinfer.wire.codecs.affine import AffineCodec
from splitinfer.wire.codecs.ans import EXTRA, IS_INSTALLED, PACKAGE, AnsCodec
from splitinfer.wire.codecs.base import Buffer, Codec
from splitinfer.wire.codecs.bfloat16 import BFloat16Codec
from splitinfer.wire.codecs.float16 import Float16Codec
from splitinfer.wire.codecs.raw import RawCodec
from splitinfer.wire.codecs.zstd import ZstdCodec
from splitinfer.wire.limits import WireLimits

__all__ = ["CODECS", "INSTALLED", "RAW", "Buffer", "Codec", "Wire", "codecs_named"]

RAW = RawCodec()
# Of several versions of one name the first is sent to a peer that accepts it.
_PLAIN: tuple[Codec, ...] = (
    RAW,
    Float16Codec(),
    BFloat16Codec(),
    AffineCodec(8, 3),
    AffineCodec(4, 4),
    AffineCodec(2, 5),
)
_ANS = (
    AnsCodec("int4+ans", 68, levels=16, step=0.5, bits=2.4),
    AnsCodec("int2+ans", 69, levels=4, step=1.0, bits=1.5),
    AnsCodec("ternary+ans", 70, levels=3, step=2.5, bits=0.7),
)
CODECS: tuple[Codec, ...] = (*_PLAIN, *(ZstdCodec(codec) for codec in _PLAIN), *_ANS)
INSTALLED: tuple[Codec, ...] = tuple(codec for codec in CODECS if IS_INSTALLED or codec not in _ANS)
"""Those that can encode and decode here; the others lack an extra."""


@dataclass(frozen=True)
class Wire:
    """One end of the wire, handed through every encode and decode.

    Attributes:
        limits: of messages in both directions.
        codec: that tensors are sent with.
        accepts: codecs that are decoded.
    """

    limits: WireLimits = field(default_factory=WireLimits)
    codec: Codec = RAW
    accepts: tuple[Codec, ...] = INSTALLED

    def find(self, number: int, version: int) -> Codec:
        """Return the accepted codec of a number and version.

        Raises:
            InputError: there is none.
        """
        for codec in self.accepts:
            if (codec.number, codec.version) == (number, version):
                return codec
        known = ", ".join(f"{codec.name} {codec.number} version {codec.version}" for codec in self.accepts)
        raise InputError(f"unknown codec {number} version {version}; accepted: {known}")


def about(unknown: str) -> str:
    """Return what is to be said of a name that is no codec of tensors; mostly nothing."""
    if unknown.partition(":")[0].partition("+")[0] in ("jpeg", "webp", "uint8"):
        return ", which is for pictures: send them with infer_picture"
    return ""


def codecs_named(names: Iterable[str], *, installed: bool = False) -> tuple[Codec, ...]:
    """Return every version of the codecs of these names, in the order of ``CODECS``.

    Args:
        names: of codecs.
        installed: refuse those that lack an extra here.

    Raises:
        InputError: there is no codec of a name.
        MissingExtraError: one lacks its extra.
    """
    names, known = set(names), list(dict.fromkeys(codec.name for codec in CODECS))
    for unknown in sorted(names.difference(known)):
        raise InputError(f"codec: there is no codec {unknown!r}{about(unknown)}; known: {', '.join(known)}")
    if installed and names.difference(codec.name for codec in INSTALLED):
        raise MissingExtraError(PACKAGE, EXTRA)
    return tuple(codec for codec in CODECS if codec.name in names)
