"""The profile of one model: MACs and crossing tensors at every cut point, as data. Reading one needs no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.errors import InputError
from splitinfer.files import read_json, replacing
from splitinfer.records import Record, number, short

SCHEMA_VERSION = 1

MAX_ELEMENTS = 10**15
"""Most elements of one tensor in a profile that is read."""

MAX_BITS_PER_ELEMENT = 1e6
"""Most that a codec makes of an element, in a profile that is read."""

_BITS_OF = {
    "bool": 8,
    "uint8": 8,
    "int8": 8,
    "float8_e4m3fn": 8,
    "float8_e5m2": 8,
    "int16": 16,
    "uint16": 16,
    "float16": 16,
    "bfloat16": 16,
    "int32": 32,
    "uint32": 32,
    "float32": 32,
    "int64": 64,
    "uint64": 64,
    "float64": 64,
    "complex64": 64,
    "complex128": 128,
}


@dataclass(frozen=True)
class TensorRecord:
    """One tensor that crosses a cut: shape, dtype (``"float32"``), and a name in the graph that is for reading only."""

    name: str = field(compare=False)
    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bits(self) -> int:
        """Bits on the wire in the model's own dtype."""
        return self.elements * _BITS_OF[self.dtype]


@dataclass(frozen=True)
class LatencyRecord:
    """Measured time of one half in seconds: the median of the repeats and their interquartile range."""

    median_s: float
    iqr_s: float


@dataclass(frozen=True)
class WeightsRecord:
    """What one half reads of the model's weights and buffers: how many elements, and their bits in memory."""

    elements: int
    bits: int


@dataclass(frozen=True)
class CutRecord:
    """One cut point k, or a set cut.

    Attributes:
        index: k; of a set cut its number, far beyond K.
        name: the last layer of the head that has MACs, in the model's own names (``"input"`` at k=0); of a set cut the
            last layers, ``"{left.conv2+right.conv1}"``.
        output_shape: shape of the tensor that the head made last (of the input at k=0).
        macs_before: MACs of the head.
        crossing: tensors that must be sent; empty at k=K.
        head_latency, tail_latency: measured on the host named in ``Profile.latency_host``, where asked for.
        head_weights, tail_weights: that each half holds, those of both in both; None in profiles of older versions.
            Where latencies were measured batch norms are folded away, as they were then.
    """

    index: int
    name: str
    output_shape: tuple[int, ...]
    macs_before: int
    crossing: tuple[TensorRecord, ...]
    head_latency: LatencyRecord | None = None
    tail_latency: LatencyRecord | None = None
    head_weights: WeightsRecord | None = None
    tail_weights: WeightsRecord | None = None

    @property
    def crossing_bits(self) -> int:
        return sum(tensor.bits for tensor in self.crossing)

    @property
    def crossing_elements(self) -> int:
        return sum(tensor.elements for tensor in self.crossing)


@dataclass(frozen=True)
class CodecRecord:
    """What one codec made of the tensors of one cut, means over the pictures that were tried.

    Attributes:
        cut: k.
        codec: its name.
        bits: of all crossing tensors together, as they were really encoded.
        encode_s, decode_s: time, one thread of the host of the measurement.
        error: root mean square of the answer's difference, relative to the answer's own.
        same_top: share of the pictures whose largest entry of the answer stayed the same.

    Shipped profiles hold bits alone: times are a machine's, and answers of models without trained weights say nothing.
    """

    cut: int
    codec: str
    bits: float
    encode_s: float | None = None
    decode_s: float | None = None
    error: float | None = None
    same_top: float | None = None

    @property
    def is_bits_alone(self) -> bool:
        return self.encode_s is None


@dataclass(frozen=True)
class Profile:
    """c^k and d^k of one model at one input size, with what they were computed from.

    Attributes:
        model: name of the card, import path or class.
        inputs: the tensors of one inference request (batch included).
        parameters: number of parameter elements.
        total_macs: C, MACs of one inference. One multiply-accumulate counts as one.
        cuts: cut points 0..K in order.
        uncounted_ops: operators in the graph that no MAC rule covers, with how often each occurs.
        latency_host: where and how latencies were measured (processor, threads, repeats); None if they were not.
        codecs: what codecs make of the crossing tensors, where that was measured.
        codecs_from: in a line, the pictures and weights of that measurement.
        outputs: the tensors of one answer; empty in profiles of older versions.
        set_cuts: cuts whose heads are no prefix of the captured order and that send fewer bits than all cuts 0..K of no
            more MACs, by rising MACs. Most models have none, and profiles of older versions do not know them.
    """

    model: str
    inputs: tuple[TensorRecord, ...]
    parameters: int
    total_macs: int
    cuts: tuple[CutRecord, ...]
    uncounted_ops: dict[str, int] = field(default_factory=dict)
    latency_host: dict[str, Any] | None = None
    codecs: tuple[CodecRecord, ...] = ()
    outputs: tuple[TensorRecord, ...] = ()
    set_cuts: tuple[CutRecord, ...] = ()
    codecs_from: str = ""

    def cut(self, k: int) -> CutRecord:
        """Return a cut 0..K or a set cut by its number.

        Raises:
            KeyError: there is none.
        """
        if 0 <= k < len(self.cuts):
            return self.cuts[k]
        return {cut.index: cut for cut in self.set_cuts}[k]

    def compute_share(self, k: int) -> float:
        """Return c^k, of a set cut likewise: the MACs before it over all."""
        return float(self.compute_ratio[k]) if k < len(self.cuts) else self.cut(k).macs_before / self.total_macs

    @property
    def num_cuts(self) -> int:
        """K: cut points are 0..K."""
        return len(self.cuts) - 1

    @property
    def input_bits(self) -> int:
        """D in the model's own dtypes: the bits that cross at k=0."""
        return self.cuts[0].crossing_bits

    @property
    def output_bits(self) -> int:
        """Bits of one answer in the model's own dtypes; 0 where the profile does not know its outputs."""
        return sum(tensor.bits for tensor in self.outputs)

    @property
    def input_elements(self) -> int:
        """Elements that cross at k=0; D at b bits per element is b times this."""
        return self.cuts[0].crossing_elements

    @cached_property
    def compute_ratio(self) -> NDArray[np.float64]:
        """c^0..c^K, shape (K+1,), strictly increasing from 0 to 1."""
        if self.total_macs == 0:
            return np.array([0.0, 1.0])
        return np.array([cut.macs_before for cut in self.cuts], dtype=np.float64) / self.total_macs

    @cached_property
    def feature_ratio(self) -> NDArray[np.float64]:
        """d^0..d^K in the model's own dtypes, shape (K+1,), from 1 to 0."""
        return np.array([cut.crossing_bits for cut in self.cuts], dtype=np.float64) / self.input_bits

    @cached_property
    def crossing_elements(self) -> NDArray[np.int64]:
        """Elements that cross each cut, shape (K+1,)."""
        return np.array([cut.crossing_elements for cut in self.cuts], dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary whose keys are the attributes' names."""
        record = asdict(self)
        for kind, cuts in (("cuts", self.cuts), ("set_cuts", self.set_cuts)):
            record[kind] = [
                {key: value for key, value in asdict(cut).items() if value is not None}
                | {"crossing_bits": cut.crossing_bits}
                for cut in cuts
            ]
        if not self.set_cuts:
            del record["set_cuts"]
        if self.latency_host is None:
            del record["latency_host"]
        record["codecs"] = [asdict(one) for one in self.codecs if not one.is_bits_alone]
        record["codec_bits_per_element"] = self._bits_per_element()
        for name in ("codecs", "codec_bits_per_element", "codecs_from"):
            if not record[name]:
                del record[name]
        return {
            "schema_version": SCHEMA_VERSION,
            "num_cuts": self.num_cuts,
            "input_bits": self.input_bits,
            "compute_ratio": self.compute_ratio.tolist(),
            "feature_ratio": self.feature_ratio.tolist(),
            **record,
        }

    def _bits_per_element(self) -> dict[str, list[float | None]]:
        """By codec, the bits of each cut that sends something, set cuts last, over the elements that cross it.

        None where a cut was not measured.
        """
        places = {cut.index: place for place, cut in enumerate(_sending(self.cuts, self.set_cuts))}
        found: dict[str, list[float | None]] = {}
        for one in self.codecs:
            if one.is_bits_alone:
                row = found.setdefault(one.codec, [None] * len(places))
                row[places[one.cut]] = round(one.bits / self.cut(one.cut).crossing_elements, 4)
        return found

    def save(self, path: str | Path) -> None:
        """Write the profile as JSON with a schema version."""
        with replacing(path) as part:
            part.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile that ``save`` wrote.

        Raises:
            InputError: the file is absent, is not a profile, or has another schema version.
        """
        try:
            record = read_json(path)
        except OSError as error:
            raise InputError(f"cannot read profile {path}: {error.strerror}") from None
        except ValueError as error:
            raise InputError(f"{path} is not a profile: {error}") from None
        return cls.from_dict(record, source=str(path))

    @classmethod
    def from_dict(cls, record: Any, *, source: str = "profile") -> Profile:
        """Build a profile from what ``to_dict`` returned; ratios are recomputed, never trusted.

        Args:
            record: what JSON holds.
            source: the start of an error's line.

        Raises:
            InputError: it is no profile, of another schema, or damaged.
        """
        if not isinstance(record, dict) or "schema_version" not in record:
            raise InputError(f"{source} is not a profile: it has no schema_version")
        if record["schema_version"] != SCHEMA_VERSION:
            raise InputError(
                f"{source} has profile schema {short(record['schema_version'])}; "
                f"this version reads schema {SCHEMA_VERSION}"
            )
        try:
            profile = _profile(Record(record))
        except InputError as error:
            raise InputError(f"{source} is not a profile: {error}") from None
        profile._validate(source)
        return profile

    def _validate(self, source: str) -> None:
        macs = [cut.macs_before for cut in self.cuts]
        if len(self.cuts) < 2 or [cut.index for cut in self.cuts] != list(range(len(self.cuts))):
            raise InputError(f"{source} is not a profile: cuts must be numbered 0..K")
        if macs[0] != 0 or macs[-1] != self.total_macs:
            raise InputError(f"{source} is not a profile: macs_before must run from 0 to total_macs")
        if self.total_macs and any(later <= earlier for earlier, later in pairwise(macs)):
            raise InputError(f"{source} is not a profile: macs_before must strictly increase")
        if {one.cut for one in self.codecs} - {cut.index for cut in _sending(self.cuts, self.set_cuts)}:
            raise InputError(f"{source} is not a profile: codecs are about cuts that send something")
        if self.cuts[-1].crossing or not self.cuts[0].crossing_bits:
            raise InputError(f"{source} is not a profile: something must cross at k=0 and nothing at k=K")
        numbers = [self.num_cuts, *(cut.index for cut in self.set_cuts)]
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            raise InputError(f"{source} is not a profile: set_cuts must be numbered beyond K, rising")
        if any(not (0 <= cut.macs_before < self.total_macs and cut.crossing) for cut in self.set_cuts):
            raise InputError(
                f"{source} is not a profile: a set cut must have fewer MACs than the model and send something"
            )


def _profile(record: Record) -> Profile:
    cuts = tuple(_cut(item) for item in record.tables("cuts"))
    set_cuts = tuple(_cut(item) for item in record.tables("set_cuts", may_lack=True))
    uncounted = record.table("uncounted_ops")
    return Profile(
        model=record.text("model"),
        inputs=_tensors(record, "inputs"),
        parameters=record.whole("parameters"),
        total_macs=record.whole("total_macs"),
        cuts=cuts,
        uncounted_ops={name: uncounted.whole(name) for name in uncounted.names()},
        latency_host=record.table("latency_host").plain() if record.has("latency_host") else None,
        codecs=(
            *(_codec(item) for item in record.tables("codecs", may_lack=True)),
            *_codec_bits(record, _sending(cuts, set_cuts)),
        ),
        outputs=_tensors(record, "outputs", may_lack=True),
        set_cuts=set_cuts,
        codecs_from=record.text("codecs_from", ""),
    )


def _tensors(record: Record, name: str, *, may_lack: bool = False) -> tuple[TensorRecord, ...]:
    return tuple(_tensor(item) for item in record.tables(name, may_lack=may_lack))


def _tensor(item: Record) -> TensorRecord:
    record = TensorRecord(item.text("name"), item.wholes("shape"), item.text("dtype"))
    if record.dtype not in _BITS_OF:
        raise InputError(f"{item.at('dtype')} must be one of {', '.join(_BITS_OF)}, not {record.dtype[:60]!r}")
    if record.elements > MAX_ELEMENTS:
        raise InputError(f"{item.at('shape')} makes more than {MAX_ELEMENTS:.0e} elements")
    return record


def _latency(item: Record, name: str) -> LatencyRecord | None:
    if not item.has(name):
        return None
    record = item.table(name)
    return LatencyRecord(record.number("median_s"), record.number("iqr_s"))


def _weights(item: Record, name: str) -> WeightsRecord | None:
    if not item.has(name):
        return None
    record = item.table(name)
    return WeightsRecord(record.whole("elements"), record.whole("bits"))


def _codec(item: Record) -> CodecRecord:
    numbers = {name: item.number(name) for name in ("bits", "encode_s", "decode_s", "error", "same_top")}
    return CodecRecord(item.whole("cut"), item.text("codec"), **numbers)


def _sending(cuts: tuple[CutRecord, ...], set_cuts: tuple[CutRecord, ...]) -> tuple[CutRecord, ...]:
    """Cuts that send something, in the order of the table of bits."""
    return *cuts[:-1], *set_cuts


def _codec_bits(record: Record, cuts: tuple[CutRecord, ...]) -> list[CodecRecord]:
    found: list[CodecRecord] = []
    if not record.has("codec_bits_per_element"):
        return found
    table = record.table("codec_bits_per_element")
    for codec in table.names():
        row = table.items(codec)
        if len(row) != len(cuts):
            raise InputError(f"{table.at(codec)} must have {len(cuts)} numbers, one for each cut that sends something")
        for cut, (place, value) in zip(cuts, row, strict=True):
            if value is not None:
                bits = number(value, place, most=MAX_BITS_PER_ELEMENT) * cut.crossing_elements
                found.append(CodecRecord(cut.index, codec, bits))
    return found


def _cut(item: Record) -> CutRecord:
    return CutRecord(
        index=item.whole("index"),
        name=item.text("name"),
        output_shape=item.wholes("output_shape"),
        macs_before=item.whole("macs_before"),
        crossing=_tensors(item, "crossing"),
        head_latency=_latency(item, "head_latency"),
        tail_latency=_latency(item, "tail_latency"),
        head_weights=_weights(item, "head_weights"),
        tail_weights=_weights(item, "tail_weights"),
    )
