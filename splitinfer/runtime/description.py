"""What a server says of itself: models, cuts, fingerprints, limits, versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from splitinfer import __version__
from splitinfer.errors import InputError, RemoteError
from splitinfer.runtime.tails import HeldModel, unknown_model, unknown_version
from splitinfer.wire import MAX_PROTOCOL_VERSION, MIN_PROTOCOL_VERSION, Wire
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.codecs import INSTALLED, RAW, Codec
from splitinfer.wire.dtypes import dtype_number, dtype_of_number
from splitinfer.wire.layout import ArraySpec
from splitinfer.wire.limits import LimitError, WireLimits

if TYPE_CHECKING:
    from splitinfer.graph import TensorSpec
    from splitinfer.graph.specs import Cut


@dataclass(frozen=True)
class RemoteCut:
    """A cut as the server describes it: index, layer name, MACs before it, crossing tensors.

    ``fingerprint`` is what requests for a set cut carry; empty for cuts 0..K, whose requests carry the model's.
    """

    index: int
    name: str
    macs_before: int
    crossing: tuple[ArraySpec, ...]
    fingerprint: str = ""


@dataclass(frozen=True)
class RemoteModel:
    """A model as the server describes it.

    ``tolerance`` is the largest difference of its answers to those of the captured graph, relative to the largest
    magnitude of each output tensor; 0 promises the same bits. ``engine`` computes its tails. ``preprocessing`` is the
    digest of what it makes of pictures sent at cut 0; empty where that is not known. ``set_cuts`` is None as long as
    the server has not looked for them: at its start with ``serve --warm``, else when a set cut is first asked for.
    """

    name: str
    fingerprint: str
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    cuts: tuple[RemoteCut, ...]
    tolerance: float = 0.0
    engine: str = ""
    preprocessing: str = ""
    set_cuts: tuple[RemoteCut, ...] | None = None

    @property
    def num_cuts(self) -> int:
        return len(self.cuts) - 1


@dataclass(frozen=True)
class EdgeDescription:
    """What a server holds and accepts.

    Attributes:
        models: by name.
        max_message_bytes, max_tensor_bytes, max_tensors: the server's limits.
        codecs: those that the server accepts and this end knows, with what they need installed.
        protocol_versions: lowest and highest that the server speaks.
        server_version: of the splitinfer package there.
        takes_pieces: whether requests in streams may come in pieces.
    """

    models: Mapping[str, RemoteModel]
    max_message_bytes: int
    max_tensor_bytes: int
    max_tensors: int
    codecs: tuple[Codec, ...]
    protocol_versions: tuple[int, int]
    server_version: str
    takes_pieces: bool = False


def describe(data: bytes, held: Mapping[str, HeldModel], wire: Wire) -> bytes:
    """Answer a ``DescribeRequest``, bytes to bytes.

    Raises:
        InputError: malformed or oversized request.
        RemoteError: a model or version that the server does not have.
    """
    if len(data) > wire.limits.max_header_bytes:
        raise LimitError(f"a request of {len(data)} bytes; max_header_bytes is {wire.limits.max_header_bytes}")
    try:
        request = pb.DescribeRequest.FromString(data)
    except DecodeError as error:
        raise InputError(f"malformed request: {error}") from None
    # 0 is what a client sends that does not care, a command-line tool with reflection say.
    version = request.protocol_version or MAX_PROTOCOL_VERSION
    if not MIN_PROTOCOL_VERSION <= version <= MAX_PROTOCOL_VERSION:
        raise unknown_version(version)
    for name in request.models:
        if name not in held:
            raise unknown_model(name, held)
    names = dict.fromkeys(request.models) or held
    return pb.DescribeReply(
        min_protocol_version=MIN_PROTOCOL_VERSION,
        max_protocol_version=MAX_PROTOCOL_VERSION,
        models=[_describe_model(name, held[name]) for name in names],
        **describe_wire(wire),
        server_version=__version__,
        takes_pieces=True,
    ).SerializeToString()


def read_description(data: bytes, limits: WireLimits) -> EdgeDescription:
    """Read a ``DescribeReply``.

    Raises:
        RemoteError: malformed or oversized.
    """
    try:
        if len(data) > limits.max_description_bytes:
            raise LimitError(f"{len(data)} bytes; max_description_bytes is {limits.max_description_bytes}")
        reply = pb.DescribeReply.FromString(data)
        models = {model.name: _read_model(model) for model in reply.models}
    except (DecodeError, InputError) as error:
        raise RemoteError(f"the server's description cannot be read: {error}", status="INTERNAL") from None
    return EdgeDescription(
        models=models,
        max_message_bytes=reply.limits.max_message_bytes,
        max_tensor_bytes=reply.limits.max_tensor_bytes,
        max_tensors=reply.limits.max_tensors,
        codecs=read_codecs(reply.codecs),
        protocol_versions=(reply.min_protocol_version, reply.max_protocol_version),
        server_version=reply.server_version,
        takes_pieces=reply.takes_pieces,
    )


def describe_wire(wire: Wire) -> dict[str, Any]:
    """Return the fields ``limits`` and ``codecs`` in which one end tells the other what it accepts."""
    limits = {name: getattr(wire.limits, name) for name in ("max_message_bytes", "max_tensor_bytes", "max_tensors")}
    codecs = [pb.Codec(id=codec.number, version=codec.version, name=codec.name) for codec in wire.accepts]
    return {"limits": pb.Limits(**limits), "codecs": codecs}


def read_codecs(codecs: Iterable[pb.Codec]) -> tuple[Codec, ...]:
    """Return the codecs of the other end that this one knows; every end takes raw."""
    accepted = {(codec.id, codec.version) for codec in codecs} | {(RAW.number, RAW.version)}
    return tuple(codec for codec in INSTALLED if (codec.number, codec.version) in accepted)


def _describe_model(name: str, held: HeldModel) -> pb.ModelDescription:
    set_cuts = held.split.found_set_cuts  # a search is nothing for a stranger to start
    return pb.ModelDescription(
        name=name,
        fingerprint=held.fingerprint,
        inputs=_describe_tensors(held.split.inputs),
        outputs=_describe_tensors(held.split.outputs),
        cuts=[_describe_cut(cut) for cut in held.split.cuts],
        set_cuts_are_known=set_cuts is not None,
        set_cuts=[_describe_cut(cut, held.split.fingerprint_at(cut.index)) for cut in set_cuts or ()],
        engine=held.split.engine,
        tolerance=held.tolerance,
        preprocessing=held.preprocessing,
    )


def _describe_cut(cut: Cut, fingerprint: str = "") -> pb.CutDescription:
    return pb.CutDescription(
        index=cut.index,
        name=cut.name,
        macs_before=cut.macs_before,
        crossing=_describe_tensors(cut.crossing),
        fingerprint=fingerprint,
    )


def _describe_tensors(specs: Iterable[TensorSpec]) -> list[pb.TensorDescription]:
    from splitinfer.wire.torch_tensors import numpy_dtype

    return [
        pb.TensorDescription(dtype=dtype_number(numpy_dtype(spec.dtype)), shape=spec.shape)  # type: ignore[arg-type]
        for spec in specs
    ]


def _read_model(model: pb.ModelDescription) -> RemoteModel:
    return RemoteModel(
        name=model.name,
        fingerprint=model.fingerprint,
        inputs=_read_tensors(model.inputs),
        outputs=_read_tensors(model.outputs),
        cuts=tuple(map(_read_cut, model.cuts)),
        engine=model.engine,
        tolerance=model.tolerance,
        preprocessing=model.preprocessing,
        set_cuts=tuple(map(_read_cut, model.set_cuts)) if model.set_cuts_are_known else None,
    )


def _read_cut(cut: pb.CutDescription) -> RemoteCut:
    return RemoteCut(cut.index, cut.name, cut.macs_before, _read_tensors(cut.crossing), cut.fingerprint)


def _read_tensors(descriptions: Iterable[pb.TensorDescription]) -> tuple[ArraySpec, ...]:
    return tuple(ArraySpec(tuple(each.shape), dtype_of_number(each.dtype)) for each in descriptions)
