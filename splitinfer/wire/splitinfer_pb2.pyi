from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_BOOL: _ClassVar[DType]
    DTYPE_UINT8: _ClassVar[DType]
    DTYPE_INT8: _ClassVar[DType]
    DTYPE_UINT16: _ClassVar[DType]
    DTYPE_INT16: _ClassVar[DType]
    DTYPE_UINT32: _ClassVar[DType]
    DTYPE_INT32: _ClassVar[DType]
    DTYPE_UINT64: _ClassVar[DType]
    DTYPE_INT64: _ClassVar[DType]
    DTYPE_FLOAT16: _ClassVar[DType]
    DTYPE_BFLOAT16: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]
    DTYPE_FLOAT64: _ClassVar[DType]
    DTYPE_COMPLEX32: _ClassVar[DType]
    DTYPE_COMPLEX64: _ClassVar[DType]
    DTYPE_COMPLEX128: _ClassVar[DType]
DTYPE_UNSPECIFIED: DType
DTYPE_BOOL: DType
DTYPE_UINT8: DType
DTYPE_INT8: DType
DTYPE_UINT16: DType
DTYPE_INT16: DType
DTYPE_UINT32: DType
DTYPE_INT32: DType
DTYPE_UINT64: DType
DTYPE_INT64: DType
DTYPE_FLOAT16: DType
DTYPE_BFLOAT16: DType
DTYPE_FLOAT32: DType
DTYPE_FLOAT64: DType
DTYPE_COMPLEX32: DType
DTYPE_COMPLEX64: DType
DTYPE_COMPLEX128: DType

class TensorHeader(_message.Message):
    __slots__ = ("dtype", "shape", "stride_order", "expanded_dims", "codec", "codec_version", "byte_offset", "byte_size")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STRIDE_ORDER_FIELD_NUMBER: _ClassVar[int]
    EXPANDED_DIMS_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    CODEC_VERSION_FIELD_NUMBER: _ClassVar[int]
    BYTE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    BYTE_SIZE_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    stride_order: _containers.RepeatedScalarFieldContainer[int]
    expanded_dims: _containers.RepeatedScalarFieldContainer[int]
    codec: int
    codec_version: int
    byte_offset: int
    byte_size: int
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., stride_order: _Optional[_Iterable[int]] = ..., expanded_dims: _Optional[_Iterable[int]] = ..., codec: _Optional[int] = ..., codec_version: _Optional[int] = ..., byte_offset: _Optional[int] = ..., byte_size: _Optional[int] = ...) -> None: ...

class RequestHeader(_message.Message):
    __slots__ = ("protocol_version", "request_id", "model", "fingerprint", "cut", "tensors", "reply_codec", "trace_context")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    REPLY_CODEC_FIELD_NUMBER: _ClassVar[int]
    TRACE_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    request_id: int
    model: str
    fingerprint: str
    cut: int
    tensors: _containers.RepeatedCompositeFieldContainer[TensorHeader]
    reply_codec: Codec
    trace_context: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., request_id: _Optional[int] = ..., model: _Optional[str] = ..., fingerprint: _Optional[str] = ..., cut: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[TensorHeader, _Mapping]]] = ..., reply_codec: _Optional[_Union[Codec, _Mapping]] = ..., trace_context: _Optional[bytes] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("header", "padding", "payload", "whole_bytes", "piece")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WHOLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    header: RequestHeader
    padding: bytes
    payload: bytes
    whole_bytes: int
    piece: bytes
    def __init__(self, header: _Optional[_Union[RequestHeader, _Mapping]] = ..., padding: _Optional[bytes] = ..., payload: _Optional[bytes] = ..., whole_bytes: _Optional[int] = ..., piece: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "message", "retry_after_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    retry_after_ms: int
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class ReplyHeader(_message.Message):
    __slots__ = ("request_id", "refusal", "tensors", "queue_s", "tail_s", "server_s")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    TAIL_S_FIELD_NUMBER: _ClassVar[int]
    SERVER_S_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    refusal: Refusal
    tensors: _containers.RepeatedCompositeFieldContainer[TensorHeader]
    queue_s: float
    tail_s: float
    server_s: float
    def __init__(self, request_id: _Optional[int] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., tensors: _Optional[_Iterable[_Union[TensorHeader, _Mapping]]] = ..., queue_s: _Optional[float] = ..., tail_s: _Optional[float] = ..., server_s: _Optional[float] = ...) -> None: ...

class InferReply(_message.Message):
    __slots__ = ("header", "padding", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: ReplyHeader
    padding: bytes
    payload: bytes
    def __init__(self, header: _Optional[_Union[ReplyHeader, _Mapping]] = ..., padding: _Optional[bytes] = ..., payload: _Optional[bytes] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("models", "protocol_version")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedScalarFieldContainer[str]
    protocol_version: int
    def __init__(self, models: _Optional[_Iterable[str]] = ..., protocol_version: _Optional[int] = ...) -> None: ...

class TensorDescription(_message.Message):
    __slots__ = ("dtype", "shape")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class CutDescription(_message.Message):
    __slots__ = ("index", "name", "macs_before", "crossing", "fingerprint")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MACS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    CROSSING_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    macs_before: int
    crossing: _containers.RepeatedCompositeFieldContainer[TensorDescription]
    fingerprint: str
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., macs_before: _Optional[int] = ..., crossing: _Optional[_Iterable[_Union[TensorDescription, _Mapping]]] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class ModelDescription(_message.Message):
    __slots__ = ("name", "fingerprint", "inputs", "outputs", "cuts", "tolerance", "engine", "preprocessing", "set_cuts_are_known", "set_cuts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    CUTS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_FIELD_NUMBER: _ClassVar[int]
    SET_CUTS_ARE_KNOWN_FIELD_NUMBER: _ClassVar[int]
    SET_CUTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorDescription]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorDescription]
    cuts: _containers.RepeatedCompositeFieldContainer[CutDescription]
    tolerance: float
    engine: str
    preprocessing: str
    set_cuts_are_known: bool
    set_cuts: _containers.RepeatedCompositeFieldContainer[CutDescription]
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorDescription, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorDescription, _Mapping]]] = ..., cuts: _Optional[_Iterable[_Union[CutDescription, _Mapping]]] = ..., tolerance: _Optional[float] = ..., engine: _Optional[str] = ..., preprocessing: _Optional[str] = ..., set_cuts_are_known: _Optional[bool] = ..., set_cuts: _Optional[_Iterable[_Union[CutDescription, _Mapping]]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_tensor_bytes", "max_tensors")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TENSOR_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TENSORS_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_tensor_bytes: int
    max_tensors: int
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_tensor_bytes: _Optional[int] = ..., max_tensors: _Optional[int] = ...) -> None: ...

class Codec(_message.Message):
    __slots__ = ("id", "version", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: int
    version: int
    name: str
    def __init__(self, id: _Optional[int] = ..., version: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("min_protocol_version", "max_protocol_version", "models", "limits", "codecs", "server_version", "takes_pieces")
    MIN_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    TAKES_PIECES_FIELD_NUMBER: _ClassVar[int]
    min_protocol_version: int
    max_protocol_version: int
    models: _containers.RepeatedCompositeFieldContainer[ModelDescription]
    limits: Limits
    codecs: _containers.RepeatedCompositeFieldContainer[Codec]
    server_version: str
    takes_pieces: bool
    def __init__(self, min_protocol_version: _Optional[int] = ..., max_protocol_version: _Optional[int] = ..., models: _Optional[_Iterable[_Union[ModelDescription, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., codecs: _Optional[_Iterable[_Union[Codec, _Mapping]]] = ..., server_version: _Optional[str] = ..., takes_pieces: _Optional[bool] = ...) -> None: ...

class DeviceMessage(_message.Message):
    __slots__ = ("hello", "slot", "farewell")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    FAREWELL_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    slot: Slot
    farewell: Farewell
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., slot: _Optional[_Union[Slot, _Mapping]] = ..., farewell: _Optional[_Union[Farewell, _Mapping]] = ...) -> None: ...

class EdgeMessage(_message.Message):
    __slots__ = ("start", "cuts", "result", "finish")
    START_FIELD_NUMBER: _ClassVar[int]
    CUTS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    start: Start
    cuts: Cuts
    result: Result
    finish: Finish
    def __init__(self, start: _Optional[_Union[Start, _Mapping]] = ..., cuts: _Optional[_Union[Cuts, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "device", "scenario", "fingerprints")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    device: int
    scenario: str
    fingerprints: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, protocol_version: _Optional[int] = ..., device: _Optional[int] = ..., scenario: _Optional[str] = ..., fingerprints: _Optional[_Iterable[str]] = ...) -> None: ...

class Slot(_message.Message):
    __slots__ = ("slot", "pieces", "finished", "arrived", "telemetry", "alone", "under_way")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_FIELD_NUMBER: _ClassVar[int]
    TELEMETRY_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    UNDER_WAY_FIELD_NUMBER: _ClassVar[int]
    slot: int
    pieces: _containers.RepeatedCompositeFieldContainer[TaskPiece]
    finished: _containers.RepeatedCompositeFieldContainer[LocalTask]
    arrived: _containers.RepeatedScalarFieldContainer[int]
    telemetry: Telemetry
    alone: Alone
    under_way: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, slot: _Optional[int] = ..., pieces: _Optional[_Iterable[_Union[TaskPiece, _Mapping]]] = ..., finished: _Optional[_Iterable[_Union[LocalTask, _Mapping]]] = ..., arrived: _Optional[_Iterable[int]] = ..., telemetry: _Optional[_Union[Telemetry, _Mapping]] = ..., alone: _Optional[_Union[Alone, _Mapping]] = ..., under_way: _Optional[_Iterable[int]] = ...) -> None: ...

class TaskPiece(_message.Message):
    __slots__ = ("task", "service", "cut", "arrival_slot", "byte_offset", "message_bytes", "data")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_SLOT_FIELD_NUMBER: _ClassVar[int]
    BYTE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    task: int
    service: int
    cut: int
    arrival_slot: int
    byte_offset: int
    message_bytes: int
    data: bytes
    def __init__(self, task: _Optional[int] = ..., service: _Optional[int] = ..., cut: _Optional[int] = ..., arrival_slot: _Optional[int] = ..., byte_offset: _Optional[int] = ..., message_bytes: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class LocalTask(_message.Message):
    __slots__ = ("task", "service", "cut", "arrival_slot")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_SLOT_FIELD_NUMBER: _ClassVar[int]
    task: int
    service: int
    cut: int
    arrival_slot: int
    def __init__(self, task: _Optional[int] = ..., service: _Optional[int] = ..., cut: _Optional[int] = ..., arrival_slot: _Optional[int] = ...) -> None: ...

class Alone(_message.Message):
    __slots__ = ("retries", "fallbacks")
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    retries: int
    fallbacks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, retries: _Optional[int] = ..., fallbacks: _Optional[_Iterable[int]] = ...) -> None: ...

class Telemetry(_message.Message):
    __slots__ = ("slots", "local_queue_cycles", "transmission_queue_bits", "local_frequency_hz", "rate_bps", "power_w", "max_rate_bps", "local_energy_j", "transmission_energy_j")
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_QUEUE_CYCLES_FIELD_NUMBER: _ClassVar[int]
    TRANSMISSION_QUEUE_BITS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FREQUENCY_HZ_FIELD_NUMBER: _ClassVar[int]
    RATE_BPS_FIELD_NUMBER: _ClassVar[int]
    POWER_W_FIELD_NUMBER: _ClassVar[int]
    MAX_RATE_BPS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ENERGY_J_FIELD_NUMBER: _ClassVar[int]
    TRANSMISSION_ENERGY_J_FIELD_NUMBER: _ClassVar[int]
    slots: int
    local_queue_cycles: _containers.RepeatedScalarFieldContainer[float]
    transmission_queue_bits: _containers.RepeatedScalarFieldContainer[float]
    local_frequency_hz: _containers.RepeatedScalarFieldContainer[float]
    rate_bps: _containers.RepeatedScalarFieldContainer[float]
    power_w: float
    max_rate_bps: float
    local_energy_j: float
    transmission_energy_j: float
    def __init__(self, slots: _Optional[int] = ..., local_queue_cycles: _Optional[_Iterable[float]] = ..., transmission_queue_bits: _Optional[_Iterable[float]] = ..., local_frequency_hz: _Optional[_Iterable[float]] = ..., rate_bps: _Optional[_Iterable[float]] = ..., power_w: _Optional[float] = ..., max_rate_bps: _Optional[float] = ..., local_energy_j: _Optional[float] = ..., transmission_energy_j: _Optional[float] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("starts_in_s", "slots", "slot_wall_s", "seed", "patience_s", "cuts", "limits", "codecs", "tolerance", "first_slot")
    STARTS_IN_S_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOT_WALL_S_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_S_FIELD_NUMBER: _ClassVar[int]
    CUTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    FIRST_SLOT_FIELD_NUMBER: _ClassVar[int]
    starts_in_s: float
    slots: int
    slot_wall_s: float
    seed: int
    patience_s: float
    cuts: _containers.RepeatedScalarFieldContainer[int]
    limits: Limits
    codecs: _containers.RepeatedCompositeFieldContainer[Codec]
    tolerance: float
    first_slot: int
    def __init__(self, starts_in_s: _Optional[float] = ..., slots: _Optional[int] = ..., slot_wall_s: _Optional[float] = ..., seed: _Optional[int] = ..., patience_s: _Optional[float] = ..., cuts: _Optional[_Iterable[int]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., codecs: _Optional[_Iterable[_Union[Codec, _Mapping]]] = ..., tolerance: _Optional[float] = ..., first_slot: _Optional[int] = ...) -> None: ...

class Cuts(_message.Message):
    __slots__ = ("from_slot", "cuts")
    FROM_SLOT_FIELD_NUMBER: _ClassVar[int]
    CUTS_FIELD_NUMBER: _ClassVar[int]
    from_slot: int
    cuts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, from_slot: _Optional[int] = ..., cuts: _Optional[_Iterable[int]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("task", "service", "finish_slot", "reply")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    FINISH_SLOT_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    task: int
    service: int
    finish_slot: int
    reply: bytes
    def __init__(self, task: _Optional[int] = ..., service: _Optional[int] = ..., finish_slot: _Optional[int] = ..., reply: _Optional[bytes] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Farewell(_message.Message):
    __slots__ = ("checked", "wrong", "unanswered", "unexpected", "slot_overruns", "late_cuts", "jobs", "late_jobs", "late_slots", "late_s", "worst_late_s", "host_s", "wall_latency_s")
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    UNANSWERED_FIELD_NUMBER: _ClassVar[int]
    UNEXPECTED_FIELD_NUMBER: _ClassVar[int]
    SLOT_OVERRUNS_FIELD_NUMBER: _ClassVar[int]
    LATE_CUTS_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    LATE_JOBS_FIELD_NUMBER: _ClassVar[int]
    LATE_SLOTS_FIELD_NUMBER: _ClassVar[int]
    LATE_S_FIELD_NUMBER: _ClassVar[int]
    WORST_LATE_S_FIELD_NUMBER: _ClassVar[int]
    HOST_S_FIELD_NUMBER: _ClassVar[int]
    WALL_LATENCY_S_FIELD_NUMBER: _ClassVar[int]
    checked: int
    wrong: int
    unanswered: int
    unexpected: int
    slot_overruns: int
    late_cuts: int
    jobs: int
    late_jobs: int
    late_slots: int
    late_s: float
    worst_late_s: float
    host_s: float
    wall_latency_s: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, checked: _Optional[int] = ..., wrong: _Optional[int] = ..., unanswered: _Optional[int] = ..., unexpected: _Optional[int] = ..., slot_overruns: _Optional[int] = ..., late_cuts: _Optional[int] = ..., jobs: _Optional[int] = ..., late_jobs: _Optional[int] = ..., late_slots: _Optional[int] = ..., late_s: _Optional[float] = ..., worst_late_s: _Optional[float] = ..., host_s: _Optional[float] = ..., wall_latency_s: _Optional[_Iterable[float]] = ...) -> None: ...
